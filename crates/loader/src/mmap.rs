//! Files as shared bytes, and files written all or nothing.
//!
//! The only file of this crate with `unsafe` code: mapping a file is unsafe because another program may shorten or
//! change it while it is mapped. Models are files that programs replace (rename) rather than edit, and the writers here do
//! the same.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use ternary_kernels::SharedBytes;

use crate::LoadError;

/// The bytes of the file at `path`, mapped read-only; nothing is read before it is looked at.
///
/// The file must not be changed in place while the result (or a slice of it) lives; replacing it by renaming another
/// file over it is harmless.
///
/// # Errors
/// [`LoadError::Io`] if the file cannot be opened or mapped, or is no regular file.
pub fn map_file(path: &Path) -> Result<SharedBytes, LoadError> {
    let file = File::open(path).map_err(LoadError::io("open", path))?;
    let meta = file.metadata().map_err(LoadError::io("inspect", path))?;
    if !meta.is_file() {
        let reason = std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file");
        return Err(LoadError::io("map", path)(reason));
    }
    if meta.len() == 0 {
        // Some systems refuse to map nothing.
        return Ok(SharedBytes::from(Vec::new()));
    }
    #[allow(unsafe_code)]
    // SAFETY: the mapping is read-only and private to this process's view; the file is open for reading and not empty.
    // What remains is that nobody shortens or edits the file meanwhile, which the documentation above asks of the
    // caller, as every program that maps model files does.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(LoadError::io("map", path))?;
    Ok(SharedBytes::new(map))
}

/// Reads a small file (JSON, templates) whole, refusing files above `max` bytes.
///
/// # Errors
/// [`LoadError::Io`], or [`LoadError::FileTooLarge`] above `max` bytes.
pub fn read_bounded(path: &Path, what: &'static str, max: u64) -> Result<Vec<u8>, LoadError> {
    use std::io::Read;
    let file = File::open(path).map_err(LoadError::io("open", path))?;
    let len = file.metadata().map_err(LoadError::io("inspect", path))?.len();
    if len > max {
        return Err(LoadError::FileTooLarge { what, len, max }.in_file(path));
    }
    let mut bytes = Vec::new();
    // A file may grow between the two calls, and special files have no length: bound what is read as well.
    file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(LoadError::io("read", path))?;
    if bytes.len() as u64 > max {
        return Err(LoadError::FileTooLarge { what, len: bytes.len() as u64, max }.in_file(path));
    }
    Ok(bytes)
}

/// Writes a file all or nothing: into a temporary sibling, flushed to the disk, then renamed over `path`.
///
/// Whatever was at `path` stays intact until the rename; a mapping of it stays valid after.
///
/// # Errors
/// [`LoadError::Io`], or what `write` returns; then `path` is untouched and the sibling is removed.
pub fn write_atomically<T>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<T, LoadError>,
) -> Result<T, LoadError> {
    write_checked(path, write, |value, _| Ok(value))
}

/// As [`write_atomically`]; before the file gets its name, `check` may read it under its temporary one and refuse it.
///
/// # Errors
/// [`LoadError::Io`], or what `write` or `check` return; then `path` is untouched and the sibling is removed.
pub fn write_checked<T, U>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<T, LoadError>,
    check: impl FnOnce(T, &Path) -> Result<U, LoadError>,
) -> Result<U, LoadError> {
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tmp-").suffix(".partial");
    #[cfg(unix)]
    {
        // Temporary files are private by default; a model should get the permissions that the umask gives any file.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let temporary = builder.tempfile_in(folder).map_err(LoadError::io("create a temporary file in", folder))?;
    let mut out = BufWriter::with_capacity(1 << 20, temporary.as_file());
    let value = write(&mut out)?;
    out.flush().map_err(LoadError::io("write", path))?;
    drop(out);
    temporary.as_file().sync_all().map_err(LoadError::io("flush", path))?;
    let value = check(value, temporary.path())?;
    temporary.persist(path).map_err(|e| LoadError::io("rename to", path)(e.error))?;
    #[cfg(unix)]
    {
        // The name itself is durable only once the folder is. Some file systems cannot flush folders; then the file is
        // still complete, and only a power cut could bring the old one back.
        if let Ok(f) = File::open(folder) {
            let _ = f.sync_all();
        }
    }
    Ok(value)
}
