//! Labels of metrics: made once a scrape for each process and device, however many series have them.

use crate::live::{AccountSample, Identity, ProcessSample};
use crate::report::words::foreign;
use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::fmt::{self, Write};
use std::path::Path;
use std::rc::Rc;
use vramtrace_format::record::Kind;

/// Characters of a label's value.
const LONGEST: usize = 240;

/// The value of a label, which is cheap to have once more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// A word of ours.
    Fixed(&'static str),
    /// Anything else; [`clean`].
    Shared(Rc<str>),
}

impl From<&'static str> for Value {
    fn from(word: &'static str) -> Value {
        Value::Fixed(word)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Shared(text.into())
    }
}

impl Value {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.text().is_empty()
    }

    fn text(&self) -> &str {
        match self {
            Value::Fixed(word) => word,
            Value::Shared(text) => text,
        }
    }
}

impl EncodeLabelValue for Value {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.text())
    }
}

/// Labels of one row.
pub type Labels = Vec<(&'static str, Value)>;

/// A layer's row, and whose it is.
pub type OfAccount<'s> = (&'s ProcessSample, &'s AccountSample);

/// Labels of the processes of one sample.
#[derive(Default)]
pub struct Names {
    /// By where the process lies in the sample, and device.
    made: RefCell<FxHashMap<(usize, Option<u8>), Labels>>,
}

impl Names {
    /// Of a process.
    pub fn of(&self, process: &ProcessSample) -> Labels {
        self.on(process, None)
    }

    /// Of a process on one of its devices, or of its host memory.
    pub fn on(&self, process: &ProcessSample, ordinal: Option<u8>) -> Labels {
        let key = (std::ptr::from_ref(process) as usize, ordinal);
        let mut made = self.made.borrow_mut();
        let labels = made.entry(key).or_insert_with(|| {
            let mut labels = who(&process.trace, Some(&process.identity));
            if let Some(ordinal) = ordinal {
                let known = process.devices.iter().find(|one| one.ordinal == ordinal);
                let number = known.and_then(|one| one.number).unwrap_or(ordinal.into());
                labels.extend(device(Some(number), known.map_or("", |one| &one.uuid)));
            }
            labels
        });
        // Room for what is added: layer, kind, site.
        let mut all = Labels::with_capacity(labels.len() + 5);
        all.extend_from_slice(labels);
        all
    }

    /// Of a layer of a process.
    pub fn layer(&self, (process, account): OfAccount<'_>) -> Labels {
        let mut labels = self.on(process, account.device);
        labels.push(("layer", account.layer.name().into()));
        labels
    }
}

/// Of a trace, and of its process where that is known.
pub fn who(trace: &Path, identity: Option<&Identity>) -> Labels {
    let mut labels = vec![("trace", clean(&trace.to_string_lossy()))];
    if let Some(identity) = identity {
        labels.push(("pid", identity.pid.to_string().into()));
        labels.push(("program", clean(&identity.name)));
        if let Some(rank) = identity.rank {
            labels.push(("rank", rank.to_string().into()));
        }
    }
    labels
}

/// Labels as dcgm-exporter has them. Where NVML does not number devices, the process's own number.
pub fn device(number: Option<u32>, uuid: &str) -> Labels {
    let mut labels = Labels::new();
    if let Some(number) = number {
        labels.push(("gpu", number.to_string().into()));
    }
    if !uuid.is_empty() {
        labels.push(("UUID", clean(uuid)));
    }
    labels
}

/// Of a kind of memory.
pub fn kind(kind: Kind) -> [(&'static str, Value); 2] {
    [
        ("layer", kind.layer().name().into()),
        ("kind", kind.name().into()),
    ]
}

/// A foreign text as the value of a label: on one line, of bounded length, escaped.
pub fn clean(text: &str) -> Value {
    let mut out = String::new();
    for c in foreign(text).chars().take(LONGEST) {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_leave_its_label() {
        assert_eq!(clean("a\"} 1\n# EOF").text(), "a\\\"} 1\\\\n# EOF");
        assert_eq!(clean("\\").text(), "\\\\");
        assert!(clean(&"x".repeat(10_000)).text().len() <= LONGEST);
    }
}
