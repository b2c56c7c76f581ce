//! The state of one text in the layers.

use ttt_layer::{DeltaState, TttState};

use super::cache::KvCache;
use crate::ModelError;

/// Keys and values of the layers that are attention, inner models of the test-time-training layers, matrices of the
/// layers of the gated delta rule, and the residual row that the head reads.
#[derive(Clone, Debug)]
pub(super) struct LayerStates {
    pub(super) kv: KvCache,
    /// In layer order.
    pub(super) ttt: Vec<TttState>,
    /// In layer order.
    pub(super) delta: Vec<DeltaState>,
    /// Residual stream after the last layer at the last token, `[hidden]`: the input of the head.
    pub(super) last: Vec<f32>,
    /// Whether `last` belongs to the last token.
    pub(super) has_last: bool,
    /// Whether a step was interrupted after it began to change `ttt` or `delta`.
    pub(super) lost: bool,
}

/// The states of all test-time-training layers and layers of the gated delta rule after `len` tokens.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) len: usize,
    ttt: Vec<TttState>,
    delta: Vec<DeltaState>,
}

impl Snapshot {
    /// Bytes of the states.
    pub(crate) fn bytes(&self) -> usize {
        let ttt: usize = self.ttt.iter().map(TttState::bytes).sum();
        ttt + self.delta.iter().map(DeltaState::bytes).sum::<usize>()
    }
}

impl LayerStates {
    /// Tokens so far.
    pub(super) fn len(&self) -> usize {
        self.kv.len()
    }

    /// Whether it can be rewound to any earlier token.
    pub(super) fn can_rewind(&self) -> bool {
        self.ttt.is_empty() && self.delta.is_empty()
    }

    /// Rejects a state that a failed step has left inconsistent.
    pub(super) fn usable(&self) -> Result<(), ModelError> {
        if self.lost { Err(ModelError::StateLost) } else { Ok(()) }
    }

    /// The residual row after the last token, if it is known.
    pub(super) fn last(&self) -> Option<&[f32]> {
        self.has_last.then_some(&self.last[..])
    }

    /// A copy of the parts that cannot be rewound.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot { len: self.len(), ttt: self.ttt.clone(), delta: self.delta.clone() }
    }

    /// Restores the state that was copied.
    pub(super) fn rewind_to(&mut self, snapshot: &Snapshot) {
        self.ttt.clone_from_slice(&snapshot.ttt);
        self.delta.clone_from_slice(&snapshot.delta);
        self.kv.rewind(snapshot.len);
        (self.has_last, self.lost) = (false, false);
    }

    /// Notes that a step begins to change the state; if it never ends, the state is lost.
    pub(super) fn begin_step(&mut self) {
        self.lost = !self.can_rewind();
    }

    /// Notes that the step has succeeded.
    pub(super) fn end_step(&mut self) {
        self.lost = false;
    }

    /// Saves to `undo` what the next `tokens` tokens will overwrite and rewinding cannot restore.
    pub(super) fn remember(&self, tokens: usize, undo: &mut Vec<f32>) {
        undo.clear();
        if !self.can_rewind() {
            self.ttt.iter().for_each(|state| state.remember(tokens, undo));
            self.delta.iter().for_each(|state| state.remember(undo));
            undo.extend_from_slice(&self.last);
        }
    }

    /// After a failed step of `tokens` tokens: goes back to `len` tokens, with what [`LayerStates::remember`] saved in `undo`; the
    /// state is lost if that is needed but was not saved.
    pub(super) fn fail_step(&mut self, len: usize, tokens: usize, undo: Option<&[f32]>) {
        // Blocks that succeeded have moved it.
        self.has_last &= self.len() == len;
        self.kv.rewind(len);
        let Some(mut rest) = undo else { return };
        if !self.can_rewind() {
            for state in &mut self.ttt {
                rest = state.rewind(len as u64, tokens, rest);
            }
            for state in &mut self.delta {
                rest = state.rewind(len as u64, rest);
            }
            self.last.copy_from_slice(rest);
            (self.has_last, self.lost) = (len > 0, false);
        }
    }

    /// Counts `tokens` that all layers have read; `last` is the residual row of the last of them.
    pub(super) fn advance(&mut self, tokens: usize, last: &[f32]) {
        self.kv.advance(tokens);
        self.ttt.iter_mut().for_each(|state| state.advance(tokens));
        self.delta.iter_mut().for_each(|state| state.advance(tokens));
        self.last.copy_from_slice(last);
        self.has_last = true;
    }

    /// Like [`LayerStates::advance`], if the test-time-training layers have already counted the tokens.
    pub(super) fn advance_rest(&mut self, tokens: usize, last: &[f32]) {
        self.kv.reserve(self.kv.len() + tokens);
        self.kv.advance(tokens);
        self.last.copy_from_slice(last);
        self.has_last = true;
    }
}
