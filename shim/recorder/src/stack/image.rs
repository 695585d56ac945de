//! A loaded ELF file: what the running loader says of it, and our own mapping of its unwind data.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::ops::{Deref, Range};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const NT_GNU_BUILD_ID: u32 = 3;

/// Most segments looked at; real objects have about a dozen.
const MAX_SEGMENTS: usize = 32;

/// Reads this process's memory through the kernel: a range that another thread's dlclose just took
/// away is an error here, not a crash.
pub struct Memory(File);

impl Memory {
    /// Opens it; `None` where /proc is not to be had.
    pub fn open() -> Option<Memory> {
        File::open("/proc/self/mem").ok().map(Memory)
    }

    fn read(&self, address: u64, len: u64) -> Option<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len).ok().filter(|len| *len <= 256 << 20)?];
        self.0.read_exact_at(&mut bytes, address).ok()?;
        Some(bytes)
    }
}

/// What `dl_iterate_phdr` says of one object, copied without allocating.
#[derive(Clone, Copy)]
pub struct Loaded {
    /// What was added to its ELF addresses.
    pub bias: u64,
    /// Its path; empty for the program itself.
    pub name: [u8; 512],
    name_len: usize,
    segments: [Segment; MAX_SEGMENTS],
    segment_count: usize,
}

#[derive(Clone, Copy, Default)]
struct Segment {
    kind: u32,
    file_offset: u64,
    address: u64,
    file_size: u64,
    memory_size: u64,
}

impl Loaded {
    /// Copies what the loader says.
    ///
    /// # Safety
    /// `info` must be what `dl_iterate_phdr` passed to the running callback.
    pub unsafe fn copy(info: &libc::dl_phdr_info) -> Loaded {
        let mut loaded = Loaded {
            bias: info.dlpi_addr,
            name: [0; 512],
            name_len: 0,
            segments: [Segment::default(); MAX_SEGMENTS],
            segment_count: 0,
        };
        if !info.dlpi_name.is_null() {
            // SAFETY: the loader's own NUL-terminated name, valid during the callback.
            let name = unsafe { CStr::from_ptr(info.dlpi_name) }.to_bytes();
            loaded.name_len = name.len().min(loaded.name.len());
            loaded.name[..loaded.name_len].copy_from_slice(&name[..loaded.name_len]);
        }
        let count = usize::from(info.dlpi_phnum).min(MAX_SEGMENTS);
        for n in 0..count {
            // SAFETY: the loader vouches for dlpi_phnum headers, during the callback.
            let header = unsafe { &*info.dlpi_phdr.add(n) };
            loaded.segments[n] = Segment {
                kind: header.p_type,
                file_offset: header.p_offset,
                address: header.p_vaddr,
                file_size: header.p_filesz,
                memory_size: header.p_memsz,
            };
        }
        loaded.segment_count = count;
        loaded
    }

    /// Where it was loaded from; the program's own path for the unnamed first object.
    pub fn path(&self) -> PathBuf {
        match &self.name[..self.name_len] {
            b"" => std::fs::read_link("/proc/self/exe").unwrap_or_default(),
            name => PathBuf::from(OsStr::from_bytes(name)),
        }
    }

    /// Whether it is the program itself.
    pub fn is_program(&self) -> bool {
        self.name_len == 0
    }

    fn segments(&self, kind: u32) -> impl Iterator<Item = &Segment> {
        self.segments[..self.segment_count]
            .iter()
            .filter(move |segment| segment.kind == kind)
    }

    /// The addresses it occupies in memory.
    pub fn range(&self) -> Range<u64> {
        let start = self.segments(PT_LOAD).map(|s| s.address).min().unwrap_or(0);
        let end = self
            .segments(PT_LOAD)
            .map(|s| s.address + s.memory_size)
            .max()
            .unwrap_or(0);
        self.bias.wrapping_add(start)..self.bias.wrapping_add(end)
    }

    /// Its build id, read from memory; empty if it has none.
    pub fn build_id(&self, memory: &Memory) -> Vec<u8> {
        self.segments(PT_NOTE)
            .filter_map(|note| {
                memory.read(
                    self.bias.wrapping_add(note.address),
                    note.file_size.min(4096),
                )
            })
            .find_map(|notes| find_build_id(&notes))
            .unwrap_or_default()
    }

    /// Whether the file on disk has the notes that are in memory, the build id among them, where
    /// the program headers say. (Tools like patchelf move them to the end of a file.)
    fn has_same_notes(&self, memory: &Memory) -> bool {
        let Ok(file) = File::open(self.path()) else {
            return false;
        };
        self.segments(PT_NOTE).all(|note| {
            let len = note.file_size.min(4096);
            let mut on_disk = vec![0; len as usize];
            let in_memory = memory.read(self.bias.wrapping_add(note.address), len);
            file.read_exact_at(&mut on_disk, note.file_offset).is_ok() && in_memory == Some(on_disk)
        })
    }

    /// The unwind sections, from our own mapping of the file if it is the same file as the one
    /// that was loaded, else copied from memory.
    pub fn unwind_sections(&self, memory: &Memory) -> Option<UnwindSections> {
        let header = *self.segments(PT_GNU_EH_FRAME).next()?;
        let load = *self.segments(PT_LOAD).find(|load| {
            header.address >= load.address && header.address < load.address + load.file_size
        })?;
        let in_memory = memory.read(
            self.bias.wrapping_add(header.address),
            header.file_size.min(64),
        )?;
        let file = OwnMapping::of(&self.path(), load.file_offset, load.file_size).filter(|own| {
            // A file replaced since (an upgrade under a running process) must not be believed.
            let at = (header.address - load.address) as usize;
            own.get(at..at + in_memory.len()) == Some(&in_memory) && self.has_same_notes(memory)
        });
        let bytes = match file {
            Some(own) => own,
            None => OwnMapping::Copied(
                memory
                    .read(self.bias.wrapping_add(load.address), load.file_size)?
                    .into(),
            ),
        };
        let bytes = Arc::new(bytes);
        let eh_frame_at = eh_frame_address(
            bytes.get((header.address - load.address) as usize..)?,
            header.address,
        )?;
        let end = load.address + load.file_size;
        let (eh_frame, hdr) = if (load.address..end).contains(&eh_frame_at) {
            (
                eh_frame_at..end,
                header.address..header.address + header.file_size,
            )
        } else {
            return None;
        };
        let slice = |range: &Range<u64>| SectionBytes {
            bytes: bytes.clone(),
            range: (range.start - load.address) as usize..(range.end - load.address) as usize,
        };
        Some(UnwindSections {
            eh_frame_bytes: slice(&eh_frame),
            eh_frame_hdr_bytes: slice(&hdr),
            eh_frame,
            eh_frame_hdr: hdr,
        })
    }
}

/// `.eh_frame` and its search table, with their ELF addresses.
pub struct UnwindSections {
    /// ELF addresses of `.eh_frame` (its end is not known; the segment's end stands for it).
    pub eh_frame: Range<u64>,
    /// Its bytes.
    pub eh_frame_bytes: SectionBytes,
    /// ELF addresses of `.eh_frame_hdr`.
    pub eh_frame_hdr: Range<u64>,
    /// Its bytes.
    pub eh_frame_hdr_bytes: SectionBytes,
}

/// Part of a mapping, kept alive by whoever holds it.
#[derive(Clone)]
pub struct SectionBytes {
    bytes: Arc<OwnMapping>,
    range: Range<usize>,
}

impl Default for SectionBytes {
    fn default() -> Self {
        SectionBytes {
            bytes: Arc::new(OwnMapping::Copied(Box::default())),
            range: 0..0,
        }
    }
}

impl Deref for SectionBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.range.clone()).unwrap_or_default()
    }
}

/// Bytes of a file, mapped privately by us; or a copy.
pub enum OwnMapping {
    /// Start of the mapping, its length, and where the wanted bytes begin.
    Mapped {
        base: *mut libc::c_void,
        len: usize,
        from: usize,
    },
    /// Copied from memory.
    Copied(Box<[u8]>),
}

// SAFETY: read-only bytes that belong to this value alone.
unsafe impl Send for OwnMapping {}
// SAFETY: as above.
unsafe impl Sync for OwnMapping {}

impl OwnMapping {
    fn of(path: &std::path::Path, offset: u64, len: u64) -> Option<OwnMapping> {
        let file = File::open(path).ok()?;
        let meta = file.metadata().ok()?;
        if !meta.is_file() || meta.len() < offset.checked_add(len)? || len == 0 {
            return None;
        }
        let from = (offset % 4096) as usize;
        let mapped = len as usize + from;
        // SAFETY: a new private read-only mapping inside the file's length. Packaged objects are
        // replaced, not truncated in place; the loader's own mapping relies on the same.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                (offset - from as u64) as libc::off_t,
            )
        };
        (base != libc::MAP_FAILED).then_some(OwnMapping::Mapped {
            base,
            len: mapped,
            from,
        })
    }
}

impl Deref for OwnMapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            // SAFETY: the mapping made in `of`, alive as long as this value.
            OwnMapping::Mapped { base, len, from } => unsafe {
                std::slice::from_raw_parts(base.cast::<u8>().add(*from), len - from)
            },
            OwnMapping::Copied(bytes) => bytes,
        }
    }
}

impl Drop for OwnMapping {
    fn drop(&mut self) {
        if let OwnMapping::Mapped { base, len, .. } = self {
            // SAFETY: the mapping made in `of`; nobody borrows it any more.
            unsafe { libc::munmap(*base, *len) };
        }
    }
}

/// Where `.eh_frame` begins, from the search table's head (LSB core: `.eh_frame_hdr`).
fn eh_frame_address(hdr: &[u8], hdr_address: u64) -> Option<u64> {
    // version 1, eh_frame_ptr encoded as pc-relative signed 4 bytes: what every linker writes.
    let [1, 0x1b, _, _, a, b, c, d, ..] = *hdr else {
        return None;
    };
    Some((hdr_address + 4).wrapping_add_signed(i64::from(i32::from_le_bytes([a, b, c, d]))))
}

fn find_build_id(mut notes: &[u8]) -> Option<Vec<u8>> {
    let word = |bytes: &[u8], at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    while notes.len() >= 12 {
        let (name_len, desc_len, kind) = (
            word(notes, 0)? as usize,
            word(notes, 4)? as usize,
            word(notes, 8)?,
        );
        let desc = 12 + name_len.checked_next_multiple_of(4)?;
        let end = desc.checked_add(desc_len)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..12 + name_len)? == b"GNU\0" {
            return notes
                .get(desc..end)
                .filter(|id| id.len() <= 64)
                .map(<[u8]>::to_vec);
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_id_is_found_among_other_notes() {
        let mut notes = Vec::new();
        for (kind, desc) in [(1u32, &[9u8; 16][..]), (3, &[1, 2, 3, 4, 5, 6, 7, 8])] {
            notes.extend(4u32.to_le_bytes());
            notes.extend((desc.len() as u32).to_le_bytes());
            notes.extend(kind.to_le_bytes());
            notes.extend(b"GNU\0");
            notes.extend(desc);
        }
        assert_eq!(find_build_id(&notes), Some(vec![1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(find_build_id(&notes[..30]), None);
    }
}
