//! One sample at a time, however many ask for one.

use crate::live::{Live, Sample};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How old a sample may be that is given once more. Many who ask at once get the same.
const FRESH: Duration = Duration::from_millis(250);

/// Takes samples.
pub struct Sampler {
    live: Mutex<Live>,
    last: Mutex<Option<(Instant, Arc<Sample>)>>,
    directory: PathBuf,
}

impl Sampler {
    /// Of what is looked at.
    pub fn new(live: Live) -> Sampler {
        Sampler {
            directory: live.directory().to_owned(),
            live: Mutex::new(live),
            last: Mutex::new(None),
        }
    }

    /// The directory, as it was named.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A sample of now, or of a quarter of a second ago. Whoever comes while one is taken gets that.
    pub fn sample(&self) -> Arc<Sample> {
        if let Some(sample) = self.fresh() {
            return sample;
        }
        let mut live = locked(&self.live);
        if let Some(sample) = self.fresh() {
            return sample;
        }
        let sample = Arc::new(live.sample());
        *locked(&self.last) = Some((Instant::now(), Arc::clone(&sample)));
        sample
    }

    fn fresh(&self) -> Option<Arc<Sample>> {
        let last = locked(&self.last);
        let (at, sample) = last.as_ref()?;
        (at.elapsed() < FRESH).then(|| Arc::clone(sample))
    }

    /// Opens a trace that is followed.
    pub fn open(&self, trace: &Path) -> Option<io::Result<File>> {
        locked(&self.live).open(trace)
    }
}

/// A sample is whole or not there at all, whatever happened to a thread that held the lock.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
