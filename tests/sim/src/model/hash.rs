//! A hash map for addresses: one multiplication, since nobody attacks a simulator.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map keyed by addresses, sizes or handles.
pub type Map<V> = HashMap<u64, V, BuildHasherDefault<Mix>>;

/// Multiplies and folds the high half down, where hashbrown looks for its tag bits.
#[derive(Default, Clone, Copy)]
pub struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(u64::from(b));
        }
    }

    fn write_u64(&mut self, n: u64) {
        let wide = u128::from(self.0 ^ n) * u128::from(0x9E37_79B9_7F4A_7C15u64);
        self.0 = (wide >> 64) as u64 ^ wide as u64;
    }
}

/// An empty map, in constants too.
pub const fn map<V>() -> Map<V> {
    HashMap::with_hasher(BuildHasherDefault::new())
}
