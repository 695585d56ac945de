//! Rows as text, put together from a few pieces that come again and again.

use super::{Cell, Spelled};

/// Most bytes of a piece that is copied without asking how many it has: more than most have, and as
/// cheap to copy as any fewer.
const WIDTH: usize = 32;
/// Bytes that are put together before they are handed on.
const BUFFER: usize = 1 << 16;

/// Text that is copied into many rows.
pub struct Piece {
    /// All of it, or its beginning; the rest is padding.
    short: [u8; WIDTH],
    /// All of it, if it is longer than that.
    long: Box<[u8]>,
    len: usize,
}

impl From<&[u8]> for Piece {
    fn from(text: &[u8]) -> Piece {
        let mut short = [0; WIDTH];
        let begin = &text[..text.len().min(WIDTH)];
        short[..begin.len()].copy_from_slice(begin);
        let is_long = text.len() > WIDTH;
        Piece {
            short,
            long: if is_long { text.into() } else { Box::default() },
            len: text.len(),
        }
    }
}

/// Lines that are being put together.
pub struct Lines {
    /// Behind `len` there is room.
    bytes: Vec<u8>,
    len: usize,
    /// A text that is being spelled.
    spelled: Vec<u8>,
}

impl Default for Lines {
    fn default() -> Lines {
        Lines {
            bytes: vec![0; BUFFER + BUFFER / 4],
            len: 0,
            spelled: Vec::new(),
        }
    }
}

impl Lines {
    /// Appends what is in a cell; nothing if that is not known.
    #[inline(always)]
    pub fn cell(&mut self, cell: &Cell<'_>, words: &Spelled) {
        match cell {
            Cell::Null => {}
            Cell::Number(number) => self.number(*number),
            Cell::Text(text) => {
                let mut spelled = std::mem::take(&mut self.spelled);
                spelled.clear();
                (words.spell)(text, &mut spelled);
                self.text(&spelled);
                self.spelled = spelled;
            }
            Cell::Word(word) => self.piece(words.get(*word)),
        }
    }

    /// Appends a piece.
    #[inline(always)]
    pub fn piece(&mut self, piece: &Piece) {
        match self.bytes.get_mut(self.len..self.len + WIDTH) {
            Some(room) if piece.len <= WIDTH => {
                room.copy_from_slice(&piece.short);
                self.len += piece.len;
            }
            _ if piece.len <= WIDTH => self.text(&piece.short[..piece.len]),
            _ => self.text(&piece.long),
        }
    }

    /// Appends text.
    #[inline]
    pub fn text(&mut self, text: &[u8]) {
        let end = self.len + text.len();
        if end > self.bytes.len() {
            self.bytes.resize(2 * end, 0);
        }
        self.bytes[self.len..end].copy_from_slice(text);
        self.len = end;
    }

    /// Appends a number in digits, which is most of what there is to write.
    #[inline]
    pub fn number(&mut self, number: u64) {
        self.text(itoa::Buffer::new().format(number).as_bytes());
    }

    /// Takes the last byte back.
    pub fn pop(&mut self) {
        self.len = self.len.saturating_sub(1);
    }

    /// Whether it is time to hand them on.
    #[inline]
    pub fn are_enough(&self) -> bool {
        self.len >= BUFFER
    }

    /// All of them; there are none afterwards.
    pub fn take(&mut self) -> &[u8] {
        &self.bytes[..std::mem::take(&mut self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_comes_out() {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        for n in 0..4_000u64 {
            let text: Vec<u8> = (0..n % 70).map(|at| b'a' + (at % 26) as u8).collect();
            lines.piece(&Piece::from(&text[..]));
            lines.number(n * n);
            lines.text(b"x\n");
            lines.pop();
            all.extend_from_slice(&text);
            all.extend_from_slice(format!("{}x", n * n).as_bytes());
            if n % 3_000 == 2_999 {
                assert!(lines.are_enough());
                assert_eq!(lines.take(), all);
                all.clear();
            }
        }
        assert!(!all.is_empty());
        assert_eq!(lines.take(), all);
        assert_eq!(lines.take(), b"");
    }

    #[test]
    fn numbers_in_digits() {
        for number in [0, 9, 10, 1_234_567, u64::MAX] {
            let mut lines = Lines::default();
            lines.number(number);
            assert_eq!(lines.take(), number.to_string().as_bytes());
        }
    }
}
