//! The ways into a hook.
//!
//! A program can come to one driver function by several ways that end in different places: linked
//! to it, it would call whatever comes next in the loader's global scope, which may be another
//! preloaded library; with an address that it got for a handle, or from `cuGetProcAddress`, it
//! would call the driver itself. Each must still end where it would end without us. So a hook has
//! several entries, each with one function that it calls: the exported one for calls that the
//! loader led to us, and a few for addresses that we hand out.

use once_cell::race::OnceNonZeroUsize;
use std::ffi::c_void;
use std::num::NonZeroUsize;

/// Entries of a hook: the exported one, and those handed out. Three different functions behind
/// one name are the driver's own, and what two other libraries put before it.
pub const ENTRIES: usize = 4;

/// One of our functions, and the function that it calls.
pub struct Entry {
    ours: *const c_void,
    /// Never blocks: a look-up that comes back here through our own `dlsym` cannot deadlock.
    target: OnceNonZeroUsize,
}

// SAFETY: the raw pointer is the address of a function, which never changes.
unsafe impl Sync for Entry {}

impl Entry {
    /// An entry whose target is not known yet.
    pub const fn new(ours: *const c_void) -> Entry {
        Entry {
            ours,
            target: OnceNonZeroUsize::new(),
        }
    }

    /// Our function.
    pub fn ours(&self) -> *mut c_void {
        self.ours.cast_mut()
    }

    /// What it calls, if that is known.
    #[inline]
    pub fn target(&self) -> Option<*mut c_void> {
        self.target.get().map(|target| target.get() as *mut c_void)
    }

    fn calls(&self, target: NonZeroUsize) -> bool {
        self.target.get() == Some(target)
    }

    fn take(&self, target: NonZeroUsize) -> bool {
        self.target.set(target).is_ok() || self.calls(target)
    }
}

/// All entries of a hook.
pub struct Entries([Entry; ENTRIES]);

impl Entries {
    /// Entries with these functions of ours: the exported one, then those to hand out.
    pub const fn new([linked, first, second, third]: [*const c_void; ENTRIES]) -> Entries {
        Entries([
            Entry::new(linked),
            Entry::new(first),
            Entry::new(second),
            Entry::new(third),
        ])
    }

    /// The entry with this number; 0 is the exported one.
    #[inline]
    pub const fn at(&self, number: usize) -> &Entry {
        &self.0[number]
    }

    /// The exported entry: where calls of linked programs come in.
    pub fn linked(&self) -> &Entry {
        &self.0[0]
    }

    /// Learns what a linked program would call without us; the first one stays.
    pub fn link(&self, target: *mut c_void) {
        if let Some(target) = NonZeroUsize::new(target as usize)
            && !self.are(target.get() as *mut c_void)
        {
            self.linked().take(target);
        }
    }

    /// Whether the address is one of our functions.
    pub fn are(&self, address: *mut c_void) -> bool {
        self.0.iter().any(|entry| entry.ours() == address)
    }

    /// Whether one of them calls this address.
    pub fn call(&self, address: *mut c_void) -> bool {
        NonZeroUsize::new(address as usize)
            .is_some_and(|target| self.0.iter().any(|entry| entry.calls(target)))
    }

    /// Our function to hand out in the place of `target`: it calls exactly that. `None` if all are
    /// taken by others.
    pub fn before(&self, target: *mut c_void) -> Option<*mut c_void> {
        let target = NonZeroUsize::new(target as usize)?;
        let entry = self.0.iter().find(|entry| entry.calls(target));
        let entry = entry.or_else(|| self.0[1..].iter().find(|entry| entry.take(target)));
        entry.map(Entry::ours)
    }

    /// As [`Entries::before`], and never the exported entry, whose target depends on who calls.
    pub fn before_exactly(&self, target: *mut c_void) -> Option<*mut c_void> {
        let target = NonZeroUsize::new(target as usize)?;
        let entry = self.0[1..].iter().find(|entry| entry.take(target));
        entry.map(Entry::ours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: usize) -> *mut c_void {
        number as *mut c_void
    }

    fn entries() -> Entries {
        Entries::new([
            address(1).cast_const(),
            address(2).cast_const(),
            address(3).cast_const(),
            address(4).cast_const(),
        ])
    }

    #[test]
    fn each_target_has_one_entry_for_good() {
        let entries = entries();
        entries.link(address(100));
        entries.link(address(200));
        assert_eq!(entries.linked().target(), Some(address(100)));
        assert_eq!(entries.before(address(100)), Some(address(1)));
        assert_eq!(entries.before(address(200)), Some(address(2)));
        assert_eq!(entries.before(address(300)), Some(address(3)));
        assert_eq!(entries.before(address(200)), Some(address(2)));
        assert_eq!(entries.before(address(400)), Some(address(4)));
        assert_eq!(entries.before(address(500)), None);
        assert_eq!(entries.before(address(100)), Some(address(1)));
        assert!(entries.call(address(400)) && !entries.call(address(500)));
    }

    #[test]
    fn none_ever_calls_another_of_ours() {
        let entries = entries();
        entries.link(address(3));
        assert_eq!(entries.linked().target(), None);
        assert!(entries.are(address(4)) && !entries.are(address(100)));
        assert_eq!(entries.before(address(0)), None);
    }

    #[test]
    fn an_exact_one_is_not_the_exported_one() {
        let entries = entries();
        entries.link(address(100));
        assert_eq!(entries.before_exactly(address(100)), Some(address(2)));
        assert_eq!(entries.before_exactly(address(100)), Some(address(2)));
        assert_eq!(entries.linked().target(), Some(address(100)));
    }
}
