//! Folded stacks: one line a stack, outermost frame first, `a;b;c NUMBER`; what flame graph tools
//! take.

use super::samples::Samples;
use super::stacks::{self, Stacks};
use crate::report::words::foreign;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The names that a stack goes by, outermost first.
pub fn path(roots: &[String], id: stacks::Id, stacks: &Stacks) -> Vec<String> {
    let named = stacks.get(id);
    let mut path = roots.to_vec();
    if named.frames.is_empty() {
        path.push(stacks::absent(named));
        return path;
    }
    if named.truncated {
        path.push(stacks::TRUNCATED.to_owned());
    }
    path.extend(stacks.frames_of(id).rev().map(stacks::label));
    path
}

/// Writes samples; bytes, or the number of allocations.
pub fn write(
    samples: &Samples,
    stacks: &Stacks,
    count: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    // Stacks that differ in what is not shown are one line.
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for sample in &samples.all {
        let path = path(&sample.roots, sample.stack, stacks);
        let path: Vec<String> = path.iter().map(|name| harmless(name)).collect();
        let number = if count {
            sample.sum.count
        } else {
            sample.sum.bytes
        };
        let sum = lines.entry(path.join(";")).or_default();
        *sum = sum.saturating_add(number);
    }
    for (line, number) in lines.iter().filter(|(_, number)| **number > 0) {
        writeln!(out, "{line} {number}")?;
    }
    Ok(())
}

/// A name without what separates names and lines.
fn harmless(name: &str) -> String {
    foreign(name).replace(';', ":")
}
