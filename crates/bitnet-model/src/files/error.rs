//! Errors of files.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

/// The reason why a file could not be read or written. Every message names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields that are named after what they hold have no comment")]
pub enum FileError {
    /// The operating system failed the operation.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// The operation: `read`, `write`, ...
        op: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: Error,
    },
    /// A pipe, a device, a socket or a folder instead of a file to read.
    #[error("{} is {found}; {what} is read from a regular file", path.display())]
    NotRegular {
        path: PathBuf,
        /// Kind of file that was expected.
        what: &'static str,
        /// Kind of the path.
        found: &'static str,
    },
    /// A pipe, a device, a socket or a folder instead of a file to write.
    #[error("{} is {found} and is not replaced; name a file", path.display())]
    NotReplaced {
        path: PathBuf,
        /// Kind of the path.
        found: &'static str,
    },
    /// More bytes than the limit for this kind of file.
    #[error("{} is too large for {what}: at most {max} bytes are read", path.display())]
    TooLarge {
        /// The file or stream.
        path: PathBuf,
        /// Kind of file that was expected.
        what: &'static str,
        /// Its length in bytes; if unknown, the bytes read so far.
        len: u64,
        /// The limit, bytes.
        max: u64,
    },
    /// Bytes that are not text.
    #[error("{} is not UTF-8 text: the byte at {at} is invalid", path.display())]
    NotUtf8 {
        /// The file or stream.
        path: PathBuf,
        /// Offset of the first invalid byte.
        at: usize,
    },
    /// A line that cannot be used.
    #[error("{}: line {line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// The problem.
        problem: String,
    },
    /// The disk is full, or a quota is used up. Nothing half-written remains.
    #[error("there is no space for {}{}: {source}; free some space and try again", path.display(), amounts(*needed, *written))]
    Full {
        /// The file that was to be written.
        path: PathBuf,
        /// Bytes that it needs, as far as known.
        needed: u64,
        /// Bytes that could be written.
        written: u64,
        /// The system's reason.
        source: Error,
    },
    /// Another process is working in the folder.
    #[error("{} is in use by {}; wait until it has ended, or use another folder", path.display(), by(*holder))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The process that holds it, if it is known.
        holder: Option<u32>,
    },
}

fn by(holder: Option<u32>) -> String {
    holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

fn amounts(needed: u64, written: u64) -> String {
    match (needed, written) {
        (0 | 1, 0) => String::new(),
        (needed, written) => format!(", which needs {needed} bytes ({written} could be written)"),
    }
}

/// Whether the system reports that there is no space.
pub(super) fn is_full(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// A copy of the error: system errors cannot be cloned.
pub(super) fn again(error: &Error) -> Error {
    error.raw_os_error().map_or_else(|| Error::new(error.kind(), error.to_string()), Error::from_raw_os_error)
}

impl FileError {
    /// Adds file and operation to a system error.
    pub fn io(op: &'static str, path: &Path) -> impl FnOnce(Error) -> Self {
        let path = path.to_path_buf();
        move |source| match is_full(&source) {
            true => Self::Full { path, needed: 1, written: 0, source },
            false => Self::Io { op, path, source },
        }
    }

    /// Whether the reason is that the file does not exist.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == ErrorKind::NotFound)
    }
}
