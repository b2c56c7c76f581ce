//! Reads whole files of a bounded size.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// The bytes of a regular file of at most `limit` bytes. What is no file (a device, a pipe, a folder) is refused before
/// it is opened: some of them never end.
///
/// # Errors
/// What the operating system says; [`ErrorKind::InvalidInput`] and [`ErrorKind::FileTooLarge`].
pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let too_large = || Error::new(ErrorKind::FileTooLarge, format!("it has more than {} MiB", limit >> 20));
    if len > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(too_large()),
        false => Ok(bytes),
    }
}
