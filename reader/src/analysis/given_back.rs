//! What a process freed before it ended: where that is most of it, its end says little about it.
//!
//! A training loop's list of losses is a local variable: what it kept alive is gone when its function
//! returns, and neither the end nor an interpreter's teardown sees any of it.

use super::Filter;
use super::leaks::{Point, Window, items};
use crate::model::Process;
use rustc_hash::FxHashMap;
use vramtrace_format::record::Layer;

/// Less than this is not worth a word, bytes.
const LITTLE: u64 = 16 << 20;

/// Most of what was live at a device's peak was freed before the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenBack {
    /// Device ordinal.
    pub device: u8,
    /// Framework, where one is known there; else device.
    pub layer: Layer,
    /// Bytes live at that layer's peak.
    pub peak_bytes: u64,
    /// When that was, event time.
    pub peak_time: u64,
    /// Bytes of that layer that were live when the process ended, or began to go down.
    pub held_bytes: u64,
}

/// Of the device that gave back most; `None` if the process goes on, or none gave back as much as it kept.
pub fn given_back(process: &Process) -> Option<GivenBack> {
    if process.state.goes_on() {
        return None;
    }
    let whole = Window::default();
    let point = Point::suiting(process, None, &whole);
    let mut held: FxHashMap<(u8, Layer), u64> = FxHashMap::default();
    items(process, point, &whole, &Filter::default(), |item| {
        let sum = held.entry((item.device, item.kind.layer())).or_default();
        *sum = sum.saturating_add(item.bytes);
    });
    let mut peaks: FxHashMap<u8, GivenBack> = FxHashMap::default();
    for (device, layer, account) in process.accounts() {
        let (Some(device), true) = (device, layer != Layer::Host && account.peak_bytes > 0) else {
            continue;
        };
        let this = GivenBack {
            device,
            layer,
            peak_bytes: account.peak_bytes,
            peak_time: account.peak_time,
            held_bytes: held.get(&(device, layer)).copied().unwrap_or(0),
        };
        let one = peaks.entry(device).or_insert(this);
        if layer == Layer::Framework {
            *one = this;
        }
    }
    let back = |one: &GivenBack| one.peak_bytes.saturating_sub(one.held_bytes);
    peaks
        .into_values()
        .filter(|one| back(one) >= one.held_bytes && back(one) >= LITTLE)
        .max_by_key(|one| (back(one), one.device))
}
