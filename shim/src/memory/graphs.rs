//! Graph memory: allocation nodes have a fixed address and are live per launch.
//!
//! What a graph allocates and frees is asked of the driver when the graph is instantiated, which
//! covers captured, hand-built, cloned and nested graphs alike. A launch then takes effect as a
//! whole: what it allocates and does not free itself becomes live, what it frees of others ends.

use super::allocation::Asked;
use super::own_calls::{self, Node};
use super::{Real, SUCCESS, allocation, capture, context, pools, streams};
use crate::hook::Call;
use crate::lifetime;
use std::collections::HashMap;
use std::sync::Arc;
use vramtrace_format::record::{Allocation, GRAPH_POOL, Kind, Space};
use vramtrace_recorder::{self as recorder, FreeToken, Renewable};

/// What one launch of an executable graph does to memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Effect {
    /// Allocated and left live: address, bytes, device.
    leaves: Vec<(u64, u64, u8)>,
    /// Freed, though allocated elsewhere.
    frees: Vec<u64>,
    /// Any allocation node at all: the graph pool may grow.
    allocates: bool,
    /// What it left live is freed by its next launch (CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH).
    frees_own_leavings: bool,
}

static EXECUTABLES: Renewable<HashMap<usize, Arc<Effect>>> = Renewable::new();

/// CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH (cuda.h 11.4).
const AUTO_FREE: u64 = 1;
/// Graphs nested deeper than this are not looked into.
const DEEPEST: usize = 16;

fn effect_of(graph: usize, flags: u64) -> Option<Effect> {
    let mut nodes = Vec::new();
    collect(graph, 0, &mut nodes)?;
    let mut effect = Effect {
        frees_own_leavings: flags & AUTO_FREE != 0,
        ..Effect::default()
    };
    let mut freed: Vec<u64> = Vec::new();
    for node in &nodes {
        match *node {
            Node::Alloc {
                address,
                bytes,
                device,
            } => effect.leaves.push((address, bytes, device)),
            Node::Free { address } => freed.push(address),
            Node::Child { .. } => {}
        }
    }
    effect.allocates = !effect.leaves.is_empty();
    effect.frees = freed
        .iter()
        .copied()
        .filter(|address| !effect.leaves.iter().any(|leaf| leaf.0 == *address))
        .collect();
    effect.leaves.retain(|leaf| !freed.contains(&leaf.0));
    Some(effect)
}

fn collect(graph: usize, depth: usize, into: &mut Vec<Node>) -> Option<()> {
    for node in own_calls::memory_nodes(graph)? {
        match node {
            Node::Child { graph } if depth < DEEPEST => collect(graph, depth + 1, into)?,
            node => into.push(node),
        }
    }
    Some(())
}

/// A graph is instantiated through `real`.
pub fn instantiate(executable: *const usize, graph: usize, flags: u64, real: impl Real) -> u32 {
    let result = real();
    // SAFETY: the program's own out-parameter of the call that came to this result.
    let made = unsafe { allocation::out_of(result, executable) };
    if let Some(executable) = made {
        learn(executable, graph, flags);
    }
    result
}

/// An executable graph takes over another graph's parameters.
pub fn update(executable: usize, graph: usize, real: impl Real) -> u32 {
    let result = real();
    if result == SUCCESS {
        let flags = EXECUTABLES.lock().and_then(|known| {
            Some(u64::from(known.get(&executable)?.frees_own_leavings) * AUTO_FREE)
        });
        learn(executable, graph, flags.unwrap_or(0));
    }
    result
}

fn learn(executable: usize, graph: usize, flags: u64) {
    let effect = effect_of(graph, flags);
    for (.., device) in effect.iter().flat_map(|effect| &effect.leaves) {
        context::device_used(*device);
    }
    let Some(mut known) = EXECUTABLES.lock() else {
        return;
    };
    match effect {
        // Most graphs have nothing to do with memory.
        Some(effect) if effect.allocates || !effect.frees.is_empty() => {
            known.insert(executable, Arc::new(effect));
        }
        Some(_) => {
            known.remove(&executable);
        }
        // A capture is open and the graph frees memory or has a child: the driver must not be asked
        // for that now, and what its launches do will not be seen.
        None => {
            known.remove(&executable);
            drop(known);
            recorder::unrecorded();
        }
    }
}

/// An executable graph is destroyed; what it left live stays live. Forgotten before the call:
/// the moment it returns, another thread may be given the same handle.
pub fn destroy(executable: usize, real: impl Real) -> u32 {
    let effect = EXECUTABLES
        .lock()
        .and_then(|mut known| known.remove(&executable));
    let result = real();
    if result != SUCCESS
        && let Some(effect) = effect
        && let Some(mut known) = EXECUTABLES.lock()
    {
        known.insert(executable, effect);
    }
    result
}

/// A graph is launched through `real`.
#[inline]
pub fn launch(call: &Call, executable: usize, stream: usize, real: impl Real) -> u32 {
    let effect = EXECUTABLES
        .lock()
        .and_then(|known| known.get(&executable).cloned());
    let Some(effect) = effect else { return real() };
    // Launched into a capture it becomes a child graph, and lives when that is launched.
    if capture::makes_nodes(stream) {
        return real();
    }
    take_effect(call, executable, stream, &effect, real)
}

fn take_effect(
    call: &Call,
    executable: usize,
    stream: usize,
    effect: &Effect,
    real: impl Real,
) -> u32 {
    let api = call.api();
    let lane = Kind::Graph.lane();
    let number = streams::number(stream);
    let mut freed: Vec<(u64, FreeToken)> = Vec::new();
    if recorder::is_on() {
        lifetime::watch_teardown();
        for &address in &effect.frees {
            freed.push((
                address,
                recorder::freeing(lane, Space::Device, address, api, number),
            ));
        }
        if effect.frees_own_leavings {
            for (address, ..) in &effect.leaves {
                if recorder::find(lane, Space::Device, *address)
                    .is_some_and(|entry| entry.kind() == Some(Kind::Graph))
                {
                    freed.push((
                        *address,
                        recorder::freeing(lane, Space::Device, *address, api, number),
                    ));
                }
            }
        }
    }
    let result = real();
    for (address, token) in freed {
        allocation::finish_free(call, &token, Space::Device, address, result);
    }
    if result != SUCCESS {
        let asked = Asked {
            kind: Kind::Graph,
            bytes: effect.leaves.iter().map(|leaf| leaf.1).sum(),
            device: effect.leaves.first().map(|leaf| leaf.2),
        };
        allocation::failed(call, asked, result);
        return result;
    }
    if !lifetime::start() {
        return result;
    }
    let stream = streams::of(stream);
    for &(address, bytes, device) in &effect.leaves {
        recorder::allocated(Allocation {
            key: address,
            size: bytes,
            aux: executable as u64,
            context: stream.context,
            stream: stream.number,
            api,
            space: Space::Device,
            kind: Kind::Graph,
            device,
        });
    }
    if effect.allocates {
        let device = effect
            .leaves
            .first()
            .map_or_else(|| context::current().1, |leaf| leaf.2);
        sample_reserve(device);
    }
    result
}

/// What the device's graph pool holds now.
pub fn sample_reserve(device: u8) {
    if let Some(bytes) = own_calls::graph_pool_reserve(device) {
        pools::reserve_is(GRAPH_POOL + u64::from(device), device, bytes);
    }
}

/// A device's graph pool is trimmed through `real`.
pub fn trim(device: i32, real: impl Real) -> u32 {
    let result = real();
    if result == SUCCESS
        && recorder::is_on()
        && let Ok(device) = u8::try_from(device)
    {
        sample_reserve(device);
    }
    result
}

/// This is a forked child: executable graphs of its parent do not exist here.
pub fn start_over() {
    EXECUTABLES.renew();
}
