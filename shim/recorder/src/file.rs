//! The trace file: reserved, mapped, and split into its sections.

use crate::place::directory::{self, Unusable};
use crate::place::{self, Candidate};
use crate::process;
use crate::settings::Settings;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use vramtrace_format::account::Account;
use vramtrace_format::apply::Tables;
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::curves::Curves;
use vramtrace_format::footprint::Footprint;
use vramtrace_format::history::History;
use vramtrace_format::journal::Journal;
use vramtrace_format::layout::{Control, Header, MIN_SIZE, PAGE};
use vramtrace_format::live::{LiveIndex, LiveTable};
use vramtrace_format::reported::Reported;
use vramtrace_format::ring::Ring;
use vramtrace_format::sampling::{self, Sampling};
use vramtrace_format::stacks::StackTable;
use vramtrace_format::totals::{Totals, TotalsIndex, TotalsTable};
use vramtrace_format::{Layout, Record, Section};

/// A new trace, mapped and empty.
pub struct TraceFile {
    /// Where it is.
    pub path: PathBuf,
    /// How it is divided.
    pub layout: Layout,
    /// What the user should know about it.
    pub remark: Option<String>,
    /// Its first bytes.
    pub header: Header,
    /// Others need the storage that it is on: see [`Candidate::modest`].
    pub modest: bool,
    base: *mut u8,
    indexes: Box<Indexes>,
}

/// What is known of the tables that is not in the file: as much memory as the tables have rows, 24 bytes
/// each, touched where it is used.
struct Indexes {
    live: [LiveIndex; 2],
    totals: TotalsIndex,
}

impl Indexes {
    fn of(layout: &Layout) -> Option<Indexes> {
        let rows = |section| {
            let entry = layout.of(section);
            entry.length as usize / entry.entry_size as usize
        };
        Some(Indexes {
            live: [
                LiveIndex::for_slots(rows(Section::LiveDevice))?,
                LiveIndex::for_slots(rows(Section::LiveFramework))?,
            ],
            totals: TotalsIndex::for_rows(rows(Section::Totals))?,
        })
    }
}

// SAFETY: the mapping belongs to whoever owns this value, in whatever thread.
unsafe impl Send for TraceFile {}

/// Creates the trace of this process in the first place that takes it. Before it has a name, the
/// process's record is in it: whoever finds a trace knows whose it is and where it belongs. The
/// error says why each place did not.
pub fn create(settings: &Settings) -> Result<TraceFile, String> {
    let (candidates, final_path) = place::candidates(settings);
    let first = Cold::Process(process::describe(final_path));
    let mut refusals = Vec::new();
    for candidate in &candidates {
        match create_at(candidate, settings, &first) {
            Ok(file) => return Ok(file),
            Err(reason) => refusals.push(format!("{}: {reason}", candidate.directory.display())),
        }
    }
    Err(format!(
        "no place for the trace file ({}); not tracing this process",
        refusals.join("; ")
    ))
}

fn create_at(
    candidate: &Candidate,
    settings: &Settings,
    first: &Cold,
) -> Result<TraceFile, Unusable> {
    let directory = directory::open(candidate)?;
    if candidate.private {
        place::keep::prune(&candidate.directory, settings.keep);
    }
    let mut wished = settings.size;
    // Never all that is free: others need it, on shared memory more of them.
    let share = if candidate.modest { 8 } else { 2 };
    wished = wished.min(directory::storage(&directory)?.free / share);
    if let Some(limit) = file_size_limit() {
        // Growing a file beyond the limit would raise SIGXFSZ in a process that is not ours.
        wished = wished.min(limit);
    }
    if wished < MIN_SIZE {
        return Err(Unusable::Full);
    }
    let file = unnamed(&directory)?;
    let layout = reserve(&file.fd, wished)?;
    let indexes = Indexes::of(&layout).ok_or_else(|| {
        let error = io::Error::from(io::ErrorKind::OutOfMemory);
        Unusable::Io("can't get memory for the index of a trace", error)
    })?;
    let base = map(&file.fd, layout.file_size)?;
    let now = crate::clock::unix_and_monotonic_ns();
    let mut header = layout.header(std::process::id(), now.0, now.1);
    header.pid_namespace = process::pid_namespace();
    header.start_ticks = process::start_ticks();
    // SAFETY: the mapping is at least MIN_SIZE long, page-aligned, and not yet shared with
    // anybody: the file has no name.
    unsafe { base.cast::<Header>().write(header) };
    let at = |section| layout.of(section).offset as usize;
    let cold_length = layout.of(Section::Cold).length as usize;
    // SAFETY: as above; both sections lie inside the mapping and apart from each other.
    unsafe {
        let control = &mut *base.add(at(Section::Control)).cast::<Control>();
        let cold = std::slice::from_raw_parts_mut(base.add(at(Section::Cold)), cold_length);
        control.cold_used = cold::append(cold, 0, first).unwrap_or(0);
    }
    let name = match publish(&directory, &file, &candidate.name) {
        Ok(name) => name,
        Err(error) => {
            // SAFETY: the mapping made above, which nobody else knows of.
            unsafe { libc::munmap(base.cast(), layout.file_size as usize) };
            return Err(Unusable::Io("can't name the file", error));
        }
    };
    let remark = (layout.file_size < settings.size / 4096 * 4096).then(|| {
        format!(
            "the trace is {} MiB instead of {} MiB, for lack of room",
            layout.file_size >> 20,
            settings.size >> 20
        )
    });
    Ok(TraceFile {
        path: candidate.directory.join(name),
        layout,
        remark,
        header,
        modest: candidate.modest,
        base,
        indexes: Box::new(indexes),
    })
}

/// A file without a name, or with a temporary one where the file system knows no other way.
pub(crate) struct Unnamed {
    /// Open for reading and writing.
    pub fd: OwnedFd,
    /// The name that it has meanwhile.
    pub temporary: Option<CString>,
}

pub(crate) fn unnamed(directory: &OwnedFd) -> Result<Unnamed, Unusable> {
    let open = |name: &CString, flags: libc::c_int| {
        // SAFETY: an open directory, a NUL-terminated name, plain flags.
        let fd = unsafe {
            libc::openat(
                directory.as_raw_fd(),
                name.as_ptr(),
                flags | libc::O_RDWR | libc::O_CLOEXEC,
                0o600,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: openat just returned it; nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    if let Ok(fd) = open(&c".".to_owned(), libc::O_TMPFILE) {
        return Ok(Unnamed {
            fd,
            temporary: None,
        });
    }
    let unique = format!(
        ".vramtrace-{}-{:x}.tmp",
        std::process::id(),
        crate::clock::monotonic_ns()
    );
    let name = CString::new(unique).unwrap_or_default();
    match open(&name, libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW) {
        Ok(fd) => Ok(Unnamed {
            fd,
            temporary: Some(name),
        }),
        Err(error) => Err(Unusable::Io("can't create a file", error)),
    }
}

/// Gives the file its name, or the next free one after it: a process is never untraced because
/// another had the same pid in another container.
pub(crate) fn publish(
    directory: &OwnedFd,
    file: &Unnamed,
    wished: &OsString,
) -> io::Result<OsString> {
    let (from_dir, from, flags) = match &file.temporary {
        Some(name) => (directory.as_raw_fd(), name.clone(), 0),
        None => {
            let path = CString::new(format!("/proc/self/fd/{}", file.fd.as_raw_fd()))?;
            (libc::AT_FDCWD, path, libc::AT_SYMLINK_FOLLOW)
        }
    };
    let mut result = Err(io::Error::from(io::ErrorKind::AlreadyExists));
    for attempt in 1..10_000 {
        let mut name = wished.clone();
        if attempt > 1 {
            name = numbered(wished, attempt);
        }
        let c_name = CString::new(name.as_bytes())?;
        // SAFETY: open directories and NUL-terminated names. linkat never replaces anything.
        let linked = unsafe {
            libc::linkat(
                from_dir,
                from.as_ptr(),
                directory.as_raw_fd(),
                c_name.as_ptr(),
                flags,
            )
        };
        if linked == 0 {
            result = Ok(name);
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::AlreadyExists {
            result = Err(error);
            break;
        }
    }
    if let Some(temporary) = &file.temporary {
        // SAFETY: as above; removes only the name we made.
        unsafe { libc::unlinkat(directory.as_raw_fd(), temporary.as_ptr(), 0) };
    }
    result
}

/// `a.vrt`, `a.2.vrt`, `a.3.vrt` …
fn numbered(wished: &OsString, number: u32) -> OsString {
    let mut name = wished.clone();
    match wished.as_bytes().strip_suffix(b".vrt") {
        Some(stem) => {
            name = std::ffi::OsStr::from_bytes(stem).to_owned();
            name.push(format!(".{number}.vrt"));
        }
        None => name.push(format!(".{number}")),
    }
    name
}

/// Reserves every byte now: a store into a hole of a full disk is SIGBUS. Half as much is tried
/// where all of it is not to be had.
fn reserve(fd: &OwnedFd, wished: u64) -> Result<Layout, Unusable> {
    let mut size = wished;
    let mut interrupted = 0;
    loop {
        let layout = Layout::for_size(size);
        // SAFETY: an open descriptor. The raw system call, not glibc's emulation, which would
        // write every block.
        let done =
            unsafe { libc::fallocate(fd.as_raw_fd(), 0, 0, layout.file_size as libc::off_t) };
        if done == 0 {
            return Ok(layout);
        }
        let error = io::Error::last_os_error();
        let room = matches!(
            error.raw_os_error(),
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG | libc::ENOMEM)
        );
        // Some kernels undo everything at a signal: under a fast timer only a smaller file gets done.
        let signal = error.kind() == io::ErrorKind::Interrupted;
        interrupted += usize::from(signal);
        if signal && interrupted % 4 != 0 {
            continue;
        }
        let room = room || signal;
        if !room || size <= MIN_SIZE {
            return Err(Unusable::Io("can't reserve space", error));
        }
        size = (size / 2).max(MIN_SIZE);
    }
}

fn map(fd: &OwnedFd, size: u64) -> Result<*mut u8, Unusable> {
    // SAFETY: a new mapping at an address of the kernel's choice. The file is fully reserved, so
    // no access to it can fail for lack of space.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            fd.as_raw_fd(),
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(Unusable::Io(
            "can't map the file",
            io::Error::last_os_error(),
        ));
    }
    // Tables are touched at random; fewer TLB misses where shared memory may use huge pages.
    // SAFETY: advice on the mapping just made; a refusal changes nothing.
    unsafe { libc::madvise(base, size as usize, libc::MADV_HUGEPAGE) };
    Ok(base.cast())
}

pub(crate) fn file_size_limit() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a valid struct to write to.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) } == 0;
    (known && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// A trace's sections, for its one writer.
pub struct Sections {
    /// Counters and flags.
    pub control: &'static mut Control,
    /// Tables that events change.
    pub tables: Tables<'static>,
    /// Event rings: device layer, framework layer.
    pub rings: [Ring<'static>; 2],
    /// Stack table.
    pub stacks: StackTable<'static>,
    /// Cold records.
    pub cold: &'static mut [u8],
    /// What the driver holds for itself, by device.
    pub footprints: &'static mut [Footprint],
    /// What a framework itself says, by device.
    pub reported: &'static mut [Reported],
    /// How often each NVTX range was entered; written by whoever enters one.
    pub ranges: &'static [AtomicU64],
    /// What was sampled when, and what stacks cost.
    pub sampling: &'static mut Sampling,
}

impl TraceFile {
    /// Splits the mapping. Consumes the file, whose mapping then lives as long as the process:
    /// calls arrive until the very end, so nothing is ever unmapped.
    pub fn into_sections(self) -> Sections {
        /// How the file is divided, and its first byte.
        struct Mapped {
            layout: Layout,
            base: *mut u8,
        }
        fn section<T: bytemuck::Pod>(file: &Mapped, section: Section) -> &'static mut [T] {
            let entry = file.layout.of(section);
            assert!(entry.entry_size as usize == size_of::<T>() && entry.offset >= PAGE);
            assert!(entry.offset + entry.length <= file.layout.file_size);
            // SAFETY: the range lies inside the mapping (asserted), which is never unmapped;
            // sections are page-aligned and disjoint, each is taken once, T is plain data, and
            // other processes only read.
            unsafe {
                std::slice::from_raw_parts_mut(
                    file.base.add(entry.offset as usize).cast::<T>(),
                    entry.length as usize / size_of::<T>(),
                )
            }
        }
        let file = Mapped {
            layout: self.layout,
            base: self.base,
        };
        let Indexes {
            live: [device, framework],
            totals,
        } = Box::leak(self.indexes);
        let control = &mut section::<Control>(&file, Section::Control)[0];
        let rows = section::<Totals>(&file, Section::Totals);
        let totals = TotalsTable::indexed(rows, totals);
        Sections {
            tables: Tables {
                journal: &mut section::<Journal>(&file, Section::Journal)[0],
                accounts: section::<Account>(&file, Section::Accounts),
                live: [
                    LiveTable::indexed(section(&file, Section::LiveDevice), device),
                    LiveTable::indexed(section(&file, Section::LiveFramework), framework),
                ],
                history: History::new(section(&file, Section::History)),
                curves: Curves::new(section(&file, Section::Curves), totals.rows().len()),
                totals,
            },
            rings: [
                Ring::new(section::<Record>(&file, Section::RingDevice), 0),
                Ring::new(section::<Record>(&file, Section::RingFramework), 0),
            ],
            stacks: StackTable::new(
                section(&file, Section::Stacks),
                section(&file, Section::StackIndex),
            ),
            cold: section(&file, Section::Cold),
            footprints: section(&file, Section::Footprints),
            reported: section(&file, Section::Reported),
            ranges: {
                let rows = section::<u64>(&file, Section::Ranges);
                // SAFETY: as the slice itself, which nobody uses otherwise; the types are alike.
                unsafe { std::slice::from_raw_parts(rows.as_ptr().cast(), rows.len()) }
            },
            sampling: {
                let rows = section::<sampling::Row>(&file, Section::Sampling);
                bytemuck::from_bytes_mut(bytemuck::cast_slice_mut(rows))
            },
            control,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Log, OnOom, Sample, Stacks};
    use std::os::unix::ffi::OsStringExt;
    use vramtrace_format::layout::DEFAULT_SIZE;

    #[test]
    fn a_trace_that_has_a_name_says_whose_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let final_path = directory.path().join("out.vrt");
        let settings = Settings {
            output: Some(final_path.clone().into_os_string().into_vec()),
            run_dir: Some(directory.path().as_os_str().as_bytes().to_vec()),
            size: MIN_SIZE,
            size_raised: false,
            keep: DEFAULT_SIZE,
            stacks: Stacks::Off,
            sample: Sample::All,
            budget: None,
            log: Log::Quiet,
            on_oom: OnOom::Record,
            shown: Vec::new(),
        };
        let made = create(&settings).unwrap();
        let bytes = std::fs::read(&made.path).unwrap();
        let section = |section| {
            let entry = made.layout.of(section);
            &bytes[entry.offset as usize..][..entry.length as usize]
        };
        let control: Control =
            bytemuck::pod_read_unaligned(&section(Section::Control)[..size_of::<Control>()]);
        let cold = &section(Section::Cold)[..control.cold_used as usize];
        let Some(Cold::Process(process)) = cold::records(cold).next() else {
            panic!("no process record");
        };
        assert_eq!(process.pid, std::process::id());
        assert_eq!(process.final_path.as_deref(), final_path.to_str());
    }
}
