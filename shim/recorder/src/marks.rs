//! Marks: points that the program sets in its own time, by which reports can be asked.
//!
//! A text is written to the trace once, however often it is set. Texts that never repeat fill a
//! quarter of the trace's room for names at most; after that those with numbers in them become one
//! (`step #`), and others "(other marks)".

use crate::ranges::{self, names::Name, text};
use crate::recorder::event;
use crate::renew::Renewable;
use crate::turn::{guarded, with};
use std::collections::HashMap;
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::record::{Op, Record};

/// Bytes of a text that are kept.
const LONGEST: usize = 1000;

/// Ids of texts in the trace, by what they are known by. 0 is that of all others.
static MARKS: Renewable<HashMap<u64, u32>> = Renewable::new();

/// The program set a mark, in an NVTX domain or (0) none.
pub fn mark(domain: Name, text: &[u8]) {
    guarded(|| {
        let text = &text[..text.len().min(LONGEST)];
        let id = id_of(domain, text).unwrap_or(0);
        event(&Record {
            op: Op::Mark as u8,
            aux: u64::from(id),
            ..Record::default()
        });
    });
}

/// This is a forked child.
pub(crate) fn start_over() {
    MARKS.renew();
}

fn id_of(domain: Name, text: &[u8]) -> Option<u32> {
    let mut marks = MARKS.lock()?;
    let mut known = |text: &[u8], many: bool| {
        let key = text::hash(u64::from(domain), text);
        if let Some(&id) = marks.get(&key) {
            return Some(id);
        }
        let id = marks.len() as u32 + 1;
        let written = with(|ledger| ledger.mark(&describe(id, domain, text), many))?;
        written.then(|| marks.insert(key, id))?;
        Some(id)
    };
    let other = || with(|ledger| ledger.other_marks());
    known(text, false)
        .or_else(|| known(text::pattern(text)?.bytes(), true))
        .or_else(|| other().map(|()| 0))
}

fn describe(id: u32, domain: Name, text: &[u8]) -> Vec<Cold> {
    let mut text = String::from_utf8_lossy(text).into_owned();
    if text.len() >= LONGEST && text.ends_with(char::REPLACEMENT_CHARACTER) {
        text.pop();
    }
    let mut records = Vec::new();
    if domain != 0 {
        records.push(Cold::MarkDomain(cold::Name {
            id,
            text: ranges::domain_text(domain),
        }));
    }
    records.push(Cold::Mark(cold::Name { id, text }));
    records
}
