//! Cache of compiled constraints of a vocabulary, the latest first.

use std::sync::{Arc, Mutex, PoisonError};

/// The most recently used values, bounded in number and in bytes.
pub(super) struct Cache<K, V> {
    /// The latest first. A few dozen entries are found faster in order than by any table.
    entries: Mutex<Vec<(K, Arc<V>, usize)>>,
    most: usize,
    bytes: usize,
}

impl<K: PartialEq, V> Cache<K, V> {
    pub(super) fn new(most: usize, bytes: usize) -> Self {
        Self { entries: Mutex::new(Vec::new()), most, bytes }
    }

    pub(super) fn get(&self, key: &K) -> Option<Arc<V>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let at = entries.iter().position(|(k, ..)| k == key)?;
        entries[..=at].rotate_right(1);
        Some(entries[0].1.clone())
    }

    /// Keeps a value of about `bytes` bytes, and drops old values to stay within the bounds. A value that is too large
    /// is not kept.
    pub(super) fn put(&self, key: K, value: V, bytes: usize) -> Arc<V> {
        let value = Arc::new(value);
        if bytes > self.bytes {
            return value;
        }
        let gone = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.retain(|(k, ..)| *k != key);
            entries.insert(0, (key, value.clone(), bytes));
            let mut sum = 0;
            let fits = entries.iter().take(self.most).take_while(|(.., bytes)| {
                sum += bytes;
                sum <= self.bytes
            });
            let fits = fits.count();
            entries.split_off(fits)
        };
        // Drop outside of the lock: it may take a while.
        drop(gone);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept_within_the_bounds() {
        let cache = Cache::new(3, 100);
        for i in 0..4 {
            cache.put(i, i * 10, 10);
        }
        assert!(cache.get(&0).is_none());
        assert_eq!(cache.get(&1).as_deref(), Some(&10));
        cache.put(9, 90, 10);
        // 1 was used after 2.
        assert!(cache.get(&2).is_none() && cache.get(&1).is_some() && cache.get(&3).is_some());
        cache.put(7, 70, 85);
        assert!(cache.get(&7).is_some() && cache.get(&3).is_some() && cache.get(&9).is_none());
        assert_eq!(*cache.put(8, 80, 101), 80);
        assert!(cache.get(&8).is_none() && cache.get(&7).is_some());
        cache.put(7, 71, 5);
        assert_eq!(cache.get(&7).as_deref(), Some(&71));
    }
}
