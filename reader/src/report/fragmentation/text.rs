//! Fragmentation for people: what is held and not used on each device, where it lies, and what
//! would give it back.

use crate::analysis::added;
use crate::analysis::fragmentation::{Advice, Fragmentation, OfDevice, Segment};
use crate::report::chart::bars;
use crate::report::head::{
    device_name, inexact, next, of_process, or_look, process_lines, warnings,
};
use crate::report::leaks::only;
use crate::report::style::Style;
use crate::report::words::{bytes, count, counted, duration};
use std::fmt::Write;

/// Columns of a segment's map.
const COLUMNS: u64 = 32;
/// Eighths of a column that is used, from none to all.
const FULL: [char; 9] = ['·', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The report.
pub fn text(found: &Fragmentation, style: Style) -> String {
    let mut out = String::new();
    process_lines(&mut out, &found.head, style);
    for device in &found.devices {
        out.push('\n');
        one(&mut out, found, device, style);
    }
    out.push('\n');
    warnings(&mut out, &found.head, &[], style);
    summary(&mut out, found, style);
    let unused = found.devices.iter().any(|device| !device.advice.is_empty());
    next(
        &mut out,
        &found.head,
        if unused { "churn" } else { "leaks" },
    );
    let views = found.head.processes.iter();
    or_look(&mut out, views.map(|view| view.trace.as_path()));
    out
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", part as f64 / whole.max(1) as f64 * 100.0)
}

fn one(out: &mut String, found: &Fragmentation, device: &OfDevice, style: Style) {
    let start = found.head.processes[device.process].start_ns;
    let name = device_name(&found.head, Some(device.device));
    let head = format!(
        "{name}{} at {}: {} taken from the driver",
        of_process(&found.head, device.process),
        duration(device.at_ns.saturating_sub(start)),
        bytes(device.taken)
    );
    let _ = writeln!(out, "{}", style.strong(&head));
    segments(out, device, start, style);
    for pool in &device.pools {
        let name = if pool.of_graphs {
            "graph pool".to_owned()
        } else {
            format!("pool {:#x}", pool.id)
        };
        let _ = writeln!(
            out,
            "    {name}: {} held, {} ({}) in {}, {} free",
            bytes(pool.reserved),
            bytes(pool.used.bytes),
            percent(pool.used.bytes, pool.reserved),
            counted(pool.used.count, "block"),
            bytes(pool.free())
        );
    }
    if device.arrays.needed > device.arrays.asked.bytes {
        let _ = writeln!(
            out,
            "    arrays: {} asked for, {} needed: {} go to rounding in {}",
            bytes(device.arrays.asked.bytes),
            bytes(device.arrays.needed),
            bytes(device.arrays.needed - device.arrays.asked.bytes),
            counted(device.arrays.asked.count, "array")
        );
    }
    for advice in &device.advice {
        let _ = writeln!(out, "    {} {}", style.warn("try:"), words(advice));
    }
}

fn segments(out: &mut String, device: &OfDevice, start: u64, style: Style) {
    let sums = &device.sums;
    if sums.reserved.count == 0 {
        return;
    }
    let _ = writeln!(
        out,
        "    PyTorch: {} reserved in {}, {} ({}) in {}, {} free",
        bytes(sums.reserved.bytes),
        counted(sums.reserved.count, "segment"),
        bytes(sums.used.bytes),
        percent(sums.used.bytes, sums.reserved.bytes),
        counted(sums.used.count, "block"),
        bytes(sums.free())
    );
    let empty = match sums.empty.count {
        0 => "none in segments without blocks".to_owned(),
        segments => format!(
            "{} in {} without blocks",
            bytes(sums.empty.bytes),
            counted(segments, "segment")
        ),
    };
    let _ = writeln!(
        out,
        "    largest free block {}, {} of what is free; {empty}",
        bytes(sums.largest_free),
        percent(sums.largest_free, sums.free())
    );
    if device.course.len() > 2 {
        let line = |of: &dyn Fn(usize) -> u64| {
            let values: Vec<u64> = (0..device.course.len()).map(of).collect();
            bars(&values)
        };
        let from = duration(device.course[0].0.saturating_sub(start));
        let _ = writeln!(
            out,
            "    since {from}: reserved |{}|  free |{}|  largest free |{}|",
            line(&|at| device.course[at].1.reserved.bytes),
            line(&|at| device.course[at].1.free()),
            line(&|at| device.course[at].1.largest_free),
        );
    }
    let width = device
        .segments
        .iter()
        .map(|segment| bytes(segment.size).len())
        .max();
    for segment in &device.segments {
        let size = bytes(segment.size);
        let width = width.unwrap_or(0);
        let _ = writeln!(
            out,
            "      {:#014x} {size:>width$} |{}| {} free, largest {}, {}{}",
            segment.address,
            map(segment),
            bytes(segment.free()),
            bytes(segment.largest_free()),
            counted(segment.used().count, "block"),
            if segment.expandable {
                ", expandable"
            } else {
                ""
            }
        );
    }
    if device.omitted > 0 {
        let more = format!(
            "      … and {} more with less free; all with --top 0",
            count(device.omitted as u64)
        );
        let _ = writeln!(out, "{}", style.dim(&more));
    }
}

/// How much of each equal part of a segment is used.
fn map(segment: &Segment) -> String {
    let part = |column: u64| {
        let border = |column: u64| {
            let at = u128::from(segment.size) * u128::from(column) / u128::from(COLUMNS);
            segment.address.saturating_add(at as u64)
        };
        let (from, to) = (border(column), border(column + 1));
        let used = segment.blocks.iter().filter(|block| block.used);
        let used = used.fold(0u128, |sum, block| {
            let end = block.address.saturating_add(block.size).min(to);
            sum + u128::from(end.saturating_sub(block.address.max(from)))
        });
        // Rounded up: what is used at all is seen.
        let eighths = (used * 8).div_ceil(u128::from((to - from).max(1)));
        FULL[eighths.min(8) as usize]
    };
    (0..COLUMNS).map(part).collect()
}

fn words(advice: &Advice) -> String {
    match advice {
        Advice::Expandable { trapped } => format!(
            "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True: {} lie between blocks in {}, from which \
             they cannot go back otherwise",
            bytes(trapped.bytes),
            counted(trapped.count, "segment")
        ),
        Advice::Collect { empty } => format!(
            "garbage_collection_threshold, or torch.cuda.empty_cache(): {} lie in {} without blocks",
            bytes(empty.bytes),
            counted(empty.count, "segment")
        ),
        Advice::MaxSplit { trapped, mib } => format!(
            "max_split_size_mb:{mib}: {} lie in {} that were made for large blocks and are kept by \
             small ones",
            bytes(trapped.bytes),
            counted(trapped.count, "segment")
        ),
        Advice::Trim { pool, unused } => format!(
            "a lower release threshold of pool {pool:#x}, or cuMemPoolTrimTo: it holds {} unused",
            bytes(*unused)
        ),
    }
}

fn summary(out: &mut String, found: &Fragmentation, style: Style) {
    let only = match only(&found.filter, None) {
        words if words.is_empty() => words,
        words => format!(" (only {words})"),
    };
    let free_of = |device: &OfDevice| {
        let pools = device.pools.iter().map(|pool| pool.free());
        added(pools.chain([device.sums.free()]))
    };
    let free = added(found.devices.iter().map(free_of));
    let held = |device: &OfDevice| device.sums.reserved.count > 0 || !device.pools.is_empty();
    let line = if !found.head.saw_memory() {
        style.warn("SUMMARY: no CUDA memory was seen, so nothing can be said about fragmentation")
    } else if found.devices.iter().any(held) {
        let sums = found
            .devices
            .iter()
            .map(|device| device.sums.largest_free)
            .max();
        let largest = match sums.unwrap_or(0) {
            0 => String::new(),
            largest => format!("; the largest free block of PyTorch is {}", bytes(largest)),
        };
        style.strong(&format!(
            "SUMMARY: allocators hold {} without using it{largest}{only}",
            bytes(free)
        ))
    } else {
        style.good(&format!(
            "SUMMARY: no caching allocator or pool holds memory{only}"
        ))
    };
    let _ = writeln!(out, "{line}{}", inexact(&found.head));
}
