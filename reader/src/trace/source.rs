//! Bytes of a file that somebody else may be writing.
//!
//! Everything is copied out by `pread`, be the bytes a file of their own or a member of an archive
//! that leaves out what is zero ([`Piece`]). Only for rows that change faster than a system call
//! takes is the file mapped, and then read by atomic loads through raw pointers, never seen as
//! a slice.

use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use vramtrace_format::layout::PAGE;

/// Bytes of a trace that lie in one run in an archive; what is in none is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Where in the trace.
    pub at: u64,
    /// Bytes.
    pub len: u64,
    /// Where in the archive.
    pub position: u64,
}

/// An opened file of known length.
pub struct Source {
    file: File,
    len: u64,
    /// Of an archive's member: where its bytes are, in order.
    pieces: Option<Vec<Piece>>,
    map: OnceLock<Option<MmapRaw>>,
}

/// How to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// By system calls.
    Calls,
    /// Through the mapping, if the file can be mapped.
    Mapping,
}

impl Source {
    /// Over `file`, of which only the first `len` bytes are looked at.
    pub fn new(file: File, len: u64) -> Source {
        Source {
            file,
            len,
            pieces: None,
            map: OnceLock::new(),
        }
    }

    /// Over a member of an archive with `len` bytes, of which those that are not zero lie where
    /// `pieces` say; these are in order and do not overlap.
    pub fn within(file: File, len: u64, pieces: Vec<Piece>) -> Source {
        Source {
            pieces: Some(pieces),
            ..Source::new(file, len)
        }
    }

    /// Bytes there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies plain bytes.
    pub fn bytes(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let Some(pieces) = &self.pieces else {
            return self.file.read_exact_at(into, offset);
        };
        let end = offset.checked_add(into.len() as u64);
        let Some(end) = end.filter(|&end| end <= self.len) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        into.fill(0);
        let first = pieces.partition_point(|piece| piece.at + piece.len <= offset);
        for piece in pieces[first..].iter().take_while(|piece| piece.at < end) {
            let (from, to) = (piece.at.max(offset), (piece.at + piece.len).min(end));
            let part = &mut into[(from - offset) as usize..(to - offset) as usize];
            self.file
                .read_exact_at(part, piece.position + (from - piece.at))?;
        }
        Ok(())
    }

    /// Copies whole words from `offset`, a multiple of 8.
    pub fn words(&self, through: Through, offset: u64, into: &mut [u64]) -> io::Result<()> {
        let map = match through {
            Through::Mapping => self.mapping(),
            Through::Calls => None,
        };
        match map {
            Some(map) => load(map, self.len, offset, into),
            None => self.bytes(offset, bytemuck::cast_slice_mut(into)),
        }
    }

    /// The first bytes in `from..until` that the file system really keeps; `None` if there are only
    /// holes, which read as zeros. Where that cannot be told, all of it.
    pub fn data(&self, from: u64, until: u64) -> Option<(u64, u64)> {
        let seek = |offset: u64, whence| {
            // SAFETY: an open descriptor and plain numbers. Nobody reads from its position.
            let at = unsafe { libc::lseek(self.file.as_raw_fd(), offset as libc::off_t, whence) };
            u64::try_from(at).map_err(|_| io::Error::last_os_error().raw_os_error())
        };
        let start = match seek(from, libc::SEEK_DATA) {
            Ok(at) => at.max(from),
            Err(Some(libc::ENXIO)) => return None,
            Err(_) => from,
        };
        let end = seek(start, libc::SEEK_HOLE).unwrap_or(until);
        (start < until).then(|| (start, end.clamp(start + 1, until)))
    }

    /// The open file, once more.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Bytes that the file has now.
    pub fn len_now(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Blocks of 512 bytes that the file system keeps of the file now: more when something is written where
    /// there was a hole.
    pub fn blocks_now(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks())
    }

    /// One word, read before anything that is read afterwards and after everything before.
    pub fn word(&self, through: Through, offset: u64) -> io::Result<u64> {
        let mut word = [0];
        fence(Ordering::Acquire);
        self.words(through, offset, &mut word)?;
        fence(Ordering::Acquire);
        Ok(word[0])
    }

    fn mapping(&self) -> Option<&MmapRaw> {
        // Nobody writes to a trace in an archive.
        if self.pieces.is_some() {
            return None;
        }
        self.map
            .get_or_init(|| {
                let len = usize::try_from(self.len).ok()? / PAGE as usize * PAGE as usize;
                MmapOptions::new()
                    .len(len)
                    .map_raw_read_only(&self.file)
                    .ok()
            })
            .as_ref()
    }
}

fn load(map: &MmapRaw, len: u64, offset: u64, into: &mut [u64]) -> io::Result<()> {
    let bytes = size_of_val(into) as u64;
    let end = offset
        .checked_add(bytes)
        .filter(|&end| end <= len.min(map.len() as u64));
    if end.is_none() || !offset.is_multiple_of(8) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // SAFETY: `offset` is within the mapping, checked above.
    let start = unsafe { map.as_ptr().add(offset as usize) }
        .cast_mut()
        .cast::<u64>();
    for (index, word) in into.iter_mut().enumerate() {
        // SAFETY: The word lies inside the mapping (checked above) and is aligned (the mapping
        // begins at a page, `offset` is a multiple of 8). Other processes change it meanwhile,
        // which is what atomics are for. The mapping is readable and lives as long as `map`; the
        // recorder never shortens its file.
        *word = unsafe { AtomicU64::from_ptr(start.add(index)) }.load(Ordering::Relaxed);
    }
    Ok(())
}
