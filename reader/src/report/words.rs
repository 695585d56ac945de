//! Numbers, times and foreign names as people read them.

/// Bytes in binary units: `512 B`, `1.50 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut value = bytes as f64 / 1024.0;
    // What would be printed as 1024.00 belongs to the next unit.
    while value >= 1023.995 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.2} {}", UNITS[unit])
}

/// A number with thousands apart: `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number and its noun: `1 allocation`, `2,000 allocations`.
pub fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

/// A span of time: `870 ns`, `12.3 ms`, `4.2 s`, `3m 12s`, `2h 05m`, `3d 04h`.
pub fn duration(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        1_000_000_000..60_000_000_000 => format!("{:.1} s", ns as f64 / 1e9),
        _ if seconds < 3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => format!("{}h {:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// The unit of time that a rate is given by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Per {
    seconds: u64,
    name: &'static str,
}

impl Per {
    /// The largest unit that a span of time, nanoseconds, has at least two of.
    pub fn of(span: u64) -> Per {
        let seconds = span / 1_000_000_000;
        let (seconds, name) = match seconds {
            0..120 => (1, "second"),
            120..7_200 => (60, "minute"),
            7_200..172_800 => (3_600, "hour"),
            _ => (86_400, "day"),
        };
        Per { seconds, name }
    }

    /// So many bytes a second, in bytes a unit.
    pub fn amount(self, rate: f64) -> u64 {
        (rate * self.seconds as f64).round().max(0.0) as u64
    }

    /// `1.50 MiB a day`, of bytes a second.
    pub fn rate(self, rate: f64) -> String {
        let article = if self.name == "hour" { "an" } else { "a" };
        format!("{} {article} {}", bytes(self.amount(rate)), self.name)
    }
}

/// Unix nanoseconds as UTC: `2026-11-22 17:29:03 UTC`.
pub fn utc(unix_ns: u64) -> String {
    let seconds = unix_ns / 1_000_000_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01; the year begins in March, so leap days come last.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

/// A name from a file, safe to print: control characters and marks that reorder text are escaped.
pub fn foreign(name: &str) -> String {
    let harmless = |c: char| {
        !c.is_control()
            && !matches!(c,
                '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{61c}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    if name.chars().all(harmless) {
        return name.to_owned();
    }
    let mut out = String::new();
    for c in name.chars() {
        if harmless(c) {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    out
}

/// Most characters of a name that may have any length.
const SHORT: usize = 240;

/// As [`foreign`], without the middle of what would fill the screen: of nested ranges the innermost
/// ones say most, and the outermost ones where that is.
pub fn short(name: &str) -> String {
    let name = foreign(name);
    let length = name.chars().count();
    if length <= SHORT {
        return name;
    }
    let start: String = name.chars().take(SHORT / 3).collect();
    let end: String = name
        .chars()
        .skip(length - (SHORT - SHORT / 3 - 1))
        .collect();
    format!("{start}…{end}")
}

/// A path as an argument of a command line, quoted if a shell would read it otherwise.
pub fn shell(path: &std::path::Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
    if !text.is_empty() && text.chars().all(plain) && !text.starts_with('-') {
        return text.into_owned();
    }
    let dash = if text.starts_with('-') { "./" } else { "" };
    foreign(&format!("'{dash}{}'", text.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn sizes() {
        for (size, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536 << 20, "1.50 GiB"),
            ((1 << 20) - 1, "1.00 MiB"),
            (u64::MAX, "16.00 EiB"),
        ] {
            assert_eq!(bytes(size), text);
        }
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(123), "123");
        assert_eq!(counted(1, "stack"), "1 stack");
    }

    #[test]
    fn times() {
        for (ns, text) in [
            (870, "870 ns"),
            (12_300_000, "12.3 ms"),
            (4_200_000_000, "4.2 s"),
            (192_000_000_000, "3m 12s"),
            (7_500_000_000_000, "2h 05m"),
            (273_600_000_000_000, "3d 04h"),
        ] {
            assert_eq!(duration(ns), text);
        }
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400_000_000_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_795_368_543_000_000_000), "2026-11-22 17:29:03 UTC");
        utc(u64::MAX);
    }

    #[test]
    fn rates() {
        let day = 86_400_000_000_000;
        assert_eq!(Per::of(7 * day).rate(10.0), "843.75 KiB a day");
        assert_eq!(Per::of(day).rate(10.0), "35.16 KiB an hour");
        assert_eq!(Per::of(0).rate(0.4), "0 B a second");
    }

    #[test]
    fn foreign_names_cannot_play_with_the_terminal() {
        assert_eq!(foreign("naïve 漢字"), "naïve 漢字");
        assert_eq!(foreign("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\n");
        assert_eq!(foreign("\u{202e}gpj.exe"), "\\u{202e}gpj.exe");
        let long = short(&format!("begin{}{}end", "x".repeat(20_000), "\u{202e}"));
        assert_eq!(long.chars().count(), SHORT);
        assert!(long.starts_with("begin") && long.ends_with("\\u{202e}end"));
        assert_eq!(shell(Path::new("a b.vrt")), "'a b.vrt'");
        assert_eq!(shell(Path::new("/tmp/x.vrt")), "/tmp/x.vrt");
        assert_eq!(shell(Path::new("-x.vrt")), "'./-x.vrt'");
        assert_eq!(shell(Path::new("it's")), r"'it'\''s'");
    }
}
