//! Traces of runs that were killed: nobody is left to bring them to their places, so the next run
//! does. What still runs, and what another pid namespace wrote, stays where it is and can be read
//! there.

use super::collect::{Collector, Found, Outcome, scan};
use super::liveness;
use super::rundir::RunDir;
use super::session::discard;
use super::transfer::Existing;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Moves what runs left that were killed, and says so. `output` is the directory that traces of
/// this run end up in. What goes wrong here is no reason not to run a program.
pub fn collect(output: &Path, say: &dyn Fn(&str)) {
    for left in RunDir::abandoned(output) {
        let mut collector = Collector::new(Existing::Keep, output.to_owned());
        for found in scan(left.path()).unwrap_or_default() {
            if !may_move(&found) {
                continue;
            }
            let name = found.head.as_ref().map(|head| head.name.clone());
            let name = name.unwrap_or_default();
            match collector.place(found) {
                Some(Outcome::Moved { path, .. }) => say(&format!(
                    "the trace of {name} from an earlier run, which was killed, is now {}",
                    path.display()
                )),
                Some(Outcome::Stuck {
                    path,
                    wanted,
                    error,
                }) => say(&format!(
                    "cannot move the trace of {name} from an earlier run, which was killed, to {}: \
                     {error}; it stays at {}",
                    wanted.display(),
                    path.display()
                )),
                _ => {}
            }
        }
        if !liveness::anybody_has("VRAMTRACE_RUN_DIR", left.path().as_os_str().as_bytes()) {
            discard(&left);
        }
    }
}

/// Whether its process is known to have ended, and its place is still there.
fn may_move(found: &Found) -> bool {
    found.head.as_ref().is_none_or(|head| {
        let place = head.final_path.as_deref().and_then(Path::parent);
        head.identity.is_near() && !head.identity.runs() && place.is_none_or(Path::is_dir)
    })
}
