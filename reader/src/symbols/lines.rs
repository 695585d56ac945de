//! Functions, inlining and source lines, from DWARF.

use super::Place;
use super::bytes::Bytes;
use super::demangle::demangle;
use super::table::Elf;
use addr2line::gimli::{self, EndianSlice, RunTimeEndian, SectionId};
use object::{Object, ObjectSection};
use std::borrow::Cow;

/// A section may claim any size when it is decompressed.
const LARGEST_SECTION: u64 = 4 << 30;
/// Zlib cannot compress better than 1 to 1032; a larger claim is a lie.
const BEST_ZLIB: u64 = 1032;
/// Deeper inlining is damage.
const MOST_INLINED: usize = 256;

type Slice = EndianSlice<'static, RunTimeEndian>;

/// The DWARF of one file. Units are parsed when an address in them is asked for.
pub(super) struct Lines {
    // Declared, and so dropped, before the memory that it points into.
    context: addr2line::Context<Slice>,
    _sections: Vec<Bytes>,
}

impl Lines {
    /// `None` if the file has none. `shared` is the file with what several debug files share
    /// (`.gnu_debugaltlink`).
    pub(super) fn new(elf: &Elf, shared: Option<&Elf>) -> Option<Lines> {
        if !Lines::are_in(elf) {
            return None;
        }
        let mut sections = Vec::new();
        let mut dwarf = load(elf, &mut sections)?;
        if let Some(shared) = shared.and_then(|shared| load(shared, &mut sections)) {
            dwarf.set_sup(shared);
        }
        Some(Lines {
            context: addr2line::Context::from_dwarf(dwarf).ok()?,
            _sections: sections,
        })
    }

    /// Whether a file has any, without parsing it.
    pub(super) fn are_in(elf: &Elf) -> bool {
        section(elf, SectionId::DebugInfo).is_some_and(|section| section.size() > 0)
    }

    /// Places at an address, innermost first.
    pub(super) fn places(&self, address: u64) -> Vec<Place> {
        let mut places = Vec::new();
        let Ok(mut frames) = self.context.find_frames(address).skip_all_loads() else {
            return places;
        };
        while let Ok(Some(frame)) = frames.next() {
            let location = frame.location.as_ref();
            places.push(Place {
                function: frame
                    .function
                    .map(|function| demangle(function.name.slice()))
                    .filter(|name| !name.is_empty()),
                file: location
                    .and_then(|location| location.file)
                    .map(str::to_owned),
                line: location
                    .and_then(|location| location.line)
                    .filter(|&line| line > 0),
            });
            if places.len() == MOST_INLINED {
                break;
            }
        }
        places
    }
}

fn section<'file>(elf: &'file Elf, id: SectionId) -> Option<object::Section<'static, 'file>> {
    elf.section_by_name(id.name())
}

fn load(elf: &Elf, keep: &mut Vec<Bytes>) -> Option<gimli::Dwarf<Slice>> {
    let endian = if elf.is_little_endian() {
        RunTimeEndian::Little
    } else {
        RunTimeEndian::Big
    };
    gimli::Dwarf::load(|id| {
        let content = content(elf, id, keep).unwrap_or_default();
        Ok::<_, gimli::Error>(EndianSlice::new(content, endian))
    })
    .ok()
}

fn content(elf: &Elf, id: SectionId, keep: &mut Vec<Bytes>) -> Option<&'static [u8]> {
    let section = section(elf, id)?;
    let stored = section.compressed_data().ok()?;
    let claimed = stored.uncompressed_size;
    let honest = match stored.format {
        object::CompressionFormat::Zlib => claimed / BEST_ZLIB <= stored.data.len() as u64,
        _ => true,
    };
    if claimed > LARGEST_SECTION || !honest {
        return None;
    }
    match stored.decompress().ok()? {
        Cow::Borrowed(bytes) => Some(bytes),
        Cow::Owned(bytes) => {
            let bytes = Bytes::from(bytes);
            // SAFETY: `keep` becomes the field behind the context that uses this slice.
            let slice = unsafe { bytes.unbound() };
            keep.push(bytes);
            Some(slice)
        }
    }
}
