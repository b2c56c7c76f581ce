//! Log-probabilities of the tokens of a text, in pieces.

use bitnet_model::sampling::LogProbs;
use bitnet_model::{ModelError, Sequence};

use crate::{Error, Model, TokenLogprob};

/// Logits computed at once, which bounds the memory.
const LOGITS_AT_ONCE: usize = 1 << 22;

/// A text on its way to the probabilities of its tokens, see [`Model::scoring`].
#[derive(Debug)]
pub struct Scoring {
    model: Model,
    ids: Vec<u32>,
    top: usize,
    /// The part that was read; its state takes memory only from the first step on.
    sequence: Option<Sequence>,
    scored: Vec<TokenLogprob>,
}

impl Model {
    /// The probabilities of the tokens of a text, one pass over the weights at a time, for callers who have something
    /// else to do in between or may give up. Nothing is computed before the first [`Scoring::step`].
    ///
    /// ```
    /// # #[cfg(feature = "tiny-model")] {
    /// let model = bitnet::Model::tiny()?;
    /// let mut scoring = model.scoring(model.encode("Once upon a time", true)?, 2)?;
    /// while scoring.tokens_left() > 0 {
    ///     scoring.step(64)?;
    /// }
    /// let tokens = scoring.finish();
    /// assert!(tokens[0].logprob.is_none() && tokens[1].top.len() == 2);
    /// # }
    /// # Ok::<(), bitnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// A text without tokens, or one that does not fit.
    pub fn scoring(&self, ids: Vec<u32>, top: usize) -> Result<Scoring, Error> {
        let Some(&token) = ids.first() else { return Err(ModelError::EmptyPrompt.into()) };
        self.new_sequence().check(&ids)?;
        // Nothing comes before the first one.
        let scored = vec![TokenLogprob { token, logprob: None, top: Vec::new() }];
        Ok(Scoring { model: self.clone(), ids, top, sequence: None, scored })
    }
}

impl Scoring {
    /// Tokens that are to be read. The last one never is: nothing follows it.
    pub fn tokens_left(&self) -> usize {
        self.ids.len() - self.scored.len()
    }

    /// One pass over the weights, for at most `tokens` tokens. The probabilities do not depend on how many that are.
    ///
    /// # Errors
    /// Logits that are not finite, a model without a head. There is no way on after one.
    pub fn step(&mut self, tokens: usize) -> Result<(), Error> {
        let vocab = self.model.config().vocab_size;
        let most = tokens.clamp(1, (LOGITS_AT_ONCE / vocab.max(1)).clamp(1, 256)).min(self.tokens_left());
        let from = self.scored.len() - 1;
        let Some(piece) = self.ids.get(from..from + most).filter(|piece| !piece.is_empty()) else { return Ok(()) };
        let model = &self.model;
        let rows = self.sequence.get_or_insert_with(|| model.new_sequence()).feed_each(piece)?;
        for (logits, position) in rows.chunks_exact(vocab).zip(from + 1..) {
            let Some(&token) = self.ids.get(position) else { break };
            let p = LogProbs::new(logits, position)?;
            let top = if self.top == 0 { Vec::new() } else { p.best(self.top) };
            self.scored.push(TokenLogprob { token, logprob: Some(p.of(token)), top });
        }
        Ok(())
    }

    /// The probabilities of the tokens that were read so far, and of the next one; the first token has none.
    pub fn finish(self) -> Vec<TokenLogprob> {
        self.scored
    }
}
