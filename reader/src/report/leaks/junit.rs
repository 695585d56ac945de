//! Leaks as JUnit's XML, which CI services show: one test case for each process, and one that says
//! whether all that is certain.

use super::Shown;
use super::text::{group_alone, space_sums};
use crate::analysis::leaks::Answer;
use crate::report::words::foreign;
use std::fmt::Write;

/// What makes test cases fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// More was leaked than may be.
    pub leaked: bool,
    /// Why it is not certain what was leaked, sentences; empty if it is.
    pub uncertain: &'a [String],
}

/// The document.
pub fn junit(shown: &Shown<'_>, verdict: &Verdict<'_>) -> String {
    let answer = shown.answer;
    let mut cases = String::new();
    let mut failures = 0;
    for (id, view) in answer.processes.iter().enumerate() {
        let rank = view.rank.map(|rank| format!(", rank {rank}"));
        let name = format!(
            "{} (pid {}{})",
            view.name,
            view.pid,
            rank.unwrap_or_default()
        );
        let sums = answer.leaked_by[id];
        let failed = verdict.leaked && sums.iter().any(|sum| sum.count > 0);
        failures += usize::from(failed);
        let found = failed.then(|| {
            let message = format!("{} leaked", space_sums(sums));
            Found {
                tag: "failure",
                message,
                body: groups(shown, answer, id),
            }
        });
        case(&mut cases, &name, found);
    }
    let uncertain = (!verdict.uncertain.is_empty()).then(|| Found {
        tag: "error",
        message: "it is not certain what was leaked".to_owned(),
        body: verdict.uncertain.join("\n"),
    });
    let errors = usize::from(uncertain.is_some());
    case(&mut cases, "what was leaked is certain", uncertain);
    let counts = format!(
        "tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\"",
        answer.processes.len() + 1
    );
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites name=\"vramtrace\" {counts}>\n  \
         <testsuite name=\"leaks\" {counts}>\n{cases}  </testsuite>\n</testsuites>\n"
    )
}

struct Found {
    tag: &'static str,
    message: String,
    body: String,
}

fn case(out: &mut String, name: &str, found: Option<Found>) {
    let _ = write!(
        out,
        "    <testcase classname=\"vramtrace.leaks\" name=\"{}\"",
        xml(name)
    );
    let _ = match found {
        None => writeln!(out, "/>"),
        Some(Found { tag, message, body }) => writeln!(
            out,
            ">\n      <{tag} message=\"{}\">{}</{tag}>\n    </testcase>",
            xml(&message),
            body.lines().map(xml).collect::<Vec<_>>().join("\n")
        ),
    };
}

/// The groups of a process, as the report for people has them.
fn groups(shown: &Shown<'_>, answer: &Answer, process: usize) -> String {
    let groups = answer.groups.iter().zip(&shown.stacks);
    let own = groups.filter(|(placed, _)| placed.process == process);
    let texts: Vec<String> = own
        .map(|(placed, stack)| group_alone(answer, placed, stack))
        .collect();
    texts.join("\n")
}

/// Text as XML has it. What XML cannot hold is escaped as in other reports.
fn xml(text: &str) -> String {
    let mut out = String::new();
    for c in foreign(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::xml;

    #[test]
    fn names_cannot_break_out() {
        assert_eq!(
            xml("map<int>&\"a\"\u{1b}\n\u{ffff}"),
            "map&lt;int&gt;&amp;&quot;a&quot;\\u{1b}\\n\\u{ffff}"
        );
    }
}
