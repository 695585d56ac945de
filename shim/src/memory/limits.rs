//! Limits of contexts: sizes of stacks, of the printf buffer and of the heap that kernels allocate
//! from. The driver takes that memory for itself; what a change costs is what the device's free
//! memory says before and after.

use super::{Real, SUCCESS, context, errors, footprint, own_calls};
use crate::hook::Call;
use vramtrace_format::footprint::Part;
use vramtrace_format::record::{Op, Record};
use vramtrace_recorder as recorder;

/// A limit of the current context is set through `real`.
pub fn set(call: &Call, limit: u32, value: u64, real: impl Real) -> u32 {
    if !recorder::is_on() {
        return real();
    }
    let before = own_calls::memory_info();
    let (result, _) = footprint::around(Part::Limit, real);
    errors::look_at(result, call.api());
    if result != SUCCESS {
        return result;
    }
    let (context, device) = context::current();
    let event = |op: Op, key: u64, size: u64, aux: u64| {
        recorder::event(&Record {
            op: op as u8,
            key,
            size,
            aux,
            context,
            device,
            api: call.api(),
            ..Record::default()
        });
    };
    if let Some((free, total)) = before {
        event(Op::MemInfo, 0, total, free);
    }
    event(Op::LimitSet, limit.into(), value, 0);
    if let Some((free, total)) = own_calls::memory_info() {
        event(Op::MemInfo, 0, total, free);
    }
    result
}
