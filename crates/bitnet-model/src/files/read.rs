//! Reading within bounds, only from files.

use std::fs::{File, FileType, Metadata};
use std::io::Read;
use std::path::Path;

use super::FileError;

/// Kind of file, for messages, and its largest size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// With its article: `a text`.
    pub what: &'static str,
    /// The most bytes that are read.
    pub max: u64,
}

impl Kind {
    /// A text to read, encode or predict: 256 MiB.
    pub const TEXT: Self = Self::new("a text", 256 << 20);
    /// A list of questions: 256 MiB.
    pub const QUESTIONS: Self = Self::new("a list of questions", 256 << 20);
    /// A saved conversation: 256 MiB.
    pub const CONVERSATION: Self = Self::new("a conversation", 256 << 20);
    /// A tokenizer: 256 MiB.
    pub const TOKENIZER: Self = Self::new("a tokenizer", 256 << 20);
    /// A configuration: 64 MiB.
    pub const CONFIG: Self = Self::new("a configuration", 64 << 20);
    /// A JSON Schema: 64 MiB.
    pub const SCHEMA: Self = Self::new("a JSON Schema", 64 << 20);
    /// A grammar: 64 MiB.
    pub const GRAMMAR: Self = Self::new("a grammar", 64 << 20);
    /// A chat template: 64 MiB.
    pub const TEMPLATE: Self = Self::new("a chat template", 64 << 20);
    /// A key or a token of an account: 64 KiB.
    pub const KEY: Self = Self::new("a key", 64 << 10);

    /// Another kind of file.
    pub const fn new(what: &'static str, max: u64) -> Self {
        Self { what, max }
    }
}

/// Kind of a path that is not a regular file.
pub(super) fn special(kind: FileType) -> Option<&'static str> {
    if kind.is_file() {
        return None;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let known = [
            (kind.is_fifo(), "a named pipe"),
            (kind.is_socket(), "a socket"),
            (kind.is_char_device(), "a device"),
            (kind.is_block_device(), "a block device"),
        ];
        if let Some((_, name)) = known.into_iter().find(|k| k.0) {
            return Some(name);
        }
    }
    Some(if kind.is_dir() { "a folder" } else { "not a regular file" })
}

/// Metadata of the regular file at `path`; links are followed, and nothing is opened.
///
/// # Errors
/// [`FileError::NotRegular`] for anything else; [`FileError::Io`] if it does not exist.
pub fn regular(path: &Path, what: &'static str) -> Result<Metadata, FileError> {
    let meta = std::fs::metadata(path).map_err(FileError::io("read", path))?;
    match special(meta.file_type()) {
        None => Ok(meta),
        Some(found) => Err(FileError::NotRegular { path: path.to_path_buf(), what, found }),
    }
}

/// Opens a regular file; returns it with its length in bytes.
///
/// # Errors
/// The errors of [`regular`].
pub fn open(path: &Path, what: &'static str) -> Result<(File, u64), FileError> {
    // Opening a pipe waits for its writer, so its kind is checked first. The file may have been replaced in between.
    regular(path, what)?;
    let file = File::open(path).map_err(FileError::io("read", path))?;
    let meta = file.metadata().map_err(FileError::io("read", path))?;
    match special(meta.file_type()) {
        None => Ok((file, meta.len())),
        Some(found) => Err(FileError::NotRegular { path: path.to_path_buf(), what, found }),
    }
}

/// Whether a path names a descriptor that was passed to this process: standard input, or a pipe of the shell.
fn handed_over(path: &Path) -> bool {
    let number = |rest: &Path| rest.to_str().is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    path == Path::new("/dev/stdin")
        || ["/dev/fd", "/proc/self/fd"].iter().any(|folder| path.strip_prefix(folder).is_ok_and(number))
}

/// Opens a file that is read once from beginning to end: a regular file, or a descriptor that the caller passes.
pub(super) fn open_once(path: &Path, what: &'static str) -> Result<(File, u64), FileError> {
    match handed_over(path) {
        true => Ok((File::open(path).map_err(FileError::io("read", path))?, 0)),
        false => open(path, what),
    }
}

/// Reads a whole file.
///
/// # Errors
/// [`FileError::NotRegular`], [`FileError::TooLarge`], [`FileError::Io`].
pub fn read(path: &Path, kind: Kind) -> Result<Vec<u8>, FileError> {
    let (file, len) = open_once(path, kind.what)?;
    if len > kind.max {
        return Err(FileError::TooLarge { path: path.to_path_buf(), what: kind.what, len, max: kind.max });
    }
    read_stream(file, path, kind)
}

/// Reads a stream to its end; messages call it `name`.
///
/// # Errors
/// [`FileError::TooLarge`], [`FileError::Io`].
pub fn read_stream(stream: impl Read, name: &Path, kind: Kind) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    stream.take(kind.max.saturating_add(1)).read_to_end(&mut bytes).map_err(FileError::io("read", name))?;
    match bytes.len() as u64 {
        len if len > kind.max => {
            Err(FileError::TooLarge { path: name.to_path_buf(), what: kind.what, len, max: kind.max })
        }
        _ => Ok(bytes),
    }
}

/// Reads a whole text.
///
/// # Errors
/// The errors of [`read`]; [`FileError::NotUtf8`].
pub fn read_text(path: &Path, kind: Kind) -> Result<String, FileError> {
    text(read(path, kind)?, path)
}

/// Converts bytes to text; messages call them `name`.
///
/// # Errors
/// [`FileError::NotUtf8`] with the first invalid byte.
pub fn text(bytes: Vec<u8>, name: &Path) -> Result<String, FileError> {
    let failed = |e: std::string::FromUtf8Error| e.utf8_error().valid_up_to();
    String::from_utf8(bytes).map_err(|e| FileError::NotUtf8 { path: name.to_path_buf(), at: failed(e) })
}
