//! Objects behind opaque handles.
//!
//! A handle looks like a heap pointer but points nowhere, so that a program that dereferences one
//! finds out. Slots are reused last-in-first-out, as a heap reuses freed objects: a tracer that
//! takes a handle for an identity will be caught. Slabs of objects whose stale handles the driver
//! recognises (contexts) keep their slots for ever instead.

/// Distance between two handles of one slab.
const STRIDE: u64 = 0x80;

/// Objects of one kind.
pub struct Slab<T> {
    base: u64,
    items: Vec<Option<T>>,
    free: Vec<u32>,
    reuse: bool,
}

impl<T> Slab<T> {
    /// A slab whose handles start at a kind-specific address and are reused.
    pub const fn new(kind: u64) -> Self {
        Slab {
            base: Self::base(kind),
            items: Vec::new(),
            free: Vec::new(),
            reuse: true,
        }
    }

    /// A slab that never gives a handle out twice.
    pub const fn unique(kind: u64) -> Self {
        Slab {
            base: Self::base(kind),
            items: Vec::new(),
            free: Vec::new(),
            reuse: false,
        }
    }

    const fn base(kind: u64) -> u64 {
        // Canonical user-space addresses below where Linux places heaps of PIE programs.
        0x5100_0000_0000 + (kind << 36)
    }

    /// Adds an object and gives its handle.
    pub fn insert(&mut self, item: T) -> u64 {
        let index = match self.free.pop() {
            Some(i) => i as usize,
            None => {
                self.items.push(None);
                self.items.len() - 1
            }
        };
        self.items[index] = Some(item);
        self.base + index as u64 * STRIDE
    }

    fn index(&self, handle: u64) -> Option<usize> {
        let offset = handle.checked_sub(self.base)?;
        (offset % STRIDE == 0).then(|| usize::try_from(offset / STRIDE).ok())?
    }

    /// The object, if the handle is one of this slab's and alive.
    pub fn get(&self, handle: u64) -> Option<&T> {
        self.items.get(self.index(handle)?)?.as_ref()
    }

    /// The object, to change it.
    pub fn get_mut(&mut self, handle: u64) -> Option<&mut T> {
        let index = self.index(handle)?;
        self.items.get_mut(index)?.as_mut()
    }

    /// Ends the object.
    pub fn remove(&mut self, handle: u64) -> Option<T> {
        let index = self.index(handle)?;
        let item = self.items.get_mut(index)?.take()?;
        if self.reuse {
            self.free.push(index as u32);
        }
        Some(item)
    }

    /// All live objects with their handles.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let base = self.base;
        self.items
            .iter()
            .enumerate()
            .filter_map(move |(i, t)| t.as_ref().map(|t| (base + i as u64 * STRIDE, t)))
    }

    /// All live objects, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        let base = self.base;
        self.items
            .iter_mut()
            .enumerate()
            .filter_map(move |(i, t)| t.as_mut().map(|t| (base + i as u64 * STRIDE, t)))
    }

    /// The handles of the objects that satisfy a condition.
    pub fn select(&self, mut want: impl FnMut(&T) -> bool) -> Vec<u64> {
        self.iter()
            .filter(|(_, t)| want(t))
            .map(|(h, _)| h)
            .collect()
    }
}
