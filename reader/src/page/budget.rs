//! How much a page may hold: level of detail depends on screens, not on the number of events.

/// Limits of a page; what was left out because of one is said in the page.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Spans of time of each series at its finest.
    pub spans: usize,
    /// Parts of the whole time by which sums by stack are kept; a power of two.
    pub buckets: u32,
    /// Sums of a stack in one part of the time.
    pub cells: usize,
    /// Stacks that are told apart.
    pub keys: usize,
    /// Allocations that are drawn one by one in each part of the time.
    pub in_window: usize,
    /// Allocations that are drawn one by one, of all parts and layers.
    pub allocations: usize,
    /// Moments at which segments are drawn.
    pub moments: usize,
    /// Tiles of all maps of segments.
    pub tiles: usize,
    /// Live entries that are looked at for the maps of segments.
    pub entries: usize,
    /// Ranges and marks, each.
    pub lanes: usize,
    /// Groups of each table.
    pub groups: usize,
    /// Characters of a name.
    pub name: usize,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            spans: 16_384,
            buckets: 512,
            cells: 400_000,
            keys: 20_000,
            in_window: 128,
            allocations: 200_000,
            moments: 96,
            tiles: 300_000,
            entries: 12_000_000,
            lanes: 4_000,
            groups: 500,
            name: 2_000,
        }
    }
}

impl Budget {
    /// Spans of each of so many series.
    pub fn spans_of(&self, series: usize) -> usize {
        // As much for all of them as for four.
        let share = self.spans.saturating_mul(4) / series.max(4);
        share.clamp(self.spans.min(512), self.spans)
    }
}
