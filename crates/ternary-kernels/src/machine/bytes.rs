//! Bytes shared by several owners: a file mapping, a vector, a part of either.

use std::ops::{Deref, Range};
use std::sync::Arc;

/// The owner of shared bytes: for example a file mapping, which can give back pages that are not read for a while.
pub trait ByteOwner: Send + Sync {
    /// All bytes, the same at each call; a shorter answer later makes a [`SharedBytes`] appear empty, never out of
    /// bounds.
    fn bytes(&self) -> &[u8];

    /// A hint that `range` will not be read soon: its memory may be freed if it can be filled again on demand.
    fn release(&self, range: Range<usize>) {
        let _ = range;
    }

    /// A hint that all of `range` will be read soon.
    fn prefetch(&self, range: Range<usize>) {
        let _ = range;
    }
}

/// Bytes in memory.
struct Plain<T>(T);

impl<T: AsRef<[u8]> + Send + Sync> ByteOwner for Plain<T> {
    fn bytes(&self) -> &[u8] {
        self.0.as_ref()
    }
}

/// A cheaply cloned, immutable range of bytes that keeps its owner (a vector, a file mapping) alive.
///
/// ```
/// use ternary_kernels::SharedBytes;
/// let all = SharedBytes::from(vec![1u8, 2, 3, 4]);
/// let part = all.slice(1..3).unwrap();
/// drop(all);
/// assert_eq!(&part[..], &[2, 3]);
/// ```
#[derive(Clone)]
pub struct SharedBytes {
    owner: Arc<dyn ByteOwner>,
    range: Range<usize>,
}

impl SharedBytes {
    /// Shares all bytes of `owner`. `owner.as_ref()` must return the same bytes at each call;
    /// a shorter answer later makes this value appear empty, never out of bounds.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::of(Plain(owner))
    }

    /// Like [`SharedBytes::new`], for an owner that supports the hints.
    pub fn of(owner: impl ByteOwner + 'static) -> Self {
        let len = owner.bytes().len();
        Self { owner: Arc::new(owner), range: 0..len }
    }

    /// A hint that these bytes are not read for a while. Reading them anyway returns the same bytes.
    pub fn release(&self) {
        self.owner.release(self.range.clone());
    }

    /// A hint that all of these bytes will be read soon.
    pub fn prefetch(&self) {
        self.owner.prefetch(self.range.clone());
    }

    /// From the beginning of these bytes to the end of `next`, where both are of one owner and at most `gap` bytes lie between
    /// them.
    ///
    /// ```
    /// use ternary_kernels::SharedBytes;
    /// let all = SharedBytes::from((0..100).collect::<Vec<u8>>());
    /// let (a, b) = (all.slice(10..20).unwrap(), all.slice(25..30).unwrap());
    /// assert_eq!(a.through(&b, 5).as_deref(), all.get(10..30));
    /// assert!(a.through(&b, 4).is_none() && b.through(&a, 100).is_none());
    /// assert!(a.through(&SharedBytes::from(vec![0; 50]).slice(25..30).unwrap(), 5).is_none());
    /// ```
    pub fn through(&self, next: &Self, gap: usize) -> Option<Self> {
        let same = std::ptr::addr_eq(Arc::as_ptr(&self.owner), Arc::as_ptr(&next.owner));
        let between = next.range.start.checked_sub(self.range.end).filter(|&between| same && between <= gap);
        between.map(|_| Self { owner: self.owner.clone(), range: self.range.start..next.range.end })
    }

    /// A part of these bytes, or `None` where `range` lies outside of them.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.range.len() {
            return None;
        }
        let start = self.range.start + range.start;
        Some(Self { owner: self.owner.clone(), range: start..start + range.len() })
    }
}

impl Deref for SharedBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.owner.bytes().get(self.range.clone()).unwrap_or(&[])
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for SharedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

impl std::fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedBytes({} bytes)", self.range.len())
    }
}
