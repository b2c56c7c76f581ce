//! One text in the making: its tokens, its cache, the logits of what comes next.

use std::ops::ControlFlow;

use crate::ModelError;
use crate::engine::{Engine, KvCache, KvType, LogitsWanted, StepInput};

/// Tokens fed at once between two calls of a progress callback.
const PROGRESS_STEP: usize = 256;

/// A sequence of tokens and the state that the model keeps for it. Feeding tokens is the only way to change it.
#[derive(Clone, Debug)]
pub struct Sequence {
    engine: Engine,
    cache: KvCache,
    tokens: Vec<u32>,
    /// `[rows, vocab]`: after the last token, or after each of the last ones.
    logits: Vec<f32>,
}

impl Sequence {
    /// An empty sequence of at most `limit` tokens (`None`: the model's own context length).
    pub fn new(engine: &Engine, kv: KvType, limit: Option<usize>) -> Self {
        let limit = limit.unwrap_or(engine.config().max_position_embeddings);
        Self {
            cache: KvCache::new(engine.config(), kv, limit),
            engine: engine.clone(),
            tokens: Vec::new(),
            logits: Vec::new(),
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

    /// Logits of the token after the last one, `[vocab]` f32; empty before the first token was fed.
    pub fn logits(&self) -> &[f32] {
        &self.logits[self.last_row()..]
    }

    /// Tokens and logits apart, for processors that read the one and change the other.
    pub fn tokens_and_logits(&mut self) -> (&[u32], &mut [f32]) {
        let start = self.last_row();
        (&self.tokens, &mut self.logits[start..])
    }

    fn last_row(&self) -> usize {
        self.logits.len().saturating_sub(self.engine.config().vocab_size)
    }

    /// All tokens, and the logits after the `i`-th of the last `n`, which were fed together by [`Sequence::push_rows`].
    /// Empty if there are none.
    pub(crate) fn tokens_and_logits_row(&mut self, i: usize, n: usize) -> (&[u32], &mut [f32]) {
        let vocab = self.engine.config().vocab_size;
        let row = match self.logits.len() >= n * vocab {
            true => {
                let start = self.logits.len() - (n - i) * vocab;
                &mut self.logits[start..start + vocab]
            }
            false => &mut [],
        };
        (&self.tokens, row)
    }

    /// Calls `f` with the tokens and `next` after them.
    pub(crate) fn with_next(&mut self, next: u32, f: impl FnOnce(&[u32])) {
        self.tokens.push(next);
        f(&self.tokens);
        self.tokens.pop();
    }

    /// Feeds `first` and `others`, and keeps the logits after each of them.
    ///
    /// # Errors
    /// Those of [`Engine::step`]; the sequence is then as it was before, without logits.
    pub(crate) fn push_rows(&mut self, first: u32, others: &[u32]) -> Result<(), ModelError> {
        let before = self.tokens.len();
        self.tokens.push(first);
        self.tokens.extend_from_slice(others);
        self.logits.clear();
        let tokens = &self.tokens[before..];
        let mut input = [StepInput { cache: &mut self.cache, tokens, wanted: LogitsWanted::All }];
        let result = self.engine.step(&mut input, &mut self.logits);
        if result.is_err() {
            self.tokens.truncate(before);
            self.logits.clear();
        }
        result
    }

    /// This sequence's part in a step of several.
    pub(crate) fn step_input<'a>(&'a mut self, tokens: &'a [u32], wanted: LogitsWanted) -> StepInput<'a> {
        StepInput { cache: &mut self.cache, tokens, wanted }
    }

    /// Takes note of such a step: `tokens` were fed, and `logits` follow the last one.
    pub(crate) fn stepped(&mut self, tokens: &[u32], logits: &[f32]) {
        self.tokens.extend_from_slice(tokens);
        self.logits.clear();
        self.logits.extend_from_slice(logits);
    }

    /// Feeds tokens and computes the logits of what follows the last of them. Without tokens nothing changes.
    ///
    /// # Errors
    /// Those of [`Engine::step`]; the sequence is then as it was before.
    pub fn push(&mut self, tokens: &[u32]) -> Result<&[f32], ModelError> {
        self.push_with(tokens, &mut |_| ControlFlow::Continue(()))?;
        Ok(&self.logits)
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
        if tokens.is_empty() {
            return Ok(true);
        }
        let before = self.tokens.len();
        self.engine.check(&self.cache, tokens)?;
        self.logits.clear();
        for (i, chunk) in tokens.chunks(PROGRESS_STEP).enumerate() {
            let fed = i * PROGRESS_STEP + chunk.len();
            let wanted = if fed == tokens.len() { LogitsWanted::Last } else { LogitsWanted::None };
            let mut input = [StepInput { cache: &mut self.cache, tokens: chunk, wanted }];
            if let Err(error) = self.engine.step(&mut input, &mut self.logits) {
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
        let mut all = Vec::new();
        let mut input = [StepInput { cache: &mut self.cache, tokens, wanted: LogitsWanted::All }];
        self.engine.step(&mut input, &mut all)?;
        self.tokens.extend_from_slice(tokens);
        if !tokens.is_empty() {
            self.logits.clear();
            self.logits.extend_from_slice(&all[all.len() - self.engine.config().vocab_size..]);
        }
        Ok(all)
    }

    /// Forgets everything from token `len` on; the logits are gone until the next token is fed.
    pub fn truncate(&mut self, len: usize) {
        if len < self.tokens.len() || self.cache.len() > len {
            self.tokens.truncate(len);
            self.cache.truncate(len);
            self.logits.clear();
        }
    }
}
