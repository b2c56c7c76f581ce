//! Folders that get their name when they are complete.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use super::FileError;
use super::pending::{folder_of, locked_in, sync_folder};
use super::stale::{LOCK, SUFFIX, sweep};

/// A folder that is filled next to its target, and gets its name in one step; if it is dropped before, it is removed.
///
/// Folders cannot be locked on all systems, so a file next to it is locked.
#[derive(Debug)]
pub struct PendingFolder {
    target: PathBuf,
    temporary: PathBuf,
    lock: PathBuf,
    _file: File,
    done: bool,
}

impl PendingFolder {
    /// Begins a folder at `path`, which must not exist or be an empty folder; missing parent folders are created.
    ///
    /// # Errors
    /// [`FileError::NotReplaced`] for anything else, [`FileError::Io`].
    pub fn create(path: &Path) -> Result<Self, FileError> {
        if std::fs::metadata(path).is_ok_and(|meta| !meta.is_dir()) {
            return Err(FileError::NotReplaced { path: path.to_path_buf(), found: "no folder" });
        }
        let parent = folder_of(path);
        std::fs::create_dir_all(parent).map_err(FileError::io("create", parent))?;
        sweep(parent);
        let failed = || FileError::io("create a temporary folder next to", path);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let (file, lock, stem) = locked_in(parent, LOCK, &options).map_err(failed())?;
        let temporary = parent.join(format!("{stem}{SUFFIX}"));
        let pending = Self { target: path.to_path_buf(), temporary, lock, _file: file, done: false };
        std::fs::create_dir(&pending.temporary).map_err(failed())?;
        Ok(pending)
    }

    /// The name until the folder is complete.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// [`FileError::Io`]; then nothing of it remains.
    pub fn commit(mut self) -> Result<(), FileError> {
        if self.target.is_dir() {
            std::fs::remove_dir(&self.target).map_err(FileError::io("replace", &self.target))?;
        }
        std::fs::rename(&self.temporary, &self.target).map_err(FileError::io("rename to", &self.target))?;
        self.done = true;
        sync_folder(folder_of(&self.target));
        Ok(())
    }
}

impl Drop for PendingFolder {
    fn drop(&mut self) {
        if !self.done {
            // A folder that could not get its name is useless.
            let _ = std::fs::remove_dir_all(&self.temporary);
        }
        let _ = std::fs::remove_file(&self.lock);
    }
}
