//! libnvidia-ml.so.1: found when it is needed, never linked to, never unloaded.
//!
//! A binding of our own, for a dozen functions: which version of a function there is decides what its
//! answer means, and a library that hangs must be left alone instead of being closed.
//!
//! Signatures, structures and constants are those of nvml.h 12 and 13.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::sync::OnceLock;

/// What the dynamic linker looks for; where it finds nothing, WSL's own directory is tried, which
/// not every distribution lists.
const NAMES: [&CStr; 2] = [c"libnvidia-ml.so.1", c"/usr/lib/wsl/lib/libnvidia-ml.so.1"];

/// Why there are no numbers of NVML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// The library is not there: no driver, or a container without it.
    NoLibrary,
    /// The library does not load; the dynamic linker's words.
    NotLoaded(String),
    /// The library is older than what is needed; the function that it lacks.
    Missing(&'static str),
    /// A function answered with an error.
    Refused {
        /// The function.
        function: &'static str,
        /// nvmlReturn_t.
        code: u32,
        /// What the library calls that.
        meaning: String,
    },
    /// A trace says neither UUID nor PCI id of a device.
    Nameless,
    /// It did not answer in time.
    Silent,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unavailable::NoLibrary => f.write_str("there is no libnvidia-ml.so.1"),
            Unavailable::NotLoaded(why) => write!(f, "libnvidia-ml.so.1 does not load: {why}"),
            Unavailable::Missing(function) => write!(f, "libnvidia-ml.so.1 has no {function}"),
            Unavailable::Refused {
                function,
                code,
                meaning,
            } if meaning.is_empty() => write!(f, "{function} fails with error {code}"),
            Unavailable::Refused {
                function,
                code,
                meaning,
            } => write!(f, "{function} fails with error {code} ({meaning})"),
            Unavailable::Nameless => f.write_str("a device has neither UUID nor PCI id"),
            Unavailable::Silent => f.write_str("libnvidia-ml.so.1 does not answer"),
        }
    }
}

/// nvmlReturn_t: success.
pub(super) const SUCCESS: u32 = 0;
/// nvmlReturn_t: the buffer is too small.
pub(super) const INSUFFICIENT_SIZE: u32 = 7;
/// A value that the driver does not have.
pub(super) const NOT_AVAILABLE: u64 = u64::MAX;

/// nvmlDevice_t. Of the session that it was asked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Handle(pub(super) *mut c_void);

/// nvmlMemory_t.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct MemoryV1 {
    pub total: u64,
    pub free: u64,
    pub used: u64,
}

/// nvmlMemory_v2_t.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct MemoryV2 {
    pub version: c_uint,
    pub total: u64,
    pub reserved: u64,
    pub free: u64,
    pub used: u64,
}

impl MemoryV2 {
    /// nvmlMemory_v2: size and version of the structure.
    pub const VERSION: c_uint = size_of::<MemoryV2>() as c_uint | 2 << 24;
}

/// nvmlProcessInfo_v2_t, which functions _v2 and _v3 fill in.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct ProcessInfo {
    pub pid: c_uint,
    pub used_gpu_memory: u64,
    pub gpu_instance: c_uint,
    pub compute_instance: c_uint,
}

pub(super) type Plain = unsafe extern "C" fn() -> u32;
pub(super) type Count = unsafe extern "C" fn(*mut c_uint) -> u32;
pub(super) type ByText = unsafe extern "C" fn(*const c_char, *mut Handle) -> u32;
pub(super) type Text = unsafe extern "C" fn(*mut c_char, c_uint) -> u32;
pub(super) type DeviceText = unsafe extern "C" fn(Handle, *mut c_char, c_uint) -> u32;
pub(super) type DeviceNumber = unsafe extern "C" fn(Handle, *mut c_uint) -> u32;
pub(super) type GetMemoryV1 = unsafe extern "C" fn(Handle, *mut MemoryV1) -> u32;
pub(super) type GetMemoryV2 = unsafe extern "C" fn(Handle, *mut MemoryV2) -> u32;
pub(super) type Processes = unsafe extern "C" fn(Handle, *mut c_uint, *mut ProcessInfo) -> u32;
type ErrorString = unsafe extern "C" fn(c_int) -> *const c_char;

/// The functions that are used.
#[derive(Debug)]
pub struct Library {
    pub(super) init: Plain,
    pub(super) shutdown: Plain,
    pub(super) count: Option<Count>,
    pub(super) driver_version: Option<Text>,
    pub(super) by_uuid: ByText,
    pub(super) by_pci: Option<ByText>,
    pub(super) uuid: Option<DeviceText>,
    pub(super) index: Option<DeviceNumber>,
    pub(super) memory: GetMemoryV1,
    pub(super) memory_v2: Option<GetMemoryV2>,
    pub(super) compute: Option<Processes>,
    pub(super) graphics: Option<Processes>,
    error_string: Option<ErrorString>,
}

impl Library {
    /// The library, loaded at the first call.
    pub fn get() -> Result<&'static Library, Unavailable> {
        static LOADED: OnceLock<Result<Library, Unavailable>> = OnceLock::new();
        LOADED
            .get_or_init(Library::load)
            .as_ref()
            .map_err(Clone::clone)
    }

    fn load() -> Result<Library, Unavailable> {
        let opened = open()?;
        // SAFETY: each name is that of the function with this signature in nvml.h.
        unsafe {
            // For a time (drivers 535.43 to 535.86, as nvml.h of those says) the functions _v3 filled
            // in a longer structure, with the bytes protected by confidential computing. Those drivers
            // have the first of these two functions, and not yet the second.
            let longer = opened.has(c"nvmlDeviceGetConfComputeMemSizeInfo")
                && !opened.has(c"nvmlDeviceGetRunningProcessDetailList");
            let processes = |v3: &CStr, v2: &CStr| {
                let third = if longer {
                    None
                } else {
                    opened.function::<Processes>(v3)
                };
                third.or_else(|| opened.function::<Processes>(v2))
            };
            let needed = |function: Option<Plain>, name| function.ok_or(Unavailable::Missing(name));
            Ok(Library {
                init: needed(opened.function(c"nvmlInit_v2"), "nvmlInit_v2")?,
                shutdown: needed(opened.function(c"nvmlShutdown"), "nvmlShutdown")?,
                count: opened.function(c"nvmlDeviceGetCount_v2"),
                driver_version: opened.function(c"nvmlSystemGetDriverVersion"),
                by_uuid: opened
                    .function(c"nvmlDeviceGetHandleByUUID")
                    .ok_or(Unavailable::Missing("nvmlDeviceGetHandleByUUID"))?,
                by_pci: opened.function(c"nvmlDeviceGetHandleByPciBusId_v2"),
                uuid: opened.function(c"nvmlDeviceGetUUID"),
                index: opened.function(c"nvmlDeviceGetIndex"),
                memory: opened
                    .function(c"nvmlDeviceGetMemoryInfo")
                    .ok_or(Unavailable::Missing("nvmlDeviceGetMemoryInfo"))?,
                memory_v2: opened.function(c"nvmlDeviceGetMemoryInfo_v2"),
                compute: processes(
                    c"nvmlDeviceGetComputeRunningProcesses_v3",
                    c"nvmlDeviceGetComputeRunningProcesses_v2",
                ),
                graphics: processes(
                    c"nvmlDeviceGetGraphicsRunningProcesses_v3",
                    c"nvmlDeviceGetGraphicsRunningProcesses_v2",
                ),
                error_string: opened.function(c"nvmlErrorString"),
            })
        }
    }

    /// An error for everything but success.
    pub(super) fn check(&self, function: &'static str, code: u32) -> Result<(), Unavailable> {
        if code == SUCCESS {
            return Ok(());
        }
        let meaning = self.error_string.map_or_else(String::new, |error_string| {
            // SAFETY: takes any number, returns null or a string that is never freed.
            unsafe { text(error_string(code as c_int)) }
        });
        Err(Unavailable::Refused {
            function,
            code,
            meaning,
        })
    }
}

/// A library that is loaded for good.
struct Opened(*mut c_void);

fn open() -> Result<Opened, Unavailable> {
    let mut first = None;
    for name in NAMES {
        // SAFETY: a NUL-terminated name. What the library does when it is loaded is the driver's.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if !handle.is_null() {
            return Ok(Opened(handle));
        }
        // SAFETY: null, or a string that lives until this thread's next call of its family.
        first.get_or_insert(unsafe { text(libc::dlerror()) });
    }
    let why = first.unwrap_or_default();
    // The dynamic linker has no other way to say it. Of another library that is missing it says so
    // with that one's name.
    if why.starts_with("libnvidia-ml.so.1: cannot open shared object file: No such file") {
        return Err(Unavailable::NoLibrary);
    }
    Err(Unavailable::NotLoaded(why))
}

impl Opened {
    fn has(&self, name: &CStr) -> bool {
        // SAFETY: a handle that stays open and a NUL-terminated name.
        !unsafe { libc::dlsym(self.0, name.as_ptr()) }.is_null()
    }

    /// # Safety
    ///
    /// `F` is the pointer type of the function with this name.
    unsafe fn function<F: Copy>(&self, name: &CStr) -> Option<F> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        // SAFETY: as in `has`.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        // SAFETY: not null, of the size of a pointer (asserted), and of this type, as the caller
        // says.
        (!address.is_null()).then(|| unsafe { std::mem::transmute_copy(&address) })
    }
}

/// # Safety
///
/// `chars` is null or a NUL-terminated string that lives through the call.
unsafe fn text(chars: *const c_char) -> String {
    if chars.is_null() {
        return String::new();
    }
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(chars) }
        .to_string_lossy()
        .into_owned()
}
