//! Whether the process of a trace runs, asked again and again: also of processes in other pid
//! namespaces, as far as this one sees them (a container with the machine's pid namespace does).

use crate::launch::liveness::{Identity, namespace_pids};
use crate::model::State;
use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

/// How long a process that was not found in /proc is not looked for again.
const PAUSE: Duration = Duration::from_secs(10);
/// Processes of the machine that are looked at.
const MOST: usize = 1 << 17;

/// Who is who in inner pid namespaces; found out at most once a sample, when it is needed.
#[derive(Default)]
pub struct Pids(Option<HashMap<u32, Vec<u32>>>);

impl Pids {
    /// Processes, by their number here, that have this number in the innermost namespace of theirs.
    fn outer(&mut self, inner: u32) -> &[u32] {
        let all = self.0.get_or_insert_with(|| {
            let mut all: HashMap<u32, Vec<u32>> = HashMap::new();
            let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
            let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            for outer in numbers.take(MOST) {
                if let [_, .., inner] = namespace_pids(outer)[..] {
                    all.entry(inner).or_default().push(outer);
                }
            }
            all
        });
        all.get(&inner).map_or(&[], Vec::as_slice)
    }
}

/// What is known of a process's life.
#[derive(Clone, Debug)]
pub struct Life {
    identity: Identity,
    /// Its trace was written on this machine, as far as its name tells.
    own_host: bool,
    outer: Option<u32>,
    missed: Option<Instant>,
}

impl Life {
    /// Of the process with this identity, on the machine with this name.
    pub fn new(identity: Identity, host: &str) -> Life {
        let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Life {
            identity,
            own_host: host.is_empty() || own.trim_end() == host,
            outer: None,
            missed: None,
        }
    }

    /// Looks for it. One that was seen once and is not there any more has been killed; of one that was
    /// never seen that is said only if it would have to be visible.
    pub fn state(&mut self, clean_exit: bool, pids: &mut Pids) -> State {
        if clean_exit {
            return State::Exited;
        }
        let who = self.identity;
        if who.pid == 0 || who.start_ticks == 0 {
            return State::Unknown;
        }
        if let Some(outer) = self.outer {
            return if who.still_runs_as(outer) {
                State::Running
            } else {
                State::Killed
            };
        }
        let near = who.is_near();
        if near && who.runs() {
            self.outer = who.pids().first().copied();
            return State::Running;
        }
        if near && self.own_host {
            return State::Killed;
        }
        if self.missed.is_none_or(|at| at.elapsed() >= PAUSE) {
            let found = pids.outer(who.pid).iter().copied();
            self.outer = found.into_iter().find(|&outer| who.still_runs_as(outer));
            if self.outer.is_some() {
                return State::Running;
            }
            self.missed = Some(Instant::now());
        }
        State::Unknown
    }

    /// Its number here, while it runs.
    pub fn outer(&self) -> Option<u32> {
        self.outer
    }

    /// Its numbers, from the one here to the one that it has for itself.
    pub fn pids(&self) -> Vec<u32> {
        match self.outer.map(|outer| (outer, namespace_pids(outer))) {
            None => Vec::new(),
            Some((outer, pids)) if pids.first() == Some(&outer) => pids,
            Some((outer, _)) => vec![outer],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn life(pid: u32, ticks: u64, namespace: u64, host: &str) -> Life {
        let identity = Identity {
            pid,
            start_ticks: ticks,
            pid_namespace: namespace,
        };
        Life::new(identity, host)
    }

    #[test]
    fn only_what_would_be_visible_is_said_to_be_dead() {
        let namespace = fs::metadata("/proc/self/ns/pid").unwrap().ino();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let ticks: u64 = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .nth(19)
            .unwrap()
            .parse()
            .unwrap();
        let mut runs = life(child.id(), ticks, namespace, "");
        let mut pids = Pids::default();
        assert_eq!(runs.state(false, &mut pids), State::Running);
        assert_eq!(runs.outer(), Some(child.id()));
        assert_eq!(runs.pids().first(), Some(&child.id()));
        assert_eq!(runs.state(true, &mut pids), State::Exited);
        let mut earlier = life(child.id(), ticks - 1, namespace, "");
        assert_eq!(earlier.state(false, &mut pids), State::Killed);
        let mut elsewhere = life(child.id(), ticks - 1, namespace, "a host of another name");
        assert_eq!(elsewhere.state(false, &mut pids), State::Unknown);
        let mut inner = life(u32::MAX, ticks, namespace + 1, "");
        assert_eq!(inner.state(false, &mut pids), State::Unknown);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(runs.state(false, &mut pids), State::Killed);
    }
}
