//! Lists and removes the contents of the cache.

use std::path::{Path, PathBuf};

use super::cache::{files_below, io};
use super::settings::Settings;
use super::{HubError, PullOptions, RepoCache};

/// A repository in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CachedRepo {
    /// `OWNER/NAME`.
    pub repo: String,
    /// Its folder.
    pub path: PathBuf,
    /// Bytes on disk, unfinished downloads included.
    pub bytes: u64,
    /// The files of all commits that are there, each name once, sorted.
    pub files: Vec<String>,
    /// Whether a download was begun and not finished.
    pub unfinished: bool,
}

/// The repositories of models in the cache, by name. The network is not used.
///
/// # Errors
/// [`HubError::NoCacheDir`]; [`HubError::Io`] for a folder that cannot be read.
pub fn list(options: &PullOptions) -> Result<Vec<CachedRepo>, HubError> {
    let dir = Settings::from_process(options)?.cache_dir;
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(&dir)(error)),
    };
    let mut repos: Vec<CachedRepo> = entries.flatten().filter_map(|entry| cached_repo(&entry.path())).collect();
    repos.sort_by(|a, b| a.repo.cmp(&b.repo));
    Ok(repos)
}

/// The repository whose folder this is.
fn cached_repo(path: &Path) -> Option<CachedRepo> {
    let name = path.file_name()?.to_str()?.strip_prefix("models--")?;
    if !path.is_dir() {
        return None;
    }
    let mut files = Vec::new();
    for commit in std::fs::read_dir(path.join("snapshots")).into_iter().flatten().flatten() {
        files.extend(files_below(&commit.path()));
    }
    files.sort();
    files.dedup();
    let incomplete = |e: std::fs::DirEntry| e.path().extension().is_some_and(|x| x == "incomplete");
    let unfinished = std::fs::read_dir(path.join("blobs")).into_iter().flatten().flatten().any(incomplete);
    // An owner's name holds no two dashes in a row.
    let repo = name.replacen("--", "/", 1);
    Some(CachedRepo { repo, path: path.to_owned(), bytes: bytes_below(path), files, unfinished })
}

/// Bytes of the files in a folder; links do not count, as their targets are in the folder, too.
fn bytes_below(folder: &Path) -> u64 {
    let mut bytes = 0u64;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                Ok(meta) if meta.is_file() => bytes = bytes.saturating_add(meta.len()),
                _ => {}
            }
        }
    }
    bytes
}

/// Removes a repository from the cache, with all of its commits; returns its size in bytes, or `None` if it was not
/// there.
///
/// # Errors
/// [`HubError::BadRepo`], [`HubError::NoCacheDir`]; [`HubError::Io`] for a folder that cannot be removed.
pub fn remove(repo: &str, options: &PullOptions) -> Result<Option<u64>, HubError> {
    let settings = Settings::from_process(options)?;
    let cache = RepoCache::new(&settings.cache_dir, repo)?;
    let [folder, locks] = cache.folders();
    if !folder.is_dir() {
        return Ok(None);
    }
    let bytes = bytes_below(&folder);
    std::fs::remove_dir_all(&folder).map_err(io(&folder))?;
    // Locks of downloads; a missing folder is not an error.
    let _ = std::fs::remove_dir_all(&locks);
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_listed_and_removed_whole() {
        let dir = tempfile::tempdir().expect("folder");
        let options = PullOptions { cache_dir: Some(dir.path().to_owned()), ..PullOptions::default() };
        assert_eq!(list(&options).expect("list"), []);
        let put = |path: &str, len: usize| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            std::fs::write(path, vec![0; len]).expect("write");
        };
        put("models--o--n--m/blobs/e1", 1000);
        put("models--o--n--m/blobs/e2.incomplete", 24);
        put("models--o--n--m/snapshots/c1/sub/f.gguf", 0);
        put("models--o--n--m/snapshots/c2/sub/f.gguf", 0);
        put("models--o--n--m/refs/main", 40);
        put("models--a--b/blobs/e", 7);
        put("datasets--x--y/blobs/e", 7);
        put(".locks/models--o--n--m/e1.lock", 0);
        let repos = list(&options).expect("list");
        assert_eq!(
            repos.iter().map(|r| (r.repo.as_str(), r.bytes)).collect::<Vec<_>>(),
            [("a/b", 7), ("o/n--m", 1064)]
        );
        assert_eq!((&repos[1].files[..], repos[1].unfinished), (&["sub/f.gguf".to_owned()][..], true));
        assert_eq!(remove("o/n--m", &options).expect("removed"), Some(1064));
        assert_eq!(remove("o/n--m", &options).expect("nothing"), None);
        assert!(!dir.path().join(".locks/models--o--n--m").exists() && dir.path().join("datasets--x--y").exists());
        assert_eq!(list(&options).expect("list").len(), 1);
        assert!(matches!(remove("../x", &options), Err(HubError::BadRepo { .. })));
    }
}
