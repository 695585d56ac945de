//! Functions and their launches.

use super::library::attribute;
use crate::abi::error::{INVALID_HANDLE, INVALID_VALUE, R};
use crate::abi::graph::{KernelParams, KernelParamsV2, LaunchConfig};
use crate::ffi::{In, Items, Out};
use crate::gate::{Call, WORK, driver};
use crate::model::graph::Op;
use std::ffi::c_char;

fn known(c: &Call, function: u64) -> R {
    let found =
        c.modules.functions.get(function).is_some() || c.modules.kernels.get(function).is_some();
    if found { Ok(()) } else { Err(INVALID_HANDLE) }
}

fn launch(c: &mut Call, f: u64, config: LaunchConfig, params: u64, extra: u64) -> R {
    known(c, f)?;
    if config.grid.contains(&0) || config.block.contains(&0) {
        return Err(INVALID_VALUE);
    }
    if config.block.iter().map(|&n| u64::from(n)).product::<u64>() > 1024 {
        return Err(INVALID_VALUE);
    }
    let stream = c.work_stream(config.stream)?;
    let v1 = KernelParams {
        func: f,
        grid: config.grid,
        block: config.block,
        shared: config.shared,
        params,
        extra,
    };
    let ctx = c.ctx;
    c.submit(stream, Op::Kernel(KernelParamsV2 { v1, kernel: 0, ctx }))
}

fn config(grid: [u32; 3], block: [u32; 3], shared: u32, stream: u64) -> LaunchConfig {
    LaunchConfig {
        grid,
        block,
        shared,
        stream,
        attrs: 0,
        attr_count: 0,
    }
}

/// `CUDA_LAUNCH_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LaunchParams {
    function: u64,
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    stream: u64,
    params: u64,
}

driver! {
    /// No code runs; a kernel called "trap" makes the context fail with 719.
    [WORK] fn cuLaunchKernel + cuLaunchKernel_ptsz(
        f: u64, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32, stream: u64,
        params: u64, extra: u64,
    ) |c| {
        launch(c, f, config([gx, gy, gz], [bx, by, bz], shared, stream), params, extra)
    }

    /// With attributes.
    [WORK] fn cuLaunchKernelEx + cuLaunchKernelEx_ptsz(
        config: In<LaunchConfig>, f: u64, params: u64, extra: u64,
    ) |c| {
        launch(c, f, config.get()?, params, extra)
    }

    /// All blocks at once.
    [WORK] fn cuLaunchCooperativeKernel + cuLaunchCooperativeKernel_ptsz(
        f: u64, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32, stream: u64,
        params: u64,
    ) |c| {
        launch(c, f, config([gx, gy, gz], [bx, by, bz], shared, stream), params, 0)
    }

    /// On several devices.
    [WORK] fn cuLaunchCooperativeKernelMultiDevice(
        list: Items<LaunchParams>, count: u32, flags: u32,
    ) |c| {
        let _ = flags;
        for p in list.read(count as usize)? {
            launch(c, p.function, config(p.grid, p.block, p.shared, p.stream), p.params, 0)?;
        }
        Ok(())
    }

    /// One attribute.
    [WORK] fn cuFuncGetAttribute(out: Out<i32>, id: u32, f: u64) |c| {
        known(c, f)?;
        out.set(attribute(id)?)
    }

    /// Taken.
    [WORK] fn cuFuncSetAttribute(f: u64, id: u32, value: i32) |c| {
        known(c, f)?;
        let _ = value;
        attribute(id).map(|_| ())
    }

    /// Taken.
    [WORK] fn cuFuncSetCacheConfig(f: u64, config: u32) |c| {
        let _ = config;
        known(c, f)
    }

    /// Taken.
    [WORK] fn cuFuncSetSharedMemConfig(f: u64, config: u32) |c| {
        let _ = config;
        known(c, f)
    }

    /// Its module.
    [WORK] fn cuFuncGetModule(out: Out<u64>, f: u64) |c| {
        out.set(c.modules.functions.get(f).ok_or(INVALID_HANDLE)?.module)
    }

    /// Lives as long as the function.
    [WORK] fn cuFuncGetName(out: Out<*const c_char>, f: u64) |c| {
        out.set(c.modules.functions.get(f).ok_or(INVALID_HANDLE)?.name.as_ptr().cast())
    }

    /// Parameters are not known.
    [WORK] fn cuFuncGetParamInfo(f: u64, index: usize, offset: Out<usize>, size: Out<usize>) |c| {
        known(c, f)?;
        let _ = (index, offset, size);
        Err(INVALID_VALUE)
    }

    /// Always loaded.
    [WORK] fn cuFuncIsLoaded(out: Out<u32>, f: u64) |c| {
        known(c, f)?;
        out.set(1)
    }

    /// Loaded already.
    [WORK] fn cuFuncLoad(f: u64) |c| { known(c, f) }

    /// Enough for any caller to compute a grid with.
    [WORK] fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        out: Out<i32>, f: u64, block: i32, shared: usize,
    ) |c| {
        let _ = shared;
        known(c, f)?;
        out.set(blocks(block)?)
    }

    /// With flags, which do not matter.
    [WORK] fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        out: Out<i32>, f: u64, block: i32, shared: usize, flags: u32,
    ) |c| {
        let _ = (shared, flags);
        known(c, f)?;
        out.set(blocks(block)?)
    }

    /// The largest block on every multiprocessor.
    [WORK] fn cuOccupancyMaxPotentialBlockSize(
        grid: Out<i32>, block: Out<i32>, f: u64, callback: u64, shared: usize, limit: i32,
    ) |c| {
        let _ = (callback, shared);
        known(c, f)?;
        grid.set(264)?;
        block.set(if limit > 0 { limit.min(1024) } else { 1024 })
    }

    /// With flags, which do not matter.
    [WORK] fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: Out<i32>, block: Out<i32>, f: u64, callback: u64, shared: usize, limit: i32,
        flags: u32,
    ) |c| {
        let _ = (callback, shared, flags);
        known(c, f)?;
        grid.set(264)?;
        block.set(if limit > 0 { limit.min(1024) } else { 1024 })
    }

    /// Eight blocks, the portable maximum.
    [WORK] fn cuOccupancyMaxPotentialClusterSize(
        out: Out<i32>, f: u64, config: In<LaunchConfig>,
    ) |c| {
        known(c, f)?;
        config.get()?;
        out.set(8)
    }

    /// One per group of multiprocessors.
    [WORK] fn cuOccupancyMaxActiveClusters(out: Out<i32>, f: u64, config: In<LaunchConfig>) |c| {
        known(c, f)?;
        config.get()?;
        out.set(16)
    }

    /// All of it, shared by the blocks.
    [WORK] fn cuOccupancyAvailableDynamicSMemPerBlock(
        out: Out<usize>, f: u64, count: i32, block: i32,
    ) |c| {
        known(c, f)?;
        blocks(block)?;
        let count = usize::try_from(count).ok().filter(|&n| n > 0).ok_or(INVALID_VALUE)?;
        out.set(232_448 / count)
    }
}

/// Blocks of a size that fit a multiprocessor.
fn blocks(size: i32) -> R<i32> {
    if (1..=1024).contains(&size) {
        Ok((2048 / size).min(32))
    } else {
        Err(INVALID_VALUE)
    }
}
