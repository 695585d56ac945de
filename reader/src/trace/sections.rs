//! The header, and where each section is: checked once, so that nothing later can go astray.

use super::error::Problem;
use super::source::{Source, Through};
use bytemuck::Zeroable;
use std::io;
use vramtrace_format::account::{ACCOUNT_ROWS, Account};
use vramtrace_format::footprint::{FOOTPRINT_ROWS, Footprint};
use vramtrace_format::journal::Journal;
use vramtrace_format::layout::{Control, Header, MAGIC, MAX_SECTIONS, PAGE, VERSION};
use vramtrace_format::reported::{REPORTED_ROWS, Reported};
use vramtrace_format::sampling::{self, Sampling};
use vramtrace_format::{Section, layout::SectionEntry};

/// Larger files are refused: memory stays bounded whatever a file claims.
pub const MAX_FILE: u64 = 16 << 30;

/// Rows of one section that are really there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Rows that the file holds.
    pub rows: u64,
    /// Rows that the header promises; more than `rows` in a file that was cut off.
    pub promised: u64,
    /// Bytes of a row.
    pub row_size: u64,
}

impl Extent {
    /// Where a row is.
    pub fn at(&self, row: u64) -> u64 {
        self.offset + row * self.row_size
    }
}

/// A header that makes sense.
#[derive(Clone, Debug)]
pub struct Sections {
    /// The header itself.
    pub header: Header,
    extents: [Extent; Section::ALL.len()],
    /// Section numbers that this version does not know.
    pub unknown: Vec<u32>,
}

impl Sections {
    /// Reads and checks the header.
    pub fn read(source: &Source) -> Result<Sections, Problem> {
        let header = read_header(source)?;
        let mut extents = [Extent::default(); Section::ALL.len()];
        let mut unknown = Vec::new();
        for (index, entry) in header.sections[..header.section_count as usize]
            .iter()
            .enumerate()
        {
            let at = std::mem::offset_of!(Header, sections) + index * size_of::<SectionEntry>();
            let known = Section::ALL.iter().find(|s| **s as u32 == entry.kind);
            let Some(&section) = known else {
                unknown.push(entry.kind);
                continue;
            };
            let slot = &mut extents[section.position()];
            if slot.row_size != 0 {
                return Err(Problem::Damaged {
                    what: format!("section {section:?} is there twice"),
                    at: at as u64,
                });
            }
            *slot =
                extent(section, entry, &header, source.len()).map_err(|what| Problem::Damaged {
                    what: format!("section {section:?} {what}"),
                    at: at as u64,
                })?;
        }
        let sections = Sections {
            header,
            extents,
            unknown,
        };
        for (section, missing) in [
            (Section::Control, "its counters"),
            (Section::Journal, "its journal"),
            (Section::Accounts, "its accounts"),
        ] {
            let extent = sections.of(section);
            let needed = if section == Section::Accounts {
                ACCOUNT_ROWS as u64
            } else {
                1
            };
            if extent.promised < needed {
                return Err(Problem::Damaged {
                    what: format!("it has no section with {missing}"),
                    at: 0,
                });
            }
            if extent.rows < needed {
                return Err(Problem::Truncated {
                    have: source.len(),
                    whole: header.file_size,
                    missing,
                });
            }
        }
        Ok(sections)
    }

    /// Where a section is; no rows if the file has none of it.
    pub fn of(&self, section: Section) -> Extent {
        self.extents[section.position()]
    }

    /// The live table of a lane.
    pub fn live(&self, lane: usize) -> Extent {
        self.of([Section::LiveDevice, Section::LiveFramework][lane])
    }

    /// The ring of a lane.
    pub fn ring(&self, lane: usize) -> Extent {
        self.of([Section::RingDevice, Section::RingFramework][lane])
    }

    /// Sections that the file does not hold whole.
    pub fn cut(&self) -> impl Iterator<Item = (Section, Extent)> + '_ {
        Section::ALL
            .into_iter()
            .map(|section| (section, self.of(section)))
            .filter(|(section, extent)| {
                let missing = extent.row_size == 0 && !section.is_optional();
                extent.rows < extent.promised || missing
            })
    }

    /// Where the journal's word is.
    pub fn journal_word(&self) -> u64 {
        self.of(Section::Journal).offset
    }

    /// The counters, as they are at this moment.
    pub fn control(&self, source: &Source) -> io::Result<Control> {
        let mut control = [Control::zeroed()];
        self.rows(source, Section::Control, &mut control)?;
        Ok(control[0])
    }

    /// The journal, as it is at this moment.
    pub fn journal(&self, source: &Source) -> io::Result<Box<Journal>> {
        let mut journal = Box::new([Journal::zeroed()]);
        self.rows(source, Section::Journal, &mut journal[..])?;
        Ok(Box::new(journal[0]))
    }

    /// All account rows, as they are at this moment.
    pub fn accounts(&self, source: &Source) -> io::Result<Vec<Account>> {
        let mut accounts = vec![Account::zeroed(); ACCOUNT_ROWS];
        self.rows(source, Section::Accounts, &mut accounts)?;
        Ok(accounts)
    }

    /// What the driver holds for itself, by device; none in traces that do not say.
    pub fn footprints(&self, source: &Source) -> io::Result<Vec<Footprint>> {
        let rows = self.of(Section::Footprints).rows.min(FOOTPRINT_ROWS as u64);
        let mut footprints = vec![Footprint::zeroed(); rows as usize];
        self.rows(source, Section::Footprints, &mut footprints)?;
        Ok(footprints)
    }

    /// What a framework itself said, by device, as it is at this moment; nothing in a file without.
    pub fn reported(&self, source: &Source) -> io::Result<Vec<Reported>> {
        let rows = self.of(Section::Reported).rows as usize;
        let mut reported = vec![Reported::zeroed(); rows.min(REPORTED_ROWS)];
        self.rows(source, Section::Reported, &mut reported)?;
        Ok(reported)
    }

    /// What was sampled when, as it is at this moment; `None` in a file that does not have all of it.
    pub fn sampling(&self, source: &Source) -> io::Result<Option<Box<Sampling>>> {
        if self.of(Section::Sampling).rows < sampling::ROWS as u64 {
            return Ok(None);
        }
        let mut table = Box::new([Sampling::zeroed()]);
        self.rows(source, Section::Sampling, &mut table[..])?;
        Ok(Some(Box::new(table[0])))
    }

    /// The sums of that alone.
    pub fn sampling_head(&self, source: &Source) -> io::Result<Option<sampling::Head>> {
        if self.of(Section::Sampling).rows < sampling::ROWS as u64 {
            return Ok(None);
        }
        let mut head = [sampling::Head::zeroed()];
        self.rows(source, Section::Sampling, &mut head)?;
        Ok(Some(head[0]))
    }

    fn rows<T: bytemuck::Pod>(
        &self,
        source: &Source,
        section: Section,
        into: &mut [T],
    ) -> io::Result<()> {
        source.words(
            Through::Calls,
            self.of(section).offset,
            bytemuck::cast_slice_mut(into),
        )
    }
}

fn read_header(source: &Source) -> Result<Header, Problem> {
    if source.is_empty() {
        return Err(Problem::Empty);
    }
    let have = source.len().min(size_of::<Header>() as u64) as usize;
    let mut header = Header::zeroed();
    source
        .bytes(0, &mut bytemuck::bytes_of_mut(&mut header)[..have])
        .map_err(Problem::Io)?;
    if header.magic != MAGIC {
        return Err(Problem::Foreign);
    }
    if have < size_of::<Header>() {
        return Err(Problem::Truncated {
            have: source.len(),
            whole: header.file_size.max(PAGE),
            missing: "its header",
        });
    }
    if header.version > VERSION {
        return Err(Problem::Newer {
            version: header.version,
            known: VERSION,
        });
    }
    let damaged = |what: String, at: usize| Problem::Damaged {
        what,
        at: at as u64,
    };
    if header.version == 0 {
        return Err(damaged(
            "format version 0 does not exist".into(),
            std::mem::offset_of!(Header, version),
        ));
    }
    if header.file_size > MAX_FILE {
        return Err(Problem::TooLarge {
            size: header.file_size,
            limit: MAX_FILE,
        });
    }
    if header.section_count as usize > MAX_SECTIONS {
        return Err(damaged(
            format!(
                "it claims {} sections, there is room for {MAX_SECTIONS}",
                header.section_count
            ),
            std::mem::offset_of!(Header, section_count),
        ));
    }
    Ok(header)
}

fn extent(
    section: Section,
    entry: &SectionEntry,
    header: &Header,
    have: u64,
) -> Result<Extent, String> {
    let row_size = section.entry_size() as u64;
    if u64::from(entry.entry_size) != row_size {
        return Err(format!(
            "has entries of {} bytes instead of {row_size}",
            entry.entry_size
        ));
    }
    let end = entry.offset.checked_add(entry.length);
    if end.is_none_or(|end| end > header.file_size) || entry.offset < PAGE {
        return Err(format!(
            "lies at {} + {}, outside the file's {} bytes",
            entry.offset, entry.length, header.file_size
        ));
    }
    if !entry.offset.is_multiple_of(8) {
        return Err(format!("begins at {}, not a multiple of 8", entry.offset));
    }
    if !entry.length.is_multiple_of(row_size) {
        return Err(format!(
            "has {} bytes, not a multiple of its {row_size}-byte entries",
            entry.length
        ));
    }
    let there = have.saturating_sub(entry.offset).min(entry.length);
    Ok(Extent {
        offset: entry.offset,
        rows: there / row_size,
        promised: entry.length / row_size,
        row_size,
    })
}
