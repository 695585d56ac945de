//! Fills.

use crate::abi::error::R;
use crate::abi::graph::MemsetParams;
use crate::gate::{Call, WORK, driver};
use crate::model::graph::Op;

fn row(dst: u64, value: u32, element: u32, n: u64) -> MemsetParams {
    MemsetParams {
        dst,
        pitch: 0,
        value,
        element,
        width: n,
        height: 1,
    }
}

fn now(c: &mut Call, m: MemsetParams) -> R {
    let stream = c.work_stream(0)?;
    c.capture_of(stream)?;
    c.fill(&m)
}

fn on(c: &mut Call, m: MemsetParams, stream: u64) -> R {
    let stream = c.work_stream(stream)?;
    c.submit(stream, Op::Fill(m))
}

driver! {
    /// 8-bit elements, 32-bit address.
    [WORK] fn cuMemsetD8(dst: u32, value: u8, n: u32) |c| {
        now(c, row(dst.into(), value.into(), 1, n.into()))
    }

    /// 8-bit elements.
    [WORK] fn cuMemsetD8_v2 + cuMemsetD8_v2_ptds(dst: u64, value: u8, n: usize) |c| {
        now(c, row(dst, value.into(), 1, n as u64))
    }

    /// 8-bit elements, in stream order.
    [WORK] fn cuMemsetD8Async + cuMemsetD8Async_ptsz(dst: u64, value: u8, n: usize, stream: u64) |c| {
        on(c, row(dst, value.into(), 1, n as u64), stream)
    }

    /// Rectangle of 8-bit elements, 32-bit address.
    [WORK] fn cuMemsetD2D8(dst: u32, pitch: u32, value: u8, width: u32, height: u32) |c| {
        now(c, MemsetParams {
            dst: dst.into(),
            pitch: pitch.into(),
            value: value.into(),
            element: 1,
            width: width.into(),
            height: height.into(),
        })
    }

    /// Rectangle of 8-bit elements.
    [WORK] fn cuMemsetD2D8_v2 + cuMemsetD2D8_v2_ptds(
        dst: u64, pitch: usize, value: u8, width: usize, height: usize,
    ) |c| {
        now(c, rectangle(dst, pitch, value.into(), 1, width, height))
    }

    /// Rectangle of 8-bit elements, in stream order.
    [WORK] fn cuMemsetD2D8Async + cuMemsetD2D8Async_ptsz(
        dst: u64, pitch: usize, value: u8, width: usize, height: usize, stream: u64,
    ) |c| {
        on(c, rectangle(dst, pitch, value.into(), 1, width, height), stream)
    }

    /// 16-bit elements, 32-bit address.
    [WORK] fn cuMemsetD16(dst: u32, value: u16, n: u32) |c| {
        now(c, row(dst.into(), value.into(), 2, n.into()))
    }

    /// 16-bit elements.
    [WORK] fn cuMemsetD16_v2 + cuMemsetD16_v2_ptds(dst: u64, value: u16, n: usize) |c| {
        now(c, row(dst, value.into(), 2, n as u64))
    }

    /// 16-bit elements, in stream order.
    [WORK] fn cuMemsetD16Async + cuMemsetD16Async_ptsz(dst: u64, value: u16, n: usize, stream: u64) |c| {
        on(c, row(dst, value.into(), 2, n as u64), stream)
    }

    /// Rectangle of 16-bit elements, 32-bit address.
    [WORK] fn cuMemsetD2D16(dst: u32, pitch: u32, value: u16, width: u32, height: u32) |c| {
        now(c, MemsetParams {
            dst: dst.into(),
            pitch: pitch.into(),
            value: value.into(),
            element: 2,
            width: width.into(),
            height: height.into(),
        })
    }

    /// Rectangle of 16-bit elements.
    [WORK] fn cuMemsetD2D16_v2 + cuMemsetD2D16_v2_ptds(
        dst: u64, pitch: usize, value: u16, width: usize, height: usize,
    ) |c| {
        now(c, rectangle(dst, pitch, value.into(), 2, width, height))
    }

    /// Rectangle of 16-bit elements, in stream order.
    [WORK] fn cuMemsetD2D16Async + cuMemsetD2D16Async_ptsz(
        dst: u64, pitch: usize, value: u16, width: usize, height: usize, stream: u64,
    ) |c| {
        on(c, rectangle(dst, pitch, value.into(), 2, width, height), stream)
    }

    /// 32-bit elements, 32-bit address.
    [WORK] fn cuMemsetD32(dst: u32, value: u32, n: u32) |c| {
        now(c, row(dst.into(), value, 4, n.into()))
    }

    /// 32-bit elements.
    [WORK] fn cuMemsetD32_v2 + cuMemsetD32_v2_ptds(dst: u64, value: u32, n: usize) |c| {
        now(c, row(dst, value, 4, n as u64))
    }

    /// 32-bit elements, in stream order.
    [WORK] fn cuMemsetD32Async + cuMemsetD32Async_ptsz(dst: u64, value: u32, n: usize, stream: u64) |c| {
        on(c, row(dst, value, 4, n as u64), stream)
    }

    /// Rectangle of 32-bit elements, 32-bit address.
    [WORK] fn cuMemsetD2D32(dst: u32, pitch: u32, value: u32, width: u32, height: u32) |c| {
        now(c, MemsetParams {
            dst: dst.into(),
            pitch: pitch.into(),
            value,
            element: 4,
            width: width.into(),
            height: height.into(),
        })
    }

    /// Rectangle of 32-bit elements.
    [WORK] fn cuMemsetD2D32_v2 + cuMemsetD2D32_v2_ptds(
        dst: u64, pitch: usize, value: u32, width: usize, height: usize,
    ) |c| {
        now(c, rectangle(dst, pitch, value, 4, width, height))
    }

    /// Rectangle of 32-bit elements, in stream order.
    [WORK] fn cuMemsetD2D32Async + cuMemsetD2D32Async_ptsz(
        dst: u64, pitch: usize, value: u32, width: usize, height: usize, stream: u64,
    ) |c| {
        on(c, rectangle(dst, pitch, value, 4, width, height), stream)
    }

}

fn rectangle(
    dst: u64,
    pitch: usize,
    value: u32,
    element: u32,
    width: usize,
    height: usize,
) -> MemsetParams {
    MemsetParams {
        dst,
        pitch: pitch as u64,
        value,
        element,
        width: width as u64,
        height: height as u64,
    }
}
