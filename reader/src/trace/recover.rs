//! Puts right, in a copy, what a kill interrupted: format's own recovery, on tables that lie
//! whole in memory. Only files that need it are read this way.

use super::copy::{Copy, Past, is_kept};
use super::sections::Sections;
use super::source::{Source, Through};
use bytemuck::{Pod, Zeroable};
use std::io;
use vramtrace_format::Section;
use vramtrace_format::apply::Tables;
use vramtrace_format::curves::Curves;
use vramtrace_format::history::{Cell, History};
use vramtrace_format::journal::State;
use vramtrace_format::layout::Control;
use vramtrace_format::live::LiveTable;
use vramtrace_format::record::Record;
use vramtrace_format::ring::Ring;
use vramtrace_format::totals::{Totals, TotalsTable};

/// The two slots of a ring where its newest record can be: the last one that was counted, and
/// the one after it, which may be complete and not yet counted.
pub(super) fn newest(
    source: &Source,
    sections: &Sections,
    lane: usize,
    control: &Control,
) -> io::Result<Vec<Record>> {
    let ring = sections.ring(lane);
    if ring.rows == 0 || ring.rows != ring.promised {
        return Ok(Vec::new());
    }
    let at = control.ring_written[lane] % ring.rows;
    let before = at.checked_sub(1).unwrap_or(ring.rows - 1);
    let mut found = vec![Record::zeroed(); 2];
    for (record, slot) in found.iter_mut().zip([before, at]) {
        let words = bytemuck::cast_slice_mut(std::slice::from_mut(record));
        source.words(Through::Calls, ring.at(slot), words)?;
    }
    Ok(found)
}

/// Reads all tables, as they are, and recovers them.
pub(super) fn recovered(source: &Source, sections: &Sections) -> io::Result<Copy> {
    let mut control = sections.control(source)?;
    let mut journal = sections.journal(source)?;
    let mut accounts = sections.accounts(source)?;
    let mut newest = [
        newest(source, sections, 0, &control)?,
        newest(source, sections, 1, &control)?,
    ];
    let mut live: [Vec<Record>; 2] = [
        all(source, sections, Section::LiveDevice)?,
        all(source, sections, Section::LiveFramework)?,
    ];
    let mut totals: Vec<Totals> = all(source, sections, Section::Totals)?;
    let mut history: Vec<Cell> = all(source, sections, Section::History)?;
    let mut curves: Vec<u64> = all(source, sections, Section::Curves)?;
    let rows = sections.of(Section::Totals).promised as usize;
    let [device, framework] = &mut live;
    let mut tables = Tables {
        journal: &mut journal,
        accounts: &mut accounts,
        live: [LiveTable::new(device), LiveTable::new(framework)],
        totals: TotalsTable::new(&mut totals),
        history: History::new(&mut history),
        curves: Curves::new(&mut curves, rows),
    };
    let [first, second] = &mut newest;
    // Rings of the two slots that matter, set up so that the second is the next to be written.
    let rings = [Ring::new(first, 1), Ring::new(second, 1)];
    let recovered = tables.recover(&rings, &mut control);
    let seq = match journal.state() {
        State::Complete { seq } => seq,
        State::Interrupted { seq, .. } => seq.saturating_sub(1),
    };
    totals.retain(|row| row.key.used != 0);
    let [device, framework] = live;
    let mut live = device;
    live.retain(is_kept);
    live.extend(framework.into_iter().filter(is_kept));
    Ok(Copy {
        seq,
        control,
        accounts,
        live,
        totals,
        recovered,
        past: Some(Past { history, curves }),
        moving: false,
        inexact: None,
    })
}

fn all<T: Pod>(source: &Source, sections: &Sections, section: Section) -> io::Result<Vec<T>> {
    let extent = sections.of(section);
    let mut rows = vec![T::zeroed(); extent.rows as usize];
    source.words(
        Through::Calls,
        extent.offset,
        bytemuck::cast_slice_mut(&mut rows),
    )?;
    Ok(rows)
}
