//! State of one connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

/// The beginning of every answer of this version of HTTP. If a client sends nothing more, its first bytes are sent
/// before the answer is known: if the client is gone, its system reports it.
pub(super) const BEGINNING: &[u8] = b"HTTP/1.";

/// One connection, as those see it who serve it, who watch it, and who need its place.
#[derive(Debug)]
pub(super) struct Slot {
    state: Mutex<State>,
    /// Something changed that deadlines depend on.
    pub(super) changed: Notify,
    /// Someone else needs the place.
    pub(super) evicted: Notify,
    /// Tells that a place may have become free, or can be taken.
    news: Arc<Notify>,
    /// Whether the client has ended its side.
    quiet: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    /// Requests whose answer was not sent completely.
    requests: usize,
    /// Whether the answer to the request has begun.
    answering: bool,
    /// Whether there was a request.
    served: bool,
    /// Since when there is nothing to do.
    idle: Instant,
    /// When the first byte of the next head came.
    heard: Option<Instant>,
    /// Since when the body of a request is awaited.
    reading: Option<Instant>,
    /// Whether all data were passed to the system.
    flushed: bool,
    /// Bytes of [`BEGINNING`] that were sent before the answer.
    ahead: usize,
    leaving: bool,
}

/// How long a connection may be inactive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until the whole head of a request has come.
    pub(super) head: Duration,
    /// Between an answer and the first byte of the next request.
    pub(super) idle: Duration,
}

impl Slot {
    pub(super) fn new(news: Arc<Notify>) -> Self {
        let state = State {
            requests: 0,
            answering: false,
            served: false,
            idle: Instant::now(),
            heard: None,
            reading: None,
            flushed: true,
            ahead: 0,
            leaving: false,
        };
        let quiet = watch::Sender::new(false);
        Self { state: Mutex::new(state), changed: Notify::new(), evicted: Notify::new(), news, quiet }
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins.
    fn begins(&self) {
        let mut state = self.lock();
        state.requests += 1;
        (state.served, state.heard, state.answering) = (true, None, false);
        drop(state);
        self.changed.notify_one();
    }

    /// Notes that its answer begins.
    pub(super) fn answers(&self) {
        self.lock().answering = true;
    }

    /// Notes that its answer was sent completely, or is not needed any more.
    fn ends(&self) {
        let mut state = self.lock();
        state.requests = state.requests.saturating_sub(1);
        (state.idle, state.answering) = (Instant::now(), false);
        drop(state);
        self.changed.notify_one();
        self.news.notify_one();
    }

    /// Bytes came.
    pub(super) fn heard(&self) {
        let mut state = self.lock();
        if state.requests == 0 && state.heard.is_none() {
            state.heard = Some(Instant::now());
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Bytes are to be sent, or all were.
    pub(super) fn flushed(&self, flushed: bool) {
        self.lock().flushed = flushed;
    }

    /// Until when something must happen; `None` while a request is under way.
    pub(super) fn deadline(&self, patience: Patience) -> Option<Instant> {
        let state = self.lock();
        match (state.requests, state.heard, state.served) {
            (0, Some(heard), _) => Some(heard + patience.head),
            (0, None, false) => Some(state.idle + patience.head),
            (0, None, true) => Some(state.idle + patience.idle),
            _ => None,
        }
    }

    /// Since when there is no request; `None` while there is one, or when the place was given to another connection.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.requests == 0 && !state.leaving).then_some(state.idle)
    }

    /// Since when the body of a request is awaited.
    pub(super) fn reading_since(&self) -> Option<Instant> {
        let state = self.lock();
        state.reading.filter(|_| !state.leaving)
    }

    /// Gives the place to another connection.
    pub(super) fn evict(&self) {
        self.lock().leaving = true;
        self.evicted.notify_one();
    }

    /// The client has ended its side.
    pub(super) fn goes_quiet(&self) {
        self.quiet.send_replace(true);
    }

    /// Sends the next byte ahead of the answer; `send` returns whether it was sent.
    pub(super) fn send_ahead(&self, send: impl FnOnce(&[u8]) -> bool) {
        let mut state = self.lock();
        let free = state.requests > 0 && !state.answering && state.flushed;
        if let Some(byte) = BEGINNING.get(state.ahead..=state.ahead).filter(|_| free)
            && send(byte)
        {
            state.ahead += 1;
        }
    }

    /// The number of bytes that were sent ahead.
    pub(super) fn ahead(&self) -> usize {
        self.lock().ahead
    }
    /// They are not to be left out a second time.
    pub(super) fn caught_up(&self) {
        self.lock().ahead = 0;
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Busy(Arc<Slot>);

impl Busy {
    pub(super) fn new(slot: &Arc<Slot>) -> Self {
        slot.begins();
        Self(slot.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.ends();
    }
}

/// The other side of the connection of a request.
#[derive(Clone, Debug)]
pub(crate) struct Peer(Arc<Slot>);

/// The body of a request is awaited while this lives.
#[derive(Debug)]
pub(crate) struct Reading<'a>(&'a Slot);

impl Peer {
    pub(super) fn of(slot: &Arc<Slot>) -> Self {
        Self(slot.clone())
    }

    /// Notes that the body of the request is awaited from now on.
    pub(crate) fn reads(&self) -> Reading<'_> {
        self.0.lock().reading = Some(Instant::now());
        Reading(&self.0)
    }

    /// Ends when the client has ended its side: it may be gone, or wait for the answer.
    pub(crate) async fn quiet(self) {
        // The sender lives in the slot.
        let _ = self.0.quiet.subscribe().wait_for(|quiet| *quiet).await;
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.lock().reading = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_follow_what_happens() {
        let slot = Arc::new(Slot::new(Arc::default()));
        let patience = Patience { head: Duration::from_secs(5), idle: Duration::from_secs(30) };
        let left =
            || slot.deadline(patience).map(|at| at.saturating_duration_since(Instant::now()).as_secs_f64().round());
        assert_eq!(left(), Some(5.0));
        slot.heard();
        let first = slot.deadline(patience);
        slot.heard();
        assert_eq!(slot.deadline(patience), first);
        let busy = Busy::new(&slot);
        assert_eq!((left(), slot.idle_since()), (None, None));
        slot.heard();
        drop(busy);
        assert_eq!(left(), Some(30.0));
        slot.heard();
        assert_eq!(left(), Some(5.0));
        assert!(slot.idle_since().is_some());
        slot.evict();
        assert!(slot.idle_since().is_none());
    }

    #[test]
    fn the_beginning_is_sent_ahead_only_where_the_answer_is_next() {
        let slot = Arc::new(Slot::new(Arc::default()));
        slot.send_ahead(|_| panic!("nothing was asked"));
        let busy = Busy::new(&slot);
        slot.flushed(false);
        slot.send_ahead(|_| panic!("another answer is on its way"));
        slot.flushed(true);
        slot.send_ahead(|byte| byte == b"H");
        slot.send_ahead(|_| false);
        assert_eq!(slot.ahead(), 1);
        for _ in 0..20 {
            slot.send_ahead(|_| true);
        }
        assert_eq!(slot.ahead(), BEGINNING.len());
        slot.caught_up();
        slot.answers();
        slot.send_ahead(|_| panic!("the answer has begun"));
        drop(busy);
    }
}
