//! From text to token files: documents one by one, the end token behind each, some of them kept for validation.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::random::Random;
use super::{TokenWidth, TrainError};

/// How documents lie in a text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// Plain text; a line `<|endoftext|>` stands between documents.
    Plain,
    /// A JSON object on each line, whose field `text` is the document.
    JsonLines,
}

impl TextFormat {
    /// JSON lines where the name ends in `.jsonl` or `.ndjson`, plain text otherwise.
    pub fn of_path(path: &Path) -> Self {
        match path.extension().and_then(|e| e.to_str()) {
            Some("jsonl" | "ndjson") => TextFormat::JsonLines,
            _ => TextFormat::Plain,
        }
    }
}

/// The line between documents of a plain text.
const SEPARATOR: &str = "<|endoftext|>";
/// Longest line read, bytes: more is no text.
const MAX_LINE: usize = 1 << 30;

/// Shows every document of a text file to `see`, in order, reading line by line.
///
/// # Errors
/// A file that cannot be read, is no UTF-8, or has a line that is no JSON object with a text; whatever `see` returns.
pub fn for_each_document(
    path: &Path,
    format: TextFormat,
    see: &mut dyn FnMut(&str) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let mut reader = BufReader::new(File::open(path).map_err(TrainError::io("open", path))?);
    let bad = |line: u64, problem: &str| TrainError::File {
        path: path.to_path_buf(),
        problem: format!("line {line}: {problem}"),
    };
    let (mut raw, mut document, mut number) = (Vec::new(), String::new(), 0u64);
    loop {
        raw.clear();
        let mut limited = std::io::Read::take(&mut reader, MAX_LINE as u64);
        let read = limited.read_until(b'\n', &mut raw).map_err(TrainError::io("read", path))?;
        if read == 0 {
            break;
        }
        if read == MAX_LINE {
            return Err(bad(number + 1, "longer than 1 GiB"));
        }
        number += 1;
        let line = std::str::from_utf8(&raw).map_err(|_| bad(number, "this is not UTF-8 text"))?;
        match format {
            TextFormat::Plain if line.trim_end() == SEPARATOR => {
                let text = document.trim_matches('\n');
                if !text.is_empty() {
                    see(text)?;
                }
                document.clear();
            }
            TextFormat::Plain => document.push_str(line),
            TextFormat::JsonLines if line.trim().is_empty() => {}
            TextFormat::JsonLines => {
                let value: serde_json::Value =
                    serde_json::from_str(line).map_err(|e| bad(number, &format!("not JSON: {e}")))?;
                let text = value.get("text").and_then(serde_json::Value::as_str);
                see(text.ok_or_else(|| bad(number, "no field \"text\" with a string"))?)?;
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
    path: PathBuf,
    partial: PathBuf,
    out: BufWriter<File>,
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
        let partial = path.with_extension("partial");
        let out = BufWriter::new(File::create(&partial).map_err(TrainError::io("create", &partial))?);
        Ok(Self { path: path.to_path_buf(), partial, out, width, tokens: 0 })
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
            written.map_err(TrainError::io("write", &self.partial))?;
        }
        self.tokens += ids.len() as u64;
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn finish(mut self) -> Result<u64, TrainError> {
        self.out.flush().map_err(TrainError::io("write", &self.partial))?;
        std::fs::rename(&self.partial, &self.path).map_err(TrainError::io("rename to", &self.path))?;
        Ok(self.tokens)
    }
}

/// Which documents are kept for validation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Split {
    /// Share of the documents, 0..=1.
    pub validation: f64,
    /// What decides which.
    pub seed: u64,
}

/// What [`Split::prepare`] wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Documents.
    pub documents: u64,
    /// Tokens to learn from.
    pub train_tokens: u64,
    /// Tokens to validate with.
    pub validation_tokens: u64,
    /// Examples that are longer than a window, and left out.
    pub too_long: u64,
}

impl Split {
    /// Whether the document of this number is kept for validation.
    pub(super) fn keeps(self, document: u64) -> bool {
        let mut random = Random::new(self.seed ^ document.wrapping_mul(0x9e37_79b9_7f4a_7c15), "split");
        random.unit() < self.validation
    }

    /// Turns text files into two files of token ids: `encode` tokenises a document, `eos` is put behind each.
    ///
    /// # Errors
    /// Files that cannot be read or written; what `encode` refuses.
    pub fn prepare(
        self,
        texts: &[PathBuf],
        [train, validation]: [&Path; 2],
        width: TokenWidth,
        eos: u32,
        encode: &mut dyn FnMut(&str) -> Result<Vec<u32>, String>,
    ) -> Result<Prepared, TrainError> {
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
