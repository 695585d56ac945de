//! What the real `vramtrace` command says about a trace.

use crate::artifacts::artifacts;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the command.
pub fn vramtrace<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    let mut command = Command::new(&artifacts().reader);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("VRAMTRACE") {
            command.env_remove(&name);
        }
    }
    command.args(arguments).output().expect("vramtrace starts")
}

/// Runs the command for one JSON document.
pub fn read_json(command: &str, trace: &Path, options: &[&str]) -> Value {
    let mut arguments = vec![OsStr::new(command), OsStr::new("--json"), trace.as_os_str()];
    arguments.extend(options.iter().map(OsStr::new));
    let output = vramtrace(arguments);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "vramtrace {command} --json {}: {error}\n{}\n{}",
            trace.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// `vramtrace leaks --json`.
#[derive(Debug)]
pub struct Leaks {
    /// The whole document.
    pub json: Value,
}

/// One group of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// `kind`.
    pub kind: String,
    /// `api`.
    pub api: String,
    /// `bytes`.
    pub bytes: u64,
    /// `count`.
    pub count: u64,
    /// Functions of the stack, innermost first; what is not known is `?`.
    pub functions: Vec<String>,
    /// `end`.
    pub end: String,
    /// `device`.
    pub device: Option<u64>,
}

/// What a program says that it left allocated: `left KIND API BYTES COUNT FUNCTION`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Left {
    /// Kind of memory.
    pub kind: String,
    /// Driver function that allocated it.
    pub api: String,
    /// Bytes asked for, in sum.
    pub bytes: u64,
    /// Allocations.
    pub count: u64,
    /// Function of the program that made them.
    pub function: String,
}

/// The `left` lines of a program's output, sorted.
pub fn left_lines(output: &str) -> Vec<Left> {
    let mut lines: Vec<Left> = output
        .lines()
        .filter_map(|line| line.strip_prefix("left "))
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [kind, api, bytes, count, function] = words[..] else {
                panic!("{line}")
            };
            let number = |word: &str| word.parse().unwrap_or_else(|_| panic!("{line}"));
            Left {
                kind: kind.into(),
                api: api.into(),
                bytes: number(bytes),
                count: number(count),
                function: function.into(),
            }
        })
        .collect();
    lines.sort();
    lines
}

impl Leaks {
    /// Of a trace.
    pub fn of(trace: &Path, options: &[&str]) -> Leaks {
        let json = read_json("leaks", trace, options);
        assert_eq!(json["schema"], "vramtrace.leaks/1");
        Leaks { json }
    }

    /// Whether the live set is exact.
    pub fn complete(&self) -> bool {
        self.json["complete"].as_bool().expect("complete")
    }

    /// Why not.
    pub fn incomplete_because(&self) -> String {
        self.json["incomplete_because"].to_string()
    }

    /// Bytes and number of one of the totals: `gpu`, `host`, `imports` …
    pub fn total(&self, which: &str) -> (u64, u64) {
        let total = &self.json["total"][which];
        (
            total["bytes"]
                .as_u64()
                .unwrap_or_else(|| panic!("total.{which}.bytes: {}", self.json)),
            total["count"]
                .as_u64()
                .unwrap_or_else(|| panic!("total.{which}.count: {}", self.json)),
        )
    }

    /// `point`.
    pub fn point(&self) -> &str {
        self.json["point"].as_str().expect("point")
    }

    /// The groups, sorted.
    pub fn groups(&self) -> Vec<Group> {
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let mut groups: Vec<Group> = self.json["groups"]
            .as_array()
            .expect("groups")
            .iter()
            .map(|group| Group {
                kind: text(&group["kind"]),
                api: text(&group["api"]),
                bytes: group["bytes"].as_u64().expect("bytes"),
                count: group["count"].as_u64().expect("count"),
                functions: group["stack"]
                    .as_array()
                    .expect("stack")
                    .iter()
                    .map(|frame| text(&frame["function"]))
                    .collect(),
                end: text(&group["end"]),
                device: group["device"].as_u64(),
            })
            .collect();
        groups.sort();
        groups
    }

    /// The groups in the words of a program about itself. The program's function is the
    /// innermost frame; its callers must lead to `main`, or to a thread's start.
    pub fn as_left(&self) -> Vec<Left> {
        let mut left: Vec<Left> = self
            .groups()
            .into_iter()
            .map(|group| Left {
                function: group
                    .functions
                    .first()
                    .cloned()
                    .unwrap_or("(no stack)".into()),
                kind: group.kind,
                api: group.api,
                bytes: group.bytes,
                count: group.count,
            })
            .collect();
        left.sort();
        left
    }

    /// Fails unless exactly what the program says is leaked, and that is certain.
    pub fn assert_are(&self, left: &[Left]) {
        assert_eq!(
            self.as_left(),
            left,
            "\nthe reader (left) and the program (right) differ"
        );
        assert!(self.complete(), "{}", self.incomplete_because());
        assert_eq!(self.json["lost_events"], 0);
        let sum = |host: bool| {
            let is_host = |kind: &str| kind == "pinned" || kind == "registered";
            let of = left.iter().filter(|left| is_host(&left.kind) == host);
            of.fold((0, 0), |sum, left| (sum.0 + left.bytes, sum.1 + left.count))
        };
        assert_eq!(self.total("gpu"), sum(false), "total.gpu");
        assert_eq!(self.total("host"), sum(true), "total.host");
    }
}

/// `vramtrace check --json`, for one trace.
#[derive(Debug)]
pub struct Check {
    /// What is said of the trace.
    pub json: Value,
}

impl Check {
    /// Of a trace.
    pub fn of(trace: &Path) -> Check {
        let mut document = read_json("check", trace, &[]);
        assert_eq!(document["schema"], "vramtrace.check/1");
        Check {
            json: document["traces"][0].take(),
        }
    }

    /// `whole`, `history-lost`, `inexact` or `damaged`.
    pub fn verdict(&self) -> &str {
        self.json["verdict"].as_str().expect("verdict")
    }

    /// One of the losses.
    pub fn loss(&self, name: &str) -> u64 {
        let loss = &self.json["losses"][name];
        let sum = |list: &Vec<Value>| list.iter().filter_map(Value::as_u64).sum();
        loss.as_u64()
            .or(loss.as_array().map(sum))
            .unwrap_or_else(|| panic!("{name}: {:#}", self.json))
    }
}
