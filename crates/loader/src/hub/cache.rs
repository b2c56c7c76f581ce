//! The cache on disk, with the layout of Hugging Face's tools, so that all of them share their downloads.
//!
//! ```text
//! CACHE/models--OWNER--NAME/refs/REVISION                a commit
//!                           blobs/ETAG                   the content of a file
//!                           blobs/ETAG.incomplete        what has come of it
//!                           snapshots/COMMIT/FILE        a link to its blob
//! CACHE/.locks/models--OWNER--NAME/ETAG.lock             held while a blob is written
//! ```

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::HubError;
use crate::files::{self, FileError, Kind};

/// Attaches a path to an error of the operating system.
pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> HubError {
    let path = path.to_owned();
    move |source| match FileError::io("write", &path)(source) {
        FileError::Io { path, source, .. } => HubError::Io { path, source },
        full => HubError::File(full),
    }
}

/// A part of a path that cannot lead elsewhere, on any operating system.
fn is_plain(part: &str) -> bool {
    let bad = |c: char| c.is_control() || r#"\:*?"<>|"#.contains(c);
    !part.is_empty() && part != "." && part != ".." && part.len() <= 255 && !part.contains(bad)
}

/// Whether every part of a `/`-separated path is plain.
pub(super) fn is_safe(path: &str) -> bool {
    path.split('/').all(is_plain)
}

/// Whether a string is a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|c| c.is_ascii_hexdigit())
}

/// The part of the cache for one repository.
#[derive(Debug, Clone)]
pub(super) struct RepoCache {
    cache_dir: PathBuf,
    folder: String,
}

impl RepoCache {
    /// The place of a model repository; names of repositories are `name` or `owner/name`.
    pub(super) fn new(cache_dir: &Path, repo: &str) -> Result<Self, HubError> {
        let plain = |part: &str| {
            is_plain(part)
                && !part.starts_with('.')
                && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
        };
        if repo.split('/').count() > 2 || !repo.split('/').all(plain) {
            return Err(HubError::BadRepo { repo: repo.to_owned() });
        }
        Ok(Self { cache_dir: cache_dir.to_owned(), folder: format!("models--{}", repo.replace('/', "--")) })
    }

    fn dir(&self) -> PathBuf {
        self.cache_dir.join(&self.folder)
    }

    /// Its folder, and the folder of its locks.
    pub(super) fn folders(&self) -> [PathBuf; 2] {
        [self.dir(), self.cache_dir.join(".locks").join(&self.folder)]
    }

    fn ref_path(&self, revision: &str) -> PathBuf {
        self.dir().join("refs").join(revision)
    }

    /// The commit of a revision, if the cache has it.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let commit = files::read_text(&self.ref_path(revision), Kind::KEY).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_plain(commit))
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir().join("snapshots").join(commit)
    }

    /// The content of a file.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.dir().join("blobs").join(etag)
    }

    /// Remembers the commit of a revision.
    pub(super) fn write_ref(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        let path = self.ref_path(revision);
        let parent = path.parent().unwrap_or(&path);
        std::fs::create_dir_all(parent).map_err(io(parent))?;
        Ok(files::write(&path, commit.as_bytes())?)
    }

    /// Waits until no other process writes a blob; the lock ends with the file.
    pub(super) fn lock(&self, etag: &str) -> Result<File, HubError> {
        let dir = self.cache_dir.join(".locks").join(&self.folder);
        std::fs::create_dir_all(&dir).map_err(io(&dir))?;
        let path = dir.join(format!("{etag}.lock"));
        let file = File::options().create(true).append(true).open(&path).map_err(io(&path))?;
        match file.lock() {
            Ok(()) => Ok(file),
            // Some network file systems have no locks; then two simultaneous downloads only waste time: a blob is
            // renamed only when it is complete and correct.
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(file),
            Err(source) => Err(HubError::Io { path, source }),
        }
    }

    /// Puts a blob into a snapshot, as a relative link if the file system supports links.
    pub(super) fn link(&self, commit: &str, name: &str, etag: &str) -> Result<PathBuf, HubError> {
        let path = self.snapshot(commit).join(name);
        let blob = self.blob(etag);
        if same_file(&path, &blob) {
            return Ok(path);
        }
        let parent = path.parent().unwrap_or(&path);
        std::fs::create_dir_all(parent).map_err(io(parent))?;
        // From snapshots/COMMIT up by two, and by one more for every folder in the name.
        let ups = name.matches('/').count().saturating_add(2);
        let relative: PathBuf = std::iter::repeat_n("..", ups).chain(["blobs", etag]).collect();
        // Created under a temporary name and renamed: another process may create the same link at this moment, and a
        // copy through its link would empty the blob.
        files::replace_with(&path, |temporary| {
            symlink(&relative, temporary)
                .or_else(|_| std::fs::hard_link(&blob, temporary))
                .or_else(|_| std::fs::copy(&blob, temporary).map(|_| ()))
        })?;
        Ok(path)
    }
}

#[cfg(unix)]
fn symlink(target: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(windows)]
fn symlink(target: &Path, path: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target, path)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_target: &Path, _path: &Path) -> std::io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Whether a path leads to a blob already.
fn same_file(path: &Path, blob: &Path) -> bool {
    match (std::fs::canonicalize(path), std::fs::canonicalize(blob)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// The names of the files below a snapshot, `/`-separated and sorted.
pub(super) fn files_below(snapshot: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![(snapshot.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = format!("{prefix}{name}");
            let path = entry.path();
            if files::is_temporary(&path) {
                continue;
            }
            // A link whose blob is gone is not a file.
            match std::fs::metadata(&path) {
                Ok(meta) if meta.is_dir() && prefix.matches('/').count() < 16 => folders.push((path, name + "/")),
                Ok(meta) if meta.is_file() => names.push(name),
                _ => {}
            }
        }
    }
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_folder_are_refused() {
        for name in ["", "/etc/x", "a/../b", "..", "a//b", "a\\b", "C:x", "a/", ".", "x\0y"] {
            assert!(!is_safe(name), "{name:?}");
        }
        assert!(is_safe("sub/model-00001-of-00002.safetensors") && is_safe(".gitattributes"));
        for repo in ["", "a/b/c", "../x", "a/..", "a b/c", "/a", "a/", ".git/x"] {
            assert!(RepoCache::new(Path::new("c"), repo).is_err(), "{repo:?}");
        }
        let cache = RepoCache::new(Path::new("c"), "o-1/n_2.x").expect("a name");
        assert_eq!(cache.snapshot("k"), Path::new("c/models--o-1--n_2.x/snapshots/k"));
    }
}
