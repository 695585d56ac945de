//! Whether a program can be traced here: findings, each with what to do about it.
//!
//! Nothing is changed, apart from a directory that is made and removed again to see that it can.

mod machine;
mod program;
mod recorder;

use std::ffi::OsStr;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Tracing works, but less well than it could.
    Warn,
    /// Tracing does not work.
    Fail,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Short, stable name of the check.
    pub check: &'static str,
    /// How it came out.
    pub status: Status,
    /// One sentence.
    pub message: String,
    /// What to do about it.
    pub advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Finding {
        Finding {
            check,
            status: Status::Ok,
            message: message.into(),
            advice: None,
        }
    }

    fn warn(check: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding {
            check,
            status: Status::Warn,
            message: message.into(),
            advice: Some(advice.into()),
        }
    }

    fn fail(check: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding {
            status: Status::Fail,
            ..Finding::warn(check, message, advice)
        }
    }
}

/// Checks this machine, and the program if one is given.
pub fn examine(program: Option<&OsStr>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(program) = program {
        findings.extend(program::examine(program));
    }
    findings.extend(recorder::examine());
    findings.extend(machine::examine());
    findings
}
