//! Bytes that several owners share: a file mapping, a vector, a part of either.

use std::ops::{Deref, Range};
use std::sync::Arc;

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
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl SharedBytes {
    /// Shares all bytes of `owner`. `owner.as_ref()` must return the same bytes at each call;
    /// a shorter answer later makes this value appear empty, never out of bounds.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::from_arc(Arc::new(owner))
    }

    /// Like [`SharedBytes::new`], for an owner that is shared already.
    pub fn from_arc(owner: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Self {
        let len = (*owner).as_ref().len();
        Self { owner, range: 0..len }
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
        (*self.owner).as_ref().get(self.range.clone()).unwrap_or(&[])
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
