//! Names, frames and stacks that packets refer to by number, each written with the first that does.

use super::layout::field;
use crate::export::protobuf::Message;
use crate::export::stacks::{self, Id, Stacks};
use crate::report::words::foreign;
use rustc_hash::{FxHashMap, FxHashSet};

/// What is known to the reader of the packets so far.
#[derive(Default)]
pub struct Interned {
    /// What the next packet has to say first: InternedData.
    pub new: Message,
    /// By field of InternedData.
    texts: FxHashMap<u32, FxHashMap<String, u64>>,
    sites: FxHashMap<Id, u64>,
    frames: FxHashSet<u32>,
    callstacks: FxHashSet<Id>,
    mappings: FxHashSet<u64>,
}

impl Interned {
    fn text(&mut self, space: u32, text: &str) -> u64 {
        let texts = self.texts.entry(space).or_default();
        if let Some(&known) = texts.get(text) {
            return known;
        }
        let iid = texts.len() as u64 + 1;
        texts.insert(text.to_owned(), iid);
        let mut entry = Message::new();
        entry
            .number(field::name::IID, iid)
            .text(field::name::TEXT, foreign(text));
        self.new.message(space, &entry);
        iid
    }

    /// A category of events.
    pub fn category(&mut self, name: &str) -> u64 {
        self.text(field::interned::EVENT_CATEGORIES, name)
    }

    /// An event's name.
    pub fn name(&mut self, name: &str) -> u64 {
        self.text(field::interned::EVENT_NAMES, name)
    }

    /// The name of what happens at a stack: its innermost frame.
    pub fn site(&mut self, id: Id, stacks: &Stacks) -> u64 {
        if let Some(&known) = self.sites.get(&id) {
            return known;
        }
        let innermost = stacks.frames_of(id).next().map(stacks::label);
        let name = innermost.unwrap_or_else(|| stacks::absent(stacks.get(id)));
        let iid = self.name(&name);
        self.sites.insert(id, iid);
        iid
    }

    /// A stack. Outermost frames come first there.
    pub fn callstack(&mut self, id: Id, stacks: &Stacks) -> u64 {
        let iid = u64::from(id) + 1;
        if self.callstacks.insert(id) {
            let frames = &stacks.get(id).frames;
            for &number in frames {
                self.frame(number, stacks);
            }
            let mut callstack = Message::new();
            callstack.number(field::callstack::IID, iid);
            for &number in frames.iter().rev() {
                callstack.number(field::callstack::FRAME_IDS, u64::from(number) + 1);
            }
            self.new.message(field::interned::CALLSTACKS, &callstack);
        }
        iid
    }

    fn frame(&mut self, number: u32, stacks: &Stacks) {
        if !self.frames.insert(number) {
            return;
        }
        let frame = &stacks.frames()[number as usize];
        let name = frame
            .function
            .clone()
            .unwrap_or_else(|| stacks::label(frame));
        let mut entry = Message::new();
        entry
            .number(field::frame::IID, u64::from(number) + 1)
            .number(
                field::frame::FUNCTION_NAME_ID,
                self.text(field::interned::FUNCTION_NAMES, &name),
            );
        // Python's code is in no program or library: its file stands there.
        let place = frame.module.as_deref().or(frame.file.as_deref());
        entry.number(
            field::frame::MAPPING_ID,
            self.mapping(place.unwrap_or("unknown")),
        );
        entry.number(field::frame::REL_PC, frame.offset.unwrap_or(0));
        if let Some(file) = &frame.file {
            let file = self.text(field::interned::SOURCE_PATHS, file);
            entry.number(field::frame::SOURCE_PATH_IID, file);
        }
        if let Some(line) = frame.line {
            entry.number(field::frame::LINE_NUMBER, line.into());
        }
        self.new.message(field::interned::FRAMES, &entry);
    }

    fn mapping(&mut self, path: &str) -> u64 {
        let iid = self.text(field::interned::MAPPING_PATHS, path);
        if self.mappings.insert(iid) {
            let mut mapping = Message::new();
            mapping
                .number(field::mapping::IID, iid)
                .number(field::mapping::PATH_STRING_IDS, iid);
            self.new.message(field::interned::MAPPINGS, &mapping);
        }
        iid
    }
}

/// What is said of an event besides its name.
pub mod annotation {
    use super::super::layout::field;
    use super::Interned;
    use crate::export::protobuf::Message;

    /// Where events have them.
    pub const FIELD: u32 = field::event::DEBUG_ANNOTATIONS;

    fn named(interned: &mut Interned, name: &str) -> Message {
        let iid = interned.text(field::interned::DEBUG_ANNOTATION_NAMES, name);
        let mut message = Message::new();
        message.number(field::annotation::NAME_IID, iid);
        message
    }

    /// A number.
    pub fn number(interned: &mut Interned, name: &str, value: u64) -> Message {
        let mut message = named(interned, name);
        message.number(field::annotation::UINT_VALUE, value);
        message
    }

    /// An address.
    pub fn pointer(interned: &mut Interned, name: &str, value: u64) -> Message {
        let mut message = named(interned, name);
        message.number(field::annotation::POINTER_VALUE, value);
        message
    }

    /// Text that comes again and again.
    pub fn text(interned: &mut Interned, name: &str, value: &str) -> Message {
        let iid = interned.text(field::interned::DEBUG_ANNOTATION_STRING_VALUES, value);
        let mut message = named(interned, name);
        message.number(field::annotation::STRING_VALUE_IID, iid);
        message
    }
}
