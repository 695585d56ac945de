//! The library, the command and the simulated driver, built by cargo as users would build them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What was built, and where.
#[derive(Debug)]
pub struct Artifacts {
    /// `libvramtrace.so`.
    pub shim: PathBuf,
    /// The `vramtrace` command.
    pub reader: PathBuf,
    /// Directory with the simulated `libcuda.so.1` and a `libcuda.so` to link with.
    pub driver: PathBuf,
    /// Where compiled programs are kept.
    pub programs: PathBuf,
    /// The library is as users get it, not a debug build.
    pub optimised: bool,
}

/// Root of the repository.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The artifacts, built at the first call of a test process. Where `VRAMTRACE_TEST_PREBUILT` is
/// set (scripts/test does) they are taken as they are; where `VRAMTRACE_TEST_PACKAGE` names a
/// folder that scripts/package made, its library and command are tested.
pub fn artifacts() -> &'static Artifacts {
    static BUILT: OnceLock<Artifacts> = OnceLock::new();
    BUILT.get_or_init(build)
}

fn build() -> Artifacts {
    // The test binary lies in TARGET/PROFILE/deps, wherever CARGO_TARGET_DIR is.
    let own = std::env::current_exe().expect("the path of this test");
    let profile = own.ancestors().nth(2).expect("TARGET/PROFILE/deps/TEST");
    if std::env::var_os("VRAMTRACE_TEST_PREBUILT").is_none() {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.current_dir(repository()).args(["build", "--quiet"]);
        cargo.args([
            "-p",
            "vramtrace-shim",
            "-p",
            "vramtrace",
            "-p",
            "vramtrace-sim",
        ]);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        cargo
            .arg("--target-dir")
            .arg(profile.parent().expect("TARGET"));
        let status = cargo.status().expect("cargo starts");
        assert!(status.success(), "{cargo:?}: {status}");
    }
    let driver = profile.join("vramtrace-tests").join("driver");
    std::fs::create_dir_all(&driver).expect("a directory for the driver");
    for name in ["libcuda.so.1", "libcuda.so"] {
        link(&profile.join("libcuda.so"), &driver.join(name));
    }
    let programs = profile.join("vramtrace-tests").join("programs");
    std::fs::create_dir_all(&programs).expect("a directory for programs");
    let package = std::env::var_os("VRAMTRACE_TEST_PACKAGE").map(PathBuf::from);
    let ours = package.as_deref().unwrap_or(profile);
    let artifacts = Artifacts {
        shim: ours.join("libvramtrace.so"),
        reader: ours.join("vramtrace"),
        driver,
        programs,
        optimised: package.is_some() || profile.ends_with("release"),
    };
    for file in [
        &artifacts.shim,
        &artifacts.reader,
        &artifacts.driver.join("libcuda.so.1"),
    ] {
        assert!(file.exists(), "{} was not built", file.display());
    }
    artifacts
}

/// A symbolic link that says `target`; other test processes may be making the same one.
fn link(target: &Path, name: &Path) {
    if std::fs::read_link(name).is_ok_and(|old| old == target) {
        return;
    }
    let own = name.with_extension(format!("{}", std::process::id()));
    // A killed process of this id may have left one.
    let _ = std::fs::remove_file(&own);
    std::os::unix::fs::symlink(target, &own).expect("a link to the driver");
    std::fs::rename(&own, name).expect("the link's name");
}
