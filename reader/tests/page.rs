//! `vramtrace report`: the page says what the other commands say, whatever the trace holds.

#![allow(missing_docs)]

mod support;
#[path = "support/training.rs"]
mod training;
#[allow(dead_code)]
#[path = "support/week.rs"]
mod week;

use serde_json::Value;
use std::path::Path;
use support::*;
use training::Training;
use vramtrace_reader::analysis::Filter;
use vramtrace_reader::analysis::leaks::{Answer, Asked, Options, Window};
use vramtrace_reader::analysis::moment::{Found, Past};
use vramtrace_reader::analysis::peak::peaks;
use vramtrace_reader::analysis::timeline::timeline;
use vramtrace_reader::model::{NoNames, Process};
use vramtrace_reader::page::{Answers, Budget, Page, document};
use vramtrace_reader::report::frames::Frames;
use vramtrace_reader::trace::Trace;

#[test]
fn writes() {
    let Ok(out) = std::env::var("VRAMTRACE_PAGE_OUT") else {
        return;
    };
    let out = Path::new(&out);
    Training::default().record().write(out, "training.vrt");
    Training {
        hostile: "<img src=x onerror=alert(1)></script>\u{202e}\u{7}",
        steps: 6,
        ..Training::default()
    }
    .record()
    .write(out, "hostile.vrt");
}
