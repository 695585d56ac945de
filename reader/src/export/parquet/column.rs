//! One column of a row group, as the bytes that stand for it in the file.
//!
//! Numbers are left to the `parquet` crate. Text is encoded here: the crate would hash each value to find its
//! place in the dictionary, though it is a number already. A column of text is one dictionary page, with the
//! texts that the row group has, and one data page of places in it
//! (<https://parquet.apache.org/docs/file-format/data-pages/encodings/>).

use crate::export::tables::{Word, Words};
use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::{ColumnCloseResult, get_column_writer, get_typed_column_writer};
use parquet::data_type::{ByteArray, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::properties::WriterPropertiesPtr;
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

/// No text.
const NONE: Word = Word::MAX;
/// Values of a run of packed numbers: 63 groups of eight, whose number takes one byte, as other writers have it.
const RUN: usize = 63 * 8;
/// Statistics have the least and the greatest text only if they are not longer.
const SHORT: usize = 64;

/// The values of a column.
pub enum Values {
    /// Numbers; nulls are left out.
    Numbers(Vec<i64>),
    /// The second shape of the moments in the column before.
    Micros(Vec<i64>),
    /// Texts by number; [`NONE`] are nulls.
    Words(Vec<Word>),
}

/// A column that is being collected.
pub struct Column {
    /// Its values.
    pub values: Values,
    /// Of numbers: for each row whether it has one.
    levels: Vec<i16>,
}

impl Column {
    /// Of numbers.
    pub fn numbers() -> Column {
        Column::of(Values::Numbers(Vec::new()))
    }

    /// Of moments.
    pub fn micros() -> Column {
        Column::of(Values::Micros(Vec::new()))
    }

    /// Of texts.
    pub fn words() -> Column {
        Column::of(Values::Words(Vec::new()))
    }

    fn of(values: Values) -> Column {
        Column {
            values,
            levels: Vec::new(),
        }
    }

    /// A row has none.
    #[inline]
    pub fn null(&mut self) {
        match &mut self.values {
            Values::Words(words) => words.push(NONE),
            _ => self.levels.push(0),
        }
    }

    /// A row has this number.
    #[inline]
    pub fn number(&mut self, number: i64) {
        if let Values::Numbers(numbers) | Values::Micros(numbers) = &mut self.values {
            numbers.push(number);
            self.levels.push(1);
        }
    }

    /// A row has this text.
    #[inline]
    pub fn word(&mut self, word: Word) {
        if let Values::Words(words) = &mut self.values {
            words.push(word);
        }
    }

    /// Has no rows any more.
    pub fn clear(&mut self) {
        self.levels.clear();
        match &mut self.values {
            Values::Numbers(numbers) | Values::Micros(numbers) => numbers.clear(),
            Values::Words(words) => words.clear(),
        }
    }
}

/// A column as it stands in a file.
pub struct Encoded {
    /// Its pages.
    pub bytes: Bytes,
    /// What the file's end says of them.
    pub closed: ColumnCloseResult,
}

/// Encodes columns.
pub struct Encoder {
    /// By word: its place in the dictionary of the column at hand, or [`NONE`].
    places: Vec<u32>,
    snappy: snap::raw::Encoder,
}

impl Encoder {
    /// Nothing is encoded yet.
    pub fn new() -> Encoder {
        Encoder {
            places: Vec::new(),
            snappy: snap::raw::Encoder::new(),
        }
    }

    /// Encodes one.
    pub fn encode(
        &mut self,
        column: &Column,
        descriptor: ColumnDescPtr,
        properties: &WriterPropertiesPtr,
        words: &Words,
    ) -> Result<Encoded, ParquetError> {
        match &column.values {
            Values::Numbers(numbers) | Values::Micros(numbers) => {
                let mut sink = TrackedWrite::new(Vec::new());
                let pages = Box::new(SerializedPageWriter::new(&mut sink));
                let writer = get_column_writer(descriptor, properties.clone(), pages);
                let mut writer = get_typed_column_writer::<Int64Type>(writer);
                writer.write_batch(numbers, Some(&column.levels), None)?;
                let closed = writer.close()?;
                Ok(Encoded {
                    bytes: sink.into_inner()?.into(),
                    closed,
                })
            }
            Values::Words(column) => self.texts(column, descriptor, words),
        }
    }

    fn texts(
        &mut self,
        column: &[Word],
        descriptor: ColumnDescPtr,
        words: &Words,
    ) -> Result<Encoded, ParquetError> {
        self.places.resize(words.len(), NONE);
        let mut dictionary = Vec::new();
        let mut places = Vec::with_capacity(column.len());
        for &word in column.iter().filter(|&&word| word != NONE) {
            let place = &mut self.places[word as usize];
            if *place == NONE {
                *place = dictionary.len() as u32;
                dictionary.push(word);
            }
            places.push(*place);
        }
        // As it was found, for the next column.
        for &word in &dictionary {
            self.places[word as usize] = NONE;
        }
        let texts: Vec<&str> = dictionary.iter().map(|&word| words.get(word)).collect();
        let mut sink = TrackedWrite::new(Vec::new());
        let mut pages = SerializedPageWriter::new(&mut sink);
        let mut uncompressed = 0;
        let mut plain = Vec::new();
        for text in &texts {
            plain.extend_from_slice(&(text.len() as u32).to_le_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        let page = Page::DictionaryPage {
            buf: self.compressed(&plain)?,
            num_values: texts.len() as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        let dictionary_page = pages.write_page(CompressedPage::new(page, plain.len()))?;
        uncompressed += dictionary_page.uncompressed_size;
        let data = data_page(column, &places, texts.len());
        let page = Page::DataPage {
            buf: self.compressed(&data)?,
            num_values: column.len() as u32,
            encoding: Encoding::RLE_DICTIONARY,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let data_page = pages.write_page(CompressedPage::new(page, data.len()))?;
        uncompressed += data_page.uncompressed_size;
        let bytes = Bytes::from(sink.into_inner()?);
        let metadata = ColumnChunkMetaData::builder(descriptor)
            .set_compression(Compression::SNAPPY)
            .set_encodings(vec![
                Encoding::PLAIN,
                Encoding::RLE,
                Encoding::RLE_DICTIONARY,
            ])
            .set_total_compressed_size(bytes.len() as i64)
            .set_total_uncompressed_size(uncompressed as i64)
            .set_num_values(column.len() as i64)
            .set_dictionary_page_offset(Some(0))
            .set_data_page_offset(data_page.offset as i64)
            .set_statistics(statistics(&texts, column.len() - places.len()))
            .build()?;
        Ok(Encoded {
            closed: ColumnCloseResult {
                bytes_written: bytes.len() as u64,
                rows_written: column.len() as u64,
                metadata,
                bloom_filter: None,
                column_index: None,
                offset_index: None,
            },
            bytes,
        })
    }

    fn compressed(&mut self, bytes: &[u8]) -> Result<Bytes, ParquetError> {
        let compressed = self.snappy.compress_vec(bytes);
        compressed
            .map(Bytes::from)
            .map_err(|error| ParquetError::External(Box::new(error)))
    }
}

/// Least and greatest text, as bytes compare, and how many rows have none.
fn statistics(texts: &[&str], nulls: usize) -> Statistics {
    let ends = texts.iter().min().zip(texts.iter().max());
    let ends = ends.filter(|(least, greatest)| least.len().max(greatest.len()) <= SHORT);
    let bytes = |text: &str| ByteArray::from(text);
    let (least, greatest) = ends.map(|(a, b)| (bytes(a), bytes(b))).unzip();
    Statistics::ByteArray(ValueStatistics::new(
        least,
        greatest,
        None,
        Some(nulls as u64),
        false,
    ))
}

/// A data page before it is compressed: which rows have a value, and the places of these in a dictionary of
/// so many texts.
fn data_page(column: &[Word], places: &[u32], texts: usize) -> Vec<u8> {
    let mut page = vec![0; 4];
    let known: Vec<u32> = column.iter().map(|&w| u32::from(w != NONE)).collect();
    hybrid(&known, 1, &mut page);
    let length = (page.len() - 4) as u32;
    page[..4].copy_from_slice(&length.to_le_bytes());
    let width = (usize::BITS - texts.saturating_sub(1).leading_zeros()).max(1);
    page.push(width as u8);
    hybrid(places, width, &mut page);
    page
}

/// Numbers of `width` bits, packed, or said once where many in succession are equal: the hybrid of RLE and
/// bit packing.
fn hybrid(numbers: &[u32], width: u32, out: &mut Vec<u8>) {
    let mut runs = numbers.chunks(RUN).peekable();
    while let Some(run) = runs.next() {
        let first = run[0];
        let equal = |run: &[u32]| run.iter().all(|&number| number == first);
        if equal(run) {
            let mut length = run.len();
            while let Some(more) = runs.next_if(|run| equal(run)) {
                length += more.len();
            }
            varint((length as u64) << 1, out);
            let bytes = width.div_ceil(8) as usize;
            out.extend_from_slice(&first.to_le_bytes()[..bytes]);
            continue;
        }
        varint((run.len().div_ceil(8) as u64) << 1 | 1, out);
        let (mut bits, mut filled) = (0u64, 0);
        for &number in run {
            bits |= u64::from(number) << filled;
            filled += width;
            while filled >= 8 {
                out.push(bits as u8);
                bits >>= 8;
                filled -= 8;
            }
        }
        // The last group is of eight, too.
        let missing = (8 - run.len() % 8) % 8;
        let rest = (filled as usize + missing * width as usize).div_ceil(8);
        out.extend_from_slice(&bits.to_le_bytes()[..rest.min(8)]);
        out.resize(out.len() + rest.saturating_sub(8), 0);
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_s_own_example() {
        // 0 to 7 in three bits: 10001000 11000110 11111010.
        let mut out = Vec::new();
        hybrid(&[0, 1, 2, 3, 4, 5, 6, 7], 3, &mut out);
        assert_eq!(out, [0b11, 0b1000_1000, 0b1100_0110, 0b1111_1010]);
    }

    #[test]
    fn what_is_equal_is_said_once() {
        let mut out = Vec::new();
        hybrid(&[5; 2 * RUN + 1], 9, &mut out);
        assert_eq!(out, [0xe2, 0x0f, 5, 0]);
    }

    #[test]
    fn the_last_group_is_whole() {
        for width in [1, 3, 8, 13, 17, 32] {
            for length in 2..40usize {
                let mut numbers = vec![0; length];
                numbers[length - 1] = 1;
                let mut out = Vec::new();
                hybrid(&numbers, width, &mut out);
                assert_eq!(
                    out.len(),
                    1 + length.div_ceil(8) * width as usize,
                    "{width} {length}"
                );
            }
        }
    }
}
