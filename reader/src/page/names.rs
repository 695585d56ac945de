//! Texts, frames and stacks of a page, each once.

use super::keys::{Keys, OTHER};
use crate::analysis::leaks::By;
use crate::export::stacks::{Place, Stacks, TRUNCATED, Wanted, absent};
use crate::model::{Process, Unhidden};
use crate::report::frames::{Frames, ShownFrame};
use rustc_hash::FxHashMap;
use serde::Serialize;
use std::sync::Arc;

/// Texts by number; number 0 is the empty one.
pub struct Texts {
    numbers: FxHashMap<String, u32>,
    /// By number.
    pub all: Vec<String>,
    longest: usize,
    /// Texts that were cut.
    pub cut: u64,
}

impl Texts {
    /// Only the empty one; texts are cut after so many characters.
    pub fn new(longest: usize) -> Texts {
        Texts {
            numbers: FxHashMap::from_iter([(String::new(), 0)]),
            all: vec![String::new()],
            longest,
            cut: 0,
        }
    }

    /// The number of a text.
    pub fn number(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.all.len() as u32;
        self.numbers.insert(text.to_owned(), number);
        let kept = match text.char_indices().nth(self.longest) {
            Some((end, _)) => {
                self.cut += 1;
                format!("{}…", &text[..end])
            }
            None => text.to_owned(),
        };
        self.all.push(kept);
        number
    }
}

/// Frames, column by column; texts by number.
#[derive(Default, Serialize)]
pub struct FrameColumns {
    function: Vec<u32>,
    file: Vec<u32>,
    line: Vec<u32>,
    module: Vec<u32>,
    /// Where neither function nor file is known.
    offset: Vec<u64>,
    python: Vec<u8>,
}

impl FrameColumns {
    fn push(&mut self, frame: &ShownFrame, texts: &mut Texts) -> u32 {
        let mut text = |text: &Option<Arc<str>>| texts.number(text.as_deref().unwrap_or_default());
        self.function.push(text(&frame.function));
        self.file.push(text(&frame.file));
        self.module.push(text(&frame.module));
        self.line.push(frame.line.unwrap_or(0));
        self.offset.push(frame.offset.unwrap_or(0));
        self.python.push(u8::from(frame.language == "python"));
        self.function.len() as u32 - 1
    }

    fn words(&mut self, words: &str, texts: &mut Texts) -> u32 {
        let frame = ShownFrame {
            function: Some(words.into()),
            ..ShownFrame::default()
        };
        self.push(&frame, texts)
    }
}

/// Stacks as paths from a root, outermost frame first, so that what they share is there once. Node 0
/// is the root.
#[derive(Default, Serialize)]
pub struct Tree {
    parent: Vec<u32>,
    frame: Vec<u32>,
    #[serde(skip)]
    children: FxHashMap<(u32, u32), u32>,
}

impl Tree {
    fn child(&mut self, parent: u32, frame: u32) -> u32 {
        let next = self.parent.len() as u32;
        let node = *self.children.entry((parent, frame)).or_insert(next);
        if node == next {
            self.parent.push(parent);
            self.frame.push(frame);
        }
        node
    }
}

/// The stacks of all keys.
pub struct Named {
    /// All frames.
    pub frames: FrameColumns,
    /// All stacks.
    pub tree: Tree,
    /// The node of each key's innermost frame.
    pub nodes: Vec<u32>,
    /// Files whose symbols could not be had.
    pub warnings: Vec<String>,
}

/// Names the stacks of all keys.
pub fn name(processes: &[Process], keys: &Keys, texts: &mut Texts, frames: &mut Frames) -> Named {
    let place = |who: &super::keys::Who| -> Place { (who.process as usize, who.stack, who.api) };
    let places = keys.all.iter().map(|(who, _)| who);
    let places = places.filter(|who| who.stack != OTHER).map(place);
    let wanted = Wanted {
        unhidden: Unhidden::default(),
        by: By::Stack,
    };
    let stacks = Stacks::named(processes, places, wanted, frames);
    let mut columns = FrameColumns::default();
    let mut tree = Tree {
        parent: vec![0],
        frame: vec![0],
        children: FxHashMap::default(),
    };
    // Frame 0 is the root's.
    columns.words("", texts);
    let numbers: Vec<u32> = stacks
        .frames()
        .iter()
        .map(|frame| columns.push(frame, texts))
        .collect();
    let mut said: FxHashMap<String, u32> = FxHashMap::default();
    let mut nodes = Vec::with_capacity(keys.all.len());
    for (who, _) in &keys.all {
        let mut say = |words: String| match said.get(&words) {
            Some(&frame) => frame,
            None => {
                let frame = columns.words(&words, texts);
                said.insert(words, frame);
                frame
            }
        };
        let id = stacks.id(place(who)).filter(|_| who.stack != OTHER);
        let Some(named) = id.map(|id| stacks.get(id)) else {
            let frame = say("[stacks that are too small to be told apart]".to_owned());
            nodes.push(tree.child(0, frame));
            continue;
        };
        let mut node = 0;
        if named.truncated {
            node = tree.child(node, say(TRUNCATED.to_owned()));
        }
        for &frame in named.frames.iter().rev() {
            node = tree.child(node, numbers[frame as usize]);
        }
        if named.frames.is_empty() {
            node = tree.child(node, say(absent(named)));
        }
        nodes.push(node);
    }
    Named {
        frames: columns,
        tree,
        nodes,
        warnings: stacks.warnings().to_vec(),
    }
}
