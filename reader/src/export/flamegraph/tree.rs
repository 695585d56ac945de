//! Samples as a tree of calls, the largest first.

use crate::analysis::Sum;
use crate::export::samples::Samples;
use crate::export::stacks::{self, Stacks, label, library};
use crate::report::frames::ShownFrame;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;

/// One box.
#[derive(Debug, Default)]
pub struct Node {
    /// Name.
    pub label: String,
    /// Where that is: source file, program or library.
    pub place: String,
    /// What its colour says.
    shade: Shade,
    /// Bytes and allocations of all below.
    pub sum: Sum,
    /// The one of the two that its width shows.
    pub value: u64,
    /// What it called, largest first.
    pub children: Vec<Node>,
}

#[derive(Debug, Default)]
enum Shade {
    /// Something that is no frame.
    #[default]
    Plain,
    /// A function written in Python.
    Python(u32),
    /// A function of a program or library.
    Native(u32, u32),
}

/// All boxes.
pub struct Tree {
    top: Node,
}

/// While it is built: children by name.
#[derive(Default)]
struct Growing {
    node: Node,
    children: Vec<Growing>,
    known: FxHashMap<(String, String), usize>,
}

impl Tree {
    /// The tree of samples; widths show allocations or bytes.
    pub fn of(samples: &Samples, stacks: &Stacks, count: bool) -> Tree {
        let mut top = Growing::default();
        for sample in &samples.all {
            let mut at = top.add(sample.sum);
            for root in &sample.roots {
                at = at.child(root.clone(), None).add(sample.sum);
            }
            let named = stacks.get(sample.stack);
            if named.frames.is_empty() {
                at.child(stacks::absent(named), None).add(sample.sum);
                continue;
            }
            if named.truncated {
                at = at.child(stacks::TRUNCATED.to_owned(), None).add(sample.sum);
            }
            for frame in stacks.frames_of(sample.stack).rev() {
                at = at.child(label(frame), Some(frame)).add(sample.sum);
            }
        }
        Tree {
            top: top.finish(count),
        }
    }

    /// The outermost boxes.
    pub fn roots(&self) -> &[Node] {
        &self.top.children
    }

    /// What all of them are wide.
    pub fn value(&self) -> u64 {
        self.top.value
    }

    /// Rows of boxes that are at least so wide.
    pub fn depth(&self, least: f64) -> usize {
        fn below(node: &Node, least: f64) -> usize {
            let wide = node
                .children
                .iter()
                .filter(|node| node.value as f64 >= least);
            wide.map(|node| 1 + below(node, least)).max().unwrap_or(0)
        }
        below(&self.top, least)
    }
}

impl Growing {
    fn add(&mut self, sum: Sum) -> &mut Growing {
        self.node.sum.merge(sum);
        self
    }

    /// Frames that are shown alike are one box.
    fn child(&mut self, label: String, frame: Option<&ShownFrame>) -> &mut Growing {
        let place = frame.map(place).unwrap_or_default();
        let next = self.children.len();
        let at = *self
            .known
            .entry((label.clone(), place.clone()))
            .or_insert(next);
        if at == next {
            let node = Node {
                label,
                place,
                shade: frame.map(shade).unwrap_or_default(),
                ..Node::default()
            };
            self.children.push(Growing {
                node,
                ..Growing::default()
            });
        }
        &mut self.children[at]
    }

    fn finish(self, count: bool) -> Node {
        let mut node = self.node;
        node.value = if count {
            node.sum.count
        } else {
            node.sum.bytes
        };
        let children = self.children.into_iter();
        node.children = children.map(|child| child.finish(count)).collect();
        node.children
            .sort_by(|a, b| (Reverse(a.value), &a.label).cmp(&(Reverse(b.value), &b.label)));
        node
    }
}

fn place(frame: &ShownFrame) -> String {
    match (&frame.file, &frame.module) {
        (Some(file), Some(module)) => format!("{file} in {module}"),
        (Some(place), None) | (None, Some(place)) => place.to_string(),
        (None, None) => String::new(),
    }
}

fn shade(frame: &ShownFrame) -> Shade {
    let name = frame.function.as_deref().unwrap_or_default();
    match library(frame) {
        _ if frame.language == "python" => Shade::Python(hash(name)),
        library => Shade::Native(hash(library.unwrap_or_default()), hash(name)),
    }
}

/// FNV-1a: the same colour in every picture.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

impl Node {
    /// Python is yellow; everything else has the colour of its program or library. Functions
    /// differ a little in lightness.
    pub fn colour(&self) -> String {
        match self.shade {
            Shade::Plain => "#d5d8de".to_owned(),
            Shade::Python(name) => format!("hsl(44,88%,{}%)", 66 + name % 13),
            Shade::Native(library, name) => {
                // From green over blue to red, and away from yellow.
                let hue = 90 + library / 7 % 290;
                format!("hsl({hue},58%,{}%)", 70 + name % 12)
            }
        }
    }
}
