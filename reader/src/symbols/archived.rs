//! Symbols that were looked up beforehand, to be read where the files are not: what an archive
//! holds beside its traces.
//!
//! One JSON document: for each module (path and build id) the return addresses that its stacks
//! have, each with its places, innermost inlined function first. A module of which nothing was known
//! is not in it, so that a reader looks for its files as it would without an archive.

use super::locate::hex;
use super::{Place, Symbolizer};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;
use vramtrace_format::cold::Module;

/// Name and version of the document.
const SCHEMA: &str = "vramtrace.symbols/1";
/// Longest name that is taken; those of heavily templated functions have some 10,000 bytes.
const LONGEST: usize = 1 << 20;

/// Why symbols are not used; half a sentence.
pub type Bad = String;

/// What an archive knows of functions and lines.
#[derive(Debug, Default)]
pub struct Archived {
    strings: Vec<Arc<str>>,
    modules: FxHashMap<(String, String), Known>,
}

/// What it knows of one module.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// What was to be said about its files.
    pub warnings: Vec<String>,
    addresses: FxHashMap<u64, Vec<Spot>>,
}

/// Functions and files are numbers of strings, which repeat a lot; number 0 is the empty one, for
/// what is not known. So a document takes no more than some ten times its bytes in memory, whatever
/// it says.
#[derive(Deserialize, Serialize)]
struct Document {
    schema: String,
    strings: Vec<Arc<str>>,
    modules: Vec<OfModule>,
}

#[derive(Deserialize, Serialize)]
struct OfModule {
    path: String,
    /// In hexadecimal; empty if it has none.
    build_id: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    /// Return addresses as the module's ELF file numbers them, each with its places.
    addresses: Vec<Address>,
}

/// A return address and its places.
type Address = (u64, Vec<Spot>);

/// Function, file, line; 0 where it is not known.
type Spot = (u32, u32, u32);

impl Archived {
    /// What is known of a module.
    pub(super) fn module(&self, path: &str, build_id: &[u8]) -> Option<&Known> {
        let id = id(build_id)?;
        self.modules.get(&(path.to_owned(), id))
    }

    /// Places at a return address of a module of it, innermost first; `None` if it does not have it.
    pub(super) fn places(&self, module: &Known, offset: u64) -> Option<Vec<Place>> {
        let text = |number: &u32| {
            let text = self.strings.get(*number as usize);
            text.filter(|text| !text.is_empty() && text.len() <= LONGEST)
                .map(|text| text.to_string())
        };
        let spots = module.addresses.get(&offset)?;
        let place = |(function, file, line): &Spot| Place {
            function: text(function),
            file: text(file),
            line: (*line != 0).then_some(*line),
        };
        Some(spots.iter().map(place).collect())
    }

    /// Reads a document; memory is bounded by a multiple of its bytes, which the caller bounds.
    pub fn read(from: impl Read) -> Result<Archived, Bad> {
        let document: Document = serde_json::from_reader(from).map_err(|why| why.to_string())?;
        if document.schema != SCHEMA {
            return Err(format!(
                "they are `{}`, this vramtrace reads `{SCHEMA}`",
                document.schema.chars().take(80).collect::<String>()
            ));
        }
        let mut archived = Archived {
            strings: document.strings,
            ..Archived::default()
        };
        for module in document.modules {
            let key = (module.path, module.build_id);
            // What is there twice counts as it was said first.
            let known = archived.modules.entry(key).or_insert_with(|| Known {
                warnings: module.warnings,
                addresses: FxHashMap::default(),
            });
            for (offset, spots) in module.addresses {
                known.addresses.entry(offset).or_insert(spots);
            }
        }
        Ok(archived)
    }
}

/// Looks all these return addresses up and writes what is known of them, in an order that depends
/// on nothing else.
pub fn write<'m>(
    symbolizer: &mut Symbolizer,
    addresses: impl IntoIterator<Item = (&'m Module, u64)>,
    to: impl Write,
) -> io::Result<()> {
    let mut by_module: Asked<'m> = BTreeMap::new();
    for (module, offset) in addresses {
        if id(&module.build_id).is_none() {
            continue;
        }
        let key = (&module.path[..], &module.build_id[..]);
        let (_, offsets) = by_module.entry(key).or_insert((module, Vec::new()));
        offsets.push(offset);
    }
    let mut strings = Strings::default();
    strings.number(None);
    let mut modules = Vec::new();
    for (module, mut offsets) in by_module.into_values() {
        offsets.sort_unstable();
        offsets.dedup();
        let said = symbolizer.warnings.len();
        symbolizer.look_up(offsets.iter().map(|&offset| (module, offset)));
        let index = symbolizer.index(module);
        let mut addresses = Vec::new();
        for offset in offsets {
            let places = symbolizer.known.get(&(index, offset));
            let spot = |place: &Place| {
                let function = strings.number(place.function.as_deref());
                let file = strings.number(place.file.as_deref());
                (function, file, place.line.unwrap_or(0))
            };
            let spots: Vec<Spot> = places.into_iter().flatten().map(spot).collect();
            addresses.push((offset, spots));
        }
        if addresses.iter().all(|(_, spots)| spots.is_empty()) {
            continue;
        }
        modules.push(OfModule {
            path: module.path.clone(),
            build_id: id(&module.build_id).unwrap_or_default(),
            warnings: symbolizer.warnings[said..].to_vec(),
            addresses,
        });
    }
    let document = Document {
        schema: SCHEMA.to_owned(),
        strings: strings.all,
        modules,
    };
    serde_json::to_writer(to, &document).map_err(io::Error::from)
}

/// Modules by path and build id, each with what is asked of it.
type Asked<'m> = BTreeMap<(&'m str, &'m [u8]), (&'m Module, Vec<u64>)>;

/// Strings by their numbers.
#[derive(Default)]
struct Strings {
    all: Vec<Arc<str>>,
    numbers: FxHashMap<Arc<str>, u32>,
}

impl Strings {
    fn number(&mut self, text: Option<&str>) -> u32 {
        let text = text.unwrap_or_default();
        if let Some(&known) = self.numbers.get(text) {
            return known;
        }
        let number = self.all.len() as u32;
        let text: Arc<str> = text.into();
        self.all.push(Arc::clone(&text));
        self.numbers.insert(text, number);
        number
    }
}

/// A build id as documents have it; `None` for what cannot be one.
fn id(build_id: &[u8]) -> Option<String> {
    match build_id {
        [] => Some(String::new()),
        id => hex(id),
    }
}
