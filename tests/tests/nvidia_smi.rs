//! What nvidia-smi shows, recorded beside a trace: through the real command, with a library that
//! stands in for NVML.

use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use vramtrace_tests::{Build, Check, Finished, Run, Scratch, artifacts, program, read_json, skip};

const MIB: u64 = 1 << 20;
/// What the stand-in says of a device that nobody uses, and what its driver keeps for itself.
const IDLE: u64 = 3 * MIB;
const RESERVED: u64 = 480 * MIB;

/// A machine whose NVML is the stand-in.
struct Machine {
    library: Scratch,
    facts: Scratch,
    out: Scratch,
}

impl Machine {
    /// `how` are words for the stand-in; see tests/programs/nvml.c.
    fn new(how: &str) -> Machine {
        Machine::with(how, &Build::of("nvml").shared().build())
    }

    fn with(how: &str, stand_in: &Path) -> Machine {
        let machine = Machine {
            library: Scratch::new(),
            facts: Scratch::new(),
            out: Scratch::new(),
        };
        let name = machine.library.path().join("libnvidia-ml.so.1");
        symlink(stand_in, name).expect("a link to the stand-in");
        fs::write(machine.facts.path().join("as"), how).expect("a file");
        machine
    }

    fn prepared(&self, options: &[&str]) -> Run {
        let mut libraries = self.library.path().as_os_str().to_owned();
        libraries.push(":");
        libraries.push(&artifacts().driver);
        Run::new(&artifacts().reader)
            .plain()
            .arg("run")
            .arg("-o")
            .arg(self.out.path().join("%e.%p.vrt"))
            .args(options)
            .arg("--")
            .env("VRAMTRACE_LIB", &artifacts().shim)
            .env("LD_LIBRARY_PATH", libraries)
            .env("STAND_IN_NVML", self.facts.path())
            .without("VRAMTRACE_OUTPUT")
    }

    /// `vramtrace run` of tests/programs/nvidia_smi.c.
    fn run(&self, arguments: &[&str]) -> Finished {
        let run = self.prepared(&[]).arg(program("nvidia_smi"));
        run.args(arguments).finish()
    }

    /// `vramtrace` with these arguments, for one JSON document.
    fn json(&self, arguments: &[&OsStr]) -> Value {
        let mut command = Command::new(&artifacts().reader);
        command
            .args(arguments)
            .env("LD_LIBRARY_PATH", self.library.path())
            .env("STAND_IN_NVML", self.facts.path());
        let output = command.output().expect("vramtrace starts");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
    }

    /// What happened to the library.
    fn log(&self) -> String {
        fs::read_to_string(self.facts.path().join("log")).unwrap_or_default()
    }

    fn traces(&self) -> Vec<PathBuf> {
        self.out.traces()
    }

    /// The only trace, which must be whole.
    fn trace(&self) -> PathBuf {
        let traces = self.traces();
        assert_eq!(traces.len(), 1, "{traces:?}");
        whole(&traces[0]);
        traces[0].clone()
    }

    /// What `summary` says of the only trace and its only device.
    fn shown(&self) -> Value {
        let shown = shown(&self.trace());
        assert_eq!(shown.as_array().map(Vec::len), Some(1), "{shown}");
        shown[0].clone()
    }
}

fn whole(trace: &Path) {
    let check = Check::of(trace);
    assert_eq!(check.verdict(), "whole", "{:#}", check.json);
}

fn shown(trace: &Path) -> Value {
    read_json("summary", trace, &[])["processes"][0]["nvidia_smi"].take()
}

#[test]
fn a_programs_number_is_in_its_trace() {
    let machine = Machine::new("");
    let finished = machine.run(&["exit", "518", "718", "600"]);
    assert_eq!(finished.code(), 0, "{finished:#?}");
    let shown = machine.shown();
    assert_eq!(shown["process_peak_bytes"], 718 * MIB, "{shown}");
    assert_eq!(shown["process_last_bytes"], 600 * MIB, "{shown}");
    assert_eq!(shown["used_peak_bytes"], 718 * MIB + IDLE, "{shown}");
    assert_eq!(shown["reserved_bytes"], RESERVED);
    assert_eq!(shown["total_bytes"], 81559 * MIB);
    assert_eq!(shown["device_layer_peak_bytes"], 10 * MIB);
    assert_eq!(shown["assumed"], false);
    assert!(shown["samples"].as_u64() >= Some(3), "{shown}");
    // Times are those of the trace.
    let process = &read_json("summary", &machine.trace(), &[])["processes"][0];
    let began = process["start_ns"].as_u64().expect("start_ns");
    assert!(shown["process_peak_ns"].as_u64() > Some(began), "{shown}");
    assert!(shown["process_peak_ns"].as_u64() < shown["process_last_ns"].as_u64());
    let text = vramtrace_tests::vramtrace(["summary".as_ref(), machine.trace().as_os_str()]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("nvidia-smi"));
    let line = line.unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains("718.00 MiB at its peak"), "{line}");
    assert!(line.contains("600.00 MiB at last"), "{line}");
    assert!(line.contains("device layer's peak was 10.00 MiB"), "{line}");
}

/// The simulated context takes 256 MiB, of which the stand-in says that 3 are not the program's.
#[test]
fn the_number_is_explained_by_what_the_trace_knows() {
    let machine = Machine::new("");
    let finished = machine.run(&["exit", "518", "718", "600"]);
    assert_eq!(finished.code(), 0, "{finished:#?}");
    let document = read_json("reconcile", &machine.trace(), &[]);
    let tree = &document["trees"][0];
    assert_eq!(tree["shown"]["process_bytes"], 600 * MIB, "{document:#}");
    assert_eq!(tree["shown"]["others_bytes"], IDLE);
    let parts: Vec<(&str, u64)> = tree["lines"]
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| {
            let bytes = line["bytes"].as_u64().expect("bytes");
            (line["part"].as_str().expect("a part"), bytes)
        })
        .collect();
    let expected = [("context", 256 * MIB - IDLE), ("library", 10 * MIB)];
    assert_eq!(parts, expected, "{document:#}");
    let known = 266 * MIB - IDLE;
    assert_eq!(tree["explained"], known);
    assert_eq!(tree["unexplained"], 600 * MIB - known);
    assert_eq!(tree["notes"].as_array().map(Vec::len), Some(0), "{tree:#}");
}

#[test]
fn a_killed_programs_number_is_there_too() {
    let machine = Machine::new("");
    let finished = machine.run(&["killed", "518"]);
    assert_eq!(finished.code(), 128 + 9, "{finished:#?}");
    assert_eq!(machine.shown()["process_last_bytes"], 518 * MIB);
}

#[test]
fn nothing_is_asked_of_programs_without_cuda() {
    let machine = Machine::new("");
    let finished = machine.prepared(&[]).arg("sleep").arg("0.3").finish();
    assert_eq!(finished.code(), 0, "{finished:#?}");
    assert_eq!(machine.log(), "");
}

#[test]
fn nothing_is_asked_where_nobody_wants_it() {
    let machine = Machine::new("");
    let program = || program("nvidia_smi");
    for run in [
        machine.prepared(&["--no-nvml"]),
        machine.prepared(&[]).env("VRAMTRACE_NO_NVML", "1"),
    ] {
        let finished = run.arg(program()).args(["quick", "518"]).finish();
        assert_eq!(finished.code(), 0, "{finished:#?}");
    }
    assert_eq!(machine.log(), "");
    for trace in machine.traces() {
        assert_eq!(shown(&trace), Value::Array(Vec::new()));
    }
}

/// A program that uses CUDA no more, in a run that goes on: the GPU may sleep.
#[test]
fn it_is_shut_down_when_nobody_uses_cuda() {
    let machine = Machine::new("");
    let script = r#""$1" exit 518; "$1" exit 600;
        until test "$(grep -c shutdown "$STAND_IN_NVML/log")" -ge 1; do sleep 0.01; done"#;
    let run = machine.prepared(&[]).args(["sh", "-c", script, "sh"]);
    let finished = run.arg(program("nvidia_smi")).finish();
    assert_eq!(finished.code(), 0, "{finished:#?}");
    let mut peaks: Vec<u64> = machine
        .traces()
        .iter()
        .map(|trace| {
            shown(trace)[0]["process_peak_bytes"]
                .as_u64()
                .expect("peak")
        })
        .collect();
    peaks.sort_unstable();
    assert_eq!(peaks, [518 * MIB, 600 * MIB]);
}

#[test]
fn children_have_their_own_numbers() {
    let machine = Machine::new("");
    let finished = machine.run(&["fork", "518"]);
    assert_eq!(finished.code(), 0, "{finished:#?}");
    let mut peaks = Vec::new();
    for trace in machine.traces() {
        whole(&trace);
        let shown = shown(&trace);
        peaks.push(shown[0]["process_peak_bytes"].as_u64().expect("peak"));
        assert_eq!(shown[0]["used_peak_bytes"], (518 + 618) * MIB + IDLE);
    }
    peaks.sort_unstable();
    assert_eq!(peaks, [518 * MIB, 618 * MIB]);
}

/// As in a container: the process knows itself by another id than we do.
#[test]
fn a_process_in_a_pid_namespace_of_its_own() {
    let unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork"];
    let mut possible = Command::new(unshare[0]);
    possible.args(&unshare[1..]).arg("true");
    if !possible
        .output()
        .is_ok_and(|output| output.status.success())
    {
        skip("a pid namespace of its own", "unshare is not allowed here");
        return;
    }
    let machine = Machine::new("");
    let run = machine.prepared(&[]).args(unshare);
    let finished = run
        .arg(program("nvidia_smi"))
        .args(["exit", "518"])
        .finish();
    assert_eq!(finished.code(), 0, "{finished:#?}");
    let trace = machine.trace();
    assert_eq!(read_json("summary", &trace, &[])["processes"][0]["pid"], 1);
    let shown = machine.shown();
    assert_eq!(shown["process_peak_bytes"], 518 * MIB, "{shown}");
    assert_eq!(shown["assumed"], false);
}

/// Two traces of one process id.
#[test]
fn a_program_that_becomes_another() {
    let machine = Machine::new("");
    let finished = machine.run(&["exec", "518"]);
    assert_eq!(finished.code(), 0, "{finished:#?}");
    let mut lasts: Vec<u64> = machine
        .traces()
        .iter()
        .map(|trace| {
            shown(trace)[0]["process_last_bytes"]
                .as_u64()
                .expect("last")
        })
        .collect();
    lasts.sort_unstable();
    assert_eq!(lasts, [518 * MIB, 618 * MIB]);
}

#[test]
fn each_device_has_its_own() {
    let machine = Machine::new("");
    let run = machine.prepared(&[]).env("VRAMTRACE_SIM_DEVICES", "2");
    let finished = run
        .arg(program("nvidia_smi"))
        .args(["both", "518"])
        .finish();
    assert_eq!(finished.code(), 0, "{finished:#?}");
    let shown = shown(&machine.trace());
    let of = |device: usize| {
        let all = shown.as_array().expect("devices").iter();
        let mut of = all.filter(|one| one["device"] == device);
        of.next().unwrap_or_else(|| panic!("{shown}"))["process_peak_bytes"].clone()
    };
    assert_eq!((of(0), of(1)), ((518 * MIB).into(), (518 * MIB).into()));
}

#[test]
fn parts_of_gpus_are_known_by_their_own_name() {
    let machine = Machine::new("mig");
    let finished = machine.run(&["exit", "518"]);
    assert_eq!(finished.code(), 0, "{finished:#?}");
    assert_eq!(machine.shown()["process_peak_bytes"], 518 * MIB);
}

#[test]
fn an_old_library() {
    let old = Build::of("nvml").shared().flag("-DOLD").build();
    let machine = Machine::with("", &old);
    let finished = machine.run(&["exit", "518"]);
    assert_eq!(finished.code(), 0, "{finished:#?}");
    let shown = machine.shown();
    assert_eq!(shown["process_peak_bytes"], 518 * MIB);
    assert_eq!(shown["reserved_bytes"], Value::Null);
    assert_eq!(shown["used_peak_bytes"], 518 * MIB + IDLE + RESERVED);
}

#[test]
fn a_library_that_lacks_what_is_needed() {
    let machine = Machine::with("", &Build::of("stub").shared().build());
    let finished = machine.run(&["quick", "518"]);
    assert_eq!(finished.code(), 0, "{finished:#?}");
    assert_eq!(shown(&machine.trace()), Value::Array(Vec::new()));
}

#[test]
fn without_a_list_the_devices_figure_is_there() {
    for how in ["empty", "no-list"] {
        let machine = Machine::new(how);
        let finished = machine.run(&["exit", "518"]);
        assert_eq!(finished.code(), 0, "{finished:#?}");
        let shown = machine.shown();
        assert_eq!(shown["process_peak_bytes"], Value::Null, "{how}");
        assert_eq!(shown["process_last_bytes"], Value::Null, "{how}");
        assert_eq!(shown["used_peak_bytes"], 518 * MIB + IDLE, "{how}");
    }
}

#[test]
fn bytes_that_the_driver_does_not_count() {
    let machine = Machine::new("not-available");
    let finished = machine.run(&["exit", "518"]);
    assert_eq!(finished.code(), 0, "{finished:#?}");
    let shown = machine.shown();
    assert_eq!(shown["process_peak_bytes"], Value::Null);
    assert_eq!(shown["used_peak_bytes"], 518 * MIB + IDLE);
}

#[test]
fn ids_of_another_namespace_are_taken_only_where_there_is_no_choice() {
    let machine = Machine::new("foreign");
    let finished = machine.run(&["exit", "518"]);
    assert_eq!(finished.code(), 0, "{finished:#?}");
    let shown = machine.shown();
    assert_eq!(shown["process_peak_bytes"], 518 * MIB);
    assert_eq!(shown["assumed"], true);

    // Of two that are there at the same time, neither is anybody's.
    let machine = Machine::new("foreign");
    let script = r#""$1" exit 518 600 & "$1" exit 518 600; wait"#;
    let run = machine.prepared(&[]).args(["sh", "-c", script, "sh"]);
    let finished = run.arg(program("nvidia_smi")).finish();
    assert_eq!(finished.code(), 0, "{finished:#?}");
    for trace in machine.traces() {
        let shown = &self::shown(&trace)[0];
        let number = &shown["process_peak_bytes"];
        let own = [518 * MIB, 600 * MIB].map(Value::from);
        assert!(number.is_null() || own.contains(number), "{shown}");
        assert!(shown["used_peak_bytes"].as_u64() >= Some(518 * MIB + IDLE));
    }
}

#[test]
fn a_refusal_is_said_once() {
    let machine = Machine::new("init-fails");
    let finished = machine.run(&["quick", "518"]);
    assert_eq!(finished.code(), 0, "{finished:#?}");
    assert_eq!(shown(&machine.trace()), Value::Array(Vec::new()));
    let said = "nvmlInit_v2 fails with error 9 (Driver Not Loaded)";
    let times = finished.stderr.matches("nvidia-smi").count();
    // Where the program was quicker than the library, there was nothing to be refused.
    assert!(times <= 1, "{finished:#?}");
    assert_eq!(
        finished.stderr.matches(said).count(),
        times,
        "{finished:#?}"
    );
}

/// The run ends although a call never does.
#[test]
fn a_library_that_hangs() {
    for (how, code) in [("hangs-init", 0), ("hangs", 0)] {
        let machine = Machine::new(how);
        let finished = machine.run(&["hanging", "518"]);
        assert_eq!(finished.code(), code, "{finished:#?}");
        assert_eq!(shown(&machine.trace()), Value::Array(Vec::new()), "{how}");
    }
}

#[test]
fn a_machine_without_nvml_is_silent() {
    let machine = Machine::new("");
    let run = machine
        .prepared(&[])
        .env("LD_LIBRARY_PATH", &artifacts().driver);
    let finished = run
        .arg(program("nvidia_smi"))
        .args(["quick", "518"])
        .finish();
    assert_eq!(finished.code(), 0, "{finished:#?}");
    if Path::new("/dev/nvidiactl").exists() {
        skip("a machine without NVML", "this one may have it");
        return;
    }
    let said = ["nvidia-smi", "libnvidia-ml"];
    let said = said.map(|word| finished.stderr.contains(word));
    assert_eq!(said, [false; 2], "{finished:#?}");
    assert_eq!(shown(&machine.trace()), Value::Array(Vec::new()));
}

/// Without `vramtrace run`, too.
#[test]
fn a_process_that_runs_is_asked_about_now() {
    let machine = Machine::new("");
    let facts = machine.facts.path();
    let run = Run::new(program("nvidia_smi")).args(["hanging", "518"]);
    let (mut child, scratch) = run.env("STAND_IN_NVML", facts).spawn();
    while !facts.join(child.id().to_string()).exists() {
        let ended = child.try_wait().expect("a child").is_some();
        assert!(!ended, "the program ended");
        std::thread::yield_now();
    }
    let trace = scratch.traces().remove(0);
    let arguments = ["summary".as_ref(), "--json".as_ref(), trace.as_os_str()];
    let process = machine.json(&arguments)["processes"][0].take();
    assert_eq!(process["end"], "running", "{process}");
    let shown = &process["nvidia_smi"][0];
    assert_eq!(shown["process_last_bytes"], 518 * MIB, "{process}");
    assert_eq!(machine.log(), "init\nshutdown\n");
    // It ends as soon as this is there, and nobody is asked about it then.
    fs::write(facts.join("hanging"), "x").expect("a file");
    assert!(child.wait().expect("a child").success());
    let process = machine.json(&arguments)["processes"][0].take();
    assert_eq!(process["nvidia_smi"], Value::Array(Vec::new()));
}

#[test]
fn doctor_says_whether_it_is_there() {
    let finding = |machine: &Machine| {
        let mut document = machine.json(&["doctor".as_ref(), "--json".as_ref()]);
        let all = document["findings"].as_array_mut().expect("findings");
        let found = all.iter().position(|finding| finding["check"] == "NVML");
        let finding = all[found.expect("NVML")].take();
        (finding["status"].clone(), finding["message"].to_string())
    };
    let (status, message) = finding(&Machine::new(""));
    assert_eq!(status, "ok", "{message}");
    assert!(message.contains("driver 580.159, 2 GPU(s)"), "{message}");
    let (status, message) = finding(&Machine::new("init-fails"));
    assert_eq!(status, "warn", "{message}");
    assert!(
        message.contains("nvmlInit_v2 fails with error 9"),
        "{message}"
    );
    let lacks = Machine::with("", &Build::of("stub").shared().build());
    let (status, message) = finding(&lacks);
    assert_eq!(status, "warn", "{message}");
    assert!(message.contains("has no nvmlInit_v2"), "{message}");
}
