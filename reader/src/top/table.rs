//! The columns of each table, and what stands in them: the same on a screen and in plain text.

use super::picture::{FailureRow, GroupRow, Picture, PoolRow, ProcessRow};
use super::settings::{Settings, Sort};
use super::text::{clean, growth, percent};
use crate::report::words::{bytes, count, duration, utc};

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Number of the process.
    Pid,
    /// Whether it runs.
    State,
    /// Device.
    Gpu,
    /// Live bytes.
    Live,
    /// Most that was live.
    Peak,
    /// What allocators handed out.
    InUse,
    /// What allocators hold without using it.
    Cached,
    /// Page-locked host memory.
    Host,
    /// nvidia-smi's number.
    Smi,
    /// Failed allocations.
    Failed,
    /// Growth.
    Growth,
    /// Sparkline.
    Trend,
    /// Program and rank.
    Program,
    /// Live allocations.
    Allocs,
    /// Kind of memory.
    Kind,
    /// Whose it is.
    Process,
    /// The same, in what the other columns leave.
    Owner,
    /// Its number alone, where there is no room for more.
    Whose,
    /// Where it was allocated, or what else it was made by.
    Where,
    /// What an allocator has of the driver.
    Reserved,
    /// What it handed out of that.
    Used,
    /// What it holds without using it.
    Unused,
    /// That as a part.
    Share,
    /// Which allocator.
    Allocator,
    /// When it failed.
    When,
    /// What was asked for.
    Asked,
    /// What was free.
    Free,
    /// What became of it.
    Outcome,
}

use Column::*;

/// Columns of processes, in their order.
pub const PROCESSES: &[Column] = &[
    Pid, State, Gpu, Live, Peak, InUse, Cached, Host, Smi, Failed, Growth, Trend, Program,
];
/// Columns of what holds memory.
pub const GROUPS: &[Column] = &[
    Live, Allocs, Growth, Trend, Gpu, Kind, Whose, Process, Where,
];
/// Columns of allocators.
pub const POOLS: &[Column] = &[Reserved, Used, Unused, Share, Gpu, Allocator, Owner];
/// Columns of failures.
pub const FAILURES: &[Column] = &[When, Asked, Free, Gpu, Outcome, Process, Where];

impl Column {
    /// What stands above it.
    pub const fn head(self) -> &'static str {
        match self {
            Pid => "PID",
            State => "STATE",
            Gpu => "GPU",
            Live => "LIVE",
            Peak => "PEAK",
            InUse => "IN USE",
            Cached => "CACHED",
            Host => "HOST",
            Smi => "NVIDIA-SMI",
            Failed => "OOM",
            Growth => "GROWTH",
            Trend => "TREND",
            Program => "PROGRAM",
            Allocs => "ALLOCS",
            Kind => "KIND",
            Process | Owner => "PROCESS",
            Whose => "PID",
            Where => "WHERE",
            Reserved => "RESERVED",
            Used => "USED",
            Unused => "UNUSED",
            Share => "",
            Allocator => "ALLOCATOR",
            When => "WHEN",
            Asked => "ASKED",
            Free => "FREE",
            Outcome => "OUTCOME",
        }
    }

    /// Cells that it takes on a screen of this width; 0 if there is no room for it, `None` if it takes
    /// what the others leave.
    pub const fn width(self, screen: u16) -> Option<u16> {
        let (width, from) = match self {
            Pid => (7, 0),
            State => (9, 70),
            Gpu => (4, 60),
            Live | Reserved | Asked => (11, 0),
            Peak => (11, 120),
            InUse => (11, 136),
            Cached => (11, 100),
            Host => (11, 156),
            Smi => (11, 112),
            Failed => (5, 76),
            Growth => (13, 44),
            Trend if screen >= 150 => (24, 0),
            Trend if screen >= 110 => (14, 0),
            Trend => (8, 66),
            Allocs => (7, 90),
            Kind => (10, 100),
            Whose if screen >= 90 => (0, 0),
            Whose => (7, 70),
            Process if screen >= 150 => (30, 0),
            Process => (20, 90),
            Used => (11, 56),
            Unused => (11, 44),
            Share => (5, 0),
            Allocator => (9, 50),
            When => (9, 0),
            Free => (11, 50),
            Outcome => (12, 84),
            Program | Where | Owner => return None,
        };
        Some(if screen >= from { width } else { 0 })
    }

    /// Whether it is set flush right.
    pub const fn is_right(self) -> bool {
        !matches!(
            self,
            State
                | Gpu
                | Trend
                | Program
                | Kind
                | Process
                | Owner
                | Where
                | Allocator
                | When
                | Outcome
        )
    }

    /// What rows are sorted by when one clicks on it.
    pub const fn sort(self) -> Option<Sort> {
        match self {
            Live => Some(Sort::Live),
            Growth => Some(Sort::Growth),
            Allocs => Some(Sort::Count),
            Program | Where => Some(Sort::Name),
            _ => None,
        }
    }
}

/// Nothing for nothing: what is zero everywhere should not be read everywhere.
fn some(amount: u64) -> String {
    match amount {
        0 => "-".to_owned(),
        amount => bytes(amount),
    }
}

/// A cell of a process's row; harmless.
pub fn process(row: &ProcessRow, column: Column, settings: &Settings) -> String {
    match column {
        Pid => row.pid.to_string(),
        State => match row.inexact {
            true => format!("{}!", row.state),
            false => row.state.to_owned(),
        },
        Gpu => short_gpu(&row.gpu),
        Live => some(row.live),
        Peak => some(row.peak),
        InUse => some(row.framework),
        Cached => some(row.cached),
        Host => some(row.host_memory),
        Smi => row.shown.map_or_else(|| "-".to_owned(), bytes),
        Failed => match row.failed {
            0 => "-".to_owned(),
            failed => count(failed),
        },
        Growth => growth(row.growth, settings.per),
        Program => {
            let rank = row
                .rank
                .map_or(String::new(), |rank| format!(" rank {rank}"));
            clean(&format!("{}{rank}", row.name))
        }
        _ => String::new(),
    }
}

/// A cell of a group's row; harmless.
pub fn group(row: &GroupRow, column: Column, settings: &Settings, arrow: &str) -> String {
    match column {
        Live if row.estimated => format!("~{}", bytes(row.bytes)),
        Live => bytes(row.bytes),
        Allocs => count(row.count),
        Growth => growth(row.growth, settings.per),
        Gpu if row.gpu.is_empty() => "host".to_owned(),
        Gpu => short_gpu(&row.gpu),
        Kind => match row.key.kind {
            Some(kind) => kind.name().to_owned(),
            None => format!("({})", row.key.layer.name()),
        },
        Process => clean(&row.process),
        // `train (4711)`: the number is at the end.
        Whose => {
            let number = row.process.rsplit_once('(');
            number.map_or(String::new(), |(_, number)| {
                clean(number.trim_end_matches(')'))
            })
        }
        Where => {
            let mut text = row.label.clone();
            for caller in row.named.iter().flat_map(|named| &named.callers) {
                text.push_str(arrow);
                text.push_str(caller);
            }
            clean(&text)
        }
        _ => String::new(),
    }
}

/// A cell of an allocator's row; harmless.
pub fn pool(row: &PoolRow, column: Column) -> String {
    let unused = row.reserved.saturating_sub(row.used);
    match column {
        Reserved => some(row.reserved),
        Used => some(row.used),
        Unused => some(unused),
        Share => percent(unused, row.reserved),
        Gpu => short_gpu(&row.gpu),
        Allocator => row.allocator.to_owned(),
        Process | Owner => clean(&row.label),
        _ => String::new(),
    }
}

/// A cell of a failure's row; harmless.
pub fn failure(row: &FailureRow, column: Column, picture: &Picture, arrow: &str) -> String {
    let failure = &row.failure;
    match column {
        When => ago(picture.unix_ns, failure.unix_ns),
        Asked => bytes(failure.asked_bytes),
        Free => failure.free_bytes.map_or_else(|| "?".to_owned(), bytes),
        Gpu if row.gpu.is_empty() => "host".to_owned(),
        Gpu => short_gpu(&row.gpu),
        Outcome => outcome(row),
        Process => clean(&row.label),
        Where => {
            let Some(named) = &failure.named else {
                return "…".to_owned();
            };
            let mut text = named.site.clone();
            for caller in &named.callers {
                text.push_str(arrow);
                text.push_str(caller);
            }
            clean(&text)
        }
        _ => String::new(),
    }
}

/// What became of a failed allocation, as far as that is known here.
pub fn outcome(row: &FailureRow) -> String {
    let failure = &row.failure;
    match (failure.rescued, failure.framework, failure.attempts) {
        (true, ..) => "rescued".to_owned(),
        (_, true, _) => "framework".to_owned(),
        (_, _, 0 | 1) => "failed".to_owned(),
        (_, _, attempts) => format!("failed {}×", count(attempts)),
    }
}

/// How long ago, or when it was if that is long.
fn ago(now: u64, then: u64) -> String {
    const LONG: u64 = 3_600_000_000_000;
    match now.saturating_sub(then) {
        ns if ns >= LONG => time_of_day(then),
        ns if ns < 60_000_000_000 => format!("{} s", ns / 1_000_000_000),
        ns => duration(ns),
    }
}

/// `17:29:03`, UTC.
pub fn time_of_day(unix_ns: u64) -> String {
    let whole = utc(unix_ns);
    whole.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// `0` of `GPU 0`.
fn short_gpu(label: &str) -> String {
    clean(label.strip_prefix("GPU ").unwrap_or(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_room_for_what_it_says() {
        for screen in [40, 60, 80, 100, 120, 160, 200, 400] {
            for columns in [PROCESSES, GROUPS, POOLS, FAILURES] {
                let widths = columns.iter().filter_map(|column| column.width(screen));
                let all: u16 = widths
                    .clone()
                    .map(|width| width + u16::from(width > 0))
                    .sum();
                assert!(all <= screen, "{columns:?} on {screen}: {all}");
                for column in columns {
                    let width = column.width(screen).unwrap_or(99);
                    assert!(
                        width == 0 || usize::from(width) >= column.head().len(),
                        "{column:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn times_of_failures() {
        let now = 1_767_225_600_000_000_000;
        assert_eq!(ago(now, now - 5_000_000_000), "5 s");
        assert_eq!(ago(now, now - 90_000_000_000), "1m 30s");
        assert_eq!(ago(now, now - 7_200_000_000_000), "22:00:00");
        assert_eq!(ago(now, now + 5), "0 s");
    }
}
