//! Models from the Hugging Face hub (feature `hub`).
//!
//! [`pull`] downloads the files of a repository into the cache that Hugging Face's own tools use, and continues
//! interrupted downloads; [`cached`] finds them there without a network, [`list`] shows all of them, and [`remove`]
//! frees their space. Only [`pull`] uses the network, and not even it does if `HF_HUB_OFFLINE` is set.
//!
//! The variables `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN` (and the token file), `HF_HUB_OFFLINE` or
//! `TRANSFORMERS_OFFLINE`, and `HF_ENDPOINT` are respected; [`PullOptions`] take precedence. The token is only sent to
//! the endpoint, never to the targets of redirects. Large files are checked against the SHA-256 that the server
//! announces, and appear in the cache only when they are complete.
//!
//! ```no_run
//! use loader::hub::{PullOptions, pull};
//!
//! let pulled = pull("microsoft/bitnet-b1.58-2B-4T-gguf", &PullOptions::default())?;
//! println!("{}", pulled.path.display());
//! # Ok::<(), loader::hub::HubError>(())
//! ```

mod cache;
mod download;
mod error;
mod http;
mod listing;
mod selection;
mod settings;

use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

pub use error::HubError;
pub use listing::{CachedRepo, list, remove};
pub use selection::Selection;

use cache::{RepoCache, files_below, is_commit, is_safe};
use download::{RemoteFile, Total, encode_path};
use http::Http;
use settings::Settings;

/// The progress of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The file that is being pulled.
    pub file: &'a str,
    /// Its number, from 0.
    pub index: usize,
    /// The number of files.
    pub files: usize,
    /// Bytes of this file that are there.
    pub file_done: u64,
    /// The size of this file in bytes.
    pub file_bytes: u64,
    /// Bytes of all files that are there.
    pub done: u64,
    /// The size of all files in bytes.
    pub bytes: u64,
}

/// Receives the progress of a pull; `Break` stops it, and the downloaded part is kept.
pub type ProgressFn = Arc<dyn Fn(&Progress<'_>) -> ControlFlow<()> + Send + Sync>;

/// Options of a pull. `None` leaves a choice to the environment.
#[derive(Clone)]
#[non_exhaustive]
pub struct PullOptions {
    /// Which files.
    pub files: Selection,
    /// A branch, a tag or a commit; `main` if `None`.
    pub revision: Option<String>,
    /// The token of an account; with an empty one no token is sent.
    pub token: Option<String>,
    /// The server: `https://huggingface.co`, or a mirror of it.
    pub endpoint: Option<String>,
    /// Use only the cache.
    pub offline: Option<bool>,
    /// The cache (the folder that holds `models--...`).
    pub cache_dir: Option<PathBuf>,
    /// Told how far the pull has come.
    pub progress: Option<ProgressFn>,
    /// How often a request is repeated after a temporary failure; 5.
    pub retries: u32,
    /// The wait before the first repetition, doubled for each further one; half a second.
    pub retry_wait: Duration,
    /// The longest wait for a connection, for an answer, and for the next bytes of one; 30 seconds.
    pub timeout: Duration,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            files: Selection::default(),
            revision: None,
            token: None,
            endpoint: None,
            offline: None,
            cache_dir: None,
            progress: None,
            retries: 5,
            retry_wait: Duration::from_millis(500),
            timeout: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for PullOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is a secret, and the callback cannot be shown.
        f.debug_struct("PullOptions")
            .field("files", &self.files)
            .field("revision", &self.revision)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("endpoint", &self.endpoint)
            .field("offline", &self.offline)
            .field("cache_dir", &self.cache_dir)
            .field("retries", &self.retries)
            .field("retry_wait", &self.retry_wait)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Contents of the cache after the pull.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pulled {
    /// The GGUF file, or the folder of the checkpoint.
    pub path: PathBuf,
    /// All requested files.
    pub files: Vec<PathBuf>,
    /// The commit that they are of.
    pub commit: String,
}

/// The answer of `/api/models/REPO/revision/REVISION`.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

fn revision_of(options: &PullOptions) -> Result<&str, HubError> {
    let revision = options.revision.as_deref().unwrap_or("main");
    match is_safe(revision) {
        true => Ok(revision),
        false => Err(HubError::BadRevision { revision: revision.to_owned() }),
    }
}

fn pulled(cache: &RepoCache, commit: String, chosen: &selection::Chosen) -> Pulled {
    let snapshot = cache.snapshot(&commit);
    let files: Vec<PathBuf> = chosen.names.iter().map(|name| snapshot.join(name)).collect();
    let path = match (chosen.single, files.as_slice()) {
        // The parts of a split file are found by the first one.
        (true, [first, ..]) => first.clone(),
        _ => snapshot,
    };
    Pulled { path, files, commit }
}

fn cached_with(settings: &Settings, repo: &str, options: &PullOptions) -> Result<Option<Pulled>, HubError> {
    let revision = revision_of(options)?;
    let cache = RepoCache::new(&settings.cache_dir, repo)?;
    let Some(commit) = cache.commit(revision) else { return Ok(None) };
    let names = files_below(&cache.snapshot(&commit));
    match options.files.choose(repo, &names) {
        Ok(chosen) => Ok(Some(pulled(&cache, commit, &chosen))),
        Err(HubError::NothingToPull { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Finds a repository in the cache, without a network. `None` if it is not there. Loading a sharded checkpoint checks
/// whether it is complete.
///
/// # Errors
/// [`HubError::BadRepo`], [`HubError::BadRevision`], [`HubError::Ambiguous`], [`HubError::NoCacheDir`].
pub fn cached(repo: &str, options: &PullOptions) -> Result<Option<Pulled>, HubError> {
    cached_with(&Settings::from_process(options)?, repo, options)
}

/// Downloads files of a repository into the cache and returns their paths. Existing files are not downloaded again, and
/// interrupted downloads are continued. If the network may not be used, the cache must contain the files.
///
/// # Errors
/// Every failure of a server, a network or a disk has its variant in [`HubError`]; temporary failures (time-outs, lost
/// connections, 429, 5xx) are retried first, [`PullOptions::retries`] times.
pub fn pull(repo: &str, options: &PullOptions) -> Result<Pulled, HubError> {
    let settings = Settings::from_process(options)?;
    let revision = revision_of(options)?;
    if settings.offline {
        return cached_with(&settings, repo, options)?.ok_or_else(|| HubError::Offline {
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            cache_dir: settings.cache_dir.clone(),
        });
    }
    let cache = RepoCache::new(&settings.cache_dir, repo)?;
    let http = Http::new(&settings, options);
    let what = format!("{repo} (revision {revision})");
    // The API requires a revision in one path segment.
    let escaped = encode_path(revision).replace('/', "%2F");
    let listing: Listing = http.json(&format!("{}/api/models/{repo}/revision/{escaped}", http.endpoint()), &what)?;
    if !is_commit(&listing.sha) {
        return Err(http.bad_response(&what, format!("{:?} is not a commit", listing.sha)));
    }
    let names: Vec<String> = listing.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
    let chosen = options.files.choose(repo, &names)?;
    if let Some(name) = chosen.names.iter().find(|name| !is_safe(name)) {
        return Err(HubError::UnsafeName { name: name.clone() });
    }
    let commit = listing.sha;
    let wanted = |name| RemoteFile { repo, commit: &commit, name };
    let mut announced = Vec::with_capacity(chosen.names.len());
    for name in &chosen.names {
        announced.push(wanted(name).announced(&http)?);
    }
    let bytes = announced.iter().fold(0u64, |sum, file| sum.saturating_add(file.size));
    let mut total = Total { callback: options.progress.as_ref(), files: announced.len(), bytes, done: 0 };
    for (index, (name, file)) in chosen.names.iter().zip(&announced).enumerate() {
        wanted(name).download(&http, &cache, file, &mut |done| total.report(name, index, done, file.size))?;
        cache.link(&commit, name, &file.etag)?;
        total.done = total.done.saturating_add(file.size);
    }
    // Last, so that a pull that was interrupted leaves the older, complete snapshot in its place.
    cache.write_ref(revision, &commit)?;
    Ok(pulled(&cache, commit, &chosen))
}
