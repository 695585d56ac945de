//! The answers of the other commands, as they give them as JSON, so that the page says the same.

use super::budget::Budget;
use crate::analysis::Filter;
use crate::analysis::growth::Growths;
use crate::analysis::leaks::{Answer, Asked, Options, Suppressions};
use crate::analysis::oom::Oom;
use crate::analysis::reconcile;
use crate::analysis::summary::summary;
use crate::model::Process;
use crate::report;
use crate::report::frames::Frames;
use serde::Serialize;

/// Failed allocations of each process.
const FAILURES: usize = 50;
/// Stacks that are shown of each.
const HOLDERS: usize = 10;

/// Documents.
pub struct Answers {
    named: Vec<(&'static str, String)>,
    warnings: Vec<String>,
}

impl Answers {
    /// Of `leaks`, `summary`, `growth`, `oom`; `reconciled` is the one of `reconcile`.
    pub fn of(
        processes: &[Process],
        reconciled: &reconcile::Answer,
        budget: &Budget,
        frames: &mut Frames,
    ) -> Answers {
        let mut suppressions = Suppressions::default();
        suppressions.add_builtin();
        let options = Options {
            suppressions,
            ..Options::default()
        };
        let (plain, asked) = (Options::default(), Asked::default());
        let top = Some(budget.groups);
        let leaks = Answer::of(processes, &options, top, frames);
        let leaks = report::leaks::json(&report::leaks::Shown::new(&leaks, processes, frames));
        let summary = summary(processes, &Filter::default(), budget.groups, frames);
        let summary = report::summary::Shown::new(&summary, processes, frames);
        let summary = report::summary::json(&summary);
        let growth = Growths::of(processes, &plain, &[], &asked, top, frames);
        let growth = report::growth::Shown::new(&growth, processes, true, frames);
        let growth = report::growth::json(&growth);
        let (last, held) = (Some(FAILURES), Some(HOLDERS));
        let oom = Oom::of(processes, &plain, &[], &asked, last, held, frames);
        let oom = report::oom::json(&report::oom::Shown::new(&oom, processes, frames));
        Answers {
            named: vec![
                ("leaks", leaks),
                ("summary", summary),
                ("growth", growth),
                ("oom", oom),
                ("reconcile", report::reconcile::json(reconciled)),
            ],
            warnings: frames.warnings(),
        }
    }

    /// Files whose symbols could not be had.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// One JSON object of a document and all answers.
    pub(super) fn beside(&self, document: &impl Serialize) -> String {
        let mut out = String::from("{\"page\":");
        match serde_json::to_string(document) {
            Ok(text) => out.push_str(&text),
            Err(error) => unreachable!("plain data is always JSON: {error}"),
        }
        for (name, text) in &self.named {
            out.push_str(",\"");
            out.push_str(name);
            out.push_str("\":");
            out.push_str(text);
        }
        out.push('}');
        out
    }
}
