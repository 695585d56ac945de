//! Pools that were destroyed while blocks of them were live: such a pool holds its memory until the
//! last block is freed.
//!
//! Which blocks those are the trace itself says. (The driver's count of used bytes is no help: on
//! an H100 a block freed by cuMemFree is never taken off it.) A block is known by its address,
//! which belongs to the pool as long as the block is live.

use super::pools::reserve_is;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use vramtrace_format::record::{Kind, Record};
use vramtrace_recorder::{self as recorder, Renewable};

struct Ending {
    device: u8,
    blocks: Blocks,
}

enum Blocks {
    /// The destroy is under way; numbers of the blocks that were freed meanwhile.
    Unknown(Vec<u64>),
    /// Sizes of the live blocks by address.
    Known(HashMap<u64, u64>),
}

/// By id of the pool. Gauges are changed while it is locked: in the order of the frees.
static ENDING: Renewable<HashMap<u64, Ending>> = Renewable::new();
/// How many there are.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A pool is about to be destroyed.
pub fn begins(pool: u64, device: u8) {
    if let Some(mut ending) = ENDING.lock() {
        let blocks = Blocks::Unknown(Vec::new());
        ending.insert(pool, Ending { device, blocks });
        COUNT.store(ending.len(), Ordering::SeqCst);
    }
}

/// It was, or it was not.
pub fn decided(pool: u64, destroyed: bool) {
    let mut live: Vec<(u64, u64, u64)> = Vec::new();
    if destroyed {
        recorder::each_live(Kind::Async.lane(), &mut |entry| {
            if entry.kind() == Some(Kind::Async) && entry.aux == pool {
                live.push((entry.seq, entry.key, entry.size));
            }
        });
    }
    let Some(mut ending) = ENDING.lock() else {
        return;
    };
    if let Some(known) = ending.get_mut(&pool)
        && destroyed
    {
        let freed = match &known.blocks {
            Blocks::Unknown(freed) => freed.as_slice(),
            Blocks::Known(_) => &[],
        };
        let blocks = live
            .into_iter()
            .filter(|(seq, ..)| !freed.contains(seq))
            .map(|(_, key, size)| (key, size));
        known.blocks = Blocks::Known(blocks.collect());
        settle(&mut ending, pool);
    } else {
        ending.remove(&pool);
    }
    COUNT.store(ending.len(), Ordering::SeqCst);
}

/// The pool holds at least the bytes of its live blocks, and goes with the last one.
fn settle(ending: &mut HashMap<u64, Ending>, pool: u64) {
    let Some(known) = ending.get(&pool) else {
        return;
    };
    if let Blocks::Known(blocks) = &known.blocks {
        reserve_is(pool, known.device, blocks.values().sum());
        if blocks.is_empty() {
            ending.remove(&pool);
        }
    }
}

/// An entry was freed.
#[inline]
pub fn block_freed(entry: &Record) {
    if COUNT.load(Ordering::SeqCst) != 0 && entry.kind() == Some(Kind::Async) {
        changed(entry, true);
    }
}

/// The free of an entry failed.
pub fn block_back(entry: &Record) {
    if COUNT.load(Ordering::SeqCst) != 0 && entry.kind() == Some(Kind::Async) {
        changed(entry, false);
    }
}

#[cold]
fn changed(entry: &Record, freed: bool) {
    let Some(mut ending) = ENDING.lock() else {
        return;
    };
    match ending.get_mut(&entry.aux).map(|known| &mut known.blocks) {
        Some(Blocks::Unknown(numbers)) if freed => numbers.push(entry.seq),
        Some(Blocks::Known(blocks)) if freed => {
            blocks.remove(&entry.key);
        }
        Some(Blocks::Known(blocks)) => {
            blocks.insert(entry.key, entry.size);
        }
        _ => return,
    }
    settle(&mut ending, entry.aux);
    COUNT.store(ending.len(), Ordering::SeqCst);
}

/// A new trace begins.
pub fn start_over() {
    ENDING.renew();
    COUNT.store(0, Ordering::SeqCst);
}
