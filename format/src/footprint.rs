//! What the driver took on each device for the process itself, without anybody having allocated it:
//! contexts, device code, limits. No call names these bytes; they are how much less memory was free
//! after a call than before it (cuMemGetInfo).

use crate::account::MAX_DEVICES;
use bytemuck::{Pod, Zeroable};

/// Rows of the section: one a device, as accounts have them.
pub const FOOTPRINT_ROWS: usize = MAX_DEVICES;

/// The driver's own memory on one device, since the process's first context there; it begins anew when
/// another is made after all were gone. Every word is stored whole and none depends on another, so
/// that a kill between two of them leaves no harm. Growths wrap: they may be negative.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Footprint {
    /// Used bytes of the device (total less free, of all processes), when this process's first context
    /// was there and nothing had been allocated in it. 0: not measured.
    pub used_at_start: u64,
    /// When, event time.
    pub measured_at: u64,
    /// Bytes of memory that the device has.
    pub total: u64,
    /// Growth by further contexts.
    pub contexts: u64,
    /// Growth by modules that were loaded, less what unloading gave back, and by functions when they
    /// were used first.
    pub code: u64,
    /// Growth by limits (stacks, heap and buffers of kernels).
    pub limits: u64,
    /// Growth by streams when they were made (PyTorch's 32 take 70 MiB on an H100, driver 580), less
    /// what came back when they were destroyed.
    pub streams: u64,
    /// Calls that growth was measured around.
    pub measured: u64,
    /// Calls around which it was not, because other memory of this process changed meanwhile.
    pub unmeasured: u64,
    /// Room for later sums; 0.
    pub reserved: [u64; 7],
}

const _: () = assert!(size_of::<Footprint>() == 128);

/// What growth belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A context after the first.
    Context,
    /// Device code.
    Code,
    /// A limit.
    Limit,
    /// Streams.
    Stream,
}

impl Footprint {
    /// Counts a measured growth, in bytes, negative where memory came back.
    pub fn grew(&mut self, part: Part, bytes: i64) {
        let sum = match part {
            Part::Context => &mut self.contexts,
            Part::Code => &mut self.code,
            Part::Limit => &mut self.limits,
            Part::Stream => &mut self.streams,
        };
        *sum = sum.wrapping_add_signed(bytes);
        self.measured = self.measured.wrapping_add(1);
    }

    /// All growth since the first context, bytes.
    pub fn growth(&self) -> i64 {
        self.contexts
            .wrapping_add(self.code)
            .wrapping_add(self.limits)
            .wrapping_add(self.streams) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_adds_up() {
        let mut footprint = Footprint::default();
        footprint.grew(Part::Code, 100);
        footprint.grew(Part::Code, -140);
        footprint.grew(Part::Context, 7);
        footprint.grew(Part::Limit, 1000);
        footprint.grew(Part::Stream, 3);
        assert_eq!(footprint.code as i64, -40);
        assert_eq!((footprint.growth(), footprint.measured), (970, 5));
    }
}
