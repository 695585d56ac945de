//! Checks of the machine: C library, shared memory, driver, NVML.

use super::{Finding, Status};
use crate::launch::rundir::{FileSystem, writable};
use crate::nvml;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// What container engines give `/dev/shm` if nobody asks for more.
const CONTAINER_SHM: u64 = 64 << 20;
/// Oldest glibc that the recorder loads with.
const OLDEST_GLIBC: (u32, u32) = (2, 17);

pub(super) fn examine() -> Vec<Finding> {
    let mut findings = vec![c_library()];
    findings.push(shared_memory());
    findings.extend(runtime_directory());
    findings.push(output_directory());
    findings.extend(driver());
    findings.push(management_library());
    findings
}

#[cfg(target_env = "gnu")]
fn c_library() -> Finding {
    // SAFETY: returns a NUL-terminated string that is never freed.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    let version = version.to_string_lossy();
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    let pair = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if pair >= OLDEST_GLIBC {
        return Finding::ok("C library", format!("glibc {version}"));
    }
    Finding::fail(
        "C library",
        format!("glibc {version}; the recorder needs 2.17 or later"),
        "use a newer system or image",
    )
}

#[cfg(not(target_env = "gnu"))]
fn c_library() -> Finding {
    let found = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"]
        .iter()
        .any(|linker| Path::new(linker).exists());
    if found {
        return Finding::ok("C library", "glibc is there");
    }
    let (major, minor) = OLDEST_GLIBC;
    Finding::fail(
        "C library",
        format!("no glibc here; the recorder needs {major}.{minor} or later"),
        "use an image with glibc",
    )
}

fn shared_memory() -> Finding {
    let check = "shared memory";
    let facts = match File::open("/dev/shm").and_then(|directory| FileSystem::of(&directory)) {
        Ok(facts) => facts,
        Err(error) => {
            return Finding::warn(
                check,
                format!("/dev/shm: {error}"),
                "traces are written elsewhere; see `run directory`",
            );
        }
    };
    let message = format!(
        "/dev/shm has {} MiB, {} MiB of it free ({})",
        facts.size >> 20,
        facts.free >> 20,
        facts.name().unwrap_or("unknown file system")
    );
    if facts.size <= CONTAINER_SHM {
        return Finding::warn(
            check,
            format!("{message}; a trace takes at most an eighth of what is free"),
            "start the container with --shm-size=1g (Kubernetes: an emptyDir with medium Memory)",
        );
    }
    Finding::ok(check, message)
}

fn runtime_directory() -> Option<Finding> {
    let check = "XDG_RUNTIME_DIR";
    let path = PathBuf::from(std::env::var_os(check)?);
    Some(match writable(&path) {
        Ok(()) => Finding::ok(check, path.display().to_string()),
        Err(error) => Finding::warn(
            check,
            format!("{}: {error}", path.display()),
            "traces are written elsewhere; see `run directory`",
        ),
    })
}

/// Where traces go in the end, if nothing else is said.
fn output_directory() -> Finding {
    let check = "output directory";
    let here = std::env::current_dir().unwrap_or_else(|_| "/".into());
    let facts = File::open(&here).and_then(|here| FileSystem::of(&here));
    let shown = here.display();
    match (writable(&here), facts) {
        (Err(error), _) => Finding::warn(
            check,
            format!("{shown}: {error}"),
            "choose another directory for the traces with run -o",
        ),
        (_, Ok(facts)) => {
            let name = facts.name().unwrap_or("unknown file system");
            let free = facts.free >> 20;
            Finding::ok(check, format!("{shown} ({name}, {free} MiB free)"))
        }
        (_, Err(error)) => Finding::warn(check, format!("{shown}: {error}"), "choose another"),
    }
}

fn driver() -> Vec<Finding> {
    let check = "driver";
    let library = driver_library();
    let devices = gpu_devices();
    let version = fs::read_to_string("/proc/driver/nvidia/version")
        .ok()
        .and_then(|text| kernel_module_version(&text));
    let version = version.map_or_else(String::new, |version| format!(", version {version}"));
    let (status, message, advice) = match (&library, devices) {
        (Some(path), 1..) => (
            Status::Ok,
            format!("{}{version}; {devices} GPU device file(s)", path.display()),
            None,
        ),
        (Some(path), 0) => (
            Status::Warn,
            format!("{} is there, but no /dev/nvidia0", path.display()),
            Some("give the container its GPUs (--gpus all), or load the kernel module"),
        ),
        (None, 1..) => (
            Status::Warn,
            format!("{devices} GPU device file(s), but no libcuda.so.1"),
            Some("install the driver's user part, or give the container the capability compute"),
        ),
        (None, 0) => (
            Status::Warn,
            "no NVIDIA driver: programs cannot allocate GPU memory here".into(),
            Some("traces can be read here; `vramtrace demo` runs on a simulated driver"),
        ),
    };
    vec![Finding {
        check,
        status,
        message,
        advice: advice.map(str::to_owned),
    }]
}

/// Whether traces can have what nvidia-smi shows in them.
fn management_library() -> Finding {
    let check = "NVML";
    match nvml::about() {
        Ok((version, count)) => {
            let version = version.map_or_else(String::new, |v| format!(", driver {v}"));
            let count = count.map_or_else(String::new, |count| format!(", {count} GPU(s)"));
            Finding::ok(check, format!("libnvidia-ml.so.1 answers{version}{count}"))
        }
        Err(why) => Finding::warn(
            check,
            format!("{why}: traces are without what nvidia-smi shows"),
            "give the container the driver's capability utility \
             (NVIDIA_DRIVER_CAPABILITIES=compute,utility), or install the driver",
        ),
    }
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159  …`
fn kernel_module_version(text: &str) -> Option<String> {
    let mut words = text.lines().next()?.split_whitespace();
    let numeric =
        |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    words.find(numeric).map(str::to_owned)
}

/// GPUs of this machine or container (WSL has one device file for all).
fn gpu_devices() -> usize {
    let names = fs::read_dir("/dev").into_iter().flatten().flatten();
    names
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let number = name.strip_prefix("nvidia").unwrap_or_default();
            name == "dxg"
                || (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .count()
}

/// Where the dynamic linker would find the driver.
fn driver_library() -> Option<PathBuf> {
    const NAME: &str = "libcuda.so.1";
    let listed = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = [
        "/lib",
        "/usr/lib",
        "/lib64",
        "/usr/lib64",
        "/usr/lib/wsl/lib",
    ];
    let in_directory = std::env::split_paths(&listed)
        .chain(usual.iter().map(PathBuf::from))
        .map(|directory| directory.join(NAME))
        .find(|path| path.exists());
    in_directory.or_else(|| {
        let cache = fs::read("/etc/ld.so.cache").ok()?;
        in_cache(&cache, NAME)
            .into_iter()
            .find(|path| path.exists())
    })
}

/// Paths with this file name in the linker's cache, whose strings end in NUL.
fn in_cache(cache: &[u8], name: &str) -> Vec<PathBuf> {
    let suffix = format!("/{name}");
    cache
        .split(|&byte| byte == 0)
        .filter_map(|text| std::str::from_utf8(text).ok())
        .filter(|text| text.starts_with('/') && text.ends_with(&suffix))
        .map(|text| Path::new(text).to_path_buf())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linkers_cache_names_paths() {
        let cache = b"x\0libcuda.so.1\0/usr/lib/x/libcuda.so.1\0/usr/lib/libm.so.6\0";
        assert_eq!(
            in_cache(cache, "libcuda.so.1"),
            [Path::new("/usr/lib/x/libcuda.so.1")]
        );
    }

    #[test]
    fn the_driver_version() {
        let text =
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159  Tue\nGCC version: 12.2";
        assert_eq!(kernel_module_version(text).as_deref(), Some("580.159"));
        let text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.51.03  Release";
        assert_eq!(kernel_module_version(text).as_deref(), Some("575.51.03"));
    }
}
