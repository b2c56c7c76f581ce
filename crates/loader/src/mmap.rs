//! Files as shared bytes, and files written all or nothing.
//!
//! The only file of this crate with `unsafe` code: mapping a file is unsafe because another program may shorten or
//! change it while it is mapped, and giving pages back is because not every mapping gets them again. Models are files
//! that programs replace (rename) rather than edit, and the writers here do the same.

use std::io::Write;
use std::ops::Range;
use std::path::Path;

use ternary_kernels::{ByteOwner, SharedBytes};

use crate::LoadError;
use crate::files::{self, FileError, Kind, Pending};

/// The bytes of the file at `path`, mapped read-only; nothing is read before it is looked at.
///
/// The file must not be changed in place while the result (or a slice of it) lives; replacing it by renaming another
/// file over it is harmless.
///
/// # Errors
/// [`LoadError::Io`] if the file cannot be opened or mapped; [`LoadError::File`] if it is not a regular file, which is
/// seen before it is opened.
pub fn map_file(path: &Path) -> Result<SharedBytes, LoadError> {
    let (file, len) = files::open(path, "a model")?;
    if len == 0 {
        // Some systems reject empty mappings.
        return Ok(SharedBytes::from(Vec::new()));
    }
    #[allow(unsafe_code)]
    // SAFETY: the mapping is read-only and private to this process's view; the file is open for reading and not empty.
    // The caller must not truncate or edit the file meanwhile, which the documentation above asks for, as every program
    // that maps model files does.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(LoadError::io("map", path))?;
    Ok(SharedBytes::of(Mapping(map)))
}

/// Pages of less are kept: to give them back, and to take them again when they are packed, costs more than they do.
#[cfg(target_os = "linux")]
const LEAST_RELEASED: usize = 256 << 10;

/// Bytes that are read ahead at a time.
#[cfg(target_os = "linux")]
const PIECE: usize = 8 << 20;

/// A mapped file. Pages that are not read can go; they come again from the file.
struct Mapping(memmap2::Mmap);

impl ByteOwner for Mapping {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn release(&self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        if range.len() >= LEAST_RELEASED && range.end <= self.0.len() {
            use memmap2::UncheckedAdvice::DontNeed;
            // For a read-only mapping of a file the call drops page-table entries, not data: the next read finds the
            // file's bytes again, so slices do not change. Rounded to pages, the range is still within the mapping.
            #[allow(unsafe_code)]
            // SAFETY: the mapping is read-only and of a file, and the range is within it.
            let _ = unsafe { self.0.unchecked_advise_range(DontNeed, range.start, range.len()) };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }

    /// Linux is asked to keep the range in huge pages, which the file systems do that can; then reading ahead goes through
    /// the mapping, as nothing else makes use of that. All processes share these pages, too.
    fn prefetch(&self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        {
            use memmap2::Advice::{HugePage, PopulateRead};
            let _ = self.0.advise_range(HugePage, range.start, range.len());
            // In pieces, so that no other change of the address space waits for all of it.
            let mut pieces = range.clone().step_by(PIECE);
            let read = |start: usize| {
                let end = start.saturating_add(PIECE).min(range.end);
                self.0.advise_range(PopulateRead, start, end.saturating_sub(start)).is_ok()
            };
            if pieces.all(read) {
                return;
            }
        }
        #[cfg(unix)]
        let _ = self.0.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
        #[cfg(not(unix))]
        let _ = range;
    }
}

/// Reads a whole small file (JSON, templates); rejects files above `max` bytes and anything but regular files.
///
/// # Errors
/// [`LoadError::Io`], [`LoadError::File`], or [`LoadError::FileTooLarge`] above `max` bytes.
pub fn read_bounded(path: &Path, what: &'static str, max: u64) -> Result<Vec<u8>, LoadError> {
    files::read(path, Kind::new(what, max)).map_err(|e| match e {
        FileError::TooLarge { what, len, max, .. } => LoadError::FileTooLarge { what, len, max }.in_file(path),
        e => e.into(),
    })
}

/// A huge page.
const BLOCK: usize = 2 << 20;

/// Writes in blocks that begin at multiples of their length, whatever it is given: what one call writes, Linux keeps
/// together where the file system can, and such a block is mapped as one huge page.
struct Blocks<W> {
    out: W,
    block: Vec<u8>,
}

impl<W: Write> Write for Blocks<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let whole = bytes.len().saturating_sub(bytes.len() % BLOCK);
        if let Some(blocks) = bytes.get(..whole).filter(|blocks| self.block.is_empty() && !blocks.is_empty()) {
            self.out.write_all(blocks)?;
            return Ok(whole);
        }
        let n = bytes.len().min(BLOCK.saturating_sub(self.block.len()));
        self.block.extend_from_slice(bytes.get(..n).unwrap_or_default());
        if self.block.len() == BLOCK {
            self.out.write_all(&self.block)?;
            self.block.clear();
        }
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.write_all(&self.block)?;
        self.block.clear();
        self.out.flush()
    }
}

/// Writes a file all or nothing: into a temporary sibling, flushed to the disk, then renamed over `path`
/// ([`files::Pending`]).
///
/// The previous file at `path` stays intact until the rename; a mapping of it stays valid afterwards.
///
/// # Errors
/// [`LoadError::Io`], [`LoadError::File`], or the errors of `write`; then `path` is untouched and the sibling is
/// removed.
pub fn write_atomically<T>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<T, LoadError>,
) -> Result<T, LoadError> {
    write_checked(path, 0, write, |value, _| Ok(value))
}

/// Like [`write_atomically`]; before the file gets its name, `check` may read it under its temporary name and reject
/// it. `bytes` is the expected size, if known, for the message of a full disk.
///
/// # Errors
/// [`LoadError::Io`], [`LoadError::File`], or the errors of `write` or `check`; then `path` is untouched and the
/// sibling is removed.
pub fn write_checked<T, U>(
    path: &Path,
    bytes: u64,
    write: impl FnOnce(&mut dyn Write) -> Result<T, LoadError>,
    check: impl FnOnce(T, &Path) -> Result<U, LoadError>,
) -> Result<U, LoadError> {
    let mut pending = Pending::create(path)?;
    pending.expect(bytes);
    let mut out = Blocks { out: &mut pending, block: Vec::with_capacity(BLOCK) };
    let written = write(&mut out).and_then(|value| match out.flush() {
        Ok(()) => Ok(value),
        Err(source) => Err(LoadError::io("write", path)(source)),
    });
    let value = match (written, pending.full()) {
        (Ok(value), _) => value,
        (Err(_), Some(full)) => return Err(full.into()),
        (Err(e), None) => return Err(e),
    };
    pending.sync()?;
    pending.let_read();
    let value = check(value, pending.temporary())?;
    pending.commit()?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Calls(Vec<Vec<u8>>);

    impl Write for Calls {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn blocks_begin_at_multiples_of_their_length() {
        let mut out = Blocks { out: Calls::default(), block: Vec::new() };
        let mut all = Vec::new();
        for (byte, len) in (1..).zip([1, 10, BLOCK - 20, 3 * BLOCK + 5, 7, 0, 2 * BLOCK - 3, BLOCK, 9]) {
            out.write_all(&vec![byte; len]).expect("a vector takes all");
            all.resize(all.len() + len, byte);
        }
        out.flush().expect("a vector takes all");
        let calls = out.out.0;
        assert!(calls.concat() == all);
        let (last, whole) = calls.split_last().expect("calls");
        assert!(whole.iter().all(|call| call.len() % BLOCK == 0) && last.len() == all.len() % BLOCK);
    }

    #[test]
    fn a_mapping_is_the_same_wherever_its_pages_are() {
        let bytes: Vec<u8> = (0..5u32 << 20).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[2]).collect();
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file");
        std::fs::write(&path, &bytes).expect("written");
        let map = map_file(&path).expect("mapped");
        let part = map.slice(5000..(3 << 20) + 1).expect("a part");
        for _ in 0..2 {
            part.prefetch();
            assert!(map[..] == bytes[..]);
            part.release();
            map.prefetch();
            assert!(part[..] == bytes[5000..(3 << 20) + 1]);
            map.release();
        }
    }
}
