//! Copies. All of them become one [`Copy3D`]; synchronous ones run on the default stream.

use crate::abi::copy::{Copy3D, Memcpy2D, Memcpy3D, Side};
use crate::abi::error::R;
use crate::ffi::{In, Items, Out};
use crate::gate::{Call, WORK, driver};
use crate::model::graph::Op;

fn host(addr: u64) -> Side {
    Side {
        kind: 1,
        host: addr,
        ..Side::default()
    }
}

fn device(addr: u64) -> Side {
    Side {
        kind: 2,
        device: addr,
        ..Side::default()
    }
}

/// A synchronous copy: the caller waits for the default stream.
pub fn now(c: &mut Call, copy: Copy3D) -> R {
    let stream = c.work_stream(0)?;
    c.capture_of(stream)?;
    c.copy(&copy)
}

/// An asynchronous copy: done at once, or a node of a capture.
pub fn on(c: &mut Call, copy: Copy3D, stream: u64) -> R {
    let stream = c.work_stream(stream)?;
    c.submit(stream, Op::Copy(copy))
}

driver! {
    /// Host to device.
    [WORK] fn cuMemcpyHtoD_v2 + cuMemcpyHtoD_v2_ptds(dst: u64, src: u64, bytes: usize) |c| { now(c, Copy3D::row(device(dst), host(src), bytes as u64)) }

    /// Device to host.
    [WORK] fn cuMemcpyDtoH_v2 + cuMemcpyDtoH_v2_ptds(dst: u64, src: u64, bytes: usize) |c| { now(c, Copy3D::row(host(dst), device(src), bytes as u64)) }

    /// Device to device.
    [WORK] fn cuMemcpyDtoD_v2 + cuMemcpyDtoD_v2_ptds(dst: u64, src: u64, bytes: usize) |c| { now(c, Copy3D::row(device(dst), device(src), bytes as u64)) }

    /// Device to array.
    [WORK] fn cuMemcpyDtoA_v2 + cuMemcpyDtoA_v2_ptds(dst: u64, at: usize, src: u64, bytes: usize) |c| { now(c, Copy3D::row(Side::array(dst, at as u64), device(src), bytes as u64)) }

    /// Array to device.
    [WORK] fn cuMemcpyAtoD_v2 + cuMemcpyAtoD_v2_ptds(dst: u64, src: u64, at: usize, bytes: usize) |c| { now(c, Copy3D::row(device(dst), Side::array(src, at as u64), bytes as u64)) }

    /// Host to array.
    [WORK] fn cuMemcpyHtoA_v2 + cuMemcpyHtoA_v2_ptds(dst: u64, at: usize, src: u64, bytes: usize) |c| { now(c, Copy3D::row(Side::array(dst, at as u64), host(src), bytes as u64)) }

    /// Array to host.
    [WORK] fn cuMemcpyAtoH_v2 + cuMemcpyAtoH_v2_ptds(dst: u64, src: u64, at: usize, bytes: usize) |c| { now(c, Copy3D::row(host(dst), Side::array(src, at as u64), bytes as u64)) }

    /// Array to array.
    [WORK] fn cuMemcpyAtoA_v2 + cuMemcpyAtoA_v2_ptds(dst: u64, dst_at: usize, src: u64, src_at: usize, bytes: usize) |c| { now(c, Copy3D::row(Side::array(dst, dst_at as u64), Side::array(src, src_at as u64), bytes as u64)) }

    /// Host to device, in stream order.
    [WORK] fn cuMemcpyHtoDAsync_v2 + cuMemcpyHtoDAsync_v2_ptsz(dst: u64, src: u64, bytes: usize, stream: u64) |c| { on(c, Copy3D::row(device(dst), host(src), bytes as u64), stream) }

    /// Device to host, in stream order.
    [WORK] fn cuMemcpyDtoHAsync_v2 + cuMemcpyDtoHAsync_v2_ptsz(dst: u64, src: u64, bytes: usize, stream: u64) |c| { on(c, Copy3D::row(host(dst), device(src), bytes as u64), stream) }

    /// Device to device, in stream order.
    [WORK] fn cuMemcpyDtoDAsync_v2 + cuMemcpyDtoDAsync_v2_ptsz(dst: u64, src: u64, bytes: usize, stream: u64) |c| { on(c, Copy3D::row(device(dst), device(src), bytes as u64), stream) }

    /// Host to array, in stream order.
    [WORK] fn cuMemcpyHtoAAsync_v2 + cuMemcpyHtoAAsync_v2_ptsz(dst: u64, at: usize, src: u64, bytes: usize, stream: u64) |c| { on(c, Copy3D::row(Side::array(dst, at as u64), host(src), bytes as u64), stream) }

    /// Array to host, in stream order.
    [WORK] fn cuMemcpyAtoHAsync_v2 + cuMemcpyAtoHAsync_v2_ptsz(dst: u64, src: u64, at: usize, bytes: usize, stream: u64) |c| { on(c, Copy3D::row(host(dst), Side::array(src, at as u64), bytes as u64), stream) }

    /// Unified addressing tells the direction.
    [WORK] fn cuMemcpy + cuMemcpy_ptds(dst: u64, src: u64, bytes: usize) |c| {
        now(c, Copy3D::row(Side::address(dst), Side::address(src), bytes as u64))
    }

    /// In stream order.
    [WORK] fn cuMemcpyAsync + cuMemcpyAsync_ptsz(dst: u64, src: u64, bytes: usize, stream: u64) |c| {
        on(c, Copy3D::row(Side::address(dst), Side::address(src), bytes as u64), stream)
    }

    /// Between contexts.
    [WORK] fn cuMemcpyPeer + cuMemcpyPeer_ptds(
        dst: u64, dst_ctx: u64, src: u64, src_ctx: u64, bytes: usize,
    ) |c| {
        c.context(dst_ctx)?;
        c.context(src_ctx)?;
        now(c, Copy3D::row(Side::address(dst), Side::address(src), bytes as u64))
    }

    /// Between contexts, in stream order.
    [WORK] fn cuMemcpyPeerAsync + cuMemcpyPeerAsync_ptsz(
        dst: u64, dst_ctx: u64, src: u64, src_ctx: u64, bytes: usize, stream: u64,
    ) |c| {
        c.context(dst_ctx)?;
        c.context(src_ctx)?;
        on(c, Copy3D::row(Side::address(dst), Side::address(src), bytes as u64), stream)
    }

    /// Rectangles.
    [WORK] fn cuMemcpy2D_v2 + cuMemcpy2D_v2_ptds(copy: In<Memcpy2D>) |c| {
        now(c, copy.get()?.into())
    }

    /// Rectangles without alignment rules.
    [WORK] fn cuMemcpy2DUnaligned_v2 + cuMemcpy2DUnaligned_v2_ptds(copy: In<Memcpy2D>) |c| {
        now(c, copy.get()?.into())
    }

    /// Rectangles, in stream order.
    [WORK] fn cuMemcpy2DAsync_v2 + cuMemcpy2DAsync_v2_ptsz(copy: In<Memcpy2D>, stream: u64) |c| {
        on(c, copy.get()?.into(), stream)
    }

    /// Boxes.
    [WORK] fn cuMemcpy3D_v2 + cuMemcpy3D_v2_ptds(copy: In<Memcpy3D>) |c| {
        now(c, copy.get()?.into())
    }

    /// Boxes, in stream order.
    [WORK] fn cuMemcpy3DAsync_v2 + cuMemcpy3DAsync_v2_ptsz(copy: In<Memcpy3D>, stream: u64) |c| {
        on(c, copy.get()?.into(), stream)
    }

    /// Boxes between contexts.
    [WORK] fn cuMemcpy3DPeer + cuMemcpy3DPeer_ptds(copy: In<Memcpy3D>) |c| {
        now(c, copy.get()?.into())
    }

    /// Boxes between contexts, in stream order.
    [WORK] fn cuMemcpy3DPeerAsync + cuMemcpy3DPeerAsync_ptsz(copy: In<Memcpy3D>, stream: u64) |c| {
        on(c, copy.get()?.into(), stream)
    }

    /// Many copies at once; attributes say when a source is read, which is always "now" here.
    [WORK] fn cuMemcpyBatchAsync + cuMemcpyBatchAsync_ptsz(
        dsts: Items<u64>, srcs: Items<u64>, sizes: Items<usize>, count: usize, attrs: u64,
        attr_indices: u64, attr_count: usize, fail: Out<usize>, flags: u64, stream: u64,
    ) |c| {
        let _ = (attrs, attr_indices, attr_count, flags);
        let failed = batch(c, dsts, srcs, sizes, count, stream);
        if let Err((index, error)) = failed {
            fail.set_if(index);
            return Err(error);
        }
        Ok(())
    }

    /// Since 13.0: without the failing index.
    [WORK] fn cuMemcpyBatchAsync_v2 + cuMemcpyBatchAsync_v2_ptsz(
        dsts: Items<u64>, srcs: Items<u64>, sizes: Items<usize>, count: usize, attrs: u64,
        attr_indices: u64, attr_count: usize, flags: u64, stream: u64,
    ) |c| {
        let _ = (attrs, attr_indices, attr_count, flags);
        batch(c, dsts, srcs, sizes, count, stream).map_err(|(_, error)| error)
    }
}

fn batch(
    c: &mut Call,
    dsts: Items<u64>,
    srcs: Items<u64>,
    sizes: Items<usize>,
    count: usize,
    stream: u64,
) -> Result<(), (usize, crate::abi::error::Error)> {
    let whole = |e| (usize::MAX, e);
    let dsts = dsts.read(count).map_err(whole)?;
    let srcs = srcs.read(count).map_err(whole)?;
    let sizes = sizes.read(count).map_err(whole)?;
    for (i, ((dst, src), bytes)) in dsts.into_iter().zip(srcs).zip(sizes).enumerate() {
        let copy = Copy3D::row(Side::address(dst), Side::address(src), bytes as u64);
        on(c, copy, stream).map_err(|e| (i, e))?;
    }
    Ok(())
}
