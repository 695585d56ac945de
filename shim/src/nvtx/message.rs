//! What NVTX calls are handed: texts of several kinds, and structures with one inside.

use std::ffi::{c_char, c_void};
use vramtrace_recorder::ranges::{self, names::Name, text::LONGEST};

/// `wchar_t` of Linux.
pub type Wide = u32;

/// Longest message of a mark that is read.
const MARK: usize = 1000;

/// nvtxEventAttributes_v2, of which versions 2 and 3 of the API differ in nothing that is read here.
#[repr(C)]
pub struct Attributes {
    version: u16,
    size: u16,
    category: u32,
    color_type: i32,
    color: u32,
    payload_type: i32,
    reserved: i32,
    payload: u64,
    message_type: i32,
    /// A text, or what registering one returned.
    message: *const c_void,
}

const _: () =
    assert!(size_of::<Attributes>() == 48 && std::mem::offset_of!(Attributes, message) == 40);

/// nvtxMessageType_t.
const ASCII: i32 = 1;
const UNICODE: i32 = 2;
const REGISTERED: i32 = 3;

/// The message of an event.
enum Message<'a> {
    /// Bytes, not necessarily UTF-8.
    Narrow(&'a [u8]),
    /// Wide characters, to be read by [`wide`].
    Wide(*const Wide),
    /// A text that was registered.
    Registered(Name),
}

/// A text of bytes; null is empty.
///
/// # Safety
/// Null, or NUL-terminated and there as long as the result is used.
#[inline]
pub unsafe fn narrow<'a>(text: *const c_char, most: usize) -> &'a [u8] {
    if text.is_null() {
        return b"";
    }
    // SAFETY: reads up to the NUL (the caller's contract), or less.
    let length = unsafe { libc::strnlen(text, most) };
    // SAFETY: these bytes were just looked at.
    unsafe { std::slice::from_raw_parts(text.cast(), length) }
}

/// Uses a text of wide characters, in UTF-8; null is empty.
///
/// # Safety
/// Null, or ends with a zero.
pub unsafe fn wide<R>(text: *const Wide, most: usize, use_it: impl FnOnce(&[u8]) -> R) -> R {
    let mut room = [0; MARK];
    let (mut length, mut at) = (0, 0);
    while !text.is_null() {
        // SAFETY: nothing before this was the zero at its end (the caller's contract). It may lie
        // anywhere: some programs hand over texts of packed structures.
        let unit = unsafe { text.add(at).read_unaligned() };
        at += 1;
        let character = char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
        let end = length + character.len_utf8();
        if unit == 0 || end > most.min(room.len()) {
            break;
        }
        character.encode_utf8(&mut room[length..end]);
        length = end;
    }
    use_it(&room[..length])
}

/// The message of an event, of which at most so many bytes are wanted.
///
/// # Safety
/// Null, or attributes whose `size` is right and whose message is of the type that they say, there as
/// long as the result is used.
#[inline]
unsafe fn message<'a>(attributes: *const Attributes, most: usize) -> Message<'a> {
    let size = if attributes.is_null() {
        0
    } else {
        // SAFETY: the caller's contract; the first four bytes are there in every version.
        unsafe { (*attributes).size }
    };
    if usize::from(size) < size_of::<Attributes>() {
        return Message::Narrow(b"");
    }
    // SAFETY: as large as it says.
    let attributes = unsafe { &*attributes };
    let message = attributes.message;
    match attributes.message_type {
        // SAFETY: of the type that is said (the caller's contract).
        ASCII => Message::Narrow(unsafe { narrow(message.cast(), most) }),
        UNICODE => Message::Wide(message.cast()),
        REGISTERED => match ranges::known(message as usize) {
            Some(name) => Message::Registered(name),
            None => Message::Narrow(b""),
        },
        _ => Message::Narrow(b""),
    }
}

/// The name of a range in a domain.
///
/// # Safety
/// As [`message`].
#[inline]
pub unsafe fn name(domain: Name, attributes: *const Attributes) -> Name {
    // SAFETY: the caller's contract.
    match unsafe { message(attributes, LONGEST) } {
        Message::Narrow(text) => ranges::name(domain, text),
        Message::Registered(name) => name,
        // SAFETY: as above.
        Message::Wide(text) => unsafe { wide(text, LONGEST, |text| ranges::name(domain, text)) },
    }
}

/// Sets a mark with the message of an event.
///
/// # Safety
/// As [`message`].
pub unsafe fn mark(domain: Name, attributes: *const Attributes) {
    // SAFETY: the caller's contract.
    match unsafe { message(attributes, MARK) } {
        Message::Narrow(text) => set_mark(domain, text),
        Message::Registered(name) => set_mark(domain, ranges::text_of(name)),
        // SAFETY: as above.
        Message::Wide(text) => unsafe { wide(text, MARK, |text| set_mark(domain, text)) },
    }
}

/// Sets a mark, if there is a trace.
pub fn set_mark(domain: Name, text: &[u8]) {
    if vramtrace_recorder::is_on() {
        vramtrace_recorder::mark(domain, text);
    }
}

/// Sets a mark with a text of wide characters.
///
/// # Safety
/// As [`wide`].
pub unsafe fn mark_wide(text: *const Wide) {
    // SAFETY: the caller's contract.
    unsafe { wide(text, MARK, |text| set_mark(0, text)) };
}

/// Sets a mark with a text of bytes.
///
/// # Safety
/// As [`narrow`].
pub unsafe fn mark_narrow(text: *const c_char) {
    // SAFETY: the caller's contract.
    set_mark(0, unsafe { narrow(text, MARK) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_texts_become_utf_8_and_are_cut_between_characters() {
        let text = |text: &str| -> Vec<Wide> { text.chars().map(u32::from).chain([0]).collect() };
        let read = |text: &[Wide], most| {
            let own = |text: &[u8]| String::from_utf8(text.to_vec()).unwrap();
            // SAFETY: ends with a zero.
            unsafe { wide(text.as_ptr(), most, own) }
        };
        assert_eq!(read(&text("naïve 漢字 🚀"), 100), "naïve 漢字 🚀");
        assert_eq!(read(&text("漢字"), 5), "漢");
        assert_eq!(
            read(&[0xd800, 0x11_0000, u32::MAX, 0x61, 0], 100),
            "\u{fffd}\u{fffd}\u{fffd}a"
        );
        assert_eq!(read(&text(&"x".repeat(5000)), 9999).len(), 1000);
        // SAFETY: null is empty.
        assert_eq!(unsafe { wide(std::ptr::null(), 10, <[u8]>::len) }, 0);
    }
}
