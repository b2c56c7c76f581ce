//! Errors of the hub.

use std::path::PathBuf;

use crate::files::FileError;

/// Why a repository could not be pulled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields that are named after what they hold have no comment")]
pub enum HubError {
    /// The name is not one of a repository.
    #[error("{repo:?} is not the name of a repository (owner/name)")]
    BadRepo {
        /// The name as given.
        repo: String,
    },
    /// The revision cannot be one.
    #[error("{revision:?} is not a revision (a branch, a tag or a commit)")]
    BadRevision {
        /// The revision as given.
        revision: String,
    },
    /// The network may not be used, and the cache does not hold the files.
    #[error(
        "{repo} (revision {revision}) is not in the cache {}, and the network may not be used \
         (HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE): pull it once without",
        cache_dir.display()
    )]
    Offline {
        /// The repository.
        repo: String,
        revision: String,
        /// The cache that was searched.
        cache_dir: PathBuf,
    },
    /// The server has no such repository, revision or file (404).
    #[error("{what} does not exist on {endpoint}; check the spelling")]
    NotFound {
        /// The repository, revision or file.
        what: String,
        /// The server.
        endpoint: String,
    },
    /// The server does not reveal whether the repository exists, because the request was not authenticated (401).
    #[error("{repo}: no such repository, or a private one; {hint}")]
    Unauthorized {
        /// The repository.
        repo: String,
        /// The way out, which depends on whether a token was sent.
        hint: &'static str,
    },
    /// The owner of the repository requires its terms to be accepted first.
    #[error("{repo} is gated: accept its terms on {endpoint}/{repo}, then set HF_TOKEN to a token of that account")]
    Gated {
        /// The repository.
        repo: String,
        /// The server.
        endpoint: String,
    },
    /// The server denies access for another reason (403).
    #[error("{what}: the server refuses access (403); the token may lack the right to read it")]
    Forbidden {
        /// The repository or file.
        what: String,
    },
    /// The server failed, repeatedly if retrying may help.
    #[error("{what}: the server answers {status}; try again later")]
    Status {
        /// The repository or file.
        what: String,
        /// The HTTP status.
        status: u16,
    },
    /// The server did not answer in time.
    #[error("{what}: no answer in time ({reason})")]
    Timeout {
        /// The repository or file.
        what: String,
        /// Which part of the exchange took too long.
        reason: String,
    },
    /// The server cannot be reached.
    #[error("{what}: the server cannot be reached ({reason}); with HF_HUB_OFFLINE=1 the cache alone is used")]
    Unreachable {
        /// The repository or file.
        what: String,
        /// Message of the network layer.
        reason: String,
    },
    /// The connection was lost again and again. What has come is kept and will be continued.
    #[error("{file}: the connection was lost after {got} of {expected} bytes; pull again to continue from there")]
    ShortRead {
        file: String,
        /// Its size in bytes.
        expected: u64,
        /// Bytes received.
        got: u64,
    },
    /// The file is not the one that the server announced; the download is discarded.
    #[error("{file}: the content has SHA-256 {got}, the server announced {expected}; it was discarded, pull again")]
    HashMismatch {
        file: String,
        /// The announced hash.
        expected: String,
        /// The hash of the download.
        got: String,
    },
    /// The server's answer lacks something or makes no sense.
    #[error("{what}: invalid response from the server ({detail}); is {endpoint} a Hugging Face endpoint?")]
    BadResponse {
        /// The repository or file.
        what: String,
        /// The problem.
        detail: String,
        /// The server.
        endpoint: String,
    },
    /// The server names a file that must not be written.
    #[error("the repository names a file {name:?}, which would not stay inside of its folder")]
    UnsafeName { name: String },
    /// The repository has none of the requested files.
    #[error("{repo} has no {wanted}; its files: {files}")]
    NothingToPull {
        /// The repository.
        repo: String,
        /// The request.
        wanted: String,
        /// The first of its files.
        files: String,
    },
    /// The repository has several GGUF files, and none was named.
    #[error("{repo} has several GGUF files, name one of them: {files}")]
    Ambiguous {
        /// The repository.
        repo: String,
        files: String,
    },
    /// The progress callback cancelled. The downloaded part is kept and will be continued.
    #[error("stopped while {file} was being pulled; pull again to continue")]
    Cancelled { file: String },
    /// Something in the cache is not a regular file, or the disk is full; the message names it.
    #[error(transparent)]
    File(#[from] FileError),
    /// The cache could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Message of the operating system.
        source: std::io::Error,
    },
    /// Neither the options nor the environment define the cache.
    #[error("the home directory is unknown: set HF_HOME or HF_HUB_CACHE")]
    NoCacheDir,
}
