//! A file's content, read or mapped.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::path::Path;

/// Larger files are mapped. A mapped file that somebody cuts short ends the process, so what is
/// cheap to read is read.
const MAPPED_FROM: u64 = 64 << 20;

/// Content that stays where it is as long as this value exists, also when the value moves.
pub(super) enum Bytes {
    Read(Box<[u8]>),
    Mapped(memmap2::Mmap),
}

impl Bytes {
    /// Of a regular file.
    pub(super) fn of(path: &Path) -> io::Result<Bytes> {
        // Asked first: to open a pipe is to wait, to open a device can have effects.
        let regular = || io::Error::other("not a regular file");
        std::fs::metadata(path)?
            .is_file()
            .then_some(())
            .ok_or_else(regular)?;
        let mut file = File::open(path)?;
        let facts = file.metadata()?;
        if facts.len() >= MAPPED_FROM {
            // SAFETY: the map is only read. Somebody writing to the file meanwhile changes bytes
            // that are checked at each use and never relied on.
            return Ok(Bytes::Mapped(unsafe { memmap2::Mmap::map(&file)? }));
        }
        let mut content = Vec::with_capacity(facts.len() as usize);
        file.by_ref().take(MAPPED_FROM).read_to_end(&mut content)?;
        Ok(content.into())
    }

    /// The content with its lifetime set free.
    ///
    /// # Safety
    /// The caller keeps this value for as long as anything made from the slice exists.
    pub(super) unsafe fn unbound(&self) -> &'static [u8] {
        let bytes: &[u8] = self;
        // SAFETY: both variants own memory that does not move with the value; the caller keeps
        // the value.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(content: Vec<u8>) -> Bytes {
        Bytes::Read(content.into_boxed_slice())
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Read(bytes) => bytes,
            Bytes::Mapped(map) => map,
        }
    }
}
