//! Who this process and this thread are, and whether this is still the process that it was.

use crate::per_thread;
use std::cell::Cell;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// One word that a forked child finds zeroed: it lies on a page with MADV_WIPEONFORK, which covers
/// every kind of fork, `clone` and `_Fork` included, which skip pthread_atfork handlers.
static WORD: AtomicPtr<AtomicU32> = AtomicPtr::new((&raw const UNWIPED).cast_mut());
/// The word before there is such a page, and where the kernel lacks MADV_WIPEONFORK (before 4.14):
/// there the pid is compared.
static UNWIPED: AtomicU32 = AtomicU32::new(0);
/// Pid of the process that [`claim`]ed, where that has to be compared.
static PID: AtomicU32 = AtomicU32::new(0);

/// The process claimed.
const CLAIMED: u32 = 1;
/// It records.
const RECORDING: u32 = 2;
/// A fork would not wipe this word.
const UNSURE: u32 = 4;

const PAGE_SIZE: usize = 4096;

#[inline(always)]
fn word() -> &'static AtomicU32 {
    // SAFETY: always one of two: a static, and a page that is never unmapped.
    unsafe { &*WORD.load(Ordering::Relaxed) }
}

/// Makes this process the one that [`is_same`] recognises, whichever thread comes first; it does
/// not record yet. True if it was another one before, of which this is a forked child: what that
/// one left behind is then the caller's to clear away.
pub fn claim() -> bool {
    let unwiped = (&raw const UNWIPED).cast_mut();
    let claims = |word: &AtomicU32, as_what: u32| {
        word.compare_exchange(0, as_what, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    };
    if !std::ptr::eq(word(), unwiped) {
        return claims(word(), CLAIMED);
    }
    // The first in this process. The page is complete before anybody sees it.
    if UNWIPED.load(Ordering::Acquire) == 0
        && let Some(page) = wiped_on_fork()
    {
        // SAFETY: a page just made.
        unsafe { &*page }.store(CLAIMED, Ordering::Relaxed);
        let published = WORD.compare_exchange(unwiped, page, Ordering::AcqRel, Ordering::Acquire);
        if published.is_err() {
            // SAFETY: another thread was faster; this page was seen by nobody.
            unsafe { libc::munmap(page.cast(), PAGE_SIZE) };
        }
        return false;
    }
    let (pid, owner) = (std::process::id(), PID.load(Ordering::Acquire));
    if claims(&UNWIPED, CLAIMED | UNSURE) {
        PID.store(pid, Ordering::Release);
        return false;
    }
    let inherited = owner != 0 && owner != pid;
    let first = inherited
        && PID
            .compare_exchange(owner, pid, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
    if first {
        UNWIPED.store(CLAIMED | UNSURE, Ordering::Release);
    }
    first
}

/// From here on, events are recorded.
pub fn begin_recording() {
    word().fetch_or(RECORDING, Ordering::AcqRel);
}

fn wiped_on_fork() -> Option<*mut AtomicU32> {
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
        return None;
    }
    // SAFETY: `mapped` is the mapping just made, of this length.
    if unsafe { libc::madvise(mapped, PAGE_SIZE, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: as above; nobody else knows of it.
        unsafe { libc::munmap(mapped, PAGE_SIZE) };
        return None;
    }
    Some(mapped.cast())
}

/// Whether events are recorded in this process, and not in a parent that it was forked from. Asked
/// several times an event.
#[inline(always)]
pub fn is_recording() -> bool {
    match word().load(Ordering::Acquire) {
        0 => false,
        word if word == CLAIMED | RECORDING => true,
        word => word & RECORDING != 0 && is_claimant(),
    }
}

/// Whether this is the process that claimed, not a child forked since.
pub fn is_same() -> bool {
    let word = word().load(Ordering::Acquire);
    word & CLAIMED != 0 && (word & UNSURE == 0 || is_claimant())
}

#[cold]
fn is_claimant() -> bool {
    PID.load(Ordering::Relaxed) == std::process::id()
}

/// Who a thread is.
#[derive(per_thread::Zeroable)]
struct Identity {
    /// Kernel thread id; 0 not asked yet.
    tid: Cell<u32>,
    /// Whether [`first_seen`] was asked.
    seen: Cell<bool>,
}

per_thread! {
    fn identity() -> Identity as "vramtrace_identity";
}

/// Kernel id of this thread.
#[inline(always)]
pub fn thread_id() -> u32 {
    match identity().tid.get() {
        0 => ask_thread_id(),
        tid => tid,
    }
}

#[cold]
fn ask_thread_id() -> u32 {
    // SAFETY: gettid takes nothing and cannot fail. (The glibc wrapper is newer than 2.17.)
    let tid = unsafe { libc::syscall(libc::SYS_gettid) } as u32;
    let identity = identity();
    identity.tid.set(tid);
    tid
}

/// This is a forked child: its only thread has another id than the one whose memory it got.
pub fn start_over() {
    let identity = identity();
    identity.tid.set(0);
    identity.seen.set(false);
}

/// True the first time that a thread asks, after [`thread_id`].
#[inline(always)]
pub fn first_seen() -> bool {
    !identity().seen.replace(true)
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
const RANK_VARIABLES: [&str; 7] = [
    "RANK",
    "OMPI_COMM_WORLD_RANK",
    "PMIX_RANK",
    "PMI_RANK",
    "SLURM_PROCID",
    "MV2_COMM_WORLD_RANK",
    // The only one of a launcher on one machine; on several it is not unique, so it comes last.
    "LOCAL_RANK",
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
        assert!(!claim() && !claim());
        assert!(is_same() && !is_recording());
        begin_recording();
        assert!(is_same() && is_recording());
        let parent_tid = thread_id();
        // SAFETY: the child only reads two words and leaves with _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let before = thread_id();
            start_over();
            let same = is_same() || is_recording() || thread_id() == before;
            let claims = [claim(), claim()];
            let same = same || claims != [true, false] || !is_same() || is_recording();
            // SAFETY: leaves at once, without running destructors of the parent's state.
            unsafe { libc::_exit(i32::from(same)) };
        }
        let mut status = 0;
        // SAFETY: waits for the child just made.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(status, 0);
        assert!(is_same() && is_recording());
        assert_eq!(parent_tid, thread_id());
    }

    #[test]
    fn a_process_can_be_told_from_its_successor() {
        let me = describe(None);
        assert_eq!(me.pid, std::process::id());
        assert!(me.start_ticks > 0 && me.pid_namespace > 0 && !me.program.is_empty());
    }
}
