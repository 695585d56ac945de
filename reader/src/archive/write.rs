//! Makes an archive: manifest, symbols, and each trace without its zeros, written once from front to
//! back, so that it can go into a pipe.

use super::{MANIFEST, Manifest, Member, SCHEMA, SYMBOLS, sparse};
use crate::model::{Process, State};
use crate::symbols::{self, SymbolOptions, Symbolizer};
use crate::trace::Piece;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use tar::{Builder, EntryType, Header};
use vramtrace_format::cold::Module;
use vramtrace_format::stacks::{self, Frame};

/// Longest name of a trace in an archive, so that any tar takes it without an extension.
const LONGEST_NAME: usize = 80;

/// A trace as it is to be archived.
pub struct Source<'p> {
    process: &'p Process,
    /// What stands still for a process that may be running.
    still: Option<File>,
    len: u64,
}

impl<'p> Source<'p> {
    /// The trace of this process. Of one that may be running a copy is made, in the directory for
    /// temporary files, that is of one moment; fails where there is none.
    pub fn of(process: &'p Process) -> io::Result<Source<'p>> {
        let trace = &process.trace;
        let may_run = matches!(process.state, State::Running | State::Unknown);
        // What is damaged is kept as it is, so that whoever reads the archive sees it, too.
        if !may_run || (!trace.damage.is_empty() && !trace.copy.moving) {
            return Ok(Source {
                process,
                still: None,
                len: trace.file_len,
            });
        }
        if let Some(why) = &trace.copy.inexact {
            return Err(io::Error::other(why.clone()));
        }
        let still = tempfile::tempfile()?;
        trace.write_still(&still)?;
        Ok(Source {
            process,
            still: Some(still),
            len: trace.header().file_size,
        })
    }

    fn bytes(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        match &self.still {
            Some(file) => file.read_exact_at(into, offset),
            None => self.process.trace.bytes(offset, into),
        }
    }
}

/// Writes an archive; returns what should be said about symbols.
pub fn write(sources: &[Source<'_>], out: impl Write) -> io::Result<Vec<String>> {
    let mut names = Names::default();
    let members: Vec<Member> = sources
        .iter()
        .map(|source| Member {
            member: names.of(source.process),
            end: match source.process.state {
                // Nobody can tell from an archive.
                State::Running => State::Unknown,
                state => state,
            }
            .name()
            .to_owned(),
        })
        .collect();
    let mut symbolizer = Symbolizer::new(SymbolOptions::default());
    for process in sources.iter().map(|source| source.process) {
        process.symbols.iter().for_each(|own| symbolizer.meet(own));
    }
    let mut found = Vec::new();
    let addresses = sources.iter().flat_map(|source| addresses(source.process));
    symbols::write_archived(&mut symbolizer, addresses, &mut found)?;
    let manifest = Manifest {
        schema: SCHEMA.to_owned(),
        vramtrace: env!("CARGO_PKG_VERSION").to_owned(),
        traces: members.clone(),
    };
    let mut tar = Builder::new(out);
    document(&mut tar, MANIFEST, &serde_json::to_vec_pretty(&manifest)?)?;
    document(&mut tar, SYMBOLS, &found)?;
    for (source, member) in sources.iter().zip(&members) {
        append(&mut tar, source, &member.member)?;
    }
    tar.into_inner()?;
    Ok(symbolizer.warnings())
}

/// All return addresses in the stacks of a process.
fn addresses(process: &Process) -> impl Iterator<Item = (&Module, u64)> {
    let words = &process.trace.stacks;
    let mut next = 1;
    let stacks = std::iter::from_fn(move || {
        let stack = stacks::lookup(words, next)?;
        next = next.checked_add(1 + stack.frames.len() as u32)?;
        Some(stack.frames)
    });
    stacks
        .flatten()
        .filter_map(|&word| match Frame::decode(word)? {
            Frame::Native { module, offset } => Some((process.modules.get(&module)?, offset)),
            _ => None,
        })
}

fn header(name: &str, size: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_path(name)?;
    header.set_size(size);
    header.set_cksum();
    Ok(header)
}

fn document(tar: &mut Builder<impl Write>, name: &str, content: &[u8]) -> io::Result<()> {
    tar.append(&header(name, content.len() as u64)?, content)
}

fn append(tar: &mut Builder<impl Write>, source: &Source<'_>, name: &str) -> io::Result<()> {
    let pieces = sparse::pieces(source.len, |at, into| source.bytes(at, into))?;
    let map = sparse::map(source.len, &pieces);
    let kept: u64 = pieces.iter().map(|piece| piece.len).sum();
    let mut data = Pieces {
        source,
        pieces: &pieces,
        done: 0,
    };
    if kept == source.len {
        return tar.append(&header(name, kept)?, &mut data);
    }
    let size = source.len.to_string();
    tar.append_pax_extensions([
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", &b"0"[..]),
        ("GNU.sparse.name", name.as_bytes()),
        ("GNU.sparse.realsize", size.as_bytes()),
    ])?;
    // A tar that does not know the format unpacks something with this name, as GNU's calls it.
    let plain = name.replacen('/', "/GNUSparseFile.0/", 1);
    let header = header(&plain, map.len() as u64 + kept)?;
    tar.append(&header, (&map[..]).chain(&mut data))
}

/// The kept bytes of a trace, one after the other.
struct Pieces<'a> {
    source: &'a Source<'a>,
    pieces: &'a [Piece],
    /// Bytes of the first piece that were read already.
    done: u64,
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(first) = self.pieces.first() else {
            return Ok(0);
        };
        let count = (into.len() as u64).min(first.len - self.done);
        let into = &mut into[..count as usize];
        self.source.bytes(first.at + self.done, into)?;
        self.done += count;
        if self.done == first.len {
            self.pieces = &self.pieces[1..];
            self.done = 0;
        }
        Ok(into.len())
    }
}

/// Names of traces in an archive: what their files are called, each once.
#[derive(Default)]
struct Names(HashSet<String>);

impl Names {
    fn of(&mut self, process: &Process) -> String {
        let name = process.trace.path.file_name().unwrap_or_default();
        let kept = |c: char| match c {
            '.' | '-' | '_' | '+' => c,
            c if c.is_ascii_alphanumeric() => c,
            _ => '_',
        };
        let mut name: String = name.to_string_lossy().chars().map(kept).collect();
        let cut = name.len().saturating_sub(LONGEST_NAME);
        name.drain(..cut);
        let mut tried = name.clone();
        let mut number = 1;
        while !self.0.insert(tried.clone()) {
            number += 1;
            tried = format!("{number}-{name}");
        }
        format!("traces/{tried}")
    }
}
