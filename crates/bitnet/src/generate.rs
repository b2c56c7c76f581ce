//! Generation: a prompt in, text out, piece by piece.

use std::ops::ControlFlow;
use std::time::Duration;

use bitnet_model::sampling::{CancelToken, FinishReason, LogitsProcessor, SamplingOptions};
use bitnet_model::sequence::Speculation;

use crate::clock::Instant;
use crate::generation_state::GenerationState;
use crate::{Error, Session, TokenLogprob};

/// Behaviour at a full context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// A prompt that does not fit is rejected ([`ModelError::ContextFull`](crate::ModelError::ContextFull)), and a text
    /// ends ([`FinishReason::Length`]).
    #[default]
    Stop,
    /// The first `keep` tokens stay (for example an instruction), and of all others the newest half of what the context
    /// can hold in addition; those between are dropped. The remaining tokens are read again at their new positions: the
    /// session is then as if it had never held the others. [`Stats::context_shifts`] counts how often it happened.
    ContextShift {
        /// Tokens at the beginning that always stay.
        keep: usize,
    },
}

/// A closure that ends a generation: it sees the new tokens and the new text.
pub type StopWhen = Box<dyn FnMut(&[u32], &str) -> bool + Send>;

/// Options of a generation: what to generate and when to stop.
///
/// ```
/// use bitnet::GenerateOptions;
/// let options = GenerateOptions::default().max_tokens(64).temperature(0.0).stop("\n\n");
/// ```
#[derive(Default)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// Sampling options.
    pub sampling: SamplingOptions,
    /// Most new tokens; `None` goes on until the model ends the text or the context is full. A model of
    /// test-time-training layers has no limit of context: there `None` means at most as many as it was made for,
    /// [`ModelConfig::max_position_embeddings`](crate::ModelConfig::max_position_embeddings).
    pub max_tokens: Option<usize>,
    /// Texts that end the generation; they are not part of the result.
    pub stop: Vec<String>,
    /// Ends the generation from another thread.
    pub cancel: Option<CancelToken>,
    /// Ends the generation when it returns true, after any token.
    pub stop_when: Option<StopWhen>,
    /// Processors of the logits, applied in this order before each token is sampled.
    pub processors: Vec<Box<dyn LogitsProcessor>>,
    /// Biases added to the logits of some tokens, before the processors; minus infinity forbids a token.
    pub logit_bias: Vec<(u32, f32)>,
    /// Whether to return log-probabilities, and of how many of the most probable tokens besides the chosen one.
    pub logprobs: Option<usize>,
    /// The constraint that the text must satisfy.
    #[cfg(feature = "constrain")]
    pub constraint: Option<crate::Constraint>,
    /// Whether special tokens appear in the text.
    pub show_special: bool,
    /// Continues after an end-of-text token.
    pub ignore_eos: bool,
    /// Behaviour at a full context.
    pub when_full: WhenFull,
    /// Speculative decoding: it changes the speed and never the text.
    pub speculation: Speculation,
}

impl std::fmt::Debug for GenerateOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GenerateOptions")
            .field("sampling", &self.sampling)
            .field("max_tokens", &self.max_tokens)
            .field("stop", &self.stop)
            .field("processors", &self.processors.len())
            .field("logprobs", &self.logprobs)
            .finish_non_exhaustive()
    }
}

impl GenerateOptions {
    /// Sets the sampling options.
    #[must_use]
    pub fn sampling(mut self, sampling: SamplingOptions) -> Self {
        self.sampling = sampling;
        self
    }
    /// At most `n` new tokens.
    #[must_use]
    pub fn max_tokens(mut self, n: usize) -> Self {
        self.max_tokens = Some(n);
        self
    }
    /// Sets the temperature; 0 always takes the most probable token.
    #[must_use]
    pub fn temperature(mut self, t: f32) -> Self {
        self.sampling.temperature = t;
        self
    }
    /// Sets the seed: the same seed gives the same text.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.sampling.seed = seed;
        self
    }
    /// Adds a stop text.
    #[must_use]
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        self.stop.push(text.into());
        self
    }
    /// Sets a token that cancels the generation.
    #[must_use]
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = Some(token.clone());
        self
    }
    /// Sets the behaviour at a full context.
    #[must_use]
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }
    /// Sets the speculative decoding.
    #[must_use]
    pub fn speculation(mut self, speculation: Speculation) -> Self {
        self.speculation = speculation;
        self
    }
    /// Ends when `f`, which receives the new tokens and the new text so far, returns true; the last token stays.
    ///
    /// ```
    /// # use bitnet::GenerateOptions;
    /// let three_sentences = GenerateOptions::default().stop_when(|_, text| text.matches('.').count() >= 3);
    /// ```
    #[must_use]
    pub fn stop_when(mut self, f: impl FnMut(&[u32], &str) -> bool + Send + 'static) -> Self {
        self.stop_when = Some(Box::new(f));
        self
    }
    /// Adds `bias` to the logit of `token`, too; minus infinity forbids it.
    #[must_use]
    pub fn logit_bias(mut self, token: u32, bias: f32) -> Self {
        self.logit_bias.push((token, bias));
        self
    }
    /// Returns the log-probability of each token and of the `top` most probable ones ([`Chunk::logprob`],
    /// [`Output::logprobs`]).
    #[must_use]
    pub fn logprobs(mut self, top: usize) -> Self {
        self.logprobs = Some(top);
        self
    }
    /// Constrains the text. An end-of-text token ends it only if the constraint is satisfied, even with `ignore_eos`;
    /// there is no speculative decoding, and tokens without an alternative are not computed ([`Stats::forced_tokens`]).
    #[cfg(feature = "constrain")]
    #[must_use]
    pub fn constraint(mut self, constraint: crate::Constraint) -> Self {
        self.constraint = Some(constraint);
        self
    }
    /// Adds a processor of the logits.
    #[must_use]
    pub fn processor(mut self, p: impl LogitsProcessor + 'static) -> Self {
        self.processors.push(Box::new(p));
        self
    }
}

/// One step of a generation.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Chunk {
    /// The token that was chosen; `None` in a last chunk that only brings text which had been held back.
    pub token: Option<u32>,
    /// Text that is certain by now: whole characters only, nothing that could still become part of a stop text. Often
    /// empty.
    pub text: String,
    /// The probability of the token, if [`GenerateOptions::logprobs`] asks for it.
    pub logprob: Option<TokenLogprob>,
}

/// Statistics of a generation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Tokens of the prompt that were computed (those kept from before are not counted).
    pub prompt_tokens: usize,
    /// Tokens of the prompt that the session held already.
    pub reused_tokens: usize,
    /// Generated tokens.
    pub new_tokens: usize,
    /// Time for the prompt.
    pub prefill: Duration,
    /// Time for the generated tokens.
    pub decode: Duration,
    /// Draft tokens of speculative decoding, see [`GenerateOptions::speculation`].
    pub drafted: usize,
    /// Draft tokens that were accepted.
    pub accepted: usize,
    /// Generated tokens that the constraint left no alternative to (fast-forward tokens): neither computed nor sampled.
    pub forced_tokens: usize,
    /// How often the context was full and tokens were dropped, see [`WhenFull::ContextShift`].
    pub context_shifts: usize,
    /// Tokens for which only the best logits were computed, after a coarse pass over the head.
    pub coarse_tokens: usize,
    /// Rows of the head that were computed for them after the coarse pass.
    pub rows_rescored: usize,
}

impl Stats {
    /// Prompt tokens per second; 0 without any.
    pub fn prefill_tok_s(&self) -> f64 {
        rate(self.prompt_tokens, self.prefill)
    }
    /// Rows of the head that were computed after the coarse pass, in the mean over the tokens that needed only the best
    /// logits; 0 without such tokens.
    pub fn rescored_per_token(&self) -> f64 {
        self.rows_rescored as f64 / self.coarse_tokens.max(1) as f64
    }
    /// Generated tokens per second; 0 without any. The first token comes out of the prompt's computation.
    pub fn decode_tok_s(&self) -> f64 {
        rate(self.new_tokens.saturating_sub(1), self.decode)
    }
}

fn rate(n: usize, time: Duration) -> f64 {
    if n == 0 || time.is_zero() { 0.0 } else { n as f64 / time.as_secs_f64() }
}

/// A finished generation.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Output {
    /// The new tokens, the one that ended the text included.
    pub ids: Vec<u32>,
    /// The new text; `None` if the model has no tokenizer. Whole characters: a text that was cut within one (by
    /// `max_tokens`, the context, `stop_when` or a cancellation) ends before it, and the text of a model that ends it there
    /// has U+FFFD.
    pub text: Option<String>,
    /// The bytes of a character that the cut divided, at most 3: tokens of `ids` that `text` does not have.
    pub incomplete: Vec<u8>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The probability of each token; empty unless [`GenerateOptions::logprobs`] asks for it.
    pub logprobs: Vec<TokenLogprob>,
    /// Times of the generation.
    pub stats: Stats,
}

/// A running generation: an iterator over its [`Chunk`]s. Dropping it ends it; the session keeps the generated tokens.
/// Under a constraint an error comes last if the text was cut off.
#[derive(Debug)]
pub struct Generation<'s> {
    session: &'s mut Session,
    progress: GenerationState,
}

impl<'s> Generation<'s> {
    /// Starts generating after the tokens of the session, whose last logits are known.
    pub(crate) fn new(session: &'s mut Session, progress: GenerationState) -> Self {
        Self { session, progress }
    }

    /// The new tokens so far.
    pub fn ids(&self) -> &[u32] {
        self.progress.ids()
    }
    /// Why it ended, once it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.progress.finished()
    }
    /// Times so far.
    pub fn stats(&self) -> Stats {
        self.progress.stats
    }

    /// Runs to the end and returns everything, text that was yielded before included.
    ///
    /// # Errors
    /// The errors of a step.
    pub fn finish(mut self) -> Result<Output, Error> {
        for chunk in self.by_ref() {
            chunk?;
        }
        Ok(self.progress.output())
    }

    /// Hands each piece of text to `f` as soon as it is certain; `Break` ends the generation.
    ///
    /// # Errors
    /// The errors of a step.
    pub fn for_each_text(mut self, mut f: impl FnMut(&str) -> ControlFlow<()>) -> Result<Output, Error> {
        while let Some(chunk) = self.next() {
            let chunk = chunk?;
            if !chunk.text.is_empty() && f(&chunk.text).is_break() {
                self.progress.cancel();
                break;
            }
        }
        Ok(self.progress.output())
    }

    fn step(&mut self) -> Result<Chunk, Error> {
        let began = Instant::now();
        if let Some(last) = self.progress.cancelled() {
            return Ok(last);
        }
        self.session.make_room(1, &mut self.progress)?;
        let token = self.progress.choose(self.session.sequence())?;
        let chunk = self.progress.accept(token, self.session);
        self.progress.stats.decode += began.elapsed();
        chunk
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Chunk, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.progress.finished().is_some() {
            return self.progress.take_failure().map(Err);
        }
        let step = self.step();
        if step.is_err() {
            self.progress.cancel();
        }
        Some(step)
    }
}
