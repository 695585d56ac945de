//! Moving bytes: every copy and fill ends here, with addresses checked against what is live.

use super::State;
use super::mapping::copy_bytes;
use crate::abi::copy::{Copy3D, Side};
use crate::abi::error::{INVALID_HANDLE, INVALID_VALUE, R};
use crate::abi::graph::MemsetParams;

/// Where one side's bytes are.
enum Place {
    /// At consecutive host addresses.
    Flat(u64),
    /// At device addresses of virtual memory, to be translated mapping by mapping.
    Virtual(u64),
}

impl State {
    /// Performs a copy.
    pub fn copy(&mut self, c: &Copy3D) -> R {
        if c.width == 0 || c.height == 0 || c.depth == 0 {
            return Ok(());
        }
        let src = self.place(&c.src, c, false)?;
        let dst = self.place(&c.dst, c, true)?;
        let (src_pitch, src_slice) = self.strides(&c.src, c)?;
        let (dst_pitch, dst_slice) = self.strides(&c.dst, c)?;
        let contiguous = src_pitch == c.width && dst_pitch == c.width;
        let (width, height) = if contiguous {
            (c.width * c.height, 1)
        } else {
            (c.width, c.height)
        };
        for z in 0..c.depth {
            for y in 0..height {
                self.copy_row(
                    &dst,
                    z * dst_slice + y * dst_pitch,
                    &src,
                    z * src_slice + y * src_pitch,
                    width,
                )?;
            }
        }
        Ok(())
    }

    fn copy_row(&self, dst: &Place, dst_at: u64, src: &Place, src_at: u64, len: u64) -> R {
        let mut done = 0;
        while done < len {
            let (d, d_len) = self.host_address(dst, dst_at + done)?;
            let (s, s_len) = self.host_address(src, src_at + done)?;
            let n = (len - done).min(d_len).min(s_len);
            // SAFETY: `place` checked each device side against a live range or a mapping, whose
            // backing stays mapped while the lock is held. A host side is the caller's own claim,
            // as in the real driver.
            unsafe { copy_bytes(d, s, n) };
            done += n;
        }
        Ok(())
    }

    /// The host address of a place plus an offset, and how many bytes follow there.
    fn host_address(&self, place: &Place, offset: u64) -> R<(u64, u64)> {
        match *place {
            Place::Flat(data) => Ok((data + offset, u64::MAX)),
            Place::Virtual(addr) => self.virtual_memory.translate(addr + offset),
        }
    }

    fn strides(&self, side: &Side, c: &Copy3D) -> R<(u64, u64)> {
        if side.kind == 3 {
            let array = self.arrays.get(side.array).ok_or(INVALID_HANDLE)?;
            return Ok((array.pitch(), array.pitch() * array.desc.rows()));
        }
        let pitch = if side.pitch == 0 { c.width } else { side.pitch };
        if pitch < c.width && c.height > 1 {
            return Err(INVALID_VALUE);
        }
        let rows = if side.height == 0 {
            c.height
        } else {
            side.height
        };
        Ok((pitch, pitch.checked_mul(rows).ok_or(INVALID_VALUE)?))
    }

    fn place(&mut self, side: &Side, c: &Copy3D, write: bool) -> R<Place> {
        let (pitch, slice) = self.strides(side, c)?;
        let start = side
            .z
            .checked_mul(slice)
            .and_then(|z| z.checked_add(side.y.checked_mul(pitch)?))
            .and_then(|zy| zy.checked_add(side.x))
            .ok_or(INVALID_VALUE)?;
        let extent = (c.depth - 1)
            .checked_mul(slice)
            .and_then(|z| z.checked_add((c.height - 1).checked_mul(pitch)?))
            .and_then(|zy| zy.checked_add(c.width))
            .ok_or(INVALID_VALUE)?;
        match side.kind {
            1 if side.host == 0 => Err(INVALID_VALUE),
            1 => Ok(Place::Flat(side.host + start)),
            2 => self
                .device_place(side.device + start, extent, write)?
                .ok_or(INVALID_VALUE),
            3 => {
                let array = self.arrays.get_mut(side.array).ok_or(INVALID_HANDLE)?;
                if start
                    .checked_add(extent)
                    .is_none_or(|end| end > array.bytes())
                {
                    return Err(INVALID_VALUE);
                }
                Ok(Place::Flat(array.data()? + start))
            }
            4 => {
                let addr = side.device + start;
                if addr == 0 {
                    return Err(INVALID_VALUE);
                }
                // Unified addressing: what is nobody's is the caller's pageable memory.
                let place = self.device_place(addr, extent, write)?;
                match place {
                    Some(place) => Ok(place),
                    None if self.is_device_address(addr) => Err(INVALID_VALUE),
                    None => Ok(Place::Flat(addr)),
                }
            }
            _ => Err(INVALID_VALUE),
        }
    }

    fn is_device_address(&self, addr: u64) -> bool {
        self.devices
            .iter()
            .any(|d| d.arena.contains(addr) || d.low.as_ref().is_some_and(|low| low.contains(addr)))
    }

    /// An address of device, managed, pinned or virtual memory with `len` bytes behind it.
    fn device_place(&mut self, addr: u64, len: u64, write: bool) -> R<Option<Place>> {
        if let Some(alloc) = self.live.find(addr) {
            let (base, offset) = (alloc.base, addr - alloc.base);
            if offset.checked_add(len).is_none_or(|end| end > alloc.size) {
                return Err(INVALID_VALUE);
            }
            let data = alloc.data + offset;
            if write && let Some(alloc) = self.live.get_mut(base) {
                alloc.dirty = true;
            }
            return Ok(Some(Place::Flat(data)));
        }
        if self.virtual_memory.is_reserved(addr) {
            self.virtual_memory.check_access(addr, len, write)?;
            return Ok(Some(Place::Virtual(addr)));
        }
        if let Some(host) = self.host.find(addr) {
            if (addr - host.base)
                .checked_add(len)
                .is_none_or(|end| end > host.size)
            {
                return Err(INVALID_VALUE);
            }
            return Ok(Some(Place::Flat(addr)));
        }
        Ok(None)
    }

    /// Fills a rectangle.
    pub fn fill(&mut self, m: &MemsetParams) -> R {
        if m.width == 0 || m.height == 0 {
            return Ok(());
        }
        let element = u64::from(m.element);
        if !matches!(element, 1 | 2 | 4) || !m.dst.is_multiple_of(element) {
            return Err(INVALID_VALUE);
        }
        let row = m.width.checked_mul(element).ok_or(INVALID_VALUE)?;
        let pitch = if m.height > 1 { m.pitch } else { row };
        if pitch < row {
            return Err(INVALID_VALUE);
        }
        let extent = (m.height - 1)
            .checked_mul(pitch)
            .and_then(|e| e.checked_add(row))
            .ok_or(INVALID_VALUE)?;
        let place = self
            .device_place(m.dst, extent, true)?
            .ok_or(INVALID_VALUE)?;
        let value = m.value.to_le_bytes();
        for y in 0..m.height {
            let mut done = 0;
            while done < row {
                let (addr, len) = self.host_address(&place, y * pitch + done)?;
                let n = (row - done).min(len);
                // SAFETY: as in `copy_row`; virtual mappings are multiples of 2 MiB, so that a
                // piece holds whole elements.
                unsafe { fill_bytes(addr, n, element, value) };
                done += n;
            }
        }
        Ok(())
    }
}

/// Fills `len` bytes with a repeated element of 1, 2 or 4 bytes.
///
/// # Safety
/// The range must be mapped and writable, `len` a multiple of `element`.
unsafe fn fill_bytes(addr: u64, len: u64, element: u64, value: [u8; 4]) {
    let (at, n) = (addr as *mut u8, (len / element) as usize);
    // SAFETY: the caller's; writes are unaligned ones where the element is larger than a byte.
    unsafe {
        match element {
            1 => at.write_bytes(value[0], n),
            2 => (0..n).for_each(|i| at.add(2 * i).cast::<[u8; 2]>().write([value[0], value[1]])),
            _ => (0..n).for_each(|i| at.add(4 * i).cast::<[u8; 4]>().write(value)),
        }
    }
}
