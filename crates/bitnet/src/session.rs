//! A session: one text with a model, from prompt to prompt.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use bitnet_model::{HeadRequest, ModelError, Sequence, SequenceState};
use loader::files::Pending;

use crate::clock::Instant;
use crate::generate::Generation;
use crate::generation_state::GenerationState;
use crate::{Error, GenerateOptions, Message, Model, Output, WhenFull};

/// One text with a model: prompts and generated tokens, with the model's state for them.
///
/// A session owns its state; the [`Model`] itself is shared. Use one session per thread.
#[derive(Clone, Debug)]
pub struct Session {
    model: Model,
    sequence: Sequence,
}

impl Session {
    pub(crate) fn new(model: &Model) -> Self {
        Self::with(model, model.new_sequence())
    }

    fn with(model: &Model, mut sequence: Sequence) -> Self {
        sequence.keep_snapshots(model.snapshots());
        Self { model: model.clone(), sequence }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }
    /// All tokens so far, prompts and generated ones.
    pub fn tokens(&self) -> &[u32] {
        self.sequence.tokens()
    }
    /// Number of tokens so far.
    pub fn len(&self) -> usize {
        self.sequence.len()
    }
    /// Whether there is no token yet.
    pub fn is_empty(&self) -> bool {
        self.sequence.is_empty()
    }
    /// Tokens that still fit into the context.
    pub fn remaining(&self) -> usize {
        self.sequence.remaining()
    }
    /// The state of the model for the text, in all layers, with the bytes of keys and values and of states.
    pub fn state(&self) -> &SequenceState {
        self.sequence.state()
    }

    /// A copy that continues independently. Both share the pages of keys and values of their common beginning, until
    /// one of them writes to them. [`Clone`] does the same.
    ///
    /// ```
    /// use bitnet::Model;
    /// let model = Model::load(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tinystories-5m.gguf"))?;
    /// let mut session = model.session();
    /// session.feed("Once upon a time there was a little dog.")?;
    /// let fork = session.fork();
    /// assert_eq!(session.state().shared_kv_bytes(), session.state().kv_bytes());
    /// session.feed(" He barked.")?;
    /// assert_eq!((session.state().shared_kv_bytes(), fork.state().shared_kv_bytes()), (0, 0));
    /// # Ok::<(), bitnet::Error>(())
    /// ```
    #[must_use]
    pub fn fork(&self) -> Self {
        self.clone()
    }
    /// Removes all tokens.
    pub fn clear(&mut self) {
        *self = Self::new(&self.model);
    }
    /// Bytes of earlier states that are kept to go back to, in a model with test-time-training layers
    /// ([`ModelBuilder::snapshots`](crate::ModelBuilder::snapshots)).
    pub fn snapshot_bytes(&self) -> usize {
        self.sequence.snapshot_bytes()
    }
    /// Forgets everything from token `len` on. Keys and values are cut off; states of test-time-training layers cannot
    /// be, and the tokens since the nearest kept one are read again. What follows is the same as if the rest had never
    /// been there.
    ///
    /// # Errors
    /// [`ModelError::ReplayTooLong`] if more tokens were to be read again than
    /// [`Snapshots::replay`](crate::Snapshots::replay) allows, with which nothing has changed; the errors of a step.
    pub fn rewind(&mut self, len: usize) -> Result<(), Error> {
        Ok(self.sequence.rewind(len)?)
    }

    /// The number of `ids` that are the beginning of this text.
    pub fn common_prefix(&self, ids: &[u32]) -> usize {
        self.sequence.common_prefix(ids)
    }
    /// Rewinds to a common beginning with `ids`, without computing anything, and returns its length; the ids after it
    /// must be fed, at least one if the prediction depends on it. With test-time-training layers it is what the nearest
    /// kept state has read. [`Session::generate_from`] does this and the rest; call this alone for a session that will
    /// join a [`Batch`](crate::Batch):
    ///
    /// ```
    /// # #[cfg(feature = "tiny-model")] {
    /// use bitnet::{Batch, GenerateOptions, Model};
    /// let model = Model::tiny()?;
    /// let mut session = model.session();
    /// session.feed("Once upon a time")?;
    /// let ids = model.encode("Once upon a time there was a dog", model.adds_bos())?;
    /// let known = session.keep_prefix(&ids)?;
    /// assert!(known > 0);
    /// Batch::new(&model).join(session, &ids[known..], GenerateOptions::default())?;
    /// # }
    /// # Ok::<(), bitnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ModelError::StateLost`] if a failed step has left the session in between.
    pub fn keep_prefix(&mut self, ids: &[u32]) -> Result<usize, Error> {
        Ok(self.sequence.keep_prefix(ids)?)
    }

    /// The session as bytes: tokens and the model's state for them, for all kinds of layers. [`Model::restore_session`]
    /// continues from them, only with this model.
    ///
    /// # Errors
    /// [`ModelError::StateLost`] if a failed step has left the session in between.
    pub fn save(&mut self) -> Result<Vec<u8>, Error> {
        Ok(self.sequence.save()?)
    }

    pub(crate) fn restore(model: &Model, bytes: &[u8]) -> Result<Self, Error> {
        Ok(Self::with(model, Sequence::restore(model.engine(), Some(model.context()), bytes)?))
    }

    /// [`Session::save`] to a file, which exists completely or not at all: it is written under another name and then
    /// renamed. [`Model::load_session`] reads it.
    ///
    /// ```no_run
    /// # let model = bitnet::Model::load("model.gguf")?;
    /// # let mut session = model.session();
    /// session.feed("A long document.")?;
    /// session.save_to("document.session")?;
    /// let mut later = model.load_session("document.session")?;
    /// # Ok::<(), bitnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`Session::save`]; [`Error::File`] if it cannot be written.
    pub fn save_to(&mut self, path: impl AsRef<Path>) -> Result<(), Error> {
        let bytes = self.save()?;
        // Conversations are private to their user.
        let mut file = Pending::private(path.as_ref())?;
        file.expect(bytes.len() as u64);
        file.write_all(&bytes).map_err(|e| file.failed(e))?;
        Ok(file.commit()?)
    }

    /// Continues the session with `prompt` and generates; text comes as an iterator of [`crate::Chunk`]s.
    ///
    /// In an empty session the beginning-of-text token is added, if the model's files say so.
    ///
    /// # Errors
    /// No tokenizer, a prompt that does not fit, an option out of range.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), bitnet::Error> {
    /// # let model = bitnet::Model::load("model.gguf")?;
    /// let mut session = model.session();
    /// for chunk in session.generate("Once upon a time", bitnet::GenerateOptions::default().max_tokens(20))? {
    ///     print!("{}", chunk?.text);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn generate(&mut self, prompt: &str, options: GenerateOptions) -> Result<Generation<'_>, Error> {
        let bos = self.is_empty() && self.model.adds_bos();
        let ids = self.model.encode(prompt, bos)?;
        self.generate_ids(&ids, options)
    }

    /// Like [`Session::generate`], with tokens as they are.
    ///
    /// # Errors
    /// A token outside of the vocabulary, a prompt that does not fit, nothing to continue, an option out of range.
    pub fn generate_ids(&mut self, ids: &[u32], options: GenerateOptions) -> Result<Generation<'_>, Error> {
        let began = Instant::now();
        let mut progress = GenerationState::new(&self.model, options)?;
        self.make_room(ids.len(), &mut progress)?;
        let go_on = progress.feed(&mut self.sequence, ids)?;
        self.begin(&mut progress, (ids.len(), 0), began, go_on)?;
        Ok(Generation::new(self, progress))
    }

    /// Makes sure that `more` tokens fit, if the options of `progress` shift the context.
    ///
    /// # Errors
    /// [`ModelError::ContextFull`] if not even the first tokens and the new ones fit, and the errors of a step.
    pub(crate) fn make_room(&mut self, more: usize, progress: &mut GenerationState) -> Result<(), Error> {
        if progress.shifts()
            && more > self.remaining()
            && let Some(ids) = shifted(self.tokens(), self.model.context(), more, progress)?
        {
            self.replace_with(&ids)?;
        }
        Ok(())
    }

    /// Records the times of a prompt of `tokens` computed tokens and of reused ones.
    fn begin(
        &self,
        progress: &mut GenerationState,
        tokens: (usize, usize),
        began: Instant,
        go_on: bool,
    ) -> Result<(), Error> {
        if self.is_empty() {
            return Err(ModelError::EmptyPrompt.into());
        }
        (progress.stats.prompt_tokens, progress.stats.reused_tokens) = tokens;
        progress.stats.prefill = began.elapsed();
        if !go_on {
            progress.cancel();
        }
        Ok(())
    }

    /// Makes the session hold exactly `ids` and generates after them. What the session holds already of them, from the
    /// beginning on, is kept and not computed again.
    ///
    /// # Errors
    /// The errors of [`Session::generate_ids`].
    pub fn generate_from(&mut self, ids: &[u32], options: GenerateOptions) -> Result<Generation<'_>, Error> {
        let began = Instant::now();
        let mut progress = GenerationState::new(&self.model, options)?;
        let shifted_ids = shifted(ids, self.model.context(), 0, &mut progress)?;
        let ids = shifted_ids.as_deref().unwrap_or(ids);
        let keep = self.sequence.keep_prefix(ids)?;
        let go_on = progress.feed(&mut self.sequence, &ids[keep..])?;
        self.begin(&mut progress, (ids.len() - keep, keep), began, go_on)?;
        Ok(Generation::new(self, progress))
    }

    /// Generates the assistant's reply to a conversation, through the model's chat template. Turns that the session
    /// holds from before are not computed again.
    ///
    /// # Errors
    /// No tokenizer, no chat template, a template that fails, and the errors of [`Session::generate_ids`].
    pub fn chat(&mut self, messages: &[Message], options: GenerateOptions) -> Result<Generation<'_>, Error> {
        let ids = self.model.encode_chat(messages)?;
        self.generate_from(&ids, options)
    }

    /// Generates to the end and hands each piece of text to `f`; `Break` ends it.
    ///
    /// # Errors
    /// The errors of [`Session::generate`].
    pub fn generate_with(
        &mut self,
        prompt: &str,
        options: GenerateOptions,
        f: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Output, Error> {
        self.generate(prompt, options)?.for_each_text(f)
    }

    /// Feeds text without generating. In an empty session the beginning-of-text token is added, if the model's files
    /// say so.
    ///
    /// # Errors
    /// No tokenizer, a text that does not fit.
    pub fn feed(&mut self, text: &str) -> Result<(), Error> {
        let bos = self.is_empty() && self.model.adds_bos();
        let ids = self.model.encode(text, bos)?;
        self.sequence.feed_with(&ids, HeadRequest::Top(1), None)?;
        Ok(())
    }

    /// Makes the session hold exactly `ids`; a common beginning is not computed again.
    pub(crate) fn replace_with(&mut self, ids: &[u32]) -> Result<(), Error> {
        let keep = self.sequence.keep_prefix(ids)?;
        self.sequence.feed_with(&ids[keep..], HeadRequest::Full, None)?;
        Ok(())
    }

    /// Feeds tokens without generating: returns the logits after the last of them, `[vocab]` f32.
    ///
    /// # Errors
    /// A token outside of the vocabulary, tokens that do not fit.
    pub fn feed_ids(&mut self, ids: &[u32]) -> Result<&[f32], Error> {
        Ok(self.sequence.feed(ids)?)
    }

    /// Whether `ids` may follow.
    pub(crate) fn check(&self, ids: &[u32]) -> Result<(), Error> {
        Ok(self.sequence.check(ids)?)
    }

    pub(crate) fn sequence(&mut self) -> &mut Sequence {
        &mut self.sequence
    }
}

/// The part of `ids` that stays in a context of `limit` tokens with room for `more`, if the options of `progress` shift
/// the context and it is necessary: the first ones, and the newest half of the rest of the context.
fn shifted(ids: &[u32], limit: usize, more: usize, progress: &mut GenerationState) -> Result<Option<Vec<u32>>, Error> {
    let WhenFull::ContextShift { keep } = progress.when_full() else { return Ok(None) };
    if ids.len() + more <= limit {
        return Ok(None);
    }
    let keep = keep.min(ids.len());
    if keep + more >= limit {
        return Err(ModelError::ContextFull { limit, used: keep, more }.into());
    }
    let newest = ((limit - keep) / 2).clamp(1, limit - keep - more);
    progress.stats.context_shifts += 1;
    Ok(Some([&ids[..keep], &ids[ids.len() - newest..]].concat()))
}
