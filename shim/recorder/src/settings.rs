//! What the environment asks for: one variable a setting.
//!
//! A value that makes no sense is never guessed at: the process runs untraced and one line says
//! which variable, and what it accepts.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use vramtrace_format::layout::{DEFAULT_SIZE, MIN_SIZE};
use vramtrace_format::sampling;

/// Which stacks to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stacks {
    /// What suits each API.
    Auto,
    /// Python frames only.
    Python,
    /// Native frames only.
    Native,
    /// Both, always.
    Both,
    /// None.
    Off,
}

/// Of which allocations stacks are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// Of all, as far as the budget allows.
    All,
    /// Of none.
    Off,
    /// Of one in about so many bytes, and of all that are as large.
    Every(u64),
}

impl Sample {
    /// The finest step that this asks for.
    pub fn step(self) -> u8 {
        match self {
            Sample::All => 0,
            Sample::Off => sampling::NONE,
            Sample::Every(bytes) => sampling::step_of(bytes),
        }
    }
}

/// What to do when an allocation fails for lack of memory; each does what the ones before it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnOom {
    /// Record it.
    Record,
    /// Keep a snapshot of the tables.
    Snapshot,
    /// Before that, trim pools and try once more.
    Rescue,
}

/// How much the recorder says on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Log {
    /// Nothing.
    Quiet,
    /// What the user should know.
    Warn,
    /// Also where the trace is.
    Info,
}

/// Everything the environment decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `VRAMTRACE_OUTPUT`: pattern of the trace's path.
    pub output: Option<Vec<u8>>,
    /// `VRAMTRACE_RUN_DIR`: where `vramtrace run` wants the file while the process lives.
    pub run_dir: Option<Vec<u8>>,
    /// `VRAMTRACE_SIZE`: bytes of the trace.
    pub size: u64,
    /// The wish was below the smallest workable size.
    pub size_raised: bool,
    /// `VRAMTRACE_KEEP`: bytes of dead traces to keep in the default directory.
    pub keep: u64,
    /// `VRAMTRACE_STACKS`.
    pub stacks: Stacks,
    /// `VRAMTRACE_SAMPLE`.
    pub sample: Sample,
    /// `VRAMTRACE_BUDGET`: what stacks may cost, in percent of one core; `None` anything.
    pub budget: Option<f64>,
    /// `VRAMTRACE_LOG`.
    pub log: Log,
    /// `VRAMTRACE_ON_OOM`.
    pub on_oom: OnOom,
    /// Every setting in force, as `NAME=value`, for the trace.
    pub shown: Vec<String>,
}

/// A variable whose value makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid {
    /// One sentence: the variable, its value, what is accepted.
    pub message: String,
}

/// Reads the environment; `Ok(None)` where `VRAMTRACE_OFF` says to stay out.
pub fn from_environment() -> Result<Option<Settings>, Invalid> {
    read(|name| std::env::var_os(name))
}

/// What stacks may cost where nothing is said, in percent of one core.
const DEFAULT_BUDGET: f64 = 0.5;
/// Less is no budget: one stack in a while costs as much.
const LEAST_BUDGET: f64 = 0.001;

const SIZE_HELP: &str = "bytes, or a number with KiB, MiB, GiB";

fn read(var: impl Fn(&str) -> Option<OsString>) -> Result<Option<Settings>, Invalid> {
    let raw = |name: &str| {
        var(name)
            .map(OsString::into_vec)
            .filter(|value| !value.is_empty())
    };
    let text = |name: &'static str| match raw(name) {
        None => Ok(None),
        Some(value) => match String::from_utf8(value) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(invalid(
                name,
                &String::from_utf8_lossy(error.as_bytes()),
                "plain text",
            )),
        },
    };
    let size = |name: &'static str, default: u64| match text(name)? {
        None => Ok(default),
        Some(value) => parse_size(&value).ok_or_else(|| invalid(name, &value, SIZE_HELP)),
    };
    match text("VRAMTRACE_OFF")?.as_deref() {
        None | Some("0") => {}
        Some("1") => return Ok(None),
        Some(other) => return Err(invalid("VRAMTRACE_OFF", other, "0 or 1")),
    }
    let wished = size("VRAMTRACE_SIZE", DEFAULT_SIZE)?;
    if wished > 1 << 40 {
        return Err(invalid(
            "VRAMTRACE_SIZE",
            &wished.to_string(),
            "at most 1024GiB",
        ));
    }
    let keep = size("VRAMTRACE_KEEP", 1 << 30)?;
    let stacks = match text("VRAMTRACE_STACKS")?.as_deref() {
        None | Some("auto") => Stacks::Auto,
        Some("python") => Stacks::Python,
        Some("native") => Stacks::Native,
        Some("both") => Stacks::Both,
        Some("off") => Stacks::Off,
        Some(other) => {
            return Err(invalid(
                "VRAMTRACE_STACKS",
                other,
                "auto, python, native, both or off",
            ));
        }
    };
    let log = match text("VRAMTRACE_LOG")?.as_deref() {
        None | Some("warn") => Log::Warn,
        Some("quiet") => Log::Quiet,
        Some("info") => Log::Info,
        Some(other) => return Err(invalid("VRAMTRACE_LOG", other, "quiet, warn or info")),
    };
    let sample = match text("VRAMTRACE_SAMPLE")?.as_deref() {
        None | Some("all") => Sample::All,
        Some("off") => Sample::Off,
        Some(other) => match parse_size(other).filter(|&size| size > 0) {
            Some(bytes) => Sample::Every(bytes),
            None => {
                return Err(invalid(
                    "VRAMTRACE_SAMPLE",
                    other,
                    &format!("all, off, or {SIZE_HELP}"),
                ));
            }
        },
    };
    let budget = match text("VRAMTRACE_BUDGET")?.as_deref() {
        None => Some(DEFAULT_BUDGET),
        Some("off") => None,
        Some(other) => match other.parse::<f64>() {
            Ok(percent) if (LEAST_BUDGET..=100.0).contains(&percent) => Some(percent),
            _ => {
                return Err(invalid(
                    "VRAMTRACE_BUDGET",
                    other,
                    "off, or percent of one core, from 0.001 to 100",
                ));
            }
        },
    };
    // Read by what comes later; a typo is said today.
    let on_oom = match text("VRAMTRACE_ON_OOM")?.as_deref() {
        None | Some("record") => OnOom::Record,
        Some("snapshot") => OnOom::Snapshot,
        Some("rescue") => OnOom::Rescue,
        Some(other) => {
            return Err(invalid(
                "VRAMTRACE_ON_OOM",
                other,
                "record, snapshot or rescue",
            ));
        }
    };
    let output = raw("VRAMTRACE_OUTPUT");
    if let Some(pattern) = &output {
        crate::place::pattern::check(pattern).map_err(|wrong| {
            invalid(
                "VRAMTRACE_OUTPUT",
                &String::from_utf8_lossy(pattern),
                &wrong,
            )
        })?;
    }
    let shown = vec![
        format!("VRAMTRACE_SIZE={}", wished.max(MIN_SIZE)),
        format!(
            "VRAMTRACE_STACKS={}",
            text("VRAMTRACE_STACKS")?.as_deref().unwrap_or("auto")
        ),
        format!("VRAMTRACE_KEEP={keep}"),
        match sample {
            Sample::All => "VRAMTRACE_SAMPLE=all".to_owned(),
            Sample::Off => "VRAMTRACE_SAMPLE=off".to_owned(),
            // What is in force, which may be a little finer than what was wished.
            Sample::Every(_) => {
                format!("VRAMTRACE_SAMPLE={}", sampling::interval(sample.step()))
            }
        },
        match budget {
            None => "VRAMTRACE_BUDGET=off".to_owned(),
            Some(percent) => format!("VRAMTRACE_BUDGET={percent}"),
        },
        format!(
            "VRAMTRACE_ON_OOM={}",
            text("VRAMTRACE_ON_OOM")?.as_deref().unwrap_or("record")
        ),
    ];
    Ok(Some(Settings {
        output,
        run_dir: raw("VRAMTRACE_RUN_DIR"),
        size: wished.max(MIN_SIZE),
        size_raised: wished < MIN_SIZE,
        keep,
        stacks,
        sample,
        budget,
        log,
        on_oom,
        shown,
    }))
}

fn invalid(name: &str, value: &str, accepted: &str) -> Invalid {
    let value: String = value
        .chars()
        .take(80)
        .flat_map(char::escape_default)
        .collect();
    Invalid {
        message: format!(
            "{name}=\"{value}\" makes no sense (accepted: {accepted}); not tracing this process"
        ),
    }
}

/// Bytes, or a number with a binary unit.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "B" => 1,
        "K" | "KiB" | "k" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Option<Settings>, Invalid> {
        read(|name| {
            pairs
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| OsString::from(v))
        })
    }

    #[test]
    fn nothing_set_is_the_defaults() {
        let settings = with(&[]).unwrap().unwrap();
        assert_eq!(
            (settings.size, settings.stacks, settings.log),
            (64 << 20, Stacks::Auto, Log::Warn)
        );
        assert_eq!((settings.sample, settings.budget), (Sample::All, Some(0.5)));
    }

    #[test]
    fn what_is_sampled_and_what_it_may_cost() {
        let of = |sample: &str, budget: &str| {
            let pairs = [("VRAMTRACE_SAMPLE", sample), ("VRAMTRACE_BUDGET", budget)];
            let settings = with(&pairs).unwrap().unwrap();
            let shown = settings.shown.join(" ");
            assert!(shown.contains("VRAMTRACE_SAMPLE="), "{shown}");
            (settings.sample.step(), settings.budget)
        };
        assert_eq!(of("all", "off"), (0, None));
        assert_eq!(of("off", "2"), (sampling::NONE, Some(2.0)));
        let (step, budget) = of("512KiB", "100");
        assert_eq!((sampling::interval(step), budget), (512 << 10, Some(100.0)));
        // Intervals are powers of two, and what lies halfway between.
        assert_eq!(sampling::interval(of("1000000", "1").0), 768 << 10);
    }

    #[test]
    fn a_bad_value_names_the_variable_and_what_is_accepted() {
        for (name, value, accepted) in [
            ("VRAMTRACE_SIZE", "lots", "KiB"),
            ("VRAMTRACE_SIZE", "-1", "KiB"),
            ("VRAMTRACE_SIZE", "99999999999999999999GiB", "KiB"),
            ("VRAMTRACE_STACKS", "yes", "native"),
            ("VRAMTRACE_OFF", "maybe", "0 or 1"),
            ("VRAMTRACE_OUTPUT", "/tmp/%z", "%p"),
            ("VRAMTRACE_LOG", "debug\x1b[31m", "quiet"),
            ("VRAMTRACE_SAMPLE", "some", "all"),
            ("VRAMTRACE_BUDGET", "much", "percent"),
            ("VRAMTRACE_BUDGET", "-1", "percent"),
            ("VRAMTRACE_BUDGET", "0", "off"),
            ("VRAMTRACE_BUDGET", "NaN", "percent"),
            ("VRAMTRACE_SAMPLE", "0", "all"),
            ("VRAMTRACE_ON_OOM", "panic", "rescue"),
        ] {
            let message = with(&[(name, value)]).unwrap_err().message;
            assert!(
                message.contains(name) && message.contains(accepted),
                "{message}"
            );
            assert!(!message.contains('\x1b'));
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(parse_size("4096"), Some(4096));
        assert_eq!(parse_size("512KiB"), Some(512 << 10));
        assert_eq!(parse_size("2 GiB"), Some(2 << 30));
        assert_eq!(parse_size("2GB"), None);
        assert_eq!(
            with(&[("VRAMTRACE_SIZE", "5")]).unwrap().unwrap().size,
            MIN_SIZE
        );
    }

    #[test]
    fn off_is_off() {
        assert!(with(&[("VRAMTRACE_OFF", "1")]).unwrap().is_none());
        assert!(with(&[("VRAMTRACE_OFF", "0")]).unwrap().is_some());
    }
}
