//! Token after token: a [`Sequence`] with the token chosen last, which the model reads only when more is wanted.
//!
//! A [`Decoder`] may draft several tokens and verify them in one pass over the weights ([`Speculation`]). The pass
//! yields the logits after each draft token, with the same bits as one by one; a token is sampled from them in turn,
//! and at the first that differs from the draft the rest is discarded. So the text is the same as without drafts,
//! greedy or sampled.

mod batch;
mod lookup;

use std::collections::VecDeque;
use std::ops::ControlFlow;

use crate::sampling::{CancelToken, Sampler};
use crate::{Engine, HeadRequest, ModelError, Sequence, SequenceState};
pub use batch::{BatchInput, step};
use lookup::PromptLookup;
pub use lookup::Speculation;

/// A text in the making, token after token.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// What the model has read. If `ahead` is empty, all tokens but `pending`; else all tokens, and `ahead` but for its
    /// last one.
    sequence: Sequence,
    /// The token chosen last, and those that were put behind it without a choice.
    pending: Vec<u32>,
    /// Tokens that were chosen already and are yet to be handed out.
    ahead: VecDeque<u32>,
    lookup: PromptLookup,
    draft: Vec<u32>,
    counts: DecoderCounts,
}

/// What was done for tokens that were chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DecoderCounts {
    /// Draft tokens.
    pub drafted: usize,
    /// Draft tokens that were accepted.
    pub accepted: usize,
    /// Tokens chosen from the best logits only, after a coarse pass over the head.
    pub coarse_tokens: usize,
    /// Rows of the head that were computed for them after the coarse pass.
    pub rows_rescored: usize,
}

impl Decoder {
    /// Goes on after what `sequence` holds.
    pub fn new(sequence: Sequence) -> Self {
        Self {
            sequence,
            pending: Vec::new(),
            ahead: VecDeque::new(),
            lookup: PromptLookup::default(),
            draft: Vec::new(),
            counts: DecoderCounts::default(),
        }
    }

    /// All tokens so far.
    pub fn tokens(&self) -> Vec<u32> {
        [self.read(), &self.pending].concat()
    }
    /// Number of tokens so far.
    pub fn len(&self) -> usize {
        self.read().len() + self.pending.len()
    }
    /// Whether there is no token yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Tokens that still fit.
    pub fn remaining(&self) -> usize {
        (self.sequence.remaining() + self.sequence.len()).saturating_sub(self.len())
    }
    /// What the model keeps for the text, in all layers.
    pub fn state(&self) -> &SequenceState {
        self.sequence.state()
    }
    /// How often states are kept that cannot be taken back, see [`Snapshots`](crate::Snapshots).
    pub fn keep_snapshots(&mut self, options: crate::Snapshots) {
        self.sequence.keep_snapshots(options);
    }
    /// Bytes of the states that are kept now.
    pub fn snapshot_bytes(&self) -> usize {
        self.sequence.snapshot_bytes()
    }
    /// What was done since this was last asked.
    pub fn take_counts(&mut self) -> DecoderCounts {
        std::mem::take(&mut self.counts)
    }

    /// The tokens before `pending`.
    fn read(&self) -> &[u32] {
        let all = self.sequence.tokens();
        &all[..all.len() - self.ahead.len()]
    }

    /// Whether `ids` may follow.
    ///
    /// # Errors
    /// [`ModelError::TokenOutOfRange`] and [`ModelError::ContextFull`].
    pub fn check(&self, ids: &[u32]) -> Result<(), ModelError> {
        self.sequence.engine().check_tokens(ids)?;
        let (used, more) = (self.len(), ids.len());
        match more <= self.remaining() {
            true => Ok(()),
            false => Err(ModelError::ContextFull { limit: used + self.remaining(), used, more }),
        }
    }

    /// Forgets tokens that were chosen and not handed out.
    fn drop_lookahead(&mut self) -> Result<(), ModelError> {
        if !self.ahead.is_empty() {
            self.sequence.truncate(self.sequence.len() - self.ahead.len())?;
            self.ahead.clear();
        }
        Ok(())
    }

    /// Forgets everything from token `len` on. Where the model has test-time-training layers, what lies between the
    /// nearest kept state ([`Snapshots`](crate::Snapshots)) and `len` is read again.
    ///
    /// # Errors
    /// [`ModelError::ReplayTooLong`], with which nothing has changed, and the errors of [`Sequence::feed`].
    pub fn rewind(&mut self, len: usize) -> Result<(), ModelError> {
        self.drop_lookahead()?;
        if len >= self.sequence.len() {
            self.pending.truncate(len - self.sequence.len());
            return Ok(());
        }
        if self.sequence.can_rewind() || len == 0 {
            self.pending.clear();
            return self.sequence.truncate(len);
        }
        // At least one token is read again: what follows the last one is not known otherwise.
        let kept = self.sequence.tokens()[..len].to_vec();
        let from = self.sequence.go_back(len - 1, Some(len))?;
        self.pending.clear();
        self.sequence.feed(&kept[from..], HeadRequest::Top(1), &mut |_| ControlFlow::Continue(())).map(drop)
    }

    /// Goes back to a beginning of `ids` that this text has, without computing anything, and returns its length; what
    /// of `ids` comes after it is to be fed. That is what both have in common, but for the last token of `ids`, whose
    /// logits are needed. Where the model has test-time-training layers, it is all that was read or, if `ids` goes on
    /// in another way, what the nearest kept state has read.
    ///
    /// # Errors
    /// The errors of [`Sequence::truncate`].
    pub fn keep_prefix(&mut self, ids: &[u32]) -> Result<usize, ModelError> {
        self.drop_lookahead()?;
        let common = self.common_prefix(ids);
        self.pending.clear();
        if !self.sequence.can_rewind() && common == self.sequence.len() {
            return Ok(common);
        }
        let len = common.min(ids.len().saturating_sub(1));
        // Everything after it is fed anyway, so no bound on that matters.
        self.sequence.go_back(len, None)
    }

    /// The text and the model's state for it as bytes, see [`Sequence::save`].
    ///
    /// # Errors
    /// The errors of [`Sequence::save`].
    pub fn save(&mut self) -> Result<Vec<u8>, ModelError> {
        self.drop_lookahead()?;
        if self.pending.len() > 1 {
            let read = self.pending.len() - 1;
            self.sequence.feed(&self.pending[..read], HeadRequest::Top(1), &mut |_| ControlFlow::Continue(()))?;
            self.pending.drain(..read);
        }
        self.sequence.save_with(self.pending.last().copied())
    }

    /// The text that [`Decoder::save`] made bytes of.
    ///
    /// # Errors
    /// The errors of [`Sequence::restore`].
    pub fn restore(engine: &Engine, limit: Option<usize>, bytes: &[u8]) -> Result<Self, ModelError> {
        let (sequence, pending) = Sequence::restore_with(engine, limit, bytes)?;
        Ok(Self { pending: pending.into_iter().collect(), ..Self::new(sequence) })
    }

    /// How many of `ids` are the beginning of this text, so that they need not be computed again.
    pub fn common_prefix(&self, ids: &[u32]) -> usize {
        self.read().iter().zip(ids).take_while(|(a, b)| a == b).count()
    }

    /// Reads the token chosen last and `ids`, computing the logits that `request` asks for after the last of them;
    /// `false` if it was cancelled on the way.
    ///
    /// # Errors
    /// The errors of [`Sequence::feed`]; the text is then as it was before.
    pub fn feed(
        &mut self,
        ids: &[u32],
        request: HeadRequest,
        cancel: Option<&CancelToken>,
    ) -> Result<bool, ModelError> {
        self.drop_lookahead()?;
        let all = [&self.pending[..], ids].concat();
        let mut go_on = |_| match cancel {
            Some(c) if c.is_cancelled() => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let finished = self.sequence.feed(&all, request, &mut go_on)?;
        self.pending.clear();
        Ok(finished)
    }

    /// Puts `token` after the text without a choice. Nothing is computed before the next token is chosen or fed:
    /// several tokens in a row go through the model in one pass.
    ///
    /// # Errors
    /// [`ModelError::TokenOutOfRange`] and [`ModelError::ContextFull`].
    pub fn force(&mut self, token: u32) -> Result<(), ModelError> {
        self.check(&[token])?;
        self.drop_lookahead()?;
        self.pending.push(token);
        Ok(())
    }

    /// How probable each of `continuations` is after this text, see [`scoring::log_probs`](crate::scoring::log_probs).
    ///
    /// # Errors
    /// The errors of [`scoring::log_probs`](crate::scoring::log_probs).
    pub fn log_probs(&mut self, continuations: &[&[u32]]) -> Result<Vec<Vec<f64>>, ModelError> {
        self.feed(&[], HeadRequest::Full, None)?;
        crate::scoring::log_probs(&self.sequence, continuations)
    }

    /// Logits after the token read last, `[vocab]` f32; empty if there is no token.
    ///
    /// # Errors
    /// The errors of [`Sequence::require`].
    pub fn logits(&mut self) -> Result<&[f32], ModelError> {
        // The last prediction may be of the best tokens only.
        self.sequence.require(HeadRequest::Full)?;
        Ok(self.sequence.logits())
    }

    /// Chooses the next token; it becomes part of the text.
    ///
    /// # Errors
    /// [`ModelError::EmptyPrompt`] without any token before, a full context, and the errors of [`Sampler::sample`].
    pub fn next_token(&mut self, sampler: &mut Sampler, speculation: Speculation) -> Result<u32, ModelError> {
        if let Some(token) = self.ahead.pop_front() {
            self.pending.clear();
            self.pending.push(token);
            return Ok(token);
        }
        self.draft_tokens(speculation);
        let mut draft = std::mem::take(&mut self.draft);
        let token = self.read_and_choose(&draft, sampler);
        draft.clear();
        self.draft = draft;
        token
    }

    /// Fills `draft`.
    fn draft_tokens(&mut self, speculation: Speculation) {
        self.draft.clear();
        let &[pending] = &self.pending[..] else { return };
        let max = speculation.max_draft(self.sequence.engine()).min(self.sequence.remaining().saturating_sub(1));
        // A rejected draft must be undone.
        if max == 0 || !self.sequence.can_rewind() {
            return;
        }
        self.sequence.with_next(pending, |text| self.lookup.propose(text, max, &mut self.draft));
    }

    /// Reads the pending token and the draft, and samples tokens as long as they agree with the draft.
    fn read_and_choose(&mut self, draft: &[u32], sampler: &mut Sampler) -> Result<u32, ModelError> {
        if self.is_empty() {
            return Err(ModelError::EmptyPrompt);
        }
        let request = sampler.request(self.len() + draft.len());
        match self.pending[..] {
            [token] if !draft.is_empty() => self.sequence.feed_rows(token, draft, request)?,
            _ => self.sequence.feed(&self.pending, request, &mut |_| ControlFlow::Continue(())).map(drop)?,
        }
        self.pending.clear();
        // What was fed before may have been asked for less.
        self.sequence.require(request)?;
        let base = self.sequence.len() - draft.len();
        let mut first = None;
        for i in 0..=draft.len() {
            let (text, out) = (self.sequence.tokens(), self.sequence.output());
            // Without a draft, what counts is the last of what was fed.
            let row = out.len() - 1 - (draft.len() - i);
            let text = &text[..base + i];
            let chosen = sampler.choose(out.prediction(row), text.len() as u64, text);
            if let (Ok(_), Some(rows)) = (&chosen, out.rescored(row)) {
                self.counts.coarse_tokens += 1;
                self.counts.rows_rescored += rows;
            }
            let token = match (chosen, first) {
                (Ok(token), _) => token,
                (Err(error), None) => {
                    self.sequence.truncate(base)?;
                    return Err(error);
                }
                // The error will recur when this token is decoded.
                (Err(_), Some(_)) => {
                    self.ahead.truncate(i - 1);
                    self.sequence.truncate(base + i - 1)?;
                    break;
                }
            };
            match first {
                None => first = Some(token),
                Some(_) => self.ahead.push_back(token),
            }
            if i == draft.len() || token != draft[i] {
                if !draft.is_empty() {
                    self.lookup.learn(draft.len(), i);
                    self.counts.drafted += draft.len();
                    self.counts.accepted += i;
                }
                if i < draft.len() {
                    self.sequence.truncate(base + i)?;
                }
                break;
            }
        }
        self.pending.extend(first);
        first.ok_or(ModelError::EmptyPrompt)
    }
}
