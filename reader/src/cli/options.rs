//! Options that several commands have.

use crate::analysis::Filter;
use crate::analysis::leaks::By;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::path::PathBuf;
use vramtrace_format::record::{Kind, Layer};

/// Which traces.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Traces {
    /// Traces, archives, or directories with traces [default: the newest trace of this user]
    #[arg(value_name = "TRACE")]
    pub traces: Vec<PathBuf>,
}

/// Which part of the memory.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct FilterOptions {
    /// Only this device (its number in the process); may be repeated
    #[arg(long, value_name = "N")]
    pub device: Vec<u8>,
    /// Only this layer: device, framework, host; may be repeated
    #[arg(long, value_name = "LAYER", value_parser = layer)]
    pub layer: Vec<Layer>,
    /// Only this kind: device, managed, pinned, registered, array, vmm, pool, async, graph,
    /// import, torch; may be repeated
    #[arg(long, value_name = "KIND", value_parser = kind)]
    pub kind: Vec<Kind>,
}

/// What moments are; for the end of a command's help.
pub const MOMENTS: &str = "\
MOMENT is end, teardown, peak, oom, an event's number (1234), time since the trace began (500ms,
90s, 2h), Unix nanoseconds as in JSON (@1767225600000000000), or the text of a mark (mark:TEXT if
that looks like one of the others).";

impl FilterOptions {
    /// As analyses take it.
    pub fn filter(&self) -> Filter {
        Filter {
            devices: self.device.clone(),
            layers: self.layer.clone(),
            kinds: self.kind.clone(),
        }
    }
}

/// Reads a layer's name.
pub fn layer(text: &str) -> Result<Layer, String> {
    Layer::from_name(text).ok_or_else(|| one_of(Layer::ALL.iter().map(|layer| layer.name())))
}

/// Reads a kind's name.
fn kind(text: &str) -> Result<Kind, String> {
    Kind::from_name(text).ok_or_else(|| one_of(Kind::ALL.iter().map(|kind| kind.name())))
}

/// Reads what groups are made by.
pub fn by() -> impl TypedValueParser<Value = By> {
    PossibleValuesParser::new(By::WORDS.map(|(word, _)| word)).map(|text| {
        let found = By::WORDS.into_iter().find(|(word, _)| *word == text);
        found.map(|(_, by)| by).unwrap_or_default()
    })
}

fn one_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    format!("accepted are {}", names.collect::<Vec<_>>().join(", "))
}
