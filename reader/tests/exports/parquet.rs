//! Parquet, read back: the rows are those of the CSV file. (DuckDB's answers: scripts/check-exports.)

use super::program::{hostile, random, story};
use super::{export, vramtrace};
use parquet::basic::{Encoding, Type};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use std::path::Path;

/// The rows as CSV has them, without the moments in microseconds; these have to agree.
fn rows(file: &Path) -> Vec<String> {
    let reader = SerializedFileReader::new(std::fs::File::open(file).unwrap()).unwrap();
    let mut rows = Vec::new();
    for row in reader.get_row_iter(None).unwrap() {
        let row = row.unwrap();
        let fields: Vec<_> = row.get_column_iter().collect();
        let mut line = Vec::new();
        for (name, field) in &fields {
            let ns = format!("{name}_ns");
            if let Some((_, ns)) = fields.iter().find(|(other, _)| **other == ns) {
                let ns = match ns {
                    Field::Long(ns) => Field::TimestampMicros(ns / 1000),
                    other => (*other).clone(),
                };
                assert_eq!(**field, ns);
                continue;
            }
            line.push(match field {
                Field::Null => String::new(),
                Field::Long(number) => number.to_string(),
                Field::Str(text) => text.clone(),
                other => panic!("{other:?}"),
            });
        }
        rows.push(line.join(","));
    }
    rows
}

#[test]
fn a_directory_with_a_file_for_each_table() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "a.vrt");
    let out = vramtrace(&["export", "-o", "a.parquet", "a.vrt"], dir.path());
    assert!(out.status.success());
    let said = String::from_utf8(out.stdout).unwrap();
    assert_eq!(
        said,
        "Next: duckdb -c \"FROM 'a.parquet/allocations.parquet' LIMIT 5\"\n"
    );
    let folder = dir.path().join("a.parquet");
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "allocations.parquet",
            "devices.parquet",
            "events.parquet",
            "processes.parquet",
            "stacks.parquet"
        ]
    );
    let file = std::fs::File::open(folder.join("allocations.parquet")).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let group = reader.metadata().row_group(0);
    let sorted = group.sorting_columns().unwrap();
    assert_eq!(
        sorted
            .iter()
            .map(|column| column.column_idx)
            .collect::<Vec<_>>(),
        [0, 1]
    );
    for column in group.columns() {
        let is_text = column.column_type() == Type::BYTE_ARRAY;
        assert!(is_text || column.column_type() == Type::INT64);
        let dictionary = column
            .encodings()
            .any(|encoding| encoding == Encoding::RLE_DICTIONARY);
        assert!(dictionary || !is_text, "{}", column.column_path());
    }
    let again = vramtrace(&["export", "-o", "a.parquet", "a.vrt"], dir.path());
    assert_eq!(again.status.code(), Some(2));
    let again = vramtrace(&["export", "-f", "-o", "a.parquet", "a.vrt"], dir.path());
    assert!(again.status.success());
    let pipe = vramtrace(
        &["export", "--format", "parquet", "-o", "-", "a.vrt"],
        dir.path(),
    );
    assert_eq!(pipe.status.code(), Some(2));
}

#[test]
fn rows_are_those_of_the_csv_file() {
    let dir = tempfile::tempdir().unwrap();
    for mut file in [
        story(),
        hostile(),
        random(1, 1 << 20, 5_000),
        random(2, 4 << 20, 5_000),
    ] {
        let trace = file.write(dir.path(), "a.vrt");
        for table in ["processes", "devices", "stacks", "allocations", "events"] {
            let args = ["--format", "parquet", "--table", table];
            let path = dir.path().join("t.parquet");
            std::fs::write(&path, export(&trace, &args)).unwrap();
            let csv = export(&trace, &["--format", "csv", "--table", table]);
            let csv = String::from_utf8(csv).unwrap();
            // Quotation marks aside, which the hostile names have.
            let plain = |text: &str| text.replace('"', "");
            let expected: String = csv.split_once('\n').unwrap().1.to_owned();
            let found: String = rows(&path).iter().map(|row| row.clone() + "\n").collect();
            assert_eq!(plain(&found), plain(&expected), "{table}");
        }
    }
}
