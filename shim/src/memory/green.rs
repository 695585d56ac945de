//! Green contexts: shares of a device's multiprocessors. They hold no memory of their own.
//!
//! cuda.h: a green context retains its device's primary context and releases it when it is
//! destroyed; the CUcontext that stands for it (its *face*) is treated as the primary context.
//! So what is allocated through a face belongs to the primary context and outlives the green one.

use super::{Real, SUCCESS, allocation, context, errors, own_calls};
use crate::hook::Call;
use crate::lifetime;
use std::collections::HashMap;
use vramtrace_recorder::{self as recorder, Renewable};

#[derive(Default)]
struct Greens {
    /// Devices of green contexts.
    devices: HashMap<usize, i32>,
    /// Green contexts of faces.
    faces: HashMap<usize, usize>,
}

static GREENS: Renewable<Greens> = Renewable::new();

/// The device whose primary context a context handle stands for, if it is a face.
pub fn device_of_face(handle: usize) -> Option<u8> {
    let greens = GREENS.lock()?;
    let green = greens.faces.get(&handle)?;
    u8::try_from(*greens.devices.get(green)?).ok()
}

/// A green context is created through `real`.
pub fn create(call: &Call, green: *const usize, device: i32, real: impl Real) -> u32 {
    let result = real();
    errors::look_at(result, call.api());
    // SAFETY: the program's own out-parameter of the call that came to this result.
    let made = unsafe { allocation::out_of(result, green) };
    let Some(green) = made.filter(|_| lifetime::start()) else {
        return result;
    };
    if let Ok(device) = u8::try_from(device) {
        context::primary_retained(device);
    }
    if let Some(mut greens) = GREENS.lock() {
        greens.devices.insert(green, device);
    }
    // Its streams name the face though the program may never ask for it.
    if let Some(face) = own_calls::face_of_green(green) {
        met(face, green);
    }
    result
}

/// The program asks for the face of a green context.
pub fn face(face: *const usize, green: usize, real: impl Real) -> u32 {
    let result = real();
    // SAFETY: the program's own out-parameter of the call that came to this result.
    let made = unsafe { allocation::out_of(result, face) };
    if let Some(face) = made.filter(|_| recorder::is_on()) {
        met(face, green);
    }
    result
}

fn met(face: usize, green: usize) {
    let new = GREENS.lock().is_some_and(|mut greens| {
        greens.devices.contains_key(&green) && greens.faces.insert(face, green) != Some(green)
    });
    if new {
        // Whatever had this handle before is gone.
        context::forget_handle(face);
    }
}

/// A green context is destroyed through `real`, and with it a reference to the primary context.
pub fn destroy(call: &Call, green: usize, real: impl Real) -> u32 {
    let device = GREENS
        .lock()
        .and_then(|greens| greens.devices.get(&green).copied());
    let Some(device) = device.filter(|_| recorder::is_on()) else {
        return real();
    };
    // Before the call: the moment it returns, another thread may be given the same handles.
    let faces = forget(green);
    let result = context::reset(call, device, true, real);
    if result != SUCCESS
        && let Some(mut greens) = GREENS.lock()
    {
        greens.devices.insert(green, device);
        greens.faces.extend(faces.iter().map(|face| (*face, green)));
    }
    result
}

fn forget(green: usize) -> Vec<usize> {
    let mut faces = Vec::new();
    if let Some(mut greens) = GREENS.lock() {
        greens.devices.remove(&green);
        faces.extend(
            greens
                .faces
                .iter()
                .filter(|(_, of)| **of == green)
                .map(|(face, _)| *face),
        );
        greens.faces.retain(|_, of| *of != green);
    }
    for face in &faces {
        context::forget_handle(*face);
    }
    faces
}

/// A context was created under a handle: it is no face any more, if it was one.
pub fn not_a_face(handle: usize) {
    if let Some(mut greens) = GREENS.lock() {
        greens.faces.remove(&handle);
    }
}

/// A new trace begins.
pub fn start_over() {
    GREENS.renew();
}
