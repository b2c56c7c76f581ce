//! Bytes that several owners share: a file mapping, a vector, a part of either.

use std::ops::{Deref, Range};
use std::sync::Arc;

/// The owner of shared bytes: a file mapping for example, which can give pages back that are not read for a while.
pub trait ByteOwner: Send + Sync {
    /// All of them, the same at each call; a shorter answer later makes a [`SharedBytes`] appear empty, never out of bounds.
    fn bytes(&self) -> &[u8];

    /// A hint that `range` is not read soon: memory that can be filled again when it is may go.
    fn release(&self, range: Range<usize>) {
        let _ = range;
    }

    /// A hint that all of `range` is read soon.
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

    /// Like [`SharedBytes::new`], for an owner that can do more.
    pub fn of(owner: impl ByteOwner + 'static) -> Self {
        let len = owner.bytes().len();
        Self { owner: Arc::new(owner), range: 0..len }
    }

    /// Says that these bytes are not read for a while. What is read after all is the same.
    pub fn release(&self) {
        self.owner.release(self.range.clone());
    }

    /// Says that all of these bytes are read soon.
    pub fn prefetch(&self) {
        self.owner.prefetch(self.range.clone());
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
