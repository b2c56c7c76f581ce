//! Files that get their name when they are complete.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{again, is_full};
use super::read::special;
use super::stale::{LOCK, PREFIX, SUFFIX, sweep};
use super::{FileError, is_temporary};

/// The maximum number of links that are followed.
const MAX_LINKS: usize = 40;
/// The maximum number of names that are tried.
const MAX_NAMES: usize = 100;

/// The target of `path`: links are followed, even to files that do not exist.
pub fn resolve(path: &Path) -> PathBuf {
    let mut at = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        let Ok(to) = std::fs::read_link(&at) else { break };
        at = at.parent().unwrap_or(Path::new("")).join(to);
    }
    at
}

/// Whether there is a regular file at `path`, which writing would replace; links are followed.
///
/// # Errors
/// [`FileError::NotReplaced`] for a pipe, a device, a socket or a folder, which are never replaced.
pub fn replaceable(path: &Path) -> Result<bool, FileError> {
    match std::fs::metadata(path) {
        Ok(meta) => match special(meta.file_type()) {
            None => Ok(true),
            Some(found) => Err(FileError::NotReplaced { path: path.to_path_buf(), found }),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(FileError::io("write", path)(e)),
    }
}

pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A unique stem for a temporary name.
fn stem() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    format!("{PREFIX}{}-{now:x}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A new file in `folder`, locked by this process, with its path and the stem of its name.
pub(super) fn locked_in(
    folder: &Path,
    ending: &str,
    options: &OpenOptions,
) -> std::io::Result<(File, PathBuf, String)> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
    for _ in 0..MAX_NAMES {
        let stem = stem();
        let path = folder.join(format!("{stem}{ending}"));
        let file = match options.open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                last = e;
                continue;
            }
            Err(e) => return Err(e),
        };
        // In between, a sweep may have taken it for a file of a dead process.
        match file.try_lock() {
            Ok(()) if path.exists() => return Ok((file, path, stem)),
            Err(TryLockError::Error(_)) => return Ok((file, path, stem)),
            Ok(()) | Err(TryLockError::WouldBlock) => {
                let _ = std::fs::remove_file(&path);
            }
        }
    }
    Err(last)
}

/// A file that is written next to its target, and replaces it in one step; if it is dropped before, it is removed.
#[derive(Debug)]
pub struct Pending {
    /// The path as the caller named it, for messages.
    shown: PathBuf,
    target: PathBuf,
    temporary: PathBuf,
    file: File,
    needed: u64,
    written: u64,
    full: Option<std::io::Error>,
    done: bool,
}

impl Pending {
    /// Begins a file at `path`, with the permissions of the file that it replaces, or otherwise those of a new file. A
    /// link is followed and kept. Files that dead processes left in the folder are removed.
    ///
    /// # Errors
    /// [`FileError::NotReplaced`], [`FileError::Io`], [`FileError::Full`].
    pub fn create(path: &Path) -> Result<Self, FileError> {
        Self::begin(path, false)
    }

    /// Like [`Pending::create`], but a new file is only accessible to its owner.
    ///
    /// # Errors
    /// The errors of [`Pending::create`].
    pub fn private(path: &Path) -> Result<Self, FileError> {
        Self::begin(path, true)
    }

    fn begin(path: &Path, private: bool) -> Result<Self, FileError> {
        let replaces = replaceable(path)?;
        let target = resolve(path);
        let folder = folder_of(&target);
        sweep(folder);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        if private {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let _ = private;
        let made = locked_in(folder, SUFFIX, &options);
        let (file, temporary, _) = made.map_err(FileError::io("create a temporary file next to", path))?;
        if replaces && let Ok(meta) = std::fs::metadata(&target) {
            // If the permissions cannot be kept, those of a new file are fine.
            let _ = file.set_permissions(meta.permissions());
        }
        let shown = path.to_path_buf();
        Ok(Self { shown, target, temporary, file, needed: 0, written: 0, full: None, done: false })
    }

    /// Sets the expected number of bytes, for the message of a full disk.
    pub fn expect(&mut self, bytes: u64) {
        self.needed = bytes;
    }

    /// The name until the file is complete.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// [`FileError::Full`] if a write failed because the disk is full.
    pub fn full(&self) -> Option<FileError> {
        let source = again(self.full.as_ref()?);
        let needed = self.needed.max(self.written.saturating_add(1));
        Some(FileError::Full { path: self.shown.clone(), needed, written: self.written, source })
    }

    /// The error of a failed write to the file.
    pub fn failed(&self, source: std::io::Error) -> FileError {
        self.full().unwrap_or_else(|| FileError::io("write", &self.shown)(source))
    }

    /// Makes sure that the written data is on the disk.
    ///
    /// # Errors
    /// [`FileError::Full`], [`FileError::Io`].
    pub fn sync(&mut self) -> Result<(), FileError> {
        let synced = self.file.sync_all();
        synced.map_err(|e| {
            self.note(&e);
            self.failed(e)
        })
    }

    /// Lets others read the file under its temporary name, if a lock prevents that.
    pub fn let_read(&self) {
        if cfg!(windows) {
            let _ = self.file.unlock();
        }
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// [`FileError::Full`], [`FileError::Io`]; then nothing of it remains.
    pub fn commit(mut self) -> Result<(), FileError> {
        self.sync()?;
        std::fs::rename(&self.temporary, &self.target).map_err(FileError::io("rename to", &self.shown))?;
        self.done = true;
        sync_folder(folder_of(&self.target));
        Ok(())
    }

    fn note(&mut self, error: &std::io::Error) {
        if is_full(error) {
            self.full = Some(again(error));
        }
    }
}

impl Write for Pending {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.file.write(bytes) {
            Ok(n) => {
                self.written = self.written.saturating_add(n as u64);
                Ok(n)
            }
            Err(e) => {
                self.note(&e);
                self.needed = self.needed.max(self.written.saturating_add(bytes.len() as u64));
                Err(e)
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// The name of a file is durable once its folder is. Some file systems cannot flush folders; then only a power failure
/// could restore the old file.
pub(super) fn sync_folder(folder: &Path) {
    if cfg!(unix)
        && let Ok(f) = File::open(folder)
    {
        let _ = f.sync_all();
    }
}

/// Writes a file completely or not at all.
///
/// # Errors
/// [`FileError::NotReplaced`], [`FileError::Full`], [`FileError::Io`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut pending = Pending::create(path)?;
    pending.expect(bytes.len() as u64);
    pending.write_all(bytes).map_err(|e| pending.failed(e))?;
    pending.commit()
}

/// Puts what `make` creates under a temporary name, for example a link, in place of `path`. A link at `path` is
/// replaced, not followed.
///
/// # Errors
/// [`FileError::Io`]; the errors of `make`.
pub fn replace_with(path: &Path, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), FileError> {
    let folder = folder_of(path);
    sweep(folder);
    let temporary = folder.join(format!("{}{SUFFIX}", stem()));
    debug_assert!(is_temporary(&temporary) && !temporary.to_string_lossy().ends_with(LOCK));
    let made = make(&temporary).and_then(|()| std::fs::rename(&temporary, path));
    // Renaming one name of a file to another name of the same file does nothing and succeeds.
    let _ = std::fs::remove_file(&temporary);
    made.map_err(FileError::io("write", path))
}
