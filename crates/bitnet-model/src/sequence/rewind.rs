//! Rewinding a text.
//!
//! Keys and values are cut off. States of test-time-training layers and of layers of the gated delta rule cannot be:
//! the text is read again from the nearest earlier [snapshot](super::Snapshots), or from its beginning.

use super::{Sequence, SnapshotStore, Snapshots};
use crate::ModelError;
use crate::engine::HeadRequest;

impl Sequence {
    /// Keeps earlier states of test-time-training layers with `options`, from now on; existing ones are dropped. A new
    /// sequence keeps none.
    pub fn keep_snapshots(&mut self, options: Snapshots) {
        self.snapshots = SnapshotStore::new(options, self.state.mini_batch());
        self.replay = options.replay;
    }
    /// Bytes of the earlier states that are kept now.
    pub fn snapshot_bytes(&self) -> usize {
        self.snapshots.bytes()
    }

    /// Removes everything from token `len` on. If the model has test-time-training layers, the tokens between the
    /// nearest kept state ([`Snapshots`]) and `len` are read again. A lost sequence can be rewound to 0.
    ///
    /// # Errors
    /// [`ModelError::ReplayTooLong`] if more tokens would be read again than [`Snapshots::replay`] allows; then nothing
    /// has changed; the errors of [`Sequence::feed`].
    pub fn rewind(&mut self, len: usize) -> Result<(), ModelError> {
        self.drop_lookahead()?;
        let len = len.min(self.len);
        if len >= self.state.len() && len > 0 {
            self.forget(len);
            return Ok(());
        }
        if self.state.can_rewind() || len == 0 {
            self.rewind_state(len)?;
            self.forget(len);
            return Ok(());
        }
        // At least one token is read again: otherwise the prediction after the last one is not known.
        let text = self.tokens[..len].to_vec();
        let from = self.rewind_to_snapshot(len - 1, Some(len))?;
        self.feed_with(&text[from..], HeadRequest::Top(1), None).map(drop)
    }

    /// Rewinds to a common beginning of this text and `ids`, without computing anything, and returns its length; the
    /// rest of `ids` must be fed. It is the longest common beginning without the last token of `ids`, whose logits are
    /// needed. If the model has test-time-training layers, it is everything that was read or, if `ids` differs from it,
    /// what the nearest kept state has read.
    ///
    /// # Errors
    /// [`ModelError::StateLost`] if a failed step has left the state inconsistent.
    pub fn keep_prefix(&mut self, ids: &[u32]) -> Result<usize, ModelError> {
        self.drop_lookahead()?;
        let common = self.common_prefix(ids);
        self.forget(self.state.len());
        if !self.state.can_rewind() && common == self.len {
            return Ok(common);
        }
        // Everything after it is fed anyway, so the limit does not matter.
        self.rewind_to_snapshot(common.min(ids.len().saturating_sub(1)), None)
    }

    /// The number of `ids` that are the beginning of the tokens read, so that they need not be computed again.
    pub fn common_prefix(&self, ids: &[u32]) -> usize {
        let read = if self.tokens.len() > self.len { self.len - 1 } else { self.state.len().min(self.len) };
        self.tokens[..read].iter().zip(ids).take_while(|(a, b)| a == b).count()
    }

    /// Rewinds to the nearest position, of at most `at_most` tokens, whose state is known, and returns it: `at_most`
    /// itself if all layers can be rewound. The tokens after it must be fed again, so nothing about the last position
    /// is known; `to` is how far that will be, if [`Snapshots::replay`] applies. All tokens were read.
    fn rewind_to_snapshot(&mut self, at_most: usize, to: Option<usize>) -> Result<usize, ModelError> {
        if self.state.can_rewind() || at_most >= self.state.len() {
            self.rewind_state(at_most)?;
            self.forget(at_most);
            return Ok(self.len);
        }
        let nearest = self.snapshots.nearest(at_most);
        let from = nearest.as_ref().map_or(0, |snapshot| snapshot.len);
        if let (Some(to), Some(most)) = (to, self.replay)
            && to - from > most
        {
            return Err(ModelError::ReplayTooLong { to, from, most });
        }
        match nearest {
            None => self.state.rewind(0)?,
            Some(snapshot) => self.state.rewind_to(&snapshot),
        }
        self.snapshots.forget_after(from);
        self.out.clear();
        self.forget(from);
        Ok(from)
    }

    /// Rewinds the state to `len` tokens if possible; the tokens stay, to be read again.
    pub(super) fn rewind_state(&mut self, len: usize) -> Result<(), ModelError> {
        let before = self.state.len();
        self.state.rewind(len)?;
        self.snapshots.forget_after(len);
        if len < before {
            self.out.clear();
        }
        Ok(())
    }

    /// Removes tokens that were chosen ahead, and with them the prediction after the last one returned.
    pub(super) fn drop_lookahead(&mut self) -> Result<(), ModelError> {
        if self.tokens.len() > self.len {
            self.rewind_state(self.len - 1)?;
            self.forget(self.len);
        }
        Ok(())
    }

    /// Cuts the tokens off.
    fn forget(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.len = self.tokens.len();
    }
}
