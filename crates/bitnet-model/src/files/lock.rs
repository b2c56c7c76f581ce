//! A folder that only one process at a time may work in.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use super::FileError;
use super::pending::replaceable;

/// The name of the locked file.
const NAME: &str = ".lock";

/// Holds a folder. The system releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Locks the folder, or returns its holder. On a file system without locks it succeeds without a lock.
    ///
    /// # Errors
    /// [`FileError::InUse`]; [`FileError::Io`] for a folder that cannot be written to.
    pub fn take(folder: &Path) -> Result<Self, FileError> {
        let path = folder.join(NAME);
        replaceable(&path)?;
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(FileError::io("write", &path))?;
        match file.try_lock() {
            Ok(()) => {
                // The holder, for the messages of other processes; they are rejected even without it.
                let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                Ok(Self { _file: file })
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = (&file).take(20).read_to_string(&mut text);
                let holder = read.ok().and_then(|_| text.trim().parse().ok());
                Err(FileError::InUse { path: folder.to_path_buf(), holder })
            }
            Err(TryLockError::Error(error)) => {
                tracing::debug!(%error, path = %path.display(), "no locks here");
                Ok(Self { _file: file })
            }
        }
    }
}
