//! Messages of Protocol Buffers, as bytes: all that a writer needs of that format. A field is a
//! number and a wire type in one varint, then its value
//! (<https://protobuf.dev/programming-guides/encoding/>).

/// Wire types.
const VARINT: u64 = 0;
const LENGTH: u64 = 2;

/// A message that is being put together.
#[derive(Clone, Debug, Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// An empty one.
    pub fn new() -> Message {
        Message::default()
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Makes it empty.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    #[inline]
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    #[inline]
    fn tag(&mut self, field: u32, wire: u64) {
        self.varint(u64::from(field) << 3 | wire);
    }

    /// A uint64, uint32, enum or bool; also an int64 that is not negative.
    #[inline]
    pub fn number(&mut self, field: u32, value: u64) -> &mut Message {
        self.tag(field, VARINT);
        self.varint(value);
        self
    }

    /// A string or bytes.
    pub fn text(&mut self, field: u32, value: impl AsRef<[u8]>) -> &mut Message {
        let value = value.as_ref();
        self.tag(field, LENGTH);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// A message within this one, written where it stands.
    #[inline]
    pub fn nested(&mut self, field: u32, write: impl FnOnce(&mut Message)) -> &mut Message {
        self.tag(field, LENGTH);
        let start = self.0.len();
        // Most are shorter than 128 bytes; the others make room for the rest of their length.
        self.0.push(0);
        write(self);
        let length = self.0.len() - start - 1;
        if length < 0x80 {
            self.0[start] = length as u8;
        } else {
            let mut head = Message::new();
            head.varint(length as u64);
            self.0.splice(start..=start, head.0);
        }
        self
    }

    /// A message within this one.
    pub fn message(&mut self, field: u32, value: &Message) -> &mut Message {
        self.text(field, &value.0)
    }

    /// Repeated numbers, packed.
    pub fn numbers(&mut self, field: u32, values: impl IntoIterator<Item = u64>) -> &mut Message {
        let mut packed = Message::new();
        values.into_iter().for_each(|value| packed.varint(value));
        self.message(field, &packed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_guide_s_own_examples() {
        // Test1 { a: 150 }, Test2 { b: "testing" }, Test3 { c: Test1 }, Test5 { f: [3, 270, 86942] }.
        assert_eq!(Message::new().number(1, 150).bytes(), [0x08, 0x96, 0x01]);
        let mut message = Message::new();
        message.text(2, "testing");
        assert_eq!(message.bytes(), b"\x12\x07testing");
        let mut message = Message::new();
        message.message(3, Message::new().number(1, 150));
        assert_eq!(message.bytes(), b"\x1a\x03\x08\x96\x01");
        let mut message = Message::new();
        message.numbers(6, [3, 270, 86942]);
        assert_eq!(message.bytes(), b"\x32\x06\x03\x8e\x02\x9e\xa7\x05");
    }

    #[test]
    fn messages_written_in_place_are_the_same() {
        for length in [0, 1, 127, 128, 129, 20_000] {
            let text = vec![b'a'; length];
            let mut inner = Message::new();
            inner.number(1, 5).text(2, &text);
            let (mut copied, mut in_place) = (Message::new(), Message::new());
            copied.message(7, &inner).number(8, 9);
            in_place
                .nested(7, |inner| {
                    inner.number(1, 5).text(2, &text);
                })
                .number(8, 9);
            assert_eq!(copied.bytes(), in_place.bytes());
        }
    }
}
