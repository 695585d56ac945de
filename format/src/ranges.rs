//! Messages of NVTX ranges with numbers in them (`step 1`, `step 2` …): what is the same in all of them.
//!
//! A program may make them up without end. The writer keeps the first few of a kind apart, and
//! writes one range for all that come later, with its numbers left open (cold record `Range`).

/// Most bytes of a range's message that count and are kept. What differs only after these is the same.
pub const LONGEST: usize = 255;

/// A message whose numbers are left open.
pub struct Pattern {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Pattern {
    /// The text, with a `#` for each number.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// What is left of a message when each number in it is a `#`; `None` if there is no number in it.
/// Numbers are digits, hexadecimal ones after `0x`, and words of eight or more hexadecimal digits.
pub fn pattern(text: &[u8]) -> Option<Pattern> {
    let text = &text[..text.len().min(LONGEST)];
    let mut pattern = Pattern {
        bytes: [0; LONGEST],
        length: 0,
    };
    let mut found = false;
    let mut at = 0;
    while at < text.len() {
        let length = number(text, at);
        found |= length > 0;
        pattern.bytes[pattern.length] = if length > 0 { b'#' } else { text[at] };
        pattern.length += 1;
        at += length.max(1);
    }
    found.then_some(pattern)
}

/// Length of the number that begins here; 0 if none does.
fn number(text: &[u8], at: usize) -> usize {
    let rest = &text[at..];
    let run = |of: &[u8], is: fn(&u8) -> bool| of.iter().take_while(|byte| is(byte)).count();
    if let Some(digits) = rest.strip_prefix(b"0x")
        && run(digits, u8::is_ascii_hexdigit) > 0
    {
        return 2 + run(digits, u8::is_ascii_hexdigit);
    }
    // Looked for at the beginning of words only, so that a text is gone through once.
    if at == 0 || !text[at - 1].is_ascii_alphanumeric() {
        let word = run(rest, u8::is_ascii_alphanumeric);
        let hexadecimal = run(rest, u8::is_ascii_hexdigit);
        if word >= 8 && hexadecimal == word && rest[..word].iter().any(u8::is_ascii_digit) {
            return word;
        }
    }
    run(rest, u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_left_open() {
        for (text, expected) in [
            ("step 123", Some("step #")),
            ("3", Some("#")),
            ("layer3.attn[12]", Some("layer#.attn[#]")),
            ("loss 0.25", Some("loss #.#")),
            ("tensor 0x7f3A", Some("tensor #")),
            ("0x", Some("#x")),
            ("request 9f86d081884c", Some("request #")),
            ("request deadbeef", None),
            ("forward", None),
            ("", None),
            ("conv2d", Some("conv#d")),
        ] {
            let found = pattern(text.as_bytes());
            let found = found.as_ref().map(|pattern| pattern.bytes());
            assert_eq!(found, expected.map(str::as_bytes), "{text}");
        }
        let long = "7 ".repeat(400);
        assert_eq!(pattern(long.as_bytes()).unwrap().bytes().len(), LONGEST);
    }
}
