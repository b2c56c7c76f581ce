//! Tables in: batches of rows, in bounded memory, from any place on.

mod csv;
mod infer;
mod jsonl;
mod lines;
mod parquet;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use loader::files::{self, FileError};
use serde::{Deserialize, Serialize};

use super::format::{Format, is_stream};
use crate::error::CliError;

/// The longest row of a text file, in bytes.
const ROW_BYTES: usize = 16 << 20;
/// A batch ends with the row that makes it as large as this, whatever the number of its rows.
const BATCH_BYTES: usize = 16 << 20;
/// The most columns of a table, and the most fields of an object.
const COLUMNS: usize = 4096;

/// A place between two rows of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Rows before it.
    pub(super) rows: u64,
    /// Bytes of a text file before it.
    pub(super) bytes: u64,
    /// Lines of a text file before it.
    pub(super) lines: u64,
}

/// The way to the end, for a progress bar.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) done: u64,
    /// 0 if it is unknown.
    pub(super) total: u64,
}

/// A table that is read from its beginning to its end.
pub(super) trait Table {
    fn schema(&self) -> SchemaRef;
    /// The next rows; `None` at the end.
    fn next_batch(&mut self) -> Result<Option<RecordBatch>, CliError>;
    /// The place after the last batch.
    fn place(&self) -> Place;
    /// The way up to that place.
    fn way(&self) -> Way;
    /// A row of the last batch, for messages: `line 7`.
    fn name_of(&self, row: usize) -> String;
}

/// A table to read, and how.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) format: Format,
    /// The column of texts.
    pub(super) column: &'a str,
    /// Rows of a batch.
    pub(super) rows: usize,
    /// Rows at the beginning that tell the types of a JSONL table.
    pub(super) infer: usize,
}

impl Source<'_> {
    /// The name in messages.
    fn shown(&self) -> PathBuf {
        if is_stream(self.path) { PathBuf::from("stdin") } else { self.path.to_path_buf() }
    }

    /// Opens the table at a place, which is not its beginning only if it is a file.
    ///
    /// # Errors
    /// A file that cannot be opened; a head that is not one of this format.
    pub(super) fn open(&self, place: Place) -> Result<Box<dyn Table>, CliError> {
        if self.format == Format::Parquet {
            let (file, _) = files::open(self.path, "a table")?;
            return Ok(Box::new(parquet::Parquet::open(file, self, place)?));
        }
        let (stream, total) = self.stream(0)?;
        match self.format {
            Format::Jsonl => {
                let mut table = jsonl::Jsonl::open(stream, total, self)?;
                if place != Place::default() {
                    table.go_on(self.stream(place.bytes)?.0, place);
                }
                Ok(Box::new(table))
            }
            Format::Csv(delimiter) => {
                let mut table = csv::Csv::open(stream, total, delimiter, self)?;
                if place != Place::default() {
                    table.go_on(self.stream(place.bytes)?.0, delimiter, place);
                }
                Ok(Box::new(table))
            }
            Format::Parquet => Err(CliError::usage("Parquet needs a file")),
        }
    }

    /// The bytes from an offset on, and the length of the whole; 0 for a stream.
    fn stream(&self, from: u64) -> Result<(Box<dyn Read>, u64), CliError> {
        if is_stream(self.path) {
            return Ok((Box::new(std::io::stdin().lock()), 0));
        }
        let (mut file, total): (File, u64) = files::open(self.path, "a table")?;
        file.seek(SeekFrom::Start(from)).map_err(FileError::io("read", self.path))?;
        Ok((Box::new(file), total))
    }
}

/// The error of a line.
fn bad_line(path: &Path, line: u64, problem: impl Into<String>) -> CliError {
    FileError::Line { path: path.to_path_buf(), line, problem: problem.into() }.into()
}

/// Checks that bytes of a text file are text.
fn checked<'a>(bytes: &'a [u8], path: &Path, line: u64) -> Result<&'a str, CliError> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.contains('\0') => {
            Err(bad_line(path, line, "a NUL byte; this is not UTF-8 text (perhaps UTF-16, or a binary file)"))
        }
        Ok(text) => Ok(text),
        Err(e) => Err(bad_line(path, line, format!("this is not UTF-8 text, its byte {} is invalid", e.valid_up_to()))),
    }
}
