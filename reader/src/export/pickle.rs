//! Python's pickle format, protocol 4: as much of it as the viewers of memory snapshots read, which
//! have unpicklers of their own. Integers are `K`, `M`, `J` or `LONG1` of at most eight bytes, text is
//! short or `BINUNICODE`; lists grow in batches, as Python's own writer does it.

use std::io::{self, Write};

const PROTO: &[u8] = b"\x80\x04";
const MARK: &[u8] = b"(";
const EMPTY_DICT: &[u8] = b"}";
const SETITEMS: &[u8] = b"u";
const EMPTY_LIST: &[u8] = b"]";
const APPENDS: &[u8] = b"e";
const TUPLE2: &[u8] = b"\x86";
const TRUE: &[u8] = b"\x88";
const FALSE: &[u8] = b"\x89";
const MEMOIZE: &[u8] = b"\x94";
const STOP: &[u8] = b".";

/// Items of a list that are on the reader's stack at once.
const BATCH: u32 = 1000;

/// Something that was written once and can be referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memo(u32);

/// Writes one value, part by part.
pub struct Pickle<'w> {
    out: &'w mut dyn Write,
    memos: u32,
}

impl<'w> Pickle<'w> {
    /// Begins.
    pub fn new(out: &'w mut dyn Write) -> io::Result<Pickle<'w>> {
        out.write_all(PROTO)?;
        Ok(Pickle { out, memos: 0 })
    }

    /// The value is complete.
    pub fn stop(self) -> io::Result<()> {
        self.out.write_all(STOP)
    }

    /// A number. Those above what a signed number of eight bytes holds are cut off there.
    pub fn number(&mut self, number: u64) -> io::Result<()> {
        let (bytes, length) = digits(number);
        self.out.write_all(&bytes[..length])
    }

    /// What was written by [`Encoded`].
    pub fn encoded(&mut self, encoded: &Encoded) -> io::Result<()> {
        self.out.write_all(&encoded.0)
    }

    /// True or false.
    pub fn truth(&mut self, truth: bool) -> io::Result<()> {
        self.out.write_all(if truth { TRUE } else { FALSE })
    }

    /// Text.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        match u8::try_from(text.len()) {
            Ok(length) => self.out.write_all(&[0x8c, length])?,
            Err(_) => {
                let length = u32::try_from(text.len()).map_err(io::Error::other)?;
                self.out.write_all(b"X")?;
                self.out.write_all(&length.to_le_bytes())?;
            }
        }
        self.out.write_all(text.as_bytes())
    }

    /// Remembers what was written last.
    pub fn remember(&mut self) -> io::Result<Memo> {
        self.out.write_all(MEMOIZE)?;
        self.memos += 1;
        Ok(Memo(self.memos - 1))
    }

    /// The same again.
    pub fn again(&mut self, memo: Memo) -> io::Result<()> {
        let (bytes, length) = reference(memo);
        self.out.write_all(&bytes[..length])
    }

    /// A pair of the two values written last.
    pub fn pair(&mut self) -> io::Result<()> {
        self.out.write_all(TUPLE2)
    }

    /// A dictionary; until [`Pickle::end_dict`], keys and values follow in turn.
    pub fn dict(&mut self) -> io::Result<()> {
        self.out.write_all(EMPTY_DICT)?;
        self.out.write_all(MARK)
    }

    /// Its end.
    pub fn end_dict(&mut self) -> io::Result<()> {
        self.out.write_all(SETITEMS)
    }

    /// A list; before each item stands [`List::item`].
    pub fn list(&mut self) -> io::Result<List> {
        self.out.write_all(EMPTY_LIST)?;
        self.out.write_all(MARK)?;
        Ok(List(0))
    }
}

/// A list that is being written.
pub struct List(u32);

impl List {
    /// An item follows.
    pub fn item(&mut self, pickle: &mut Pickle<'_>) -> io::Result<()> {
        if self.0 == BATCH {
            pickle.out.write_all(APPENDS)?;
            pickle.out.write_all(MARK)?;
            self.0 = 0;
        }
        self.0 += 1;
        Ok(())
    }

    /// Its end.
    pub fn end(self, pickle: &mut Pickle<'_>) -> io::Result<()> {
        pickle.out.write_all(APPENDS)
    }
}

/// A number as it is written, and how many bytes that are.
fn digits(number: u64) -> ([u8; 10], usize) {
    let bytes = number.min(i64::MAX as u64).to_le_bytes();
    let mut all = [0; 10];
    let (head, length): (&[u8], usize) = match number {
        0..=0xff => (b"K", 1),
        0x100..=0xffff => (b"M", 2),
        0x1_0000..=0x7fff_ffff => (b"J", 4),
        _ => (b"\x8a\x08", 8),
    };
    let end = head.len() + length;
    all[..head.len()].copy_from_slice(head);
    all[head.len()..end].copy_from_slice(&bytes[..length]);
    (all, end)
}

/// A reference to something, and how many bytes that is.
fn reference(memo: Memo) -> ([u8; 5], usize) {
    let [a, b, c, d] = memo.0.to_le_bytes();
    match memo.0 {
        0..=0xff => ([b'h', a, 0, 0, 0], 2),
        _ => ([b'j', a, b, c, d], 5),
    }
}

/// Parts of a value that are put together before they are written: what comes millions of times with other
/// numbers in it.
#[derive(Clone, Debug, Default)]
pub struct Encoded(Vec<u8>);

impl Encoded {
    /// Makes it empty.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// As [`Pickle::dict`].
    pub fn dict(&mut self) {
        self.0.extend_from_slice(EMPTY_DICT);
        self.0.extend_from_slice(MARK);
    }

    /// As [`Pickle::end_dict`].
    pub fn end_dict(&mut self) {
        self.0.extend_from_slice(SETITEMS);
    }

    /// As [`Pickle::number`].
    #[inline]
    pub fn number(&mut self, number: u64) {
        let (bytes, length) = digits(number);
        self.0.extend_from_slice(&bytes[..length]);
    }

    /// As [`Pickle::again`].
    #[inline]
    pub fn again(&mut self, memo: Memo) {
        let (bytes, length) = reference(memo);
        self.0.extend_from_slice(&bytes[..length]);
    }

    /// Another one.
    #[inline]
    pub fn append(&mut self, other: &Encoded) {
        self.0.extend_from_slice(&other.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_what_is_written_at_once() {
        for number in [
            0,
            0xff,
            0x100,
            0xffff,
            0x1_0000,
            0x7fff_ffff,
            0x8000_0000,
            u64::MAX,
        ] {
            let memo = Memo(number as u32);
            let mut out = Vec::new();
            let mut pickle = Pickle::new(&mut out).unwrap();
            pickle.dict().unwrap();
            pickle.number(number).unwrap();
            pickle.again(memo).unwrap();
            pickle.end_dict().unwrap();
            let mut encoded = Encoded::default();
            encoded.dict();
            encoded.number(number);
            encoded.again(memo);
            encoded.end_dict();
            assert_eq!(out[PROTO.len()..], encoded.0);
        }
    }
}
