//! Output file patterns: `%p` pid, `%h` host, `%e` executable, `%t` time, `%n` counter,
//! `%q{ENV}` an environment variable, `%%`.

use std::os::unix::ffi::OsStrExt;

/// What stands at one place of a pattern.
enum Part<'a> {
    Literal(u8),
    Field(u8),
    Variable(&'a [u8]),
}

const HELP: &str =
    "a path with %p pid, %h host, %e executable, %t time, %n counter, %q{ENV} variable, %%";

fn parts(pattern: &[u8]) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut rest = pattern;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            parts.push(Part::Literal(byte));
            continue;
        }
        let Some((&field, after)) = rest.split_first() else {
            return Err(HELP.into());
        };
        rest = after;
        match field {
            b'%' => parts.push(Part::Literal(b'%')),
            b'p' | b'h' | b'e' | b't' | b'n' => parts.push(Part::Field(field)),
            b'q' => {
                let name = rest.strip_prefix(b"{").ok_or(HELP)?;
                let end = name
                    .iter()
                    .position(|&b| b == b'}')
                    .filter(|&end| end > 0)
                    .ok_or(HELP)?;
                parts.push(Part::Variable(&name[..end]));
                rest = &name[end + 1..];
            }
            _ => return Err(HELP.into()),
        }
    }
    Ok(parts)
}

/// What is wrong with a pattern, in words that say what is accepted.
pub fn check(pattern: &[u8]) -> Result<(), String> {
    if pattern.contains(&0) {
        return Err(HELP.into());
    }
    parts(pattern).map(|_| ())
}

/// The path a pattern stands for in this process. `%n` becomes 1: a taken name gets `.2`, `.3` …
pub fn expand(pattern: &[u8]) -> Vec<u8> {
    let mut path = Vec::new();
    for part in parts(pattern).unwrap_or_default() {
        match part {
            Part::Literal(byte) => path.push(byte),
            Part::Field(b'p') => path.extend(std::process::id().to_string().bytes()),
            Part::Field(b'h') => path.extend(file_name(crate::process::host().as_bytes())),
            Part::Field(b'e') => path.extend(file_name(&executable())),
            Part::Field(b't') => path.extend(
                (crate::clock::unix_ns() / 1_000_000_000)
                    .to_string()
                    .bytes(),
            ),
            Part::Field(_) => path.push(b'1'),
            Part::Variable(name) => {
                let value = std::env::var_os(std::ffi::OsStr::from_bytes(name));
                let value = value
                    .as_ref()
                    .map_or(&b"unset"[..], |value| value.as_bytes());
                path.extend(file_name(value));
            }
        }
    }
    path
}

fn executable() -> Vec<u8> {
    let program = crate::process::program();
    let name = program.rsplit('/').next().unwrap_or_default();
    name.strip_suffix(" (deleted)")
        .unwrap_or(name)
        .as_bytes()
        .to_vec()
}

/// What is left of a text when it must not lead out of the directory.
fn file_name(text: &[u8]) -> Vec<u8> {
    let clean: Vec<u8> = text
        .iter()
        .take(200)
        .map(|&b| {
            if b == b'/' || b < b' ' || b == 127 {
                b'_'
            } else {
                b
            }
        })
        .collect();
    match &clean[..] {
        b"" | b"." | b".." => b"_".to_vec(),
        _ => clean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_filled_in_and_never_leave_the_directory() {
        let path = String::from_utf8(expand(b"/tmp/%p.%q{NO_SUCH_VARIABLE}.100%%.vrt")).unwrap();
        assert_eq!(path, format!("/tmp/{}.unset.100%.vrt", std::process::id()));
        assert_eq!(file_name(b"../../etc"), b".._.._etc");
        assert_eq!(file_name(b".."), b"_");
    }

    #[test]
    fn anything_else_is_an_error() {
        for pattern in [&b"a%"[..], b"%z", b"%q", b"%q{", b"%q{}", b"a\0b"] {
            assert!(check(pattern).is_err(), "{pattern:?}");
        }
        assert!(check(b"%p%h%e%t%n%q{RANK}%%").is_ok());
    }
}
