//! One text in the making: its tokens, its state, the logits of what comes next.

use std::ops::ControlFlow;

use crate::ModelError;
use crate::engine::{Engine, HeadRequest, KvType, LogitsWanted, Prediction, SequenceState, StepInput, StepOutput};
use crate::snapshots::{SnapshotStore, Snapshots};

/// A sequence of tokens and the state that the model keeps for it. Feeding tokens is the only way to change it. A clone
/// is a fork: both go on by themselves.
#[derive(Clone, Debug)]
pub struct Sequence {
    state: SequenceState,
    tokens: Vec<u32>,
    /// Logits after the last token, or after each of the last ones: none, or some positions.
    out: StepOutput,
    /// Earlier states, where a layer cannot go back.
    kept: SnapshotStore,
    replay: Option<usize>,
}

impl Sequence {
    /// An empty sequence of at most `limit` tokens (`None`: the model's own context length, if it has one).
    pub fn new(engine: &Engine, kv: KvType, limit: Option<usize>) -> Self {
        let limit = limit.or(engine.config().context_limit()).unwrap_or(usize::MAX);
        let state = SequenceState::new(engine, kv, limit);
        Self { state, tokens: Vec::new(), out: StepOutput::default(), kept: SnapshotStore::default(), replay: None }
    }

    /// Keeps earlier states of test-time-training layers as `options` say, from now on; those that were kept are
    /// forgotten. A new sequence keeps none.
    pub fn keep_snapshots(&mut self, options: Snapshots) {
        self.kept = SnapshotStore::new(options, self.state.mini_batch());
        self.replay = options.replay;
    }
    /// Bytes of the earlier states that are kept now.
    pub fn snapshot_bytes(&self) -> usize {
        self.kept.bytes()
    }

    /// The engine that computes it.
    pub fn engine(&self) -> &Engine {
        self.state.engine()
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
        self.state.limit() - self.state.len()
    }
    /// The state that the model keeps for it, in all layers.
    pub fn state(&self) -> &SequenceState {
        &self.state
    }
    /// Whether [`Sequence::truncate`] can take it back to any earlier token.
    pub fn can_rewind(&self) -> bool {
        self.state.can_rewind()
    }

    /// Takes over what was saved.
    pub(crate) fn set_restored(
        &mut self,
        tokens: Vec<u32>,
        state: impl FnOnce(&mut SequenceState) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        self.tokens = tokens;
        state(&mut self.state)
    }

    /// Logits of the token after the last one, `[vocab]` f32; empty before the first token was fed, or if only the best
    /// were asked for.
    pub fn logits(&self) -> &[f32] {
        match self.prediction() {
            Prediction::Full(logits) => logits,
            Prediction::Best(_) => &[],
        }
    }

    /// The prediction after the last token, as far as it was asked for; no logits if nothing is known.
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

    /// The outputs of the last step for its positions.
    pub(crate) fn output(&self) -> &StepOutput {
        &self.out
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
    /// The errors of [`Engine::step`]; the sequence is then as after an error of it, without logits.
    pub(crate) fn feed_rows(&mut self, first: u32, others: &[u32], request: HeadRequest) -> Result<(), ModelError> {
        let before = self.tokens.len();
        self.tokens.push(first);
        self.tokens.extend_from_slice(others);
        self.out.clear();
        let engine = self.engine().clone();
        let tokens = &self.tokens[before..];
        let mut input = [StepInput { state: &mut self.state, tokens, wanted: LogitsWanted::All, head: request }];
        let result = engine.step(&mut input, &mut self.out);
        if result.is_err() {
            self.tokens.truncate(before);
            self.out.clear();
        } else {
            self.record_snapshot();
        }
        result
    }

    /// Keeps a copy of the state, if it is time to.
    fn record_snapshot(&mut self) {
        self.kept.record(&self.state);
    }

    /// Goes back to the nearest place, of at most `at_most` tokens, whose state is known, and returns it: `at_most`
    /// itself if all layers can go back. What follows is to be fed again, so nothing of the last position is known;
    /// `to` is how far that will be, if what [`Snapshots::replay`] allows matters.
    ///
    /// # Errors
    /// [`ModelError::ReplayTooLong`] if it is more than that; nothing has changed then.
    pub(crate) fn go_back(&mut self, at_most: usize, to: Option<usize>) -> Result<usize, ModelError> {
        if self.can_rewind() || at_most >= self.len() {
            self.truncate(at_most)?;
            return Ok(self.len());
        }
        let nearest = self.kept.nearest(at_most);
        let from = nearest.as_ref().map_or(0, |n| n.len);
        if let (Some(to), Some(most)) = (to, self.replay)
            && to - from > most
        {
            return Err(ModelError::ReplayTooLong { to, from, most });
        }
        self.kept.truncate(from);
        match nearest {
            None => self.state.rewind(0)?,
            Some(nearest) => self.state.rewind_to(&nearest),
        }
        self.tokens.truncate(from);
        self.out.clear();
        Ok(from)
    }

    /// This sequence's part in a step of several.
    pub(crate) fn step_input<'a>(
        &'a mut self,
        tokens: &'a [u32],
        wanted: LogitsWanted,
        head: HeadRequest,
    ) -> StepInput<'a> {
        StepInput { state: &mut self.state, tokens, wanted, head }
    }

    /// Takes note of such a step: `tokens` were fed, and what follows the last one is position `i` of `out`, if given.
    pub(crate) fn stepped(&mut self, tokens: &[u32], out: Option<(&StepOutput, usize)>) {
        self.tokens.extend_from_slice(tokens);
        self.record_snapshot();
        match out {
            Some((out, i)) => self.out.copy_position(out, i),
            None => self.out.clear(),
        }
    }

    /// Makes sure that the prediction answers `request`, after a feed with another request too. Without tokens nothing
    /// happens.
    ///
    /// # Errors
    /// The errors of [`Engine::step`].
    pub fn require(&mut self, request: HeadRequest) -> Result<(), ModelError> {
        let known = self.out.len().checked_sub(1).is_some_and(|last| self.out.answers(last).covers(request));
        let Some(&last) = self.tokens.last().filter(|_| !known) else { return Ok(()) };
        self.out.clear();
        let engine = self.engine().clone();
        if engine.predict(&self.state, request, &mut self.out)? {
            return Ok(());
        }
        // After going back, what the head needs is not known; only sequences that can go back meet this.
        self.truncate(self.tokens.len() - 1)?;
        self.feed(&[last], request, &mut |_| ControlFlow::Continue(())).map(|_| ())
    }

    /// Feeds tokens and computes the logits of what follows the last of them. Without tokens nothing changes.
    ///
    /// # Errors
    /// The errors of [`Engine::step`]; the sequence is then as it was before, or lost as described there.
    pub fn push(&mut self, tokens: &[u32]) -> Result<&[f32], ModelError> {
        self.push_with(tokens, &mut |_| ControlFlow::Continue(()))?;
        Ok(self.logits())
    }

    /// Like [`Sequence::push`], telling `progress` after each few hundred tokens how many have been fed. If it breaks,
    /// the tokens fed so far stay in the sequence, without logits, and `false` is returned.
    ///
    /// # Errors
    /// The errors of [`Engine::step`].
    pub fn push_with(
        &mut self,
        tokens: &[u32],
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<bool, ModelError> {
        self.feed(tokens, HeadRequest::Full, progress)
    }

    /// Like [`Sequence::push_with`], computing only the logits that `request` asks for; read them by
    /// [`Sequence::prediction`].
    ///
    /// # Errors
    /// The errors of [`Engine::step`].
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
        let engine = self.engine().clone();
        engine.check(&self.state, tokens)?;
        self.out.clear();
        let at_once = engine.tokens_at_once();
        let mut fed = 0;
        while fed < tokens.len() {
            let chunk = &tokens[fed..];
            let chunk = &chunk[..chunk.len().min(at_once).min(self.kept.until_next(self.state.len()))];
            fed += chunk.len();
            let wanted = if fed == tokens.len() { LogitsWanted::Last } else { LogitsWanted::None };
            let mut input = [StepInput { state: &mut self.state, tokens: chunk, wanted, head: request }];
            if let Err(error) = engine.step(&mut input, &mut self.out) {
                // Where this is refused the state is lost, and says so at the next use.
                self.tokens.truncate(before);
                self.kept.truncate(before);
                self.out.clear();
                let _ = self.state.rewind(before);
                return Err(error);
            }
            self.tokens.extend_from_slice(chunk);
            self.record_snapshot();
            if progress(fed).is_break() && fed < tokens.len() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// For measurements: becomes a sequence of `tokens` tokens whose keys and values have no meaning, without computing
    /// them. What comes after them means nothing either, but takes the time and the memory that it takes after a real
    /// text.
    ///
    /// # Errors
    /// [`ModelError::ContextFull`] if they do not fit; [`ModelError::CannotRewind`] in a model with test-time-training
    /// layers, whose state only comes about by reading.
    pub fn fill_dummy(&mut self, tokens: usize) -> Result<(), ModelError> {
        self.truncate(0)?;
        if !self.can_rewind() {
            return Err(ModelError::CannotRewind { len: 0, to: tokens });
        }
        let limit = self.state.limit();
        if tokens > limit {
            return Err(ModelError::ContextFull { limit, used: 0, more: tokens });
        }
        self.state.fill_dummy(tokens);
        self.tokens.resize(tokens, 0);
        Ok(())
    }

    /// Feeds tokens and returns the inner losses of each test-time-training layer, `[tokens, heads]` f32, as
    /// [`Engine::inner_losses`] says. What follows the last token is not known then.
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
        let engine = self.engine().clone();
        let losses = engine.inner_losses(&mut self.state, tokens)?;
        self.tokens.extend_from_slice(tokens);
        self.out.clear();
        Ok(losses)
    }

    /// Feeds tokens and returns the logits after each of them, `[tokens, vocab]` f32.
    ///
    /// # Errors
    /// The errors of [`Engine::step`]; the sequence is then as it was before, or lost as described there.
    pub fn push_all(&mut self, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let mut all = StepOutput::default();
        let (engine, wanted) = (self.engine().clone(), LogitsWanted::All);
        let mut input = [StepInput { state: &mut self.state, tokens, wanted, head: HeadRequest::Full }];
        engine.step(&mut input, &mut all)?;
        self.tokens.extend_from_slice(tokens);
        self.record_snapshot();
        if !tokens.is_empty() {
            self.out.copy_position(&all, all.len() - 1);
        }
        Ok(all.into_logits())
    }

    /// Forgets everything from token `len` on; the logits are gone until the next token is fed.
    ///
    /// # Errors
    /// The errors of [`SequenceState::rewind`]: a model with test-time-training layers can only begin anew, at 0.
    pub fn truncate(&mut self, len: usize) -> Result<(), ModelError> {
        self.state.rewind(len)?;
        self.kept.truncate(len);
        if len < self.tokens.len() {
            self.tokens.truncate(len);
            self.out.clear();
        }
        Ok(())
    }
}
