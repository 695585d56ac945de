//! Frees, recorded before the real call and taken back if that fails.

use crate::ledger::By;
use crate::process;
use crate::recorder::event;
use crate::turn::{self, Request, guarded, leave, unmatched, with};
use crate::waiting::Ticket;
use vramtrace_format::record::{Op, Record, Space};

/// What is needed to take a free back.
#[derive(Clone, Copy, Debug)]
pub struct FreeToken {
    fate: Fate,
    /// What was freed, if its fate says so.
    entry: Record,
}

/// Where the record of a free is.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// In the trace.
    Recorded,
    /// In the trace: nothing was live.
    Unmatched,
    /// In the slow lane.
    Waits { lane: usize, ticket: Ticket },
    /// Nowhere: the lane was full.
    Lost { lane: usize },
    /// Not known: the recorder failed.
    Unknown,
}

impl FreeToken {
    /// The entry that was freed, if it is known.
    #[inline(always)]
    pub fn entry(&self) -> Option<&Record> {
        matches!(self.fate, Fate::Recorded).then_some(&self.entry)
    }

    /// The free is not in the trace yet, or never will be: whether anything was live is not known.
    pub fn waits(&self) -> bool {
        !matches!(self.fate, Fate::Recorded | Fate::Unmatched)
    }
}

/// Records, **before** the real call, that the allocation at a key is being freed: the moment the
/// call returns, another thread may be given the same address. Looks in `lane` first, then in the
/// other.
#[inline(always)]
pub fn freeing(lane: usize, space: Space, key: u64, api: u16, stream: u32) -> FreeToken {
    ending(lane, space, key, Op::Free, api, stream)
}

/// As [`freeing`], for any way in which an allocation can end.
#[inline(always)]
pub fn ending(lane: usize, space: Space, key: u64, how: Op, api: u16, stream: u32) -> FreeToken {
    let by = By {
        how,
        api,
        thread: process::thread_id(),
        stream,
    };
    let mut token = FreeToken {
        fate: Fate::Unknown,
        entry: Record::default(),
    };
    guarded(|| {
        let found = with(|ledger| ledger.freed(lane, space, key, by, &mut token.entry));
        token.fate = match found {
            Some(true) => Fate::Recorded,
            Some(false) => Fate::Unmatched,
            None => {
                let ticket = Ticket::new();
                let request = Request::Freed {
                    lane,
                    space,
                    key,
                    by,
                    ticket,
                };
                if leave(request, lane) {
                    Fate::Waits { lane, ticket }
                } else {
                    Fate::Lost { lane }
                }
            }
        };
    });
    token
}

/// The real free failed: puts the entry back unchanged and records the failure.
#[cold]
pub fn free_failed(token: &FreeToken, space: Space, key: u64, api: u16, error: u64) {
    guarded(|| {
        let thread = process::thread_id();
        let known = token.entry();
        let entry = known.copied().unwrap_or_default();
        if known.is_some() && with(|ledger| ledger.restore(&entry)).is_none() {
            leave(Request::Restore(entry), entry.lane());
        }
        match token.fate {
            Fate::Waits { lane, ticket } => {
                if with(|ledger| turn::free_failed(ledger, lane, ticket)).is_none() {
                    leave(Request::FreeFailed { lane, ticket }, lane);
                }
            }
            Fate::Lost { lane } => turn::nothing_lost(lane),
            Fate::Recorded | Fate::Unmatched | Fate::Unknown => {}
        }
        event(&Record {
            op: Op::FreeFailed as u8,
            space: space as u8,
            kind: entry.kind.max(1),
            device: if known.is_some() {
                entry.device
            } else {
                vramtrace_format::record::NO_DEVICE
            },
            context: entry.context,
            key,
            size: entry.size,
            aux: error,
            api,
            thread,
            ..Record::default()
        });
    });
}

/// The real free of something that was not in the live set succeeded.
#[cold]
pub fn free_unmatched(space: Space, key: u64, api: u16) {
    guarded(|| {
        let thread = process::thread_id();
        with(|ledger| unmatched(ledger, space, key, api, thread));
    });
}

#[cfg(test)]
mod tests;
