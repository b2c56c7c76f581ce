//! One file: its announcement, the part that was downloaded, the rest, and the check of the whole.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::cache::{RepoCache, io, is_safe};
use super::http::{Http, Method, header, passes};
use super::{HubError, Progress, ProgressFn};
use crate::files::FileError;

/// Bytes that are read, hashed and written at once.
const CHUNK: usize = 256 << 10;
/// Attempts that brought something do not count against the retries, up to this number: a connection that is cut
/// every gigabyte still gets there, one that brings a byte at a time does not go on for ever.
const MAX_ATTEMPTS: u32 = 50;

/// A file as the server announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) etag: String,
    pub(super) size: u64,
}

impl Announced {
    /// The SHA-256 of the content: large files have it as their tag.
    fn sha256(&self) -> Option<&str> {
        (self.etag.len() == 64 && self.etag.bytes().all(|c| c.is_ascii_hexdigit())).then_some(&self.etag)
    }
}

/// A file of a repository.
#[derive(Debug, Clone, Copy)]
pub(super) struct RemoteFile<'a> {
    pub(super) repo: &'a str,
    pub(super) commit: &'a str,
    pub(super) name: &'a str,
}

/// Percent-encodes a path except for slashes.
pub(super) fn encode_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

impl RemoteFile<'_> {
    fn url(&self, http: &Http) -> String {
        format!("{}/{}/resolve/{}/{}", http.endpoint(), self.repo, self.commit, encode_path(self.name))
    }

    /// For messages.
    fn what(&self) -> String {
        format!("{}: {}", self.repo, self.name)
    }

    /// Requests the announcement of the file.
    pub(super) fn announced(&self, http: &Http) -> Result<Announced, HubError> {
        let what = self.what();
        let response = http.send(&self.url(http), Method::Head, &what)?;
        let etag = header(&response, "x-linked-etag").or_else(|| header(&response, "etag"));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
        let etag = etag.ok_or_else(|| http.bad_response(&what, "there is no ETag"))?;
        if !is_safe(&etag) || etag.contains('/') || etag.starts_with('.') {
            return Err(http.bad_response(&what, format!("the ETag {etag:?} cannot be the name of a file")));
        }
        let size = header(&response, "x-linked-size").or_else(|| header(&response, "content-length"));
        let size = size.and_then(|size| size.trim().parse().ok());
        let size = size.ok_or_else(|| http.bad_response(&what, "there is no size"))?;
        Ok(Announced { etag, size })
    }

    /// Downloads the content into the cache, continuing earlier downloads. `progress` receives the bytes of this file.
    pub(super) fn download(
        &self,
        http: &Http,
        cache: &RepoCache,
        announced: &Announced,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), HubError> {
        let blob = cache.blob(&announced.etag);
        let parent = blob.parent().unwrap_or(&blob).to_owned();
        std::fs::create_dir_all(&parent).map_err(io(&parent))?;
        let _lock = cache.lock(&announced.etag)?;
        // Another process may have brought it while this one waited.
        if std::fs::metadata(&blob).is_ok_and(|meta| meta.len() == announced.size) {
            return match progress(announced.size) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(HubError::Cancelled { file: self.name.to_owned() }),
            };
        }
        let partial = parent.join(format!("{}.incomplete", announced.etag));
        let mut file = Partial::open(&partial, announced.size)?;
        let resumed = file.len > 0;
        let hash = self.fill(http, announced, &mut file, progress)?;
        if let Some(expected) = announced.sha256()
            && !expected.eq_ignore_ascii_case(&hash)
        {
            file.restart()?;
            // The part from an earlier download may have been wrong: start again from the beginning.
            let hash = if resumed { self.fill(http, announced, &mut file, progress)? } else { hash };
            if !expected.eq_ignore_ascii_case(&hash) {
                drop(file);
                std::fs::remove_file(&partial).map_err(io(&partial))?;
                let (file, expected) = (self.name.to_owned(), expected.to_owned());
                return Err(HubError::HashMismatch { file, expected, got: hash });
            }
        }
        file.file.sync_all().map_err(io(&partial))?;
        drop(file);
        std::fs::rename(&partial, &blob).map_err(io(&blob))
    }

    /// Fills the file up to its size; gives the SHA-256 of the whole.
    fn fill(
        &self,
        http: &Http,
        announced: &Announced,
        file: &mut Partial<'_>,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<String, HubError> {
        let cancelled = || HubError::Cancelled { file: self.name.to_owned() };
        let mut report = |len| match progress(len) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(cancelled()),
        };
        report(file.len)?;
        let (mut fruitless, mut attempts) = (0u32, 0u32);
        while file.len < announced.size {
            let before = file.len;
            let error = match self.attempt(http, announced, file, &mut report) {
                Ok(()) if file.len == announced.size => break,
                Ok(()) => HubError::ShortRead { file: self.name.to_owned(), expected: announced.size, got: file.len },
                Err(error @ HubError::ShortRead { .. }) => error,
                Err(error) if passes(&error) => error,
                Err(error) => return Err(error),
            };
            fruitless = if file.len > before { 1 } else { fruitless.saturating_add(1) };
            attempts = attempts.saturating_add(1);
            if fruitless >= http.attempts() || attempts >= MAX_ATTEMPTS {
                return Err(error);
            }
            http.pause(fruitless, None);
        }
        Ok(file.hash())
    }

    /// One request for the missing part.
    fn attempt(
        &self,
        http: &Http,
        announced: &Announced,
        file: &mut Partial<'_>,
        report: &mut dyn FnMut(u64) -> Result<(), HubError>,
    ) -> Result<(), HubError> {
        let what = self.what();
        let response = http.send(&self.url(http), Method::Get { from: file.len }, &what)?;
        match response.status().as_u16() {
            206 => {
                let range = header(&response, "content-range").unwrap_or_default();
                let (start, total) = content_range(range)
                    .ok_or_else(|| http.bad_response(&what, format!("Content-Range is {range:?}")))?;
                if start != file.len || total.is_some_and(|total| total != announced.size) {
                    return Err(http.bad_response(&what, format!("Content-Range is {range:?}")));
                }
            }
            // The server does not support ranges, or the file has changed: from the beginning.
            200 | 416 if file.len > 0 => file.restart()?,
            200 => {}
            status => return Err(http.bad_response(&what, format!("status {status}"))),
        }
        if response.status().as_u16() == 416 {
            return Ok(());
        }
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            let short = || HubError::ShortRead { file: self.name.to_owned(), expected: announced.size, got: file.len };
            let read = match body.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(match http.failed(&what, error.into()) {
                        error @ HubError::Timeout { .. } => error,
                        _ => short(),
                    });
                }
            };
            let bytes = buffer.get(..read).unwrap_or_default();
            if file.len.saturating_add(read as u64) > announced.size {
                file.restart()?;
                return Err(http.bad_response(&what, format!("more than the announced {} bytes", announced.size)));
            }
            file.append(bytes)?;
            report(file.len)?;
        }
    }
}

/// Start and total of a `Content-Range`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}

/// A file that is being filled, and the hash of its contents.
struct Partial<'p> {
    path: &'p Path,
    /// Bytes of the whole.
    size: u64,
    file: File,
    len: u64,
    hasher: Sha256,
}

impl<'p> Partial<'p> {
    /// Opens the downloaded part and hashes it; a part that is longer than the file is discarded.
    fn open(path: &'p Path, size: u64) -> Result<Self, HubError> {
        let mut file =
            File::options().create(true).read(true).write(true).truncate(false).open(path).map_err(io(path))?;
        let mut hasher = Sha256::new();
        let len = file.metadata().map_err(io(path))?.len();
        if len <= size {
            std::io::copy(&mut file, &mut hasher).map_err(io(path))?;
            return Ok(Self { path, size, file, len, hasher });
        }
        let mut partial = Self { path, size, file, len, hasher };
        partial.restart()?;
        Ok(partial)
    }

    fn restart(&mut self) -> Result<(), HubError> {
        self.file.set_len(0).map_err(io(self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(io(self.path))?;
        self.hasher = Sha256::new();
        self.len = 0;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(|e| match io(self.path)(e) {
            HubError::File(FileError::Full { path, source, .. }) => {
                HubError::File(FileError::Full { path, needed: self.size, written: self.len, source })
            }
            e => e,
        })?;
        self.hasher.update(bytes);
        self.len = self.len.saturating_add(bytes.len() as u64);
        Ok(())
    }

    fn hash(&self) -> String {
        self.hasher.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Adds up the progress of several files.
pub(super) struct Total<'a> {
    pub(super) callback: Option<&'a ProgressFn>,
    pub(super) files: usize,
    pub(super) bytes: u64,
    pub(super) done: u64,
}

impl Total<'_> {
    /// Tells about one file.
    pub(super) fn report(&self, name: &str, index: usize, done: u64, size: u64) -> ControlFlow<()> {
        let Some(callback) = self.callback else { return ControlFlow::Continue(()) };
        callback(&Progress {
            file: name,
            index,
            files: self.files,
            file_done: done,
            file_bytes: size,
            done: self.done.saturating_add(done),
            bytes: self.bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_paths() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(content_range("bytes */10"), None);
        assert_eq!(content_range(""), None);
        assert_eq!(encode_path("a b/ü+%.x"), "a%20b/%C3%BC%2B%25.x");
    }
}
