//! Names as people write them.

use cpp_demangle::{DemangleOptions, Symbol};
use std::fmt::Write;

/// A short mangled name can stand for a text of any length; longer ones stay mangled.
const LONGEST: usize = 64 << 10;

/// Demangles C++ and Rust names; others stay as they are.
pub(super) fn demangle(name: &[u8]) -> String {
    // Symbol tables may carry a version behind the name.
    let name = name.split(|&byte| byte == b'@').next().unwrap_or(name);
    let text = String::from_utf8_lossy(name);
    rust(&text)
        .or_else(|| cpp(name))
        .unwrap_or_else(|| text.into_owned())
}

fn rust(name: &str) -> Option<String> {
    let symbol = rustc_demangle::try_demangle(name).ok()?;
    let mut text = Bounded::default();
    // The alternate form leaves out the hash.
    write!(text, "{symbol:#}").ok()?;
    Some(text.0)
}

fn cpp(name: &[u8]) -> Option<String> {
    if !name.starts_with(b"_Z") {
        return None;
    }
    let symbol = Symbol::new(name).ok()?;
    let mut text = Bounded::default();
    symbol
        .structured_demangle(&mut text, &DemangleOptions::default())
        .ok()?;
    Some(text.0)
}

#[derive(Default)]
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if self.0.len() + text.len() > LONGEST {
            return Err(std::fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::demangle;

    #[test]
    fn each_language() {
        assert_eq!(demangle(b"main"), "main");
        assert_eq!(demangle(b"memcpy@@GLIBC_2.14"), "memcpy");
        assert_eq!(
            demangle(b"_ZN2at6detail5emptyEl"),
            "at::detail::empty(long)"
        );
        assert_eq!(
            demangle(b"_ZN4core3fmt5write17h0123456789abcdefE"),
            "core::fmt::write"
        );
        assert_eq!(demangle(b"_RNvCs1234_7mycrate3foo"), "mycrate::foo");
        assert_eq!(demangle(b"_Z!"), "_Z!");
        assert_eq!(demangle(b"\xff"), "\u{fffd}");
    }

    #[test]
    fn a_name_that_explodes_stays_mangled() {
        // Each pair repeats all before it: 2^40 letters.
        let mut name = String::from("_Z1fI1aE");
        let mut arguments = String::from("St4pairI1aS0_E");
        for number in 1..40u32 {
            let seq = char::from_digit(number % 36, 36)
                .unwrap()
                .to_ascii_uppercase();
            arguments.push_str(&format!("St4pairIS{seq}_S{seq}_E"));
        }
        name.push_str(&arguments);
        assert!(demangle(name.as_bytes()).len() <= super::LONGEST);
    }
}
