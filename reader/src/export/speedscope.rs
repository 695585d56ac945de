//! A file for <https://www.speedscope.app>: its own JSON format, whose schema it publishes. One
//! profile for each process and measure.

use super::samples::{Measure, Sample, Samples, process_name};
use super::stacks::{self, Stacks};
use crate::model::Process;
use crate::report::frames::ShownFrame;
use crate::report::words::foreign;
use rustc_hash::FxHashMap;
use serde::Serialize;
use std::io::{self, Write};

#[derive(Default, Serialize)]
struct Frame {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

#[derive(Serialize)]
struct Shared {
    frames: Vec<Frame>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    r#type: &'static str,
    name: String,
    unit: &'static str,
    start_value: u64,
    end_value: u64,
    /// Outermost first.
    samples: Vec<Vec<u32>>,
    weights: Vec<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(rename = "$schema")]
    schema: &'static str,
    shared: Shared,
    profiles: Vec<Profile>,
    name: String,
    active_profile_index: usize,
    exporter: String,
}

/// Writes one profile for each process and each measure in bytes, and one in allocations.
pub fn write(
    processes: &[Process],
    measures: &[(Measure, Samples)],
    stacks: &Stacks,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut names = Names {
        frames: stacks.frames().iter().map(frame).collect(),
        known: FxHashMap::default(),
    };
    let mut profiles = Vec::new();
    for (id, process) in processes.iter().enumerate() {
        for (measure, samples) in measures {
            let own: Vec<&Sample> = samples.all.iter().filter(|s| s.process == id).collect();
            let paths: Vec<Vec<u32>> = own.iter().map(|s| names.path(s, stacks)).collect();
            for (unit, what) in [("bytes", ""), ("none", ", allocations")] {
                let weight = |sample: &&Sample| match unit {
                    "bytes" => sample.sum.bytes,
                    _ => sample.sum.count,
                };
                let weights: Vec<u64> = own.iter().map(weight).collect();
                profiles.push(Profile {
                    r#type: "sampled",
                    name: format!(
                        "{}: {}{what}",
                        foreign(&process_name(process)),
                        measure.name()
                    ),
                    unit,
                    start_value: 0,
                    end_value: weights.iter().fold(0, |sum, w| sum.saturating_add(*w)),
                    samples: paths.clone(),
                    weights,
                });
            }
        }
    }
    let who = match processes {
        [process] => process_name(process),
        _ => format!("{} processes", processes.len()),
    };
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        shared: Shared {
            frames: names.frames,
        },
        profiles,
        name: foreign(&who),
        active_profile_index: 0,
        exporter: format!("vramtrace {}", env!("CARGO_PKG_VERSION")),
    };
    serde_json::to_writer(&mut *out, &file)?;
    out.write_all(b"\n")
}

/// Frames by number: those of stacks, then those that are none.
struct Names {
    frames: Vec<Frame>,
    known: FxHashMap<String, u32>,
}

impl Names {
    fn path(&mut self, sample: &Sample, stacks: &Stacks) -> Vec<u32> {
        let roots = sample.roots.iter();
        let mut path: Vec<u32> = roots.map(|root| self.plain(root)).collect();
        let named = stacks.get(sample.stack);
        if named.frames.is_empty() {
            path.push(self.plain(&stacks::absent(named)));
        } else if named.truncated {
            path.push(self.plain(stacks::TRUNCATED));
        }
        path.extend(named.frames.iter().rev());
        path
    }

    fn plain(&mut self, name: &str) -> u32 {
        if let Some(&known) = self.known.get(name) {
            return known;
        }
        let number = self.frames.len() as u32;
        self.known.insert(name.to_owned(), number);
        self.frames.push(Frame {
            name: foreign(name),
            ..Frame::default()
        });
        number
    }
}

fn frame(frame: &ShownFrame) -> Frame {
    let name = match &frame.function {
        Some(function) => function.to_string(),
        None => stacks::label(frame),
    };
    Frame {
        name: foreign(&name),
        file: frame
            .file
            .as_deref()
            .or(frame.module.as_deref())
            .map(foreign),
        line: frame.line,
    }
}
