//! `vramtrace demo-program`: the program that leaks. It stands for a training loop: three
//! functions keep memory that they should not, one behaves.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::hint::black_box;
use std::ptr::null_mut;

const STEPS: u64 = 8;
const MIB: usize = 1 << 20;
/// `CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED` in cuda.h.
const ATTRIBUTE_POOLS: c_int = 115;

/// The program that the demo traces.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Only say which driver and device there are
    #[arg(long)]
    probe: bool,
}

/// Runs the program; returns its exit code.
pub fn execute(args: Args) -> i32 {
    match run(args.probe) {
        Ok(said) => {
            if args.probe {
                println!("{said}");
            } else {
                eprintln!("demo-program: {said}");
            }
            0
        }
        Err(why) => {
            eprintln!("demo-program: {why}");
            1
        }
    }
}

fn run(probe: bool) -> Result<String, String> {
    let driver = Driver::open()?;
    let device = driver.device()?;
    if probe {
        return driver.describe(device);
    }
    driver.make_current(device)?;
    let mut work = Work {
        cache: Vec::new(),
        results: Vec::new(),
    };
    // An unrolled loop would have a call stack for each of its steps.
    for step in 0..black_box(STEPS) {
        transform_batch(&driver)?;
        cache_batch(&driver, &mut work, step)?;
        if driver.has_pools(device) {
            queue_result(&driver, &mut work)?;
        }
    }
    stage_input(&driver)?;
    // What it holds on to at its end is what the report shows.
    let held = black_box(&work);
    Ok(format!(
        "{STEPS} steps, {} batches cached, {} results queued",
        held.cache.len(),
        held.results.len()
    ))
}

/// What the program knows it holds.
struct Work {
    cache: Vec<(u64, DevicePointer)>,
    results: Vec<DevicePointer>,
}

/// Behaves: its workspace is freed before it returns.
#[inline(never)]
fn transform_batch(driver: &Driver) -> Result<(), String> {
    let workspace = driver.allocate(16 * MIB)?;
    driver.free(black_box(workspace))
}

/// Leaks: a cache that nothing is ever removed from.
#[inline(never)]
fn cache_batch(driver: &Driver, work: &mut Work, step: u64) -> Result<(), String> {
    let batch = driver.allocate(4 * MIB)?;
    work.cache.push((step, batch));
    Ok(())
}

/// Leaks: nobody frees the results.
#[inline(never)]
fn queue_result(driver: &Driver, work: &mut Work) -> Result<(), String> {
    let result = driver.allocate_async(512 << 10)?;
    work.results.push(result);
    Ok(())
}

/// Leaks: a pinned buffer whose address is forgotten.
#[inline(never)]
fn stage_input(driver: &Driver) -> Result<(), String> {
    let buffer = driver.allocate_host(8 * MIB)?;
    black_box(buffer);
    Ok(())
}

type DevicePointer = u64;
type Context = *mut c_void;
type Code = c_int;

/// The driver's functions, by their names and types in cuda.h.
macro_rules! functions {
    ($($field:ident: $name:literal ($($argument:ty),*);)*) => {
        struct Driver {
            $($field: unsafe extern "C" fn($($argument),*) -> Code,)*
        }

        impl Driver {
            fn open() -> Result<Driver, String> {
                // SAFETY: a NUL-terminated name; the library is never closed.
                let library = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) };
                if library.is_null() {
                    return Err(last_error());
                }
                Ok(Driver {
                    // SAFETY: the name is that of a function with these arguments in cuda.h, all
                    // of which return CUresult.
                    $($field: unsafe {
                        std::mem::transmute::<
                            *mut c_void,
                            unsafe extern "C" fn($($argument),*) -> Code,
                        >(symbol(library, $name)?)
                    },)*
                })
            }
        }
    };
}

functions! {
    init: c"cuInit" (c_uint);
    version: c"cuDriverGetVersion" (*mut c_int);
    count: c"cuDeviceGetCount" (*mut c_int);
    get: c"cuDeviceGet" (*mut c_int, c_int);
    name: c"cuDeviceGetName" (*mut c_char, c_int, c_int);
    attribute: c"cuDeviceGetAttribute" (*mut c_int, c_int, c_int);
    retain: c"cuDevicePrimaryCtxRetain" (*mut Context, c_int);
    set_current: c"cuCtxSetCurrent" (Context);
    alloc: c"cuMemAlloc_v2" (*mut DevicePointer, usize);
    release: c"cuMemFree_v2" (DevicePointer);
    alloc_async: c"cuMemAllocAsync" (*mut DevicePointer, usize, *mut c_void);
    alloc_host: c"cuMemHostAlloc" (*mut *mut c_void, usize, c_uint);
}

fn symbol(library: *mut c_void, name: &CStr) -> Result<*mut c_void, String> {
    // SAFETY: an open library and a NUL-terminated name.
    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
    if found.is_null() {
        return Err(format!("libcuda.so.1 has no {}", name.to_string_lossy()));
    }
    Ok(found)
}

fn last_error() -> String {
    // SAFETY: returns null or a NUL-terminated string that lives until the next call.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            return "libcuda.so.1 cannot be loaded".into();
        }
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}

fn check(name: &str, code: Code) -> Result<(), String> {
    match code {
        0 => Ok(()),
        code => Err(format!("{name} returned error {code}")),
    }
}

impl Driver {
    fn device(&self) -> Result<c_int, String> {
        let (mut count, mut device) = (0, 0);
        // SAFETY: the pointers are valid for writes.
        unsafe {
            check("cuInit", (self.init)(0))?;
            check("cuDeviceGetCount", (self.count)(&mut count))?;
            if count < 1 {
                return Err("there is no CUDA device".into());
            }
            check("cuDeviceGet", (self.get)(&mut device, 0))?;
        }
        Ok(device)
    }

    fn describe(&self, device: c_int) -> Result<String, String> {
        let mut version = 0;
        let mut name = [0 as c_char; 128];
        // SAFETY: the pointers are valid for writes; the length is that of the buffer, and its last
        // byte stays 0 for the reader.
        let name = unsafe {
            check("cuDriverGetVersion", (self.version)(&mut version))?;
            let room = name.len() as c_int - 1;
            check(
                "cuDeviceGetName",
                (self.name)(name.as_mut_ptr(), room, device),
            )?;
            CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()
        };
        Ok(format!(
            "{name}, CUDA {}.{}",
            version / 1000,
            version % 1000 / 10
        ))
    }

    fn make_current(&self, device: c_int) -> Result<(), String> {
        let mut context = null_mut();
        // SAFETY: the pointer is valid for writes; the context is the one just retained.
        unsafe {
            check(
                "cuDevicePrimaryCtxRetain",
                (self.retain)(&mut context, device),
            )?;
            check("cuCtxSetCurrent", (self.set_current)(context))
        }
    }

    fn has_pools(&self, device: c_int) -> bool {
        let mut value = 0;
        // SAFETY: the pointer is valid for writes.
        unsafe { (self.attribute)(&mut value, ATTRIBUTE_POOLS, device) == 0 && value != 0 }
    }

    fn allocate(&self, bytes: usize) -> Result<DevicePointer, String> {
        let mut pointer = 0;
        // SAFETY: the pointer is valid for writes.
        check("cuMemAlloc", unsafe { (self.alloc)(&mut pointer, bytes) })?;
        Ok(pointer)
    }

    fn free(&self, pointer: DevicePointer) -> Result<(), String> {
        // SAFETY: an address that the driver gave us and nobody uses any more.
        check("cuMemFree", unsafe { (self.release)(pointer) })
    }

    fn allocate_async(&self, bytes: usize) -> Result<DevicePointer, String> {
        let mut pointer = 0;
        // SAFETY: the pointer is valid for writes; the null stream is the default stream.
        let code = unsafe { (self.alloc_async)(&mut pointer, bytes, null_mut()) };
        check("cuMemAllocAsync", code)?;
        Ok(pointer)
    }

    fn allocate_host(&self, bytes: usize) -> Result<*mut c_void, String> {
        let mut pointer = null_mut();
        // SAFETY: the pointer is valid for writes.
        check("cuMemHostAlloc", unsafe {
            (self.alloc_host)(&mut pointer, bytes, 0)
        })?;
        Ok(pointer)
    }
}
