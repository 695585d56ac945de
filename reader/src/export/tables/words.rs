//! The texts of long tables: a few thousand of them (functions, kinds, names of threads), each of which
//! comes again and again. Rows have their numbers, and what writes rows spells each text once.

use super::Cell;
use super::lines::Piece;
use crate::export::log::{Role, State};
use crate::export::stacks::{self, Id, Stacks};
use crate::model::Process;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use vramtrace_format::record::{Kind, Layer, Op};

/// A text's number in [`Words`].
pub type Word = u32;

/// Texts by number; each is there once.
#[derive(Default)]
pub struct Words {
    texts: Vec<Arc<str>>,
    known: FxHashMap<Arc<str>, Word>,
}

impl Words {
    /// The number of a text.
    pub fn add(&mut self, text: &str) -> Word {
        if let Some(&known) = self.known.get(text) {
            return known;
        }
        let word = self.texts.len() as Word;
        let text: Arc<str> = text.into();
        self.texts.push(text.clone());
        self.known.insert(text, word);
        word
    }

    /// All of them, by number.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &str> {
        self.texts.iter().map(|text| &**text)
    }

    /// The text with this number.
    pub fn get(&self, word: Word) -> &str {
        &self.texts[word as usize]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

/// All words as a format spells them.
pub struct Spelled {
    pieces: Vec<Piece>,
    /// Appends a text as it is spelled.
    pub(super) spell: fn(&str, &mut Vec<u8>),
}

impl Spelled {
    /// Spells each word once.
    pub fn of(words: &Words, spell: fn(&str, &mut Vec<u8>)) -> Spelled {
        let mut bytes = Vec::new();
        let piece = |text| {
            bytes.clear();
            spell(text, &mut bytes);
            Piece::from(&bytes[..])
        };
        Spelled {
            pieces: words.all().map(piece).collect(),
            spell,
        }
    }

    /// One of them.
    #[inline]
    pub fn get(&self, word: Word) -> &Piece {
        &self.pieces[word as usize]
    }
}

/// The words by what they are about, as cells.
pub struct Vocabulary {
    states: Vec<Cell<'static>>,
    roles: Vec<Cell<'static>>,
    layers: Vec<Cell<'static>>,
    kinds: Vec<Cell<'static>>,
    ops: Vec<Cell<'static>>,
    /// By stack: its innermost frame.
    sites: Vec<Cell<'static>>,
    processes: Vec<OfProcess>,
}

/// What ids of one process are called.
struct OfProcess {
    apis: Vec<Cell<'static>>,
    ranges: Vec<Cell<'static>>,
    threads: FxHashMap<u32, Cell<'static>>,
    marks: FxHashMap<u32, Cell<'static>>,
}

/// Cells by small number; others are `Null`.
fn by_number<'t>(
    words: &mut Words,
    names: impl Iterator<Item = (usize, &'t str)>,
) -> Vec<Cell<'static>> {
    let mut cells = Vec::new();
    for (number, name) in names {
        // Numbers of what is looked up here have 16 bits; a damaged trace may name others.
        if number > usize::from(u16::MAX) {
            continue;
        }
        if cells.len() <= number {
            cells.resize(number + 1, Cell::Null);
        }
        cells[number] = Cell::Word(words.add(name));
    }
    cells
}

fn at(cells: &[Cell<'static>], number: usize) -> Cell<'static> {
    cells.get(number).copied().unwrap_or(Cell::Null)
}

impl Vocabulary {
    /// All that the rows of these processes can have.
    pub fn of(processes: &[Process], stacks: &Stacks, words: &mut Words) -> Vocabulary {
        let site = |id: usize| {
            let innermost = stacks.frames_of(id as Id).next();
            innermost.map_or_else(|| stacks::absent(stacks.get(id as Id)), stacks::label)
        };
        Vocabulary {
            states: by_number(words, State::ALL.iter().map(|s| (*s as usize, s.name()))),
            roles: by_number(words, Role::ALL.iter().map(|r| (*r as usize, r.name()))),
            layers: by_number(words, Layer::ALL.iter().map(|l| (*l as usize, l.name()))),
            kinds: by_number(words, Kind::ALL.iter().map(|k| (*k as usize, k.name()))),
            ops: by_number(words, Op::ALL.iter().map(|op| (*op as usize, op.name()))),
            sites: (0..stacks.all().len())
                .map(|id| Cell::Word(words.add(&site(id))))
                .collect(),
            processes: processes
                .iter()
                .map(|process| OfProcess {
                    apis: by_number(words, process.apis().map(|(id, n)| (id as usize, n))),
                    ranges: by_number(
                        words,
                        process.ranges.names().map(|(id, n)| (id as usize, n)),
                    ),
                    threads: process
                        .threads()
                        .map(|(id, name)| (id, Cell::Word(words.add(name))))
                        .collect(),
                    marks: process
                        .marks()
                        .map(|(id, text)| (id, Cell::Word(words.add(text))))
                        .collect(),
                })
                .collect(),
        }
    }

    pub fn state(&self, state: State) -> Cell<'static> {
        at(&self.states, state as usize)
    }

    pub fn role(&self, role: Role) -> Cell<'static> {
        at(&self.roles, role as usize)
    }

    /// Of a kind: its layer, and itself.
    pub fn kind(&self, kind: Option<Kind>) -> [Cell<'static>; 2] {
        kind.map_or([Cell::Null; 2], |kind| {
            let layer = at(&self.layers, kind.layer() as usize);
            [layer, at(&self.kinds, kind as usize)]
        })
    }

    pub fn op(&self, op: Op) -> Cell<'static> {
        at(&self.ops, op as usize)
    }

    /// Of a stack: its number, and where its innermost frame is.
    pub fn stack(&self, stack: Option<Id>) -> [Cell<'static>; 2] {
        stack.map_or([Cell::Null; 2], |id| {
            [Cell::Number(id.into()), at(&self.sites, id as usize)]
        })
    }

    pub fn api(&self, process: usize, id: u16) -> Cell<'static> {
        at(&self.processes[process].apis, id.into())
    }

    pub fn range(&self, process: usize, id: u16) -> Cell<'static> {
        at(&self.processes[process].ranges, id.into())
    }

    pub fn thread(&self, process: usize, id: u32) -> Cell<'static> {
        let threads = &self.processes[process].threads;
        threads.get(&id).copied().unwrap_or(Cell::Null)
    }

    pub fn mark(&self, process: usize, id: u32) -> Cell<'static> {
        let marks = &self.processes[process].marks;
        marks.get(&id).copied().unwrap_or(Cell::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Lines;
    use super::*;

    #[test]
    fn each_word_is_spelled_once() {
        let mut words = Words::default();
        let all: Vec<Word> = ["a", "", "b", "a"].map(|text| words.add(text)).to_vec();
        assert_eq!(all, [0, 1, 2, 0]);
        let spelled = Spelled::of(&words, |text, out| {
            out.push(b'<');
            out.extend_from_slice(text.as_bytes());
        });
        let mut lines = Lines::default();
        (0..3).for_each(|word| lines.piece(spelled.get(word)));
        assert_eq!(lines.take(), b"<a<<b");
        assert_eq!(words.get(2), "b");
    }

    #[test]
    fn numbers_that_nobody_can_have_are_left_out() {
        let mut words = Words::default();
        let cells = by_number(&mut words, [(2, "two"), (1 << 40, "many")].into_iter());
        assert_eq!(cells, [Cell::Null, Cell::Null, Cell::Word(0)]);
        assert_eq!(at(&cells, 9), Cell::Null);
    }
}
