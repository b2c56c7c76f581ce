//! A JSON object per line.

use std::collections::VecDeque;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_json::ReaderBuilder;
use arrow_json::reader::Decoder;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

use super::infer::Columns;
use super::lines::Lines;
use super::{BATCH_BYTES, Place, Source, Table, Way, bad_line};
use crate::error::CliError;

/// The most lists and objects within each other.
const DEPTH: usize = 120;

pub(super) struct Jsonl {
    path: PathBuf,
    lines: Lines,
    /// Lines that told the types, and the place after each; they are rows, too.
    head: VecDeque<(String, Place)>,
    schema: SchemaRef,
    rows: usize,
    total: u64,
    place: Place,
    /// Lines of the batch that is being read, and their numbers: to find the one that does not fit.
    batch: String,
    ends: Vec<usize>,
    numbers: Vec<u64>,
}

impl Jsonl {
    pub(super) fn open(stream: Box<dyn Read>, total: u64, source: &Source<'_>) -> Result<Self, CliError> {
        let path = source.shown();
        let mut lines = Lines::new(stream, &path, 0, 0);
        let (mut head, mut columns, mut bytes) = (VecDeque::new(), Columns::default(), 0);
        while head.len() < source.infer.max(1) && bytes < BATCH_BYTES {
            let Some((number, line)) = lines.next_line()? else { break };
            columns.add_row(line).map_err(|problem| bad_line(&path, number, problem))?;
            bytes += line.len();
            let line = line.to_owned();
            head.push_back((line, Place { rows: 0, bytes: lines.bytes, lines: lines.lines }));
        }
        let schema = match head.is_empty() {
            // No row tells the columns. There are no others.
            true => Schema::new(vec![Field::new(source.column, DataType::Utf8, true)]),
            false => columns.schema(source.column),
        };
        Ok(Self {
            path,
            lines,
            head,
            schema: Arc::new(schema),
            rows: source.rows,
            total,
            place: Place::default(),
            batch: String::new(),
            ends: Vec::new(),
            numbers: Vec::new(),
        })
    }

    /// Continues at a place of the same file, from which `stream` reads.
    pub(super) fn go_on(&mut self, stream: Box<dyn Read>, place: Place) {
        self.lines = Lines::new(stream, &self.path, place.lines, place.bytes);
        self.head.clear();
        self.place = place;
    }

    fn decoder(&self, rows: usize) -> Result<Decoder, ArrowError> {
        // A key that was not in the first rows would be lost without a word.
        ReaderBuilder::new(self.schema.clone()).with_batch_size(rows).with_strict_mode(true).build_decoder()
    }

    /// Puts the next line into the batch; `false` at the end.
    fn next_line(&mut self) -> Result<bool, CliError> {
        let mut place = self.place;
        let number = match self.head.pop_front() {
            Some((line, after)) => {
                self.batch.push_str(&line);
                (place.bytes, place.lines) = (after.bytes, after.lines);
                after.lines
            }
            None => {
                let Some((number, line)) = self.lines.next_line()? else { return Ok(false) };
                if is_deep(line) {
                    return Err(bad_line(&self.path, number, format!("it is nested more than {DEPTH} times")));
                }
                self.batch.push_str(line);
                (place.bytes, place.lines) = (self.lines.bytes, self.lines.lines);
                number
            }
        };
        self.batch.push('\n');
        place.rows += 1;
        self.place = place;
        self.ends.push(self.batch.len());
        self.numbers.push(number);
        Ok(true)
    }

    /// The rows of lines; `None` if some line is not one row.
    fn decode(&self, lines: &str, rows: usize) -> Result<Option<RecordBatch>, ArrowError> {
        let mut decoder = self.decoder(rows)?;
        let read = decoder.decode(lines.as_bytes())?;
        // The end of the last line belongs to no row.
        let whole = lines[read..].trim_ascii().is_empty() && !decoder.has_partial_record() && decoder.len() == rows;
        if whole { decoder.flush() } else { Ok(None) }
    }

    /// The first line of the batch that is not a row of this table; `error` is that of all.
    fn find_bad(&self, error: Option<ArrowError>) -> CliError {
        let mut begin = 0;
        for (end, number) in self.ends.iter().zip(&self.numbers) {
            let problem = match self.decode(&self.batch[begin..*end], 1) {
                Ok(Some(_)) => None,
                Ok(None) => Some("a row is one JSON object on one line".to_owned()),
                Err(error) => {
                    let error = shortened(&error.to_string());
                    Some(format!("{error}; the first rows tell the types (--infer looks at more of them)"))
                }
            };
            if let Some(problem) = problem {
                return bad_line(&self.path, *number, problem);
            }
            begin = *end;
        }
        let problem = error.map_or_else(|| "lines that are not rows".to_owned(), |error| error.to_string());
        bad_line(&self.path, self.numbers.first().copied().unwrap_or(1), problem)
    }
}

/// Whether values are nested deeper than any reader of JSON goes.
fn is_deep(line: &str) -> bool {
    let (mut depth, mut text, mut escaped) = (0usize, false, false);
    line.bytes().any(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            b'[' | b'{' if !text => depth += 1,
            b']' | b'}' if !text => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > DEPTH
    })
}

/// A message without most of a long value in it.
fn shortened(message: &str) -> String {
    match message.char_indices().nth(200) {
        Some((at, _)) => format!("{}...", &message[..at]),
        None => message.to_owned(),
    }
}

impl Table for Jsonl {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>, CliError> {
        self.batch.clear();
        self.ends.clear();
        self.numbers.clear();
        while self.ends.len() < self.rows && self.batch.len() < BATCH_BYTES && self.next_line()? {}
        if self.ends.is_empty() {
            return Ok(None);
        }
        match self.decode(&self.batch, self.ends.len()) {
            Ok(Some(batch)) => Ok(Some(batch)),
            Ok(None) => Err(self.find_bad(None)),
            Err(error) => Err(self.find_bad(Some(error))),
        }
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
