//! What the environment says about the simulated machine. Read once, at the first driver call.
//!
//! The variables are documented in the crate's root module; this file is their parser. A value that
//! cannot be understood is reported on stderr once and replaced by the default: a simulated driver
//! that refuses to start would look like a bug of the program under test.

use std::sync::OnceLock;

/// The machine.
pub struct Config {
    /// Number of devices, 0 to 16.
    pub devices: usize,
    /// Bytes of memory of each device.
    pub memory: u64,
    /// Bytes that one context costs on its device before it allocates anything.
    pub context_bytes: u64,
    /// Bytes that one stream costs on its device.
    pub stream_bytes: u64,
    /// Calls that shall fail.
    pub failures: Vec<Failure>,
    /// Time that each call takes at least, in nanoseconds (busy wait).
    pub latency_ns: u64,
    /// Calls after `exit` began answer `CUDA_ERROR_DEINITIALIZED`.
    pub deinit_at_exit: bool,
    /// Write the name and result of each call to stderr.
    pub log: bool,
}

/// One rule of `VRAMTRACE_SIM_FAIL`.
pub struct Failure {
    /// Exact exported name, or `*` at the end for a prefix.
    pub name: String,
    /// Which of the calls fail, counted from 1 over the calls that the rule matches.
    pub when: When,
    /// The code to answer.
    pub code: u32,
    /// The failing call answers only after another thread's call of this function did.
    pub until: Option<String>,
}

/// Which calls of a rule fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// Exactly this call.
    Nth(u64),
    /// Every n-th call.
    Every(u64),
    /// This call and all later ones.
    From(u64),
}

impl Failure {
    /// Whether the rule is about this function.
    pub fn matches(&self, symbol: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(prefix) => symbol.starts_with(prefix),
            None => self.name == symbol,
        }
    }
}

const MIB: u64 = 1 << 20;
const DEFAULT_MEMORY: u64 = 8 << 30;

/// The configuration of this process.
pub fn get() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(read)
}

fn read() -> Config {
    let memory = var("VRAMTRACE_SIM_MEMORY", parse_bytes)
        .unwrap_or(DEFAULT_MEMORY)
        .max(32 * MIB);
    Config {
        devices: var("VRAMTRACE_SIM_DEVICES", |t| t.parse().ok())
            .unwrap_or(1)
            .min(16),
        // Whole 2 MiB pages, as a device has.
        memory: memory & !(2 * MIB - 1),
        context_bytes: var("VRAMTRACE_SIM_CONTEXT", parse_bytes)
            .unwrap_or((256 * MIB).min(memory / 8)),
        stream_bytes: var("VRAMTRACE_SIM_STREAM", parse_bytes).unwrap_or(0),
        failures: var("VRAMTRACE_SIM_FAIL", parse_failures).unwrap_or_default(),
        latency_ns: var("VRAMTRACE_SIM_LATENCY_NS", |t| t.parse().ok()).unwrap_or(0),
        deinit_at_exit: var("VRAMTRACE_SIM_EXIT", |t| match t {
            "deinit" => Some(true),
            "live" => Some(false),
            _ => None,
        })
        .unwrap_or(true),
        log: var("VRAMTRACE_SIM_LOG", |t| Some(t != "0")).unwrap_or(false),
    }
}

fn var<T>(name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
    let text = std::env::var(name).ok().filter(|t| !t.is_empty())?;
    let value = parse(&text);
    if value.is_none() {
        eprintln!("libcuda (simulated): {name}={text} not understood, default used");
    }
    value
}

/// `1073741824`, `64KiB`, `512MiB`, `80GiB`.
fn parse_bytes(text: &str) -> Option<u64> {
    let (digits, unit) = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1u64 << 30)]
        .into_iter()
        .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|d| (d, unit)))
        .unwrap_or((text, 1));
    digits.trim().parse::<u64>().ok()?.checked_mul(unit)
}

/// Rules separated by commas; each `name[:option]…` with the options `N`, `every=N`, `from=N`,
/// `code=C`, `until=NAME`. Without an option the first call fails; without a code it is out of memory.
fn parse_failures(text: &str) -> Option<Vec<Failure>> {
    text.split(',')
        .filter(|rule| !rule.trim().is_empty())
        .map(parse_failure)
        .collect()
}

fn parse_failure(rule: &str) -> Option<Failure> {
    let mut parts = rule.trim().split(':');
    let name = parts.next()?.to_owned();
    let (mut when, mut code, mut until) = (None, 2, None);
    for option in parts {
        let number = |t: &str| t.parse::<u64>().ok().filter(|&n| n > 0);
        match option.split_once('=') {
            None => when = Some(When::Nth(number(option)?)),
            Some(("every", n)) => when = Some(When::Every(number(n)?)),
            Some(("from", n)) => when = Some(When::From(number(n)?)),
            Some(("code", c)) => code = c.parse().ok()?,
            Some(("until", name)) => until = Some(name.to_owned()),
            Some(_) => return None,
        }
    }
    // A rule that names only a code means "always": that is what one writes it for.
    let default = if code == 2 {
        When::Nth(1)
    } else {
        When::From(1)
    };
    Some(Failure {
        name,
        when: when.unwrap_or(default),
        code,
        until,
    })
}
