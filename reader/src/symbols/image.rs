//! All that is known about one module: its file, its debug file, their tables.

use super::Place;
use super::bytes::Bytes;
use super::demangle::demangle;
use super::lines::Lines;
use super::locate::{Locator, hex};
use super::table::{Elf, Kind, Table};
use object::{BinaryFormat, Object, ObjectSection};
use std::io::Read;
use std::path::{Path, PathBuf};
use vramtrace_format::cold::Module;

/// Most bytes of an embedded, compressed symbol table (`.gnu_debugdata`).
const LARGEST_EMBEDDED: u64 = 256 << 20;
/// Most memory that unpacking it may take; packers use 64 MiB at their highest setting.
const EMBEDDED_MEMORY_KIB: u32 = 128 << 10;

/// An ELF file and its content.
struct File {
    // Declared, and so dropped, before the memory that it points into.
    elf: Elf,
    path: PathBuf,
    content: Bytes,
}

impl File {
    fn open(path: &Path) -> Option<File> {
        File::parse(path, Bytes::of(path).ok()?)
    }

    fn parse(path: &Path, content: Bytes) -> Option<File> {
        // SAFETY: `content` moves into the same value, where it outlives `elf`; `File` never
        // hands out either half alone.
        let elf = Elf::parse(unsafe { content.unbound() }).ok()?;
        (elf.format() == BinaryFormat::Elf).then(|| File {
            elf,
            path: path.into(),
            content,
        })
    }

    fn build_id(&self) -> Option<&[u8]> {
        self.elf.build_id().ok().flatten()
    }

    /// The symbol table that distributions leave in stripped files ("MiniDebugInfo").
    fn embedded(&self) -> Option<File> {
        let packed = self.elf.section_by_name(".gnu_debugdata")?.data().ok()?;
        let reader = lzma_rust2::XzReader::new_mem_limit(packed, true, EMBEDDED_MEMORY_KIB);
        let mut content = Vec::new();
        reader
            .take(LARGEST_EMBEDDED)
            .read_to_end(&mut content)
            .ok()?;
        File::parse(&self.path, content.into())
    }
}

/// What the files of a module say.
#[derive(Default)]
pub(super) struct Image {
    // The first two point into the memory of the last.
    lines: Option<Lines>,
    tables: Vec<(Table, usize)>,
    files: Vec<File>,
}

impl Image {
    pub(super) fn load(module: &Module, locator: &Locator, warnings: &mut Vec<String>) -> Image {
        let mut image = Image::default();
        // The kernel's own page ("[vdso]", "linux-vdso.so.1") and anonymous code are no files.
        if !module.path.starts_with('/') {
            return image;
        }
        let (main, other) = find_main(module, locator);
        let main_has_lines = main.as_ref().is_some_and(|main| Lines::are_in(&main.elf));
        let debug = if main_has_lines {
            None
        } else {
            find_debug(module, main.as_ref(), locator)
        };
        if main.is_none() {
            let instead = debug.as_ref().map(|debug| debug.path.as_path());
            warnings.extend(warning(module, other.as_deref(), instead));
        }
        image.files.extend(main);
        let dynamic = image.files.len();
        image.files.extend(debug);
        let with_lines = image.files.last();
        let shared = with_lines.and_then(|file| find_shared(file, locator));
        image.lines = with_lines
            .and_then(|file| Lines::new(&file.elf, shared.as_ref().map(|shared| &shared.elf)));
        image.add_tables(dynamic);
        image.files.extend(shared);
        image
    }

    /// Full tables first; where there is none, what the first `dynamic` files tell the linker.
    fn add_tables(&mut self, dynamic: usize) {
        let full = |file: &File| Table::new(&file.elf, Kind::Full);
        for index in 0..self.files.len() {
            self.tables.push((full(&self.files[index]), index));
        }
        self.tables.retain(|(table, _)| !table.is_empty());
        if !self.tables.is_empty() {
            return;
        }
        if let Some(embedded) = self.files.first().and_then(File::embedded) {
            self.tables.push((full(&embedded), self.files.len()));
            self.files.push(embedded);
        }
        // Distributions leave out of the embedded table what is in this one.
        for index in 0..dynamic {
            let table = Table::new(&self.files[index].elf, Kind::Dynamic);
            self.tables.push((table, index));
        }
    }

    /// Places at an address, innermost first; none if nothing is known.
    pub(super) fn places(&self, address: u64) -> Vec<Place> {
        let mut places = match &self.lines {
            Some(lines) => lines.places(address),
            None => Vec::new(),
        };
        match places.last_mut() {
            Some(outermost) => self.complete(outermost, address),
            None => places.extend(self.symbol(address).map(|function| Place {
                function: Some(function),
                ..Place::default()
            })),
        }
        places
    }

    /// Compilers leave out the full name of what other units cannot call; the symbol table has it
    /// for the function that everything else was inlined into.
    fn complete(&self, outermost: &mut Place, address: u64) {
        let bare = outermost.function.as_deref().unwrap_or_default();
        let qualified = |name: &str| name.contains("::") || name.contains('(');
        if qualified(bare) {
            return;
        }
        if let Some(full) = self.symbol(address)
            && (bare.is_empty() || (qualified(&full) && full.contains(bare)))
        {
            outermost.function = Some(full);
        }
    }

    fn symbol(&self, address: u64) -> Option<String> {
        self.tables
            .iter()
            .find_map(|(table, file)| table.name(&self.files[*file].elf, address))
            .map(demangle)
    }
}

/// The module's own file, or else the build id of the file that is in its place.
fn find_main(module: &Module, locator: &Locator) -> (Option<File>, Option<String>) {
    let mut other = None;
    for (path, by_id) in locator.binaries(module) {
        let Some(file) = File::open(&path) else {
            continue;
        };
        let id = file.build_id().unwrap_or_default();
        let same = id == module.build_id;
        // Without a recorded id, the recorded path is all there is to go by.
        let unknown = module.build_id.is_empty() && !by_id;
        if (same && !id.is_empty()) || unknown {
            return (Some(file), None);
        }
        if !by_id {
            other = Some(hex(id).unwrap_or_else(|| "none".into()));
        }
    }
    (None, other)
}

fn find_debug(module: &Module, main: Option<&File>, locator: &Locator) -> Option<File> {
    let id = main.and_then(File::build_id).unwrap_or(&module.build_id);
    let same = |file: &File| !id.is_empty() && file.build_id() == Some(id);
    let by_id = locator.debug_by_build_id(id);
    if let Some(found) = by_id.iter().filter_map(|path| File::open(path)).find(same) {
        return Some(found);
    }
    let main = main?;
    let (name, checksum) = main.elf.gnu_debuglink().ok().flatten()?;
    locator
        .debug_by_name(&main.path, name)
        .iter()
        .filter_map(|path| File::open(path))
        // The checksum is over the whole file, so it is the last thing to try.
        .find(|file| same(file) || (file.build_id().is_none() && crc32(&file.content) == checksum))
}

/// The file with what several debug files have in common, as `dwz` makes it.
fn find_shared(file: &File, locator: &Locator) -> Option<File> {
    let (name, id) = file.elf.gnu_debugaltlink().ok().flatten()?;
    locator
        .shared(&file.path, name, id)
        .iter()
        .filter_map(|path| File::open(path))
        .find(|shared| shared.build_id() == Some(id))
}

/// Says that a module's own file could not be used: `other` is the build id of what is there.
fn warning(module: &Module, other: Option<&str>, instead: Option<&Path>) -> Option<String> {
    let path = &module.path;
    let wanted = hex(&module.build_id).unwrap_or_else(|| "none".into());
    match (other, instead) {
        (Some(other), Some(instead)) => Some(format!(
            "{path} is not the file that was traced (its build id is {other}, the trace has \
             {wanted}); used {} instead",
            instead.display()
        )),
        (Some(other), None) => Some(format!(
            "{path} is not the file that was traced (its build id is {other}, the trace has \
             {wanted}); its functions are not named. Put the right file, or its debug file, into \
             a directory of VRAMTRACE_DEBUG_PATH"
        )),
        (None, Some(_)) => None,
        (None, None) => Some(format!(
            "{path} is not on this machine; its functions are not named. Put the file, or its \
             debug file, into a directory of VRAMTRACE_DEBUG_PATH (build id {wanted})"
        )),
    }
}

/// The checksum of `.gnu_debuglink`: CRC-32 as in zlib.
fn crc32(bytes: &[u8]) -> u32 {
    let mut table = [0u32; 256];
    for (index, entry) in table.iter_mut().enumerate() {
        *entry = (0..8).fold(index as u32, |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 * (crc & 1))
        });
    }
    !bytes.iter().fold(!0, |crc, &byte| {
        (crc >> 8) ^ table[((crc ^ u32::from(byte)) & 0xff) as usize]
    })
}

#[cfg(test)]
mod tests {
    use super::crc32;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }
}
