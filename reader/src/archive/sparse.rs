//! Which bytes of a trace an archive keeps, and how tar is told: GNU's sparse format 1.0, a map in
//! decimal numbers before the bytes.

use crate::trace::Piece;
use std::fmt::Write;
use std::io::{self, BufRead};

/// Unit in which zeros are looked for.
const BLOCK: u64 = 4096;
/// Shorter runs of zeros are kept.
const HOLE: u64 = 4 * BLOCK;
/// Most pieces of one trace.
pub const MOST: usize = 1 << 20;
/// Most bytes of a map.
pub const LONGEST_MAP: u64 = 48 << 20;

/// What of `len` bytes is not zero, as `read` gives them; positions count from the first kept byte.
pub fn pieces(
    len: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<Vec<Piece>> {
    // In huge files only longer runs of zeros are left out, so that the map stays short.
    let hole = HOLE.max((len / (MOST as u64 / 2)).next_multiple_of(BLOCK));
    let mut pieces: Vec<Piece> = Vec::new();
    let mut buffer = vec![0; 256 * BLOCK as usize];
    let (mut at, mut position) = (0, 0);
    while at < len {
        let part = (buffer.len() as u64).min(len - at) as usize;
        let part = &mut buffer[..part];
        read(at, part)?;
        for block in part.chunks(BLOCK as usize) {
            let size = block.len() as u64;
            if block.iter().any(|&byte| byte != 0) {
                match pieces.last_mut() {
                    Some(last) if at - (last.at + last.len) < hole => {
                        position += at + size - (last.at + last.len);
                        last.len = at + size - last.at;
                    }
                    _ => {
                        pieces.push(Piece {
                            at,
                            len: size,
                            position,
                        });
                        position += size;
                    }
                }
            }
            at += size;
        }
    }
    Ok(pieces)
}

/// The map, filled up to whole blocks of tar.
pub fn map(len: u64, pieces: &[Piece]) -> Vec<u8> {
    let mut entries: Vec<(u64, u64)> = pieces.iter().map(|piece| (piece.at, piece.len)).collect();
    // An entry of nothing at the end tells tar how long the file is.
    if entries.last().is_none_or(|(at, size)| at + size < len) {
        entries.push((len, 0));
    }
    let mut text = format!("{}\n", entries.len());
    for (at, size) in entries {
        let _ = write!(text, "{at}\n{size}\n");
    }
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// Reads the map of a trace with `len` bytes from a member with `size` bytes that begins at `start`
/// in the archive; a sentence about it if it makes no sense.
pub fn parse(
    mut from: impl BufRead,
    start: u64,
    size: u64,
    len: u64,
) -> Result<Vec<Piece>, String> {
    let mut used = 0u64;
    let mut number = || -> Result<u64, String> {
        let mut line = Vec::new();
        // 20 digits are the most that a number has.
        io::Read::take(&mut from, 24)
            .read_until(b'\n', &mut line)
            .map_err(|why| format!("its map cannot be read: {why}"))?;
        used += line.len() as u64;
        if used > LONGEST_MAP.min(size) {
            return Err("its map is longer than it can be".to_owned());
        }
        let text = line.strip_suffix(b"\n").unwrap_or_default();
        let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(text).ok().filter(|_| digits);
        text.and_then(|text| text.parse().ok())
            .ok_or_else(|| "its map has something else than numbers".to_owned())
    };
    let count = number()?;
    if count > MOST as u64 {
        return Err(format!("its map has {count} pieces; {MOST} are the most"));
    }
    let mut pieces = Vec::new();
    let (mut end, mut position) = (0u64, 0u64);
    for _ in 0..count {
        let (at, size) = (number()?, number()?);
        let after = at.checked_add(size).filter(|&after| after <= len);
        let Some(after) = after.filter(|_| at >= end) else {
            return Err(format!(
                "its map has a piece at {at} with {size} bytes, which overlaps another one or lies \
                 outside its {len} bytes"
            ));
        };
        if size > 0 {
            pieces.push(Piece {
                at,
                len: size,
                position,
            });
        }
        end = after;
        position += size;
    }
    let map = used.next_multiple_of(512);
    if map.saturating_add(position) > size {
        return Err(format!(
            "its map speaks of {position} bytes, more than the member's {size}"
        ));
    }
    for piece in &mut pieces {
        piece.position += start + map;
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes with runs of zeros.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec((0u8..3, 1usize..20_000), 0..12).prop_map(|runs| {
            let run = |(byte, count): (u8, usize)| std::iter::repeat_n(byte, count);
            runs.into_iter().flat_map(run).collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_kept_is_everything_but_zeros(bytes in bytes()) {
            let len = bytes.len() as u64;
            let pieces = pieces(len, |at, into| {
                into.copy_from_slice(&bytes[at as usize..][..into.len()]);
                Ok(())
            })
            .unwrap();
            let mut member = map(len, &pieces);
            prop_assert_eq!(member.len() % 512, 0);
            for piece in &pieces {
                member.extend_from_slice(&bytes[piece.at as usize..][..piece.len as usize]);
            }
            let found = parse(&member[..], 0, member.len() as u64, len).unwrap();
            let mut back = vec![0; bytes.len()];
            for piece in found {
                let (at, from, size) = (piece.at as usize, piece.position as usize, piece.len as usize);
                back[at..at + size].copy_from_slice(&member[from..from + size]);
            }
            prop_assert_eq!(back, bytes);
        }

        #[test]
        fn whatever_a_map_says_pieces_lie_inside(text in "[0-9\n]{0,200}", size: u32, len: u32) {
            let (size, len) = (u64::from(size), u64::from(len));
            if let Ok(pieces) = parse(text.as_bytes(), 1024, size, len) {
                let mut end = 0;
                for piece in pieces {
                    prop_assert!(piece.at >= end && piece.at + piece.len <= len);
                    prop_assert!(piece.position >= 1024 && piece.position + piece.len <= 1024 + size);
                    end = piece.at + piece.len;
                }
            }
        }
    }
}
