//! Answers, as pure functions from the model to result structs. No input, no output, no clock.

pub mod check;
pub mod churn;
pub mod diff;
pub mod estimate;
pub mod fragmentation;
pub mod given_back;
pub mod growth;
pub mod head;
pub mod leaks;
pub mod lifetimes;
pub mod moment;
pub mod oom;
pub mod peak;
pub mod ranges;
pub mod ranks;
pub mod reconcile;
pub mod slices;
pub mod summary;
pub mod timeline;
pub mod usage;
pub mod view;

use vramtrace_format::record::{Kind, Layer, NO_DEVICE};

/// Bytes and how many allocations they are in. Additions stop at the largest number: a damaged
/// file may say anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sum {
    /// Bytes asked for.
    pub bytes: u64,
    /// Allocations.
    pub count: u64,
}

impl Sum {
    /// Adds bytes in so many allocations.
    pub fn add(&mut self, bytes: u64, count: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.count = self.count.saturating_add(count);
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: Sum) {
        self.add(other.bytes, other.count);
    }
}

/// Adds bytes up, as [`Sum`] does.
pub fn added(bytes: impl IntoIterator<Item = u64>) -> u64 {
    bytes.into_iter().fold(0, u64::saturating_add)
}

/// What an answer is limited to; an empty list means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Device ordinals.
    pub devices: Vec<u8>,
    /// Layers.
    pub layers: Vec<Layer>,
    /// Kinds.
    pub kinds: Vec<Kind>,
}

impl Filter {
    /// Whether memory of a kind on a device is asked about.
    pub fn takes(&self, device: u8, kind: Kind) -> bool {
        self.takes_account((device != NO_DEVICE).then_some(device), kind.layer())
            && (self.kinds.is_empty() || self.kinds.contains(&kind))
    }

    /// Whether an account is asked about.
    pub fn takes_account(&self, device: Option<u8>, layer: Layer) -> bool {
        let device = match device {
            _ if self.devices.is_empty() => true,
            Some(device) => self.devices.contains(&device),
            None => false,
        };
        device && (self.layers.is_empty() || self.layers.contains(&layer))
    }
}
