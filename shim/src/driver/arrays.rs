//! CUDA arrays and mipmapped arrays.

use super::Handle;
use crate::hook::{Call, driver_hooks};
use crate::memory::Real;
use crate::memory::allocation::free;
use crate::memory::arrays::{Shape, create};
use crate::memory::bindings::{Change, array_destroyed, map_tiles};
use vramtrace_format::record::{Kind, Space};

fn from_v1(descriptor: *const u32) -> Option<Shape> {
    // SAFETY: only called with the program's own descriptor, which the function it is named after
    // takes in this form.
    unsafe { Shape::from_v1(descriptor) }
}

fn from_v2(descriptor: *const u64) -> Option<Shape> {
    // SAFETY: only called with the program's own descriptor, which the function it is named after
    // takes in this form.
    unsafe { Shape::from_v2(descriptor) }
}

fn from_3d_v1(descriptor: *const u32) -> Option<Shape> {
    // SAFETY: only called with the program's own descriptor, which the function it is named after
    // takes in this form.
    unsafe { Shape::from_3d_v1(descriptor) }
}

fn from_3d_v2(descriptor: *const u64) -> Option<Shape> {
    // SAFETY: only called with the program's own descriptor, which the function it is named after
    // takes in this form.
    unsafe { Shape::from_3d_v2(descriptor) }
}

fn destroy(call: &Call, space: Space, array: u64, real: impl Real) -> u32 {
    array_destroyed(call, (space, array), || {
        free(call, Kind::Array.lane(), space, array, 0, real)
    })
}

/// What a list of CUarrayMapInfo asks for.
fn changes(maps: *const [u32; 24], count: u32) -> Vec<Change> {
    if maps.is_null() {
        return Vec::new();
    }
    // SAFETY: the program's array of so many elements, of a call that is about to read it itself.
    let read = |at: u32| unsafe { maps.add(at as usize).read_unaligned() };
    (0..count)
        .filter_map(|at| Change::from_words(&read(at)))
        .collect()
}

driver_hooks! { HOOKS:
    fn cuArrayCreate(array: *mut usize, descriptor: *const u32)
        = |call, real| create(call, array, Space::Array, 1, || from_v1(descriptor), real);
    fn cuArrayCreate_v2(array: *mut usize, descriptor: *const u64)
        = |call, real| create(call, array, Space::Array, 1, || from_v2(descriptor), real);
    fn cuArray3DCreate(array: *mut usize, descriptor: *const u32)
        = |call, real| create(call, array, Space::Array, 1, || from_3d_v1(descriptor), real);
    fn cuArray3DCreate_v2(array: *mut usize, descriptor: *const u64)
        = |call, real| create(call, array, Space::Array, 1, || from_3d_v2(descriptor), real);
    fn cuArrayDestroy(array: Handle)
        = |call, real| destroy(call, Space::Array, array as u64, real);
    fn cuMipmappedArrayCreate(array: *mut usize, descriptor: *const u64, levels: u32)
        = |call, real| create(call, array, Space::Mipmap, levels, || from_3d_v2(descriptor), real);
    fn cuMipmappedArrayDestroy(array: Handle)
        = |call, real| destroy(call, Space::Mipmap, array as u64, real);
    // Ties physical memory that is counted where it was created to tiles of a sparse array.
    fn cuMemMapArrayAsync(maps: *const [u32; 24], count: u32, stream: Handle)
        = |call, real| map_tiles(call, &changes(maps, count), real);
    fn cuMemMapArrayAsync_ptsz(maps: *const [u32; 24], count: u32, stream: Handle)
        = |call, real| map_tiles(call, &changes(maps, count), real);
}
