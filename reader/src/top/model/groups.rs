//! What holds memory: put together by stack, library and so on, over all processes that are asked about.

use super::rows::{by_growth, gpu, takes_device};
use super::{Model, Shown, place_key, who};
use crate::live::names::Named;
use crate::top::picture::{GroupKey, GroupRow, Picture, SeriesKey};
use crate::top::settings::{By, Settings, Sort};
use rustc_hash::FxHashMap;
use std::cmp::Ordering;
use std::sync::Arc;
use vramtrace_format::record::{Kind, Layer};

/// Groups of a picture.
const MOST_GROUPS: usize = 500;

/// Some memory of one process.
struct Item<'a> {
    shown: Shown<'a>,
    device: Option<u8>,
    layer: Layer,
    kind: Option<Kind>,
    place: Option<(u32, u16)>,
    named: Option<&'a Arc<Named>>,
    series: Option<SeriesKey>,
    bytes: u64,
    count: u64,
    estimated: bool,
    rest: bool,
}

/// What items are put together by; without anything that takes memory of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Compact<'a> {
    process: Option<u32>,
    device: Option<&'a str>,
    layer: Layer,
    kind: Option<Kind>,
    place: Option<(u32, u16)>,
    word: &'a str,
    rest: bool,
}

struct Sum<'a> {
    first: Item<'a>,
    others: bool,
    bytes: u64,
    count: u64,
    estimated: bool,
    /// Of all items but the first: most sums are of one.
    more: Vec<SeriesKey>,
    growth: Option<f64>,
}

/// Adds the groups that the settings ask for to a picture that has its devices already.
pub fn groups(model: &Model, settings: &Settings, picture: &mut Picture) {
    let about = |shown: &Shown<'_>| match settings.process {
        Some(process) => process == shown.number,
        None => true,
    };
    // Those that have ended hold nothing any more, unless one asks for them, or they are all there is.
    let all_ended = model.shown().filter(about).all(|shown| shown.ended);
    let wanted = |shown: &Shown<'_>| about(shown) && (!shown.ended || all_ended);
    let keys: Vec<(u32, Vec<(u8, String)>)> = model
        .shown()
        .filter(wanted)
        .map(|shown| {
            let devices = shown.process.devices.iter();
            let keys =
                devices.map(|device| (device.ordinal, super::device_key(shown.process, device)));
            (shown.number, keys.collect())
        })
        .collect();
    // Room for a group of each place: a table that grows moves everything that is in it.
    let places = model.shown().filter(wanted);
    let places = places.map(|shown| shown.process.places.len() + 8).sum();
    let mut sums: FxHashMap<Compact<'_>, Sum<'_>> =
        FxHashMap::with_capacity_and_hasher(places, Default::default());
    for (shown, (_, devices)) in model.shown().filter(wanted).zip(&keys) {
        let name = who(shown.process);
        let is_wanted = settings.filter.to_lowercase();
        let process_matches = name.to_lowercase().contains(&is_wanted);
        for item in items(settings.by, shown) {
            let device = item.device.and_then(|ordinal| {
                let known = devices.iter().find(|(known, _)| *known == ordinal);
                known.map(|(_, key)| key)
            });
            let is_in = settings.layer.is_none_or(|layer| layer == item.layer)
                && takes_device(settings, device);
            if !is_in || item.bytes == 0 {
                continue;
            }
            if !settings.filter.is_empty() {
                let named = item.named.is_some_and(|named| is_called(named, &is_wanted));
                let kind = item
                    .kind
                    .is_some_and(|kind| kind.name().contains(&is_wanted));
                if item.rest || !(process_matches || named || kind) {
                    continue;
                }
            }
            let key = compact(settings.by, &item, device.map(String::as_str));
            match sums.get_mut(&key) {
                Some(sum) => sum.add(item),
                None => drop(sums.insert(key, Sum::of(item))),
            }
        }
    }
    let mut sums: Vec<(Compact<'_>, Sum<'_>)> = sums.into_iter().collect();
    if settings.sort == Sort::Growth {
        for (_, sum) in &mut sums {
            sum.growth = model.growth(&sum.series(), settings.window);
        }
    }
    let ordered = |a: &(Compact<'_>, Sum<'_>), b: &(Compact<'_>, Sum<'_>)| {
        let by = order(settings, &a.1, &b.1);
        let by = if settings.reverse { by.reverse() } else { by };
        // What is not told apart is no row like the others.
        a.0.rest
            .cmp(&b.0.rest)
            .then(by)
            .then_with(|| tie(&a.0).cmp(&tie(&b.0)))
    };
    // What is not shown need not be in order.
    if sums.len() > MOST_GROUPS {
        sums.select_nth_unstable_by(MOST_GROUPS, ordered);
        sums.truncate(MOST_GROUPS);
    }
    sums.sort_unstable_by(ordered);
    let rows = sums.into_iter().map(|(key, mut sum)| {
        if settings.sort != Sort::Growth {
            sum.growth = model.growth(&sum.series(), settings.window);
        }
        row(picture, settings.by, key, sum)
    });
    picture.groups = rows.collect();
}

/// Whether the names of a place have a text, given in lower case, in them.
pub fn is_called(named: &Named, wanted: &str) -> bool {
    let some = [&named.python, &named.line, &named.library, &named.api];
    let some = some.into_iter().flatten();
    std::iter::once(&named.site)
        .chain(some)
        .chain(&named.callers)
        .any(|text| text.to_lowercase().contains(wanted))
}

/// All memory of a process, in the parts that are needed.
fn items<'a>(by: By, shown: Shown<'a>) -> Vec<Item<'a>> {
    let process = shown.process;
    let item = |device, layer, bytes, count| Item {
        shown,
        device,
        layer,
        kind: None,
        place: None,
        named: None,
        series: None,
        bytes,
        count,
        estimated: false,
        rest: false,
    };
    match by {
        By::Process => {
            let accounts = process.accounts.iter();
            let items = accounts.map(|row| Item {
                series: Some(SeriesKey::Account(shown.number, row.device, row.layer)),
                ..item(row.device, row.layer, row.live_bytes, row.live_count)
            });
            items.collect()
        }
        By::Kind => {
            let kinds = process.kinds.iter();
            let items = kinds.map(|row| Item {
                kind: Some(row.kind),
                series: Some(SeriesKey::Kind(shown.number, row.device, row.kind)),
                ..item(row.device, row.kind.layer(), row.live_bytes, row.live_count)
            });
            items.collect()
        }
        _ => {
            // Of the same moment as the places, which may be a little before that of the accounts.
            let mut rest: Vec<Item<'_>> = Vec::new();
            for row in &process.kinds {
                let layer = row.kind.layer();
                let of = |rest: &&mut Item<'_>| (rest.device, rest.layer) == (row.device, layer);
                match rest.iter_mut().find(of) {
                    Some(rest) => {
                        rest.bytes = rest.bytes.saturating_add(row.live_bytes);
                        rest.count = rest.count.saturating_add(row.live_count);
                    }
                    None => rest.push(Item {
                        rest: true,
                        ..item(row.device, layer, row.live_bytes, row.live_count)
                    }),
                }
            }
            let mut found = Vec::with_capacity(process.places.len() + rest.len());
            for place in &process.places {
                let layer = place.kind.layer();
                let of = |rest: &&mut Item<'_>| (rest.device, rest.layer) == (place.device, layer);
                if let Some(rest) = rest.iter_mut().find(of) {
                    rest.bytes = rest.bytes.saturating_sub(place.live_bytes);
                    rest.count = rest.count.saturating_sub(place.live_count);
                }
                // The estimates of others stand for what was not sampled.
                if !place.not_sampled {
                    found.push(Item {
                        kind: Some(place.kind),
                        place: Some((place.stack, place.api)),
                        named: place.named.as_ref(),
                        series: Some(place_key(shown.number, place)),
                        estimated: place.estimated_bytes > place.live_bytes,
                        ..item(place.device, layer, place.estimated_bytes, place.live_count)
                    });
                }
            }
            found.extend(rest);
            found
        }
    }
}

fn compact<'a>(by: By, item: &Item<'a>, device: Option<&'a str>) -> Compact<'a> {
    let whole = Compact {
        process: None,
        device,
        layer: item.layer,
        kind: None,
        place: None,
        word: "",
        rest: item.rest,
    };
    let process = Some(item.shown.number);
    match by {
        By::Process => Compact { process, ..whole },
        By::Stack if item.rest => Compact { process, ..whole },
        By::Stack => Compact {
            process,
            kind: item.kind,
            place: item.place,
            ..whole
        },
        _ if item.rest => whole,
        By::Kind => Compact {
            kind: item.kind,
            ..whole
        },
        _ => Compact {
            word: word(by, item.named),
            ..whole
        },
    }
}

/// What stands for names that are still being found.
const NAMELESS: &str = "…";

fn word(by: By, named: Option<&Arc<Named>>) -> &str {
    let Some(named) = named else { return NAMELESS };
    match by {
        By::Line => named
            .line
            .as_deref()
            .unwrap_or("(no line of the program's own Python)"),
        By::Python => named.python.as_deref().unwrap_or("(no Python frame)"),
        By::Library => named.library.as_deref().unwrap_or("(library unknown)"),
        By::Api => named.api.as_deref().unwrap_or("(API unknown)"),
        _ => &named.site,
    }
}

impl<'a> Sum<'a> {
    fn of(item: Item<'a>) -> Sum<'a> {
        Sum {
            others: false,
            bytes: item.bytes,
            count: item.count,
            estimated: item.estimated,
            more: Vec::new(),
            growth: None,
            first: item,
        }
    }

    fn add(&mut self, item: Item<'a>) {
        self.others |= item.shown.number != self.first.shown.number;
        self.bytes = self.bytes.saturating_add(item.bytes);
        self.count = self.count.saturating_add(item.count);
        self.estimated |= item.estimated;
        self.more.extend(item.series);
    }

    fn series(&self) -> Vec<SeriesKey> {
        let first = self.first.series.iter();
        first.chain(&self.more).copied().collect()
    }
}

fn order(settings: &Settings, a: &Sum<'_>, b: &Sum<'_>) -> Ordering {
    let name = |sum: &Sum<'_>| label(settings.by, &sum.first).to_owned();
    match settings.sort {
        Sort::Live => b.bytes.cmp(&a.bytes),
        Sort::Growth => by_growth(a.growth, b.growth),
        Sort::Count => b.count.cmp(&a.count),
        Sort::Name => name(a).cmp(&name(b)),
    }
}

type Tie<'a> = (
    Option<u32>,
    Option<&'a str>,
    Layer,
    Option<Kind>,
    Option<(u32, u16)>,
    &'a str,
);

/// So that rows of equal size stay where they are.
fn tie<'a>(key: &Compact<'a>) -> Tie<'a> {
    (
        key.process,
        key.device,
        key.layer,
        key.kind,
        key.place,
        key.word,
    )
}

fn label<'a>(by: By, item: &Item<'a>) -> &'a str {
    match by {
        _ if item.rest => "(all other stacks)",
        By::Process => &item.shown.process.identity.name,
        By::Kind => item.kind.map_or("", Kind::name),
        _ => word(by, item.named),
    }
}

fn row(picture: &Picture, by: By, key: Compact<'_>, sum: Sum<'_>) -> GroupRow {
    let shown = sum.first.shown;
    let (device, gpu) = gpu(picture, shown, sum.first.device);
    GroupRow {
        bytes: sum.bytes,
        count: sum.count,
        estimated: sum.estimated,
        growth: sum.growth,
        process: if sum.others {
            String::new()
        } else {
            who(shown.process)
        },
        trace: (!sum.others).then(|| shown.process.trace.clone()),
        gpu,
        label: match (by, key.rest) {
            (By::Process, _) => who(shown.process),
            _ => label(by, &sum.first).to_owned(),
        },
        named: sum.first.named.filter(|_| key.place.is_some()).cloned(),
        series: sum.series(),
        rest: key.rest,
        key: GroupKey {
            process: key.process,
            device,
            layer: key.layer,
            kind: key.kind,
            place: key.place,
            word: key.word.to_owned(),
        },
    }
}
