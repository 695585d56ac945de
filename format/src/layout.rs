//! Where everything is: the header, the section table, and how a total size is divided.
//!
//! A trace is one file of a fixed size, mapped by its writer. The header names every section by
//! kind, offset, length and entry size, so a reader needs no knowledge of how sizes are chosen.

use crate::account::{ACCOUNT_ROWS, Account};
use crate::curves;
use crate::footprint::{FOOTPRINT_ROWS, Footprint};
use crate::history::{CELLS_PER_LEVEL, Cell, LEVELS};
use crate::journal::Journal;
use crate::record::Record;
use crate::reported::{REPORTED_ROWS, Reported};
use crate::sampling;
use crate::totals::Totals;
use bytemuck::{Pod, Zeroable};

/// First bytes of every trace.
pub const MAGIC: [u8; 8] = *b"VRAMTRC\x1a";
/// Version of the format that this crate writes. A reader takes every older one.
pub const VERSION: u32 = 1;
/// Smallest workable trace; a smaller wish is raised to this.
pub const MIN_SIZE: u64 = 1 << 20;
/// Size where the user says nothing.
pub const DEFAULT_SIZE: u64 = 64 << 20;
/// Rows of the section of NVTX ranges.
pub const RANGES: usize = 2048;
/// Everything starts at a multiple of this, so that sections never share a page.
pub const PAGE: u64 = 4096;
/// Room for sections in the header.
pub const MAX_SECTIONS: usize = 32;

/// What a section holds; numbers are part of the file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Section {
    /// One [`Control`].
    Control = 1,
    /// One [`Journal`].
    Journal = 2,
    /// [`Account`] rows, indexed by [`crate::account::index`].
    Accounts = 3,
    /// Variable-size records, appended ([`crate::cold`]).
    Cold = 4,
    /// Words of the stack table ([`crate::stacks`]).
    Stacks = 5,
    /// Its hash index; only the writer needs it.
    StackIndex = 6,
    /// [`Totals`] rows.
    Totals = 7,
    /// History [`Cell`]s.
    History = 8,
    /// Live table of the device layer and of host memory.
    LiveDevice = 9,
    /// Live table of the framework layer.
    LiveFramework = 10,
    /// Event ring of the device layer, host memory and control events.
    RingDevice = 11,
    /// Event ring of the framework layer.
    RingFramework = 12,
    /// [`Footprint`] rows, one a device.
    Footprints = 13,
    /// [`Reported`] rows, one a device.
    Reported = 14,
    /// How often each NVTX range was entered: u64, by the range's id. Row 0: entries of ranges that
    /// found no room, so that what they hold counts for the range around them.
    Ranges = 15,
    /// One [`sampling::Sampling`]: what was sampled when, and what stacks cost.
    Sampling = 16,
    /// Live bytes over time of the stacks that hold or gain most: words, divided as
    /// [`curves::Geometry`] says.
    Curves = 18,
}

impl Section {
    /// Every section that this version writes, in file order.
    pub const ALL: [Section; 17] = [
        Section::Control,
        Section::Journal,
        Section::Accounts,
        Section::Cold,
        Section::Stacks,
        Section::StackIndex,
        Section::Totals,
        Section::History,
        Section::LiveDevice,
        Section::LiveFramework,
        Section::RingDevice,
        Section::RingFramework,
        Section::Footprints,
        Section::Reported,
        Section::Ranges,
        Section::Sampling,
        Section::Curves,
    ];

    /// Its position in [`Section::ALL`].
    pub const fn position(self) -> usize {
        match self {
            Section::Curves => 16,
            section => section as usize - 1,
        }
    }

    /// Whether older traces do without it.
    pub const fn is_optional(self) -> bool {
        matches!(
            self,
            Section::Footprints
                | Section::Reported
                | Section::Ranges
                | Section::Sampling
                | Section::Curves
        )
    }

    /// Bytes of one entry.
    pub const fn entry_size(self) -> usize {
        match self {
            Section::Control => size_of::<Control>(),
            Section::Journal => size_of::<Journal>(),
            Section::Accounts => size_of::<Account>(),
            Section::Cold => 1,
            Section::Stacks | Section::Ranges | Section::Curves => 8,
            Section::StackIndex => 4,
            Section::Totals => size_of::<Totals>(),
            Section::History => size_of::<Cell>(),
            Section::LiveDevice
            | Section::LiveFramework
            | Section::RingDevice
            | Section::RingFramework => size_of::<Record>(),
            Section::Footprints => size_of::<Footprint>(),
            Section::Reported => size_of::<Reported>(),
            Section::Sampling => size_of::<sampling::Row>(),
        }
    }

    /// Share of the space after the fixed sections, in thousandths; `None` for fixed sections.
    const fn share(self) -> Option<u64> {
        match self {
            Section::Control
            | Section::Journal
            | Section::Accounts
            | Section::Footprints
            | Section::Reported
            | Section::Ranges
            | Section::Sampling => None,
            Section::Cold => Some(60),
            Section::Stacks => Some(120),
            Section::StackIndex => Some(16),
            Section::Totals => Some(80),
            Section::History => Some(40),
            Section::LiveDevice => Some(180),
            Section::LiveFramework => Some(184),
            Section::RingDevice => Some(108),
            Section::RingFramework => Some(178),
            Section::Curves => Some(34),
        }
    }
}

/// The first page of a trace. Written once, before the file gets its name.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// Bytes of this header that mean something.
    pub header_size: u32,
    /// Bytes of the whole file.
    pub file_size: u64,
    /// Unix time of event time 0, nanoseconds.
    pub start_unix_ns: u64,
    /// CLOCK_MONOTONIC at the same moment, nanoseconds (the same clock for all processes of one
    /// boot, so traces of one machine can be laid side by side).
    pub start_monotonic_ns: u64,
    /// Process id, as the process sees itself.
    pub pid: u32,
    /// How many of `sections` are used.
    pub section_count: u32,
    /// Inode of its pid namespace: a pid means nothing in another one. 0 unknown.
    pub pid_namespace: u64,
    /// When it started, in clock ticks since boot (`/proc/PID/stat`, field 22). 0 unknown.
    pub start_ticks: u64,
    /// Where each section is.
    pub sections: [SectionEntry; MAX_SECTIONS],
}

/// One line of the header's section table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SectionEntry {
    /// A [`Section`] number; unknown ones are skipped by readers.
    pub kind: u32,
    /// Bytes of one entry.
    pub entry_size: u32,
    /// From the start of the file, a multiple of [`PAGE`].
    pub offset: u64,
    /// Bytes, a multiple of `entry_size`.
    pub length: u64,
}

const _: () = assert!(size_of::<Header>() <= PAGE as usize);

/// Counters and flags of the whole process. Each is one word, stored whole; none is needed to
/// recover the live set.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Control {
    /// Events written to each ring (device, framework) since the start.
    pub ring_written: [u64; 2],
    /// Events that found no place before they could be put in order; that lane's live set is
    /// not exact any more.
    pub events_lost: [u64; 2],
    /// Bytes of the cold section that are complete.
    pub cold_used: u64,
    /// Cold records that found no room.
    pub cold_dropped: u64,
    /// Words of the stack section that are complete.
    pub stack_words: u64,
    /// Distinct stacks in it.
    pub stack_count: u64,
    /// Allocations whose stack found no room.
    pub stacks_dropped: u64,
    /// Allocations that came through the slow lane and so have no stack.
    pub stacks_skipped: u64,
    /// Calls seen while the recorder could not record (before the file existed, nested).
    pub calls_unrecorded: u64,
    /// Last event time known to be passed, nanoseconds.
    pub last_time: u64,
    /// 1 once the process reached its normal end.
    pub clean_exit: u64,
    /// Event that began teardown; 0 none.
    pub teardown_seq: u64,
    /// History series in use.
    pub series_used: u64,
    /// Panics caught in the recorder; any is a bug of ours.
    pub panics: u64,
    /// CUDA entry points that were handed out unhooked though their names look like memory.
    pub bypassed: u64,
    /// Room for later counters; 0.
    pub reserved: [u64; 15],
}

const _: () = assert!(size_of::<Control>() == 256);

/// How the bytes of a trace of one size are divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the whole file.
    pub file_size: u64,
    /// One line a section, in file order.
    pub sections: [SectionEntry; Section::ALL.len()],
}

impl Layout {
    /// Divides `wished` bytes (raised to [`MIN_SIZE`], cut to whole pages).
    pub fn for_size(wished: u64) -> Layout {
        let file_size = wished.max(MIN_SIZE) / PAGE * PAGE;
        let mut offset = PAGE;
        let mut sections = [SectionEntry::default(); Section::ALL.len()];
        let fixed: u64 = PAGE
            + page_up(size_of::<Control>() as u64)
            + page_up(size_of::<Journal>() as u64)
            + page_up((ACCOUNT_ROWS * size_of::<Account>()) as u64)
            + page_up((FOOTPRINT_ROWS * size_of::<Footprint>()) as u64)
            + page_up((REPORTED_ROWS * size_of::<Reported>()) as u64)
            + page_up((RANGES * size_of::<u64>()) as u64)
            + page_up((sampling::ROWS * size_of::<sampling::Row>()) as u64);
        let free = file_size - fixed;
        let mut rows = 0;
        for (entry, &section) in sections.iter_mut().zip(&Section::ALL) {
            let entry_size = section.entry_size() as u64;
            let room = match section.share() {
                None => page_up(fixed_entries(section) * entry_size),
                Some(share) => (free * share / 1000) / PAGE * PAGE,
            };
            let length = match section {
                Section::History => room.min(HISTORY_MAX) / entry_size * entry_size,
                // The totals come before it.
                Section::Curves => {
                    room.min(curves::Geometry::most_bytes(rows)) / entry_size * entry_size
                }
                _ if section.share().is_none() => fixed_entries(section) * entry_size,
                _ => room / entry_size * entry_size,
            };
            if section == Section::Totals {
                rows = length / entry_size;
            }
            *entry = SectionEntry {
                kind: section as u32,
                entry_size: entry_size as u32,
                offset,
                length,
            };
            offset += page_up(length);
        }
        debug_assert!(offset <= file_size);
        Layout {
            file_size,
            sections,
        }
    }

    /// Where `section` is.
    pub fn of(&self, section: Section) -> SectionEntry {
        self.sections[section.position()]
    }

    /// The header that describes this layout.
    pub fn header(&self, pid: u32, start_unix_ns: u64, start_monotonic_ns: u64) -> Header {
        let mut sections = [SectionEntry::default(); MAX_SECTIONS];
        sections[..self.sections.len()].copy_from_slice(&self.sections);
        Header {
            magic: MAGIC,
            version: VERSION,
            header_size: size_of::<Header>() as u32,
            file_size: self.file_size,
            start_unix_ns,
            start_monotonic_ns,
            pid,
            section_count: self.sections.len() as u32,
            pid_namespace: 0,
            start_ticks: 0,
            sections,
        }
    }
}

/// More history than this helps nobody: 64 series of full depth.
const HISTORY_MAX: u64 = (64 * LEVELS * CELLS_PER_LEVEL * size_of::<Cell>()) as u64;

const fn page_up(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE) * PAGE
}

const fn fixed_entries(section: Section) -> u64 {
    match section {
        Section::Accounts => ACCOUNT_ROWS as u64,
        Section::Footprints => FOOTPRINT_ROWS as u64,
        Section::Reported => REPORTED_ROWS as u64,
        Section::Ranges => RANGES as u64,
        Section::Sampling => sampling::ROWS as u64,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sections_lie_inside_the_file_and_never_overlap(wished in 0u64..(8 << 30)) {
            let layout = Layout::for_size(wished);
            prop_assert!(layout.file_size >= MIN_SIZE);
            prop_assert!(layout.file_size <= wished.max(MIN_SIZE));
            let mut end = PAGE;
            for entry in layout.sections {
                prop_assert!(entry.offset >= end && entry.offset % PAGE == 0);
                prop_assert!(entry.length > 0 && entry.length % u64::from(entry.entry_size) == 0);
                end = entry.offset + entry.length;
            }
            prop_assert!(end <= layout.file_size);
        }
    }

    #[test]
    fn there_is_room_for_curves() {
        let of = |size: u64| {
            let layout = Layout::for_size(size);
            let rows = layout.of(Section::Totals).length as usize / size_of::<Totals>();
            let words = layout.of(Section::Curves).length as usize / 8;
            let geometry = curves::Geometry::of(words, rows);
            (geometry.curves, geometry.per_level)
        };
        assert_eq!(of(MIN_SIZE), (4, 32));
        let (curves, per_level) = of(16 << 20);
        // A week and a day at 68 minutes.
        assert!(curves >= 16 && per_level >= 150, "{curves} {per_level}");
        assert_eq!(of(DEFAULT_SIZE).1, curves::MAX_CELLS_PER_LEVEL);
        assert_eq!(
            of(4 << 30),
            (curves::MAX_CURVES, curves::MAX_CELLS_PER_LEVEL)
        );
    }

    #[test]
    fn the_default_size_is_used_well() {
        let layout = Layout::for_size(DEFAULT_SIZE);
        let used: u64 = layout.sections.iter().map(|s| s.length).sum();
        assert!(used * 100 / DEFAULT_SIZE >= 98, "{used} of {DEFAULT_SIZE}");
        for section in Section::ALL {
            let entry = layout.of(section);
            assert_eq!(entry.kind, section as u32);
            assert_eq!(Section::ALL[section.position()], section);
        }
    }
}
