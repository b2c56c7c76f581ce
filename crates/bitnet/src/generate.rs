//! Generation: a prompt in, text out, piece by piece.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bitnet_model::HeadRequest;
use bitnet_model::decoder::{self, Speculation};
use bitnet_model::sampling::{CancelToken, FinishReason, LogitsProcessor, Sampler, SamplingOptions};

use crate::progress::Progress;
use crate::{Error, Session};

/// What to generate and when to stop.
///
/// ```
/// use bitnet::GenerateOptions;
/// let options = GenerateOptions::default().max_tokens(64).temperature(0.0).stop("\n\n");
/// ```
#[derive(Default)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// How a token is chosen.
    pub sampling: SamplingOptions,
    /// Most new tokens; `None` goes on until the model ends the text or the context is full. A model of test-time-training layers
    /// has no limit of context: there `None` means at most as many as it was made for,
    /// [`ModelConfig::max_position_embeddings`](crate::ModelConfig::max_position_embeddings).
    pub max_tokens: Option<usize>,
    /// Texts that end the generation; they are not part of the result.
    pub stop: Vec<String>,
    /// Ends the generation from another thread.
    pub cancel: Option<CancelToken>,
    /// Changes of the logits before each token is chosen, in this order.
    pub processors: Vec<Box<dyn LogitsProcessor>>,
    /// Whether special tokens appear in the text.
    pub show_special: bool,
    /// Goes on after a token that ends a text.
    pub ignore_eos: bool,
    /// Whether tokens are guessed and checked together; it changes the speed and never the text.
    pub speculation: Speculation,
}

impl std::fmt::Debug for GenerateOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GenerateOptions")
            .field("sampling", &self.sampling)
            .field("max_tokens", &self.max_tokens)
            .field("stop", &self.stop)
            .field("processors", &self.processors.len())
            .finish_non_exhaustive()
    }
}

impl GenerateOptions {
    /// With these sampling options.
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
    /// With a temperature; 0 always takes the likeliest token.
    #[must_use]
    pub fn temperature(mut self, t: f32) -> Self {
        self.sampling.temperature = t;
        self
    }
    /// With a seed: the same seed gives the same text.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.sampling.seed = seed;
        self
    }
    /// Ends at this text, too.
    #[must_use]
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        self.stop.push(text.into());
        self
    }
    /// Can be ended through this token.
    #[must_use]
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = Some(token.clone());
        self
    }
    /// Which logits a token chosen so needs, after `history` tokens.
    pub(crate) fn head_request(&self, history: usize) -> Result<HeadRequest, Error> {
        Ok(decoder::head_request(&Sampler::new(self.sampling.clone())?, &self.processors, history))
    }
    /// Guesses tokens in this way.
    #[must_use]
    pub fn speculation(mut self, speculation: Speculation) -> Self {
        self.speculation = speculation;
        self
    }
    /// Changes the logits through this processor, too.
    #[must_use]
    pub fn processor(mut self, p: impl LogitsProcessor + 'static) -> Self {
        self.processors.push(Box::new(p));
        self
    }
}

/// One step of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Chunk {
    /// The token that was chosen; `None` in a last chunk that only brings text which had been held back.
    pub token: Option<u32>,
    /// Text that is certain by now: whole characters only, nothing that could still become part of a stop text. Often empty.
    pub text: String,
}

/// How long a generation took and what it did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Tokens of the prompt that were computed (those kept from before are not counted).
    pub prompt_tokens: usize,
    /// Tokens of the prompt that the session held already.
    pub reused_tokens: usize,
    /// Tokens that were generated.
    pub new_tokens: usize,
    /// Time for the prompt.
    pub prefill: Duration,
    /// Time for the generated tokens.
    pub decode: Duration,
    /// Tokens that were guessed, see [`GenerateOptions::speculation`].
    pub drafted: usize,
    /// Guesses that were right.
    pub accepted: usize,
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
    /// Rows of the head that were computed after the coarse pass, in the mean over the tokens that needed only the best logits; 0
    /// without such tokens.
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
    /// The new text; `None` if the model has no tokenizer.
    pub text: Option<String>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// How long it took.
    pub stats: Stats,
}

/// A generation under way: an iterator over its [`Chunk`]s. Dropping it ends it; the session keeps what was generated.
#[derive(Debug)]
pub struct Generation<'s> {
    session: &'s mut Session,
    progress: Progress,
}

impl<'s> Generation<'s> {
    /// Begins to generate after what the session holds, whose last logits are known.
    pub(crate) fn new(
        session: &'s mut Session,
        options: GenerateOptions,
        stats: Stats,
        cancelled: bool,
    ) -> Result<Self, Error> {
        let progress = Progress::new(session.model(), options, stats, cancelled)?;
        Ok(Self { session, progress })
    }

    /// The new tokens so far.
    pub fn ids(&self) -> &[u32] {
        self.progress.ids()
    }
    /// Why it ended, once it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.progress.finished()
    }
    /// How long it has taken so far.
    pub fn stats(&self) -> Stats {
        self.progress.stats
    }

    /// Runs to the end and returns everything, text that was yielded before included.
    ///
    /// # Errors
    /// Those of a step.
    pub fn finish(mut self) -> Result<Output, Error> {
        for chunk in self.by_ref() {
            chunk?;
        }
        Ok(self.progress.output())
    }

    /// Hands each piece of text to `f` as soon as it is certain; `Break` ends the generation.
    ///
    /// # Errors
    /// Those of a step.
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
        let token = self.progress.choose(self.session.decoder())?;
        self.progress.stats.decode += began.elapsed();
        Ok(self.progress.accept(token, self.session))
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Chunk, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.progress.finished().is_some() {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.progress.cancel();
        }
        Some(step)
    }
}
