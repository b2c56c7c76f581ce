//! Earlier states of a text, so that models with test-time-training layers or layers of the gated delta rule can be
//! rewound.
//!
//! Such a state cannot be rewound to an earlier token. Copies of it are kept as the text grows, and a rewind reads the
//! text again from the nearest earlier copy, or from its beginning.

use std::sync::Arc;

use crate::engine::{SequenceState, Snapshot};

/// How often the states of test-time-training layers are kept. Sessions use the default.
///
/// A copy is made whenever the text has grown by `every` mini-batches, which count 16 tokens for layers of the gated
/// delta rule. When there are `most` copies, every other one is dropped, and from then on they are made half as often:
/// memory stays bounded (`most` times [`SequenceState::constant_bytes`](crate::SequenceState::constant_bytes)), and
/// rewinding a text of `n` tokens reads at most `every` mini-batches or `2 n / most` tokens again, whichever is more.
/// Forks share their copies. Keys and values of layers of attention need none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshots {
    /// Mini-batches between two copies; 0 keeps none.
    pub every: usize,
    /// The maximum number of copies of one text.
    pub most: usize,
    /// The maximum number of tokens that are read again to rewind; otherwise rewinding fails
    /// ([`ModelError::ReplayTooLong`](crate::ModelError::ReplayTooLong)).
    pub replay: Option<usize>,
}

impl Default for Snapshots {
    /// Every 16 mini-batches (256 tokens for the usual ones of 16), at most 8 copies, any number of tokens read again.
    fn default() -> Self {
        Self { every: 16, most: 8, replay: None }
    }
}

impl Snapshots {
    /// No copies: a rewind reads the whole text again.
    pub fn none() -> Self {
        Self { every: 0, ..Self::default() }
    }
    /// Sets the distance between copies, in mini-batches.
    #[must_use]
    pub fn every(mut self, mini_batches: usize) -> Self {
        self.every = mini_batches;
        self
    }
    /// Sets the maximum number of copies.
    #[must_use]
    pub fn most(mut self, copies: usize) -> Self {
        self.most = copies;
        self
    }
    /// Sets the maximum number of tokens that are read again.
    #[must_use]
    pub fn replay(mut self, tokens: usize) -> Self {
        self.replay = Some(tokens);
        self
    }
}

/// The copies of one text.
#[derive(Clone, Debug, Default)]
pub(super) struct SnapshotStore {
    /// Tokens between two copies at the beginning of a text; 0 for none.
    first: usize,
    /// Tokens between two copies now.
    interval: usize,
    most: usize,
    /// Shortest first.
    copies: Vec<Arc<Snapshot>>,
}

impl SnapshotStore {
    /// For mini-batches of `tokens` tokens; 0 if no layer has any.
    pub(super) fn new(options: Snapshots, tokens: usize) -> Self {
        let first = if options.most == 0 { 0 } else { options.every.saturating_mul(tokens) };
        Self { first, interval: first, most: options.most, copies: Vec::new() }
    }

    /// Tokens until the next copy of a text of `len` tokens.
    pub(super) fn until_next(&self, len: usize) -> usize {
        match self.interval {
            0 => usize::MAX,
            n => n - len % n,
        }
    }

    /// Copies `state`, if it is time to.
    pub(super) fn record(&mut self, state: &SequenceState) {
        let len = state.len();
        let last = self.copies.last().map_or(0, |c| c.len);
        if self.interval == 0 || len / self.interval <= last / self.interval {
            return;
        }
        self.copies.push(Arc::new(state.snapshot()));
        if self.copies.len() > self.most {
            self.interval = self.interval.saturating_mul(2);
            let mut i = 0;
            self.copies.retain(|_| {
                i += 1;
                i % 2 == 0
            });
        }
    }

    /// Drops the copies of more than `len` tokens.
    pub(super) fn forget_after(&mut self, len: usize) {
        self.copies.retain(|c| c.len <= len);
        if len == 0 {
            self.interval = self.first;
        }
    }

    /// The longest copy of at most `len` tokens.
    pub(super) fn nearest(&self, len: usize) -> Option<Arc<Snapshot>> {
        self.copies.iter().rev().find(|c| c.len <= len).cloned()
    }

    /// Bytes of all copies.
    pub(super) fn bytes(&self) -> usize {
        self.copies.iter().map(|copy| copy.bytes()).sum()
    }
}
