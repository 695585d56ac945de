//! Opens an archive: which members there are, what the manifest says about them, the symbols; then
//! each trace where it lies.
//!
//! The extensions of tar are looked at by ourselves (`tar` gives the plain members): there are few
//! that matter here, and memory stays bounded whatever lengths a foreign archive claims.

use super::{MANIFEST, Manifest, SCHEMA, SYMBOLS, sparse};
use crate::model::{Process, State};
use crate::symbols::Archived;
use crate::trace::{MAX_FILE, OpenError, Piece, Problem, Trace};
use rustc_hash::{FxHashMap, FxHashSet};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tar::{Archive, EntryType, PaxExtensions};

/// Most members of a tar that are looked at.
const MOST_MEMBERS: usize = 1 << 17;
/// Most bytes of an extension of tar; ours have some 150.
const LARGEST_EXTENSION: u64 = 1 << 16;
/// Most bytes of the manifest.
const LARGEST_MANIFEST: u64 = 16 << 20;
/// Most bytes of symbols; some million addresses.
const LARGEST_SYMBOLS: u64 = 64 << 20;

/// What an archive came to.
pub struct Inside {
    /// Its processes, in order, or why one of them cannot be read.
    pub processes: Vec<Result<Process, OpenError>>,
    /// What should be said besides; sentences.
    pub warnings: Vec<String>,
}

/// A member of the tar.
#[derive(Clone, Copy, Debug)]
struct Member {
    start: u64,
    size: u64,
    /// Bytes of the file, where the member begins with a map.
    real: Option<u64>,
    /// There is more than one of this name.
    twice: bool,
}

/// Whether a file is a tar, whoever made it.
pub fn is_archive(path: &Path) -> bool {
    let mut magic = [0; 5];
    open_file(path).is_ok_and(|file| {
        file.metadata().is_ok_and(|facts| facts.is_file())
            && file.read_exact_at(&mut magic, 257).is_ok()
            && &magic == b"ustar"
    })
}

/// Not blocking: a fifo with an archive's name must not hang us.
fn open_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
}

/// Opens an archive and every trace in it.
pub fn open(path: &Path) -> Result<Inside, OpenError> {
    let wrong = |problem| OpenError::new(path, problem);
    let file = open_file(path).map_err(|why| wrong(Problem::Io(why)))?;
    let len = file
        .metadata()
        .map_err(|why| wrong(Problem::Io(why)))?
        .len();
    let tar = Tar::index(file, len).map_err(|what| wrong(Problem::Archive(what)))?;
    let manifest = tar
        .manifest()
        .map_err(|what| wrong(Problem::Archive(what)))?;
    let mut warnings = Vec::new();
    let symbols = match tar.symbols() {
        Ok(symbols) => Some(Arc::new(symbols)),
        Err(why) => {
            warnings.push(format!(
                "{}: the symbols in it are not used: {why}",
                path.display()
            ));
            None
        }
    };
    let mut listed = FxHashSet::default();
    let mut processes = Vec::new();
    for own in &manifest.traces {
        let short = own.member.strip_prefix("traces/").unwrap_or(&own.member);
        // Never joined as a path: what a name says is shown and nothing else.
        let mut shown = path.as_os_str().to_owned();
        shown.push("/");
        shown.push(short);
        let shown = PathBuf::from(shown);
        let opened = if listed.insert(&own.member) {
            tar.trace(&own.member, &shown)
        } else {
            let twice = "is listed twice in its archive".to_owned();
            Err(OpenError::new(&shown, Problem::Archive(twice)))
        };
        processes.push(opened.map(|trace| {
            let mut process = Process::read(trace);
            process.symbols = symbols.clone();
            // Whether the process lives here says nothing about the one in the archive.
            process.state = State::from_name(&own.end).unwrap_or(State::Unknown);
            process
        }));
    }
    Ok(Inside {
        processes,
        warnings,
    })
}

/// A tar whose members are known.
struct Tar {
    file: File,
    len: u64,
    members: FxHashMap<String, Member>,
    /// Why there may be more; half a sentence.
    broken: Option<String>,
}

impl Tar {
    fn index(file: File, len: u64) -> Result<Tar, String> {
        let mut members: FxHashMap<String, Member> = FxHashMap::default();
        let mut broken = None;
        let again = file.try_clone().map_err(|why| why.to_string())?;
        let mut archive = Archive::new(again);
        let entries = archive.entries_with_seek();
        let entries = entries.map_err(|why| format!("cannot be read: {why}"))?;
        let mut extension = Extension::default();
        for (count, entry) in entries.raw(true).enumerate() {
            let mut entry = match entry {
                Ok(entry) if count < MOST_MEMBERS => entry,
                Ok(_) => {
                    broken = Some(format!("it has more than {MOST_MEMBERS} members"));
                    break;
                }
                Err(why) => {
                    broken = Some(format!("behind a point in it nothing makes sense: {why}"));
                    break;
                }
            };
            match entry.header().entry_type() {
                EntryType::XHeader => match Extension::read(&mut entry) {
                    Ok(read) => extension = read,
                    Err(why) => {
                        broken = Some(why);
                        break;
                    }
                },
                EntryType::Regular | EntryType::Continuous => {
                    let own = std::mem::take(&mut extension);
                    let plain = || String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                    let name = own.name.unwrap_or_else(plain);
                    let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
                    let member = Member {
                        start: entry.raw_file_position(),
                        size: entry.size(),
                        real: own.real,
                        twice: false,
                    };
                    members
                        .entry(name)
                        .and_modify(|first| first.twice = true)
                        .or_insert(member);
                }
                _ => extension = Extension::default(),
            }
        }
        Ok(Tar {
            file,
            len,
            members,
            broken,
        })
    }

    fn member(&self, name: &str) -> Result<&Member, String> {
        let Some(member) = self.members.get(name) else {
            return Err(match &self.broken {
                Some(why) => format!("is missing in the archive, of which {why}; copy it again"),
                None => "is missing in the archive; copy it again if it was cut off".to_owned(),
            });
        };
        if member.twice {
            return Err("is there twice in the archive".to_owned());
        }
        let end = member.start.saturating_add(member.size);
        if end > self.len {
            return Err(format!(
                "is cut off: the archive ends {} bytes before it does; copy it again",
                end - self.len
            ));
        }
        Ok(member)
    }

    /// A member's bytes, if they are not too many.
    fn content(&self, name: &str, most: u64) -> Result<impl Read + use<'_>, String> {
        let member = self.member(name)?;
        if member.real.is_some() || member.size > most {
            return Err(format!(
                "has {} bytes; more than {most} are not read",
                member.real.unwrap_or(member.size)
            ));
        }
        let mut file = &self.file;
        file.seek(SeekFrom::Start(member.start))
            .map_err(|why| format!("cannot be read: {why}"))?;
        Ok(BufReader::new(file.take(member.size)))
    }

    fn manifest(&self) -> Result<Manifest, String> {
        if !self.members.contains_key(MANIFEST) {
            return Err(format!(
                "is a tar file, but not one of `vramtrace archive`: {MANIFEST} is not in it"
            ));
        }
        let from = self
            .content(MANIFEST, LARGEST_MANIFEST)
            .map_err(|why| format!("is an archive whose {MANIFEST} {why}"))?;
        let manifest: Manifest = serde_json::from_reader(from)
            .map_err(|why| format!("is an archive whose {MANIFEST} makes no sense: {why}"))?;
        if manifest.schema != SCHEMA {
            return Err(format!(
                "is an archive of another version (`{}`, this vramtrace reads `{SCHEMA}`); use the \
                 vramtrace that made it, or a newer one",
                manifest.schema.chars().take(80).collect::<String>()
            ));
        }
        if manifest.traces.is_empty() {
            return Err("is an archive without traces".to_owned());
        }
        Ok(manifest)
    }

    fn symbols(&self) -> Result<Archived, String> {
        let from = self
            .content(SYMBOLS, LARGEST_SYMBOLS)
            .map_err(|why| format!("{SYMBOLS} {why}"))?;
        Archived::read(from)
    }

    fn trace(&self, name: &str, shown: &Path) -> Result<Trace, OpenError> {
        let (len, pieces) = self
            .pieces(name)
            .map_err(|what| OpenError::new(shown, Problem::Archive(what)))?;
        let file = self.file.try_clone();
        let file = file.map_err(|why| OpenError::new(shown, Problem::Io(why)))?;
        Trace::open_within(shown, file, len, pieces)
    }

    /// How long a trace is, and where its bytes are.
    fn pieces(&self, name: &str) -> Result<(u64, Vec<Piece>), String> {
        let member = self.member(name)?;
        let Some(len) = member.real else {
            let whole = Piece {
                at: 0,
                len: member.size,
                position: member.start,
            };
            return Ok((member.size, vec![whole]));
        };
        if len > MAX_FILE {
            return Err(format!(
                "claims {len} bytes; traces above {MAX_FILE} bytes are not read"
            ));
        }
        let mut file = &self.file;
        file.seek(SeekFrom::Start(member.start))
            .map_err(|why| format!("cannot be read: {why}"))?;
        let from = BufReader::new(file.take(member.size));
        let pieces = sparse::parse(from, member.start, member.size, len)
            .map_err(|why| format!("is damaged in its archive: {why}"))?;
        Ok((len, pieces))
    }
}

/// What an extension says about the member that follows it.
#[derive(Default)]
struct Extension {
    name: Option<String>,
    real: Option<u64>,
}

impl Extension {
    fn read(entry: &mut tar::Entry<'_, impl Read>) -> Result<Extension, String> {
        if entry.size() > LARGEST_EXTENSION {
            return Err(format!(
                "one extension has {} bytes; more than {LARGEST_EXTENSION} are not read",
                entry.size()
            ));
        }
        let mut bytes = Vec::new();
        entry
            .read_to_end(&mut bytes)
            .map_err(|why| format!("an extension cannot be read: {why}"))?;
        let mut extension = Extension::default();
        let mut sparse = [None, None];
        for own in PaxExtensions::new(&bytes) {
            let Ok(own) = own else {
                return Err("an extension makes no sense".to_owned());
            };
            let (Ok(key), Ok(value)) = (own.key(), own.value()) else {
                continue;
            };
            match key {
                // The name without the extension's own, whichever comes first.
                "path" if extension.name.is_none() => extension.name = Some(value.to_owned()),
                "GNU.sparse.name" => extension.name = Some(value.to_owned()),
                "GNU.sparse.major" => sparse[0] = Some(value.to_owned()),
                "GNU.sparse.minor" => sparse[1] = Some(value.to_owned()),
                "GNU.sparse.realsize" => extension.real = value.parse().ok(),
                "size" => return Err("a member's size stands in an extension".to_owned()),
                _ => {}
            }
        }
        if [sparse[0].as_deref(), sparse[1].as_deref()] != [Some("1"), Some("0")] {
            extension.real = None;
        }
        Ok(extension)
    }
}
