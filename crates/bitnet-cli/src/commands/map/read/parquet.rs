//! Apache Parquet.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use super::{COLUMNS, Place, Source, Table, Way};
use crate::error::CliError;

pub(super) struct Parquet {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    schema: SchemaRef,
    total: u64,
    place: Place,
    /// Rows before the last batch.
    before: u64,
}

/// The error of a file; `problem` is the library's.
fn failed(path: &Path, problem: impl std::fmt::Display) -> CliError {
    let problem = problem.to_string();
    let way_out = match problem.contains("Disabled feature") {
        true => "; this program reads Parquet without compression and with snappy, gzip and lz4",
        false => "",
    };
    CliError::Table { path: path.to_path_buf(), problem: format!("{problem}{way_out}") }
}

/// The result of `read`, also where the library ends it with a panic: it does so on some damaged files.
fn guarded<T, E: std::fmt::Display>(path: &Path, read: impl FnOnce() -> Result<T, E>) -> Result<T, CliError> {
    match crate::quiet::catch(read) {
        Some(result) => result.map_err(|error| failed(path, error)),
        None => Err(failed(path, "the file is damaged")),
    }
}

impl Parquet {
    pub(super) fn open(file: File, source: &Source<'_>, place: Place) -> Result<Self, CliError> {
        let path = source.path;
        let builder = guarded(path, || ParquetRecordBatchReaderBuilder::try_new(file))?;
        let schema = builder.schema().clone();
        if schema.fields().len() > COLUMNS {
            return Err(failed(path, format_args!("there are more than {COLUMNS} columns")));
        }
        let total = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let skipped = usize::try_from(place.rows).unwrap_or(usize::MAX);
        let reader = guarded(path, || -> Result<_, ParquetError> {
            builder.with_batch_size(source.rows).with_offset(skipped).build()
        })?;
        Ok(Self { path: path.to_path_buf(), reader, schema, total, place, before: place.rows })
    }
}

impl Table for Parquet {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>, CliError> {
        let batch = guarded(&self.path, || self.reader.next().transpose())?;
        self.before = self.place.rows;
        self.place.rows += batch.as_ref().map_or(0, |batch| batch.num_rows() as u64);
        Ok(batch)
    }

    fn place(&self) -> Place {
        self.place
    }
    fn way(&self) -> Way {
        Way { done: self.place.rows, total: self.total }
    }
    fn name_of(&self, row: usize) -> String {
        format!("row {}", self.before + row as u64 + 1)
    }
}
