//! The files in docs/monitoring: are the names in them those that are served? And, with a real
//! Prometheus ($VRAMTRACE_TEST_PROMETHEUS is the directory of `prometheus` and `promtool`), do the
//! rules do what they are for?

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use vramtrace_tests::serving::{HANGS, Held, Server};
use vramtrace_tests::{Scratch, repository, skip};

fn file(name: &str) -> String {
    let path = repository().join("docs/monitoring").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn dashboard() -> Value {
    serde_json::from_str(&file("grafana-dashboard.json")).expect("JSON")
}

/// All questions of the dashboard, as Grafana would ask them.
fn questions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().expect("targets"));
    targets
        .map(|target| {
            let expr = target["expr"].as_str().expect("an expression");
            let filled = [
                ("$__rate_interval", "1m"),
                ("$instance", ".*"),
                ("$program", ".*"),
            ];
            filled
                .iter()
                .fold(expr.to_owned(), |text, (from, to)| text.replace(from, to))
        })
        .collect()
}

/// Names that look like metrics of ours.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words
        .filter(|word| word.starts_with("vramtrace_") || word.contains(":vramtrace_"))
        .map(str::to_owned)
        .collect()
}

/// What is served, whether or not a program has it now.
fn served(exposition: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for line in exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
    {
        let (name, kind) = line.split_once(' ').expect("a type");
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        all.insert(format!("{name}{suffix}"));
    }
    all
}

#[test]
fn rules_dashboard_and_manual_name_what_is_served() {
    let traces = Scratch::new();
    let server = Server::start(traces.path(), &["--no-nvml"]);
    let (_, _, exposition) = server.get("/metrics", "");
    let served = served(&exposition);
    assert!(served.len() > 40);
    let rules = file("rules.yml");
    let recorded: BTreeSet<String> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- record: "))
        .map(str::to_owned)
        .collect();
    let dashboard = dashboard();
    for (of, text) in [
        ("rules.yml", rules.clone()),
        ("the dashboard", questions(&dashboard).join("\n")),
    ] {
        let known = |name: &String| served.contains(name) || recorded.contains(name);
        let unknown: Vec<String> = names(&text)
            .into_iter()
            .filter(|name| !known(name))
            .collect();
        assert!(unknown.is_empty(), "{of}: {unknown:?}");
    }
    // All that is served is in the manual.
    let manual = fs::read_to_string(repository().join("docs/monitoring.md")).expect("the manual");
    let missing: Vec<&String> = served
        .iter()
        .filter(|name| !manual.contains(&format!("`{name}`")))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/monitoring.md does not have {missing:?}"
    );
}

#[test]
fn the_dashboard_has_the_form_that_grafana_wants() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64() >= Some(36) && dashboard["uid"].is_string());
    let variables: BTreeSet<&str> = dashboard["templating"]["list"]
        .as_array()
        .expect("variables")
        .iter()
        .map(|variable| variable["name"].as_str().expect("a name"))
        .collect();
    let mut ids = BTreeSet::new();
    let mut places: Vec<[u64; 4]> = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        assert!(
            ids.insert(panel["id"].as_u64().expect("an id")),
            "{panel:#}"
        );
        assert!(
            panel["title"]
                .as_str()
                .is_some_and(|title| !title.is_empty())
        );
        assert!(["timeseries", "table"].contains(&panel["type"].as_str().expect("a type")));
        let place =
            ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a number"));
        let [x, y, w, h] = place;
        assert!(w > 0 && h > 0 && x + w <= 24, "{panel:#}");
        for [ox, oy, ow, oh] in &places {
            let apart = x + w <= *ox || ox + ow <= x || y + h <= *oy || oy + oh <= y;
            assert!(apart, "panels lie on each other: {panel:#}");
        }
        places.push(place);
        let mut references = BTreeSet::new();
        for target in panel["targets"].as_array().expect("targets") {
            assert!(references.insert(target["refId"].as_str().expect("a name")));
            assert_eq!(target["datasource"]["uid"], "${datasource}");
            let expr = target["expr"].as_str().expect("an expression");
            for word in expr.split('$').skip(1) {
                let name: String = word
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                assert!(
                    name == "__rate_interval" || variables.contains(name.as_str()),
                    "{expr}"
                );
            }
        }
    }
}

/// Where a real Prometheus is, if it is.
fn tools(what: &str) -> Option<PathBuf> {
    let tools = std::env::var_os("VRAMTRACE_TEST_PROMETHEUS").map(PathBuf::from);
    if tools.is_none() {
        skip(
            what,
            "VRAMTRACE_TEST_PROMETHEUS names no Prometheus (scripts/check-monitoring brings one)",
        );
    }
    tools
}

fn promtool(
    tools: &Path,
    arguments: &[&str],
    directory: &Path,
    input: &str,
) -> (Option<i32>, String) {
    let mut child = Command::new(tools.join("promtool"))
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut stdin = child.stdin.take().expect("its input");
    // One that does not read its input closes it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said.into_owned())
}

#[test]
fn promtool_accepts_rules_dashboard_and_metrics() {
    let Some(tools) = tools("promtool") else {
        return;
    };
    let folder = repository().join("docs/monitoring");
    for arguments in [
        ["check", "rules", "rules.yml"],
        ["test", "rules", "rules-test.yml"],
    ] {
        let (code, said) = promtool(&tools, &arguments, &folder, "");
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
    }
    let scratch = Scratch::new();
    let rules: Vec<Value> = questions(&dashboard())
        .into_iter()
        .enumerate()
        .map(
            |(number, expr)| serde_json::json!({"record": format!("panel:{number}"), "expr": expr}),
        )
        .collect();
    let rules = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    // JSON is YAML.
    fs::write(scratch.path().join("d.yml"), rules.to_string()).expect("a file");
    let (code, said) = promtool(&tools, &["check", "rules", "d.yml"], scratch.path(), "");
    assert_eq!(code, Some(0), "{said}");

    let _held = Held::start(scratch.path(), &[]);
    let server = Server::start(scratch.path(), &["--no-nvml"]);
    let (_, _, text) = server.get("/metrics", "Accept: text/plain\r\n");
    let (code, said) = promtool(&tools, &["check", "metrics"], scratch.path(), &text);
    assert_eq!(code, Some(0), "{said}");
}

/// A Prometheus of a test's own.
struct Prometheus {
    child: Child,
    port: u16,
}

impl Prometheus {
    fn start(tools: &Path, home: &Path, config: &str) -> Prometheus {
        fs::write(home.join("prometheus.yml"), config).expect("a file");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.expect("a port that is free again").port();
        let log = fs::File::create(home.join("log")).expect("a file");
        let child = Command::new(tools.join("prometheus"))
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus starts");
        Prometheus { child, port }
    }

    fn get(&self, path: &str) -> Value {
        let answer = TcpStream::connect(("127.0.0.1", self.port)).and_then(|mut stream| {
            stream.set_read_timeout(Some(HANGS))?;
            write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        });
        let answer = answer.unwrap_or_default();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).unwrap_or_default()
    }

    /// Asks until it says so.
    fn until(&self, path: &str, says: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let answer = self.get(path);
            if says(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < 2 * HANGS, "{path}: {answer:#}");
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_leak_raises_the_alerts_in_a_real_prometheus() {
    let Some(tools) = tools("a leak in a real Prometheus") else {
        return;
    };
    let (traces, home) = (Scratch::new(), Scratch::new());
    // 4 MiB every 100 ms on a device of 8 GiB.
    let held = Held::start(traces.path(), &["leak", "4194304", "100"]);
    let server = Server::start(traces.path(), &["--no-nvml"]);
    // The same rules, for somebody with less time.
    let rules = file("rules.yml")
        .replace("[1h]", "[5s]")
        .replace("offset 1h", "offset 3s")
        .replace("[10m]", "[1m]")
        .replace("[15m]", "[1m]");
    let quick: String = rules
        .lines()
        .map(|line| if line.trim().starts_with("for: ") { "        for: 0s".to_owned() } else { line.to_owned() } + "\n")
        .collect();
    assert!(quick.contains("[5s]") && quick.contains("for: 0s"));
    fs::write(home.path().join("rules.yml"), quick).expect("a file");
    let config = format!(
        "global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}\nrule_files: [rules.yml]\n\
         scrape_configs: [{{job_name: vramtrace, static_configs: [{{targets: ['{}']}}]}}]\n",
        server.address
    );
    let (code, said) = promtool(
        &tools,
        &["check", "config", "--syntax-only", "/dev/stdin"],
        home.path(),
        &config,
    );
    assert_eq!(code, Some(0), "{said}");
    let prometheus = Prometheus::start(&tools, home.path(), &config);
    prometheus.until("/api/v1/targets", |answer| {
        let target = &answer["data"]["activeTargets"][0];
        assert!(
            target["lastError"].as_str().is_none_or(str::is_empty) || target["health"] != "down",
            "{target:#}"
        );
        target["health"] == "up"
    });
    let pid = held.pid();
    for alert in ["VramtraceGpuMemoryFullSoon", "VramtraceSteadyGrowth"] {
        let found = prometheus.until("/api/v1/alerts", |answer| {
            let alerts = answer["data"]["alerts"].as_array();
            alerts.is_some_and(|all| {
                all.iter()
                    .any(|one| one["labels"]["alertname"] == alert && one["state"] == "firing")
            })
        });
        if alert == "VramtraceSteadyGrowth" {
            let alerts = found["data"]["alerts"].as_array().expect("alerts");
            assert!(
                alerts
                    .iter()
                    .any(|one| one["labels"]["pid"] == pid.as_str()),
                "{found:#}"
            );
        }
    }
    let failures = prometheus
        .get("/api/v1/query?query=vramtrace_allocation_failures_total%7Blayer%3D%22device%22%7D");
    assert_eq!(
        failures["data"]["result"][0]["value"][1], "1",
        "{failures:#}"
    );
    // It is killed; its memory goes, and nothing says that the exporter is absent.
    drop(held);
    prometheus.until(
        "/api/v1/query?query=count(vramtrace_live_bytes)",
        |answer| {
            answer["data"]["result"]
                .as_array()
                .is_some_and(Vec::is_empty)
        },
    );
    let alerts = prometheus.get("/api/v1/alerts");
    let absent = |one: &Value| one["labels"]["alertname"] == "VramtraceAbsent";
    assert!(
        !alerts["data"]["alerts"]
            .as_array()
            .expect("alerts")
            .iter()
            .any(absent)
    );
}
