//! What allocating and freeing means: the one place that keeps addresses, charges and pools in step.

use super::State;
use super::arena::Arena;
use super::live::{Alloc, Kind};
use crate::abi::error::{INVALID_VALUE, NOT_SUPPORTED, OUT_OF_MEMORY, R};

/// Pinned memory comes in pages of the host.
const HOST_PAGE: u64 = 4096;

fn alloc_host_pages(arena: Option<&mut Arena>, bytes: u64) -> R<(u64, u64)> {
    if bytes == 0 {
        return Err(INVALID_VALUE);
    }
    let rounded = bytes
        .checked_next_multiple_of(HOST_PAGE)
        .ok_or(OUT_OF_MEMORY)?;
    let taken = Arena::taken(rounded).ok_or(OUT_OF_MEMORY)?;
    let (base, _) = arena.ok_or(OUT_OF_MEMORY)?.alloc(taken, u64::MAX)?;
    Ok((base, taken))
}

impl State {
    /// Linear memory of the context's device.
    pub fn alloc_linear(&mut self, ctx: u64, bytes: u64, low: bool) -> R<u64> {
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        let ordinal = self.device_of(ctx)?;
        let taken = Arena::taken(bytes).ok_or(OUT_OF_MEMORY)?;
        let device = self.device(ordinal as i32)?;
        let base = device.alloc_linear(taken, low)?;
        let data = device.arena_of(base).data(base);
        self.add(base, bytes, taken, Kind::Linear, ordinal, ctx, data);
        Ok(base)
    }

    /// Managed memory: nothing is charged to the device until it migrates, which is not simulated.
    pub fn alloc_managed(&mut self, ctx: u64, bytes: u64) -> R<u64> {
        let ordinal = self.device_of(ctx)?;
        let (base, taken) = alloc_host_pages(self.managed_arena.as_mut(), bytes)?;
        self.add(base, bytes, taken, Kind::Managed, ordinal, ctx, base);
        Ok(base)
    }

    /// Pinned host memory.
    pub fn alloc_host(&mut self, ctx: u64, bytes: u64, flags: u32) -> R<u64> {
        let ordinal = self.device_of(ctx)?;
        let (base, taken) = alloc_host_pages(self.host_arena.as_mut(), bytes)?;
        let ctx = self.owner(ctx);
        self.host.insert(Alloc {
            base,
            size: bytes,
            taken,
            kind: Kind::Host(flags),
            device: ordinal,
            ctx,
            id: 0,
            data: base,
            dirty: true,
            exported: 0,
        });
        Ok(base)
    }

    /// A block of a pool.
    pub fn alloc_pool(&mut self, ctx: u64, pool: u64, bytes: u64) -> R<u64> {
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        let State {
            pools,
            devices,
            host_arena,
            ..
        } = self;
        let p = pools
            .get_mut(pool)
            .filter(|p| !p.destroyed)
            .ok_or(INVALID_VALUE)?;
        if p.imported.is_some() {
            return Err(INVALID_VALUE);
        }
        let ((base, taken, _), data, ordinal) = match p.device() {
            Some(index) => {
                let device = devices.get_mut(index).ok_or(INVALID_VALUE)?;
                let room = device.room();
                let got = p.alloc(bytes, &mut device.arena, room)?;
                device.used += got.2;
                (got, device.arena.data(got.0), index as u32)
            }
            None => {
                let arena = host_arena.as_mut().ok_or(OUT_OF_MEMORY)?;
                let got = p.alloc(bytes, arena, u64::MAX)?;
                (got, got.0, 0)
            }
        };
        self.add(base, bytes, taken, Kind::Pool(pool), ordinal, ctx, data);
        Ok(base)
    }

    /// Enters a range into the live set.
    #[allow(clippy::too_many_arguments)]
    pub fn add(
        &mut self,
        base: u64,
        size: u64,
        taken: u64,
        kind: Kind,
        device: u32,
        ctx: u64,
        data: u64,
    ) {
        let alloc = Alloc {
            base,
            size,
            taken,
            kind,
            device,
            ctx: self.owner(ctx),
            id: 0,
            data,
            dirty: false,
            exported: 0,
        };
        self.live.insert(alloc);
    }

    /// cuMemFree: linear, managed, pool, graph, imported and external memory.
    pub fn free(&mut self, base: u64) -> R {
        let alloc = self.live.get(base).ok_or(INVALID_VALUE)?;
        match alloc.kind {
            Kind::Global | Kind::Ipc => Err(INVALID_VALUE),
            Kind::Pool(pool) => {
                let size = alloc.size;
                self.end(base);
                // The driver's count of used bytes only knows of cuMemFreeAsync (seen on a GPU).
                if let Some(pool) = self.pools.get_mut(pool) {
                    pool.used += size;
                }
                // This call waits for the device.
                self.synchronised();
                Ok(())
            }
            _ => {
                self.end(base);
                Ok(())
            }
        }
    }

    /// cuMemFreeAsync outside of a capture.
    pub fn free_async(&mut self, base: u64) -> R {
        let alloc = self.live.get(base).ok_or(INVALID_VALUE)?;
        match alloc.kind {
            Kind::Global | Kind::Ipc | Kind::External(_) => Err(INVALID_VALUE),
            Kind::Managed => Err(NOT_SUPPORTED),
            _ => {
                self.end(base);
                Ok(())
            }
        }
    }

    /// Ends a live range, whatever it is, and gives back what it holds.
    pub fn end(&mut self, base: u64) {
        let Some(a) = self.live.remove(base) else {
            return;
        };
        let State {
            pools,
            devices,
            managed_arena,
            ..
        } = self;
        let device = devices.get_mut(a.device as usize);
        match a.kind {
            Kind::Linear | Kind::Global => {
                if let Some(device) = device {
                    if a.exported != 0 {
                        device.arena_of(base).unexport(a.exported - 1);
                    }
                    device.free_linear(base, a.taken, a.dirty);
                }
            }
            Kind::Managed => {
                if let Some(arena) = managed_arena {
                    arena.free(base, a.taken, true);
                }
            }
            Kind::Pool(handle) => {
                if let Some(pool) = pools.get_mut(handle) {
                    pool.free(base, a.size, a.taken, a.dirty);
                }
                self.drop_pool_if_done(handle);
            }
            Kind::Graph(exec) => {
                if let Some(device) = device {
                    device.graph.give(exec, a.taken);
                }
                self.graph_memory_freed(base, a.dirty);
            }
            Kind::Ipc => self.sharing.close_ipc(base),
            Kind::PoolImport(handle) => {
                if let Some(pool) = pools.get_mut(handle) {
                    pool.imported_live = pool.imported_live.saturating_sub(1);
                    if let Some(imported) = &mut pool.imported {
                        imported.mapped.remove(&base);
                    }
                }
                self.drop_pool_if_done(handle);
            }
            Kind::External(handle) => self.unmap_external(handle, base),
            // Kept in the host set, never in this one.
            Kind::Host(_) | Kind::Registered(_) => {}
        }
    }

    /// cuMemFreeHost.
    pub fn free_host(&mut self, base: u64) -> R {
        let alloc = self.host.get(base).ok_or(INVALID_VALUE)?;
        if !matches!(alloc.kind, Kind::Host(_)) {
            return Err(INVALID_VALUE);
        }
        self.end_host(base);
        Ok(())
    }

    /// Ends a range of the host set.
    pub fn end_host(&mut self, base: u64) {
        let Some(a) = self.host.remove(base) else {
            return;
        };
        if let (Kind::Host(_), Some(arena)) = (a.kind, &mut self.host_arena) {
            arena.free(base, a.taken, true);
        }
    }

    /// Destroys a pool that was asked to go, once nothing of it is live.
    pub fn drop_pool_if_done(&mut self, handle: u64) {
        let done = self
            .pools
            .get(handle)
            .is_some_and(|p| p.destroyed && p.is_idle());
        if done {
            if let Some(pool) = self.pools.get_mut(handle) {
                pool.see_frees(None);
            }
            self.trim_pool(handle, 0);
            self.pools.remove(handle);
        }
    }

    /// Releases what a pool does not need, down to `keep` reserved bytes.
    pub fn trim_pool(&mut self, handle: u64, keep: u64) {
        let State {
            pools,
            devices,
            host_arena,
            ..
        } = self;
        let Some(pool) = pools.get_mut(handle) else {
            return;
        };
        match pool.device().and_then(|d| devices.get_mut(d)) {
            Some(device) => {
                let released = pool.trim(keep, &mut device.arena);
                device.discharge(released);
            }
            None => {
                if let Some(arena) = host_arena {
                    pool.trim(keep, arena);
                }
            }
        }
    }

    /// The host has waited for everything.
    pub fn synchronised(&mut self) {
        let pools = self.pools.iter_mut();
        pools.for_each(|(_, pool)| pool.see_frees(None));
        self.release_above_thresholds();
    }

    /// The host has waited for a stream. The legacy one is behind all of its context that wait for it.
    pub fn waited_for(&mut self, stream: u64) {
        let mut seen = vec![stream];
        if let Some(legacy) = self.streams.get(stream).filter(|stream| stream.legacy) {
            let ctx = legacy.ctx;
            let all = self.streams.iter();
            let behind = all.filter(|(_, one)| one.ctx == ctx && one.is_blocking());
            seen.extend(behind.map(|(handle, _)| handle));
        }
        for (_, pool) in self.pools.iter_mut() {
            seen.iter().for_each(|stream| pool.see_frees(Some(*stream)));
        }
        self.release_above_thresholds();
    }

    /// What a synchronisation does to pools: what is above the release threshold may go.
    fn release_above_thresholds(&mut self) {
        let want: Vec<(u64, u64)> = self
            .pools
            .iter()
            .filter(|(_, p)| p.wants_trim())
            .map(|(h, p)| (h, p.threshold))
            .collect();
        for (handle, keep) in want {
            self.trim_pool(handle, keep);
        }
    }
}
