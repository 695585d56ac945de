//! A snapshot: the tables of a trace at one event, as a file of its own.
//!
//! It is a trace like any other, for every reader, but for its size: a section is as long as what
//! is in it. Live entries and sums by stack stand one after the other instead of where a search
//! would find them, since nobody will add any; history keeps its length, which says how its series
//! lie, and is a hole where it is empty. Its last cold record is [`crate::cold::Snapshot`].

use crate::account::{ACCOUNT_ROWS, Account};
use crate::cold::{self, Cold};
use crate::footprint::Footprint;
use crate::history::Cell;
use crate::journal::Journal;
use crate::layout::{Control, Header, Layout, PAGE, Section, SectionEntry};
use crate::record::Record;
use crate::reported::Reported;
use crate::sampling::{self, Sampling};
use crate::totals::Totals;
use bytemuck::Zeroable;

/// How many of the newest events of each layer go along, where the log has as many.
pub const EVENTS: usize = 8192;

/// Everything that goes into a snapshot, as of one event.
#[derive(Clone, Debug)]
pub struct Contents {
    /// The last event that is in it.
    pub seq: u64,
    /// The process's counters. What they say of cold records and stacks is what of those is here.
    pub control: Control,
    /// All account rows.
    pub accounts: Vec<Account>,
    /// Complete bytes of the cold section.
    pub cold: Vec<u8>,
    /// Complete words of the stack section.
    pub stacks: Vec<u64>,
    /// Used rows of the sums by stack.
    pub totals: Vec<Totals>,
    /// The first cells of the history section: those of series in use.
    pub history: Vec<Cell>,
    /// Cells of that section.
    pub history_cells: u64,
    /// Entries of the live tables that are live or kept: device layer and host, framework layer.
    pub live: [Vec<Record>; 2],
    /// The newest events of each ring, oldest first.
    pub events: [Vec<Record>; 2],
    /// What the driver holds for itself.
    pub footprints: Vec<Footprint>,
    /// What a framework says of itself.
    pub reported: Vec<Reported>,
    /// How often each range was entered.
    pub ranges: Vec<u64>,
    /// What was sampled when; `None` if the trace does not say.
    pub sampling: Option<Box<Sampling>>,
}

impl Contents {
    /// Nothing.
    pub fn new() -> Contents {
        Contents {
            seq: 0,
            control: Control::zeroed(),
            accounts: Vec::new(),
            cold: Vec::new(),
            stacks: Vec::new(),
            totals: Vec::new(),
            history: Vec::new(),
            history_cells: 0,
            live: [Vec::new(), Vec::new()],
            events: [Vec::new(), Vec::new()],
            footprints: Vec::new(),
            reported: Vec::new(),
            ranges: Vec::new(),
            sampling: None,
        }
    }

    /// Appends a cold record; false if it is too long for one.
    pub fn add(&mut self, record: &Cold) -> bool {
        let used = self.cold.len();
        self.cold.resize(used + cold::MAX_PAYLOAD + 16, 0);
        let after = cold::append(&mut self.cold, used as u64, record);
        self.cold.truncate(after.unwrap_or(used as u64) as usize);
        after.is_some()
    }

    /// Entries of a section.
    fn entries(&self, section: Section) -> u64 {
        let entries = match section {
            Section::Control | Section::Journal => 1,
            Section::Accounts => ACCOUNT_ROWS,
            Section::Cold => self.cold.len(),
            Section::Stacks => self.stacks.len(),
            Section::Totals => self.totals.len(),
            Section::History => return self.history_cells,
            Section::LiveDevice => self.live[0].len(),
            Section::LiveFramework => self.live[1].len(),
            Section::RingDevice => self.events[0].len(),
            Section::RingFramework => self.events[1].len(),
            Section::Footprints => self.footprints.len(),
            Section::Reported => self.reported.len(),
            Section::Ranges => self.ranges.len(),
            Section::Sampling => self.sampling.as_ref().map_or(0, |_| sampling::ROWS),
            // The writer's own index. Curves lie by the rows of the whole table, which is not here.
            Section::StackIndex | Section::Curves => 0,
        };
        entries as u64
    }

    /// Where everything goes.
    pub fn layout(&self) -> Layout {
        let mut offset = PAGE;
        let mut sections = [SectionEntry::default(); Section::ALL.len()];
        for (entry, &section) in sections.iter_mut().zip(&Section::ALL) {
            let length = self.entries(section) * section.entry_size() as u64;
            *entry = SectionEntry {
                kind: section as u32,
                entry_size: section.entry_size() as u32,
                offset,
                length,
            };
            offset += length.div_ceil(PAGE) * PAGE;
        }
        Layout {
            file_size: offset,
            sections,
        }
    }

    /// Bytes that are written, holes not counted.
    pub fn bytes(&self) -> u64 {
        let empty = self.history_cells.saturating_sub(self.history.len() as u64);
        self.layout().file_size - empty * size_of::<Cell>() as u64 / PAGE * PAGE
    }

    /// Hands every piece of the file to `write`, with its place; the header last, so that a file
    /// that was not written to its end is no trace. `of` is the header of the trace.
    pub fn write<E>(
        &mut self,
        of: &Header,
        mut write: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let layout = self.layout();
        let mut put = |section, bytes: &[u8]| {
            if bytes.is_empty() {
                return Ok(());
            }
            write(layout.of(section).offset, bytes)
        };
        self.control.cold_used = self.cold.len() as u64;
        self.control.stack_words = self.stacks.len() as u64;
        let mut journal = Journal::zeroed();
        journal.commit(self.seq);
        put(Section::Journal, bytemuck::bytes_of(&journal))?;
        self.accounts.resize(ACCOUNT_ROWS, Account::zeroed());
        put(Section::Control, bytemuck::bytes_of(&self.control))?;
        put(Section::Accounts, bytemuck::cast_slice(&self.accounts))?;
        put(Section::Cold, &self.cold)?;
        put(Section::Stacks, bytemuck::cast_slice(&self.stacks))?;
        put(Section::Totals, bytemuck::cast_slice(&self.totals))?;
        put(Section::History, bytemuck::cast_slice(&self.history))?;
        put(Section::Footprints, bytemuck::cast_slice(&self.footprints))?;
        put(Section::Reported, bytemuck::cast_slice(&self.reported))?;
        put(Section::Ranges, bytemuck::cast_slice(&self.ranges))?;
        if let Some(sampling) = &self.sampling {
            put(Section::Sampling, bytemuck::bytes_of(&**sampling))?;
        }
        let lanes = [
            (Section::LiveDevice, Section::RingDevice),
            (Section::LiveFramework, Section::RingFramework),
        ];
        for (lane, (live, ring)) in lanes.into_iter().enumerate() {
            put(live, bytemuck::cast_slice(&self.live[lane]))?;
            // The ring of this length, after as many events as were written: its oldest is where
            // the next one would go.
            let events = &mut self.events[lane];
            if !events.is_empty() {
                let at = self.control.ring_written[lane] % events.len() as u64;
                events.rotate_right(at as usize);
            }
            put(ring, bytemuck::cast_slice(events))?;
        }
        let mut header = layout.header(of.pid, of.start_unix_ns, of.start_monotonic_ns);
        header.pid_namespace = of.pid_namespace;
        header.start_ticks = of.start_ticks;
        write(0, bytemuck::bytes_of(&header))
    }
}

impl Default for Contents {
    fn default() -> Self {
        Contents::new()
    }
}
