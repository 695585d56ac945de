//! Functions by address, from the symbol tables of ELF files.

use object::{Object, ObjectSection, ObjectSymbol, ObjectSymbolTable, SymbolIndex, SymbolKind};

/// Symbols can lie inside others; no more than this many are looked back through.
const MOST_NESTED: usize = 64;

/// An ELF file over content that outlives it.
pub(super) type Elf = object::File<'static, &'static [u8]>;

/// Which table of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Everything that the linker knew; stripped files lack it.
    Full,
    /// What other modules can link to.
    Dynamic,
}

/// The functions of one symbol table, sorted. Names stay in the file until they are asked for: a
/// library can have a million, a report needs a dozen.
pub(super) struct Table {
    kind: Kind,
    functions: Vec<Function>,
}

#[derive(Clone, Copy)]
struct Function {
    start: u64,
    end: u64,
    /// Largest `end` up to this entry: where it is passed, nothing before can match either.
    reach: u64,
    symbol: u32,
    /// Which of several names of one address: global before weak before local.
    rank: u8,
}

impl Table {
    pub(super) fn new(elf: &Elf, kind: Kind) -> Table {
        let symbols = match kind {
            Kind::Full => elf.symbols(),
            Kind::Dynamic => elf.dynamic_symbols(),
        };
        let mut functions: Vec<Function> = symbols
            .filter_map(|symbol| Function::of(&symbol, kind))
            .collect();
        functions.sort_unstable_by_key(|function| (function.start, function.rank, function.symbol));
        close_unsized(&mut functions, elf);
        let mut reach = 0;
        for function in &mut functions {
            reach = reach.max(function.end);
            function.reach = reach;
        }
        Table { kind, functions }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// The name of the function that `address` lies in: of several, the one that begins last, and
    /// of several names for that, the most visible one. `elf` is the file that the table is of.
    pub(super) fn name(&self, elf: &Elf, address: u64) -> Option<&'static [u8]> {
        let after = self
            .functions
            .partition_point(|function| function.start <= address);
        let mut found: Option<Function> = None;
        for &function in self.functions[..after].iter().rev().take(MOST_NESTED) {
            if function.reach <= address || found.is_some_and(|found| found.start != function.start)
            {
                break;
            }
            if address < function.end {
                // Going backwards, a later one of the same start is a better one.
                found = Some(function);
            }
        }
        let table = match self.kind {
            Kind::Full => elf.symbol_table(),
            Kind::Dynamic => elf.dynamic_symbol_table(),
        };
        let index = SymbolIndex(found?.symbol as usize);
        let symbol = table?.symbol_by_index(index).ok()?;
        symbol.name_bytes().ok().filter(|name| !name.is_empty())
    }
}

impl Function {
    fn of<'data>(symbol: &impl ObjectSymbol<'data>, kind: Kind) -> Option<Function> {
        let start = symbol.address();
        let sized = symbol.size() > 0;
        // Assembly often says neither type nor size. Among dynamic symbols, such a label would
        // claim all the local functions behind it.
        let wanted = match symbol.kind() {
            SymbolKind::Text => true,
            SymbolKind::Unknown | SymbolKind::Label => kind == Kind::Full,
            _ => false,
        };
        if !wanted || symbol.section_index().is_none() || (!sized && kind == Kind::Dynamic) {
            return None;
        }
        let typed = symbol.kind() == SymbolKind::Text;
        let visibility = match (symbol.is_weak(), symbol.is_global()) {
            (true, _) => 1,
            (_, true) => 0,
            _ => 2,
        };
        Some(Function {
            start,
            end: start.checked_add(symbol.size())?,
            reach: 0,
            symbol: u32::try_from(symbol.index().0).ok()?,
            rank: visibility + if sized { 0 } else { 3 } + if typed { 0 } else { 6 },
        })
    }
}

/// Lets a symbol without a size reach to the next symbol, but not out of its section.
fn close_unsized(functions: &mut [Function], elf: &Elf) {
    let mut sections: Vec<(u64, u64)> = elf
        .sections()
        .filter(|section| section.address() != 0)
        .filter_map(|section| {
            let start = section.address();
            Some((start, start.checked_add(section.size())?))
        })
        .collect();
    sections.sort_unstable();
    let section_end = |address: u64| {
        let after = sections.partition_point(|&(start, _)| start <= address);
        let (_, end) = *sections[..after].last()?;
        (address < end).then_some(end)
    };
    let mut next = u64::MAX;
    for at in (0..functions.len()).rev() {
        let Function { start, end, .. } = functions[at];
        if end == start
            && let Some(limit) = section_end(start)
        {
            functions[at].end = limit.min(next);
        }
        let first_of_start = at == 0 || functions[at - 1].start != start;
        if first_of_start {
            next = start;
        }
    }
}
