//! Memory that is made visible to other processes. Its bytes stay with this one; but who imports
//! it, or holds a descriptor of it, keeps it from going when this process lets go of it.

use super::{Real, SUCCESS, errors, pools, vmm};
use crate::hook::Call;
use vramtrace_format::record::{Kind, NO_DEVICE, Op, Record, Space};
use vramtrace_recorder as recorder;

/// What is exported, and by what means: `aux` of [`Op::Exported`].
#[derive(Clone, Copy, Debug)]
pub enum Export {
    /// The allocation at an address, by an IPC handle.
    Ipc(u64),
    /// Physical memory, by a shareable handle.
    Physical(u64),
    /// A pool, by a shareable handle.
    Pool(usize),
    /// A block of a pool, for who imported that.
    Block(u64),
}

/// Makes the real call, and records what it exported.
pub fn exported(call: &Call, what: Export, real: impl Real) -> u32 {
    let result = real();
    errors::look_at(result, call.api());
    if result == SUCCESS && recorder::is_on() {
        let (means, mut event) = describe(what);
        event.op = Op::Exported as u8;
        event.api = call.api();
        event.aux = means;
        recorder::event_with_stack(&event);
    }
    result
}

fn describe(what: Export) -> (u64, Record) {
    match what {
        Export::Ipc(address) => (1, entry(Kind::Device, Space::Device, address)),
        Export::Physical(handle) => {
            let id = vmm::id_of(handle).unwrap_or(0);
            (2, entry(Kind::Vmm, Space::Vmm, id))
        }
        Export::Pool(handle) => {
            let id = pools::id_of(handle).unwrap_or(0);
            (3, entry(Kind::Pool, Space::Pool, id))
        }
        Export::Block(address) => (4, entry(Kind::Async, Space::Device, address)),
    }
}

/// The live entry at a key, or the key alone.
fn entry(kind: Kind, space: Space, key: u64) -> Record {
    recorder::find(kind.lane(), space, key).unwrap_or(Record {
        key,
        space: space as u8,
        kind: kind as u8,
        device: NO_DEVICE,
        ..Record::default()
    })
}
