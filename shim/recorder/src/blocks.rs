//! Blocks that a framework's allocator hands out of memory that it holds, each with what the
//! allocator says of itself at that moment.

use crate::ledger::By;
pub use crate::ledger::Holds;
use crate::process;
use crate::recorder::{allocated_and, event_with_stack};
use crate::snapshot::{self, OutOfMemory};
use crate::turn::{Request, guarded, leave, with};
use crate::waiting::Ticket;
use vramtrace_format::record::{Allocation, Kind, Op, Record, Space};

/// A block of PyTorch's caching allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its address.
    pub address: u64,
    /// Its bytes, as the allocator rounds them.
    pub bytes: u64,
    /// Its device's ordinal.
    pub device: u8,
}

/// A block was handed out; the allocator says what it holds, this block included.
#[inline(always)]
pub fn block_handed_out(block: Block, holds: Holds) {
    let allocation = Allocation {
        key: block.address,
        size: block.bytes,
        aux: 0,
        context: 0,
        stream: 0,
        api: 0,
        space: Space::Torch,
        kind: Kind::Torch,
        device: block.device,
    };
    allocated_and(allocation, |ledger| ledger.reported(block.device, holds));
}

/// A block was given back; the allocator says what it holds, this block not included.
#[inline(always)]
pub fn block_given_back(block: Block, holds: Holds) {
    const LANE: usize = Kind::Torch.lane();
    let thread = process::thread_id();
    let by = By {
        how: Op::Free,
        api: 0,
        thread,
        stream: 0,
    };
    guarded(|| {
        let mut entry = Record::default();
        let recorded = with(|ledger| {
            if !ledger.freed(LANE, Space::Torch, block.address, by, &mut entry) {
                ledger.event(unmatched(block, thread));
            }
            ledger.reported(block.device, holds);
        });
        if recorded.is_none() {
            let request = Request::Freed {
                lane: LANE,
                space: Space::Torch,
                key: block.address,
                by,
                ticket: Ticket::new(),
            };
            leave(request, LANE);
        }
    });
}

/// A block that was handed out before anything was recorded, or whose event was lost. It counts
/// where it was, so that those of a process that was attached to late push nothing out of the
/// device layer's log.
#[cold]
fn unmatched(block: Block, thread: u32) -> Record {
    Record {
        op: Op::FreeUnmatched as u8,
        space: Space::Torch as u8,
        kind: Kind::Torch as u8,
        device: block.device,
        key: block.address,
        size: block.bytes,
        thread,
        ..Record::default()
    }
}

/// The allocator gave up: `asked` bytes were not to be had on a device, where it had handed out
/// `allocated` bytes of the `reserved` ones that it had.
#[cold]
pub fn framework_out_of_memory(asked: u64, device: u8, allocated: u64, reserved: u64) {
    let event = event_with_stack(&Record {
        op: Op::FrameworkOom as u8,
        space: Space::Torch as u8,
        kind: Kind::Torch as u8,
        device,
        size: asked,
        key: allocated,
        aux: reserved,
        ..Record::default()
    });
    snapshot::out_of_memory(OutOfMemory {
        event,
        asked,
        framework: true,
    });
}
