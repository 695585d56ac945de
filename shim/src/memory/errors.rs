//! Errors of the driver that mean something for memory.

use super::context;
use std::collections::BTreeSet;
use vramtrace_format::Record;
use vramtrace_format::cold::{Cold, Note};
use vramtrace_format::record::Op;
use vramtrace_recorder::{self as recorder, Renewable};

/// CUDA_ERROR_OUT_OF_MEMORY (cuda.h).
pub const OUT_OF_MEMORY: u32 = 2;
/// CUDA_ERROR_DEINITIALIZED: the driver is shutting down, and with it everything.
pub const DEINITIALIZED: u32 = 4;

/// After such an error the context is lost: every further call fails, frees included (cuda.h:
/// "the process must be terminated"; seen for 719 on an H100).
pub const fn is_sticky(error: u32) -> bool {
    matches!(
        error,
        214 | 220 | 226 | 700 | 702 | 710 | 714..=719 | 721 | 722
    )
}

/// Contexts already known to be corrupted, by id.
static CORRUPTED: Renewable<BTreeSet<u16>> = Renewable::new();

/// Looks at the result of any hooked call; the first sticky error of a context becomes an event.
#[inline]
pub fn look_at(result: u32, api: u16) {
    if result != 0 && is_sticky(result) {
        corrupted(result, api);
    }
}

#[cold]
fn corrupted(error: u32, api: u16) {
    if !recorder::is_on() {
        return;
    }
    let (context, device) = context::current();
    let first = CORRUPTED
        .lock()
        .is_some_and(|mut corrupted| corrupted.insert(context));
    if first {
        recorder::event(&Record {
            op: Op::ContextCorrupted as u8,
            context,
            device,
            aux: u64::from(error),
            api,
            ..Record::default()
        });
        // The event may be pushed out of its ring; this is not.
        recorder::cold(&Cold::Note(Note {
            code: format!("context-corrupted:{context}"),
            text: format!(
                "context {context} failed for good with error {error}: nothing in it can be freed any more"
            ),
        }));
    }
}

/// A primary context was reset: what goes wrong in it from now on is news again.
pub fn context_is_new(context: u16) {
    if let Some(mut corrupted) = CORRUPTED.lock() {
        corrupted.remove(&context);
    }
}

/// A new trace begins.
pub fn start_over() {
    CORRUPTED.renew();
}
