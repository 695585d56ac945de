//! Moments of a process that can be asked about, and what was live at one.
//!
//! The live table says what is live at the end; the events after a moment say, key by key, what
//! was different then. So an answer needs the events from the moment on, and where the event log
//! has forgotten some of those there is none.

use super::Filter;
use crate::model::Process;
use rustc_hash::{FxHashMap, FxHashSet};
use std::fmt;
use vramtrace_format::record::{Layer, Op, Record};

/// `CUDA_ERROR_OUT_OF_MEMORY` of cuda.h.
const OUT_OF_MEMORY: u64 = 2;

/// A moment, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The last event.
    End,
    /// Just before the process began to go down.
    Teardown,
    /// The largest number of live bytes, on the device where that is most.
    Peak,
    /// The last allocation that failed for lack of memory.
    Oom,
    /// After this event.
    Event(u64),
    /// So many nanoseconds after the trace began.
    Time(u64),
    /// Unix time, nanoseconds.
    Unix(u64),
    /// The last mark with this text, alone or behind the name of its NVTX domain and a colon.
    Mark(String),
}

impl Moment {
    /// Reads what people write: `end`, `teardown`, `peak`, `oom`, an event's number (`1234`), time
    /// since the trace began (`500ms`, `90s`, `1h`), Unix nanoseconds as in JSON (`@…`), or the text
    /// of a mark (`mark:TEXT` where that looks like one of the others).
    pub fn parse(text: &str) -> Result<Moment, String> {
        if let Some(mark) = text.strip_prefix("mark:") {
            return Ok(Moment::Mark(mark.to_owned()));
        }
        if let Some(unix) = text.strip_prefix('@') {
            let number = unix.parse().map(Moment::Unix);
            return number.map_err(|_| "Unix time is written as @NANOSECONDS".to_owned());
        }
        Ok(match text {
            "" => return Err("a moment is missing".to_owned()),
            "end" => Moment::End,
            "teardown" => Moment::Teardown,
            "peak" => Moment::Peak,
            "oom" => Moment::Oom,
            _ => match (text.parse(), duration(text)) {
                (Ok(number), _) => Moment::Event(number),
                (_, Some(ns)) => Moment::Time(ns),
                _ => Moment::Mark(text.to_owned()),
            },
        })
    }

    /// Finds the moment in a process; a sentence if it has none.
    pub fn find(&self, process: &Process, filter: &Filter) -> Result<Found, String> {
        let last = process.trace.copy.seq;
        match self {
            Moment::End => Ok(Found::Event(last)),
            Moment::Teardown => process
                .teardown_seq()
                .map(Found::Event)
                .ok_or_else(|| "it has not begun to go down".to_owned()),
            Moment::Event(seq) if *seq <= last => Ok(Found::Event(*seq)),
            Moment::Event(_) => Err(format!("it has {last} events")),
            Moment::Time(ns) => Ok(Found::Time(*ns)),
            Moment::Unix(ns) => ns
                .checked_sub(process.trace.header().start_unix_ns)
                .map(Found::Time)
                .ok_or_else(|| "that was before it began".to_owned()),
            Moment::Peak => process
                .accounts()
                .filter(|&(device, layer, _)| {
                    layer == Layer::Device && filter.takes_account(device, layer)
                })
                .max_by_key(|(.., account)| account.peak_bytes)
                .map(|(.., account)| Found::Time(account.peak_time))
                .ok_or_else(|| "no GPU memory was allocated".to_owned()),
            Moment::Oom => last_event(process, |event| {
                event.op() == Some(Op::FrameworkOom)
                    || event.op() == Some(Op::AllocFailed) && event.aux == OUT_OF_MEMORY
            })
            .ok_or_else(|| {
                "no allocation failed for lack of memory, as far as its event log reaches"
                    .to_owned()
            }),
            Moment::Mark(text) => last_event(process, |event| {
                event.op() == Some(Op::Mark) && is_called(process, event.aux as u32, text)
            })
            .ok_or_else(|| {
                format!("there is no mark `{text}` in it, as far as its event log reaches")
            }),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::End => f.write_str("end"),
            Moment::Teardown => f.write_str("teardown"),
            Moment::Peak => f.write_str("peak"),
            Moment::Oom => f.write_str("oom"),
            Moment::Event(seq) => write!(f, "event {seq}"),
            Moment::Time(ns) => write!(f, "{} s", *ns as f64 / 1e9),
            Moment::Unix(ns) => write!(f, "@{ns}"),
            Moment::Mark(text) => write!(f, "mark {text}"),
        }
    }
}

/// A moment of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Right after this event.
    Event(u64),
    /// This event time, nanoseconds since the trace began.
    Time(u64),
}

impl Found {
    /// The event time, nanoseconds since the trace began; `None` if the event log has forgotten it.
    pub fn time(self, process: &Process) -> Option<u64> {
        match self {
            Found::Time(time) => Some(time),
            Found::Event(0) => Some(0),
            Found::Event(seq) if seq == process.trace.copy.seq => Some(process.duration_ns()),
            Found::Event(seq) => process
                .events()
                .find(|event| event.seq == seq)
                .map(|event| event.time),
        }
    }

    /// Whether an event is later. A free that failed brings its entry back under a later number,
    /// with the time of old.
    pub fn is_before(self, event: &Record) -> bool {
        match self {
            Found::Event(seq) => event.seq > seq,
            Found::Time(time) => event.time > time,
        }
    }
}

/// Whether a mark has this text, or this domain and text (`library: text`).
fn is_called(process: &Process, mark: u32, text: &str) -> bool {
    let Some(own) = process.mark(mark) else {
        return false;
    };
    let with_domain = || {
        let rest = text.strip_prefix(process.mark_domain(mark)?)?;
        rest.strip_prefix(": ")
    };
    own == text || with_domain() == Some(own)
}

fn last_event(process: &Process, wanted: impl Fn(&Record) -> bool) -> Option<Found> {
    let found = process.events().filter(wanted).last();
    found.map(|event| Found::Event(event.seq))
}

/// The event log does not reach back to a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// Where it begins to be whole, nanoseconds since the trace began.
    pub began: u64,
}

/// What was live at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Last event before it.
    pub seq: u64,
    /// Its event time.
    pub time: u64,
    /// Live entries, in no particular order.
    pub live: Vec<Record>,
    /// Entries of which only what their frees repeat is known: made before the event log begins,
    /// by an unknown thread.
    pub undated: u64,
    /// Where the event log begins to be whole, event time: the time that undated entries have.
    pub began: u64,
}

impl Past {
    /// Goes back from the end.
    pub fn of(process: &Process, moment: Found) -> Result<Past, Forgotten> {
        let last = process.trace.copy.seq;
        let mut before = 0;
        let mut after = 0u64;
        let mut previous = 0;
        let mut gap = false;
        let mut began = 0;
        // Whether there is an answer is known only at the end, and what it is made of is large.
        for event in process.events() {
            // The two layers' logs reach back differently far; before the last gap, one is missing.
            gap |= event.seq != u64::wrapping_add(previous, 1);
            previous = event.seq;
            if gap && event.op != Op::Restore as u8 {
                began = event.time;
                gap = false;
            }
            // In their order, not by their times: an entry that is back has its time of old.
            if after == 0 && !moment.is_before(&event) {
                before = event.seq;
                continue;
            }
            after += 1;
        }
        if let Found::Event(seq) = moment {
            before = seq;
        }
        if before.checked_add(after) != Some(last) {
            return Err(Forgotten { began });
        }
        // The first thing that happens to a key says what it was.
        let mut touched: FxHashSet<(u8, u64)> = FxHashSet::default();
        let mut live = Vec::new();
        let mut at_moment = true;
        for event in process.events() {
            at_moment = at_moment && !moment.is_before(&event);
            let (Some(op), Some(_)) = (event.op(), event.kind()) else {
                continue;
            };
            let touches = op.begins_allocation() || op.ends_allocation() || op == Op::Resize;
            if touches && !at_moment && touched.insert((event.space, event.key)) {
                live.extend(was(op, &event));
            }
        }
        let untouched = process
            .live()
            .filter(|entry| !touched.contains(&(entry.space, entry.key)));
        live.extend(untouched.copied());
        let undated = date(process, &mut live, began);
        Ok(Past {
            seq: before,
            time: moment.time(process).unwrap_or(began),
            live,
            undated,
            began,
        })
    }
}

/// The entry that an event changes, as it was before; `None` if there was none. `op` says what is
/// left for [`date`] to find out.
fn was(op: Op, event: &Record) -> Option<Record> {
    match op {
        Op::Alloc => None,
        // Its free, which failed, was before: it was never gone.
        Op::Restore => Some(*event),
        Op::Resize => Some(Record {
            op: Op::Resize as u8,
            seq: 0,
            time: 0,
            size: event.aux,
            aux: 0,
            ..*event
        }),
        _ => Some(Record {
            op: Op::Free as u8,
            seq: event.ended_seq(),
            api: event.allocating_api(),
            ..*event
        }),
    }
}

/// Finds the own events of entries that only later events tell of. Returns how many stay unknown.
fn date(process: &Process, live: &mut [Record], began: u64) -> u64 {
    let of_free = |entry: &Record| entry.op == Op::Free as u8;
    let wanted: FxHashSet<u64> = live.iter().filter(|e| of_free(e)).map(|e| e.seq).collect();
    let mut own: FxHashMap<u64, Record> = FxHashMap::default();
    if !wanted.is_empty() {
        let events = process.events().filter(|event| wanted.contains(&event.seq));
        own.extend(events.map(|event| (event.seq, event)));
    }
    let mut undated = 0;
    for entry in live {
        if entry.op == Op::Resize as u8 {
            entry.op = Op::Alloc as u8;
        } else if of_free(entry) {
            match own.get(&entry.seq) {
                Some(event) => {
                    let size = entry.size;
                    *entry = Record { size, ..*event };
                }
                None => {
                    undated += 1;
                    *entry = Record {
                        op: Op::Alloc as u8,
                        time: began,
                        aux: 0,
                        thread: 0,
                        stream: 0,
                        ..*entry
                    };
                }
            }
        }
    }
    undated
}

/// `500ms`, `1.5s`, `90s`, `2m`, `1h`: nanoseconds.
pub fn duration(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3600e9,
        "d" => 86_400e9,
        _ => return None,
    };
    let ns = number.parse::<f64>().ok()? * scale;
    (ns.is_finite() && ns < u64::MAX as f64).then_some(ns.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::Moment;

    #[test]
    fn moments_as_people_write_them() {
        for (text, moment) in [
            ("end", Moment::End),
            ("peak", Moment::Peak),
            ("12", Moment::Event(12)),
            ("1.5s", Moment::Time(1_500_000_000)),
            ("250us", Moment::Time(250_000)),
            ("2m", Moment::Time(120_000_000_000)),
            (
                "@1767225600000000000",
                Moment::Unix(1_767_225_600_000_000_000),
            ),
            ("epoch 3", Moment::Mark("epoch 3".into())),
            ("3 epochs", Moment::Mark("3 epochs".into())),
            ("mark:12", Moment::Mark("12".into())),
        ] {
            assert_eq!(Moment::parse(text), Ok(moment), "{text}");
        }
        assert!(Moment::parse("").is_err() && Moment::parse("@noon").is_err());
    }
}
