//! The modules of this process, fresh across dlopen and dlclose.
//!
//! A walk uses an immutable snapshot. A new one is made when the loader's count of loads and
//! unloads has changed; that is looked at when dlclose ran (the shim tells us), and otherwise at
//! most every [`CHECK_NS`], because asking takes the loader's lock. A module loaded in between is
//! an address that no module covers, which is kept raw and looks up right from the next check on.

use super::image::{Loaded, Memory, SectionBytes};
use crate::renew::Renewable;
use framehop::{ExplicitModuleSectionInfo, MustNotAllocateDuringUnwind, Unwinder, UnwinderNative};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vramtrace_format::cold;

/// At most so often is the loader asked whether anything changed, nanoseconds.
const CHECK_NS: u64 = 20_000_000;

/// A snapshot of what is loaded.
pub struct Modules {
    /// Increases with every snapshot.
    pub generation: u64,
    /// Walks stacks through these modules.
    pub unwinder: UnwinderNative<SectionBytes, MustNotAllocateDuringUnwind>,
    /// Addresses of this library itself.
    pub own: Range<u64>,
    ranges: Vec<Module>,
}

/// One module of a snapshot.
#[derive(Clone, PartialEq, Eq)]
pub struct Module {
    /// Id in the trace.
    pub id: u32,
    /// What was added to its ELF addresses.
    pub bias: u64,
    range: Range<u64>,
}

impl Modules {
    /// The module at an address.
    pub fn find(&self, address: u64) -> Option<&Module> {
        let at = self
            .ranges
            .partition_point(|module| module.range.start <= address);
        self.ranges
            .get(at.checked_sub(1)?)
            .filter(|module| module.range.contains(&address))
    }
}

static GENERATION: AtomicU64 = AtomicU64::new(0);
static NEXT_CHECK: AtomicU64 = AtomicU64::new(0);
static UNREPORTED: AtomicBool = AtomicBool::new(false);
/// Never held while the loader's lock is waited for: a thread that holds that one may be inside a
/// constructor that allocates, and then waits for this.
static STATE: Renewable<Option<State>> = Renewable::new();

struct State {
    current: Arc<Modules>,
    /// Loads and unloads that the snapshot knows of.
    counts: (u64, u64),
    /// Ids of modules seen before: the same file at the same place keeps its id.
    ids: HashMap<(u64, u64, Vec<u8>, String), u32>,
    unreported: Vec<cold::Module>,
}

/// Number of the newest snapshot.
#[inline]
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}

/// The newest snapshot; an empty one if it cannot be had in time.
pub fn current() -> Arc<Modules> {
    let known = || STATE.lock()?.as_ref().map(|state| state.current.clone());
    known()
        .or_else(|| {
            refresh();
            known()
        })
        .unwrap_or_else(|| Arc::new(Modules::none()))
}

/// A module may have been unloaded: look before the next walk.
pub fn expect_change() {
    NEXT_CHECK.store(0, Ordering::Release);
}

/// Makes a new snapshot if the last look is too long ago and something changed since.
#[inline]
pub fn refresh_if_stale() {
    let now = crate::clock::coarse_ns();
    let due = NEXT_CHECK.load(Ordering::Relaxed);
    if now >= due
        && NEXT_CHECK
            .compare_exchange(due, now + CHECK_NS, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    {
        refresh();
    }
}

/// Whether modules wait to be written to the trace.
#[inline]
pub fn has_unreported() -> bool {
    UNREPORTED.load(Ordering::Acquire)
}

/// The modules found since the last call.
pub fn take_unreported() -> Vec<cold::Module> {
    UNREPORTED.store(false, Ordering::Release);
    STATE
        .lock()
        .and_then(|mut state| Some(std::mem::take(&mut state.as_mut()?.unreported)))
        .unwrap_or_default()
}

/// Forgets everything: a forked child writes a trace of its own.
pub fn start_over() {
    STATE.renew();
    // Walkers remember ids of the parent's trace.
    GENERATION.fetch_add(1, Ordering::AcqRel);
    NEXT_CHECK.store(0, Ordering::Release);
}

#[cold]
fn refresh() {
    let counts = load_counts();
    let known = STATE
        .lock()
        .is_some_and(|state| state.as_ref().is_some_and(|state| state.counts == counts));
    if known && counts != (0, 0) {
        return;
    }
    let loaded = all_loaded();
    let Some(mut state) = STATE.lock() else {
        return;
    };
    let (before, mut ids, mut unreported) = match state.take() {
        Some(old) => (old.current, old.ids, old.unreported),
        None => (Arc::new(Modules::none()), HashMap::new(), Vec::new()),
    };
    let generation = GENERATION.load(Ordering::Relaxed) + 1;
    let current = Arc::new(Modules::after(
        &before,
        &loaded,
        generation,
        &mut ids,
        &mut unreported,
    ));
    UNREPORTED.store(!unreported.is_empty(), Ordering::Release);
    *state = Some(State {
        current,
        counts,
        ids,
        unreported,
    });
    GENERATION.store(generation, Ordering::Release);
}

impl Modules {
    fn none() -> Modules {
        Modules {
            generation: 0,
            unwinder: UnwinderNative::new(),
            own: 0..0,
            ranges: Vec::new(),
        }
    }

    /// The snapshot that follows `before`: what stayed keeps its unwind data, so that a process that
    /// loads modules again and again maps each file once.
    fn after(
        before: &Modules,
        loaded: &[Loaded],
        generation: u64,
        ids: &mut HashMap<(u64, u64, Vec<u8>, String), u32>,
        unreported: &mut Vec<cold::Module>,
    ) -> Modules {
        let mut unwinder = before.unwinder.clone();
        let mut ranges = Vec::new();
        let mut added = Vec::new();
        let mut own = 0..0;
        let memory = Memory::open();
        let here = refresh as fn() as usize as u64;
        for object in loaded {
            let range = object.range();
            if range.is_empty() {
                continue;
            }
            // In a benchmark or test this code is part of the program, whose frames are wanted.
            if range.contains(&here) && !object.is_program() {
                own = range.clone();
            }
            let path = object.path().to_string_lossy().into_owned();
            let build_id = memory
                .as_ref()
                .map(|memory| object.build_id(memory))
                .unwrap_or_default();
            let next = ids.len() as u32;
            let id = *ids
                .entry((range.start, range.end, build_id.clone(), path.clone()))
                .or_insert_with(|| {
                    unreported.push(cold::Module {
                        id: next,
                        path: path.clone(),
                        build_id: build_id.clone(),
                        bias: object.bias,
                        start: range.start,
                        end: range.end,
                    });
                    next
                });
            let module = Module {
                id,
                bias: object.bias,
                range: range.clone(),
            };
            ranges.push(module.clone());
            if before.ranges.contains(&module) {
                continue;
            }
            let sections = memory
                .as_ref()
                .and_then(|memory| object.unwind_sections(memory));
            if let Some(sections) = sections {
                added.push(framehop::Module::new(
                    path,
                    range.clone(),
                    object.bias,
                    ExplicitModuleSectionInfo {
                        base_svma: 0,
                        eh_frame_svma: Some(sections.eh_frame),
                        eh_frame: Some(sections.eh_frame_bytes),
                        eh_frame_hdr_svma: Some(sections.eh_frame_hdr),
                        eh_frame_hdr: Some(sections.eh_frame_hdr_bytes),
                        ..Default::default()
                    },
                ));
            }
        }
        for gone in before
            .ranges
            .iter()
            .filter(|module| !ranges.contains(module))
        {
            unwinder.remove_module(gone.range.start);
        }
        for module in added {
            unwinder.add_module(module);
        }
        ranges.sort_by_key(|module| module.range.start);
        Modules {
            generation,
            unwinder,
            own,
            ranges,
        }
    }
}

/// How many objects the loader has loaded and unloaded so far; (0, 0) if it does not say.
fn load_counts() -> (u64, u64) {
    unsafe extern "C" fn first(
        info: *mut libc::dl_phdr_info,
        size: usize,
        counts: *mut libc::c_void,
    ) -> libc::c_int {
        if size >= size_of::<libc::dl_phdr_info>() {
            // SAFETY: the loader passes a valid info of at least `size` bytes; `counts` is ours.
            unsafe { *counts.cast::<(u64, u64)>() = ((*info).dlpi_adds, (*info).dlpi_subs) };
        }
        1
    }
    let mut counts = (0u64, 0u64);
    // SAFETY: the callback only writes to `counts`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut counts).cast()) };
    counts
}

/// Every loaded object. The list is filled in a callback that runs under the loader's lock, so
/// nothing is allocated there: a custom malloc may want that lock from the other side.
fn all_loaded() -> Vec<Loaded> {
    unsafe extern "C" fn each(
        info: *mut libc::dl_phdr_info,
        _: usize,
        list: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: `list` is the vector below; `info` is the loader's.
        let (list, info) = unsafe { (&mut *list.cast::<(Vec<Loaded>, usize)>(), &*info) };
        list.1 += 1;
        if list.0.len() < list.0.capacity() {
            // SAFETY: inside the running callback.
            list.0.push(unsafe { Loaded::copy(info) });
        }
        0
    }
    let mut room = 256;
    loop {
        let mut list = (Vec::with_capacity(room), 0usize);
        // SAFETY: the callback writes only to `list`, which outlives the call.
        unsafe { libc::dl_iterate_phdr(Some(each), (&raw mut list).cast()) };
        if list.1 <= room {
            return list.0;
        }
        room = list.1 + 64;
    }
}
