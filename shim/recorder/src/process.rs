//! Who this process and this thread are, and whether this is still the process that it was.

use std::cell::Cell;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// A page that a forked child finds zeroed: it covers every kind of fork, `clone` and `_Fork`
/// included, which skip pthread_atfork handlers. Null where the kernel lacks MADV_WIPEONFORK
/// (before 4.14): then the pid is compared.
static PAGE: AtomicPtr<u32> = AtomicPtr::new(std::ptr::null_mut());
/// Pid of the process that [`claim`]ed.
static PID: AtomicU32 = AtomicU32::new(0);

const PAGE_SIZE: usize = 4096;

/// Makes this the process that [`is_same`] recognises.
pub fn claim() {
    PID.store(std::process::id(), Ordering::Relaxed);
    let page = PAGE.load(Ordering::Acquire);
    if !page.is_null() {
        // SAFETY: the page was mapped read-write below and is never unmapped.
        unsafe { page.write_volatile(1) };
        return;
    }
    // SAFETY: a fresh private anonymous mapping; no existing memory is touched.
    let mapped = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PAGE_SIZE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if mapped == libc::MAP_FAILED {
        return;
    }
    // SAFETY: `mapped` is the mapping just made, of this length.
    if unsafe { libc::madvise(mapped, PAGE_SIZE, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: as above; nobody else knows of it.
        unsafe { libc::munmap(mapped, PAGE_SIZE) };
        return;
    }
    let page = mapped.cast::<u32>();
    // SAFETY: page-aligned, writable, ours.
    unsafe { page.write_volatile(1) };
    PAGE.store(page, Ordering::Release);
}

/// Whether this is the process that claimed, not a child forked since.
#[inline]
pub fn is_same() -> bool {
    let page = PAGE.load(Ordering::Relaxed);
    if page.is_null() {
        return PID.load(Ordering::Relaxed) == std::process::id();
    }
    // SAFETY: the page is mapped for good; a volatile read because the kernel changes it.
    unsafe { page.read_volatile() == 1 }
}

thread_local! {
    /// Kernel thread id, the pid it was asked in (a fork keeps the memory of its thread but not
    /// the id), and whether [`first_seen`] was asked.
    static TID: Cell<(u32, u32, bool)> = const { Cell::new((0, 0, false)) };
}

/// Kernel id of this thread; 0 while it is being torn down.
#[inline]
pub fn thread_id() -> u32 {
    let pid = PID.load(Ordering::Relaxed);
    TID.try_with(|cached| {
        let (owner, tid, _) = cached.get();
        if owner == pid && tid != 0 {
            return tid;
        }
        // SAFETY: gettid takes nothing and cannot fail. (The glibc wrapper is newer than 2.17.)
        let tid = unsafe { libc::syscall(libc::SYS_gettid) } as u32;
        cached.set((pid, tid, false));
        tid
    })
    .unwrap_or(0)
}

/// True the first time that a thread asks.
#[inline]
pub fn first_seen() -> bool {
    TID.try_with(|cached| {
        let (pid, tid, seen) = cached.get();
        if !seen {
            cached.set((pid, tid, true));
        }
        !seen
    })
    .unwrap_or(false)
}

/// While it lives, the thread is not cancelled: our system calls are cancellation points that the
/// program did not have, and a cancellation must not unwind through us.
pub struct Uncancelled {
    before: libc::c_int,
}

unsafe extern "C" {
    fn pthread_setcancelstate(state: libc::c_int, before: *mut libc::c_int) -> libc::c_int;
}

impl Uncancelled {
    /// Holds cancellation off.
    pub fn new() -> Uncancelled {
        const PTHREAD_CANCEL_DISABLE: libc::c_int = 1;
        let mut before = 0;
        // SAFETY: a valid place for the old state.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &mut before) };
        Uncancelled { before }
    }
}

impl Default for Uncancelled {
    fn default() -> Self {
        Uncancelled::new()
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        let mut ours = 0;
        // SAFETY: as above; the state is the one that was there.
        unsafe { pthread_setcancelstate(self.before, &mut ours) };
    }
}

/// Name of a thread of this process.
pub fn thread_name(tid: u32) -> Option<String> {
    let name = std::fs::read(format!("/proc/self/task/{tid}/comm")).ok()?;
    Some(String::from_utf8_lossy(name.trim_ascii_end()).into_owned())
}

/// The variables that tell a process which of several ranks it is, in the order they are asked.
const RANK_VARIABLES: [&str; 6] = [
    "RANK",
    "OMPI_COMM_WORLD_RANK",
    "PMIX_RANK",
    "PMI_RANK",
    "SLURM_PROCID",
    "MV2_COMM_WORLD_RANK",
];

/// The process's cold record.
pub fn describe(final_path: Option<String>) -> vramtrace_format::cold::Process {
    let rank = RANK_VARIABLES
        .iter()
        .find_map(|name| Some((std::env::var(name).ok()?.parse().ok()?, (*name).to_owned())));
    vramtrace_format::cold::Process {
        pid: std::process::id(),
        parent: std::os::unix::process::parent_id(),
        program: program(),
        name: name(),
        rank: rank.as_ref().map(|(rank, _)| *rank),
        rank_from: rank.map(|(_, name)| name),
        host: host(),
        kernel: read_line("/proc/sys/kernel/osrelease"),
        start_ticks: start_ticks(),
        pid_namespace: pid_namespace(),
        final_path,
    }
}

/// Path of the executable.
pub fn program() -> String {
    std::fs::read_link("/proc/self/exe").map_or_else(
        |_| String::new(),
        |path| path.to_string_lossy().into_owned(),
    )
}

/// Short name of the process.
pub fn name() -> String {
    read_line("/proc/self/comm")
}

/// Name of the machine.
pub fn host() -> String {
    read_line("/proc/sys/kernel/hostname")
}

fn read_line(path: &str) -> String {
    std::fs::read(path).map_or_else(
        |_| String::new(),
        |text| String::from_utf8_lossy(text.trim_ascii_end()).into_owned(),
    )
}

/// Inode of this process's pid namespace; 0 unknown.
pub fn pid_namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/pid")
        .map_or(0, |meta| std::os::unix::fs::MetadataExt::ino(&meta))
}

/// When this process started, in clock ticks since boot; 0 unknown.
pub fn start_ticks() -> u64 {
    // The second field is the name in parentheses and may hold anything; count from its end.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    after
        .split_ascii_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_is_not_the_same_process() {
        claim();
        assert!(is_same());
        let parent_tid = thread_id();
        // SAFETY: the child only reads two words and leaves with _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let same = is_same();
            // SAFETY: leaves at once, without running destructors of the parent's state.
            unsafe { libc::_exit(i32::from(same)) };
        }
        let mut status = 0;
        // SAFETY: waits for the child just made.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(status, 0);
        assert!(is_same());
        assert_eq!(parent_tid, thread_id());
    }

    #[test]
    fn a_process_can_be_told_from_its_successor() {
        let me = describe(None);
        assert_eq!(me.pid, std::process::id());
        assert!(me.start_ticks > 0 && me.pid_namespace > 0 && !me.program.is_empty());
    }
}
