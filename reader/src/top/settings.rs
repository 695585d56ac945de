//! What is shown, and how: everything that keys change and a picture depends on.

use super::series::Window;
use std::time::Duration;
use vramtrace_format::record::Layer;

/// What memory is put together by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// Call stack, with everything else that differs.
    #[default]
    Stack,
    /// Innermost line of the program's own Python.
    Line,
    /// Innermost Python frame.
    Python,
    /// Innermost library or program outside CUDA.
    Library,
    /// Kind of memory.
    Kind,
    /// API function that allocated.
    Api,
    /// Process.
    Process,
}

impl By {
    /// All, in the order that keys go through them.
    pub const ALL: [By; 7] = [
        By::Stack,
        By::Line,
        By::Python,
        By::Library,
        By::Kind,
        By::Api,
        By::Process,
    ];

    /// The word that the command line uses.
    pub const fn word(self) -> &'static str {
        match self {
            By::Stack => "stack",
            By::Line => "line",
            By::Python => "python",
            By::Library => "library",
            By::Kind => "kind",
            By::Api => "api",
            By::Process => "process",
        }
    }

    /// Reads that word.
    pub fn parse(word: &str) -> Option<By> {
        By::ALL.into_iter().find(|by| by.word() == word)
    }
}

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Live bytes, most first.
    #[default]
    Live,
    /// Growth, fastest first.
    Growth,
    /// Allocations, most first.
    Count,
    /// Name.
    Name,
}

impl Sort {
    /// All, in the order that keys go through them.
    pub const ALL: [Sort; 4] = [Sort::Live, Sort::Growth, Sort::Count, Sort::Name];

    /// The word that the command line uses.
    pub const fn word(self) -> &'static str {
        match self {
            Sort::Live => "live",
            Sort::Growth => "growth",
            Sort::Count => "count",
            Sort::Name => "name",
        }
    }

    /// Reads that word.
    pub fn parse(word: &str) -> Option<Sort> {
        Sort::ALL.into_iter().find(|sort| sort.word() == word)
    }
}

/// The unit of time that growth is given by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Per {
    /// A second.
    #[default]
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
}

impl Per {
    /// All.
    pub const ALL: [Per; 3] = [Per::Second, Per::Minute, Per::Hour];

    /// How many seconds, and the sign for it.
    pub const fn unit(self) -> (f64, &'static str) {
        match self {
            Per::Second => (1.0, "/s"),
            Per::Minute => (60.0, "/min"),
            Per::Hour => (3_600.0, "/h"),
        }
    }
}

/// How long samples are apart at least, and at most.
pub const INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// What a picture depends on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// What memory is put together by.
    pub by: By,
    /// This layer alone.
    pub layer: Option<Layer>,
    /// This device alone, by [`super::picture::DeviceRow::key`].
    pub device: Option<String>,
    /// This process alone, by its number in the model.
    pub process: Option<u32>,
    /// Only what has this text in it, whatever the case.
    pub filter: String,
    /// What rows are sorted by.
    pub sort: Sort,
    /// The other way round.
    pub reverse: bool,
    /// The time that growth and sparklines are about.
    pub window: Window,
    /// The unit of growth.
    pub per: Per,
}

/// The one after this in a list, or before it, round and round.
pub fn next_of<T: Copy + PartialEq>(all: &[T], now: T, back: bool) -> T {
    let at = all.iter().position(|&one| one == now).unwrap_or(0);
    let step = if back { all.len().saturating_sub(1) } else { 1 };
    all.get((at + step) % all.len().max(1))
        .copied()
        .unwrap_or(now)
}
