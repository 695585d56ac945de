//! How much more fits onto a device.

use crate::analysis::leaks::cached_on;
use crate::model::Process;
use vramtrace_format::account;
use vramtrace_format::record::{Kind, Layer, Op, Record};

/// How it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// By the driver's answer to cuMemGetInfo, and what happened since.
    Asked,
    /// By the device's size; what others hold there, and contexts, is not known.
    Size,
}

/// What is left on a device, at the end of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that the process can still use: free ones, and those that its caching allocators
    /// and pools hold without using them.
    pub free: u64,
    /// The part of it that these hold.
    pub cached: u64,
    /// How it is known.
    pub known: Known,
}

impl Room {
    /// Of a device by its ordinal; `None` where not even its size is known.
    pub fn of(process: &Process, device: u8) -> Option<Room> {
        let cached = cached_on(process, device);
        let row = account::index(device, Layer::Device);
        let live = process.trace.copy.accounts.get(row)?.live_bytes;
        let total = process
            .devices
            .get(&device)
            .map(|device| device.total_bytes);
        let (free, known) = match asked(process, device) {
            Some(free) => (free, Known::Asked),
            None => (
                total.filter(|&total| total > 0)?.saturating_sub(live),
                Known::Size,
            ),
        };
        Some(Room {
            free: free.saturating_add(cached),
            cached,
            known,
        })
    }
}

/// The driver's last answer, less what was allocated since.
fn asked(process: &Process, device: u8) -> Option<u64> {
    let mut free: Option<i128> = None;
    for event in process
        .trace
        .events_of(0)
        .filter(|event| event.device == device)
    {
        if event.op() == Some(Op::MemInfo) {
            free = Some(event.aux.into());
        } else if let Some(free) = &mut free {
            *free -= change(&event);
        }
    }
    Some(free?.clamp(0, u64::MAX.into()) as u64)
}

/// By how many bytes an event changes what the device layer holds.
fn change(event: &Record) -> i128 {
    let counted = |kind: Kind| kind.counted() && kind.layer() == Layer::Device;
    let counted = event.kind().is_some_and(counted);
    let (size, before) = (i128::from(event.size), i128::from(event.aux));
    match event.op().filter(|_| counted) {
        Some(Op::Resize) => size - before,
        Some(op) if op.begins_allocation() => size,
        Some(op) if op.ends_allocation() => -size,
        _ => 0,
    }
}
