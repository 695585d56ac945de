//! `vramtrace doctor`: can this be traced here?

use crate::launch::checkup::{self, Finding, Status};
use serde::Serialize;
use std::ffi::OsString;
use std::io::Write;

/// Exit code where tracing does not work.
const EXIT_NOT_TRACEABLE: i32 = 1;

/// Find out whether a program can be traced here, and what to do if not.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// The program, as for run; its arguments are ignored
    #[arg(trailing_var_arg = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    program: Option<String>,
    traceable: bool,
    findings: &'a [Finding],
}

/// Runs the command; returns the process's exit code.
pub fn execute(args: Args) -> i32 {
    let program = args.program.first();
    let findings = checkup::examine(program.map(OsString::as_os_str));
    let traceable = findings.iter().all(|finding| finding.status < Status::Fail);
    let name = program.map(|program| program.display().to_string());
    let text = if args.json {
        json(name, traceable, &findings)
    } else {
        lines(name.as_deref(), traceable, &findings)
    };
    // Nobody may be reading any more.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if traceable { 0 } else { EXIT_NOT_TRACEABLE }
}

fn json(program: Option<String>, traceable: bool, findings: &[Finding]) -> String {
    let document = Document {
        schema: "vramtrace.doctor/1",
        program,
        traceable,
        findings,
    };
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

fn lines(program: Option<&str>, traceable: bool, findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max();
    let width = width.unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let status = match finding.status {
            Status::Ok => "ok  ",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        let Finding { check, message, .. } = finding;
        text.push_str(&format!("{status}  {check:width$}  {message}\n"));
        if let Some(advice) = &finding.advice {
            text.push_str(&format!("      {:width$}  -> {advice}\n", ""));
        }
    }
    let subject = program.unwrap_or("programs");
    text.push_str(&if traceable {
        format!(
            "\n{subject} can be traced here. Next: vramtrace run {}\n",
            program.unwrap_or("PROGRAM")
        )
    } else {
        format!("\n{subject} cannot be traced here: see what FAILs above.\n")
    });
    text
}
