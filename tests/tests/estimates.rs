//! Do sampled stacks say how much every stack holds? The recorder's own sampler decides in simulated runs
//! which stacks are taken, the reader's own estimators say what that stands for, and the truth is known.
//! In between are real traces, written through the format.

use bytemuck::cast_slice_mut;
use std::collections::BTreeMap;
use vramtrace_format::apply::Tables;
use vramtrace_format::curves::Curves;
use vramtrace_format::history::History;
use vramtrace_format::layout::{Control, Header, Layout};
use vramtrace_format::live::{LiveIndex, LiveTable};
use vramtrace_format::record::{Kind, Op, Record, Space};
use vramtrace_format::ring::Ring;
use vramtrace_format::sampling::{Sampling, interval, step_of};
use vramtrace_format::stacks::{Frame, Interned, NOT_SAMPLED, StackTable};
use vramtrace_format::totals::{Totals, TotalsIndex, TotalsTable};
use vramtrace_reader::analysis::Filter;
use vramtrace_reader::analysis::Sum;
use vramtrace_reader::analysis::diff::{Diff, Side};
use vramtrace_reader::analysis::estimate::{Value, Weighted};
use vramtrace_reader::analysis::leaks::{Answer, By, Group, Options};
use vramtrace_reader::analysis::peak::peaks;
use vramtrace_reader::analysis::summary::summary;
use vramtrace_reader::analysis::usage;
use vramtrace_reader::model::{Process, Unhidden};
use vramtrace_reader::report::frames::Frames;
use vramtrace_reader::trace::Trace;
use vramtrace_recorder::sampling::Sampler;
use vramtrace_tests::full;

/// Call sites of the simulated program: sizes, how many allocations a run, how many of these stay.
const SITES: [Site; 10] = [
    // Small ones of one size.
    Site {
        sizes: &[512],
        made: 3000,
        stay: 3000,
    },
    // Mixed ones.
    Site {
        sizes: &[700, 3000, 9000, 30_000],
        made: 900,
        stay: 900,
    },
    // Some as large as the finer interval, some larger than both: those are always taken.
    Site {
        sizes: &[4000, 16 << 10, 100 << 10],
        made: 300,
        stay: 300,
    },
    // All taken.
    Site {
        sizes: &[4 << 20],
        made: 5,
        stay: 5,
    },
    // Mostly freed again.
    Site {
        sizes: &[2048],
        made: 4000,
        stay: 1000,
    },
    // Close to the interval.
    Site {
        sizes: &[12 << 10, 15 << 10],
        made: 200,
        stay: 200,
    },
    // From small to large, of which few of the smallest are taken that are a quarter of all.
    Site {
        sizes: &[128, 1024, 8192, 16_000],
        made: 4000,
        stay: 4000,
    },
    // Hardly any of the many small ones that lie between few large ones.
    Site {
        sizes: &[256, 256, 256, 256, 256, 256, 256, 256, 40_000, 40_000],
        made: 1500,
        stay: 1500,
    },
    // Few samples at all.
    Site {
        sizes: &[512, 2048],
        made: 300,
        stay: 300,
    },
    // Four samples.
    Site {
        sizes: &[512],
        made: 200,
        stay: 200,
    },
];

/// The intervals that come after each other in a run.
const INTERVALS: [u64; 2] = [16 << 10, 48 << 10];

struct Site {
    sizes: &'static [u64],
    made: usize,
    stay: usize,
}

/// One allocation of a run.
#[derive(Clone, Copy)]
struct Made {
    site: usize,
    size: u64,
    stays: bool,
}

/// What every run allocates, in its order: sites take turns.
fn program() -> Vec<Made> {
    let mut order: Vec<(f64, Made)> = Vec::new();
    for (site, of) in SITES.iter().enumerate() {
        for n in 0..of.made {
            let stays = n * of.stay / of.made != (n + 1) * of.stay / of.made;
            let made = Made {
                site,
                size: of.sizes[n % of.sizes.len()],
                stays,
            };
            order.push(((n as f64 + 0.5) / of.made as f64, made));
        }
    }
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    order.into_iter().map(|(_, made)| made).collect()
}

/// The step in force at the n-th of so many allocations, and whether this one is taken.
fn sample(sampler: &Sampler, n: usize, of: usize, size: u64) -> (u8, bool) {
    let step = step_of(INTERVALS[n * INTERVALS.len() / of]);
    (step, sampler.takes(size, step))
}

/// How estimates compare with the truth, over many runs.
#[derive(Default)]
struct Comparison {
    truth: f64,
    sum: f64,
    squares: f64,
    runs: u32,
    covered: u32,
}

impl Comparison {
    fn add(&mut self, truth: u64, value: Value) {
        assert!(value.low <= value.estimate && value.estimate <= value.high);
        self.truth = truth as f64;
        self.sum += value.estimate as f64;
        self.squares += (value.estimate as f64).powi(2);
        self.runs += 1;
        self.covered += u32::from((value.low..=value.high).contains(&truth));
    }

    /// Relative error of the mean.
    fn bias(&self) -> f64 {
        self.sum / f64::from(self.runs) / self.truth - 1.0
    }

    /// How far that is off by chance: its standard deviation.
    fn chance(&self) -> f64 {
        let runs = f64::from(self.runs);
        let mean = self.sum / runs;
        ((self.squares / runs - mean * mean).max(0.0) / runs).sqrt() / self.truth
    }

    fn coverage(&self) -> f64 {
        f64::from(self.covered) / f64::from(self.runs)
    }
}

/// Over 1,000 runs every site's mean estimate is the truth, and the intervals hold it in 93 to 97 % of the runs, those
/// of bytes as those of the number of allocations; all but for chance, which is less in the 10,000 of the full form.
#[test]
fn the_mean_is_the_truth_and_intervals_hold_it() {
    let program = program();
    let runs = if full() { 10_000 } else { 1_000 };
    let mut bytes: Vec<Comparison> = SITES.iter().map(|_| Comparison::default()).collect();
    let mut count: Vec<Comparison> = SITES.iter().map(|_| Comparison::default()).collect();
    let mut truth = [Sum::default(); SITES.len()];
    for made in program.iter().filter(|made| made.stays) {
        truth[made.site].add(made.size, 1);
    }
    for run in 0..runs {
        let sampler = Sampler::seeded(0x5eed_0000 + 7919 * run);
        let mut known = [Sum::default(); SITES.len()];
        let mut weighted = [Weighted::default(); SITES.len()];
        for (n, made) in program.iter().enumerate() {
            let (step, taken) = sample(&sampler, n, program.len(), made.size);
            if taken && made.stays {
                known[made.site].add(made.size, 1);
                weighted[made.site].merge(Weighted::of(&Record {
                    size: made.size,
                    sampled: if made.size < interval(step) { step } else { 0 },
                    ..Record::default()
                }));
            }
        }
        for site in 0..SITES.len() {
            let exact = |number| Value {
                estimate: number,
                low: number,
                high: number,
            };
            let (of_bytes, of_count) = match weighted[site].estimate(known[site]) {
                Some(estimate) => (
                    estimate.bytes,
                    estimate.count.expect("counts are estimated"),
                ),
                None => (exact(known[site].bytes), exact(known[site].count)),
            };
            bytes[site].add(truth[site].bytes, of_bytes);
            count[site].add(truth[site].count, of_count);
        }
    }
    for (what, all) in [("bytes", bytes), ("allocations", count)] {
        let (mut covered, mut of) = (0, 0);
        for (site, compared) in all.iter().enumerate() {
            let (bias, coverage) = (compared.bias(), compared.coverage());
            println!(
                "{what} of site {site}: bias {:+.3} %, held {:.1} %",
                bias * 100.0,
                coverage * 100.0
            );
            let room = 0.01f64.max(3.5 * compared.chance());
            assert!(bias.abs() < room, "{what} of site {site}: bias {bias}");
            if site == 3 {
                assert!(
                    compared.coverage() >= 1.0 && bias == 0.0,
                    "all of it is known"
                );
                continue;
            }
            // Of which two standard deviations are the simulation's own chance.
            let chance = 2.0 * (0.95 * 0.05 / f64::from(compared.runs)).sqrt();
            assert!(
                (0.93 - chance..=0.97 + chance).contains(&coverage),
                "{what} of site {site}: {coverage}"
            );
            covered += compared.covered;
            of += compared.runs;
        }
        println!(
            "{what}: held {:.2} %",
            f64::from(covered) / f64::from(of) * 100.0
        );
    }
}

/// A trace of one run, as a recorder writes it.
fn trace(program: &[Made], seed: u64) -> Vec<u8> {
    let layout = Layout::for_size(8 << 20);
    let mut words = vec![0u64; layout.file_size as usize / 8];
    let file: &mut [u8] = cast_slice_mut(&mut words);
    let header = layout.header(77, 1_767_225_600_000_000_000, 1);
    file[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&header));
    let mut sections = Vec::new();
    let (mut rest, mut at) = (file, 0);
    for entry in layout.sections {
        let (_, from) = rest.split_at_mut(entry.offset as usize - at);
        let (section, after) = from.split_at_mut(entry.length as usize);
        (rest, at) = (after, (entry.offset + entry.length) as usize);
        sections.push(section);
    }
    let mut sections = sections.into_iter();
    let mut next = || sections.next().expect("a section");
    let control: &mut Control = bytemuck::from_bytes_mut(next());
    let mut tables = Tables {
        journal: bytemuck::from_bytes_mut(next()),
        accounts: cast_slice_mut(next()),
        live: [LiveTable::new(&mut []), LiveTable::new(&mut [])],
        totals: TotalsTable::new(&mut []),
        history: History::new(&mut []),
        curves: Curves::new(&mut [], 0),
    };
    next();
    let mut stacks = StackTable::new(cast_slice_mut(next()), cast_slice_mut(next()));
    let rows: &mut [Totals] = cast_slice_mut(next());
    let mut known = TotalsIndex::for_rows(rows.len()).expect("memory");
    tables.totals = TotalsTable::indexed(rows, &mut known);
    tables.history = History::new(cast_slice_mut(next()));
    let [device, framework]: [&mut [Record]; 2] = [cast_slice_mut(next()), cast_slice_mut(next())];
    let index = |slots: &[Record]| LiveIndex::for_slots(slots.len()).expect("memory");
    let (mut first, mut second) = (index(device), index(framework));
    tables.live = [
        LiveTable::indexed(device, &mut first),
        LiveTable::indexed(framework, &mut second),
    ];
    let mut rings = [
        Ring::new(cast_slice_mut(next()), 0),
        Ring::new(cast_slice_mut(next()), 0),
    ];
    let mut rest: Vec<&mut [u8]> = sections.collect();
    let curves = rest.pop().expect("the last section");
    tables.curves = Curves::new(cast_slice_mut(curves), tables.totals.rows().len());
    let table: &mut Sampling = bytemuck::from_bytes_mut(rest.pop().expect("the section before"));
    let ids: Vec<u32> = (0..SITES.len() as u64)
        .map(|site| {
            let frames = [
                Frame::Raw(0x1000 + site).encode(),
                Frame::Raw(0x9000).encode(),
            ];
            match stacks.intern(&frames, 0, &mut control.stack_words) {
                Interned::Added(id) => id,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    table.begin(0, step_of(INTERVALS[0]));
    let sampler = Sampler::seeded(seed);
    let mut seq = 0;
    for (n, made) in program.iter().enumerate() {
        let (step, taken) = sample(&sampler, n, program.len(), made.size);
        if step != table.head.step {
            table.change(seq + 1, seq * 1000, step, 1);
        }
        table.head.not_sampled += u64::from(!taken);
        let entry = Record {
            key: 0x7f00_0000_0000 + (n as u64 * 8) * 512,
            size: made.size,
            stack: if taken { ids[made.site] } else { NOT_SAMPLED },
            sampled: if taken && made.size < interval(step) {
                step
            } else {
                0
            },
            thread: 5,
            context: 1,
            op: Op::Alloc as u8,
            space: Space::Device as u8,
            kind: Kind::Async as u8,
            ..Record::default()
        };
        let mut write = |event: Record| {
            seq += 1;
            let event = Record {
                seq,
                time: seq * 1000,
                ..event
            };
            rings[1].write(&event, &mut control.ring_written[1]);
            tables.apply(&event, None, control);
            control.last_time = event.time;
            event
        };
        let entry = write(entry);
        if !made.stays {
            write(Record {
                op: Op::Free as u8,
                aux: Record::free_aux(entry.seq, 0),
                ..entry
            });
        }
    }
    control.clean_exit = 1;
    bytemuck::cast_slice(&words).to_vec()
}

/// The call site that a group is of; `None` what was not sampled.
fn site(group: &Group) -> Option<usize> {
    match group.stack.frames.first() {
        Some(Frame::Raw(address)) => Some((address - 0x1000) as usize),
        None => {
            assert!(group.not_sampled, "{group:?}");
            None
        }
        other => panic!("{other:?}"),
    }
}

fn value(group: &Group) -> Value {
    let known = Value {
        estimate: group.bytes,
        low: group.bytes,
        high: group.bytes,
    };
    group.estimate.map_or(known, |estimate| estimate.bytes)
}

/// Differences of two sampled runs of one program, and of one in which two sites hold twice as much: where nothing grew
/// hardly any group is said to have, and what grew is found.
#[test]
fn a_difference_is_growth_only_where_that_is_certain() {
    const GREW: [usize; 2] = [1, 4];
    let same = program();
    let mut more = same.clone();
    for made in &same {
        if made.stays && GREW.contains(&made.site) {
            more.push(*made);
        }
    }
    let runs: u64 = if full() { 300 } else { 30 };
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.vrt");
    let read = |program: &[Made], seed: u64| {
        std::fs::write(&path, trace(program, seed)).expect("a trace");
        [Process::read(Trace::open(&path).expect("a trace"))]
    };
    let (mut wrong, mut found, mut groups) = (0, 0, 0);
    for run in 0..runs {
        let before = read(&same, 7 + 2 * run);
        for (after, grew) in [(&same, &[][..]), (&more, &GREW[..])] {
            let after = read(after, 1_000_003 + 2 * run);
            let side = |processes| Side {
                processes,
                windows: &[],
                moment: None,
            };
            let mut frames = Frames::default();
            let options = Options::default();
            let diff = Diff::of(
                &side(&before),
                &side(&after),
                &options,
                None,
                0,
                &mut frames,
            );
            let mut certain = 0;
            for change in &diff.changes {
                let sure = change.grew(0) == Some(true);
                certain += usize::from(sure);
                let Some(site) = site(&change.placed.group) else {
                    assert!(!sure, "what was not sampled is no group");
                    continue;
                };
                groups += 1;
                if grew.contains(&site) {
                    found += u64::from(sure);
                } else {
                    wrong += u64::from(sure);
                }
            }
            assert_eq!(diff.grown, certain, "run {run}");
        }
    }
    println!(
        "{wrong} of {groups} groups grew by chance, {found} of {} were found",
        2 * runs
    );
    // 2.5 % of intervals lie above what is true.
    assert!(wrong * 100 <= groups * 4, "{wrong} of {groups}");
    assert!(found * 10 >= 2 * runs * 9, "{found} of {}", 2 * runs);
}

/// The same from whole traces: what is live by entries, peaks and all that was made by sums; totals are
/// exact in every run.
#[test]
fn every_report_has_right_estimates_and_exact_totals() {
    let program = program();
    let runs: u64 = if full() { 1_000 } else { 60 };
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.vrt");
    let mut live_truth = [Sum::default(); SITES.len()];
    let mut made_truth = [Sum::default(); SITES.len()];
    for made in &program {
        made_truth[made.site].add(made.size, 1);
        if made.stays {
            live_truth[made.site].add(made.size, 1);
        }
    }
    let mut all_live = Sum::default();
    live_truth.iter().for_each(|sum| all_live.merge(*sum));
    let names = ["leaks", "peak", "made"];
    let mut compared: BTreeMap<(&str, usize), Comparison> = BTreeMap::new();
    for run in 0..runs {
        std::fs::write(&path, trace(&program, 31 + 104_729 * run)).expect("a trace");
        let processes = [Process::read(Trace::open(&path).expect("a trace"))];
        let mut frames = Frames::default();
        let answer = Answer::of(&processes, &Options::default(), None, &mut frames);
        assert_eq!(answer.gpu, all_live, "run {run}");
        let mut known = Sum::default();
        // One of four samples may have none.
        let mut sampled = 0;
        for placed in &answer.groups {
            known.add(placed.group.bytes, placed.group.count);
            if let Some(site) = site(&placed.group) {
                sampled += 1;
                let of = compared.entry((names[0], site)).or_default();
                of.add(live_truth[site].bytes, value(&placed.group));
            }
        }
        assert_eq!(known, all_live, "groups add up, run {run}");
        let last = &answer.groups.last().expect("groups").group;
        assert!(last.not_sampled, "what was not sampled comes last");
        let everything = Filter::default();
        let found = peaks(
            &processes,
            By::Stack,
            &everything,
            Unhidden::default(),
            None,
            &mut frames,
        );
        assert!(found.complete && found.peaks.len() == 1);
        for placed in &found.peaks[0].groups {
            if let Some(site) = site(&placed.group) {
                let of = compared.entry((names[1], site)).or_default();
                of.add(live_truth[site].bytes, value(&placed.group));
            }
        }
        for stack in &summary(&processes, &everything, 100, &mut frames).top {
            let Some(Frame::Raw(address)) = stack.stack.frames.first() else {
                continue;
            };
            let site = (address - 0x1000) as usize;
            let known = stack.allocated.bytes;
            let known = Value {
                estimate: known,
                low: known,
                high: known,
            };
            let made = stack.estimates[2].map_or(known, |estimate| estimate.bytes);
            let of = compared.entry((names[2], site)).or_default();
            of.add(made_truth[site].bytes, made);
        }
        // Pictures and profiles add up to what is exact, and leave nothing over.
        let shares = usage::live(
            &processes[0],
            None,
            &Default::default(),
            &everything,
            By::Stack,
        );
        let sum = shares.iter().fold(Sum::default(), |mut sum, (_, share)| {
            sum.merge(*share);
            sum
        });
        assert_eq!((sum, shares.len()), (all_live, sampled), "run {run}");
    }
    assert_eq!(compared.len(), 3 * SITES.len());
    for ((what, site), of) in compared {
        let (bias, coverage) = (of.bias(), of.coverage());
        println!(
            "{what}, site {site}: bias {:+.2} %, held {:.1} %",
            bias * 100.0,
            coverage * 100.0
        );
        let room = if full() { 0.012 } else { 0.06f64 }.max(5.0 * of.chance());
        assert!(bias.abs() < room, "{what}, site {site}: bias {bias}");
        // Where sums know no variance intervals are wider than they would have to be.
        assert!(
            coverage >= if full() { 0.93 } else { 0.85 },
            "{what}, site {site}: {coverage}"
        );
    }
}
