//! Tables out: each batch becomes bytes that are appended, so that a file may end after any of them.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use arrow_array::{Array, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_json::writer::{EncoderOptions, LineDelimited, NullableEncoder, WriterBuilder, make_encoder};
use arrow_schema::{ArrowError, FieldRef, Schema, SchemaRef};
use loader::files::{FileError, Pending};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::format::Format;
use crate::error::CliError;

/// Rows and bytes of a row group in Parquet at most: what is kept in memory while it is written.
const GROUP_ROWS: usize = 1 << 17;
const GROUP_BYTES: usize = 32 << 20;

/// The bytes before all rows.
///
/// # Errors
/// A column whose type the format cannot hold.
pub(super) fn head(schema: &Schema, format: Format) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    match format {
        Format::Csv(delimiter) => {
            let mut writer = csv_writer(&mut bytes, delimiter);
            written(writer.write_record(schema.fields().iter().map(|field| field.name())))?;
            written(writer.flush())?;
        }
        Format::Parquet => {
            // Types that cannot be written are refused before there is a row.
            drop(parquet_writer(&mut bytes, schema.clone().into()).map_err(unwritable)?);
            bytes.clear();
        }
        Format::Jsonl => {}
    }
    Ok(bytes)
}

/// The bytes of a batch. Those for a Parquet file are a stream of Arrow's own format, which [`to_parquet`] reads: the
/// directory of a Parquet file comes last, so that nothing could be appended to one.
///
/// # Errors
/// A column whose type the format cannot hold.
pub(super) fn rows(batch: &RecordBatch, format: Format) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    match format {
        Format::Jsonl => {
            // Each row has all keys, so that all have one form.
            let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut bytes);
            writer.write(batch)?;
            writer.finish()?;
        }
        Format::Csv(delimiter) => csv_rows(batch, delimiter, &mut bytes)?,
        Format::Parquet => {
            let mut writer = StreamWriter::try_new(&mut bytes, batch.schema_ref())?;
            writer.write(batch)?;
            writer.finish()?;
        }
    }
    Ok(bytes)
}

fn csv_writer(bytes: &mut Vec<u8>, delimiter: u8) -> csv::Writer<&mut Vec<u8>> {
    csv::WriterBuilder::new().delimiter(delimiter).from_writer(bytes)
}

/// A result of writing to memory.
fn written<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<T, CliError> {
    result.map_err(|e| ArrowError::CsvError(e.to_string()).into())
}

/// The cells of a column as text.
enum Cells<'a> {
    Plain(ArrayFormatter<'a>),
    /// Lists and structs are JSON.
    Nested(NullableEncoder<'a>),
}

impl Cells<'_> {
    fn put(&mut self, row: usize, text: &mut Vec<u8>) -> Result<(), CliError> {
        match self {
            Self::Plain(formatter) => written(write!(text, "{}", formatter.value(row))),
            Self::Nested(encoder) => {
                if !encoder.is_null(row) {
                    encoder.encode(row, text);
                }
                Ok(())
            }
        }
    }
}

fn csv_rows(batch: &RecordBatch, delimiter: u8, bytes: &mut Vec<u8>) -> Result<(), CliError> {
    let (plain, nested) = (FormatOptions::new(), EncoderOptions::default());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        columns.push(cells(field, column.as_ref(), &plain, &nested)?);
    }
    let mut writer = csv_writer(bytes, delimiter);
    let mut cell = Vec::new();
    for row in 0..batch.num_rows() {
        for column in &mut columns {
            cell.clear();
            column.put(row, &mut cell)?;
            written(writer.write_field(&cell))?;
        }
        written(writer.write_record(None::<&[u8]>))?;
    }
    written(writer.flush())
}

fn cells<'a>(
    field: &'a FieldRef,
    column: &'a dyn Array,
    plain: &FormatOptions<'a>,
    nested: &'a EncoderOptions,
) -> Result<Cells<'a>, ArrowError> {
    Ok(match column.data_type().is_nested() {
        true => Cells::Nested(make_encoder(field, column, nested)?),
        false => Cells::Plain(ArrayFormatter::try_new(column, plain)?),
    })
}

fn parquet_writer<W: Write + Send>(
    stream: W,
    schema: SchemaRef,
) -> Result<ArrowWriter<W>, parquet::errors::ParquetError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_max_row_group_bytes(Some(GROUP_BYTES))
        .build();
    ArrowWriter::try_new(stream, schema, Some(properties))
}

fn unwritable(error: impl std::fmt::Display) -> CliError {
    CliError::usage(format!("the table cannot be Parquet: {error}; write JSONL instead"))
}

/// Makes the Parquet file `output` of the bytes that [`rows`] made, without those after `len`; `go_on` is asked now and
/// then. The file exists completely or not at all.
///
/// # Errors
/// Files that cannot be read or written; [`CliError::Interrupted`] if `go_on` says so.
pub(super) fn to_parquet(
    rows: &Path,
    schema: SchemaRef,
    output: &Path,
    mut go_on: impl FnMut() -> bool,
) -> Result<(), CliError> {
    let mut pending = Pending::create(output)?;
    let wrong = |e: &dyn std::fmt::Display| CliError::Table { path: rows.to_path_buf(), problem: e.to_string() };
    let failed = |e: &dyn std::fmt::Display| CliError::Table { path: output.to_path_buf(), problem: e.to_string() };
    let mut writer = parquet_writer(&mut pending, schema).map_err(|e| failed(&e))?;
    let file = File::open(rows).map_err(FileError::io("read", rows))?;
    let mut stream = BufReader::with_capacity(1 << 20, file);
    // One stream after the other, a batch in each.
    while !stream.fill_buf().map_err(FileError::io("read", rows))?.is_empty() {
        for batch in StreamReader::try_new(&mut stream, None).map_err(|e| wrong(&e))? {
            if !go_on() {
                return Err(CliError::Interrupted);
            }
            writer.write(&batch.map_err(|e| wrong(&e))?).map_err(|e| failed(&e))?;
        }
    }
    if let Err(error) = writer.close() {
        return Err(pending.full().map_or_else(|| failed(&error), CliError::from));
    }
    Ok(pending.commit()?)
}

/// A value of the first row as JSON, for tests of this module and of others.
#[cfg(test)]
fn as_json(batch: &RecordBatch) -> String {
    let mut bytes = Vec::new();
    let mut writer =
        WriterBuilder::new().with_explicit_nulls(true).build::<_, arrow_json::writer::JsonArray>(&mut bytes);
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    String::from_utf8(bytes).unwrap()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::Int32Type;
    use arrow_array::{ArrayRef, BooleanArray, DictionaryArray, Float32Array, Int64Array, ListArray, StringArray};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    fn batch(from: i64) -> RecordBatch {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
        let columns: [(&str, ArrayRef); 6] = [
            ("text", Arc::new(StringArray::from(vec![Some("a,\"b\"\nc"), None]))),
            ("n", Arc::new(Int64Array::from(vec![from, from + 1]))),
            ("p", Arc::new(Float32Array::from(vec![Some(0.1), None]))),
            ("b", Arc::new(BooleanArray::from(vec![None, Some(true)]))),
            ("d", Arc::new(vec![Some("x"), None].into_iter().collect::<DictionaryArray<Int32Type>>())),
            ("l", Arc::new(list)),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap()
    }

    #[test]
    fn rows_of_text_formats_are_complete_lines() {
        let json = String::from_utf8(rows(&batch(7), Format::Jsonl).unwrap()).unwrap();
        assert_eq!(
            json,
            "{\"text\":\"a,\\\"b\\\"\\nc\",\"n\":7,\"p\":0.1,\"b\":null,\"d\":\"x\",\"l\":[1,null]}\n\
             {\"text\":null,\"n\":8,\"p\":null,\"b\":true,\"d\":null,\"l\":null}\n"
        );
        let csv =
            [head(batch(7).schema_ref(), Format::Csv(b',')).unwrap(), rows(&batch(7), Format::Csv(b',')).unwrap()]
                .concat();
        let expected = "text,n,p,b,d,l\n\"a,\"\"b\"\"\nc\",7,0.1,,x,\"[1,null]\"\n,8,,true,,\n";
        assert_eq!(String::from_utf8(csv).unwrap(), expected);
    }

    #[test]
    fn parquet_has_the_rows_of_all_batches() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, output) = (folder.path().join("rows"), folder.path().join("a.parquet"));
        let all: Vec<u8> = [0, 2, 4].iter().flat_map(|from| rows(&batch(*from), Format::Parquet).unwrap()).collect();
        std::fs::write(&spool, &all).unwrap();
        assert_eq!(head(batch(0).schema_ref(), Format::Parquet).unwrap(), b"");
        to_parquet(&spool, batch(0).schema(), &output, || true).unwrap();
        let read = ParquetRecordBatchReaderBuilder::try_new(File::open(&output).unwrap()).unwrap().build().unwrap();
        let read: Vec<RecordBatch> = read.map(Result::unwrap).collect();
        let [read] = &read[..] else { panic!("{read:?}") };
        assert_eq!(read.schema(), batch(0).schema());
        let expected: Vec<String> = [0, 2, 4].map(|from| as_json(&batch(from))).into_iter().collect();
        let joined = format!("[{}]", expected.iter().map(|t| t.trim_matches(['[', ']'])).collect::<Vec<_>>().join(","));
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text);
        assert_eq!(value(&as_json(read)).unwrap(), value(&joined).unwrap());
        // Nothing of a file that was not finished.
        let other = folder.path().join("b.parquet");
        assert!(matches!(to_parquet(&spool, batch(0).schema(), &other, || false), Err(CliError::Interrupted)));
        std::fs::write(&spool, &all[..all.len() - 9]).unwrap();
        assert!(to_parquet(&spool, batch(0).schema(), &other, || true).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
