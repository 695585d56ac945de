//! The name of a trace, with parts that each process fills in for itself.
//!
//! `%p` process id, `%h` host, `%e` executable, `%t` start time, `%n` a number that makes it
//! unique, `%q{NAME}` an environment variable, `%%` a percent sign. The recorder fills them in;
//! this module checks a pattern and makes it absolute, because the program may change directory.

use super::Failure;
use std::path::{Path, PathBuf};

/// What `run` writes where the user says nothing.
pub const DEFAULT: &str = "vramtrace.%e.%p.vrt";

/// A checked, absolute pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// Something that only the traced process knows.
    Late,
}

impl Pattern {
    /// Checks what the user wrote and puts `directory` before it if it is relative. A pattern that
    /// names a directory gets the default file name.
    pub fn new(written: &str, directory: &Path) -> Result<Pattern, Failure> {
        if written.is_empty() {
            return Err(Failure::usage("the output pattern is empty"));
        }
        parse(written)?;
        let mut text = written.to_owned();
        if !text.starts_with('/') {
            text = format!("{}/{text}", escaped(directory)?);
        }
        let names_directory = text.ends_with('/') || {
            let parts = parse(&text)?;
            fixed_text(&parts).is_some_and(|path| Path::new(&path).is_dir())
        };
        if names_directory {
            text = format!("{}/{DEFAULT}", text.trim_end_matches('/'));
        }
        let parts = parse(&text)?;
        Ok(Pattern { text, parts })
    }

    /// The pattern as the recorder takes it (`VRAMTRACE_OUTPUT`).
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The path, if it is the same for every process.
    pub fn fixed(&self) -> Option<PathBuf> {
        fixed_text(&self.parts).map(PathBuf::from)
    }

    /// The deepest directory that is the same for every process.
    pub fn fixed_directory(&self) -> PathBuf {
        let literal = match self.parts.first() {
            Some(Part::Literal(text)) => text.as_str(),
            _ => "/",
        };
        match literal.rfind('/') {
            Some(0) | None => PathBuf::from("/"),
            Some(end) => PathBuf::from(&literal[..end]),
        }
    }
}

/// Splits a pattern. `%%` belongs to the literal text around it.
fn parse(text: &str) -> Result<Vec<Part>, Failure> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        literal.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let late = match after.chars().next() {
            Some('%') => {
                literal.push('%');
                1
            }
            Some('p' | 'h' | 'e' | 't' | 'n') => 1,
            Some('q') => variable_length(after).ok_or_else(|| {
                refuse(
                    text,
                    "%q must be followed by the name of a variable in braces",
                )
            })?,
            Some(other) => return Err(refuse(text, &format!("%{other} means nothing"))),
            None => return Err(refuse(text, "it ends in a single %")),
        };
        if !after.starts_with('%') {
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(Part::Late);
        }
        rest = &after[late..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

/// Bytes of `q{NAME}` at the start of `text`.
fn variable_length(text: &str) -> Option<usize> {
    let name = text.strip_prefix("q{")?;
    let end = name.find('}')?;
    let valid = end > 0
        && name[..end]
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    valid.then_some("q{".len() + end + "}".len())
}

fn refuse(text: &str, why: &str) -> Failure {
    Failure::usage(format!(
        "output pattern `{text}`: {why}; accepted are %p (process id), %h (host), %e (executable), \
         %t (time), %n (number), %q{{NAME}} (environment variable) and %% (a percent sign)"
    ))
}

fn fixed_text(parts: &[Part]) -> Option<String> {
    match parts {
        [Part::Literal(text)] => Some(text.clone()),
        _ => None,
    }
}

/// A path as literal text of a pattern.
fn escaped(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().ok_or_else(|| {
        Failure::usage(format!(
            "the path {} is not valid UTF-8; choose another place with -o",
            path.display()
        ))
    })?;
    Ok(text.trim_end_matches('/').replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(written: &str) -> Result<Pattern, Failure> {
        Pattern::new(written, Path::new("/some/50%"))
    }

    #[test]
    fn a_relative_pattern_gets_the_directory_with_its_percent_signs_kept() {
        let made = pattern("vramtrace.%e.%p.vrt").unwrap();
        assert_eq!(made.text(), "/some/50%%/vramtrace.%e.%p.vrt");
        assert_eq!(made.fixed(), None);
        assert_eq!(made.fixed_directory(), Path::new("/some/50%"));
    }

    #[test]
    fn fixed_text_is_known_before_the_start() {
        let made = pattern("/a/100%%.vrt").unwrap();
        assert_eq!(made.fixed(), Some(PathBuf::from("/a/100%.vrt")));
        assert_eq!(
            pattern("/a/%h/x").unwrap().fixed_directory(),
            Path::new("/a")
        );
        assert_eq!(pattern("/%h").unwrap().fixed_directory(), Path::new("/"));
        assert_eq!(
            pattern("/a/b%p/x").unwrap().fixed_directory(),
            Path::new("/a")
        );
    }

    #[test]
    fn a_directory_gets_the_default_name() {
        assert_eq!(
            pattern("out/").unwrap().text(),
            "/some/50%%/out/vramtrace.%e.%p.vrt"
        );
        assert_eq!(pattern("/").unwrap().text(), "/vramtrace.%e.%p.vrt");
        assert_eq!(
            pattern("/proc/self").unwrap().text(),
            "/proc/self/vramtrace.%e.%p.vrt"
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "", "%", "x%", "%x", "%q", "%q{", "%q{}", "%q{A B}", "%qA", "%P",
        ] {
            let failure = pattern(bad).unwrap_err();
            assert_eq!(failure.code, 2, "{bad}");
        }
    }
}
