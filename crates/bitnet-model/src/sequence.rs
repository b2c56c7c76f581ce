//! One text in the making: its tokens, its cache, the logits of what comes next.

use std::ops::ControlFlow;

use crate::ModelError;
use crate::engine::{Engine, HeadRequest, KvCache, KvType, LogitsWanted, Prediction, StepInput, StepOutput};

/// Tokens fed at once between two calls of a progress callback.
const PROGRESS_STEP: usize = 256;

/// A sequence of tokens and the state that the model keeps for it. Feeding tokens is the only way to change it.
#[derive(Clone, Debug)]
pub struct Sequence {
    engine: Engine,
    cache: KvCache,
    tokens: Vec<u32>,
    /// What comes after the last token, or after each of the last ones: nothing, or some positions.
    out: StepOutput,
}

impl Sequence {
    /// An empty sequence of at most `limit` tokens (`None`: the model's own context length).
    pub fn new(engine: &Engine, kv: KvType, limit: Option<usize>) -> Self {
        let limit = limit.unwrap_or(engine.config().max_position_embeddings);
        Self {
            cache: KvCache::new(engine.config(), kv, limit),
            engine: engine.clone(),
            tokens: Vec::new(),
            out: StepOutput::default(),
        }
    }

    /// The engine that computes it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
    /// The tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
    /// Number of tokens so far.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }
    /// Whether there is no token yet.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
    /// Tokens that still fit.
    pub fn remaining(&self) -> usize {
        self.cache.limit() - self.cache.len()
    }
    /// Bytes of keys and values allocated now.
    pub fn cache_bytes(&self) -> usize {
        self.cache.byte_len()
    }

    /// Logits of the token after the last one, `[vocab]` f32; empty before the first token was fed, or if only the best were
    /// asked for.
    pub fn logits(&self) -> &[f32] {
        match self.prediction() {
            Prediction::Full(logits) => logits,
            Prediction::Best(_) => &[],
        }
    }

    /// Tokens and logits apart, for processors that read the one and change the other.
    pub fn tokens_and_logits(&mut self) -> (&[u32], &mut [f32]) {
        let logits = match self.out.len() {
            0 => &mut [][..],
            n => self.out.logits_at_mut(n - 1),
        };
        (&self.tokens, logits)
    }

    /// What comes after the last token, as far as it was asked for; no logits if nothing is known.
    pub fn prediction(&self) -> Prediction<'_> {
        match self.out.len() {
            0 => Prediction::Full(&[]),
            n => self.out.prediction(n - 1),
        }
    }

    /// Rows of the head that were computed for the prediction after a coarse pass; `None` if all were, at once.
    pub fn rescored(&self) -> Option<usize> {
        self.out.rescored(self.out.len().checked_sub(1)?)
    }

    /// All tokens, and what was computed after each of those that were fed last.
    pub(crate) fn tokens_and_output(&mut self) -> (&[u32], &mut StepOutput) {
        (&self.tokens, &mut self.out)
    }

    /// Calls `f` with the tokens and `next` after them.
    pub(crate) fn with_next(&mut self, next: u32, f: impl FnOnce(&[u32])) {
        self.tokens.push(next);
        f(&self.tokens);
        self.tokens.pop();
    }

    /// Feeds `first` and `others`, and keeps what follows each of them.
    ///
    /// # Errors
    /// Those of [`Engine::step`]; the sequence is then as it was before, without logits.
    pub(crate) fn feed_rows(&mut self, first: u32, others: &[u32], request: HeadRequest) -> Result<(), ModelError> {
        let before = self.tokens.len();
        self.tokens.push(first);
        self.tokens.extend_from_slice(others);
        self.out.clear();
        let tokens = &self.tokens[before..];
        let mut input = [StepInput { cache: &mut self.cache, tokens, wanted: LogitsWanted::All, head: request }];
        let result = self.engine.step(&mut input, &mut self.out);
        if result.is_err() {
            self.tokens.truncate(before);
            self.out.clear();
        }
        result
    }

    /// This sequence's part in a step of several.
    pub(crate) fn step_input<'a>(
        &'a mut self,
        tokens: &'a [u32],
        wanted: LogitsWanted,
        head: HeadRequest,
    ) -> StepInput<'a> {
        StepInput { cache: &mut self.cache, tokens, wanted, head }
    }

    /// Takes note of such a step: `tokens` were fed, and what follows the last one is position `i` of `out`, if given.
    pub(crate) fn stepped(&mut self, tokens: &[u32], out: Option<(&StepOutput, usize)>) {
        self.tokens.extend_from_slice(tokens);
        match out {
            Some((out, i)) => self.out.copy_position(out, i),
            None => self.out.clear(),
        }
    }

    /// Makes sure that the prediction answers `request`, which after a feed with another request needs the last token to be
    /// fed again. Without tokens nothing happens.
    ///
    /// # Errors
    /// Those of [`Engine::step`].
    pub fn require(&mut self, request: HeadRequest) -> Result<(), ModelError> {
        let known = self.out.len().checked_sub(1).is_some_and(|last| self.out.answers(last).covers(request));
        match self.tokens.last() {
            Some(&last) if !known => {
                self.truncate(self.tokens.len() - 1);
                self.feed(&[last], request, &mut |_| ControlFlow::Continue(())).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// Feeds tokens and computes the logits of what follows the last of them. Without tokens nothing changes.
    ///
    /// # Errors
    /// Those of [`Engine::step`]; the sequence is then as it was before.
    pub fn push(&mut self, tokens: &[u32]) -> Result<&[f32], ModelError> {
        self.push_with(tokens, &mut |_| ControlFlow::Continue(()))?;
        Ok(self.logits())
    }

    /// As [`Sequence::push`], telling `progress` after each few hundred tokens how many have been fed. If it breaks,
    /// the tokens fed so far stay in the sequence, without logits, and `false` is returned.
    ///
    /// # Errors
    /// Those of [`Engine::step`].
    pub fn push_with(
        &mut self,
        tokens: &[u32],
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<bool, ModelError> {
        self.feed(tokens, HeadRequest::Full, progress)
    }

    /// As [`Sequence::push_with`], computing only the logits that `request` asks for; read them by
    /// [`Sequence::prediction`].
    ///
    /// # Errors
    /// Those of [`Engine::step`].
    pub fn feed(
        &mut self,
        tokens: &[u32],
        request: HeadRequest,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<bool, ModelError> {
        if tokens.is_empty() {
            return Ok(true);
        }
        let before = self.tokens.len();
        self.engine.check(&self.cache, tokens)?;
        self.out.clear();
        for (i, chunk) in tokens.chunks(PROGRESS_STEP).enumerate() {
            let fed = i * PROGRESS_STEP + chunk.len();
            let wanted = if fed == tokens.len() { LogitsWanted::Last } else { LogitsWanted::None };
            let mut input = [StepInput { cache: &mut self.cache, tokens: chunk, wanted, head: request }];
            if let Err(error) = self.engine.step(&mut input, &mut self.out) {
                self.truncate(before);
                return Err(error);
            }
            self.tokens.extend_from_slice(chunk);
            if progress(fed).is_break() && fed < tokens.len() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Feeds tokens and returns the logits after each of them, `[tokens, vocab]` f32.
    ///
    /// # Errors
    /// Those of [`Engine::step`]; the sequence is then as it was before.
    pub fn push_all(&mut self, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let mut all = StepOutput::default();
        let wanted = LogitsWanted::All;
        let mut input = [StepInput { cache: &mut self.cache, tokens, wanted, head: HeadRequest::Full }];
        self.engine.step(&mut input, &mut all)?;
        self.tokens.extend_from_slice(tokens);
        if !tokens.is_empty() {
            self.out.copy_position(&all, all.len() - 1);
        }
        Ok(all.into_logits())
    }

    /// Forgets everything from token `len` on; the logits are gone until the next token is fed.
    pub fn truncate(&mut self, len: usize) {
        if len < self.tokens.len() || self.cache.len() > len {
            self.tokens.truncate(len);
            self.cache.truncate(len);
            self.out.clear();
        }
    }
}
