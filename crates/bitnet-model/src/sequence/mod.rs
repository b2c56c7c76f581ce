//! One text with its state: [`Sequence`].
//!
//! It grows by tokens that are [fed](Sequence::feed) and by tokens that a sampler [chooses](Sequence::next_token), is
//! [rewound](Sequence::rewind), [forked](Sequence::fork), and [saved](Sequence::save) as bytes. Several are read in one
//! pass over the weights by [`step`].

mod batch;
mod decode;
mod lookup;
mod rewind;
mod saved;
mod snapshots;

use crate::ModelError;
use crate::engine::{Engine, HeadRequest, KvType, LogitsWanted, Prediction, SequenceState, StepInput, StepOutput};
use crate::sampling::CancelToken;
pub use batch::{BatchInput, step};
pub use decode::DecodeCounts;
pub use lookup::Speculation;
pub use snapshots::Snapshots;

use lookup::PromptLookup;
use snapshots::SnapshotStore;

/// A text: its tokens, the state of the model for it, and the prediction of the next token.
///
/// A chosen token is part of the text immediately; the model reads it when the next one is needed. The prediction after
/// the text is known as far as it was requested ([`Sequence::prediction`]).
///
/// A text may also hold tokens that speculative decoding has chosen ahead and not returned yet; they are not part of
/// [`Sequence::tokens`].
#[derive(Clone, Debug)]
pub struct Sequence {
    /// The state after the tokens that the model has read.
    state: SequenceState,
    /// All tokens, including those chosen ahead. The model has read the first `state.len()`.
    tokens: Vec<u32>,
    /// Tokens that were returned. If there are others, the model has read all of these.
    len: usize,
    /// The predictions after the last tokens read: none, or some positions.
    out: StepOutput,
    /// Earlier states, if a layer cannot be rewound.
    snapshots: SnapshotStore,
    /// The maximum number of tokens that are read again to rewind.
    replay: Option<usize>,
    lookup: PromptLookup,
    draft: Vec<u32>,
    counts: DecodeCounts,
}

impl Sequence {
    /// An empty sequence of at most `limit` tokens (`None`: the model's own context length, if it has one).
    pub fn new(engine: &Engine, kv: KvType, limit: Option<usize>) -> Self {
        let limit = limit.or(engine.config().context_limit()).unwrap_or(usize::MAX);
        Self {
            state: SequenceState::new(engine, kv, limit),
            tokens: Vec::new(),
            len: 0,
            out: StepOutput::default(),
            snapshots: SnapshotStore::default(),
            replay: None,
            lookup: PromptLookup::default(),
            draft: Vec::new(),
            counts: DecodeCounts::default(),
        }
    }

    /// A copy that continues independently. Both share the keys and values of their common beginning, in pages that are
    /// copied only when one of them writes to them, and the snapshots; other states are copied. [`Clone`] does the
    /// same.
    ///
    /// ```
    /// # use bitnet_model::*;
    /// # let weights = ModelWeights::from_source(&SyntheticWeights::new(ModelConfig::new(96, 64, 128, 2, 2, 1), 7))?;
    /// # let engine = Engine::new(&weights, &EngineOptions::default().threads(1))?;
    /// let mut text = Sequence::new(&engine, KvType::F16, None);
    /// text.feed(&[1, 2, 3])?;
    /// let mut fork = text.fork();
    /// assert_eq!(fork.feed(&[4])?, text.feed(&[4])?);
    /// # Ok::<(), ModelError>(())
    /// ```
    #[must_use]
    pub fn fork(&self) -> Self {
        self.clone()
    }

    /// The engine of this sequence.
    pub fn engine(&self) -> &Engine {
        self.state.engine()
    }
    /// The tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens[..self.len]
    }
    /// Number of tokens so far.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there is no token yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Tokens that still fit.
    pub fn remaining(&self) -> usize {
        self.state.limit().saturating_sub(self.len)
    }
    /// The state of the model after the tokens that it has read, in all layers.
    pub fn state(&self) -> &SequenceState {
        &self.state
    }

    /// Whether `tokens` may follow.
    ///
    /// # Errors
    /// [`ModelError::TokenOutOfRange`] and [`ModelError::ContextFull`].
    pub fn check(&self, tokens: &[u32]) -> Result<(), ModelError> {
        self.engine().check_tokens(tokens)?;
        let (used, more) = (self.len, tokens.len());
        match more <= self.remaining() {
            true => Ok(()),
            false => Err(ModelError::ContextFull { limit: self.state.limit(), used, more }),
        }
    }

    /// The prediction after the last token, as far as it was requested; no logits if nothing is known.
    pub fn prediction(&self) -> Prediction<'_> {
        match self.out.len() {
            n if n > 0 && self.all_read() => self.out.prediction(n - 1),
            _ => Prediction::Full(&[]),
        }
    }

    /// Logits after the last token, `[vocab]` f32; empty if they are not known, see [`Sequence::require`].
    pub fn logits(&self) -> &[f32] {
        match self.prediction() {
            Prediction::Full(logits) => logits,
            Prediction::Best(_) => &[],
        }
    }

    /// Rows of the head that were computed for the prediction after a coarse pass; `None` if all were computed at once.
    pub fn rescored(&self) -> Option<usize> {
        self.out.rescored(self.out.len().checked_sub(1)?)
    }

    /// Whether the model has read all tokens.
    fn all_read(&self) -> bool {
        self.state.len() == self.tokens.len()
    }

    /// Reads the tokens and computes the logits after the last of them, `[vocab]` f32. Without tokens it only computes
    /// the logits.
    ///
    /// # Errors
    /// The errors of [`Engine::step`]; then the sequence is as before, or lost as described there.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<&[f32], ModelError> {
        self.feed_with(tokens, HeadRequest::Full, None)?;
        if self.logits().is_empty() {
            self.require(HeadRequest::Full)?;
        }
        Ok(self.logits())
    }

    /// Like [`Sequence::feed`], computing only the logits that `request` asks for; get them with
    /// [`Sequence::prediction`]. If `cancel` is set meanwhile, the tokens read so far stay, and `false` is returned.
    ///
    /// # Errors
    /// The errors of [`Sequence::feed`].
    pub fn feed_with(
        &mut self,
        tokens: &[u32],
        request: HeadRequest,
        cancel: Option<&CancelToken>,
    ) -> Result<bool, ModelError> {
        self.drop_lookahead()?;
        let before = self.len;
        self.tokens.extend_from_slice(tokens);
        let result = self.read(self.tokens.len(), request, cancel);
        let len = if result.is_ok() { self.state.len() } else { 0 };
        self.tokens.truncate(len.max(before));
        self.len = self.tokens.len();
        result
    }

    /// Like [`Sequence::feed`], with the logits after each of the tokens, `[tokens, vocab]` f32.
    ///
    /// # Errors
    /// The errors of [`Sequence::feed`].
    pub fn feed_each(&mut self, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        self.read_pending(HeadRequest::Top(1))?;
        let mut all = StepOutput::default();
        let engine = self.engine().clone();
        engine.step(&mut [self.step_input(tokens, LogitsWanted::All, HeadRequest::Full)], &mut all)?;
        if !tokens.is_empty() {
            self.stepped(tokens, Some((&all, all.len() - 1)));
        }
        Ok(all.into_logits())
    }

    /// Like [`Sequence::feed`], with the inner losses of each test-time-training layer, `[tokens, heads]` f32, of
    /// [`Engine::inner_losses`]. The prediction after the last token is not known then.
    ///
    /// ```
    /// use bitnet_model::{Engine, EngineOptions, KvType, Mixer, ModelConfig, ModelWeights, Sequence, SyntheticWeights};
    /// let mut config = ModelConfig::new(96, 64, 128, 1, 2, 2);
    /// config.mixers = vec![Mixer::TttLinear];
    /// let weights = ModelWeights::from_source(&SyntheticWeights::new(config, 7))?;
    /// let engine = Engine::new(&weights, &EngineOptions::default().threads(1))?;
    /// let losses = Sequence::new(&engine, KvType::F32, None).feed_watched(&[1, 2, 3])?;
    /// assert_eq!((losses.len(), losses[0].len()), (1, 3 * 2)); // one layer; three tokens, two heads
    /// # Ok::<(), bitnet_model::ModelError>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`Engine::inner_losses`].
    pub fn feed_watched(&mut self, tokens: &[u32]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.read_pending(HeadRequest::Top(1))?;
        let engine = self.engine().clone();
        let losses = engine.inner_losses(&mut self.state, tokens)?;
        self.tokens.extend_from_slice(tokens);
        self.len = self.tokens.len();
        self.out.clear();
        Ok(losses)
    }

    /// Makes sure that the prediction answers `request`, even after a feed with another request. Does nothing without
    /// tokens.
    ///
    /// # Errors
    /// The errors of [`Engine::step`].
    pub fn require(&mut self, request: HeadRequest) -> Result<(), ModelError> {
        self.read_pending(request)?;
        let known = self.out.len().checked_sub(1).is_some_and(|last| self.out.answers(last).covers(request));
        if known || self.is_empty() {
            return Ok(());
        }
        self.out.clear();
        let engine = self.engine().clone();
        if engine.predict(&self.state, request, &mut self.out)? {
            return Ok(());
        }
        // After a rewind, the input of the head is not known; this only happens to sequences that can be rewound.
        self.rewind_state(self.len - 1)?;
        self.read_pending(request)
    }

    /// Reads the tokens that were returned and not read yet.
    fn read_pending(&mut self, request: HeadRequest) -> Result<(), ModelError> {
        self.drop_lookahead()?;
        self.read(self.len, request, None).map(drop)
    }

    /// Lets the model read the tokens up to `upto`, with `request` after the last of them; returns `false` if it was
    /// cancelled meanwhile. After an error it has read no more than before.
    fn read(&mut self, upto: usize, request: HeadRequest, cancel: Option<&CancelToken>) -> Result<bool, ModelError> {
        // After a failed step, the state may have read other tokens, and more.
        self.state.usable()?;
        let before = self.state.len();
        if before == upto {
            return Ok(true);
        }
        let engine = self.engine().clone();
        // A lost state may have read more than the text has; checking it returns the error.
        engine.check(&self.state, self.tokens.get(before..upto).unwrap_or_default())?;
        self.out.clear();
        let at_once = engine.tokens_at_once();
        let mut read = before;
        while read < upto {
            let chunk = &self.tokens[read..upto];
            let chunk = &chunk[..chunk.len().min(at_once).min(self.snapshots.until_next(read))];
            read += chunk.len();
            let wanted = if read == upto { LogitsWanted::Last } else { LogitsWanted::None };
            let mut input = [StepInput { state: &mut self.state, tokens: chunk, wanted, head: request }];
            if let Err(error) = engine.step(&mut input, &mut self.out) {
                self.snapshots.forget_after(before);
                self.out.clear();
                // If this is rejected, the state is lost, and the next use returns the error.
                let _ = self.state.rewind(before);
                return Err(error);
            }
            self.snapshots.record(&self.state);
            if read < upto && cancel.is_some_and(CancelToken::is_cancelled) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The input of a step for `tokens`, which are not yet part of the text; none may be pending.
    pub(crate) fn step_input<'a>(
        &'a mut self,
        tokens: &'a [u32],
        wanted: LogitsWanted,
        head: HeadRequest,
    ) -> StepInput<'a> {
        StepInput { state: &mut self.state, tokens, wanted, head }
    }

    /// Records such a step: `tokens` were read, and the prediction after the last one is position `i` of `out`, if
    /// given.
    fn stepped(&mut self, tokens: &[u32], out: Option<(&StepOutput, usize)>) {
        self.tokens.extend_from_slice(tokens);
        self.len = self.tokens.len();
        self.snapshots.record(&self.state);
        match out {
            Some((out, i)) => self.out.copy_position(out, i),
            None => self.out.clear(),
        }
    }

    /// For measurements: becomes a sequence of `tokens` tokens with meaningless keys and values, without computing
    /// them. The continuation is meaningless, too, but takes the same time and memory as after a real text.
    ///
    /// # Errors
    /// [`ModelError::ContextFull`] if they do not fit; [`ModelError::CannotRewind`] in a model with test-time-training
    /// layers, whose state can only be computed by reading.
    pub fn fill_dummy(&mut self, tokens: usize) -> Result<(), ModelError> {
        self.rewind(0)?;
        if !self.state.can_rewind() {
            return Err(ModelError::CannotRewind { len: 0, to: tokens });
        }
        let limit = self.state.limit();
        if tokens > limit {
            return Err(ModelError::ContextFull { limit, used: 0, more: tokens });
        }
        self.state.fill_dummy(tokens);
        self.tokens.resize(tokens, 0);
        self.len = tokens;
        Ok(())
    }
}
