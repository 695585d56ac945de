//! A profile for `go tool pprof` and everything that reads its format: profile.proto of
//! <https://github.com/google/pprof>, compressed with gzip.
//!
//! Four numbers a stack, named as Go's heap profiles name theirs: objects and bytes ever allocated,
//! objects and bytes live. Device, layer, kind, API and process of each are labels.

use super::protobuf::Message;
use super::samples::{Samples, process_name, sums_know};
use super::stacks::{self, Id, Stacks};
use crate::analysis::Sum;
use crate::analysis::leaks::{By, EntryEnd};
use crate::analysis::usage::Key;
use crate::model::Process;
use crate::report::frames::ShownFrame;
use flate2::Compression;
use flate2::write::GzEncoder;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use vramtrace_format::record::{Layer, NO_DEVICE};

/// Field numbers of profile.proto.
mod field {
    pub const SAMPLE_TYPE: u32 = 1;
    pub const SAMPLE: u32 = 2;
    pub const MAPPING: u32 = 3;
    pub const LOCATION: u32 = 4;
    pub const FUNCTION: u32 = 5;
    pub const STRING_TABLE: u32 = 6;
    pub const TIME_NANOS: u32 = 9;
    pub const DURATION_NANOS: u32 = 10;
    pub const COMMENT: u32 = 13;
    pub const DEFAULT_SAMPLE_TYPE: u32 = 14;

    pub mod value_type {
        pub const TYPE: u32 = 1;
        pub const UNIT: u32 = 2;
    }

    pub mod sample {
        pub const LOCATION_ID: u32 = 1;
        pub const VALUE: u32 = 2;
        pub const LABEL: u32 = 3;
    }

    pub mod label {
        pub const KEY: u32 = 1;
        pub const STR: u32 = 2;
    }

    pub mod mapping {
        pub const ID: u32 = 1;
        pub const MEMORY_LIMIT: u32 = 3;
        pub const FILENAME: u32 = 5;
        pub const BUILD_ID: u32 = 6;
        pub const HAS_FUNCTIONS: u32 = 7;
        pub const HAS_FILENAMES: u32 = 8;
        pub const HAS_LINE_NUMBERS: u32 = 9;
        pub const HAS_INLINE_FRAMES: u32 = 10;
    }

    pub mod location {
        pub const ID: u32 = 1;
        pub const MAPPING_ID: u32 = 2;
        pub const ADDRESS: u32 = 3;
        pub const LINE: u32 = 4;
    }

    pub mod line {
        pub const FUNCTION_ID: u32 = 1;
        pub const LINE: u32 = 2;
    }

    pub mod function {
        pub const ID: u32 = 1;
        pub const NAME: u32 = 2;
        pub const FILENAME: u32 = 4;
    }
}

/// What is in a profile.
pub struct Profile<'a> {
    /// The processes.
    pub processes: &'a [Process],
    /// What is live.
    pub live: &'a Samples,
    /// All that was allocated; `None` where that is not known.
    pub total: Option<&'a Samples>,
    /// Names of their frames.
    pub stacks: &'a Stacks,
    /// What was to be told apart.
    pub by: By,
}

/// Writes a profile. Another thread compresses it, which takes about as long as making it.
pub fn write(profile: &Profile<'_>, out: &mut (dyn Write + Send)) -> io::Result<()> {
    thread::scope(|scope| {
        let (full, pieces) = sync_channel::<Vec<u8>>(WAITING);
        let compress = scope.spawn(move || {
            let mut gzip = GzEncoder::new(out, Compression::default());
            for piece in pieces {
                gzip.write_all(&piece)?;
            }
            gzip.finish()?.flush()
        });
        let mut pieces = Pieces {
            piece: Vec::new(),
            full,
        };
        let made = Writer::default()
            .write(profile, &mut pieces)
            .and_then(|()| pieces.flush());
        drop(pieces);
        match compress.join() {
            // Why nothing could be written is known there.
            Ok(compressed) => compressed.and(made),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Bytes that go from one thread to the other at once.
const PIECE: usize = 1 << 18;
/// Pieces that wait to be compressed.
const WAITING: usize = 16;

/// Hands what is written to another thread.
struct Pieces {
    piece: Vec<u8>,
    full: SyncSender<Vec<u8>>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        let sent = self.full.send(piece);
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Live and allocated, of what differs in stack or labels.
type Values<'a> = BTreeMap<(usize, Id, Key), (Option<&'a str>, Sum, Sum)>;

#[derive(Default)]
struct Writer {
    strings: FxHashMap<String, u64>,
    order: Vec<String>,
    functions: FxHashMap<(String, String), u64>,
    mappings: FxHashMap<String, u64>,
    /// Functions, locations: whole fields of the profile.
    written: Message,
    /// By frame.
    locations: FxHashMap<u32, u64>,
    /// For stacks without frames, by what stands for them.
    pseudo: FxHashMap<String, u64>,
    limits: FxHashMap<u64, u64>,
    next_location: u64,
}

impl Writer {
    fn write(&mut self, profile: &Profile<'_>, out: &mut dyn Write) -> io::Result<()> {
        self.string("");
        let mut head = Message::new();
        let mut types = vec![("inuse_objects", "count"), ("inuse_space", "bytes")];
        if profile.total.is_some() {
            types.splice(0..0, [("alloc_objects", "count"), ("alloc_space", "bytes")]);
        }
        for (name, unit) in types {
            let mut value_type = Message::new();
            value_type
                .number(field::value_type::TYPE, self.string(name))
                .number(field::value_type::UNIT, self.string(unit));
            head.message(field::SAMPLE_TYPE, &value_type);
        }
        out.write_all(head.bytes())?;
        self.program_first(profile.processes);
        for ((process, stack, key), (told_apart, live, total)) in values(profile) {
            let labels = self.labels(profile, process, &key, told_apart);
            let mut sample = Message::new();
            let locations = self.locations(stack, profile.stacks);
            sample.numbers(field::sample::LOCATION_ID, locations);
            let inuse = [live.count, live.bytes];
            let alloc = [total.count, total.bytes];
            let alloc = if profile.total.is_some() {
                &alloc[..]
            } else {
                &[]
            };
            // They are signed there.
            let all = alloc.iter().chain(&inuse).map(|&n| n.min(i64::MAX as u64));
            sample.numbers(field::sample::VALUE, all);
            for label in &labels {
                sample.message(field::sample::LABEL, label);
            }
            let mut field = Message::new();
            field.message(field::SAMPLE, &sample);
            out.write_all(field.bytes())?;
        }
        self.end(profile, out)
    }

    fn string(&mut self, text: &str) -> u64 {
        if let Some(&known) = self.strings.get(text) {
            return known;
        }
        let id = self.order.len() as u64;
        self.strings.insert(text.to_owned(), id);
        self.order.push(text.to_owned());
        id
    }

    /// By convention the first mapping is that of the program.
    fn program_first(&mut self, processes: &[Process]) {
        let program = processes.first().map(|process| &process.identity.program);
        if let Some(program) = program.filter(|program| !program.is_empty()) {
            self.mapping(program);
        }
    }

    fn mapping(&mut self, path: &str) -> u64 {
        let next = self.mappings.len() as u64 + 1;
        *self.mappings.entry(path.to_owned()).or_insert(next)
    }

    fn labels(
        &mut self,
        profile: &Profile<'_>,
        process: usize,
        key: &Key,
        told_apart: Option<&str>,
    ) -> Vec<Message> {
        let of = &profile.processes[process];
        let layer = key.kind.layer();
        let device = match key.device {
            _ if layer == Layer::Host => "host".to_owned(),
            NO_DEVICE => "none".to_owned(),
            device => format!("GPU {device}"),
        };
        let api = of.api(key.api).unwrap_or("unknown").to_owned();
        let mut labels = vec![
            ("device", device),
            ("layer", layer.name().to_owned()),
            ("kind", key.kind.name().to_owned()),
            ("api", api),
            ("process", process_name(of)),
        ];
        if let Some(rank) = of.identity.rank {
            labels.push(("rank", rank.to_string()));
        }
        if let (Some(value), true) = (told_apart, !sums_know(profile.by)) {
            labels.push((profile.by.word(), value.to_owned()));
        }
        if key.end != EntryEnd::Live {
            labels.push(("end", key.end.name().to_owned()));
        }
        let mut label = |(key, value): (&str, String)| {
            let mut label = Message::new();
            label
                .number(field::label::KEY, self.string(key))
                .number(field::label::STR, self.string(&value));
            label
        };
        labels.drain(..).map(&mut label).collect()
    }

    /// Locations of a stack, innermost first.
    fn locations(&mut self, id: Id, stacks: &Stacks) -> Vec<u64> {
        let named = stacks.get(id);
        let mut locations = Vec::new();
        for &number in &named.frames {
            let known = self.locations.get(&number).copied();
            locations.push(known.unwrap_or_else(|| {
                let location = self.location(&stacks.frames()[number as usize]);
                self.locations.insert(number, location);
                location
            }));
        }
        if named.frames.is_empty() {
            locations.push(self.pseudo(&stacks::absent(named)));
        } else if named.truncated {
            locations.push(self.pseudo(stacks::TRUNCATED));
        }
        locations
    }

    fn pseudo(&mut self, text: &str) -> u64 {
        if let Some(&known) = self.pseudo.get(text) {
            return known;
        }
        let location = self.location(&ShownFrame {
            function: Some(text.into()),
            ..ShownFrame::default()
        });
        self.pseudo.insert(text.to_owned(), location);
        location
    }

    fn location(&mut self, frame: &ShownFrame) -> u64 {
        let name = frame
            .function
            .clone()
            .unwrap_or_else(|| stacks::label(frame).into());
        let function = self.function(&name, frame.file.as_deref().unwrap_or_default());
        self.next_location += 1;
        let id = self.next_location;
        let mut location = Message::new();
        location.number(field::location::ID, id);
        if let Some(module) = &frame.module {
            let mapping = self.mapping(module);
            let offset = frame.offset.unwrap_or(0);
            let limit = self.limits.entry(mapping).or_default();
            *limit = offset.saturating_add(1).max(*limit);
            location
                .number(field::location::MAPPING_ID, mapping)
                .number(field::location::ADDRESS, offset);
        }
        let mut line = Message::new();
        line.number(field::line::FUNCTION_ID, function)
            .number(field::line::LINE, frame.line.unwrap_or(0).into());
        location.message(field::location::LINE, &line);
        self.written.message(field::LOCATION, &location);
        id
    }

    fn function(&mut self, name: &str, file: &str) -> u64 {
        let next = self.functions.len() as u64 + 1;
        let key = (name.to_owned(), file.to_owned());
        if let Some(&known) = self.functions.get(&key) {
            return known;
        }
        self.functions.insert(key, next);
        // Without a system name pprof takes the name as it is; else it demangles, and takes the
        // `<module>` of Python for a template's arguments.
        let mut function = Message::new();
        function
            .number(field::function::ID, next)
            .number(field::function::NAME, self.string(name))
            .number(field::function::FILENAME, self.string(file));
        self.written.message(field::FUNCTION, &function);
        next
    }

    /// Everything that samples refer to.
    fn end(&mut self, profile: &Profile<'_>, out: &mut dyn Write) -> io::Result<()> {
        let mut end = std::mem::take(&mut self.written);
        let mut mappings: Vec<(u64, String)> =
            self.mappings.drain().map(|(p, id)| (id, p)).collect();
        mappings.sort_unstable();
        for (id, path) in mappings {
            let mut mapping = Message::new();
            // Named here as far as can be: pprof is not to look for symbols itself.
            mapping
                .number(field::mapping::ID, id)
                .number(
                    field::mapping::MEMORY_LIMIT,
                    self.limits.get(&id).copied().unwrap_or(1),
                )
                .number(field::mapping::FILENAME, self.string(&path))
                .number(
                    field::mapping::BUILD_ID,
                    self.string(&build_id(profile.processes, &path)),
                )
                .number(field::mapping::HAS_FUNCTIONS, 1)
                .number(field::mapping::HAS_FILENAMES, 1)
                .number(field::mapping::HAS_LINE_NUMBERS, 1)
                .number(field::mapping::HAS_INLINE_FRAMES, 1);
            end.message(field::MAPPING, &mapping);
        }
        let first = profile
            .processes
            .iter()
            .map(|process| process.unix_ns(0))
            .min();
        let last = profile.processes.iter();
        let last = last
            .map(|process| process.unix_ns(process.duration_ns()))
            .max();
        let (first, last) = (first.unwrap_or(0), last.unwrap_or(0));
        end.number(field::TIME_NANOS, first)
            .number(field::DURATION_NANOS, last.saturating_sub(first));
        for comment in comments(profile) {
            let comment = self.string(&comment);
            end.number(field::COMMENT, comment);
        }
        let default = self.string("inuse_space");
        end.number(field::DEFAULT_SAMPLE_TYPE, default);
        for text in &self.order {
            end.text(field::STRING_TABLE, text);
        }
        out.write_all(end.bytes())
    }
}

fn comments(profile: &Profile<'_>) -> Vec<String> {
    let mut comments = vec![
        "vramtrace: GPU and page-locked host memory at the finest layer known; sizes are those \
         asked for. Tell them apart by the labels device, layer, kind (pprof -tagroot=device)."
            .to_owned(),
    ];
    for process in profile.processes {
        for reason in &process.losses.live_inexact {
            comments.push(format!(
                "not exact: {}: {}: {}",
                process_name(process),
                reason.code,
                reason.text
            ));
        }
    }
    comments
}

fn values<'a>(profile: &Profile<'a>) -> Values<'a> {
    let mut values = Values::new();
    let total = profile.total.iter().flat_map(|total| &total.all);
    let live = profile.live.all.iter().map(|sample| (sample, true));
    for (sample, is_live) in live.chain(total.map(|sample| (sample, false))) {
        let place = (sample.process, sample.stack, sample.key);
        let (told_apart, live, total) = values.entry(place).or_default();
        *told_apart = sample.told_apart.as_deref();
        if is_live { live } else { total }.merge(sample.sum);
    }
    values
}

fn build_id(processes: &[Process], path: &str) -> String {
    let modules = processes
        .iter()
        .flat_map(|process| process.modules.values());
    let found = modules
        .filter(|module| module.path == path)
        .map(|m| &m.build_id)
        .min();
    let bytes = found.into_iter().flatten();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}
