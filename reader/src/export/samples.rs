//! Sums by stack, with what they stand under: process, GPU or host, and what was asked to tell apart.

use super::stacks::{Id, Stacks, Wanted};
use crate::analysis::leaks::{By, EntryEnd, Point, Window};
use crate::analysis::moment::{Found, Past};
use crate::analysis::usage::{self, Key, Shares};
use crate::analysis::{Filter, Sum};
use crate::model::{Process, Unhidden};
use crate::report::words::duration;
use vramtrace_format::record::{Kind, Layer, NO_DEVICE};

/// What is summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// What is live: leaks.
    Live,
    /// What was held at the peak of each device and layer.
    Peak,
    /// All that was ever allocated.
    Total,
    /// What stacks hold more of than at an earlier moment.
    Growth,
}

impl Measure {
    /// All of them.
    pub const ALL: [Measure; 4] = [
        Measure::Live,
        Measure::Peak,
        Measure::Total,
        Measure::Growth,
    ];

    /// The word that the command line uses.
    pub const fn name(self) -> &'static str {
        match self {
            Measure::Live => "live",
            Measure::Peak => "peak",
            Measure::Total => "total",
            Measure::Growth => "growth",
        }
    }

    /// The measure with this name.
    pub fn from_name(name: &str) -> Option<Measure> {
        Measure::ALL
            .into_iter()
            .find(|measure| measure.name() == name)
    }
}

/// Which part of the memory of which part of the processes' lives is wanted.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Devices, layers, kinds.
    pub filter: Filter,
    /// What is told apart.
    pub by: By,
    /// Frames that are shown though they usually are not.
    pub unhidden: Unhidden,
    /// End or teardown, where one of these was asked for.
    pub point: Option<Point>,
    /// One for each process.
    pub parts: Vec<Part>,
}

/// A part of a process's life.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// What is live.
    pub window: Window,
    /// After this.
    pub from: Option<Found>,
    /// Until this.
    pub to: Option<Found>,
}

/// Why there is no answer: the process, and a sentence about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// Which of the processes.
    pub process: usize,
    /// Why.
    pub why: String,
}

impl Selection {
    /// Which frames are wanted.
    pub fn wanted(&self) -> Wanted {
        Wanted {
            unhidden: self.unhidden,
            by: self.by,
        }
    }

    /// The shares of one process.
    pub(super) fn shares(
        &self,
        process: &Process,
        id: usize,
        measure: Measure,
    ) -> Result<(Shares, Sum), Unanswered> {
        let whole = Part::default();
        let part = self.parts.get(id).unwrap_or(&whole);
        let fail = |why: String| Unanswered { process: id, why };
        let forgotten = |what: &str, began: u64| {
            fail(format!(
                "its event log begins at {}, and {what} before is not known any more; with a \
                 larger VRAMTRACE_SIZE it reaches further back",
                duration(began)
            ))
        };
        let windowed = part.from.is_some() || part.to.is_some();
        let none = Sum::default();
        match measure {
            Measure::Live => {
                let live = usage::live(process, self.point, &part.window, &self.filter, self.by);
                Ok((live, none))
            }
            Measure::Peak if windowed => Err(fail(
                "peaks are kept of the whole trace, not of parts of it".to_owned(),
            )),
            Measure::Peak => Ok((usage::peak(process, &self.filter), none)),
            Measure::Total if windowed || !sums_know(self.by) => {
                usage::allocated_in(process, part.from, part.to, &self.filter, self.by)
                    .map(|shares| (shares, none))
                    .map_err(|gone| forgotten("what was allocated", gone.began))
            }
            Measure::Total => Ok((usage::total(process, &self.filter), none)),
            Measure::Growth => {
                let from = part.from.ok_or_else(|| {
                    fail("growth is what has come since a moment; say which with --from".to_owned())
                })?;
                let before = Past::of(process, from)
                    .map_err(|gone| forgotten("what was live", gone.began))?;
                let before = Window {
                    from: None,
                    to: Some(before),
                };
                let after = Window {
                    from: None,
                    ..part.window.clone()
                };
                let live = |window| usage::live(process, self.point, window, &self.filter, self.by);
                Ok(usage::growth(&live(&before), &live(&after)))
            }
        }
    }
}

/// Whether sums by stack know what is to be told apart.
pub fn sums_know(by: By) -> bool {
    crate::analysis::peak::knows(by)
}

/// One stack's share of a measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Which of the processes.
    pub process: usize,
    /// What it stands under, outermost first.
    pub roots: Vec<String>,
    /// The last of these, if `--by` put it there.
    pub told_apart: Option<String>,
    /// What it is told apart by.
    pub key: Key,
    /// Its stack.
    pub stack: Id,
    /// Bytes and allocations.
    pub sum: Sum,
}

/// The samples of all processes of one measure.
#[derive(Default)]
pub struct Samples {
    /// Processes in order; each one's in a fixed order.
    pub all: Vec<Sample>,
    /// Of growth: what other stacks hold less.
    pub less: Sum,
}

/// Samples of several measures, and the names of their frames.
pub struct Gathered {
    /// Each with its measure, in the order they were asked for.
    pub measures: Vec<(Measure, Samples)>,
    /// All their stacks.
    pub stacks: Stacks,
    /// Why measures that were only wished for are missing.
    pub missing: Vec<(Measure, Unanswered)>,
}

impl Gathered {
    /// The samples of a measure, if there are any.
    pub fn of(&self, measure: Measure) -> Option<&Samples> {
        let found = self.measures.iter().find(|(own, _)| *own == measure);
        found.map(|(_, samples)| samples)
    }
}

/// Sums up a measure, and others where that is possible; names all stacks in them.
pub fn gather(
    processes: &[Process],
    selection: &Selection,
    measure: Measure,
    wished: &[Measure],
) -> Result<Gathered, Unanswered> {
    let of_all = |measure: Measure| -> Result<Vec<(Shares, Sum)>, Unanswered> {
        let processes = processes.iter().enumerate();
        processes
            .map(|(id, process)| selection.shares(process, id, measure))
            .collect()
    };
    let mut shares = vec![(measure, of_all(measure)?)];
    let mut missing = Vec::new();
    for &measure in wished {
        match of_all(measure) {
            Ok(found) => shares.push((measure, found)),
            Err(why) => missing.push((measure, why)),
        }
    }
    let places = shares
        .iter()
        .flat_map(|(_, of_processes)| of_processes.iter().enumerate())
        .flat_map(|(id, (shares, _))| shares.iter().map(move |(key, _)| (id, key.stack, key.api)));
    let stacks = Stacks::of(processes, places, selection.wanted());
    let mut measures = Vec::new();
    for (measure, of_processes) in shares {
        let mut samples = Samples::default();
        for (id, (shares, less)) in of_processes.into_iter().enumerate() {
            samples.less.merge(less);
            for (key, sum) in shares {
                let told_apart = told_apart(&processes[id], &key, selection.by);
                let mut roots = roots(processes, id, &key, measure);
                roots.extend(told_apart.clone());
                samples.all.push(Sample {
                    process: id,
                    roots,
                    told_apart,
                    key,
                    stack: stacks.id((id, key.stack, key.api)).unwrap_or_default(),
                    sum,
                });
            }
        }
        measures.push((measure, samples));
    }
    Ok(Gathered {
        measures,
        stacks,
        missing,
    })
}

/// How a process is called where there are several.
pub fn process_name(process: &Process) -> String {
    let name = process.program_name();
    match process.identity.rank {
        Some(rank) => format!("{name} (pid {}, rank {rank})", process.identity.pid),
        None => format!("{name} (pid {})", process.identity.pid),
    }
}

fn roots(processes: &[Process], id: usize, key: &Key, measure: Measure) -> Vec<String> {
    let process = &processes[id];
    let mut roots = Vec::new();
    if processes.len() > 1 {
        roots.push(process_name(process));
    }
    let layer = key.kind.layer();
    let mut place = match key.device {
        _ if layer == Layer::Host => "host memory".to_owned(),
        NO_DEVICE => "no device".to_owned(),
        device => format!("GPU {device}"),
    };
    if measure == Measure::Peak && layer != Layer::Host {
        place = format!("{place}, {} layer", layer.name());
    }
    if key.end == EntryEnd::Corrupted {
        place += ", context corrupted";
    }
    roots.push(place);
    if key.kind == Kind::Pool {
        roots.push("memory pools' reserve".to_owned());
    }
    roots
}

/// What `--by` puts above a stack.
fn told_apart(process: &Process, key: &Key, by: By) -> Option<String> {
    let named = |name: Option<&str>, what: &str, none: &str| match (key.extra, name) {
        (None, _) => format!("{what} not known"),
        (Some(0), _) => none.to_owned(),
        (Some(id), Some(name)) => format!("{name} ({id})"),
        (Some(id), None) => format!("{what} {id}"),
    };
    let id = key.extra.unwrap_or(0);
    Some(match by {
        By::Stack | By::Python | By::Line | By::Library | By::Device => return None,
        By::Thread => named(process.thread(id), "thread", "thread not known"),
        By::Range => match (key.extra, process.ranges.name(id)) {
            (_, Some(name)) => name.to_owned(),
            _ => named(None, "range", "no range"),
        },
        By::Stream => named(None, "stream", "default stream"),
        By::Context => named(None, "context", "context not kept"),
        By::Kind => key.kind.name().to_owned(),
        By::Layer => format!("{} layer", key.kind.layer().name()),
        By::Api => process.api(key.api).unwrap_or("unknown API").to_owned(),
        By::Rank => match process.identity.rank {
            Some(rank) => format!("rank {rank}"),
            None => "no rank".to_owned(),
        },
    })
}
