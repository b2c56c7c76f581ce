//! Decoding: a token is chosen and becomes part of the text; the model reads it when the next one is needed.
//!
//! Several tokens may be drafted and verified in one pass over the weights ([`Speculation`]). The pass yields the
//! logits after each draft token, with the same bits as one by one. Tokens are sampled from them in turn, and at the
//! first that differs from the draft the rest is discarded. So the text is the same as without drafts, greedy or
//! sampled.

use super::{Sequence, Speculation};
use crate::ModelError;
use crate::engine::{HeadRequest, LogitsWanted, StepInput};
use crate::sampling::{CancelToken, Sampler};

/// Counts of the work for chosen tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DecodeCounts {
    /// Draft tokens.
    pub drafted: usize,
    /// Draft tokens that were accepted.
    pub accepted: usize,
    /// Tokens chosen from the best logits only, after a coarse pass over the head.
    pub coarse_tokens: usize,
    /// Rows of the head that were computed for them after the coarse pass.
    pub rows_rescored: usize,
}

impl Sequence {
    /// Counts of the work for chosen tokens since the last call.
    pub fn take_counts(&mut self) -> DecodeCounts {
        std::mem::take(&mut self.counts)
    }

    /// Like [`Sequence::feed_with`], with the logits that `sampler` needs to choose the next token.
    ///
    /// # Errors
    /// The errors of [`Sequence::feed`].
    pub fn feed_for(
        &mut self,
        tokens: &[u32],
        sampler: &Sampler,
        cancel: Option<&CancelToken>,
    ) -> Result<bool, ModelError> {
        self.feed_with(tokens, sampler.request(self.len + tokens.len()), cancel)
    }

    /// Appends `token` to the text without a choice. Nothing is computed before the next token is chosen or fed:
    /// several forced tokens go through the model in one pass.
    ///
    /// # Errors
    /// [`ModelError::TokenOutOfRange`] and [`ModelError::ContextFull`].
    pub fn force(&mut self, token: u32) -> Result<(), ModelError> {
        self.check(&[token])?;
        self.drop_lookahead()?;
        self.tokens.push(token);
        self.len += 1;
        Ok(())
    }

    /// Chooses the next token; it becomes part of the text.
    ///
    /// # Errors
    /// [`ModelError::EmptyPrompt`] for an empty text, a full context, and the errors of [`Sampler::sample`].
    pub fn next_token(&mut self, sampler: &mut Sampler, speculation: Speculation) -> Result<u32, ModelError> {
        if let Some(&token) = self.tokens.get(self.len) {
            self.len += 1;
            return Ok(token);
        }
        if self.is_empty() {
            return Err(ModelError::EmptyPrompt);
        }
        self.draft_tokens(speculation);
        let drafted = self.draft.len();
        let request = sampler.request(self.len + drafted);
        match drafted {
            0 => self.require(request)?,
            _ => self.read_with_draft(request)?,
        }
        self.choose(sampler, drafted)
    }

    /// Fills `draft`.
    fn draft_tokens(&mut self, speculation: Speculation) {
        self.draft.clear();
        // A rejected draft must be undone.
        if self.len != self.state.len() + 1 || !self.state.can_rewind() {
            return;
        }
        let room = (self.state.limit() - self.state.len()).saturating_sub(1);
        let max = speculation.max_draft(self.engine()).min(room);
        if max > 0 {
            self.lookup.propose(&self.tokens, max, &mut self.draft);
        }
    }

    /// Reads the pending token and the draft, and keeps the predictions after each of them.
    fn read_with_draft(&mut self, request: HeadRequest) -> Result<(), ModelError> {
        let (engine, read) = (self.engine().clone(), self.state.len());
        self.tokens.extend_from_slice(&self.draft);
        self.out.clear();
        let tokens = &self.tokens[read..];
        let mut input = [StepInput { state: &mut self.state, tokens, wanted: LogitsWanted::All, head: request }];
        let result = engine.step(&mut input, &mut self.out);
        if result.is_err() {
            self.tokens.truncate(self.len);
            self.out.clear();
        }
        result
    }

    /// Samples tokens as long as they agree with the draft of `drafted` tokens, which the model has read. Returns the
    /// first.
    fn choose(&mut self, sampler: &mut Sampler, drafted: usize) -> Result<u32, ModelError> {
        let base = self.len;
        // Further tokens of the draft that were chosen.
        let mut accepted = 0;
        let chosen = loop {
            // Without a draft, the last prediction is used.
            let row = self.out.len() - 1 - (drafted - accepted);
            let text = &self.tokens[..base + accepted];
            let chosen = sampler.choose(self.out.prediction(row), text.len() as u64, text);
            if let (Ok(_), Some(rows)) = (&chosen, self.out.rescored(row)) {
                self.counts.coarse_tokens += 1;
                self.counts.rows_rescored += rows;
            }
            match chosen {
                Ok(token) if accepted < drafted && token == self.draft[accepted] => accepted += 1,
                other => break other,
            }
        };
        match chosen {
            Ok(token) => {
                if drafted > 0 {
                    self.lookup.learn(drafted, accepted);
                    self.counts.drafted += drafted;
                    self.counts.accepted += accepted;
                }
                self.rewind_state(base + accepted)?;
                self.tokens.truncate(base + accepted);
                self.tokens.push(token);
            }
            Err(error) => {
                // The error of a later token will recur when that token is decoded.
                self.rewind_state(base + accepted.saturating_sub(1))?;
                self.tokens.truncate(base + accepted);
                if accepted == 0 {
                    return Err(error);
                }
            }
        }
        self.len = base + 1;
        Ok(self.tokens[base])
    }
}
