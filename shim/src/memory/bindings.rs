//! Uses of physical memory that have no address: bindings to multicast objects, and tiles of
//! sparse arrays. Memory that was released lives on in them.

use super::{Real, SUCCESS, errors, vmm};
use crate::hook::Call;
use crate::lifetime;
use std::collections::HashMap;
use std::ops::DerefMut;
use vramtrace_format::record::{Kind, Space};
use vramtrace_recorder::{self as recorder, Renewable};

/// Memory bound into a multicast object, for one device.
#[derive(Clone, Copy, Debug)]
struct Binding {
    device: u8,
    at: u64,
    size: u64,
    /// The memory's id.
    id: u64,
}

#[derive(Default)]
struct Bindings {
    /// By the multicast object's id.
    multicast: HashMap<u64, Vec<Binding>>,
    /// By array.
    tiles: HashMap<Array, Tiles>,
}

/// A sparse array or mipmapped array.
type Array = (Space, u64);

struct Tiles {
    /// The context that the array ends with.
    context: u16,
    mapped: Vec<(Region, u64)>,
}

static BINDINGS: Renewable<Bindings> = Renewable::new();

/// The table; where it cannot be had, what it keeps live is not right any more.
fn table() -> Option<impl DerefMut<Target = Bindings>> {
    let table = BINDINGS.lock();
    if table.is_none() {
        recorder::unrecorded();
    }
    table
}

/// What is bound to a multicast object.
pub enum Bound {
    /// Memory by its handle.
    Handle(u64),
    /// Memory by the address that it is mapped at.
    Address(u64),
}

/// Memory is bound into a multicast object at an offset. Where no device is given it is the
/// memory's own.
pub fn bind(
    call: &Call,
    multicast: u64,
    device: Option<i32>,
    at: u64,
    memory: &Bound,
    size: u64,
    real: impl Real,
) -> u32 {
    if !recorder::is_on() {
        return real();
    }
    let object = vmm::id_of(multicast);
    let ids = match *memory {
        Bound::Handle(handle) => vmm::use_handle(handle).into_iter().collect(),
        Bound::Address(address) => vmm::use_range(address, size),
    };
    let result = real();
    errors::look_at(result, call.api());
    if result == SUCCESS
        && let Some(object) = object
        && let Some(mut bindings) = table()
    {
        let bound = bindings.multicast.entry(object).or_default();
        bound.extend(ids.iter().map(|&id| Binding {
            device: device.map_or_else(|| device_of(id), |device| device as u8),
            at,
            size,
            id,
        }));
    } else {
        vmm::drop_uses(call, ids);
    }
    result
}

fn device_of(id: u64) -> u8 {
    recorder::find(Kind::Vmm.lane(), Space::Vmm, id).map_or(0, |entry| entry.device)
}

/// A range of a multicast object is unbound for a device.
pub fn unbind(
    call: &Call,
    multicast: u64,
    device: i32,
    at: u64,
    size: u64,
    real: impl Real,
) -> u32 {
    let end = at.saturating_add(size);
    let inside = |binding: &Binding| {
        i32::from(binding.device) == device
            && binding.at >= at
            && binding.at.saturating_add(binding.size) <= end
    };
    let object = vmm::id_of(multicast);
    // Before the call: the moment it returns, another thread may bind the same range.
    let gone = object.map_or_else(Vec::new, |object| take_bound(object, inside));
    let result = real();
    errors::look_at(result, call.api());
    if result == SUCCESS {
        vmm::drop_uses(call, gone.iter().map(|binding| binding.id));
    } else if let Some(object) = object
        && let Some(mut bindings) = table()
    {
        bindings.multicast.entry(object).or_default().extend(gone);
    }
    result
}

fn take_bound(object: u64, which: impl Fn(&Binding) -> bool) -> Vec<Binding> {
    let Some(mut bindings) = table() else {
        return Vec::new();
    };
    let Some(bound) = bindings.multicast.get_mut(&object) else {
        return Vec::new();
    };
    let (gone, stays): (Vec<_>, Vec<_>) = bound.iter().copied().partition(which);
    *bound = stays;
    if bound.is_empty() {
        bindings.multicast.remove(&object);
    }
    gone
}

/// Physical memory, or a multicast object, is gone, and with it what was bound to it.
pub fn ended(call: &Call, id: u64) {
    let bound = take_bound(id, |_| true);
    if !bound.is_empty() {
        vmm::drop_uses(call, bound.iter().map(|binding| binding.id));
    }
}

/// A part of a sparse array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Region {
    /// Of a level of a layer, or of an array.
    Block {
        level: u32,
        layer: u32,
        from: [u32; 3],
        to: [u32; 3],
    },
    /// Of a layer's mip tail, in bytes.
    Tail { layer: u32, from: u64, to: u64 },
}

impl Region {
    fn covers(&self, other: &Region) -> bool {
        match (*self, *other) {
            (
                Region::Block {
                    level,
                    layer,
                    from,
                    to,
                },
                Region::Block {
                    level: its_level,
                    layer: its_layer,
                    from: its_from,
                    to: its_to,
                },
            ) => {
                (level, layer) == (its_level, its_layer)
                    && (0..3).all(|at| from[at] <= its_from[at] && to[at] >= its_to[at])
            }
            (
                Region::Tail { layer, from, to },
                Region::Tail {
                    layer: its_layer,
                    from: its_from,
                    to: its_to,
                },
            ) => layer == its_layer && from <= its_from && to >= its_to,
            _ => false,
        }
    }
}

/// One element of what cuMemMapArrayAsync is given.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    array: Array,
    region: Region,
    /// The handle of the memory that is mapped; `None` unmaps.
    memory: Option<u64>,
}

impl Change {
    /// From a CUarrayMapInfo (cuda.h 11.1), as 32-bit words: resource type, (padding), resource in
    /// two, subresource type, (padding), eight of the subresource, operation, handle type, handle
    /// in two, and what does not matter here.
    pub fn from_words(words: &[u32; 24]) -> Option<Change> {
        let long = |at: usize| u64::from(words[at]) | u64::from(words[at + 1]) << 32;
        let space = match words[0] {
            0 => Space::Array,
            1 => Space::Mipmap,
            _ => return None,
        };
        let region = match words[4] {
            0 => {
                let from = [words[8], words[9], words[10]];
                let end = |at: usize| from[at].saturating_add(words[11 + at]);
                Region::Block {
                    level: words[6],
                    layer: words[7],
                    from,
                    to: [end(0), end(1), end(2)],
                }
            }
            1 => Region::Tail {
                layer: words[6],
                from: long(8),
                to: long(8).saturating_add(long(10)),
            },
            _ => return None,
        };
        let memory = match words[14] {
            1 => Some(long(16)),
            2 => None,
            _ => return None,
        };
        Some(Change {
            array: (space, long(2)),
            region,
            memory,
        })
    }
}

/// Tiles of sparse arrays are mapped and unmapped.
pub fn map_tiles(call: &Call, changes: &[Change], real: impl Real) -> u32 {
    if !recorder::is_on() || changes.is_empty() {
        return real();
    }
    let used: Vec<Option<u64>> = changes
        .iter()
        .map(|change| change.memory.and_then(vmm::use_handle))
        .collect();
    let result = real();
    errors::look_at(result, call.api());
    if result != SUCCESS {
        vmm::drop_uses(call, used.into_iter().flatten());
        return result;
    }
    let mut gone = Vec::new();
    for (change, id) in changes.iter().zip(used) {
        let context = recorder::find(Kind::Array.lane(), change.array.0, change.array.1)
            .map_or(0, |entry| entry.context);
        let Some(mut bindings) = table() else {
            continue;
        };
        let tiles = bindings.tiles.entry(change.array).or_insert(Tiles {
            context,
            mapped: Vec::new(),
        });
        if tiles.context != context {
            // Another array had this handle, and its context is just ending.
            gone.extend(tiles.mapped.drain(..).map(|(_, id)| id));
            tiles.context = context;
        }
        // What is mapped anew, or unmapped, is not mapped to what it was.
        let covered = |(region, _): &&(Region, u64)| change.region.covers(region);
        gone.extend(tiles.mapped.iter().filter(covered).map(|(_, id)| *id));
        tiles
            .mapped
            .retain(|(region, _)| !change.region.covers(region));
        tiles.mapped.extend(id.map(|id| (change.region, id)));
    }
    vmm::drop_uses(call, gone);
    result
}

/// An array is destroyed through `destroy`, and with it its tiles' mappings.
pub fn array_destroyed(call: &Call, array: Array, destroy: impl Real) -> u32 {
    lifetime::watch_teardown();
    // Before the call: the moment it returns, another thread may be given the same handle.
    let tiles = table().and_then(|mut bindings| bindings.tiles.remove(&array));
    let result = destroy();
    let Some(tiles) = tiles else { return result };
    if matches!(result, SUCCESS | errors::DEINITIALIZED) {
        vmm::drop_uses(call, tiles.mapped.iter().map(|(_, id)| *id));
    } else if let Some(mut bindings) = table() {
        bindings.tiles.insert(array, tiles);
    }
    result
}

/// Contexts are gone, and with them their arrays.
pub fn contexts_gone(call: &Call, is_one: impl Fn(u16) -> bool) {
    let mut gone = Vec::new();
    if let Some(mut bindings) = table() {
        bindings.tiles.retain(|_, tiles| {
            let ends = is_one(tiles.context);
            if ends {
                gone.extend(tiles.mapped.iter().map(|(_, id)| *id));
            }
            !ends
        });
    }
    if !gone.is_empty() {
        vmm::drop_uses(call, gone);
    }
}

/// A new trace begins.
pub fn start_over() {
    BINDINGS.renew();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(from: [u32; 3], size: [u32; 3]) -> Region {
        let to = std::array::from_fn(|at| from[at] + size[at]);
        let (level, layer) = (1, 2);
        Region::Block {
            level,
            layer,
            from,
            to,
        }
    }

    #[test]
    fn a_region_covers_what_lies_in_it() {
        let whole = block([0, 0, 0], [8, 8, 1]);
        assert!(whole.covers(&whole) && whole.covers(&block([4, 4, 0], [4, 4, 1])));
        assert!(!whole.covers(&block([4, 4, 0], [5, 4, 1])));
        assert!(!block([4, 4, 0], [4, 4, 1]).covers(&whole));
        let tail = |layer, from, to| Region::Tail { layer, from, to };
        assert!(tail(0, 0, 100).covers(&tail(0, 50, 100)));
        assert!(!tail(0, 0, 100).covers(&tail(1, 50, 100)) && !tail(0, 0, 9).covers(&whole));
    }

    #[test]
    fn the_words_of_a_map_info_are_where_cuda_h_has_them() {
        let mut words = [0u32; 24];
        (words[0], words[2], words[3]) = (1, 7, 1);
        words[6..14].copy_from_slice(&[1, 2, 4, 5, 6, 10, 20, 30]);
        (words[14], words[16], words[17]) = (1, 9, 2);
        let change = Change::from_words(&words).expect("it maps");
        assert_eq!(change.array, (Space::Mipmap, 1 << 32 | 7));
        assert_eq!(change.region, block([4, 5, 6], [10, 20, 30]));
        assert_eq!(change.memory, Some(2 << 32 | 9));
    }
}
