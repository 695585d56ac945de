//! One pattern of LeakSanitizer's format: a substring, with `*` for anything, `^` at its start and
//! `$` at its end for those of the text.

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    from_start: bool,
    to_end: bool,
    /// What stands between the stars.
    parts: Vec<String>,
}

impl Pattern {
    /// Reads what stands behind `leak:`; half a sentence if that is no pattern.
    pub fn parse(text: &str) -> Result<Pattern, &'static str> {
        let inner = text.strip_prefix('^').unwrap_or(text);
        let from_start = inner.len() < text.len();
        let bare = inner.strip_suffix('$').unwrap_or(inner);
        let to_end = bare.len() < inner.len();
        if bare.is_empty() {
            return Err("the pattern is missing");
        }
        // LeakSanitizer would ignore what stands behind them.
        if bare.contains(['^', '$']) {
            return Err(
                "^ is accepted at the start of a pattern, $ at its end; write * for others",
            );
        }
        Ok(Pattern {
            text: text.to_owned(),
            from_start,
            to_end,
            parts: bare.split('*').map(str::to_owned).collect(),
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        let last = self.parts.len() - 1;
        let mut rest = name;
        for (index, part) in self.parts.iter().enumerate() {
            if index == last && self.to_end {
                return if index == 0 && self.from_start {
                    rest == part
                } else {
                    rest.ends_with(part.as_str())
                };
            }
            let found = match rest.find(part.as_str()) {
                Some(at) if at == 0 || index > 0 || !self.from_start => at,
                _ => return false,
            };
            rest = &rest[found + part.len()..];
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_as_in_leak_sanitizer() {
        for (pattern, name, expected) in [
            ("cache", "app::cache_plan(int)", true),
            ("cache", "app::Cache(int)", false),
            ("^app::", "app::cache", true),
            ("^cache", "app::cache", false),
            ("cache$", "app::cache", true),
            ("cache$", "app::cache_plan", false),
            ("^cache$", "cache", true),
            ("^cache$", "cache cache", false),
            ("app*plan", "my app::cache_plan(int)", true),
            ("app*plan$", "app::plan::replan", true),
            ("^app*plan", "my app::plan", false),
            ("*plan", "app::plan", true),
            ("libfoo.so*", "/usr/lib/libfoo.so.1", true),
            ("^*foo*$", "a foo b", true),
            ("*", "", true),
            ("^a*a$", "a", false),
        ] {
            let found = Pattern::parse(pattern).unwrap().matches(name);
            assert_eq!(found, expected, "{pattern} in {name}");
        }
        for bad in ["", "^", "$", "^$", "a^b", "a$b", "^a$b$", "^^a"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }

    /// Letter by letter, with every choice tried.
    fn slowly(pattern: &[u8], name: &[u8], from_start: bool, to_end: bool) -> bool {
        let here = match pattern.split_first() {
            None => !to_end || name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|n| slowly(rest, &name[n..], true, to_end)),
            Some((letter, rest)) => {
                name.first() == Some(letter) && slowly(rest, &name[1..], true, to_end)
            }
        };
        here || (!from_start && !name.is_empty() && slowly(pattern, &name[1..], false, to_end))
    }

    proptest! {
        #[test]
        fn fast_and_slow_agree(
            from_start: bool, to_end: bool, bare in "[ab*]{1,6}", name in "[ab]{0,8}",
        ) {
            let pattern = [if from_start { "^" } else { "" }, &bare, if to_end { "$" } else { "" }];
            let found = Pattern::parse(&pattern.concat()).unwrap().matches(&name);
            let expected = slowly(bare.as_bytes(), name.as_bytes(), from_start, to_end);
            prop_assert_eq!(found, expected);
        }
    }
}
