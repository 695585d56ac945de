//! A copy of a trace as a file of its own: the tables at one event, and what goes with them.

use super::{Damage, Trace};
use std::collections::VecDeque;
use std::io::{self, Seek, SeekFrom, Write};
use std::time::{SystemTime, UNIX_EPOCH};
use vramtrace_format::Section;
use vramtrace_format::cold::{Cold, Snapshot};
use vramtrace_format::snapshot::Contents;

/// Newest events of each layer that a copy keeps: 64 MiB of them.
const EVENTS: usize = 1 << 20;

impl Trace {
    /// Why a copy of this trace would say something that was never so; a sentence.
    pub fn not_to_be_copied(&self) -> Option<&str> {
        let damage = |damage: &&Damage| damage.affects_live;
        let damage = self.damage.iter().find(damage);
        let damage = damage.map(|damage| damage.what.as_str());
        self.copy.inexact.as_deref().or(damage)
    }

    /// Everything that a snapshot of this trace has, as of the copy's event.
    pub fn contents(&self) -> io::Result<Contents> {
        let mut contents = Contents::new();
        contents.seq = self.copy.seq;
        contents.control = self.copy.control;
        contents.accounts.clone_from(&self.copy.accounts);
        contents.totals.clone_from(&self.copy.totals);
        contents.stacks.clone_from(&self.stacks);
        contents.footprints.clone_from(&self.footprints);
        contents.reported.clone_from(&self.reported);
        contents.ranges.clone_from(&self.range_counts);
        contents.sampling.clone_from(&self.sampling);
        for entry in &self.copy.live {
            let lane = entry.lane();
            contents.live[lane].push(*entry);
        }
        contents.history = self.history()?;
        contents.history_cells = contents.history.len() as u64;
        let cold = self.sections.of(Section::Cold);
        contents.cold = vec![0; self.copy.control.cold_used.min(cold.rows) as usize];
        self.source.bytes(cold.offset, &mut contents.cold)?;
        for lane in 0..2 {
            let mut newest = VecDeque::new();
            for event in self.events_of(lane) {
                if newest.len() == EVENTS {
                    newest.pop_front();
                }
                newest.push_back(event);
            }
            contents.control.ring_written[lane] = self.written_by_then(lane)?;
            contents.events[lane] = newest.into();
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let name = self.path.file_name().unwrap_or_default();
        contents.add(&Cold::Snapshot(Snapshot {
            number: 0,
            failure: 0,
            seq: self.copy.seq,
            unix_ns: since.map_or(0, |since| since.as_nanos() as u64),
            trace: name.to_string_lossy().into_owned(),
        }));
        Ok(contents)
    }

    /// Writes a snapshot to a file that is empty; what is empty in it becomes holes.
    pub fn write_snapshot(&self, file: &mut std::fs::File) -> io::Result<()> {
        let mut contents = self.contents()?;
        file.set_len(contents.layout().file_size)?;
        contents.write(self.header(), |at, bytes| {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(bytes)
        })
    }
}
