//! Names, frames and stacks that packets refer to by number, each written with the first that does.

use super::layout::field;
use crate::export::protobuf::Message;
use crate::export::stacks::{self, Id, Stacks};
use crate::report::words::foreign;
use rustc_hash::{FxHashMap, FxHashSet};
use vramtrace_format::record::Kind;

/// What is known to the reader of the packets so far.
#[derive(Default)]
pub struct Interned {
    /// What the next packet has to say first: InternedData.
    pub new: Message,
    /// By field of InternedData.
    texts: FxHashMap<u32, FxHashMap<String, u64>>,
    /// Texts of ids: by field of InternedData, process and id. Events have ids, so that no text is looked up for them.
    ids: FxHashMap<(u32, u32, u32), u64>,
    /// By [`Said`]; 0 not yet.
    said: [u64; SAID],
    /// By stack: the number of its innermost frame as a name; 0 not yet.
    sites: Vec<u64>,
    /// By stack: whether it was written.
    callstacks: Vec<bool>,
    frames: FxHashSet<u32>,
    mappings: FxHashSet<u64>,
}

impl Interned {
    /// Nothing of these stacks is known yet.
    pub fn of(stacks: &Stacks) -> Interned {
        Interned {
            sites: vec![0; stacks.all().len()],
            callstacks: vec![false; stacks.all().len()],
            ..Interned::default()
        }
    }

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

    /// The text that an id of a process has.
    fn of_id(&mut self, space: u32, process: u32, id: u32, text: &str) -> u64 {
        if let Some(&known) = self.ids.get(&(space, process, id)) {
            return known;
        }
        let iid = self.text(space, text);
        self.ids.insert((space, process, id), iid);
        iid
    }

    /// The category of slices: a kind.
    pub fn category(&mut self, kind: Kind) -> u64 {
        let space = field::interned::EVENT_CATEGORIES;
        self.of_id(space, u32::MAX, kind as u32, kind.name())
    }

    /// The category of slices that are no allocations.
    pub fn category_named(&mut self, name: &str) -> u64 {
        self.text(field::interned::EVENT_CATEGORIES, name)
    }

    /// An event's name.
    pub fn name(&mut self, name: &str) -> u64 {
        self.text(field::interned::EVENT_NAMES, name)
    }

    /// The name of what happens at a stack: its innermost frame.
    pub fn site(&mut self, id: Id, stacks: &Stacks) -> u64 {
        let known = self.sites[id as usize];
        if known != 0 {
            return known;
        }
        let innermost = stacks.frames_of(id).next().map(stacks::label);
        let name = innermost.unwrap_or_else(|| stacks::absent(stacks.get(id)));
        let iid = self.name(&name);
        self.sites[id as usize] = iid;
        iid
    }

    /// A stack. Outermost frames come first there.
    pub fn callstack(&mut self, id: Id, stacks: &Stacks) -> u64 {
        let iid = u64::from(id) + 1;
        if !std::mem::replace(&mut self.callstacks[id as usize], true) {
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
            .unwrap_or_else(|| stacks::label(frame).into());
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
#[derive(Clone, Copy)]
pub enum Said {
    Bytes,
    Kind,
    Address,
    Allocation,
    Api,
    Thread,
    Stream,
    Range,
    Allocated,
    Error,
    Allocations,
    Drawn,
}

const SAID: usize = Said::Drawn as usize + 1;

impl Said {
    const fn name(self) -> &'static str {
        match self {
            Said::Bytes => "bytes",
            Said::Kind => "kind",
            Said::Address => "address",
            Said::Allocation => "allocation",
            Said::Api => "api",
            Said::Thread => "thread",
            Said::Stream => "stream",
            Said::Range => "range",
            Said::Allocated => "allocated",
            Said::Error => "error",
            Said::Allocations => "allocations",
            Said::Drawn => "drawn",
        }
    }
}

/// Text of an annotation, by the process's id for it; [`u32::MAX`] is no process, and its ids are kinds.
#[derive(Clone, Copy)]
pub struct Text<'t> {
    pub process: u32,
    pub id: u32,
    pub text: &'t str,
}

impl Interned {
    fn said(&mut self, what: Said) -> u64 {
        let known = self.said[what as usize];
        if known != 0 {
            return known;
        }
        let iid = self.text(field::interned::DEBUG_ANNOTATION_NAMES, what.name());
        self.said[what as usize] = iid;
        iid
    }

    /// Says a number of an event.
    pub fn say_number(&mut self, event: &mut Message, what: Said, value: u64) {
        let name = self.said(what);
        event.nested(field::event::DEBUG_ANNOTATIONS, |annotation| {
            annotation
                .number(field::annotation::NAME_IID, name)
                .number(field::annotation::UINT_VALUE, value);
        });
    }

    /// Says an address.
    pub fn say_pointer(&mut self, event: &mut Message, what: Said, value: u64) {
        let name = self.said(what);
        event.nested(field::event::DEBUG_ANNOTATIONS, |annotation| {
            annotation
                .number(field::annotation::NAME_IID, name)
                .number(field::annotation::POINTER_VALUE, value);
        });
    }

    /// Says a text that comes again and again.
    pub fn say_text(&mut self, event: &mut Message, what: Said, value: Text<'_>) {
        let name = self.said(what);
        let space = field::interned::DEBUG_ANNOTATION_STRING_VALUES;
        // Ids of different things are different texts.
        let id = value.id | (what as u32) << 24;
        let text = self.of_id(space, value.process, id, value.text);
        event.nested(field::event::DEBUG_ANNOTATIONS, |annotation| {
            annotation
                .number(field::annotation::NAME_IID, name)
                .number(field::annotation::STRING_VALUE_IID, text);
        });
    }
}
