//! Temporary files of dead processes.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::Duration;

/// The beginning of temporary names.
pub(super) const PREFIX: &str = ".tmp-";
/// The end of temporary names.
pub(super) const SUFFIX: &str = ".partial";
/// The end of the names of files that are locked for a folder with the same stem.
pub(super) const LOCK: &str = ".lock.partial";
/// A link cannot be locked; it has this name only for a moment.
const OLD_LINK: Duration = Duration::from_secs(600);

/// Whether a name is one that incomplete files have.
pub fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.starts_with(PREFIX.as_bytes()) && name.ends_with(SUFFIX.as_bytes())
}

/// Removes the temporary files and folders in `folder` whose writers are dead: no process holds a lock on them. Without
/// working locks, nothing is removed. Returns the number of removed ones.
pub fn sweep(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    entries.filter(|path| is_temporary(path) && remove_if_stale(path)).count()
}

/// The file at `path`, locked; `None` if another process holds it, or locks do not work.
fn take(path: &Path) -> Option<File> {
    // Locks on network file systems need a file that is open for writing.
    let file = OpenOptions::new().read(true).write(true).open(path).or_else(|_| File::open(path)).ok()?;
    file.try_lock().ok().map(|()| file)
}

fn remove_if_stale(path: &Path) -> bool {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return false };
    if meta.is_symlink() {
        let old = meta.modified().ok().and_then(|t| t.elapsed().ok()).is_some_and(|age| age > OLD_LINK);
        return old && std::fs::remove_file(path).is_ok();
    }
    if meta.is_dir() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let lock = path.with_file_name(format!("{}{LOCK}", name.trim_end_matches(SUFFIX)));
        // Its lock is created before it and removed after it.
        let held = lock.exists().then(|| take(&lock));
        return match held {
            Some(None) => false,
            Some(Some(_)) | None => std::fs::remove_dir_all(path).is_ok(),
        };
    }
    // Anything else with such a name is not ours.
    meta.is_file() && take(path).is_some_and(|_file| std::fs::remove_file(path).is_ok())
}
