//! `vramtrace serve`: metrics of all traced processes of a directory.

use super::complain;
use crate::cli::exit;
use crate::launch::rundir;
use crate::live::{Live, Options};
use crate::serve::sampler::Sampler;
use crate::serve::{http, textfile};
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What the command takes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Metrics are at /metrics, a page for people at /, health at /healthz, profiles for \
                        Pyroscope and Parca at /debug/pprof/heap. docs/monitoring.md has the names, alert \
                        rules, a dashboard, and recipes for Kubernetes, systemd, torchrun and Slurm."
)]
pub struct Args {
    #[command(flatten)]
    followed: Followed,
    /// Address to listen on; anybody who reaches it can read names of programs and functions
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9744", value_parser = address, conflicts_with = "textfile")]
    listen: SocketAddr,
    /// How often the largest free block of each PyTorch process is looked for, by another process and
    /// when somebody asks for metrics; 0: never
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = crate::serve::time::parse)]
    largest_free: Duration,
    /// Don't listen; write the metrics to this file (*.prom), for node_exporter's textfile collector
    #[arg(long, value_name = "PATH")]
    textfile: Option<PathBuf>,
    /// How often the file is written
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = interval, requires = "textfile")]
    interval: Duration,
    /// Write the file once, and end
    #[arg(long, requires = "textfile")]
    once: bool,
}

/// Which processes are followed; `watch` takes the same.
#[derive(Debug, clap::Args)]
pub(crate) struct Followed {
    /// Directory of the traces, with those below it
    #[arg(value_name = "DIR", default_value_os_t = default_directory())]
    pub directory: PathBuf,
    /// Most processes that are told of
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    max_processes: u16,
    /// Call sites that are told of each process; 0: none
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=50))]
    sites: u8,
    /// How long the counters of a process are kept after its end
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = crate::serve::time::parse)]
    linger: Duration,
    /// How long a process without events is kept that cannot be seen from here
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = crate::serve::time::parse)]
    stale: Duration,
    /// Don't ask what nvidia-smi shows
    #[arg(long)]
    no_nvml: bool,
}

impl Followed {
    /// Opens the directory; `largest_free` is how often largest free blocks are looked for, if at all.
    pub fn open(&self, largest_free: Option<Duration>) -> Result<Live, i32> {
        let options = Options {
            most_processes: self.max_processes.into(),
            sites: self.sites.into(),
            linger: self.linger,
            stale: self.stale,
            nvml: !self.no_nvml,
            largest_free,
            ..Options::default()
        };
        Live::new(&self.directory, options).map_err(|error| {
            complain(&format!(
                "{}: {error}; name the directory that VRAMTRACE_OUTPUT puts traces into",
                self.directory.display()
            ));
            exit::UNREADABLE
        })
    }
}

/// Where `vramtrace run` keeps traces while programs run.
fn default_directory() -> PathBuf {
    let bases = rundir::bases(Path::new("."));
    let there = bases.iter().find(|base| base.is_dir()).or(bases.first());
    there.cloned().unwrap_or_else(|| PathBuf::from("."))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    // A port alone is one of this machine.
    let whole = match text.parse::<u16>() {
        Ok(port) => format!("127.0.0.1:{port}"),
        Err(_) => text.to_owned(),
    };
    let mut found = whole.to_socket_addrs().map_err(|error| {
        format!("{error}; accepted are HOST:PORT, [IPv6]:PORT, or a port of this machine")
    })?;
    found
        .next()
        .ok_or_else(|| "that name has no address".to_owned())
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = crate::serve::time::parse(text)?;
    if interval < Duration::from_millis(100) {
        return Err("less than 100ms would be all that is done".to_owned());
    }
    Ok(interval)
}

/// Serves; returns the exit code.
pub fn execute(args: Args) -> i32 {
    let often = Some(args.largest_free).filter(|often| !often.is_zero());
    let live = match args.followed.open(often) {
        Ok(live) => live,
        Err(code) => return code,
    };
    let served = match &args.textfile {
        Some(path) => write_files(live, path, args.interval, args.once),
        None => listen(live, args.listen),
    };
    match served {
        Ok(()) => exit::FINE,
        Err(why) => {
            complain(&why);
            exit::UNREADABLE
        }
    }
}

fn listen(live: Live, address: SocketAddr) -> Result<(), String> {
    let directory = live.directory().to_owned();
    let ready = |bound: SocketAddr| {
        let beyond = if bound.ip().is_loopback() {
            ""
        } else {
            "; it can be read by everybody who reaches this address"
        };
        let line = format!(
            "vramtrace: serving {} at http://{bound}/metrics{beyond}\n",
            crate::report::words::foreign(&directory.to_string_lossy())
        );
        let _ = io::stderr().write_all(line.as_bytes());
    };
    http::serve(address, Arc::new(Sampler::new(live)), ready)
        .map_err(|error| format!("{address}: {error}; --listen takes another address"))
}

fn write_files(mut live: Live, path: &Path, interval: Duration, once: bool) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(failed)?;
    runtime.block_on(async {
        let ended = http::ended().map_err(failed)?;
        tokio::pin!(ended);
        let mut first = true;
        loop {
            let mut sample = live.sample();
            // Names come a moment later; who writes once waits for them.
            for _ in 0..100 {
                if !(once && sample.naming) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                sample = live.sample();
            }
            match textfile::write(path, &Arc::new(sample)) {
                Ok(()) => first = false,
                // A wrong path is told at once; a full disk may be over the next time.
                Err(error) if first => return Err(failed(error)),
                Err(error) => complain(&failed(error)),
            }
            if once {
                return Ok(());
            }
            tokio::select! {
                () = &mut ended => break,
                () = tokio::time::sleep(interval) => {}
            }
        }
        // Nobody keeps it true any more.
        std::fs::remove_file(path).map_err(failed)
    })
}
