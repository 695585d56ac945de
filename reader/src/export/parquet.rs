//! A table as a Parquet file, for DuckDB, Spark, pandas, polars: numbers are INT64, text is
//! dictionary-encoded, moments are there twice, as Unix nanoseconds (INT64) and as timestamps of
//! microseconds, which everybody reads. Rows are in order of process and number.
//!
//! Row groups are collected column by column, and encoded and written by another thread while the next one is
//! collected ([`column`] encodes). Text is a number of [`Words`] until then, so that no text is hashed or
//! compared where it stands in a row.

mod column;

use super::progress::Progress;
use super::tables::{Cell, Source, Table, Type, Words};
use column::{Column, Encoder, Values};
use parquet::basic::{
    Compression, ConvertedType, Encoding, LogicalType, Repetition, TimeUnit, Type as Physical,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, Type as Schema, TypePtr};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

/// Rows of a row group.
const GROUP: usize = 1 << 17;

/// Columns of numbers that come again and again; of the others each row's is new, or nearly.
const REPEATED: &[&str] = &[
    "process",
    "pid",
    "rank",
    "device",
    "bytes",
    "thread",
    "stream",
    "context",
    "free_thread",
    "stack",
    "frame",
    "line",
    "error",
];

/// Writes a table.
pub fn write<W: Write + Send>(
    source: &mut Source<'_, '_>,
    table: Table,
    progress: &mut Progress,
    out: W,
) -> io::Result<()> {
    let words = Arc::clone(&source.words);
    let (schema, properties) = shape(table).map_err(io_error)?;
    thread::scope(|scope| {
        let (full, groups) = sync_channel::<Group>(1);
        let (used, empty) = channel();
        let writer = scope.spawn(move || -> Result<(), ParquetError> {
            let mut file = SerializedFileWriter::new(out, schema, properties)?;
            let mut encoder = Encoder::new();
            for mut group in groups {
                group.write(&mut file, &mut encoder, &words)?;
                // It has ended if it does not want its memory back.
                let _ = used.send(group);
            }
            file.close().map(drop)
        });
        let mut group = Group::new(table);
        let collected = source.rows(table, progress, &mut |row| {
            group.push(row);
            if group.rows < GROUP {
                return Ok(());
            }
            let next = empty.try_recv().unwrap_or_else(|_| Group::new(table));
            // Who writes has given up when this fails, and says why itself.
            full.send(std::mem::replace(&mut group, next))
                .map_err(|_| io::ErrorKind::BrokenPipe.into())
        });
        if group.rows > 0 {
            let _ = full.send(group);
        }
        drop(full);
        match writer.join() {
            Ok(written) => written.map_err(io_error)?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        collected
    })
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

/// Schema and properties of a table's file.
fn shape(table: Table) -> Result<(TypePtr, Arc<WriterProperties>), ParquetError> {
    let sorted = |column_idx| SortingColumn {
        column_idx,
        descending: false,
        nulls_first: false,
    };
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by(format!("vramtrace {}", env!("CARGO_PKG_VERSION")))
        .set_sorting_columns(Some(vec![sorted(0), sorted(1)]))
        // Row groups are small, and pages as long as they are.
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true);
    let mut fields = Vec::new();
    for column in table.columns() {
        let mut add = |name: &str, field: TypePtr| {
            fields.push(field);
            if column.of != Type::Text && !REPEATED.contains(&name) {
                let path = ColumnPath::from(name);
                let builder = std::mem::take(&mut properties);
                properties = builder
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
            }
        };
        add(column.name, field(column.name, column.of)?);
        if column.of == Type::Time {
            let name = column.name.trim_end_matches("_ns");
            add(name, timestamp(name)?);
        }
    }
    let schema = Schema::group_type_builder(table.name()).with_fields(fields);
    Ok((Arc::new(schema.build()?), Arc::new(properties.build())))
}

/// Rows that are not written yet.
struct Group {
    columns: Vec<Column>,
    rows: usize,
    /// Texts of its own: of tables whose cells have them as they were found.
    texts: Words,
}

impl Group {
    fn new(table: Table) -> Group {
        let mut columns = Vec::new();
        for column in table.columns() {
            match column.of {
                Type::Number => columns.push(Column::numbers()),
                Type::Text => columns.push(Column::words()),
                Type::Time => columns.extend([Column::numbers(), Column::micros()]),
            }
        }
        Group {
            columns,
            rows: 0,
            texts: Words::default(),
        }
    }

    fn push(&mut self, row: &[Cell<'_>]) {
        let mut columns = self.columns.iter_mut().peekable();
        for cell in row {
            let Some(column) = columns.next() else { break };
            match cell {
                Cell::Null => column.null(),
                Cell::Number(number) => column.number(signed(*number)),
                Cell::Text(text) => column.word(self.texts.add(text)),
                Cell::Word(word) => column.word(*word),
            }
            let is_micros = |column: &&mut Column| matches!(column.values, Values::Micros(_));
            if let Some(micros) = columns.next_if(is_micros) {
                match cell {
                    Cell::Number(ns) => micros.number(signed(ns / 1000)),
                    _ => micros.null(),
                }
            }
        }
        self.rows += 1;
    }

    /// Writes what has come together, and is empty then.
    fn write<W: Write + Send>(
        &mut self,
        file: &mut SerializedFileWriter<W>,
        encoder: &mut Encoder,
        words: &Words,
    ) -> Result<(), ParquetError> {
        let words = if self.texts.is_empty() {
            words
        } else {
            &self.texts
        };
        let schema = file.schema_descr().columns().to_vec();
        let properties = Arc::clone(file.properties());
        let mut group = file.next_row_group()?;
        for (column, descriptor) in self.columns.iter_mut().zip(schema) {
            let encoded = encoder.encode(column, descriptor, &properties, words)?;
            group.append_column(&encoded.bytes, encoded.closed)?;
            column.clear();
        }
        group.close()?;
        self.rows = 0;
        self.texts = Words::default();
        Ok(())
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
