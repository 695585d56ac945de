//! A sample as OpenMetrics. Names and labels are a contract: docs/monitoring.md lists them.
//!
//! A process whose trace cannot be read has `vramtrace_process_up` 0 and nothing else; one that has
//! ended keeps its counters for a while, but no gauge: the memory is not there any more.

use super::labels::{self, Labels, Names, OfAccount, clean, who};
use crate::live::{Allocator, Device, ProcessSample, Sample};
use crate::model::State;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// What OpenMetrics is served as.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What the older text format is served as.
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The exposition of a sample, in OpenMetrics, with its `# EOF`.
///
/// Half an exposition would look like processes that are gone, so there is all of it or an error.
pub fn openmetrics(sample: &Arc<Sample>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition(Arc::clone(sample))));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// The same in Prometheus's older text format, for who does not know the other one.
pub fn text_format(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut counters: HashSet<&str> = HashSet::new();
    // The type follows the help, and decides what the family is called here.
    for line in openmetrics.lines() {
        let mut words = line.splitn(4, ' ');
        if let (Some("#"), Some("TYPE"), Some(name), Some("counter")) =
            (words.next(), words.next(), words.next(), words.next())
        {
            counters.insert(name);
        }
    }
    for line in openmetrics.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "EOF"] | ["#", "UNIT", ..] => continue,
            ["#", what @ ("HELP" | "TYPE"), name, rest] => {
                let (suffix, rest) = match (what, rest) {
                    _ if counters.contains(name) => ("_total", rest),
                    ("TYPE", "info") => ("_info", "gauge"),
                    ("HELP", rest) if is_info(name) => ("_info", rest),
                    _ => ("", rest),
                };
                text.push_str(&format!("# {what} {name}{suffix} {rest}\n"));
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

/// Families of facts.
const INFOS: [&str; 3] = ["vramtrace_build", "vramtrace_process", "vramtrace_device"];

fn is_info(name: &str) -> bool {
    INFOS.contains(&name)
}

#[derive(Debug)]
struct Exposition(Arc<Sample>);

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let (names, hasher) = (Names::default(), RandomState::new());
        Writer { encoder, hasher }.all(&self.0, &names)
    }
}

/// Writes families. A row that was written already is left out, whatever a damaged trace says: the same
/// labels twice are no exposition.
struct Writer<'e> {
    encoder: DescriptorEncoder<'e>,
    /// Its numbers stand for labels that were told. No trace can foresee them and hide another's row.
    hasher: RandomState,
}

/// The value of a gauge. The library refuses what does not fit into an i64, which a damaged trace may
/// say; it is then the largest that does.
enum Number {
    Whole(i64),
    Real(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Number {
        Number::Whole(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Number {
        Number::Whole(value)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Number {
        Number::Real(value)
    }
}

impl Writer<'_> {
    fn gauge<V: Into<Number>>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        rows: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result {
        let mut family =
            self.encoder
                .encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        let mut told = HashSet::new();
        for (labels, value) in rows {
            if told.insert(self.hasher.hash_one(&labels)) {
                let mut row = family.encode_family(&labels)?;
                match value.into() {
                    Number::Whole(value) => row.encode_gauge(&value)?,
                    Number::Real(value) => row.encode_gauge(&value)?,
                }
            }
        }
        Ok(())
    }

    fn counter<V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        rows: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result {
        let mut family =
            self.encoder
                .encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        let mut told = HashSet::new();
        for (labels, value) in rows {
            if told.insert(self.hasher.hash_one(&labels)) {
                family
                    .encode_family(&labels)?
                    .encode_counter::<Labels, V, f64>(&value, None)?;
            }
        }
        Ok(())
    }

    fn info(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = Labels>,
    ) -> fmt::Result {
        let mut family = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Info)?;
        let mut told = HashSet::new();
        for labels in rows {
            if told.insert(self.hasher.hash_one(&labels)) {
                family.encode_info(&labels)?;
            }
        }
        Ok(())
    }

    fn all(mut self, sample: &Sample, names: &Names) -> fmt::Result {
        self.itself(sample)?;
        self.identities(sample, names)?;
        self.layers(sample, names)?;
        self.kinds(sample, names)?;
        self.allocators(sample, names)?;
        self.largest_free(sample, names)?;
        self.sites(sample, names)?;
        self.losses(sample, names)?;
        self.devices(sample, names)
    }

    fn itself(&mut self, sample: &Sample) -> fmt::Result {
        let version = vec![("version", env!("CARGO_PKG_VERSION").into())];
        self.info("vramtrace_build", "This exporter", [version])?;
        let up = u64::from(sample.directory_error.is_none());
        self.gauge(
            "vramtrace_directory_up",
            "Whether the directory of traces could be read",
            None,
            [(vec![], up)],
        )?;
        let states = [
            ("followed", sample.processes.len() as u64),
            ("ended", sample.ended),
            ("quiet", sample.quiet),
            ("unreadable", sample.unreadable),
            ("omitted", sample.omitted_processes),
            ("not_listed", sample.omitted_entries),
        ];
        self.gauge(
            "vramtrace_traces",
            "Trace files in the directory, by what became of them",
            None,
            states.map(|(state, count)| (vec![("state", state.into())], count)),
        )?;
        self.counter(
            "vramtrace_read_errors",
            "Reads of traces, or of the directory, that failed",
            None,
            [(vec![], sample.read_errors)],
        )?;
        self.gauge(
            "vramtrace_sample_duration",
            "Time that reading all traces took",
            Some(Unit::Seconds),
            [(vec![], sample.took.as_secs_f64())],
        )?;
        let nvml = u64::from(sample.nvml_error.is_none() && !sample.devices.is_empty());
        self.gauge(
            "vramtrace_nvml_up",
            "Whether NVML (what nvidia-smi shows) answered for a device in use",
            None,
            [(vec![], nvml)],
        )
    }

    fn identities(&mut self, sample: &Sample, names: &Names) -> fmt::Result {
        let failed = sample.failed.iter().map(|failed| {
            let identity = failed.identity.clone();
            (who(&failed.trace, identity.as_ref()), 0u64)
        });
        let up = sample.processes.iter().map(|one| (names.of(one), 1u64));
        self.gauge(
            "vramtrace_process_up",
            "Whether the trace of a process could be read; where not, nothing else is said of it",
            None,
            up.chain(failed),
        )?;
        let infos = sample.processes.iter().map(|one| {
            let mut labels = names.of(one);
            let who = &one.identity;
            labels.extend([
                ("host", clean(&who.host)),
                ("path", clean(&who.program)),
                ("recorder", clean(&who.recorder)),
                ("driver", clean(&who.driver)),
                ("python", clean(&who.python)),
            ]);
            labels.retain(|(_, value)| !value.is_empty());
            labels
        });
        self.info("vramtrace_process", "Who a process is", infos)?;
        let known = |one: &&ProcessSample| one.state != State::Unknown;
        let running = sample.processes.iter().filter(known);
        self.gauge(
            "vramtrace_process_running",
            "1 runs, 0 has ended; absent where that cannot be seen from here",
            None,
            running.map(|one| (names.of(one), u64::from(one.state == State::Running))),
        )?;
        let seconds = |ns: u64| ns as f64 / 1e9;
        let all = || sample.processes.iter();
        self.gauge(
            "vramtrace_process_start_time",
            "When its trace began, Unix time",
            Some(Unit::Seconds),
            all().map(|one| (names.of(one), seconds(one.identity.start_unix_ns))),
        )?;
        self.gauge(
            "vramtrace_process_last_event_time",
            "When its last event was recorded, Unix time",
            Some(Unit::Seconds),
            all().map(|one| (names.of(one), seconds(one.last_event_unix_ns))),
        )?;
        self.gauge(
            "vramtrace_process_interrupted",
            "Whether it stands in the middle of an event, killed or stopped there: sums may be one event apart",
            None,
            all().map(|one| (names.of(one), u64::from(one.interrupted))),
        )?;
        self.counter(
            "vramtrace_events",
            "Events recorded",
            None,
            all().map(|one| (names.of(one), one.seq)),
        )
    }

    fn layers(&mut self, sample: &Sample, names: &Names) -> fmt::Result {
        let there = || rows(sample).filter(|(process, _)| is_there(process));
        let all = || rows(sample);
        let bytes = || Some(Unit::Bytes);
        self.gauge(
            "vramtrace_live",
            "Bytes that are allocated; layers lie in each other and are not to be added up",
            bytes(),
            there().map(|row| (names.layer(row), row.1.live_bytes)),
        )?;
        self.gauge(
            "vramtrace_live_allocations",
            "Allocations that are live",
            None,
            there().map(|row| (names.layer(row), row.1.live_count)),
        )?;
        self.gauge(
            "vramtrace_peak",
            "Most bytes that were live at once since the process began",
            bytes(),
            all().map(|row| (names.layer(row), row.1.peak_bytes)),
        )?;
        self.counter(
            "vramtrace_allocated",
            "Bytes ever allocated",
            bytes(),
            all().map(|row| (names.layer(row), row.1.allocated_bytes)),
        )?;
        self.counter(
            "vramtrace_allocations",
            "Allocations ever made",
            None,
            all().map(|row| (names.layer(row), row.1.allocated_count)),
        )?;
        self.counter(
            "vramtrace_freed",
            "Bytes freed",
            bytes(),
            all().map(|row| (names.layer(row), row.1.freed_bytes)),
        )?;
        self.counter(
            "vramtrace_frees",
            "Allocations freed",
            None,
            all().map(|row| (names.layer(row), row.1.freed_count)),
        )?;
        self.counter(
            "vramtrace_ended",
            "Bytes that went with their context or by a reset of the device",
            bytes(),
            all().map(|row| (names.layer(row), row.1.ended_bytes)),
        )?;
        self.counter(
            "vramtrace_allocation_failures",
            "Allocations that failed",
            None,
            all().map(|row| (names.layer(row), row.1.failed_count)),
        )?;
        self.counter(
            "vramtrace_unmatched_frees",
            "Frees of something that was not live",
            None,
            all().map(|row| (names.layer(row), row.1.unmatched_count)),
        )
    }

    fn kinds(&mut self, sample: &Sample, names: &Names) -> fmt::Result {
        let all = || {
            sample.processes.iter().flat_map(|process| {
                process.kinds.iter().map(move |kind| {
                    let mut labels = names.on(process, kind.device);
                    labels.extend(labels::kind(kind.kind));
                    (process, labels, kind)
                })
            })
        };
        let there = || all().filter(|(process, ..)| is_there(process));
        let bytes = || Some(Unit::Bytes);
        self.gauge(
            "vramtrace_kind_live",
            "Bytes that are allocated, by kind of memory",
            bytes(),
            there().map(|(_, labels, kind)| (labels, kind.live_bytes)),
        )?;
        self.gauge(
            "vramtrace_kind_live_allocations",
            "Allocations that are live, by kind of memory",
            None,
            there().map(|(_, labels, kind)| (labels, kind.live_count)),
        )?;
        self.gauge(
            "vramtrace_kind_at_peak",
            "Bytes held when the layer was at its peak, by kind of memory",
            bytes(),
            all().map(|(_, labels, kind)| (labels, kind.peak_bytes)),
        )?;
        self.counter(
            "vramtrace_kind_allocated",
            "Bytes ever allocated, by kind of memory",
            bytes(),
            all().map(|(_, labels, kind)| (labels, kind.allocated_bytes)),
        )?;
        self.counter(
            "vramtrace_kind_allocations",
            "Allocations ever made, by kind of memory",
            None,
            all().map(|(_, labels, kind)| (labels, kind.allocated_count)),
        )?;
        self.counter(
            "vramtrace_kind_freed",
            "Bytes freed, by kind of memory; not of pools, whose size is a gauge",
            bytes(),
            all().filter_map(|(_, labels, kind)| Some((labels, kind.freed_bytes?))),
        )
    }

    fn allocators(&mut self, sample: &Sample, names: &Names) -> fmt::Result {
        let all = || {
            let there = sample.processes.iter().filter(|process| is_there(process));
            there.flat_map(|process| {
                process.allocators.iter().map(move |one| {
                    let mut labels = names.on(process, Some(one.device));
                    labels.push(("allocator", one.allocator.name().into()));
                    (labels, one)
                })
            })
        };
        self.gauge(
            "vramtrace_allocator_reserved",
            "Bytes that an allocator has from the driver",
            Some(Unit::Bytes),
            all().map(|(labels, one)| (labels, one.reserved_bytes)),
        )?;
        self.gauge(
            "vramtrace_allocator_used",
            "Bytes of it that are handed out",
            Some(Unit::Bytes),
            all().map(|(labels, one)| (labels, one.used_bytes)),
        )?;
        self.gauge(
            "vramtrace_allocator_unused_ratio",
            "Part of the reserved bytes that is not handed out: cache and fragmentation, 0 to 1",
            None,
            all().filter_map(|(labels, one)| Some((labels, one.unused_ratio()?))),
        )
    }

    fn largest_free(&mut self, sample: &Sample, names: &Names) -> fmt::Result {
        let there = sample.processes.iter().filter(|process| is_there(process));
        let rows = there.flat_map(|process| {
            process.largest_free.iter().map(move |largest| {
                let mut labels = names.on(process, Some(largest.device));
                labels.push(("allocator", Allocator::Torch.name().into()));
                (labels, largest.bytes)
            })
        });
        self.gauge(
            "vramtrace_allocator_largest_free",
            "Largest piece that an allocator has and does not hand out, as of a minute ago or so",
            Some(Unit::Bytes),
            rows,
        )
    }

    fn sites(&mut self, sample: &Sample, names: &Names) -> fmt::Result {
        let there = || sample.processes.iter().filter(|process| is_there(process));
        let sites = || {
            there().flat_map(|process| {
                process.sites.iter().map(move |site| {
                    let mut labels = names.on(process, site.device);
                    labels.extend(labels::kind(site.kind));
                    labels.push(("site", clean(&site.site)));
                    (labels, site)
                })
            })
        };
        let other = || {
            there().flat_map(|process| {
                process.other.iter().map(move |other| {
                    let mut labels = names.on(process, other.device);
                    labels.push(("layer", other.layer.name().into()));
                    labels.push(("kind", "any".into()));
                    labels.push(("site", "other".into()));
                    (labels, other)
                })
            })
        };
        let bytes = sites().map(|(labels, site)| (labels, site.live_bytes));
        self.gauge(
            "vramtrace_site_live",
            "Bytes that are allocated, by the largest call sites; other is the rest of the layer",
            Some(Unit::Bytes),
            bytes.chain(other().map(|(labels, other)| (labels, other.live_bytes))),
        )?;
        let counts = sites().map(|(labels, site)| (labels, site.live_count));
        self.gauge(
            "vramtrace_site_live_allocations",
            "Allocations that are live, by the largest call sites",
            None,
            counts.chain(other().map(|(labels, other)| (labels, other.live_count))),
        )?;
        self.counter(
            "vramtrace_site_allocated",
            "Bytes ever allocated, by the call sites that hold most now",
            Some(Unit::Bytes),
            sites().map(|(labels, site)| (labels, site.allocated_bytes)),
        )
    }

    fn losses(&mut self, sample: &Sample, names: &Names) -> fmt::Result {
        let all = || sample.processes.iter();
        let events = all().flat_map(|one| {
            ["device", "framework"]
                .into_iter()
                .zip(one.losses.events)
                .map(move |(lane, count)| {
                    let mut labels = names.of(one);
                    labels.push(("layer", lane.into()));
                    (labels, count)
                })
        });
        self.counter(
            "vramtrace_lost_events",
            "Events that were never recorded; sums of the process are not exact then",
            None,
            events,
        )?;
        for (name, help, value) in [
            (
                "vramtrace_dropped_allocations",
                "Allocations that found no room in the live table",
                (|one| one.losses.dropped_count) as fn(&ProcessSample) -> u64,
            ),
            (
                "vramtrace_lost_stacks",
                "Allocations whose call stack was not kept",
                |one| one.losses.stacks,
            ),
            (
                "vramtrace_unrecorded_calls",
                "Calls that came while the recorder could not record",
                |one| one.losses.calls,
            ),
            (
                "vramtrace_recorder_panics",
                "Panics caught in the recorder: please report them",
                |one| one.losses.panics,
            ),
            (
                "vramtrace_bypassed_entry_points",
                "Functions that look like memory and were handed out unrecorded",
                |one| one.losses.bypassed,
            ),
        ] {
            self.counter(
                name,
                help,
                None,
                all().map(|one| (names.of(one), value(one))),
            )?;
        }
        let inexact = |one: &ProcessSample| u64::from(!one.losses.is_inexact());
        self.gauge(
            "vramtrace_process_exact",
            "Whether nothing is known to be missing from its sums",
            None,
            all().map(|one| (names.of(one), inexact(one))),
        )?;
        let overhead = || all().filter_map(|one| Some((names.of(one), one.overhead?)));
        self.counter(
            "vramtrace_overhead_stacks",
            "Processor time that taking call stacks took, where it is measured",
            Some(Unit::Seconds),
            overhead().map(|(of, cost)| (of, cost.stacks_seconds)),
        )?;
        self.counter(
            "vramtrace_overhead_events",
            "Processor time that recording took but for call stacks, by the events that were measured",
            Some(Unit::Seconds),
            overhead().filter_map(|(of, cost)| Some((of, cost.events_seconds?))),
        )?;
        self.gauge(
            "vramtrace_sampling_interval",
            "Call stacks are taken of one allocation in about so many; 0 of all",
            Some(Unit::Bytes),
            overhead().filter_map(|(of, cost)| Some((of, cost.interval?))),
        )?;
        self.counter(
            "vramtrace_stacks_not_sampled",
            "Allocations whose call stack was not taken because they were not sampled",
            None,
            overhead().map(|(of, cost)| (of, cost.not_sampled)),
        )
    }

    fn devices(&mut self, sample: &Sample, names: &Names) -> fmt::Result {
        let known = || {
            let there = sample.processes.iter().filter(|process| is_there(process));
            there.flat_map(|process| process.devices.iter().map(move |device| (process, device)))
        };
        let infos = known().map(|(process, device)| {
            let mut labels = names.on(process, Some(device.ordinal));
            labels.extend([
                ("ordinal", device.ordinal.to_string().into()),
                ("pci", clean(&device.pci)),
                ("model_name", clean(&device.name)),
            ]);
            labels.retain(|(_, value)| !value.is_empty());
            labels
        });
        self.info(
            "vramtrace_device",
            "What device of a process is which",
            infos,
        )?;
        let shown =
            || known().filter_map(|(process, device)| Some((process, device, device.shown?)));
        let label = |process, device: &Device| names.on(process, Some(device.ordinal));
        self.gauge(
            "vramtrace_process_nvml",
            "What nvidia-smi shows for the process on the device",
            Some(Unit::Bytes),
            shown().map(|(process, device, shown)| (label(process, device), shown.process_bytes)),
        )?;
        self.gauge(
            "vramtrace_process_driver_own",
            "What the driver is known to hold for the process itself: contexts, code, limits, streams",
            Some(Unit::Bytes),
            shown().filter_map(|(process, device, shown)| {
                Some((label(process, device), shown.own_bytes?))
            }),
        )?;
        self.gauge(
            "vramtrace_process_unexplained",
            "What nvidia-smi shows less what was allocated and what is known to be the driver's",
            Some(Unit::Bytes),
            shown()
                .map(|(process, device, shown)| (label(process, device), shown.unexplained_bytes)),
        )?;
        self.device_memory(sample)
    }

    /// Each device once, however many processes use it.
    fn device_memory(&mut self, sample: &Sample) -> fmt::Result {
        let mut totals: Vec<(Labels, u64)> = Vec::new();
        let mut seen: HashSet<String> = HashSet::new();
        for state in &sample.devices {
            seen.insert(state.uuid.clone());
            totals.push((labels::device(state.number, &state.uuid), state.total_bytes));
        }
        let used = sample.devices.iter();
        let used = used.map(|state| (labels::device(state.number, &state.uuid), state.used_bytes));
        let used: Vec<(Labels, u64)> = used.collect();
        // Without NVML, what traces say of their devices.
        for process in sample.processes.iter().filter(|process| is_there(process)) {
            for one in &process.devices {
                let number = one.number.unwrap_or(one.ordinal.into());
                if one.total_bytes > 0 && !one.uuid.is_empty() && seen.insert(one.uuid.clone()) {
                    totals.push((labels::device(Some(number), &one.uuid), one.total_bytes));
                }
            }
        }
        self.gauge(
            "vramtrace_device_memory_total",
            "Bytes of memory that a device has",
            Some(Unit::Bytes),
            totals,
        )?;
        self.gauge(
            "vramtrace_device_memory_used",
            "Bytes in use on a device, by whomever, as NVML says",
            Some(Unit::Bytes),
            used,
        )
    }
}

fn rows(sample: &Sample) -> impl Iterator<Item = OfAccount<'_>> {
    let rows = |process| -> Box<dyn Iterator<Item = OfAccount<'_>>> {
        let process: &ProcessSample = process;
        Box::new(
            process
                .accounts
                .iter()
                .map(move |account| (process, account)),
        )
    };
    sample.processes.iter().flat_map(rows)
}

/// Whether its memory is there: of one that has ended it is not.
fn is_there(process: &ProcessSample) -> bool {
    matches!(process.state, State::Running | State::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_there_is_said_and_ends_as_it_must() {
        let sample = Arc::new(Sample {
            directory_error: Some("gone".to_owned()),
            ..Sample::default()
        });
        let text = openmetrics(&sample).unwrap();
        assert!(text.ends_with("\n# EOF\n"));
        assert!(text.contains("\nvramtrace_directory_up{} 0\n"));
        assert!(!text.contains("\nvramtrace_live_bytes{"));
        let older = text_format(&text);
        assert!(!older.contains("EOF") && !older.contains("# UNIT"));
        assert!(older.contains("# TYPE vramtrace_read_errors_total counter\n"));
        assert!(older.contains("# TYPE vramtrace_build_info gauge\n"));
        assert!(older.contains("# HELP vramtrace_build_info "));
    }
}
