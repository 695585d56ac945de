//! A table as a Parquet file, for DuckDB, Spark, pandas, polars: numbers are INT64, text is
//! dictionary-encoded, moments are there twice, as Unix nanoseconds (INT64) and as timestamps of
//! microseconds, which everybody reads. Rows are in order of process and number.

use super::progress::Progress;
use super::tables::{Cell, Source, Table, Type};
use parquet::basic::{
    Compression, ConvertedType, LogicalType, Repetition, TimeUnit, Type as Physical,
};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type as Schema, TypePtr};
use rustc_hash::FxHashMap;
use std::io::{self, Write};
use std::sync::Arc;

/// Rows of a row group; what is in memory at once.
const GROUP: usize = 1 << 17;

/// Writes a table.
pub fn write<W: Write + Send>(
    source: &mut Source<'_, '_>,
    table: Table,
    progress: &mut Progress,
    out: W,
) -> io::Result<()> {
    let mut file = File::new(table, out).map_err(io_error)?;
    source.rows(table, progress, &mut |row| {
        file.row(row);
        if file.rows == GROUP {
            file.group().map_err(io_error)?;
        }
        Ok(())
    })?;
    file.finish().map_err(io_error)
}

fn io_error(error: ParquetError) -> io::Error {
    match error {
        // What the file system said, as it said it.
        ParquetError::External(error) => match error.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        },
        error => io::Error::other(error),
    }
}

/// The values of a column that are not written yet, and for each row whether it has one.
enum Values {
    Numbers(Vec<i64>),
    /// The second shape of the moments in the column before.
    Micros(Vec<i64>),
    Texts(Vec<ByteArray>),
}

struct File<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    columns: Vec<(Values, Vec<i16>)>,
    rows: usize,
    /// Text that comes again and again is in memory once.
    texts: FxHashMap<String, ByteArray>,
}

impl<W: Write + Send> File<W> {
    fn new(table: Table, out: W) -> Result<File<W>, ParquetError> {
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for column in table.columns() {
            fields.push(field(column.name, column.of)?);
            columns.push(match column.of {
                Type::Number | Type::Time => Values::Numbers(Vec::new()),
                Type::Text => Values::Texts(Vec::new()),
            });
            if column.of == Type::Time {
                fields.push(timestamp(column.name.trim_end_matches("_ns"))?);
                columns.push(Values::Micros(Vec::new()));
            }
        }
        let schema = Schema::group_type_builder(table.name()).with_fields(fields);
        let sorted = |column_idx| SortingColumn {
            column_idx,
            descending: false,
            nulls_first: false,
        };
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(format!("vramtrace {}", env!("CARGO_PKG_VERSION")))
            .set_sorting_columns(Some(vec![sorted(0), sorted(1)]))
            .build();
        Ok(File {
            writer: SerializedFileWriter::new(
                out,
                Arc::new(schema.build()?),
                Arc::new(properties),
            )?,
            columns: columns
                .into_iter()
                .map(|values| (values, Vec::new()))
                .collect(),
            rows: 0,
            texts: FxHashMap::default(),
        })
    }

    fn row(&mut self, row: &[Cell<'_>]) {
        let mut at = 0;
        for cell in row {
            let (values, levels) = &mut self.columns[at];
            levels.push(i16::from(*cell != Cell::Null));
            match (values, cell) {
                (Values::Numbers(numbers), Cell::Number(number)) => numbers.push(signed(*number)),
                (Values::Texts(texts), Cell::Text(text)) => {
                    texts.push(match self.texts.get(*text) {
                        Some(known) => known.clone(),
                        None => {
                            let new = ByteArray::from(text.as_bytes().to_vec());
                            self.texts.insert((*text).to_owned(), new.clone());
                            new
                        }
                    })
                }
                _ => {}
            }
            at += 1;
            if let Some((Values::Micros(micros), levels)) = self.columns.get_mut(at) {
                levels.push(i16::from(*cell != Cell::Null));
                if let Cell::Number(ns) = cell {
                    micros.push(signed(ns / 1000));
                }
                at += 1;
            }
        }
        self.rows += 1;
    }

    /// Writes what has come together.
    fn group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for (values, levels) in &mut self.columns {
            let Some(mut column) = group.next_column()? else {
                break;
            };
            match values {
                Values::Numbers(numbers) | Values::Micros(numbers) => {
                    let writer = column.typed::<Int64Type>();
                    writer.write_batch(numbers, Some(levels), None)?;
                    numbers.clear();
                }
                Values::Texts(texts) => {
                    let writer = column.typed::<ByteArrayType>();
                    writer.write_batch(texts, Some(levels), None)?;
                    texts.clear();
                }
            }
            levels.clear();
            column.close()?;
        }
        group.close()?;
        self.rows = 0;
        self.texts.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<(), ParquetError> {
        if self.rows > 0 {
            self.group()?;
        }
        self.writer.close().map(drop)
    }
}

/// Numbers are signed there; none of ours is that large but in a damaged trace.
fn signed(number: u64) -> i64 {
    number.min(i64::MAX as u64) as i64
}

fn field(name: &str, of: Type) -> Result<TypePtr, ParquetError> {
    let (physical, logical, converted) = match of {
        Type::Number | Type::Time => (Physical::INT64, None, ConvertedType::NONE),
        Type::Text => (
            Physical::BYTE_ARRAY,
            Some(LogicalType::String),
            ConvertedType::UTF8,
        ),
    };
    let field = Schema::primitive_type_builder(name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical)
        .with_converted_type(converted);
    Ok(Arc::new(field.build()?))
}

fn timestamp(name: &str) -> Result<TypePtr, ParquetError> {
    let field = Schema::primitive_type_builder(name, Physical::INT64)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(Some(LogicalType::timestamp(true, TimeUnit::MICROS)))
        .with_converted_type(ConvertedType::TIMESTAMP_MICROS);
    Ok(Arc::new(field.build()?))
}
