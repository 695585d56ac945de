//! Checkpoints: device memory moves to the host and back. A mark in the trace, no frees.

use super::Handle;
use crate::hook::{Call, driver_hooks};
use crate::memory::{Real, SUCCESS};
use vramtrace_format::record::{Op, Record};
use vramtrace_recorder as recorder;

fn step(call: &Call, which: u64, pid: i32, real: impl Real) -> u32 {
    let result = real();
    if result == SUCCESS && recorder::is_on() {
        recorder::event(&Record {
            op: Op::Checkpoint as u8,
            aux: which,
            key: pid as u64,
            api: call.api(),
            ..Record::default()
        });
    }
    result
}

driver_hooks! { HOOKS:
    fn cuCheckpointProcessLock(pid: i32, arguments: Handle)
        = |call, real| step(call, 1, pid, real);
    fn cuCheckpointProcessCheckpoint(pid: i32, arguments: Handle)
        = |call, real| step(call, 2, pid, real);
    fn cuCheckpointProcessRestore(pid: i32, arguments: Handle)
        = |call, real| step(call, 3, pid, real);
    fn cuCheckpointProcessUnlock(pid: i32, arguments: Handle)
        = |call, real| step(call, 4, pid, real);
    fn cuCheckpointOperationComplete(operation: Handle)
        = |call, real| step(call, 5, 0, real);
}
