//! A folder that one process at a time may work in.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use super::FileError;
use super::pending::replaceable;

/// The name of the file that is locked.
const NAME: &str = ".lock";

/// Holds a folder. The system releases it with the process, whatever ends that.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the folder, or says who has it. On a file system without locks it is taken all the same.
    ///
    /// # Errors
    /// [`FileError::InUse`]; [`FileError::Io`] for a folder that cannot be written.
    pub fn take(folder: &Path) -> Result<Self, FileError> {
        let path = folder.join(NAME);
        replaceable(&path)?;
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(FileError::io("write", &path))?;
        match file.try_lock() {
            Ok(()) => {
                // Who holds it, for the message of others; without it they are refused as well.
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
