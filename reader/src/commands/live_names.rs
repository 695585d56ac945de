//! `vramtrace live-names`: names call sites of the trace that is its standard input. Started by what
//! follows running processes; see [`crate::live::names`].

use super::print;
use crate::cli::exit;
use crate::live::names;
use std::path::Path;

/// What the command takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ids of stack and API.
    #[arg(value_name = "STACK:API", value_parser = place)]
    places: Vec<(u32, u16)>,
    /// All frames of this one instead.
    #[arg(long, value_name = "STACK:API", value_parser = place, conflicts_with = "places")]
    frames: Option<(u32, u16)>,
}

fn place(text: &str) -> Result<(u32, u16), String> {
    let numbers = text.split_once(':');
    let numbers = numbers.and_then(|(stack, api)| Some((stack.parse().ok()?, api.parse().ok()?)));
    numbers.ok_or_else(|| "accepted are two numbers: STACK:API".to_owned())
}

/// Names them; returns the exit code.
pub fn execute(args: Args) -> i32 {
    let trace = Path::new("/proc/self/fd/0");
    let text = match args.frames {
        Some(place) => serde_json::to_string(&names::frames(trace, place)),
        None => serde_json::to_string(&names::find(trace, &args.places)),
    };
    let text = text.unwrap_or_default();
    match print(&text) {
        Ok(()) => exit::FINE,
        Err(code) => code,
    }
}
