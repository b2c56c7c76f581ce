//! Lines of a stream, in bounded memory.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use loader::files::FileError;

use super::{ROW_BYTES, bad_line, checked};
use crate::error::CliError;

/// The mark at the beginning of files that some programs write.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Reads lines and counts them.
pub(super) struct Lines {
    path: PathBuf,
    stream: BufReader<Box<dyn Read>>,
    /// Lines before the next one.
    pub(super) lines: u64,
    /// Bytes before the next one.
    pub(super) bytes: u64,
    raw: Vec<u8>,
}

impl Lines {
    pub(super) fn new(stream: Box<dyn Read>, path: &Path, lines: u64, bytes: u64) -> Self {
        let stream = BufReader::with_capacity(1 << 16, stream);
        Self { path: path.to_path_buf(), stream, lines, bytes, raw: Vec::new() }
    }

    /// The next line that is not empty, without its end, and its number; `None` at the end.
    ///
    /// # Errors
    /// [`FileError::Line`] for a line that is too long or not text.
    pub(super) fn next_line(&mut self) -> Result<Option<(u64, &str)>, CliError> {
        loop {
            self.raw.clear();
            let most = ROW_BYTES as u64 + 1;
            let read = self.stream.by_ref().take(most).read_until(b'\n', &mut self.raw);
            let n = read.map_err(FileError::io("read", &self.path))?;
            if n == 0 {
                return Ok(None);
            }
            let number = self.lines + 1;
            if n > ROW_BYTES {
                return Err(bad_line(&self.path, number, format!("it is longer than {ROW_BYTES} bytes")));
            }
            if self.bytes == 0 && self.raw.starts_with(BOM) {
                self.raw.drain(..BOM.len());
            }
            self.lines = number;
            self.bytes += n as u64;
            if !self.raw.trim_ascii().is_empty() {
                return checked(self.raw.trim_ascii(), &self.path, number).map(|text| Some((number, text)));
            }
        }
    }
}
