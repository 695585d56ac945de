//! Whether the process that writes a trace still runs.
//!
//! A pid alone does not say who somebody is: it is reused, and it means something else in another
//! pid namespace. With the start time and the namespace it does.

use std::fs;
use std::os::unix::ffi::OsStrExt;

/// Who a process is, as its trace tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Process id as the process itself sees it.
    pub pid: u32,
    /// Start time in clock ticks since boot; 0 unknown.
    pub start_ticks: u64,
    /// Inode of its pid namespace; 0 unknown.
    pub pid_namespace: u64,
}

impl Identity {
    /// Whether it still runs. One that cannot be seen from here does not: programs that we started
    /// are in our namespace or one below it, and all of these are visible.
    pub fn runs(&self) -> bool {
        self.seen_as().is_some()
    }

    /// Its process id as we see it; `None` if it does not run any more.
    fn seen_as(&self) -> Option<u32> {
        if self.pid == 0 {
            return None;
        }
        let ours = || own_namespace().is_none_or(|own| own == self.pid_namespace);
        if self.pid_namespace == 0 || (ours() && proc_is_ours()) {
            return self.is(self.pid).then_some(self.pid);
        }
        fs::read_dir("/proc")
            .ok()?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .find(|&outer| namespace_pids(outer).last() == Some(&self.pid) && self.is(outer))
    }

    /// Whether it still runs, for whom we know as `pid` (the first of [`Identity::pids`]).
    pub fn still_runs_as(&self, pid: u32) -> bool {
        self.is(pid)
    }

    /// Its ids while it runs, from the one that we see to the one that it sees itself.
    pub fn pids(&self) -> Vec<u32> {
        let Some(outer) = self.seen_as() else {
            return Vec::new();
        };
        match namespace_pids(outer) {
            pids if pids.first() == Some(&outer) => pids,
            // A /proc of another namespace, or a kernel before 4.1.
            _ => vec![outer],
        }
    }

    /// Whether it was in our pid namespace, or that is not known. Of others, [`Identity::runs`] can
    /// be sure only if we started them.
    pub fn is_near(&self) -> bool {
        self.pid_namespace == 0 || own_namespace() == Some(self.pid_namespace)
    }

    /// Whether it is the process that we see as `pid`, and not dead already.
    fn is(&self, pid: u32) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            return false;
        };
        let Some((state, threads, start)) = state_threads_start(&stat) else {
            return false;
        };
        // A main thread that left shows as a zombie while its other threads go on.
        let dead = matches!(state, 'Z' | 'X') && threads <= 1;
        !dead && (self.start_ticks == 0 || self.start_ticks == start)
    }
}

/// A process that still runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its id, as we see it.
    pub pid: u32,
    /// Its short name.
    pub name: String,
}

/// The living children of this process, orphans that it took over among them.
pub fn children() -> Vec<Running> {
    let own = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| child_of(own, entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

/// Whether any process that we may look at has a variable with this value in the environment that
/// it was started with.
pub fn anybody_has(name: &str, value: &[u8]) -> bool {
    let wanted = [name.as_bytes(), b"=", value].concat();
    let Ok(entries) = fs::read_dir("/proc") else {
        return false;
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().as_bytes()[0].is_ascii_digit())
        .filter_map(|entry| fs::read(entry.path().join("environ")).ok())
        .any(|environment| {
            environment
                .split(|&byte| byte == 0)
                .any(|one| one == wanted)
        })
}

fn child_of(parent: u32, pid: u32) -> Option<Running> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, after) = stat.split_once('(')?.1.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace();
    let lives = !matches!(fields.next()?, "Z" | "X");
    let is_child = fields.next()?.parse() == Ok(parent);
    (lives && is_child).then(|| Running {
        pid,
        name: name.to_owned(),
    })
}

/// State, number of threads and start time: fields 3, 20 and 22 of `/proc/PID/stat`. The name
/// before them may contain anything, so they are counted from its closing parenthesis.
fn state_threads_start(stat: &str) -> Option<(char, u64, u64)> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let threads = fields.nth(16)?.parse().ok()?;
    let start = fields.nth(1)?.parse().ok()?;
    Some((state, threads, start))
}

fn own_namespace() -> Option<u64> {
    let link = fs::read_link("/proc/self/ns/pid").ok()?;
    let text = link.to_str()?;
    text.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

/// Whether `/proc` counts as we do. In a new namespace it shows the old one until it is mounted
/// anew.
fn proc_is_ours() -> bool {
    let own = std::process::id().to_string();
    fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == own.as_str())
}

/// What a process that we see as `pid` is in each pid namespace that it is in, its own last.
pub(crate) fn namespace_pids(pid: u32) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    line.unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Identity {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        Identity {
            pid: std::process::id(),
            start_ticks: state_threads_start(&stat).unwrap().2,
            pid_namespace: own_namespace().unwrap(),
        }
    }

    #[test]
    fn we_run() {
        assert!(own().runs());
        let unknown = Identity {
            start_ticks: 0,
            pid_namespace: 0,
            ..own()
        };
        assert!(unknown.runs());
        assert_eq!(own().pids().first(), Some(&std::process::id()));
    }

    #[test]
    fn somebody_else_with_our_pid_does_not() {
        let earlier = Identity {
            start_ticks: own().start_ticks - 1,
            ..own()
        };
        assert!(!earlier.runs());
        let elsewhere = Identity {
            pid: u32::MAX,
            pid_namespace: 1,
            ..own()
        };
        assert!(!elsewhere.runs());
        assert!(elsewhere.pids().is_empty());
    }

    #[test]
    fn a_zombie_is_dead() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let identity = Identity {
            pid: child.id(),
            start_ticks: 0,
            pid_namespace: 0,
        };
        while identity.runs() {
            std::thread::yield_now();
        }
        let listed = |pid| children().iter().any(|child| child.pid == pid);
        assert!(!listed(child.id()));
        child.wait().unwrap();
    }

    #[test]
    fn children_are_known_by_name() {
        let mut child = std::process::Command::new("sleep")
            .arg("9")
            .spawn()
            .unwrap();
        let named = |name: &str| {
            let all = children();
            all.iter()
                .any(|found| found.pid == child.id() && found.name == name)
        };
        // Until it executes the program, it has the name of its parent.
        while !named("sleep") {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_name_may_contain_anything() {
        let stat = "7 (a) Z 1 2) S 1 7 7 0 -1 4 0 0 0 0 0 0 0 0 20 0 3 0 12345 0 0";
        assert_eq!(state_threads_start(stat), Some(('S', 3, 12345)));
        assert_eq!(state_threads_start("7 (x"), None);
    }
}
