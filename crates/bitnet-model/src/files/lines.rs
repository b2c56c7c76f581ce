//! A text file line by line, in bounded memory.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::FileError;
use super::read::open_once;

/// Reads lines up to a maximum length.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    max: usize,
    number: u64,
    raw: Vec<u8>,
}

impl Lines {
    /// Opens a file whose lines have at most `max` bytes.
    ///
    /// # Errors
    /// The errors of [`super::open`].
    pub fn open(path: &Path, what: &'static str, max: usize) -> Result<Self, FileError> {
        let (file, _) = open_once(path, what)?;
        Ok(Self { path: path.to_path_buf(), reader: BufReader::new(file), max, number: 0, raw: Vec::new() })
    }

    /// The next line with its end, and its number, counted from 1.
    ///
    /// # Errors
    /// [`FileError::Line`] for a longer line; [`FileError::Io`].
    pub fn next_line(&mut self) -> Result<Option<(u64, &[u8])>, FileError> {
        self.raw.clear();
        self.number += 1;
        loop {
            let chunk = self.reader.fill_buf().map_err(FileError::io("read", &self.path))?;
            if chunk.is_empty() {
                break;
            }
            let end = chunk.iter().position(|b| *b == b'\n').map(|i| i + 1);
            let n = end.unwrap_or(chunk.len());
            if self.raw.len() + n > self.max {
                return Err(self.bad(format!("it is longer than {} bytes", self.max)));
            }
            self.raw.extend_from_slice(&chunk[..n]);
            self.reader.consume(n);
            if end.is_some() {
                break;
            }
        }
        Ok((!self.raw.is_empty()).then_some((self.number, &self.raw)))
    }

    /// Like [`Lines::next_line`], as text.
    ///
    /// # Errors
    /// The errors of [`Lines::next_line`], and [`FileError::Line`] for a line that is not text.
    pub fn next_text(&mut self) -> Result<Option<(u64, &str)>, FileError> {
        if self.next_line()?.is_none() {
            return Ok(None);
        }
        if self.raw.contains(&0) {
            let problem = "a NUL byte; this is not UTF-8 text (perhaps UTF-16, or a binary file)";
            return Err(self.bad(problem.to_owned()));
        }
        match std::str::from_utf8(&self.raw) {
            Ok(text) => Ok(Some((self.number, text))),
            Err(e) => Err(self.bad(format!("this is not UTF-8 text, its byte {} is invalid", e.valid_up_to()))),
        }
    }

    /// An error in the line that was read last.
    pub fn bad(&self, problem: String) -> FileError {
        FileError::Line { path: self.path.clone(), line: self.number, problem }
    }
}
