//! Conditions: comparisons of figures with constants, joined by `and`, `or`, `not` and parentheses.
//!
//! A figure that is not known (NVML is not there, a window is not full yet) makes its comparison
//! unknown, and what depends on it: nothing is done for what is not known.

use crate::serve::time;
use std::fmt;
use std::time::Duration;

/// Words and parentheses in each other, and characters, of a condition.
const DEEPEST: usize = 32;
const LONGEST: usize = 4096;

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// Both.
    And(Box<Expression>, Box<Expression>),
    /// One of them, or both.
    Or(Box<Expression>, Box<Expression>),
    /// Not.
    Not(Box<Expression>),
    /// A figure and a constant.
    Compare(Figure, Comparison, Value),
}

/// A figure of a process on a device, or of its host memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Figure {
    /// Bytes in use on the device, by whomever (NVML).
    DeviceUsed,
    /// Bytes free on the device (NVML).
    DeviceFree,
    /// What nvidia-smi shows for the process on the device.
    ProcessUsed,
    /// Live bytes of the device layer, or of host memory where there is no device.
    Live,
    /// Live bytes of the framework layer.
    Framework,
    /// Live page-locked host bytes.
    Host,
    /// Most live bytes so far of the device layer.
    Peak,
    /// Bytes that allocators hold.
    Reserved,
    /// Bytes of these that are not handed out.
    Unused,
    /// What nvidia-smi shows and nothing explains.
    Unexplained,
    /// Allocations that failed since the program began; with a window, in it.
    Failures(Option<Duration>),
    /// Events that were lost since the program began.
    Lost,
    /// Growth of live bytes over a window, bytes a second.
    Growth(Duration),
}

/// How a figure is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
}

/// A constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Bytes, a count, or bytes a second: as the figure is.
    Number(f64),
    /// Percent of the device's memory; of `unused`, of what is reserved.
    Percent(f64),
}

/// What is wrong with a condition, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The condition.
    text: String,
    /// Byte in it.
    at: usize,
    /// A sentence.
    what: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = self.text.get(..self.at).unwrap_or(&self.text);
        let column = before.chars().count();
        write!(
            f,
            "{}\n  {}\n  {}^",
            self.what,
            self.text,
            " ".repeat(column)
        )
    }
}

impl std::error::Error for Wrong {}

impl Expression {
    /// Reads a condition.
    pub fn parse(text: &str) -> Result<Expression, Wrong> {
        let mut parser = Parser { text, at: 0 };
        if text.len() > LONGEST {
            return Err(parser.wrong(0, format!("a condition has at most {LONGEST} characters")));
        }
        let parsed = parser.any(0)?;
        parser.spaces();
        if parser.at < text.len() {
            return Err(parser.wrong(parser.at, "`and`, `or` or the end was expected here".into()));
        }
        Ok(parsed)
    }

    /// Whether it holds, where that is known.
    pub fn holds(&self, facts: &dyn Facts) -> Option<bool> {
        match self {
            Expression::And(a, b) => match (a.holds(facts), b.holds(facts)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Expression::Or(a, b) => match (a.holds(facts), b.holds(facts)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Expression::Not(inner) => inner.holds(facts).map(|holds| !holds),
            Expression::Compare(figure, comparison, value) => {
                let is = facts.figure(*figure)?;
                let limit = match *value {
                    Value::Number(number) => number,
                    Value::Percent(percent) => facts.whole(*figure)? * percent / 100.0,
                };
                Some(match comparison {
                    Comparison::Above => is > limit,
                    Comparison::AtLeast => is >= limit,
                    Comparison::Below => is < limit,
                    Comparison::AtMost => is <= limit,
                })
            }
        }
    }

    /// All figures in it.
    pub fn figures(&self) -> Vec<Figure> {
        match self {
            Expression::And(a, b) | Expression::Or(a, b) => [a.figures(), b.figures()].concat(),
            Expression::Not(inner) => inner.figures(),
            Expression::Compare(figure, ..) => vec![*figure],
        }
    }

    /// The longest window in it.
    pub fn window(&self) -> Option<Duration> {
        let windows = self
            .figures()
            .into_iter()
            .filter_map(|figure| match figure {
                Figure::Growth(window) => Some(window),
                Figure::Failures(window) => window,
                _ => None,
            });
        windows.max()
    }
}

/// What is known of a process on a device.
pub trait Facts {
    /// A figure, if it is known.
    fn figure(&self, figure: Figure) -> Option<f64>;
    /// What percents of it are of.
    fn whole(&self, figure: Figure) -> Option<f64>;
}

/// What a figure is measured in.
#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Bytes,
    Count,
    Rate,
}

const NAMES: &str = "device.used, device.free, process.used, live, framework, host, peak, reserved, unused, \
                     unexplained, failures, failures(10m), lost, growth(10m)";

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Parser<'t> {
    fn wrong(&self, at: usize, what: String) -> Wrong {
        Wrong {
            text: self.text.to_owned(),
            at,
            what,
        }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Whether this comes next; it is then passed.
    fn passes(&mut self, token: &str) -> bool {
        self.spaces();
        let Some(after) = self.rest().strip_prefix(token) else {
            return false;
        };
        // A word ends where no letter follows.
        let is_word = token.chars().all(char::is_alphabetic);
        if is_word && after.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '.')) {
            return false;
        }
        self.at += token.len();
        true
    }

    fn any(&mut self, depth: usize) -> Result<Expression, Wrong> {
        let mut left = self.all(depth)?;
        while self.passes("or") || self.passes("||") {
            left = Expression::Or(Box::new(left), Box::new(self.all(depth)?));
        }
        Ok(left)
    }

    fn all(&mut self, depth: usize) -> Result<Expression, Wrong> {
        let mut left = self.single(depth)?;
        while self.passes("and") || self.passes("&&") {
            left = Expression::And(Box::new(left), Box::new(self.single(depth)?));
        }
        Ok(left)
    }

    fn single(&mut self, depth: usize) -> Result<Expression, Wrong> {
        self.spaces();
        if depth > DEEPEST {
            return Err(self.wrong(self.at, format!("more than {DEEPEST} levels in each other")));
        }
        if self.passes("not") || self.passes("!") {
            return Ok(Expression::Not(Box::new(self.single(depth + 1)?)));
        }
        let open = self.at;
        if self.passes("(") {
            let inner = self.any(depth + 1)?;
            if !self.passes(")") {
                return Err(self.wrong(open, "this parenthesis is not closed".into()));
            }
            return Ok(inner);
        }
        let (figure, unit) = self.figure()?;
        let comparison = self.comparison()?;
        let value = self.value(figure, unit)?;
        Ok(Expression::Compare(figure, comparison, value))
    }

    fn figure(&mut self) -> Result<(Figure, Unit), Wrong> {
        self.spaces();
        let start = self.at;
        let rest = self.rest();
        let length = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_'))
            .unwrap_or(rest.len());
        let name = &rest[..length];
        self.at += length;
        let window = self.window()?;
        let found = match (name, window) {
            ("device.used", None) => (Figure::DeviceUsed, Unit::Bytes),
            ("device.free", None) => (Figure::DeviceFree, Unit::Bytes),
            ("process.used", None) => (Figure::ProcessUsed, Unit::Bytes),
            ("live", None) => (Figure::Live, Unit::Bytes),
            ("framework", None) => (Figure::Framework, Unit::Bytes),
            ("host", None) => (Figure::Host, Unit::Bytes),
            ("peak", None) => (Figure::Peak, Unit::Bytes),
            ("reserved", None) => (Figure::Reserved, Unit::Bytes),
            ("unused", None) => (Figure::Unused, Unit::Bytes),
            ("unexplained", None) => (Figure::Unexplained, Unit::Bytes),
            ("lost", None) => (Figure::Lost, Unit::Count),
            ("failures", window) => (Figure::Failures(window), Unit::Count),
            ("growth", Some(window)) => (Figure::Growth(window), Unit::Rate),
            ("growth", None) => {
                let what = "over which time? for example growth(10m)";
                return Err(self.wrong(start + length, what.into()));
            }
            ("", _) => {
                return Err(self.wrong(start, format!("a figure was expected here: {NAMES}")));
            }
            _ => {
                let what = format!("`{name}` is no figure here; there are {NAMES}");
                return Err(self.wrong(start, what));
            }
        };
        Ok(found)
    }

    fn window(&mut self) -> Result<Option<Duration>, Wrong> {
        if !self.passes("(") {
            return Ok(None);
        }
        let start = self.at;
        let Some(length) = self.rest().find(')') else {
            return Err(self.wrong(start, "this parenthesis is not closed".into()));
        };
        let window =
            time::parse(self.rest()[..length].trim()).map_err(|what| self.wrong(start, what))?;
        if window < Duration::from_secs(1) {
            return Err(self.wrong(start, "a window has at least 1s".into()));
        }
        self.at += length + 1;
        Ok(Some(window))
    }

    fn comparison(&mut self) -> Result<Comparison, Wrong> {
        let all = [
            (">=", Comparison::AtLeast),
            ("<=", Comparison::AtMost),
            (">", Comparison::Above),
            ("<", Comparison::Below),
        ];
        for (token, comparison) in all {
            if self.passes(token) {
                return Ok(comparison);
            }
        }
        Err(self.wrong(self.at, "one of > >= < <= was expected here".into()))
    }

    fn value(&mut self, figure: Figure, unit: Unit) -> Result<Value, Wrong> {
        self.spaces();
        let start = self.at;
        let rest = self.rest();
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let number: Option<f64> = rest[..digits].parse().ok();
        let Some(number) = number.filter(|number| number.is_finite()) else {
            return Err(self.wrong(start, "a number was expected here".into()));
        };
        self.at += digits;
        self.spaces();
        let at = self.at;
        let rest = self.rest();
        let length = rest
            .find(|c: char| !c.is_ascii_alphabetic() && !matches!(c, '%' | '/'))
            .unwrap_or(rest.len());
        let word = match &rest[..length] {
            // The next word of the condition, and no unit.
            "and" | "or" => "",
            word => word,
        };
        self.at += word.len();
        let of_bytes = |word: &str| {
            Some(match word {
                "B" => 1.0,
                "KiB" => 1024.0,
                "MiB" => f64::from(1 << 20),
                "GiB" => f64::from(1 << 30),
                "TiB" => (1u64 << 40) as f64,
                "kB" | "KB" => 1e3,
                "MB" => 1e6,
                "GB" => 1e9,
                "TB" => 1e12,
                _ => return None,
            })
        };
        let seconds = |word: &str| {
            Some(match word {
                "s" => 1.0,
                "m" | "min" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                _ => return None,
            })
        };
        let value = match (unit, word) {
            (Unit::Bytes, "%") if figure != Figure::Host => Some(Value::Percent(number)),
            (Unit::Bytes, word) => of_bytes(word).map(|unit| Value::Number(number * unit)),
            (Unit::Count, "") => Some(Value::Number(number)),
            (Unit::Count, _) => None,
            (Unit::Rate, word) => word.split_once('/').and_then(|(bytes, time)| {
                Some(Value::Number(number * of_bytes(bytes)? / seconds(time)?))
            }),
        };
        value.ok_or_else(|| {
            let what = match unit {
                Unit::Bytes if figure == Figure::Host => "bytes were expected here: 3GiB, 500MB",
                Unit::Bytes => "bytes or a percentage were expected here: 3GiB, 500MB, 92%",
                Unit::Count => "a plain number was expected here: 0, 10",
                Unit::Rate => "bytes over time were expected here: 1GiB/h, 10MiB/min",
            };
            self.wrong(at, what.into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Known;

    impl Facts for Known {
        fn figure(&self, figure: Figure) -> Option<f64> {
            match figure {
                Figure::DeviceUsed => Some(93.0),
                Figure::Live => Some((2u64 << 30) as f64),
                Figure::Failures(_) => Some(1.0),
                Figure::Growth(_) => Some(1e6),
                _ => None,
            }
        }

        fn whole(&self, _: Figure) -> Option<f64> {
            Some(100.0)
        }
    }

    #[test]
    fn what_holds() {
        for (text, holds) in [
            ("device.used > 92%", Some(true)),
            ("device.used>93%", Some(false)),
            ("device.used >= 93 %", Some(true)),
            ("growth(10m) > 1GiB/h", Some(true)),
            ("growth(10m) > 1TiB/h", Some(false)),
            ("failures > 0", Some(true)),
            ("failures(5m) > 0 and live > 1GiB", Some(true)),
            ("live > 3GiB or failures > 0", Some(true)),
            ("live < 3GiB && failures <= 0", Some(false)),
            ("not (live > 3GiB || failures > 1)", Some(true)),
            ("lost > 0", None),
            ("lost > 0 and live > 3GiB", Some(false)),
            ("lost > 0 or live > 1GiB", Some(true)),
            ("not lost > 0", None),
            ("failures > 0 or failures > 0 and live > 9TiB", Some(true)),
        ] {
            assert_eq!(
                Expression::parse(text).unwrap().holds(&Known),
                holds,
                "{text}"
            );
        }
    }

    #[test]
    fn errors_point_at_the_place() {
        for (text, at, what) in [
            ("", 0, "a figure"),
            ("speed > 3", 0, "`speed` is no figure"),
            ("live > 1GiB and", 15, "a figure"),
            ("live > 3", 8, "bytes or a percentage"),
            ("live > 3GiB/h", 8, "bytes or a percentage"),
            ("live ~ 3GiB", 5, "one of >"),
            ("growth > 1GiB/h", 6, "over which time"),
            ("growth(10 parsecs) > 1GiB/h", 7, "span of time"),
            ("growth(10m > 1GiB/h", 7, "not closed"),
            ("growth(10m) > 1GiB", 15, "bytes over time"),
            ("failures > 1MiB", 12, "a plain number"),
            ("(live > 1GiB", 0, "not closed"),
            ("live > 1GiB live", 12, "`and`, `or`"),
            ("live > GiB", 7, "a number"),
            ("host > 10%", 9, "bytes were"),
        ] {
            let wrong = Expression::parse(text).unwrap_err();
            assert!(wrong.what.contains(what), "{text}: {}", wrong.what);
            assert_eq!(wrong.at, at, "{text}");
        }
        let shown = Expression::parse("live ~ 3GiB").unwrap_err().to_string();
        assert!(shown.ends_with("  live ~ 3GiB\n       ^"), "{shown}");
        assert!(Expression::parse(&"(".repeat(3000)).is_err());
        assert!(Expression::parse(&"not ".repeat(1000)).is_err());
    }

    #[test]
    fn the_longest_window_counts() {
        let parsed = Expression::parse("growth(10m) > 1B/s or failures(1h) > 3").unwrap();
        assert_eq!(parsed.window(), Some(Duration::from_secs(3600)));
        assert_eq!(Expression::parse("live > 1B").unwrap().window(), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
            if let Err(wrong) = Expression::parse(&text) {
                prop_assert!(!wrong.to_string().is_empty());
            }
        }

        #[test]
        fn any_words_are_read_or_refused(words in prop::collection::vec(prop::sample::select(
            vec!["live", "growth(10m)", "(", ")", "and", "or", "not", ">", "<=", "3", "GiB", "/h", "%", "failures"]), 0..20)) {
            let _ = Expression::parse(&words.join(" "));
        }
    }
}
