//! Whether a process still runs, or how it ended.

use std::fs;
use std::os::unix::fs::MetadataExt;
use vramtrace_format::cold;

/// What became of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It runs.
    Running,
    /// It reached its normal end.
    Exited,
    /// It is gone without having reached its normal end (killed, crashed, `_exit`).
    Killed,
    /// It did not reach its normal end, and whether it runs cannot be seen from here.
    Unknown,
    /// This is a snapshot: what became of the process is not in it.
    Snapshot,
}

impl State {
    /// The word that reports and JSON use.
    pub const fn name(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Exited => "exited",
            State::Killed => "killed",
            State::Unknown => "unknown",
            State::Snapshot => "snapshot",
        }
    }

    /// Whether the process was running at the last event: what is live then is in use.
    pub const fn goes_on(self) -> bool {
        matches!(self, State::Running | State::Snapshot)
    }

    /// Reads that word.
    pub fn from_name(name: &str) -> Option<State> {
        [State::Running, State::Exited, State::Killed, State::Unknown]
            .into_iter()
            .find(|state| state.name() == name)
    }

    /// Looks for the process among those of this machine.
    pub(super) fn of(identity: &cold::Process, clean_exit: bool) -> State {
        if clean_exit {
            return State::Exited;
        }
        if identity.pid == 0 || identity.start_ticks == 0 {
            return State::Unknown;
        }
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        if !identity.host.is_empty() && host.trim_end() != identity.host {
            return State::Unknown;
        }
        let namespace = fs::metadata("/proc/self/ns/pid").map(|metadata| metadata.ino());
        if namespace.ok() != Some(identity.pid_namespace) {
            return State::Unknown;
        }
        match start_ticks(identity.pid) {
            Some((ticks, dead)) if ticks == identity.start_ticks && !dead => State::Running,
            _ => State::Killed,
        }
    }
}

/// When a process started, in clock ticks since boot, and whether it is a zombie.
fn start_ticks(pid: u32) -> Option<(u64, bool)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses included.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let ticks = fields.nth(18)?.parse().ok()?;
    Some((ticks, matches!(state, "Z" | "X")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_an_older_one_of_its_number_does_not() {
        let pid = std::process::id();
        let (ticks, dead) = start_ticks(pid).unwrap();
        assert!(!dead);
        let mut identity = cold::Process {
            pid,
            start_ticks: ticks,
            pid_namespace: fs::metadata("/proc/self/ns/pid").unwrap().ino(),
            ..cold::Process::default()
        };
        assert_eq!(State::of(&identity, false), State::Running);
        assert_eq!(State::of(&identity, true), State::Exited);
        identity.start_ticks -= 1;
        assert_eq!(State::of(&identity, false), State::Killed);
        identity.pid_namespace += 1;
        assert_eq!(State::of(&identity, false), State::Unknown);
    }
}
