//! Foreign names made harmless, and figures made short.

use super::settings::Per;
use crate::report::words::{bytes, foreign};
use unicode_width::UnicodeWidthChar;

/// Characters of a name that are kept: more than any screen shows, less than a hostile trace has.
pub const LONGEST: usize = 1_000;
/// Characters without a width, like accents, that may follow each other.
const MOST_COMBINED: usize = 2;

/// A foreign text that does nothing to a terminal: control characters, escape sequences and marks that
/// reorder text are written out, towers of accents are cut, and what is longer than any screen is cut.
pub fn clean(text: &str) -> String {
    // Each character becomes at most ten when it is written out.
    let end = text
        .char_indices()
        .nth(LONGEST)
        .map_or(text.len(), |(at, _)| at);
    let harmless = foreign(&text[..end]);
    if harmless.is_ascii() && harmless.len() <= LONGEST {
        return harmless;
    }
    let mut combined = 0;
    harmless
        .chars()
        .filter(|c| match c.width() {
            Some(0) => {
                combined += 1;
                combined <= MOST_COMBINED
            }
            Some(_) => {
                combined = 0;
                true
            }
            None => false,
        })
        .take(LONGEST)
        .collect()
}

/// How many cells a harmless text takes.
pub fn width(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// A harmless text in at most so many cells; what is cut off shows as `…`.
pub fn fit(text: &str, cells: usize) -> String {
    if width(text) <= cells {
        return text.to_owned();
    }
    let room = cells.saturating_sub(1);
    let mut used = 0;
    let mut out: String = text
        .chars()
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= room
        })
        .collect();
    if cells > 0 {
        out.push('…');
    }
    out
}

/// A harmless text for a terminal that knows ASCII alone: signs of ours by what looks like them.
pub fn ascii(text: &str) -> String {
    let like = |c: char| match c {
        c if c.is_ascii() => c,
        '…' | '·' => '.',
        '×' => 'x',
        '←' => '<',
        '↑' => '^',
        '↓' => 'v',
        _ => '?',
    };
    text.chars().map(like).collect()
}

/// `+1.50 MiB/s`, `-3 B/h`; `·` for what stands still, nothing for what is not known.
pub fn growth(rate: Option<f64>, per: Per) -> String {
    let Some(rate) = rate.filter(|rate| rate.is_finite()) else {
        return String::new();
    };
    let (seconds, sign) = per.unit();
    let amount = rate.abs() * seconds;
    // Saturates.
    let amount = amount.round() as u64;
    match (amount, rate < 0.0) {
        (0, _) => "·".to_owned(),
        (amount, true) => format!("-{}{sign}", bytes(amount)),
        (amount, false) => format!("+{}{sign}", bytes(amount)),
    }
}

/// `37 %`, of what is not nothing.
pub fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => String::new(),
        whole => format!("{:.0} %", part as f64 / whole as f64 * 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_names_become_harmless_and_short() {
        assert_eq!(clean("step train.py:12"), "step train.py:12");
        assert_eq!(clean("a\u{1b}]0;title\u{7}b"), "a\\u{1b}]0;title\\u{7}b");
        assert_eq!(clean("\u{202e}gpj"), "\\u{202e}gpj");
        let tower = format!("e{}x", "\u{301}".repeat(500));
        assert_eq!(clean(&tower).chars().count(), 2 + MOST_COMBINED);
        assert_eq!(clean(&"漢".repeat(20_000)).chars().count(), LONGEST);
        assert!(clean(&"\u{1b}".repeat(20_000)).len() <= LONGEST);
    }

    #[test]
    fn texts_fit_also_wide_ones() {
        assert_eq!(fit("abcdef", 6), "abcdef");
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(fit("漢字漢字", 6), "漢字…");
        assert_eq!(fit("漢字", 0), "");
    }

    #[test]
    fn terminals_of_old_get_what_looks_like_it() {
        assert_eq!(ascii("abc… ×2 漢"), "abc. x2 ?");
    }

    #[test]
    fn growth_has_a_sign_and_a_unit() {
        assert_eq!(growth(Some(1536.0), Per::Second), "+1.50 KiB/s");
        assert_eq!(growth(Some(-1.0), Per::Hour), "-3.52 KiB/h");
        assert_eq!(growth(Some(0.1), Per::Second), "·");
        assert_eq!(growth(None, Per::Second), "");
        assert_eq!(growth(Some(f64::INFINITY), Per::Second), "");
        assert_eq!(growth(Some(f64::MAX), Per::Hour), "+16.00 EiB/h");
        assert_eq!(percent(1, 0), "");
        assert_eq!(percent(1, 3), "33 %");
    }

    proptest! {
        #[test]
        fn nothing_that_is_clean_can_steer_a_terminal(text in any::<String>(), cells in 0usize..40) {
            let text = clean(&text);
            let steers = |c: char| {
                let marks = ['\u{200b}'..='\u{200f}', '\u{202a}'..='\u{202e}', '\u{2066}'..='\u{2069}'];
                c.is_control() || marks.iter().any(|marks| marks.contains(&c))
            };
            prop_assert!(!text.chars().any(steers));
            prop_assert!(width(&fit(&text, cells)) <= cells);
        }
    }
}
