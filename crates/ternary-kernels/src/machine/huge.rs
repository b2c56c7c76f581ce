//! Memory in huge pages, for weights that a product streams once per token.
//!
//! A stream over pages of 4 KiB needs an address translation every 64 cache lines, and the prefetchers of most CPUs
//! stop at a page's end. In a virtual machine a translation takes two page walks, and reading memory can take twice as
//! long as in pages of 2 MiB. Linux provides those on request (`madvise`) if a range of 2 MiB is in one mapping. So the
//! matrices of a model share mappings of [`CHUNK_BYTES`].

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use memmap2::{Advice, MmapOptions, MmapRaw};

/// A huge page of x86-64, and of AArch64 with base pages of 4 KiB.
const HUGE_PAGE: usize = 2 << 20;
/// The mapping that buffers share, unless one buffer is larger. Pages that are not touched take no memory.
const CHUNK_BYTES: usize = 64 << 20;
/// Buffers begin at cache lines.
const ALIGN: usize = 64;

/// A mapping of zeros, usable from a huge-page boundary on.
struct Chunk {
    map: MmapRaw,
    /// Offset of the first huge page.
    first: usize,
    /// Usable bytes from there.
    len: usize,
}

impl Chunk {
    fn new(len: usize) -> Option<Self> {
        let map = MmapOptions::new().len(len.checked_add(HUGE_PAGE)?).map_anon().ok()?;
        // Without huge pages the memory is still correct, only slower.
        let _ = map.advise(Advice::HugePage);
        let map = MmapRaw::from(map);
        let first = (map.as_ptr() as usize).next_multiple_of(HUGE_PAGE) - map.as_ptr() as usize;
        Some(Self { map, first, len })
    }
}

/// A part of a mapping with one owner; the mapping lives as long as any of its parts.
pub(crate) struct Piece {
    chunk: Arc<Chunk>,
    start: usize,
    len: usize,
}

thread_local! {
    /// The mapping from which this thread takes its next piece, and the offset of that piece. The pieces own the
    /// mapping: it is unmapped when the last of them is dropped, usually with a model.
    static CURRENT: RefCell<(Weak<Chunk>, usize)> = const { RefCell::new((Weak::new(), 0)) };
}

impl Piece {
    /// `len` zero bytes, next to those that this thread requested before; `None` if the system refuses.
    pub(crate) fn new(len: usize) -> Option<Self> {
        CURRENT.with_borrow_mut(|(current, used)| {
            if let Some(chunk) = current.upgrade()
                && chunk.len - *used >= len
            {
                return Some(Self::take(chunk, used, len));
            }
            let chunk = Arc::new(Chunk::new(len.max(CHUNK_BYTES))?);
            (*current, *used) = (Arc::downgrade(&chunk), 0);
            Some(Self::take(chunk, used, len))
        })
    }

    /// The bytes of `chunk` from `used` on; moves `used` past them.
    fn take(chunk: Arc<Chunk>, used: &mut usize, len: usize) -> Self {
        let start = *used;
        *used = (start + len).next_multiple_of(ALIGN).min(chunk.len);
        Self { chunk, start, len }
    }

    fn as_ptr(&self) -> *mut u8 {
        // Stays inside the mapping: `first + chunk.len` is at most its length.
        self.chunk.map.as_mut_ptr().wrapping_add(self.chunk.first + self.start)
    }
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `start + len` is at most the chunk's usable length (`new` compares, or allocates it so), so the range is in
        // the mapping, which `self.chunk` keeps alive. Anonymous pages are readable and hold zeros or written data. No other
        // piece shares the range (`take` moves `used` past it, no piece is cloned): nothing writes while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len) }
    }
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `self` is borrowed exclusively, and the mapping is private and writable.
        unsafe { std::slice::from_raw_parts_mut(self.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_aligned_disjoint_and_zero() {
        let lens = [1, 63, 64, 65, 4096, HUGE_PAGE + 1, CHUNK_BYTES, CHUNK_BYTES + 1, 100];
        let mut pieces: Vec<Piece> = lens.iter().map(|&len| Piece::new(len).unwrap()).collect();
        for (i, piece) in pieces.iter_mut().enumerate() {
            assert_eq!(piece.bytes().len(), lens[i]);
            assert_eq!(piece.as_ptr() as usize % ALIGN, 0);
            assert!(piece.bytes().iter().all(|&b| b == 0), "piece {i} overlaps an earlier one");
            piece.bytes_mut().fill(i as u8 + 1);
        }
        for (i, piece) in pieces.iter().enumerate() {
            assert!(piece.bytes().iter().all(|&b| b == i as u8 + 1), "piece {i} was written by another");
        }
    }

    #[test]
    fn a_mapping_ends_with_its_last_piece() {
        let (a, b) = (Piece::new(100).unwrap(), Piece::new(100).unwrap());
        let chunk = Arc::downgrade(&a.chunk);
        assert!(Arc::ptr_eq(&a.chunk, &b.chunk));
        drop(a);
        assert!(chunk.upgrade().is_some());
        drop(b);
        assert!(chunk.upgrade().is_none());
    }
}
