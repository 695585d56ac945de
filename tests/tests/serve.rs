//! `vramtrace serve`: real programs that run, scraped through the real command.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use vramtrace_tests::serving::{HANGS, Held, Scrape, Server};
use vramtrace_tests::{Scratch, read_json, skip};

#[test]
fn figures_are_the_programs_and_those_of_summary() {
    let traces = Scratch::new();
    let held = [
        Held::start(traces.path(), &[]),
        Held::start(traces.path(), &[]),
    ];
    let server = Server::start(traces.path(), &["--no-nvml"]);
    let named = |scrape: &Scrape| {
        scrape
            .all("vramtrace_site_live_bytes", &[("site", "keeps held.c:8")])
            .len()
            == 2
    };
    let scrape = server.until("named", named);
    for one in &held {
        let pid = one.pid();
        let mine = |more: &[(&'static str, &'static str)]| -> Vec<(&str, &str)> {
            [&[("pid", &*pid)][..], more].concat()
        };
        let device = mine(&[("layer", "device")]);
        assert_eq!(
            scrape.one("vramtrace_live_bytes", &device),
            f64::from(3 << 20)
        );
        assert_eq!(scrape.one("vramtrace_live_allocations", &device), 3.0);
        assert_eq!(
            scrape.one("vramtrace_allocated_bytes_total", &device),
            f64::from((3 << 20) + 5000)
        );
        assert_eq!(scrape.one("vramtrace_freed_bytes_total", &device), 5000.0);
        assert_eq!(scrape.one("vramtrace_frees_total", &device), 5.0);
        assert_eq!(
            scrape.one("vramtrace_allocation_failures_total", &device),
            1.0
        );
        assert_eq!(
            scrape.one("vramtrace_live_bytes", &mine(&[("layer", "host")])),
            4096.0
        );
        assert_eq!(
            scrape.one("vramtrace_kind_live_bytes", &mine(&[("kind", "pinned")])),
            4096.0
        );
        assert_eq!(
            scrape.one(
                "vramtrace_kind_freed_bytes_total",
                &mine(&[("kind", "device")])
            ),
            5000.0
        );
        assert_eq!(
            scrape.one(
                "vramtrace_site_live_bytes",
                &mine(&[("site", "other"), ("layer", "device")])
            ),
            0.0
        );
        assert_eq!(scrape.one("vramtrace_process_up", &mine(&[])), 1.0);
        assert_eq!(scrape.one("vramtrace_process_running", &mine(&[])), 1.0);
        assert_eq!(
            scrape.one("vramtrace_process_info", &mine(&[("program", "held")])),
            1.0
        );

        let trace = traces.path().join(format!("held.{pid}.vrt"));
        let summary = read_json("summary", &trace, &[]);
        let accounts = summary["processes"][0]["accounts"]
            .as_array()
            .expect("accounts");
        assert!(!accounts.is_empty());
        for account in accounts {
            let layer = account["layer"].as_str().expect("a layer");
            let labels = [("pid", &*pid), ("layer", layer)];
            for (family, value) in [
                ("vramtrace_live_bytes", &account["live"]["bytes"]),
                ("vramtrace_peak_bytes", &account["peak_bytes"]),
                (
                    "vramtrace_allocations_total",
                    &account["allocated"]["count"],
                ),
                ("vramtrace_freed_bytes_total", &account["freed"]["bytes"]),
            ] {
                let value = value
                    .as_f64()
                    .unwrap_or_else(|| panic!("{family}: {account:#}"));
                assert_eq!(scrape.one(family, &labels), value, "{family} {layer}");
            }
        }
    }
    assert!(scrape.one("vramtrace_device_memory_total_bytes", &[("gpu", "0")]) > 0.0);
    assert_eq!(server.end(), Some(0));
}

#[test]
fn a_killed_program_has_no_memory_and_then_leaves() {
    let traces = Scratch::new();
    let held = Held::start(traces.path(), &[]);
    let pid = held.pid();
    let mine = [("pid", &*pid)];
    let patient = Server::start(traces.path(), &["--no-nvml", "--sites", "0"]);
    let hasty = Server::start(traces.path(), &["--no-nvml", "--linger", "0s"]);
    for server in [&patient, &hasty] {
        assert_eq!(server.scrape().all("vramtrace_live_bytes", &mine).len(), 2);
    }
    drop(held);
    let scrape = patient.until("ended", |scrape| {
        scrape.all("vramtrace_process_running", &mine) == [0.0]
    });
    assert!(scrape.all("vramtrace_live_bytes", &mine).is_empty());
    assert!(
        scrape
            .all("vramtrace_allocator_reserved_bytes", &mine)
            .is_empty()
    );
    assert_eq!(
        scrape.all("vramtrace_allocated_bytes_total", &mine).len(),
        2
    );
    hasty.until("gone", |scrape| {
        scrape.all("vramtrace_process_up", &mine).is_empty()
    });
}

#[test]
fn a_read_that_fails_is_no_zero() {
    let traces = Scratch::new();
    let held = Held::start(traces.path(), &[]);
    let pid = held.pid();
    let trace = traces.path().join(format!("held.{pid}.vrt"));
    fs::write(traces.path().join("a\"}\\ 1\nb.vrt"), "<b>x").expect("a file");
    // A copy, so that the program is not hurt.
    let whole = fs::read(&trace).expect("its bytes");
    let copy = traces.path().join("copy.vrt");
    fs::write(&copy, &whole).expect("a copy");
    let server = Server::start(traces.path(), &["--no-nvml", "--sites", "0"]);
    let mine = [("trace", "copy.vrt")];
    let scrape = server.scrape();
    assert_eq!(scrape.one("vramtrace_process_up", &mine), 1.0);
    assert_eq!(
        scrape.one("vramtrace_traces", &[("state", "unreadable")]),
        1.0
    );
    let errors = scrape.one("vramtrace_read_errors_total", &[]);
    fs::OpenOptions::new()
        .write(true)
        .open(&copy)
        .and_then(|file| file.set_len(5000))
        .expect("cut");
    let scrape = server.until("unreadable", |scrape| {
        scrape.all("vramtrace_process_up", &mine) == [0.0]
    });
    assert!(scrape.all("vramtrace_live_bytes", &mine).is_empty());
    assert!(scrape.one("vramtrace_read_errors_total", &[]) > errors);
    // Nonsense of the right length.
    let mut nonsense = whole.clone();
    for (at, byte) in nonsense.iter_mut().enumerate().skip(4096) {
        *byte = (at as u8).wrapping_mul(31);
    }
    fs::write(&copy, &nonsense).expect("a file");
    server.scrape();
    fs::write(&copy, &whole).expect("a file");
    server.until("back", |scrape| {
        scrape.all("vramtrace_process_up", &mine) == [1.0]
    });
    fs::remove_file(&copy).expect("gone");
    server.until("gone", |scrape| {
        scrape.all("vramtrace_process_up", &mine).is_empty()
    });
    // All of it in words, and none of it as markup.
    let (status, head, page) = server.get("/", "");
    assert_eq!(status, 200);
    assert!(head.contains("content-security-policy"));
    assert!(page.contains("held") && !page.contains("a\"}"), "{page}");
}

#[test]
fn profiles_are_of_running_programs_only() {
    let traces = Scratch::new();
    let held = Held::start(traces.path(), &[]);
    let server = Server::start(traces.path(), &["--no-nvml"]);
    let (_, _, page) = server.get("/", "");
    let own = page
        .split("href=\"")
        .find(|part| part.starts_with("/process/"));
    let own = own.and_then(|part| part.split('"').next()).expect("a link");
    for path in [own, "/debug/pprof/heap", "/debug/pprof/allocs"] {
        let (status, head, body) = server.get(path, "");
        assert_eq!(status, 200, "{path}: {body}");
        assert!(head.contains("application/octet-stream"));
        assert!(body.len() > 100, "{path}");
    }
    drop(held);
    let scrape = |scrape: &Scrape| scrape.all("vramtrace_process_running", &[]) == [0.0];
    server.until("ended", scrape);
    assert_eq!(server.get("/debug/pprof/heap", "").0, 404);
}

#[test]
fn nothing_is_served_but_what_is_known() {
    let traces = Scratch::new();
    fs::write(traces.path().join("secret.txt"), "secret").expect("a file");
    let outside = Scratch::new();
    fs::write(outside.path().join("x.vrt"), "secret").expect("a file");
    std::os::unix::fs::symlink(outside.path(), traces.path().join("way")).expect("a link");
    std::os::unix::fs::symlink("/etc/passwd", traces.path().join("b.vrt")).expect("a link");
    let server = Server::start(traces.path(), &["--no-nvml"]);
    for path in [
        "/secret.txt",
        "/../secret.txt",
        "/process/../../etc/passwd",
        "/process/..%2f..%2fetc%2fpasswd/debug/pprof/heap",
        "/process/b.vrt/debug/pprof/heap",
        "/process//debug/pprof/heap",
        "//etc/passwd",
        "/metrics/../../etc/passwd",
    ] {
        let (status, _, body) = server.get(path, "");
        assert_eq!(status, 404, "{path}");
        assert!(
            !body.contains("secret") && !body.contains("root:"),
            "{path}: {body}"
        );
    }
    let scrape = server.scrape();
    assert_eq!(
        scrape.one("vramtrace_traces", &[("state", "unreadable")]),
        0.0
    );
    let (status, head, _) = server.get("/metrics", "");
    assert!(
        status == 200
            && head.contains(
                "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"
            )
    );
    let (_, head, body) = server.get("/metrics", "Accept: text/plain;version=0.0.4\r\n");
    assert!(head.contains("content-type: text/plain; version=0.0.4") && !body.contains("# EOF"));
    assert!(
        server
            .ask("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde")
            .contains(" 405 ")
    );
    let head = server.ask("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"));
    assert_eq!(server.get("/healthz", "").0, 200);
}

#[test]
fn slow_silent_and_huge_clients_hurt_nobody() {
    let traces = Scratch::new();
    let server = Server::start(traces.path(), &["--no-nvml"]);
    let huge = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(1 << 20));
    assert!(!server.ask(&huge).contains(" 200 "));
    let many: String = (0..5000).map(|n| format!("X-{n}: y\r\n")).collect();
    assert!(
        !server
            .ask(&format!("GET /metrics HTTP/1.1\r\n{many}\r\n"))
            .contains(" 200 ")
    );
    assert!(!server.ask("\0\u{1}nonsense\r\n\r\n").contains(" 200 "));
    // Some that say nothing, some that never read, and still there is room.
    let mut others = Vec::new();
    for number in 0..40 {
        let mut stream = TcpStream::connect(server.address).expect("a connection");
        let text = if number % 2 == 0 {
            "GET /met"
        } else {
            "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
        };
        stream.write_all(text.as_bytes()).expect("written");
        others.push(stream);
    }
    server.scrape();
    // More than there is room for: some are closed, and then there is room again.
    for _ in 0..100 {
        others.extend(TcpStream::connect(server.address));
    }
    drop(others);
    let begun = Instant::now();
    while server.get("/metrics", "").0 != 200 {
        assert!(begun.elapsed() < HANGS, "there is no room any more");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(server.end(), Some(0));
}

#[test]
fn the_metrics_in_a_file() {
    let traces = Scratch::new();
    let held = Held::start(traces.path(), &[]);
    let file = traces.path().join("vramtrace.prom");
    let output = vramtrace_tests::vramtrace([
        "serve".as_ref(),
        "--no-nvml".as_ref(),
        "--once".as_ref(),
        "--textfile".as_ref(),
        file.as_os_str(),
        traces.path().as_os_str(),
    ]);
    assert!(output.status.success(), "{output:?}");
    let text = fs::read_to_string(&file).expect("the file");
    let line = text.lines().find(|line| {
        line.starts_with("vramtrace_live_bytes{") && line.contains("layer=\"device\"")
    });
    let line = line.unwrap_or_else(|| panic!("{text}"));
    assert!(
        line.contains(&format!("pid=\"{}\"", held.pid())) && line.ends_with(" 3145728"),
        "{line}"
    );
    assert!(text.contains("site=\"keeps held.c:8\""), "{text}");
    assert!(!text.contains("# EOF") && !text.contains(" info\n"));
}

#[test]
fn a_directory_that_is_not_there_is_said() {
    let output = vramtrace_tests::vramtrace(["serve", "/nowhere/at/all"]);
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("/nowhere/at/all") && said.contains("VRAMTRACE_OUTPUT"),
        "{said}"
    );
}

/// Python's parser is stricter than Prometheus's.
#[test]
fn another_parser_reads_it() {
    let Some(python) = std::env::var_os("VRAMTRACE_TEST_OPENMETRICS") else {
        let why =
            "VRAMTRACE_TEST_OPENMETRICS names no Python (scripts/check-monitoring brings one)";
        skip("an independent OpenMetrics parser", why);
        return;
    };
    let traces = Scratch::new();
    let held = Held::start(traces.path(), &[]);
    fs::write(traces.path().join("a\"}\\ 1\nb.vrt"), "<b>x").expect("a file");
    let server = Server::start(traces.path(), &["--no-nvml"]);
    let (_, _, text) = server.get("/metrics", "");
    let script = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
                  for family in parse(sys.stdin.read()):\n for one in family.samples: print(one.name, one.labels.get('pid'), one.labels.get('layer'), int(one.value))";
    let mut parser = Command::new(python)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let mut input = parser.stdin.take().expect("its input");
    input.write_all(text.as_bytes()).expect("written");
    drop(input);
    let output = parser.wait_with_output().expect("its end");
    assert!(output.status.success(), "{output:?}\n{text}");
    let said = String::from_utf8_lossy(&output.stdout);
    let wanted = format!("vramtrace_live_bytes {} device 3145728\n", held.pid());
    assert!(said.contains(&wanted), "{said}");
}
