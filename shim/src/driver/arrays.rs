//! CUDA arrays and mipmapped arrays.

use super::Handle;
use crate::hook::driver_hooks;
use crate::memory::allocation::free;
use crate::memory::arrays::{Shape, create};
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
        = |call, real| free(call, Kind::Array.lane(), Space::Array, array as u64, 0, real);
    fn cuMipmappedArrayCreate(array: *mut usize, descriptor: *const u64, levels: u32)
        = |call, real| create(call, array, Space::Mipmap, levels, || from_3d_v2(descriptor), real);
    fn cuMipmappedArrayDestroy(array: Handle)
        = |call, real| free(call, Kind::Array.lane(), Space::Mipmap, array as u64, 0, real);
    // Ties physical memory that is counted where it was created to tiles of a sparse array.
    fn cuMemMapArrayAsync(maps: Handle, count: u32, stream: Handle)
        = |_call, real| real();
    fn cuMemMapArrayAsync_ptsz(maps: Handle, count: u32, stream: Handle)
        = |_call, real| real();
}
