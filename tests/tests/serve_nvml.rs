//! What `vramtrace serve` says of nvidia-smi's numbers: a real program, and a library that stands in for NVML.

use std::fs;
use std::os::unix::fs::symlink;
use vramtrace_tests::serving::{Held, Scrape, Server};
use vramtrace_tests::{Build, Scratch};

const MIB: f64 = 1048576.0;
/// What the stand-in says of a device that nobody uses.
const IDLE: f64 = 3.0 * MIB;
/// What the stand-in calls the device that is 0 for the process.
const GPU: &str = "4";
/// What no process may seem to have where it is not known.
const OF_PROCESSES: [&str; 3] = [
    "vramtrace_process_nvml_bytes",
    "vramtrace_process_driver_own_bytes",
    "vramtrace_process_unexplained_bytes",
];

/// A directory with a stand-in for NVML, and one with what that says.
struct Machine {
    library: Scratch,
    facts: Scratch,
    traces: Scratch,
}

impl Machine {
    /// `how` are words for the stand-in; see tests/programs/nvml.c.
    fn new(how: &str) -> Machine {
        let machine = Machine {
            library: Scratch::new(),
            facts: Scratch::new(),
            traces: Scratch::new(),
        };
        let stand_in = Build::of("nvml").shared().build();
        let name = machine.library.path().join("libnvidia-ml.so.1");
        symlink(stand_in, name).expect("a link to the stand-in");
        machine.behaves(how);
        machine
    }

    fn behaves(&self, how: &str) {
        fs::write(self.facts.path().join("as"), how).expect("a file");
    }

    /// A program, of which nvidia-smi shows so many MiB.
    fn program(&self, mib: f64) -> Held {
        let held = Held::start(self.traces.path(), &[]);
        let bytes = format!("{}", mib * MIB);
        fs::write(self.facts.path().join(held.pid()), bytes).expect("a file");
        held
    }

    fn serve(&self) -> Server {
        let library = self.library.path().as_os_str();
        let facts = self.facts.path().as_os_str();
        let environment = [("LD_LIBRARY_PATH", library), ("STAND_IN_NVML", facts)];
        Server::with(self.traces.path(), &["--sites", "0"], &environment)
    }
}

fn nothing_is_known(scrape: &Scrape) {
    assert_eq!(scrape.one("vramtrace_nvml_up", &[]), 0.0);
    for family in OF_PROCESSES {
        assert!(scrape.all(family, &[]).is_empty(), "{family}: {scrape:#?}");
    }
    let used = scrape.all("vramtrace_device_memory_used_bytes", &[]);
    assert!(used.is_empty(), "{used:?}");
    // The rest is as it was.
    assert_eq!(
        scrape.one("vramtrace_live_bytes", &[("layer", "device")]),
        3.0 * MIB
    );
}

#[test]
fn its_number_and_what_is_not_explained() {
    let machine = Machine::new("");
    let programs = [machine.program(500.0), machine.program(700.0)];
    let server = machine.serve();
    let scrape = server.until("NVML is asked", |scrape| {
        scrape.all(OF_PROCESSES[0], &[]).len() == 2
    });
    assert_eq!(scrape.one("vramtrace_nvml_up", &[]), 1.0);
    for (program, mib) in programs.iter().zip([500.0, 700.0]) {
        let pid = program.pid();
        // The labels that dcgm-exporter has.
        let uuid = "GPU-7672616d-7472-6163-652d-73696d2d0000";
        let labels = [("pid", &*pid), ("gpu", GPU), ("UUID", uuid)];
        let shown = scrape.one(OF_PROCESSES[0], &labels);
        assert_eq!(shown, mib * MIB);
        let live = [&labels[..], &[("layer", "device")]].concat();
        let live = scrape.one("vramtrace_live_bytes", &live);
        let own: f64 = scrape.all(OF_PROCESSES[1], &labels).iter().sum();
        let unexplained = scrape.one(OF_PROCESSES[2], &labels);
        assert_eq!(live + own + unexplained, shown, "{scrape:#?}");
    }
    let device = [("gpu", GPU)];
    assert_eq!(
        scrape.one("vramtrace_device_memory_used_bytes", &device),
        1200.0 * MIB + IDLE
    );
    assert_eq!(
        scrape.one("vramtrace_device_memory_total_bytes", &device),
        81559.0 * MIB
    );
    // What it says is as of now, and of a process that is gone nothing is said.
    let [first, second] = programs;
    fs::write(machine.facts.path().join(first.pid()), "1048576").expect("a file");
    drop(second);
    // The driver gave memory back: no more can be its own than what the number leaves, once that has been
    // seen twice.
    let scrape = server.until("ended", |scrape| {
        scrape.all(OF_PROCESSES[0], &[]) == [MIB]
            && scrape.all(OF_PROCESSES[1], &[]) == [MIB - 3.0 * MIB]
    });
    assert_eq!(scrape.all(OF_PROCESSES[2], &[]), [0.0]);
    assert_eq!(
        scrape.one("vramtrace_device_memory_used_bytes", &device),
        MIB + IDLE
    );
    assert_eq!(server.end(), Some(0));
}

/// A library that fails, refuses or hangs makes no number, least of all a zero.
#[test]
fn what_nvml_does_not_say_is_not_said() {
    for how in [
        "init-fails",
        "no-list",
        "not-available",
        "hangs",
        "hangs-init",
    ] {
        let machine = Machine::new(how);
        let _program = machine.program(500.0);
        let server = machine.serve();
        let scrape = server.scrape();
        println!("{how}");
        for family in OF_PROCESSES {
            assert!(scrape.all(family, &[]).is_empty(), "{how}: {scrape:#?}");
        }
        if how != "not-available" && how != "no-list" {
            nothing_is_known(&scrape);
        }
        if how == "init-fails" {
            // A driver that comes back is asked again.
            machine.behaves("");
            server.until("asked again", |scrape| {
                scrape.all(OF_PROCESSES[0], &[]) == [500.0 * MIB]
            });
        }
        assert_eq!(server.end(), Some(0), "{how}");
    }
}
