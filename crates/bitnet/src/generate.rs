//! Generation: a prompt in, text out, piece by piece.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bitnet_model::HeadRequest;
use bitnet_model::sampling::{CancelToken, FinishReason, LogitsProcessor, Sampler, SamplingOptions};
use loader::tokenizer::{StopStrings, StreamDecoder};

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
    /// Most new tokens; `None` goes on until the model ends the text or the context is full.
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
        match self.processors.is_empty() {
            true => Ok(Sampler::new(self.sampling.clone())?.request(history)),
            // They may change any logit.
            false => Ok(HeadRequest::Full),
        }
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
    /// without any.
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
pub struct Generation<'s> {
    session: &'s mut Session,
    options: GenerateOptions,
    sampler: Sampler,
    decoder: Option<StreamDecoder>,
    stops: StopStrings,
    ids: Vec<u32>,
    text: String,
    stats: Stats,
    finished: Option<FinishReason>,
}

impl std::fmt::Debug for Generation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation").field("ids", &self.ids).field("finished", &self.finished).finish_non_exhaustive()
    }
}

impl<'s> Generation<'s> {
    /// Begins to generate after what the session holds, whose last logits are known.
    pub(crate) fn new(
        session: &'s mut Session,
        options: GenerateOptions,
        stats: Stats,
        cancelled: bool,
    ) -> Result<Self, Error> {
        let sampler = Sampler::new(options.sampling.clone())?;
        let decoder = session.model().tokenizer().map(|t| match options.show_special {
            true => t.stream().with_special(),
            false => t.stream(),
        });
        let stops = StopStrings::new(options.stop.iter().cloned());
        let finished = match options.max_tokens {
            _ if cancelled => Some(FinishReason::Cancelled),
            Some(0) => Some(FinishReason::Length),
            _ => None,
        };
        Ok(Self { session, options, sampler, decoder, stops, ids: Vec::new(), text: String::new(), stats, finished })
    }

    /// The new tokens so far.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }
    /// Why it ended, once it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finished
    }
    /// How long it has taken so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Runs to the end and returns everything, text that was yielded before included.
    ///
    /// # Errors
    /// Those of a step.
    pub fn finish(mut self) -> Result<Output, Error> {
        for chunk in self.by_ref() {
            chunk?;
        }
        Ok(self.output())
    }

    /// Hands each piece of text to `f` as soon as it is certain; `Break` ends the generation.
    ///
    /// # Errors
    /// Those of a step.
    pub fn for_each_text(mut self, mut f: impl FnMut(&str) -> ControlFlow<()>) -> Result<Output, Error> {
        while let Some(chunk) = self.next() {
            let chunk = chunk?;
            if !chunk.text.is_empty() && f(&chunk.text).is_break() {
                self.finished.get_or_insert(FinishReason::Cancelled);
                break;
            }
        }
        Ok(self.output())
    }

    fn output(self) -> Output {
        Output {
            text: self.decoder.is_some().then_some(self.text),
            ids: self.ids,
            finish_reason: self.finished.unwrap_or(FinishReason::Cancelled),
            stats: self.stats,
        }
    }

    fn step(&mut self) -> Result<Chunk, Error> {
        let began = Instant::now();
        if self.options.cancel.as_ref().is_some_and(CancelToken::is_cancelled) {
            self.finished = Some(FinishReason::Cancelled);
            let text = self.flush();
            return Ok(Chunk { token: None, text });
        }
        let (token, rescored) = self.session.next_token(&mut self.sampler, &mut self.options.processors)?;
        self.stats.decode += began.elapsed();
        if let Some(rows) = rescored {
            self.stats.coarse_tokens += 1;
            self.stats.rows_rescored += rows;
        }
        self.ids.push(token);
        self.stats.new_tokens += 1;
        let ends = !self.options.ignore_eos && self.session.model().is_eos(token);
        let mut text = match &mut self.decoder {
            Some(_) if ends && !self.options.show_special => String::new(),
            Some(decoder) => decoder.push(token).unwrap_or_default(),
            None => String::new(),
        };
        if !text.is_empty() {
            let piece = self.stops.push(&text);
            text = piece.text;
            if piece.stopped {
                self.finished = Some(FinishReason::Stop);
                self.text.push_str(&text);
                return Ok(Chunk { token: Some(token), text });
            }
        }
        self.text.push_str(&text);
        let full = self.options.max_tokens.is_some_and(|max| self.ids.len() >= max) || self.session.remaining() == 0;
        if ends {
            self.finished = Some(FinishReason::Stop);
        } else if full {
            self.finished = Some(FinishReason::Length);
        }
        if self.finished.is_some() {
            text.push_str(&self.flush());
        }
        Ok(Chunk { token: Some(token), text })
    }

    /// Text that was held back, as an unfinished character or as the possible beginning of a stop text.
    fn flush(&mut self) -> String {
        let tail = self.decoder.as_mut().and_then(StreamDecoder::finish).unwrap_or_default();
        let mut piece = self.stops.push(&tail);
        if !piece.stopped {
            piece.text.push_str(&self.stops.finish().text);
        }
        let text = piece.text;
        self.text.push_str(&text);
        text
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Chunk, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished.is_some() {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.finished = Some(FinishReason::Cancelled);
        }
        Some(step)
    }
}
