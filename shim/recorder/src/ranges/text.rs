//! Messages of ranges: how they are known again.

pub use vramtrace_format::ranges::{LONGEST, pattern};

/// The part of a message that counts.
#[inline]
pub fn cut(text: &[u8]) -> &[u8] {
    &text[..text.len().min(LONGEST)]
}

/// By what a text is known again: 64 bits, of which two texts of a process that differ are equal
/// about never. Not a defence against somebody who looks for such texts: it is their own report.
#[inline]
pub fn hash(seed: u64, text: &[u8]) -> u64 {
    let mut hash = fold(
        seed ^ 0x2545_f491_4f6c_dd1d,
        0x9e37_79b9_7f4a_7c15 ^ text.len() as u64,
    );
    let mut words = text.chunks_exact(8);
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
        hash = fold(hash ^ word, 0xd6e8_feb8_6659_fd93);
    }
    let mut last = 0;
    for (at, &byte) in words.remainder().iter().enumerate() {
        last |= u64::from(byte) << (8 * at);
    }
    fold(hash ^ last, 0xa076_1d64_78bd_642f)
}

/// Both halves of a product.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn texts_that_differ_are_told_apart() {
        let mut seen = HashSet::new();
        for n in 0..2000u32 {
            for text in [
                format!("{n}"),
                format!("step {n}"),
                format!("{n} of a longer name"),
                "x".repeat(n as usize % 300 + 20) + &n.to_string(),
            ] {
                assert!(seen.insert(hash(0, text.as_bytes())), "{text}");
                assert!(seen.insert(hash(1, text.as_bytes())), "{text}");
            }
        }
        for zeros in 0..40 {
            assert!(seen.insert(hash(0, &[0; 40][..zeros])));
        }
    }
}
