//! Values separated by commas or tabs. All columns are texts, as they stand in the file; an empty one is null.

use std::cell::Cell;
use std::io::{Error, Read};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};

use super::{BATCH_BYTES, COLUMNS, Place, ROW_BYTES, Source, Table, Way, bad_line, checked};
use crate::error::CliError;

/// The reader reads ahead by this many bytes.
const BUFFER: usize = 1 << 16;

pub(super) struct Csv {
    path: PathBuf,
    reader: Reader<Limited>,
    /// Bytes that the row that is being read may take from the file.
    left: Rc<Cell<usize>>,
    crlf: Rc<Cell<Option<bool>>>,
    schema: SchemaRef,
    rows: usize,
    total: u64,
    /// The place where `reader` began.
    begin: Place,
    place: Place,
    record: ByteRecord,
    numbers: Vec<u64>,
}

/// A stream that fails when a row takes too much of it: a quote without an end would read the whole file.
struct Limited {
    stream: Box<dyn Read>,
    left: Rc<Cell<usize>>,
    /// Whether lines end with two characters; known with the first line.
    crlf: Rc<Cell<Option<bool>>>,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(Error::other(format!(
                "the row is longer than {ROW_BYTES} bytes; perhaps a quote is not closed"
            )));
        }
        let n = buffer.len().min(left);
        let read = self.stream.read(&mut buffer[..n])?;
        self.left.set(left - read);
        if self.crlf.get().is_none()
            && let Some(at) = buffer[..read].iter().position(|byte| *byte == b'\n')
        {
            self.crlf.set(Some(at > 0 && buffer[at - 1] == b'\r'));
        }
        Ok(read)
    }
}

fn reader(
    stream: Box<dyn Read>,
    delimiter: u8,
    left: &Rc<Cell<usize>>,
    crlf: &Rc<Cell<Option<bool>>>,
) -> Reader<Limited> {
    // The number of fields is checked here, against the line of names.
    let mut builder = ReaderBuilder::new();
    builder.has_headers(false).flexible(true).delimiter(delimiter).buffer_capacity(BUFFER);
    builder.from_reader(Limited { stream, left: left.clone(), crlf: crlf.clone() })
}

impl Csv {
    pub(super) fn open(
        stream: Box<dyn Read>,
        total: u64,
        delimiter: u8,
        source: &Source<'_>,
    ) -> Result<Self, CliError> {
        let (left, crlf) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
        let mut table = Self {
            path: source.shown(),
            reader: reader(stream, delimiter, &left, &crlf),
            left,
            crlf,
            schema: Arc::new(Schema::empty()),
            rows: source.rows,
            total,
            begin: Place::default(),
            place: Place::default(),
            record: ByteRecord::new(),
            numbers: Vec::new(),
        };
        let Some(line) = table.next_record()? else {
            return Err(bad_line(&table.path, 1, "there is no line with the names of the columns"));
        };
        let mut fields: Vec<Field> = Vec::new();
        if table.record.len() > COLUMNS {
            return Err(bad_line(&table.path, line, format!("there are more than {COLUMNS} columns")));
        }
        for name in &table.record {
            let name = checked(name, &table.path, line)?;
            if fields.iter().any(|field| field.name() == name) {
                return Err(bad_line(&table.path, line, format!("two columns are called {name:?}")));
            }
            fields.push(Field::new(name, DataType::Utf8, true));
        }
        table.schema = Arc::new(Schema::new(fields));
        Ok(table)
    }

    /// Continues at a place of the same file, from which `stream` reads.
    pub(super) fn go_on(&mut self, stream: Box<dyn Read>, delimiter: u8, place: Place) {
        self.reader = reader(stream, delimiter, &self.left, &self.crlf);
        (self.begin, self.place) = (place, place);
    }

    /// Reads the next record and returns the line where it begins; `None` at the end.
    fn next_record(&mut self) -> Result<Option<u64>, CliError> {
        self.left.set(ROW_BYTES + BUFFER);
        let read = match self.reader.read_byte_record(&mut self.record) {
            Ok(read) => read,
            Err(error) => {
                let problem = match error.into_kind() {
                    ErrorKind::Io(error) => error.to_string(),
                    other => format!("{other:?}"),
                };
                // The line where the record begins that was not finished.
                return Err(bad_line(&self.path, self.place.lines + 1, problem));
            }
        };
        let now = self.reader.position();
        let within = self.record.as_slice().iter().filter(|byte| **byte == b'\n').count() as u64;
        let first = match self.crlf.get() {
            // The reader takes the second character of the end with the next record.
            Some(true) => now.line().saturating_sub(within),
            // Empty lines before the record were skipped with it.
            _ => self.record.position().unwrap_or(now).line().max(now.line().saturating_sub(within + 1)),
        };
        let line = self.begin.lines + first;
        self.place.bytes = self.begin.bytes + now.byte();
        self.place.lines = self.begin.lines + now.line() - 1;
        Ok(read.then_some(line))
    }
}

impl Table for Csv {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>, CliError> {
        let columns = self.schema.fields().len();
        let mut texts: Vec<StringBuilder> = (0..columns).map(|_| StringBuilder::new()).collect();
        self.numbers.clear();
        let mut bytes = 0;
        while self.numbers.len() < self.rows && bytes < BATCH_BYTES {
            let Some(line) = self.next_record()? else { break };
            if self.record.len() != columns {
                let found = match self.record.len() {
                    1 => "one value".to_owned(),
                    n => format!("{n} values"),
                };
                return Err(bad_line(&self.path, line, format!("{found}, and there are {columns} columns")));
            }
            for (text, value) in texts.iter_mut().zip(&self.record) {
                let value = checked(value, &self.path, line)?;
                text.append_option(Some(value).filter(|value| !value.is_empty()));
            }
            bytes += self.record.as_slice().len();
            self.place.rows += 1;
            self.numbers.push(line);
        }
        if self.numbers.is_empty() {
            return Ok(None);
        }
        let arrays: Vec<ArrayRef> = texts.into_iter().map(|mut text| Arc::new(text.finish()) as ArrayRef).collect();
        Ok(Some(RecordBatch::try_new(self.schema.clone(), arrays)?))
    }

    fn place(&self) -> Place {
        self.place
    }
    fn way(&self) -> Way {
        Way { done: self.place.bytes, total: self.total }
    }
    fn name_of(&self, row: usize) -> String {
        format!("line {}", self.numbers.get(row).copied().unwrap_or(self.place.lines))
    }
}
