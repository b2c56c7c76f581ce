//! The states of one text, passed from one piece of the text to the next, layer by layer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;
use ttt_layer::TttState;

use super::limits::{INLINE_PARTS, NonFinite};

/// Checks of a state that another thread has, before a nap: some hundred microseconds.
const LOOKS: u32 = 4096;
/// A nap.
const NAP: Duration = Duration::from_micros(20);

/// The states of one text, passed from piece to piece, layer by layer.
pub(super) struct StateHandoff<'a> {
    layers: SmallVec<[(Mutex<&'a mut TttState>, AtomicUsize); INLINE_PARTS]>,
    /// The first piece that failed.
    failed: AtomicUsize,
}

impl<'a> StateHandoff<'a> {
    pub(super) fn new(states: &'a mut [TttState]) -> Self {
        let layers = states.iter_mut().map(|state| (Mutex::new(state), AtomicUsize::new(0))).collect();
        Self { layers, failed: AtomicUsize::new(usize::MAX) }
    }

    /// Marks piece `at` as failed when the guard is dropped, also by a panic, unless it is disarmed.
    pub(super) fn failing_from(&self, at: usize) -> Failing<'_> {
        Failing { failed: &self.failed, at }
    }
}

/// Reports a piece as failed when it is dropped.
pub(super) struct Failing<'a> {
    failed: &'a AtomicUsize,
    at: usize,
}

impl Failing<'_> {
    /// The piece succeeded.
    pub(super) fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        self.failed.fetch_min(self.at, Ordering::Release);
    }
}

/// A piece of a text with its turn.
pub(super) struct Piece<'r, 'a> {
    pub(super) handoff: &'r StateHandoff<'a>,
    pub(super) at: usize,
}

/// Error of a chunk that was cancelled by an earlier failure; never returned.
const EARLIER_FAILED: NonFinite = ("an earlier piece of the text", usize::MAX / 2);

impl Piece<'_, '_> {
    /// Waits until the previous piece is done with layer `slot`, and lets `f` change the state.
    pub(super) fn in_turn(&self, slot: usize, f: impl FnOnce(&mut TttState)) -> Result<(), NonFinite> {
        let (state, turn) = &self.handoff.layers[slot];
        let mut looks = 0u32;
        while turn.load(Ordering::Acquire) != self.at {
            if self.handoff.failed.load(Ordering::Acquire) < self.at {
                return Err(EARLIER_FAILED);
            }
            looks += 1;
            // A thread that takes this long has lost its CPU, and may need this one. A sleeping thread keeps its claim
            // to the CPU, even next to other programs; a yielding thread does not.
            if looks.is_multiple_of(LOOKS) { std::thread::sleep(NAP) } else { std::hint::spin_loop() }
        }
        f(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// Like [`Piece::in_turn`], and then gives the next piece its turn.
    pub(super) fn pass_on(&self, slot: usize, f: impl FnOnce(&mut TttState)) -> Result<(), NonFinite> {
        self.in_turn(slot, f)?;
        self.handoff.layers[slot].1.store(self.at + 1, Ordering::Release);
        Ok(())
    }
}
