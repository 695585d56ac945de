//! Puts what nvidia-smi showed of a process into its trace, once it has ended.

use super::head::Head;
use super::sampler::OfTrace;
use crate::model::DeviceUse;
use crate::nvml::series::Series;
use crate::trace::{Refusal, append};
use std::path::Path;
use vramtrace_format::cold::Cold;

/// Adds the samples of all devices to a trace; fewer of them, spread over the same time, where it
/// has not enough room. Its process has ended, which is made sure of once more.
pub fn keep(path: &Path, mut samples: OfTrace) -> Result<(), Refusal> {
    let head = Head::read(path)?;
    if head.is_none_or(|head| head.identity.runs()) {
        return Err(Refusal::Damaged("its process still runs".into()));
    }
    samples.retain(|_, series| !series.is_empty());
    if samples.is_empty() {
        return Ok(());
    }
    loop {
        let records: Vec<Cold> = samples
            .iter()
            .flat_map(|(&device, series)| {
                DeviceUse::records(device, &series.uuid, &series.samples())
            })
            .map(Cold::DeviceUse)
            .collect();
        match append(path, &records) {
            Err(Refusal::NoRoom) => {
                let thinned = samples.values_mut().map(Series::thin);
                // Every one, not only the first that can be.
                if !thinned.fold(false, |any, one| any | one) {
                    return Err(Refusal::NoRoom);
                }
            }
            other => return other,
        }
    }
}
