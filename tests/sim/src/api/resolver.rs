//! Driver entry points: which address a name means in which CUDA version.

use crate::abi::error::{INVALID_VALUE, NOT_FOUND, R};
use crate::ffi::{Out, Text};
use crate::gate::{ANY, driver, symbols};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::OnceLock;

/// Base names with the CUDA versions that brought a new variant: the first is the plain name, the
/// second `_v2`, and so on; `version=symbol` where history went otherwise.
const VERSIONS: &str = include_str!("versions.txt");

/// CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM.
const PER_THREAD: u64 = 2;
/// CUdriverProcAddressQueryResult.
const SYMBOL_NOT_FOUND: u32 = 1;
const VERSION_NOT_SUFFICIENT: u32 = 2;

/// One variant of a function.
struct Variant {
    since: i32,
    legacy: *const (),
    per_thread: Option<*const ()>,
}

/// Variants by base name, oldest first.
struct Table(HashMap<&'static str, Vec<Variant>>);

// SAFETY: addresses of functions, never read through.
unsafe impl Send for Table {}
// SAFETY: as above, and the table does not change once built.
unsafe impl Sync for Table {}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(build)
}

fn build() -> Table {
    let known: HashMap<&str, *const ()> = symbols().iter().map(|s| (s.name, s.address.0)).collect();
    let mut table = HashMap::new();
    for line in VERSIONS.lines().filter(|l| !l.starts_with('#')) {
        let mut words = line.split_whitespace();
        let Some(base) = words.next() else { continue };
        let mut variants = Vec::new();
        for (i, word) in words.enumerate() {
            let (version, symbol) = match word.split_once('=') {
                Some((version, symbol)) => (version, symbol.to_owned()),
                None if i == 0 => (word, base.to_owned()),
                None => (word, format!("{base}_v{}", i + 1)),
            };
            let (Ok(since), Some(&legacy)) = (version.parse(), known.get(symbol.as_str())) else {
                continue;
            };
            let per_thread = ["_ptsz", "_ptds"]
                .iter()
                .find_map(|suffix| known.get(format!("{symbol}{suffix}").as_str()).copied());
            variants.push(Variant {
                since,
                legacy,
                per_thread,
            });
        }
        if !variants.is_empty() {
            table.insert(base, variants);
        }
    }
    Table(table)
}

/// The newest variant that is not newer than the version asked for; on failure the query status.
fn resolve(name: &str, version: i32, flags: u64) -> Result<*const (), u32> {
    let variants = table().0.get(name).ok_or(SYMBOL_NOT_FOUND)?;
    let variant = variants
        .iter()
        .rev()
        .find(|v| v.since <= version)
        .ok_or(VERSION_NOT_SUFFICIENT)?;
    match variant.per_thread {
        Some(_) if flags & PER_THREAD != 0 && version < 7000 => Err(VERSION_NOT_SUFFICIENT),
        Some(address) if flags & PER_THREAD != 0 => Ok(address),
        _ => Ok(variant.legacy),
    }
}

fn find(
    symbol: Text,
    pfn: Out<*const c_void>,
    version: i32,
    flags: u64,
) -> R<Result<*const (), u32>> {
    pfn.check()?;
    let name = symbol.get()?;
    if flags > 3 || version > super::driver::VERSION {
        return Err(INVALID_VALUE);
    }
    Ok(resolve(&name, version, flags))
}

driver! {
    /// 11.3's form: what is not there is an error, and nothing is written.
    [ANY] fn cuGetProcAddress(symbol: Text, pfn: Out<*const c_void>, version: i32, flags: u64) |_c| {
        let address = find(symbol, pfn, version, flags)?.map_err(|_| NOT_FOUND)?;
        pfn.set(address.cast())
    }

    /// Since 12.0, with a status: what is not there is a success with NULL.
    [ANY] fn cuGetProcAddress_v2(
        symbol: Text, pfn: Out<*const c_void>, version: i32, flags: u64, status: Out<u32>,
    ) |_c| {
        let found = find(symbol, pfn, version, flags)?;
        status.set_if(found.err().unwrap_or(0));
        pfn.set(found.map_or(std::ptr::null(), |address| address.cast()))
    }
}
