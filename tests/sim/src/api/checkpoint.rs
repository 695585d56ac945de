//! Process checkpoints, of this process only: lock → checkpoint → restore → unlock. Memory stays
//! where it is; what is simulated is the state machine.

use crate::abi::error::{ILLEGAL_STATE, INVALID_VALUE, NOT_SUPPORTED, R};
use crate::ffi::Out;
use crate::gate::{INIT, driver};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// CUprocessState.
static STATE: AtomicU32 = AtomicU32::new(RUNNING);
const RUNNING: u32 = 0;
const LOCKED: u32 = 1;
const CHECKPOINTED: u32 = 2;

/// Another process's driver cannot be reached from here.
fn own(pid: i32) -> R {
    if pid <= 0 {
        return Err(INVALID_VALUE);
    }
    if pid as u32 == std::process::id() {
        Ok(())
    } else {
        Err(NOT_SUPPORTED)
    }
}

fn step(pid: i32, from: u32, to: u32) -> R {
    own(pid)?;
    STATE
        .compare_exchange(from, to, SeqCst, SeqCst)
        .map(|_| ())
        .map_err(|_| ILLEGAL_STATE)
}

driver! {
    /// The thread that a restore must run on: the main thread.
    [INIT] fn cuCheckpointProcessGetRestoreThreadId(pid: i32, tid: Out<i32>) |_c| {
        own(pid)?;
        tid.set(pid)
    }

    /// Running, locked, checkpointed or failed.
    [INIT] fn cuCheckpointProcessGetState(pid: i32, out: Out<u32>) |_c| {
        own(pid)?;
        out.set(STATE.load(SeqCst))
    }

    /// Running → locked.
    [INIT] fn cuCheckpointProcessLock(pid: i32, args: u64) |_c| {
        let _ = args;
        step(pid, RUNNING, LOCKED)
    }

    /// Locked → checkpointed: a real driver moves device memory to the host now.
    [INIT] fn cuCheckpointProcessCheckpoint(pid: i32, args: u64) |_c| {
        let _ = args;
        step(pid, LOCKED, CHECKPOINTED)
    }

    /// Checkpointed → locked: and back to the device.
    [INIT] fn cuCheckpointProcessRestore(pid: i32, args: u64) |_c| {
        let _ = args;
        step(pid, CHECKPOINTED, LOCKED)
    }

    /// Locked → running.
    [INIT] fn cuCheckpointProcessUnlock(pid: i32, args: u64) |_c| {
        let _ = args;
        step(pid, LOCKED, RUNNING)
    }
}
