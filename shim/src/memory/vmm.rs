//! Virtual memory management: physical allocations, the handles that refer to them, and where
//! they are mapped.
//!
//! Bytes are charged when physical memory is created and end when neither a handle nor a mapping
//! refers to it any more; releasing the handle while mapped is the normal way of use. Handles
//! are driver heap pointers and come back for other allocations, so an allocation is known by an
//! id of ours.
//!
//! Two rules keep the counts right whatever other threads do meanwhile, with nothing to put back
//! from memory when a call fails. A reference is *taken* before the call that makes it and dropped
//! again if that fails: nobody can end the memory in between. A reference is *dropped* after the
//! call that ended it: ids are never used twice, so there is no hurry. Only a mapping's address
//! comes back at once, so its entry goes before the call.

use super::allocation::{self, Asked, New};
use super::{Again, Real, SUCCESS, bindings, context, errors};
use crate::hook::Call;
use crate::lifetime;
use std::collections::{BTreeMap, HashMap};
use std::ops::DerefMut;
use vramtrace_format::record::{Kind, NO_DEVICE, Record, Space};
use vramtrace_recorder::{self as recorder, FreeToken, Renewable};

/// One physical allocation (or somebody else's, imported; or a multicast object).
#[derive(Clone, Copy, Debug, Default)]
struct Physical {
    /// References by handles.
    handles: u64,
    /// References by mappings and bindings, and by calls that are about to make a reference.
    uses: u64,
}

/// What a handle's number stands for now.
#[derive(Clone, Copy, Debug)]
struct Named {
    id: u64,
    /// How many of the allocation's references are held under this number.
    count: u64,
}

#[derive(Clone, Copy, Debug)]
struct Mapping {
    size: u64,
    id: u64,
}

#[derive(Default)]
struct Vmm {
    physical: HashMap<u64, Physical>,
    handles: HashMap<u64, Named>,
    /// Mappings by address.
    mappings: BTreeMap<u64, Mapping>,
    last_id: u64,
}

static VMM: Renewable<Vmm> = Renewable::new();

/// The table; where it cannot be had, the counts are not right any more.
fn table() -> Option<impl DerefMut<Target = Vmm>> {
    let table = VMM.lock();
    if table.is_none() {
        recorder::unrecorded();
    }
    table
}

/// CU_MEM_LOCATION_TYPE_DEVICE (cuda.h); other types are host memory.
const LOCATION_DEVICE: u32 = 1;

/// Where memory with these properties, which the driver has read, is: a device, or the host.
fn place_of(properties: *const u32) -> Option<u8> {
    if properties.is_null() {
        return None;
    }
    // SAFETY: the program's parameter of a call that came to its end: the driver has read it.
    let (kind, place) = unsafe {
        (
            properties.add(2).read_unaligned(),
            properties.add(3).read_unaligned(),
        )
    };
    Some(if kind == LOCATION_DEVICE {
        place as u8
    } else {
        NO_DEVICE
    })
}

/// Physical memory is created. `properties` is the program's CUmemAllocationProp: location type
/// at byte 8, location id at byte 12.
pub fn create(
    call: &Call,
    handle: *const u64,
    bytes: u64,
    properties: *const u32,
    real: impl Again,
) -> u32 {
    let mut result = real();
    if result != SUCCESS {
        let asked = Asked {
            kind: Kind::Vmm,
            bytes,
            device: place_of(properties),
        };
        result = allocation::refused(call, asked, result, &real);
    }
    if result != SUCCESS {
        return result;
    }
    // SAFETY: the program's out-parameter of a call that succeeded.
    let handle = unsafe { allocation::out(handle) };
    let (Some(handle), Some(device)) = (handle, place_of(properties)) else {
        return result;
    };
    if lifetime::start() {
        if device != NO_DEVICE {
            context::device_used(device);
        }
        let (context, _) = context::current();
        let Some(id) = adopt(handle) else {
            return result;
        };
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
            let Some(id) = adopt(handle) else {
                return result;
            };
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
fn adopt(handle: u64) -> Option<u64> {
    let mut vmm = table()?;
    vmm.last_id += 1;
    let id = vmm.last_id;
    let first = Physical {
        handles: 1,
        uses: 0,
    };
    vmm.physical.insert(id, first);
    vmm.handles.insert(handle, Named { id, count: 1 });
    Some(id)
}

impl Vmm {
    /// One more use of what a handle stands for.
    fn use_handle(&mut self, handle: u64) -> Option<u64> {
        let id = self.handles.get(&handle)?.id;
        self.physical.get_mut(&id)?.uses += 1;
        Some(id)
    }

    /// One more use of what is mapped at an address.
    fn use_address(&mut self, address: u64) -> Option<u64> {
        let (start, mapping) = self.mappings.range(..=address).next_back()?;
        let id = (address - start < mapping.size).then_some(mapping.id)?;
        self.physical.get_mut(&id)?.uses += 1;
        Some(id)
    }

    /// One use less; true if that was the last reference.
    fn drop_use(&mut self, id: u64) -> bool {
        self.drop_reference(id, |physical| &mut physical.uses)
    }

    /// One more reference by a handle.
    fn name(&mut self, handle: u64, id: u64) {
        if let Some(physical) = self.physical.get_mut(&id) {
            physical.handles += 1;
            let named = self.handles.entry(handle).or_insert(Named { id, count: 0 });
            if named.id != id {
                *named = Named { id, count: 0 };
            }
            named.count += 1;
        }
    }

    /// One reference by a handle less; true if that was the last reference of any kind. The
    /// handle's number may stand for another allocation by now: it is given out again at once.
    fn drop_handle(&mut self, handle: u64, id: u64) -> bool {
        if let Some(named) = self.handles.get_mut(&handle).filter(|named| named.id == id) {
            named.count -= 1;
            if named.count == 0 {
                self.handles.remove(&handle);
            }
        }
        self.drop_reference(id, |physical| &mut physical.handles)
    }

    fn drop_reference(&mut self, id: u64, which: impl Fn(&mut Physical) -> &mut u64) -> bool {
        let Some(physical) = self.physical.get_mut(&id) else {
            return false;
        };
        let count = which(physical);
        *count = count.saturating_sub(1);
        let last = physical.handles == 0 && physical.uses == 0;
        if last {
            self.physical.remove(&id);
        }
        last
    }
}

/// Whether the reference that a call was to end is gone: a driver that is shutting down has taken
/// everything with it.
fn is_gone(result: u32) -> bool {
    matches!(result, SUCCESS | errors::DEINITIALIZED)
}

/// The id of what a handle stands for.
pub fn id_of(handle: u64) -> Option<u64> {
    Some(table()?.handles.get(&handle)?.id)
}

/// One more use of what a handle stands for; its id.
pub fn use_handle(handle: u64) -> Option<u64> {
    table()?.use_handle(handle)
}

/// One more use of everything that is mapped in a range; the ids.
pub fn use_range(address: u64, size: u64) -> Vec<u64> {
    let Some(mut vmm) = table() else {
        return Vec::new();
    };
    let mut ids = Vec::from_iter(vmm.use_address(address));
    let further: Vec<u64> = vmm
        .mappings
        .range(address.saturating_add(1)..address.saturating_add(size))
        .map(|(start, _)| *start)
        .collect();
    ids.extend(further.iter().filter_map(|start| vmm.use_address(*start)));
    ids
}

/// Drops uses, and records the end of what nothing refers to any more.
pub fn drop_uses(call: &Call, ids: impl IntoIterator<Item = u64>) {
    let Some(mut vmm) = table() else {
        return;
    };
    let ended: Vec<u64> = ids.into_iter().filter(|id| vmm.drop_use(*id)).collect();
    drop(vmm);
    for id in ended {
        end(call, id);
    }
}

/// Nothing refers to the memory any more.
fn end(call: &Call, id: u64) {
    let token = recorder::freeing(Kind::Vmm.lane(), Space::Vmm, id, call.api(), 0);
    allocation::finish_free(call, &token, Space::Vmm, id, SUCCESS);
    bindings::ended(call, id);
}

/// A handle reference is released.
pub fn release(call: &Call, handle: u64, real: impl Real) -> u32 {
    if !recorder::is_on() {
        return real();
    }
    lifetime::watch_teardown();
    let id = table().and_then(|vmm| vmm.handles.get(&handle).map(|named| named.id));
    let result = real();
    errors::look_at(result, call.api());
    if is_gone(result)
        && let Some(id) = id
        && table().is_some_and(|mut vmm| vmm.drop_handle(handle, id))
    {
        end(call, id);
    }
    result
}

/// One more handle reference, to what is mapped at an address.
pub fn retain(call: &Call, handle: *const u64, address: u64, real: impl Real) -> u32 {
    if !recorder::is_on() {
        return real();
    }
    let id = table().and_then(|mut vmm| vmm.use_address(address));
    let result = real();
    errors::look_at(result, call.api());
    // SAFETY: the program's own out-parameter of the call that came to this result.
    let made = unsafe { allocation::out_of(result, handle) };
    let Some(id) = id else { return result };
    if let Some(handle) = made
        && let Some(mut vmm) = table()
    {
        vmm.name(handle, id);
    }
    drop_uses(call, [id]);
    result
}

/// Physical memory is mapped at an address.
pub fn map(call: &Call, address: u64, size: u64, handle: u64, real: impl Real) -> u32 {
    let id = table().and_then(|mut vmm| vmm.use_handle(handle));
    let result = real();
    errors::look_at(result, call.api());
    if result != SUCCESS || !lifetime::start() {
        drop_uses(call, id);
        return result;
    }
    let before = id.and_then(|id| {
        let mapping = Mapping { size, id };
        table()?.mappings.insert(address, mapping)
    });
    let (context, device) = context::current();
    let owner = id.and_then(|id| recorder::find(Kind::Vmm.lane(), Space::Vmm, id));
    let device = owner.map_or(device, |owner| owner.device);
    // How much somebody else's memory is, nobody has said before it is mapped.
    if let Some(owner) = owner.filter(|of| of.kind() == Some(Kind::Import) && of.size < size) {
        recorder::gauge(&Record { size, ..owner });
    }
    let new = New {
        kind: Kind::Mapping,
        space: Space::Mapping,
        key: address,
        size,
        aux: id.unwrap_or(0),
    };
    allocation::record(call, &new, context, device);
    // What was mapped here was unmapped by a way that is not hooked.
    drop_uses(call, before.map(|mapping| mapping.id));
    result
}

/// Everything mapped in a range is unmapped. The driver takes only whole mappings.
pub fn unmap(call: &Call, address: u64, size: u64, real: impl Real) -> u32 {
    if !recorder::is_on() {
        return real();
    }
    lifetime::watch_teardown();
    let gone = take_mappings(address, address.saturating_add(size));
    let lane = Kind::Vmm.lane();
    let free = |start: u64| recorder::freeing(lane, Space::Mapping, start, call.api(), 0);
    // In teardown nobody is given an address anew, and a mark cannot be taken back.
    let teardown = recorder::is_teardown();
    let tokens: Vec<(u64, FreeToken)> = gone
        .iter()
        .filter(|_| !teardown)
        .map(|(start, _)| (*start, free(*start)))
        .collect();
    let result = real();
    if is_gone(result) {
        if teardown {
            gone.iter().for_each(|(start, _)| {
                free(*start);
            });
        }
        drop_uses(call, gone.iter().map(|(_, mapping)| mapping.id));
    } else if let Some(mut vmm) = table() {
        vmm.mappings.extend(gone);
    }
    for (start, token) in tokens {
        allocation::finish_free(call, &token, Space::Mapping, start, result);
    }
    errors::look_at(result, call.api());
    result
}

/// The mappings that lie in a range, taken out of the table.
fn take_mappings(start: u64, end: u64) -> Vec<(u64, Mapping)> {
    let Some(mut vmm) = table() else {
        return Vec::new();
    };
    let inside: Vec<u64> = vmm
        .mappings
        .range(start..end)
        .filter(|(start, mapping)| start.saturating_add(mapping.size) <= end)
        .map(|(start, _)| *start)
        .collect();
    let take = |start: u64| Some((start, vmm.mappings.remove(&start)?));
    inside.into_iter().filter_map(take).collect()
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
