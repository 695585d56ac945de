//! Copies as they were before CUDA 3.2: 32-bit device addresses and sizes.

use super::memcpy::{now, on};
use crate::abi::copy::{Copy3D, Memcpy2DV1, Memcpy3DV1, Side};
use crate::ffi::In;
use crate::gate::{WORK, driver};

fn host(addr: u64) -> Side {
    Side {
        kind: 1,
        host: addr,
        ..Side::default()
    }
}

fn device(addr: u32) -> Side {
    Side {
        kind: 2,
        device: addr.into(),
        ..Side::default()
    }
}

driver! {
    /// Host to device.
    [WORK] fn cuMemcpyHtoD(dst: u32, src: u64, bytes: u32) |c| { now(c, Copy3D::row(device(dst), host(src), bytes.into())) }

    /// Host to device, in stream order.
    [WORK] fn cuMemcpyHtoDAsync(dst: u32, src: u64, bytes: u32, stream: u64) |c| { on(c, Copy3D::row(device(dst), host(src), bytes.into()), stream) }

    /// Device to host.
    [WORK] fn cuMemcpyDtoH(dst: u64, src: u32, bytes: u32) |c| { now(c, Copy3D::row(host(dst), device(src), bytes.into())) }

    /// Device to host, in stream order.
    [WORK] fn cuMemcpyDtoHAsync(dst: u64, src: u32, bytes: u32, stream: u64) |c| { on(c, Copy3D::row(host(dst), device(src), bytes.into()), stream) }

    /// Device to device.
    [WORK] fn cuMemcpyDtoD(dst: u32, src: u32, bytes: u32) |c| { now(c, Copy3D::row(device(dst), device(src), bytes.into())) }

    /// Device to device, in stream order.
    [WORK] fn cuMemcpyDtoDAsync(dst: u32, src: u32, bytes: u32, stream: u64) |c| { on(c, Copy3D::row(device(dst), device(src), bytes.into()), stream) }

    /// Device to array.
    [WORK] fn cuMemcpyDtoA(dst: u64, at: u32, src: u32, bytes: u32) |c| { now(c, Copy3D::row(Side::array(dst, at.into()), device(src), bytes.into())) }

    /// Array to device.
    [WORK] fn cuMemcpyAtoD(dst: u32, src: u64, at: u32, bytes: u32) |c| { now(c, Copy3D::row(device(dst), Side::array(src, at.into()), bytes.into())) }

    /// Host to array.
    [WORK] fn cuMemcpyHtoA(dst: u64, at: u32, src: u64, bytes: u32) |c| { now(c, Copy3D::row(Side::array(dst, at.into()), host(src), bytes.into())) }

    /// Host to array, in stream order.
    [WORK] fn cuMemcpyHtoAAsync(dst: u64, at: u32, src: u64, bytes: u32, stream: u64) |c| { on(c, Copy3D::row(Side::array(dst, at.into()), host(src), bytes.into()), stream) }

    /// Array to host.
    [WORK] fn cuMemcpyAtoH(dst: u64, src: u64, at: u32, bytes: u32) |c| { now(c, Copy3D::row(host(dst), Side::array(src, at.into()), bytes.into())) }

    /// Array to host, in stream order.
    [WORK] fn cuMemcpyAtoHAsync(dst: u64, src: u64, at: u32, bytes: u32, stream: u64) |c| { on(c, Copy3D::row(host(dst), Side::array(src, at.into()), bytes.into()), stream) }

    /// Array to array.
    [WORK] fn cuMemcpyAtoA(dst: u64, dst_at: u32, src: u64, src_at: u32, bytes: u32) |c| { now(c, Copy3D::row(Side::array(dst, dst_at.into()), Side::array(src, src_at.into()), bytes.into())) }

    /// Rectangles.
    [WORK] fn cuMemcpy2D(copy: In<Memcpy2DV1>) |c| { now(c, copy.get()?.into()) }

    /// Rectangles without alignment rules.
    [WORK] fn cuMemcpy2DUnaligned(copy: In<Memcpy2DV1>) |c| { now(c, copy.get()?.into()) }

    /// Rectangles, in stream order.
    [WORK] fn cuMemcpy2DAsync(copy: In<Memcpy2DV1>, stream: u64) |c| { on(c, copy.get()?.into(), stream) }

    /// Boxes.
    [WORK] fn cuMemcpy3D(copy: In<Memcpy3DV1>) |c| { now(c, copy.get()?.into()) }

    /// Boxes, in stream order.
    [WORK] fn cuMemcpy3DAsync(copy: In<Memcpy3DV1>, stream: u64) |c| { on(c, copy.get()?.into(), stream) }
}
