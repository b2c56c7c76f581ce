//! A session: one text with a model, from prompt to prompt.

use std::ops::ControlFlow;
use std::time::Instant;

use bitnet_model::decoder::Decoder;
use bitnet_model::{HeadRequest, ModelError};

use crate::generate::{Generation, Stats};
use crate::{Error, GenerateOptions, Message, Model, Output};

/// One text in the making: what was prompted and what was generated, with the model's state for it.
///
/// A session owns its state; the [`Model`] behind it is shared. Use one session per thread. A clone is a fork: both go on by
/// themselves.
#[derive(Clone, Debug)]
pub struct Session {
    model: Model,
    decoder: Decoder,
}

impl Session {
    pub(crate) fn new(model: &Model) -> Self {
        Self { model: model.clone(), decoder: Decoder::new(model.new_sequence()) }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }
    /// All tokens so far, prompts and generated ones.
    pub fn tokens(&self) -> Vec<u32> {
        self.decoder.tokens()
    }
    /// Number of tokens so far.
    pub fn len(&self) -> usize {
        self.decoder.len()
    }
    /// Whether there is no token yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Tokens that still fit into the context.
    pub fn remaining(&self) -> usize {
        self.decoder.remaining()
    }
    /// Bytes of the session's state now, in all layers: [`Session::kv_bytes`] and [`Session::ttt_bytes`].
    pub fn state_bytes(&self) -> usize {
        self.kv_bytes() + self.ttt_bytes()
    }
    /// Bytes of keys and values, which grow with the text.
    pub fn kv_bytes(&self) -> usize {
        self.decoder.state().kv_bytes()
    }
    /// Bytes of the states of test-time-training layers: the same after every token.
    pub fn ttt_bytes(&self) -> usize {
        self.decoder.state().ttt_bytes()
    }
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.decoder = Decoder::new(self.model.new_sequence());
    }
    /// Forgets everything from token `len` on. A model with test-time-training layers cannot go back; for it, the first `len`
    /// tokens are read again.
    ///
    /// # Errors
    /// Those of a step, where tokens are read again.
    pub fn rewind(&mut self, len: usize) -> Result<(), Error> {
        Ok(self.decoder.rewind(len)?)
    }

    /// The session as bytes: tokens and the model's state for them, whatever its layers are. [`Model::restore_session`] goes
    /// on from them, with this model only.
    ///
    /// # Errors
    /// [`ModelError::StateLost`] if a failed step has left the session in between.
    pub fn save(&mut self) -> Result<Vec<u8>, Error> {
        Ok(self.decoder.save()?)
    }

    pub(crate) fn restore(model: &Model, bytes: &[u8]) -> Result<Self, Error> {
        let decoder = Decoder::restore(model.engine(), Some(model.context()), bytes)?;
        Ok(Self { model: model.clone(), decoder })
    }

    /// Continues the session with `prompt` and generates; text comes as an iterator of [`crate::Chunk`]s.
    ///
    /// In an empty session the beginning-of-text token is put in front, if the model's files say so.
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

    /// As [`Session::generate`], with tokens as they are.
    ///
    /// # Errors
    /// A token outside of the vocabulary, a prompt that does not fit, nothing to continue, an option out of range.
    pub fn generate_ids(&mut self, ids: &[u32], options: GenerateOptions) -> Result<Generation<'_>, Error> {
        let began = Instant::now();
        let request = options.head_request(self.len() + ids.len())?;
        let go_on = self.decoder.feed(ids, request, options.cancel.as_ref())?;
        if self.is_empty() {
            return Err(ModelError::EmptyPrompt.into());
        }
        let stats = Stats { prompt_tokens: ids.len(), prefill: began.elapsed(), ..Stats::default() };
        Generation::new(self, options, stats, !go_on)
    }

    /// Makes the session hold exactly `ids` and generates after them. What the session holds already of them, from the
    /// beginning on, is kept and not computed again.
    ///
    /// # Errors
    /// As [`Session::generate_ids`].
    pub fn generate_from(&mut self, ids: &[u32], options: GenerateOptions) -> Result<Generation<'_>, Error> {
        let began = Instant::now();
        let keep = self.decoder.keep_prefix(ids)?;
        let request = options.head_request(ids.len())?;
        let go_on = self.decoder.feed(&ids[keep..], request, options.cancel.as_ref())?;
        if self.is_empty() {
            return Err(ModelError::EmptyPrompt.into());
        }
        let stats = Stats {
            prompt_tokens: ids.len() - keep,
            reused_tokens: keep,
            prefill: began.elapsed(),
            ..Stats::default()
        };
        Generation::new(self, options, stats, !go_on)
    }

    /// Generates the assistant's reply to a conversation, through the model's chat template. Turns that the session
    /// holds from before are not computed again.
    ///
    /// # Errors
    /// No tokenizer, no chat template, a template that fails, and those of [`Session::generate_ids`].
    pub fn chat(&mut self, messages: &[Message], options: GenerateOptions) -> Result<Generation<'_>, Error> {
        let ids = self.model.encode_chat(messages)?;
        self.generate_from(&ids, options)
    }

    /// Generates to the end and hands each piece of text to `f`; `Break` ends it.
    ///
    /// # Errors
    /// As [`Session::generate`].
    pub fn generate_with(
        &mut self,
        prompt: &str,
        options: GenerateOptions,
        f: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Output, Error> {
        self.generate(prompt, options)?.for_each_text(f)
    }

    /// Feeds tokens without generating: the logits of what follows the last of them, `[vocab]` f32.
    ///
    /// # Errors
    /// A token outside of the vocabulary, tokens that do not fit.
    pub fn feed_ids(&mut self, ids: &[u32]) -> Result<&[f32], Error> {
        self.decoder.feed(ids, HeadRequest::Full, None)?;
        Ok(self.decoder.logits()?)
    }

    /// Whether `ids` may follow.
    pub(crate) fn check(&self, ids: &[u32]) -> Result<(), Error> {
        Ok(self.decoder.check(ids)?)
    }

    pub(crate) fn decoder(&mut self) -> &mut Decoder {
        &mut self.decoder
    }
}
