//! Arrays and mipmapped arrays: device memory behind handles instead of addresses.

use super::State;
use super::arena::Arena;
use super::mapping::Mapping;
use crate::abi::array::{DEFERRED_MAPPING, Descriptor3D, LAYERED, SPARSE};
use crate::abi::error::{INVALID_HANDLE, INVALID_VALUE, OUT_OF_MEMORY, R};
use std::sync::Arc;

/// A part of an array: a subresource's type, and the words of CUarrayMapInfo that say which.
pub type Tile = (u32, [u64; 4]);

/// One array.
pub struct Array {
    pub ctx: u64,
    pub device: u32,
    pub desc: Descriptor3D,
    storage: Storage,
    /// Physical allocations mapped into a sparse or deferred array, by part.
    pub mapped: Vec<(Tile, u64)>,
}

/// One mipmapped array.
pub struct Mipmap {
    pub ctx: u64,
    pub device: u32,
    pub desc: Descriptor3D,
    /// Handles of the levels asked for so far, by level.
    arrays: Vec<Option<u64>>,
    storage: Storage,
    /// Physical allocations mapped into it when it is sparse or deferred, by part.
    pub mapped: Vec<(Tile, u64)>,
}

/// Where the bytes are.
enum Storage {
    /// A piece of the device: address, bytes taken, host address of the bytes.
    Own { addr: u64, taken: u64, data: u64 },
    /// Somebody else's bytes.
    View { data: u64 },
    /// External memory, kept mapped.
    External { data: u64, _memory: Arc<Mapping> },
    /// Nothing until physical memory is mapped in; the bytes are simulated on first use.
    Unbacked { scratch: Option<Mapping> },
}

impl Array {
    /// Bytes from row to row.
    pub fn pitch(&self) -> u64 {
        pitch(&self.desc)
    }

    /// Bytes of all rows and slices.
    pub fn bytes(&self) -> u64 {
        bytes(&self.desc)
    }

    /// Whether a destroy call takes it (a level or a plane belongs to its parent).
    pub fn is_owned(&self) -> bool {
        !matches!(self.storage, Storage::View { .. })
    }

    /// Host address of the bytes.
    pub fn data(&mut self) -> R<u64> {
        let len = self.bytes();
        match &mut self.storage {
            Storage::Own { data, .. } | Storage::View { data } | Storage::External { data, .. } => {
                Ok(*data)
            }
            Storage::Unbacked {
                scratch: Some(mapping),
            } => Ok(mapping.addr()),
            Storage::Unbacked { scratch } => {
                let mapping = Mapping::private(len)?;
                let addr = mapping.addr();
                *scratch = Some(mapping);
                Ok(addr)
            }
        }
    }
}

fn pitch(desc: &Descriptor3D) -> u64 {
    desc.width.saturating_mul(desc.element_bytes().unwrap_or(1))
}

fn bytes(desc: &Descriptor3D) -> u64 {
    pitch(desc)
        .saturating_mul(desc.rows())
        .saturating_mul(desc.slices())
}

/// One level's descriptor.
fn level_desc(desc: &Descriptor3D, level: u32) -> Descriptor3D {
    let shrink = |n: u64| if n == 0 { 0 } else { (n >> level).max(1) };
    Descriptor3D {
        width: shrink(desc.width),
        height: shrink(desc.height),
        depth: if desc.flags & LAYERED != 0 {
            desc.depth
        } else {
            shrink(desc.depth)
        },
        ..*desc
    }
}

fn check(desc: &Descriptor3D) -> R {
    if desc.width == 0 || desc.element_bytes().is_none() {
        return Err(INVALID_VALUE);
    }
    if desc.depth != 0 && desc.height == 0 && desc.flags & LAYERED == 0 {
        return Err(INVALID_VALUE);
    }
    Ok(())
}

impl State {
    fn array_storage(&mut self, device: u32, flags: u32, bytes: u64) -> R<Storage> {
        if flags & (SPARSE | DEFERRED_MAPPING) != 0 {
            return Ok(Storage::Unbacked { scratch: None });
        }
        let taken = Arena::taken(bytes).ok_or(OUT_OF_MEMORY)?;
        let device = self.device(device as i32)?;
        let addr = device.alloc_linear(taken, false)?;
        Ok(Storage::Own {
            addr,
            taken,
            data: device.arena.data(addr),
        })
    }

    fn end_storage(&mut self, device: u32, storage: Storage) {
        if let (Storage::Own { addr, taken, .. }, Ok(device)) =
            (storage, self.device(device as i32))
        {
            device.free_linear(addr, taken, true);
        }
    }

    /// cuArrayCreate and cuArray3DCreate.
    pub fn create_array(&mut self, ctx: u64, desc: Descriptor3D) -> R<u64> {
        check(&desc)?;
        let device = self.device_of(ctx)?;
        let storage = self.array_storage(device, desc.flags, bytes(&desc))?;
        let array = Array {
            ctx: self.owner(ctx),
            device,
            desc,
            storage,
            mapped: Vec::new(),
        };
        Ok(self.arrays.insert(array))
    }

    /// cuArrayDestroy.
    pub fn destroy_array(&mut self, handle: u64) -> R {
        let array = self.arrays.get(handle).ok_or(INVALID_HANDLE)?;
        if !array.is_owned() {
            return Err(INVALID_HANDLE);
        }
        self.end_array(handle);
        Ok(())
    }

    /// Ends an array, whoever owns it.
    pub fn end_array(&mut self, handle: u64) {
        let Some(array) = self.arrays.remove(handle) else {
            return;
        };
        for (_, physical) in array.mapped {
            self.unmap_physical(physical);
        }
        self.end_storage(array.device, array.storage);
    }

    /// cuMipmappedArrayCreate.
    pub fn create_mipmap(&mut self, ctx: u64, desc: Descriptor3D, levels: u32) -> R<u64> {
        check(&desc)?;
        let largest = desc.width.max(desc.height).max(desc.depth);
        let levels = levels.min(64 - largest.leading_zeros());
        if levels == 0 {
            return Err(INVALID_VALUE);
        }
        let device = self.device_of(ctx)?;
        let total = (0..levels).map(|l| bytes(&level_desc(&desc, l))).sum();
        let storage = self.array_storage(device, desc.flags, total)?;
        Ok(self.insert_mipmap(ctx, device, desc, levels, storage))
    }

    /// A mipmapped array over external memory.
    pub fn external_mipmap(
        &mut self,
        ctx: u64,
        desc: Descriptor3D,
        levels: u32,
        memory: Arc<Mapping>,
        offset: u64,
    ) -> R<u64> {
        check(&desc)?;
        let total: u64 = (0..levels).map(|l| bytes(&level_desc(&desc, l))).sum();
        if levels == 0
            || offset
                .checked_add(total)
                .is_none_or(|end| end > memory.len())
        {
            return Err(INVALID_VALUE);
        }
        let device = self.device_of(ctx)?;
        let storage = Storage::External {
            data: memory.addr() + offset,
            _memory: memory,
        };
        Ok(self.insert_mipmap(ctx, device, desc, levels, storage))
    }

    fn insert_mipmap(
        &mut self,
        ctx: u64,
        device: u32,
        desc: Descriptor3D,
        levels: u32,
        storage: Storage,
    ) -> u64 {
        let arrays = vec![None; levels as usize];
        let mapped = Vec::new();
        let ctx = self.owner(ctx);
        self.mipmaps.insert(Mipmap {
            ctx,
            device,
            desc,
            arrays,
            storage,
            mapped,
        })
    }

    /// cuMipmappedArrayGetLevel: a view, the same handle each time.
    pub fn mipmap_level(&mut self, handle: u64, level: u32) -> R<u64> {
        let mipmap = self.mipmaps.get(handle).ok_or(INVALID_HANDLE)?;
        let cached = *mipmap.arrays.get(level as usize).ok_or(INVALID_VALUE)?;
        if let Some(array) = cached {
            return Ok(array);
        }
        let before: u64 = (0..level)
            .map(|l| bytes(&level_desc(&mipmap.desc, l)))
            .sum();
        let storage = match &mipmap.storage {
            Storage::Own { data, .. } | Storage::View { data } | Storage::External { data, .. } => {
                Storage::View {
                    data: data + before,
                }
            }
            Storage::Unbacked { .. } => Storage::Unbacked { scratch: None },
        };
        let array = Array {
            ctx: mipmap.ctx,
            device: mipmap.device,
            desc: level_desc(&mipmap.desc, level),
            storage,
            mapped: Vec::new(),
        };
        let array = self.arrays.insert(array);
        if let Some(mipmap) = self.mipmaps.get_mut(handle) {
            mipmap.arrays[level as usize] = Some(array);
        }
        Ok(array)
    }

    /// cuMipmappedArrayDestroy; the levels' handles end with it.
    pub fn destroy_mipmap(&mut self, handle: u64) {
        let Some(mipmap) = self.mipmaps.remove(handle) else {
            return;
        };
        for array in mipmap.arrays.into_iter().flatten() {
            self.arrays.remove(array);
        }
        for (_, physical) in mipmap.mapped {
            self.unmap_physical(physical);
        }
        self.end_storage(mipmap.device, mipmap.storage);
    }
}
