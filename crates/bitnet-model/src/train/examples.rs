//! Examples instead of text: each has a prompt, which is given, and a completion, which is learned.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::prepare::{MAX_LINE, Prepared, Split, TokenWriter, WHAT};
use super::{GIVEN, TokenWidth, TrainError};
use crate::files::{FileError, Lines};

/// A prompt and the completion to learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Example<'a> {
    /// The text that is read.
    pub prompt: &'a str,
    /// The text that is learned, without the token that ends it.
    pub completion: &'a str,
}

/// Windows that are filled at the same time.
const OPEN: usize = 32;

/// Passes every example of a file to `see`: a JSON object on each line, with the fields `prompt` and `completion`.
///
/// # Errors
/// A file that cannot be read or is not a regular file; a line that is too long or not such an object; the errors of
/// `see`.
pub fn for_each_example(
    path: &Path,
    see: &mut dyn FnMut(Example<'_>) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let mut lines = Lines::open(path, WHAT, MAX_LINE)?;
    while let Some((number, line)) = lines.next_text()? {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let bad = |problem: String| FileError::Line { path: path.to_path_buf(), line: number, problem };
        let value: Value = serde_json::from_str(line).map_err(|e| bad(format!("not JSON: {e}")))?;
        let field = |name: &str| {
            let text = value.get(name).and_then(Value::as_str);
            text.ok_or_else(|| bad(format!("no field {name:?} with a string, which examples need")))
        };
        see(Example { prompt: field("prompt")?, completion: field("completion")? })?;
    }
    Ok(())
}

/// Whether a file of JSON lines contains examples: its first object has a field `prompt`.
///
/// # Errors
/// A file that cannot be read or is not a regular file.
pub fn holds_examples(path: &Path) -> Result<bool, TrainError> {
    let mut lines = Lines::open(path, WHAT, MAX_LINE)?;
    while let Some((_, line)) = lines.next_line()? {
        if !line.trim_ascii().is_empty() {
            return Ok(serde_json::from_slice::<Value>(line).is_ok_and(|v| v.get("prompt").is_some()));
        }
    }
    Ok(false)
}

/// Fills windows of `room` ids with whole examples, several at a time so that little room is wasted.
struct Packer {
    out: TokenWriter,
    room: usize,
    pad: u32,
    open: Vec<Vec<u32>>,
}

impl Packer {
    fn new(path: &Path, room: usize, pad: u32) -> Result<Self, TrainError> {
        Ok(Self { out: TokenWriter::create(path, TokenWidth::U32)?, room, pad, open: Vec::new() })
    }

    fn push(&mut self, ids: &[u32]) -> Result<(), TrainError> {
        if let Some(window) = self.open.iter_mut().find(|w| w.len() + ids.len() <= self.room) {
            window.extend(ids);
            return Ok(());
        }
        if self.open.len() == OPEN {
            let fullest = (0..OPEN).max_by_key(|i| self.open[*i].len()).unwrap_or(0);
            let window = self.open.remove(fullest);
            self.close(window)?;
        }
        self.open.push(ids.to_vec());
        Ok(())
    }

    fn close(&mut self, mut window: Vec<u32>) -> Result<(), TrainError> {
        window.resize(self.room, self.pad | GIVEN);
        self.out.write(&window)
    }

    fn finish(mut self) -> Result<u64, TrainError> {
        for window in std::mem::take(&mut self.open) {
            self.close(window)?;
        }
        self.out.finish()
    }
}

/// Returns the token ids of an example's prompt and completion, or an error message.
type Encode<'a> = dyn FnMut(Example<'_>) -> Result<[Vec<u32>; 2], String> + 'a;

impl Split {
    /// Converts files of examples to two files of windows of `t + 1` ids
    /// ([`TokenFile::open_examples`](super::TokenFile::open_examples)): `encode` tokenises prompt and completion,
    /// including the beginning-of-text token before the prompt; `eos` is appended to each and learned with the
    /// completion. Examples that are longer than a window are left out and counted.
    ///
    /// # Errors
    /// Files that cannot be read or written; the errors of `encode`; an id of 2^31 or more;
    /// [`TrainError::NothingToLearn`] if every completion is empty.
    pub fn prepare_examples(
        self,
        files: &[PathBuf],
        [train, validation]: [&Path; 2],
        t: usize,
        eos: u32,
        encode: &mut Encode<'_>,
    ) -> Result<Prepared, TrainError> {
        self.check()?;
        let [mut train, mut valid] = [Packer::new(train, t + 1, eos)?, Packer::new(validation, t + 1, eos)?];
        let mut done = Prepared::default();
        let mut empty = true;
        for path in files {
            for_each_example(path, &mut |example| {
                let document = done.documents;
                done.documents += 1;
                let failed = |problem: String| TrainError::Tokenize { document, problem };
                let [prompt, completion] = encode(example).map_err(failed)?;
                empty &= completion.is_empty();
                let ids: Vec<u32> =
                    prompt.iter().map(|id| id | GIVEN).chain(completion.iter().copied()).chain([eos]).collect();
                if prompt.iter().chain(&completion).any(|id| id & GIVEN != 0) {
                    return Err(failed("ids of examples must be below 2^31".to_owned()));
                }
                if ids.len() > t + 1 {
                    done.too_long += 1;
                    return Ok(());
                }
                if self.keeps(document) { valid.push(&ids) } else { train.push(&ids) }
            })?;
        }
        if let (Some(path), true) = (files.first(), empty) {
            // Only the ends of texts would be learned.
            let problem = if done.documents == 0 { "it holds no example" } else { "every completion is empty" };
            return Err(TrainError::NothingToLearn { path: path.clone(), problem });
        }
        (done.train_tokens, done.validation_tokens) = (train.finish()?, valid.finish()?);
        Ok(done)
    }
}
