//! Memory that requests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// So many bytes for all of them together.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    most: usize,
}

/// A share of the budget, returned when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    bytes: usize,
    of: Arc<Budget>,
}

impl Budget {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), most })
    }

    /// Nothing of it, as yet.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share { bytes: 0, of: self.clone() }
    }

    /// The sum of all shares.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Whether all have no more than there is.
    pub(crate) fn fits(&self) -> bool {
        self.used() <= self.most
    }

    /// Whether at least half is free. Texts that grow later find room if nothing begins when less is free.
    pub(crate) fn is_half_free(&self) -> bool {
        self.used() <= self.most / 2
    }

    /// Half of it, the limit for one request at its beginning.
    pub(crate) fn half(&self) -> usize {
        self.most / 2
    }
}

impl Share {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// So many bytes from now on.
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            self.of.used.fetch_add(bytes - self.bytes, Relaxed);
        } else {
            self.of.used.fetch_sub(self.bytes - bytes, Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_go_back() {
        let budget = Budget::new(100);
        let (mut a, mut b) = (budget.share(), budget.share());
        a.set(50);
        assert!(budget.is_half_free() && budget.fits());
        a.set(51);
        assert!(!budget.is_half_free() && budget.fits());
        b.set(49);
        assert!(budget.fits());
        b.set(50);
        assert!(!budget.fits());
        assert_eq!((a.bytes(), b.bytes(), budget.used(), budget.half()), (51, 50, 101, 50));
        a.set(10);
        assert_eq!(budget.used(), 60);
        drop((a, b));
        assert_eq!(budget.used(), 0);
    }
}
