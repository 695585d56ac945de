//! Where `libvramtrace.so` is, and how it gets into a program.

use super::Failure;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Its file name.
pub const NAME: &str = "libvramtrace.so";
/// The variable that says where it is.
pub const VARIABLE: &str = "VRAMTRACE_LIB";

/// Finds the recorder: `$VRAMTRACE_LIB`, else where packages and build trees put it relative to
/// this program.
pub fn find() -> Result<PathBuf, Failure> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        let path = std::path::absolute(PathBuf::from(path))
            .map_err(|error| Failure::usage(format!("{VARIABLE}: {error}")))?;
        return match usable(&path) {
            Ok(()) => Ok(path),
            Err(why) => Err(Failure::usage(format!(
                "{VARIABLE} names {}, which {why}",
                path.display()
            ))),
        };
    }
    let candidates = candidates();
    if let Some(found) = candidates.iter().find(|path| usable(path).is_ok()) {
        return Ok(found.clone());
    }
    let places: Vec<String> = candidates
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    Err(Failure::usage(format!(
        "{NAME} was not found ({}); set {VARIABLE} to its path",
        places.join(", ")
    )))
}

fn candidates() -> Vec<PathBuf> {
    // The kernel's path has all links resolved: a link in ~/bin finds the library of its package.
    let Some(directory) = std::env::current_exe()
        .ok()
        .and_then(|path| path.parent().map(Path::to_path_buf))
    else {
        return Vec::new();
    };
    ["", "../lib/vramtrace", "../lib", "../lib64"]
        .iter()
        .map(|place| {
            let path = directory.join(place).join(NAME);
            std::fs::canonicalize(&path).unwrap_or(path)
        })
        .collect()
}

fn usable(path: &Path) -> Result<(), String> {
    let mut magic = [0u8; 4];
    let read = std::fs::File::open(path).and_then(|mut file| {
        use std::io::Read;
        file.read_exact(&mut magic)
    });
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err("does not exist".into()),
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            Err(format!("cannot be read: {error}"))
        }
        _ if &magic != b"\x7fELF" => Err("is not a shared library".into()),
        _ => Ok(()),
    }
}

/// Whether the dynamic linker would take `path` for several, or for a variable of its own.
fn splits(path: &Path) -> bool {
    path.as_os_str()
        .as_bytes()
        .iter()
        .any(|byte| matches!(byte, b' ' | b':' | b'$' | b'\t' | b'\n'))
}

/// The library under a name that `LD_PRELOAD` can carry: itself, or a link in `run_dir`.
pub fn carriable(library: &Path, run_dir: &Path) -> Result<PathBuf, Failure> {
    if !splits(library) {
        return Ok(library.into());
    }
    if splits(run_dir) {
        return Err(Failure::usage(format!(
            "LD_PRELOAD cannot carry a path with a space or a colon: neither {} nor a link in {} \
             will do; set XDG_RUNTIME_DIR to a plain path",
            library.display(),
            run_dir.display()
        )));
    }
    let link = run_dir.join(NAME);
    std::os::unix::fs::symlink(library, &link).map_err(|error| {
        Failure::usage(format!("cannot make the link {}: {error}", link.display()))
    })?;
    Ok(link)
}

/// `LD_PRELOAD` with the library before what is there already.
pub fn preload(library: &Path, existing: Option<&OsStr>) -> OsString {
    let mut value = library.as_os_str().as_bytes().to_vec();
    for other in others(existing, library) {
        value.push(b':');
        value.extend_from_slice(other.as_bytes());
    }
    OsString::from_vec(value)
}

/// The entries of `LD_PRELOAD` that are not the library itself (a run inside a run has it twice).
pub fn others<'a>(existing: Option<&'a OsStr>, library: &Path) -> Vec<&'a OsStr> {
    existing
        .unwrap_or_default()
        .as_bytes()
        .split(|byte| matches!(byte, b':' | b' '))
        .filter(|entry| !entry.is_empty() && *entry != library.as_os_str().as_bytes())
        .map(OsStr::from_bytes)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_preloaded_already_stays_behind_ours() {
        let ours = Path::new("/opt/libvramtrace.so");
        assert_eq!(preload(ours, None), "/opt/libvramtrace.so");
        assert_eq!(
            preload(ours, Some(OsStr::new("/a.so b.so::/opt/libvramtrace.so"))),
            "/opt/libvramtrace.so:/a.so:b.so"
        );
    }

    #[test]
    fn a_path_that_would_be_split_gets_a_link() {
        let scratch = tempfile::tempdir().unwrap();
        let plain = Path::new("/opt/libvramtrace.so");
        assert_eq!(carriable(plain, scratch.path()).unwrap(), plain);
        let spaced = Path::new("/opt/my tools/libvramtrace.so");
        let link = carriable(spaced, scratch.path()).unwrap();
        assert_eq!(std::fs::read_link(&link).unwrap(), spaced);
        assert!(carriable(spaced, Path::new("/a b")).is_err());
    }
}
