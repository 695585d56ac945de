//! Virtual memory management: physical allocations, the handles that refer to them, and where
//! they are mapped.
//!
//! Bytes are charged when physical memory is created and end when neither a handle nor a mapping
//! refers to it any more; releasing the handle while mapped is the normal way of use. Handles
//! are driver heap pointers and come back for other allocations, so an allocation is known by an
//! id of ours.

use super::allocation::{self, New};
use super::{Real, SUCCESS, context, errors};
use crate::hook::Call;
use crate::lifetime;
use std::collections::{BTreeMap, HashMap};
use vramtrace_format::record::{Kind, NO_DEVICE, Space};
use vramtrace_recorder::{self as recorder, FreeToken, Renewable};

/// One physical allocation (or somebody else's, imported; or a multicast object).
#[derive(Clone, Copy, Debug)]
struct Physical {
    /// References by handles.
    handles: u64,
    /// References by mappings.
    mappings: u64,
}

#[derive(Clone, Copy, Debug)]
struct Mapping {
    size: u64,
    id: u64,
}

#[derive(Default)]
struct Vmm {
    physical: HashMap<u64, Physical>,
    /// Which allocation a handle refers to now.
    handles: HashMap<u64, u64>,
    /// Mappings by address.
    mappings: BTreeMap<u64, Mapping>,
    last_id: u64,
}

static VMM: Renewable<Vmm> = Renewable::new();

/// CU_MEM_LOCATION_TYPE_DEVICE (cuda.h); other types are host memory.
const LOCATION_DEVICE: u32 = 1;

/// Physical memory is created. `properties` is the program's CUmemAllocationProp: location type
/// at byte 8, location id at byte 12.
pub fn create(
    call: &Call,
    handle: *const u64,
    bytes: u64,
    properties: *const u32,
    real: impl Real,
) -> u32 {
    let result = real();
    if result != SUCCESS {
        allocation::failed(call, Kind::Vmm, bytes, result);
        return result;
    }
    // SAFETY: the program's parameters of a call that succeeded, so both are valid.
    let (handle, kind, place) = unsafe {
        let Some(handle) = allocation::out(handle) else {
            return result;
        };
        if properties.is_null() {
            return result;
        }
        (
            handle,
            properties.add(2).read_unaligned(),
            properties.add(3).read_unaligned(),
        )
    };
    if lifetime::start() {
        let device = if kind == LOCATION_DEVICE {
            place as u8
        } else {
            NO_DEVICE
        };
        if device != NO_DEVICE {
            context::device_used(device);
        }
        let (context, _) = context::current();
        let id = adopt(handle);
        // Host-located physical memory is page-locked host memory.
        let kind = if device == NO_DEVICE {
            Kind::Pinned
        } else {
            Kind::Vmm
        };
        let new = New {
            kind,
            space: Space::Vmm,
            key: id,
            size: bytes,
            aux: handle,
        };
        allocation::record(call, &new, context, device);
    }
    result
}

/// A handle to somebody else's physical memory, or to a multicast object: never ours to charge.
pub fn import(call: &Call, handle: *const u64, bytes: u64, real: impl Real) -> u32 {
    let result = real();
    if result == SUCCESS && lifetime::start() {
        // SAFETY: the program's out-parameter of a call that succeeded.
        if let Some(handle) = unsafe { allocation::out(handle) } {
            let (context, device) = context::current();
            let id = adopt(handle);
            let new = New {
                kind: Kind::Import,
                space: Space::Vmm,
                key: id,
                size: bytes,
                aux: handle,
            };
            allocation::record(call, &new, context, device);
        }
    } else {
        errors::look_at(result, call.api());
    }
    result
}

/// A new allocation behind a handle; its id.
fn adopt(handle: u64) -> u64 {
    let Some(mut vmm) = VMM.lock() else { return 0 };
    vmm.last_id += 1;
    let id = vmm.last_id;
    vmm.physical.insert(
        id,
        Physical {
            handles: 1,
            mappings: 0,
        },
    );
    vmm.handles.insert(handle, id);
    id
}

/// What dropping a reference came to.
enum Dropped {
    /// Somebody still refers to it.
    Remains,
    /// That was the last one.
    Last(u64),
}

impl Vmm {
    fn drop_reference(&mut self, id: u64, mapping: bool) -> Dropped {
        let Some(physical) = self.physical.get_mut(&id) else {
            return Dropped::Remains;
        };
        let count = if mapping {
            &mut physical.mappings
        } else {
            &mut physical.handles
        };
        *count = count.saturating_sub(1);
        if physical.handles == 0 && physical.mappings == 0 {
            self.physical.remove(&id);
            Dropped::Last(id)
        } else {
            Dropped::Remains
        }
    }
}

/// A handle reference is released.
pub fn release(call: &Call, handle: u64, real: impl Real) -> u32 {
    if !recorder::is_on() {
        return real();
    }
    lifetime::watch_teardown();
    let mut undo = None;
    let mut ended = None;
    if let Some(mut vmm) = VMM.lock()
        && let Some(id) = vmm.handles.get(&handle).copied()
    {
        undo = vmm.physical.get(&id).map(|physical| (id, *physical));
        if let Dropped::Last(id) = vmm.drop_reference(id, false) {
            vmm.handles.remove(&handle);
            ended = Some(id);
        } else if vmm
            .physical
            .get(&id)
            .is_some_and(|physical| physical.handles == 0)
        {
            vmm.handles.remove(&handle);
        }
    }
    let token = ended.map(|id| {
        (
            id,
            recorder::freeing(Kind::Vmm.lane(), Space::Vmm, id, call.api(), 0),
        )
    });
    let result = real();
    if result != SUCCESS
        && let Some((id, physical)) = undo
        && let Some(mut vmm) = VMM.lock()
    {
        vmm.physical.insert(id, physical);
        vmm.handles.insert(handle, id);
    }
    if let Some((id, token)) = token {
        allocation::finish_free(call, &token, Space::Vmm, id, result);
    } else {
        errors::look_at(result, call.api());
    }
    result
}

/// One more handle reference, to what is mapped at an address.
pub fn retain(call: &Call, handle: *const u64, address: u64, real: impl Real) -> u32 {
    let result = real();
    errors::look_at(result, call.api());
    // SAFETY: the program's own out-parameter of the call that came to this result.
    let made = unsafe { allocation::out_of(result, handle) };
    if let Some(handle) = made
        && recorder::is_on()
        && let Some(mut vmm) = VMM.lock()
    {
        let covering = vmm
            .mappings
            .range(..=address)
            .next_back()
            .map(|(start, mapping)| (*start, *mapping));
        if let Some((start, mapping)) = covering
            && address < start + mapping.size
        {
            if let Some(physical) = vmm.physical.get_mut(&mapping.id) {
                physical.handles += 1;
            }
            vmm.handles.insert(handle, mapping.id);
        }
    }
    result
}

/// Physical memory is mapped at an address.
pub fn map(call: &Call, address: u64, size: u64, handle: u64, real: impl Real) -> u32 {
    let result = real();
    errors::look_at(result, call.api());
    if result == SUCCESS && lifetime::start() {
        let id = VMM.lock().and_then(|mut vmm| {
            let id = vmm.handles.get(&handle).copied()?;
            vmm.physical.get_mut(&id)?.mappings += 1;
            vmm.mappings.insert(address, Mapping { size, id });
            Some(id)
        });
        let (context, device) = context::current();
        let owner = id.and_then(|id| recorder::find(Kind::Vmm.lane(), Space::Vmm, id));
        let device = owner.map_or(device, |owner| owner.device);
        let new = New {
            kind: Kind::Mapping,
            space: Space::Mapping,
            key: address,
            size,
            aux: id.unwrap_or(0),
        };
        allocation::record(call, &new, context, device);
    }
    result
}

/// Everything mapped in a range is unmapped. The driver takes only whole mappings.
pub fn unmap(call: &Call, address: u64, size: u64, real: impl Real) -> u32 {
    if !recorder::is_on() {
        return real();
    }
    lifetime::watch_teardown();
    let mut gone: Vec<(u64, Mapping)> = Vec::new();
    let mut before: Vec<(u64, Option<Physical>)> = Vec::new();
    let mut ended = Vec::new();
    if let Some(mut vmm) = VMM.lock() {
        let end = address.saturating_add(size);
        gone = vmm
            .mappings
            .range(address..end)
            .filter(|(start, mapping)| start.saturating_add(mapping.size) <= end)
            .map(|(start, mapping)| (*start, *mapping))
            .collect();
        for (start, mapping) in &gone {
            before.push((mapping.id, vmm.physical.get(&mapping.id).copied()));
            vmm.mappings.remove(start);
            if let Dropped::Last(id) = vmm.drop_reference(mapping.id, true) {
                ended.push(id);
            }
        }
    }
    let api = call.api();
    let lane = Kind::Vmm.lane();
    let mappings: Vec<(u64, FreeToken)> = gone
        .iter()
        .map(|(start, _)| {
            (
                *start,
                recorder::freeing(lane, Space::Mapping, *start, api, 0),
            )
        })
        .collect();
    let memory: Vec<(u64, FreeToken)> = ended
        .iter()
        .map(|id| (*id, recorder::freeing(lane, Space::Vmm, *id, api, 0)))
        .collect();
    let result = real();
    if result != SUCCESS
        && let Some(mut vmm) = VMM.lock()
    {
        for ((start, mapping), (id, physical)) in gone.iter().zip(&before).rev() {
            vmm.mappings.insert(*start, *mapping);
            if let Some(physical) = physical {
                vmm.physical.insert(*id, *physical);
            }
        }
    }
    for (start, token) in mappings {
        allocation::finish_free(call, &token, Space::Mapping, start, result);
    }
    for (id, token) in memory {
        allocation::finish_free(call, &token, Space::Vmm, id, result);
    }
    result
}

/// A range of addresses is reserved; it holds no memory.
pub fn reserve(call: &Call, address: *const u64, size: u64, real: impl Real) -> u32 {
    let result = real();
    // SAFETY: the program's own out-parameter of the call that came to this result.
    let made = unsafe { allocation::out_of(result, address) };
    if let Some(address) = made
        && lifetime::start()
    {
        let (context, device) = context::current();
        let new = New {
            kind: Kind::Reservation,
            space: Space::Reservation,
            key: address,
            size,
            aux: 0,
        };
        allocation::record(call, &new, context, device);
    }
    result
}

/// A new trace begins.
pub fn start_over() {
    VMM.renew();
}
