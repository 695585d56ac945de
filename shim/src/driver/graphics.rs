//! Graphics interoperability: memory that belongs to the graphics API, visible while mapped.

use super::Handle;
use crate::hook::{Call, driver_hooks};
use crate::memory::allocation::{self, out};
use crate::memory::{Real, SUCCESS, imports};
use vramtrace_format::record::{Kind, Space};

/// Address and size of a mapped buffer. The resource is the key: asking twice gives the same one.
fn mapped(call: &Call, resource: Handle, size: impl Fn() -> Option<u64>, real: impl Real) -> u32 {
    let result = real();
    if result == SUCCESS
        && crate::lifetime::start()
        && vramtrace_recorder::find(Kind::Import.lane(), Space::Import, resource as u64).is_none()
    {
        imports::import(call, Space::Import, resource as u64, size().unwrap_or(0), 0);
    }
    result
}

/// The resources' mappings end.
fn unmap(call: &Call, count: u32, resources: *const usize, real: impl Real) -> u32 {
    let mut real = Some(real);
    let listed = if resources.is_null() {
        0
    } else {
        count.min(4096) as usize
    };
    let mut result = None;
    for at in 0..listed {
        // SAFETY: the program's array of `count` resources.
        let resource = unsafe { resources.add(at).read_unaligned() } as u64;
        let known = vramtrace_recorder::is_on()
            && vramtrace_recorder::find(Kind::Import.lane(), Space::Import, resource).is_some();
        if known {
            // The first known one carries the real call; the others follow its outcome.
            let outcome = result;
            let call_once = real.take();
            result = Some(allocation::free(
                call,
                Kind::Import.lane(),
                Space::Import,
                resource,
                0,
                || call_once.map_or(outcome.unwrap_or(SUCCESS), |real| real()),
            ));
        }
    }
    match (result, real) {
        (Some(result), _) => result,
        (None, Some(real)) => real(),
        (None, None) => SUCCESS,
    }
}

driver_hooks! { HOOKS:
    fn cuGraphicsMapResources(count: u32, resources: *mut usize, stream: Handle)
        = |_call, real| real();
    fn cuGraphicsMapResources_ptsz(count: u32, resources: *mut usize, stream: Handle)
        = |_call, real| real();
    fn cuGraphicsUnmapResources(count: u32, resources: *mut usize, stream: Handle)
        = |call, real| unmap(call, count, resources, real);
    fn cuGraphicsUnmapResources_ptsz(count: u32, resources: *mut usize, stream: Handle)
        = |call, real| unmap(call, count, resources, real);
    fn cuGraphicsUnregisterResource(resource: Handle)
        = |call, real| {
            let one = resource as usize;
            unmap(call, 1, &one, real)
        };
    fn cuGraphicsResourceGetMappedPointer(address: *mut u32, size: *mut u32, resource: Handle)
        // SAFETY: the program's out-parameter; read only after success.
        = |call, real| mapped(call, resource, || unsafe { out(size) }.map(u64::from), real);
    fn cuGraphicsResourceGetMappedPointer_v2(address: *mut u64, size: *mut usize, resource: Handle)
        // SAFETY: as above.
        = |call, real| mapped(call, resource, || unsafe { out(size) }.map(|s| s as u64), real);
}
