//! The maximum number of connections, and the choice of one to close if another needs its place.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::slot::Slot;
use crate::metrics::Metrics;

/// The interval between checks for late bodies.
const RECHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The places for connections.
#[derive(Debug)]
pub(crate) struct Places {
    limit: usize,
    /// A body that has been awaited so long may cost its connection the place.
    late: Duration,
    taken: Mutex<Taken>,
    news: Arc<Notify>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Taken {
    slots: BTreeMap<u64, Arc<Slot>>,
    next: u64,
}

/// A place; it becomes free when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    number: u64,
    pub(super) slot: Arc<Slot>,
}

impl Places {
    /// So many. Where all are taken, requests whose body has been awaited for `late` may lose theirs.
    pub(crate) fn new(limit: usize, late: Duration, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(1), late, taken: Mutex::default(), news: Arc::default(), metrics })
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place. If there is none, the connection that has been idle longest is closed; if none is idle, this
    /// waits.
    pub(crate) async fn take(self: &Arc<Self>) -> Place {
        loop {
            let news = self.news.notified();
            if let Some(place) = self.try_take() {
                return place;
            }
            self.evict();
            // A body becomes late without any news.
            let _ = tokio::time::timeout(RECHECK_INTERVAL, news).await;
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.lock();
        if taken.slots.len() >= self.limit {
            return None;
        }
        let (number, slot) = (taken.next, Arc::new(Slot::new(self.news.clone())));
        taken.next += 1;
        taken.slots.insert(number, slot.clone());
        self.metrics.connections.store(taken.slots.len() as u64, Relaxed);
        Some(Place { places: self.clone(), number, slot })
    }

    /// Closes the connection that has been idle longest, if one is; if not, the one whose body has been awaited
    /// longest, if it is late.
    pub(crate) fn evict(&self) {
        let taken = self.lock();
        let idle = taken.slots.values().filter_map(|slot| Some((slot.idle_since()?, slot)));
        let late = || {
            let reading = taken.slots.values().filter_map(|slot| Some((slot.reading_since()?, slot)));
            reading.filter(|(since, _)| since.elapsed() > self.late).min_by_key(|(since, _)| *since)
        };
        if let Some((_, slot)) = idle.min_by_key(|(since, _)| *since).or_else(late) {
            slot.evict();
            self.metrics.evicted.fetch_add(1, Relaxed);
        }
    }

    /// Waits until all connections have ended.
    pub(crate) async fn all_free(&self) {
        loop {
            let news = self.news.notified();
            if self.lock().slots.is_empty() {
                return;
            }
            news.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.slots.remove(&self.number);
        self.places.metrics.connections.store(taken.slots.len() as u64, Relaxed);
        drop(taken);
        self.places.news.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::slot::Busy;

    #[test]
    fn the_one_that_is_idle_longest_makes_room() {
        let metrics = Arc::new(Metrics::default());
        let places = Places::new(3, Duration::from_millis(50), metrics.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut all = [places.take().await, places.take().await, places.take().await];
            let busy = Busy::new(&all[0].slot);
            // The first is busy, so the second is the oldest that is idle.
            let mut fourth = Box::pin(places.take());
            assert!(tokio::time::timeout(Duration::from_millis(10), fourth.as_mut()).await.is_err());
            assert!([true, false, true] == [0, 1, 2].map(|i| all[i].slot.idle_since().is_some() || i == 0));
            all[1].slot.evicted.notified().await;
            let [_, second, _] = &mut all;
            let number = second.number;
            *second = {
                let gone =
                    std::mem::replace(second, Place { places: places.clone(), number: 99, slot: second.slot.clone() });
                drop(gone);
                fourth.await
            };
            assert_ne!(second.number, number);
            assert_eq!(metrics.evicted.load(Relaxed), 1);
            // If all are busy, one whose body does not arrive is closed.
            let [_, second, third] = [0, 1, 2].map(|i| Busy::new(&all[i].slot));
            let peer = super::super::slot::Peer::of(&all[2].slot);
            let reading = peer.reads();
            let mut fifth = Box::pin(places.take());
            assert!(tokio::time::timeout(Duration::from_millis(10), fifth.as_mut()).await.is_err());
            assert!(all[2].slot.reading_since().is_some(), "not yet late");
            assert!(tokio::time::timeout(Duration::from_secs(1), fifth.as_mut()).await.is_err());
            all[2].slot.evicted.notified().await;
            assert_eq!(metrics.evicted.load(Relaxed), 2);
            drop((reading, busy, second, third));
        });
    }
}
