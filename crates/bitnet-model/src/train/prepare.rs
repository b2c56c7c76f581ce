//! From text to token files: documents one by one, with the end token after each, some of them kept for validation.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::random::Random;
use super::{TokenWidth, TrainError};
use crate::files::{FileError, Lines, Pending};

/// The format of documents in a text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// Plain text; a line `<|endoftext|>` separates documents.
    Plain,
    /// A JSON object on each line, whose field `text` is the document.
    JsonLines,
}

impl TextFormat {
    /// JSON lines if the name ends in `.jsonl` or `.ndjson`, plain text otherwise.
    pub fn of_path(path: &Path) -> Self {
        match path.extension().and_then(|e| e.to_str()) {
            Some("jsonl" | "ndjson") => TextFormat::JsonLines,
            _ => TextFormat::Plain,
        }
    }
}

/// The line between documents of a plain text.
const SEPARATOR: &str = "<|endoftext|>";
/// The longest line that is read, in bytes: anything longer is not text.
pub(super) const MAX_LINE: usize = 64 << 20;
/// Longest document, bytes.
const MAX_DOCUMENT: usize = 256 << 20;
/// Kind of file, for messages.
pub(super) const WHAT: &str = "text to learn";

/// Passes every document of a text file to `see`, in order, reading line by line: lines of at most 64 MiB, documents of
/// at most 256 MiB.
///
/// # Errors
/// A file that cannot be read, is not a regular file or not UTF-8 text, or has a line that is too long or not a JSON
/// object with a text; a document that is too long; the errors of `see`.
pub fn for_each_document(
    path: &Path,
    format: TextFormat,
    see: &mut dyn FnMut(&str) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let mut lines = Lines::open(path, WHAT, MAX_LINE)?;
    let mut document = String::new();
    while let Some((number, line)) = lines.next_text()? {
        let bad = |problem: String| FileError::Line { path: path.to_path_buf(), line: number, problem };
        match format {
            TextFormat::Plain if line.trim_end() == SEPARATOR => {
                let text = document.trim_matches('\n');
                if !text.is_empty() {
                    see(text)?;
                }
                document.clear();
            }
            TextFormat::Plain if document.len() + line.len() > MAX_DOCUMENT => {
                let problem =
                    format!("a document of more than {MAX_DOCUMENT} bytes; put lines {SEPARATOR} between documents");
                return Err(bad(problem).into());
            }
            TextFormat::Plain => document.push_str(line),
            TextFormat::JsonLines if line.trim().is_empty() => {}
            TextFormat::JsonLines => {
                let value: serde_json::Value = serde_json::from_str(line).map_err(|e| bad(format!("not JSON: {e}")))?;
                let text = value.get("text").and_then(serde_json::Value::as_str);
                see(text.ok_or_else(|| bad("no field \"text\" with a string".to_owned()))?)?;
            }
        }
    }
    let text = document.trim_matches('\n');
    if !text.is_empty() {
        see(text)?;
    }
    Ok(())
}

/// Writes ids to a file that gets its name when it is complete.
#[derive(Debug)]
pub struct TokenWriter {
    out: BufWriter<Pending>,
    width: TokenWidth,
    /// Tokens written.
    pub tokens: u64,
}

impl TokenWriter {
    /// For a file `path` of ids of this width.
    ///
    /// # Errors
    /// A file that cannot be created.
    pub fn create(path: &Path, width: TokenWidth) -> Result<Self, TrainError> {
        Ok(Self { out: BufWriter::new(Pending::create(path)?), width, tokens: 0 })
    }

    /// Appends ids.
    ///
    /// # Errors
    /// An id that is too large for the width; a file that cannot be written.
    pub fn write(&mut self, ids: &[u32]) -> Result<(), TrainError> {
        for &id in ids {
            let written = match self.width {
                TokenWidth::U16 => match u16::try_from(id) {
                    Ok(id) => self.out.write_all(&id.to_le_bytes()),
                    Err(_) => {
                        let value = id.to_string();
                        return Err(TrainError::Option {
                            option: "token id",
                            value,
                            must: "below 65536 in a .u16 file",
                        });
                    }
                },
                TokenWidth::U32 => self.out.write_all(&id.to_le_bytes()),
            };
            written.map_err(|e| self.out.get_ref().failed(e))?;
        }
        self.tokens += ids.len() as u64;
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn finish(mut self) -> Result<u64, TrainError> {
        self.out.flush().map_err(|e| self.out.get_ref().failed(e))?;
        let (pending, _) = self.out.into_parts();
        pending.commit()?;
        Ok(self.tokens)
    }
}

/// The choice of documents that are kept for validation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Split {
    /// Share of the documents, 0..=1.
    pub validation: f64,
    /// Seed of the choice.
    pub seed: u64,
}

/// Counts of [`Split::prepare`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Documents.
    pub documents: u64,
    /// Tokens for training.
    pub train_tokens: u64,
    /// Tokens for validation.
    pub validation_tokens: u64,
    /// Examples that are longer than a window, and therefore left out.
    pub too_long: u64,
}

impl Split {
    /// Rejects an invalid share.
    pub(super) fn check(self) -> Result<(), TrainError> {
        match (0.0..=1.0).contains(&self.validation) {
            true => Ok(()),
            false => {
                let value = self.validation.to_string();
                Err(TrainError::Option { option: "the share for validation", value, must: "from 0 to 1" })
            }
        }
    }

    /// Whether the document with this number is kept for validation.
    pub(super) fn keeps(self, document: u64) -> bool {
        let mut random = Random::new(self.seed ^ document.wrapping_mul(0x9e37_79b9_7f4a_7c15), "split");
        random.unit() < self.validation
    }

    /// Converts text files to two files of token ids: `encode` tokenises a document, `eos` is appended to each.
    ///
    /// # Errors
    /// Files that cannot be read or written; the errors of `encode`.
    pub fn prepare(
        self,
        texts: &[PathBuf],
        [train, validation]: [&Path; 2],
        width: TokenWidth,
        eos: u32,
        encode: &mut dyn FnMut(&str) -> Result<Vec<u32>, String>,
    ) -> Result<Prepared, TrainError> {
        self.check()?;
        let (mut train, mut valid) = (TokenWriter::create(train, width)?, TokenWriter::create(validation, width)?);
        let mut documents = 0;
        for path in texts {
            for_each_document(path, TextFormat::of_path(path), &mut |text| {
                let document = documents;
                documents += 1;
                let mut ids = encode(text).map_err(|problem| TrainError::Tokenize { document, problem })?;
                ids.push(eos);
                if self.keeps(document) { valid.write(&ids) } else { train.write(&ids) }
            })?;
        }
        Ok(Prepared { documents, train_tokens: train.finish()?, validation_tokens: valid.finish()?, too_long: 0 })
    }
}
