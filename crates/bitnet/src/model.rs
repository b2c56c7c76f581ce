//! A loaded model: weights ready to compute, tokenizer, chat template.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use bitnet_model::sampling::SamplingOptions;
use bitnet_model::{
    ActivationBits, Engine, EngineOptions, HeadMode, KvType, ModelConfig, ProjectionGroup, Sequence, Snapshots,
};
use loader::chat::{ChatError, ChatTemplate, RenderOptions};
use loader::files;
use loader::tokenizer::Tokenizer;
use loader::{LoadOptions, LoadedModel, ModelInfo};
use ternary_kernels::{Isa, Kernel, SharedBytes};

use crate::kernels::KernelRequest;
use crate::{Error, LayerKernel, Message, Session, UseTuning};

/// A model: immutable, cheap to clone, shared between threads. Everything that changes lives in a [`Session`].
#[derive(Clone, Debug)]
pub struct Model {
    inner: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engine: Engine,
    tokenizer: Option<Tokenizer>,
    chat_template: Option<ChatTemplate>,
    chat_template_error: Option<Arc<ChatError>>,
    info: ModelInfo,
    sampling: SamplingOptions,
    notes: Vec<String>,
    kv: KvType,
    context: usize,
    kernels: Vec<LayerKernel>,
    snapshots: Snapshots,
    #[cfg(feature = "constrain")]
    vocabulary: std::sync::OnceLock<crate::constrain::Vocabulary>,
}

/// Options for loading a [`Model`]; made by [`Model::builder`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ModelBuilder {
    load: LoadOptions,
    engine: EngineOptions,
    kernels: KernelRequest,
    kv: KvType,
    context: Option<usize>,
    snapshots: Snapshots,
}

impl ModelBuilder {
    /// Threads to compute with, the caller's included; 0 takes the CPUs that the process may use.
    pub fn threads(mut self, n: usize) -> Self {
        self.engine = self.engine.threads(n);
        self
    }
    /// The instruction set; the default is the best one of this CPU.
    pub fn isa(mut self, isa: Isa) -> Self {
        self.engine = self.engine.isa(isa);
        self
    }
    /// A kernel for the ternary products: one of the registry ([`ternary_kernels::by_name`]), or your own.
    pub fn kernel(mut self, kernel: Arc<dyn Kernel>) -> Self {
        self.kernels.all = Some(kernel);
        self
    }
    /// Sets the kernel for one projection group. With exact kernels the text does not depend on it.
    pub fn kernel_for(mut self, group: ProjectionGroup, kernel: Arc<dyn Kernel>) -> Self {
        self.kernels.of_group.push((group, kernel));
        self
    }
    /// Whether to use the kernels that [`crate::tune`] found for such a model, unless others are requested; the default
    /// is to use them.
    pub fn tuning(mut self, tuning: UseTuning) -> Self {
        self.kernels.tuning = tuning;
        self
    }
    /// LM-head strategy for greedy and top-k sampling; the text does not depend on it.
    pub fn head(mut self, mode: HeadMode) -> Self {
        self.engine = self.engine.head(mode);
        self
    }
    /// Whether test-time-training layers update their inner models while they read. Without updates these stay as they
    /// were trained, for ablations.
    pub fn inner_updates(mut self, on: bool) -> Self {
        self.engine = self.engine.inner_updates(on);
        self
    }
    /// Sets the bits of the inputs of all projections instead of those of the model; see
    /// [`EngineOptions::activation_bits`] for the effect.
    pub fn activation_bits(mut self, bits: ActivationBits) -> Self {
        self.engine = self.engine.activation_bits(bits);
        self
    }
    /// Type of the KV cache.
    pub fn kv(mut self, kv: KvType) -> Self {
        self.kv = kv;
        self
    }
    /// The maximum number of tokens in a session; the default, and the upper limit, is that of the model.
    pub fn context(mut self, tokens: usize) -> Self {
        self.context = Some(tokens);
        self
    }
    /// How often sessions keep the state of test-time-training layers, which cannot be rewound, so that sessions can be
    /// rewound anyway.
    pub fn snapshots(mut self, snapshots: Snapshots) -> Self {
        self.snapshots = snapshots;
        self
    }
    /// A `tokenizer.json` that overrides the file's tokenizer, or supplies what it lacks.
    pub fn tokenizer(mut self, path: impl AsRef<Path>) -> Self {
        self.load.tokenizer = Some(path.as_ref().to_path_buf());
        self
    }
    /// A chat template: Jinja source, or the name of a built-in one.
    pub fn chat_template(mut self, template: impl Into<String>) -> Self {
        self.load.chat_template = Some(template.into());
        self
    }
    /// Options for reading the files, instead of all that were set before: tokenizer, chat template, order of q and k,
    /// tile sizes.
    pub fn load_options(mut self, options: LoadOptions) -> Self {
        self.load = options;
        self
    }
    /// Tile sizes of TL1 and TL2 tensors, which their files do not hold.
    pub fn tl(mut self, tiles: loader::TlTiles) -> Self {
        self.load.tl = tiles;
        self
    }
    /// Keeps packed weights of large models in this cache, so that later starts need not pack them. Without it nothing is kept.
    pub fn packed_cache(mut self, cache: loader::PackedCache) -> Self {
        self.load.packed_cache = Some(cache);
        self
    }
    /// Whether packed weights move from the mapped file to huge pages, see [`LoadOptions::huge_pages`].
    pub fn huge_pages(mut self, on: bool) -> Self {
        self.load.huge_pages = on;
        self
    }
    /// Order of the rows of q and k, if the file's architecture implies a wrong one.
    pub fn qk_layout(mut self, layout: loader::QkLayout) -> Self {
        self.load.qk_layout = Some(layout);
        self
    }

    /// Loads a GGUF file or a Hugging Face folder.
    ///
    /// # Errors
    /// [`Error::Load`] for any error in the files, [`Error::Model`] for features that this CPU does not have.
    pub fn load(self, path: impl AsRef<Path>) -> Result<Model, Error> {
        let loaded = loader::load(path.as_ref(), &self.reading())?;
        self.build(loaded)
    }

    /// Like [`ModelBuilder::load`], for a whole GGUF file in memory: a `Vec<u8>`, or the result of `include_bytes!`.
    ///
    /// # Errors
    /// The errors of [`ModelBuilder::load`].
    pub fn load_bytes(self, bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Model, Error> {
        let loaded = loader::load_bytes(SharedBytes::new(bytes), &self.reading())?;
        self.build(loaded)
    }

    /// Options of reading: with one thread to compute with, reading has no other either.
    fn reading(&self) -> LoadOptions {
        let mut load = self.load.clone();
        load.one_thread |= self.engine.threads.is_some_and(|n| n.get() == 1);
        load
    }

    /// Makes a model of something already loaded.
    ///
    /// # Errors
    /// [`Error::Model`] for features that this CPU does not have.
    pub fn build(self, mut loaded: LoadedModel) -> Result<Model, Error> {
        let (options, kernels) = self.kernels.resolve(&loaded.weights.config, self.engine)?;
        loaded.prepare_for(&options);
        let engine = Engine::new(&loaded.weights, &options)?;
        let limit = engine.config().context_limit().unwrap_or(usize::MAX);
        let sampling = loaded.generation.overrides().apply(SamplingOptions::default());
        Ok(Model {
            inner: Arc::new(Shared {
                engine,
                tokenizer: loaded.tokenizer,
                chat_template: loaded.chat_template,
                chat_template_error: loaded.chat_template_error,
                info: loaded.info,
                sampling,
                notes: loaded.notes,
                kv: self.kv,
                context: self.context.unwrap_or(limit).min(limit),
                kernels,
                snapshots: self.snapshots,
                #[cfg(feature = "constrain")]
                vocabulary: std::sync::OnceLock::new(),
            }),
        })
    }
}

impl Model {
    /// Loads a GGUF file or a Hugging Face folder with the defaults of [`Model::builder`].
    ///
    /// # Errors
    /// [`Error::Load`] for any error in the files, [`Error::Model`] for features that this CPU does not have.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::builder().load(path)
    }

    /// Loads a whole GGUF file in memory with the defaults of [`Model::builder`].
    ///
    /// # Errors
    /// The errors of [`Model::load`].
    pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self, Error> {
        Self::builder().load_bytes(bytes)
    }

    /// The small model that is part of this crate ([`TINY_MODEL`](crate::TINY_MODEL)): it tells simple stories in
    /// English, without any file.
    ///
    /// ```
    /// use bitnet::{GenerateOptions, Model};
    /// let mut session = Model::tiny()?.session();
    /// let story = session.generate("Once upon a time", GenerateOptions::default().max_tokens(8).temperature(0.0))?;
    /// let words: String = story.map(|chunk| chunk.map(|c| c.text)).collect::<Result<_, _>>()?;
    /// assert!(!words.is_empty());
    /// # Ok::<(), bitnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Model`] for features that this CPU does not have.
    #[cfg(feature = "tiny-model")]
    pub fn tiny() -> Result<Self, Error> {
        Self::from_bytes(crate::TINY_MODEL)
    }

    /// Options of loading: threads, instruction set, kernel, cache, tokenizer, chat template.
    pub fn builder() -> ModelBuilder {
        ModelBuilder::default()
    }

    /// A new, empty session.
    pub fn session(&self) -> Session {
        Session::new(self)
    }

    /// The session that [`Session::save`] made bytes of.
    ///
    /// # Errors
    /// Bytes that are damaged, from another model, or longer than the context.
    pub fn restore_session(&self, bytes: &[u8]) -> Result<Session, Error> {
        Session::restore(self, bytes)
    }

    /// The session that [`Session::save_to`] made a file of.
    ///
    /// # Errors
    /// The errors of [`Model::restore_session`]; [`Error::File`] if it cannot be read or is not a regular file.
    pub fn load_session(&self, path: impl AsRef<Path>) -> Result<Session, Error> {
        let path = path.as_ref();
        let (mut file, len) = files::open(path, "a session")?;
        let failed = || files::FileError::io("read", path);
        // The head contains the length of the rest, so a file with another length is not read.
        let mut bytes = Vec::new();
        (&mut file).take(Sequence::SAVED_HEAD as u64).read_to_end(&mut bytes).map_err(failed())?;
        let expected = Sequence::saved_len(self.engine(), &bytes, usize::try_from(len).unwrap_or(usize::MAX))?;
        file.take(expected as u64).read_to_end(&mut bytes).map_err(failed())?;
        self.restore_session(&bytes)
    }

    /// Shape and formulas.
    pub fn config(&self) -> &ModelConfig {
        self.inner.engine.config()
    }
    /// The engine: kernel, threads, instruction set.
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }
    /// The kernel of each projection group, and the origin of the choice.
    pub fn kernels(&self) -> &[LayerKernel] {
        &self.inner.kernels
    }
    /// Information about the files.
    pub fn info(&self) -> &ModelInfo {
        &self.inner.info
    }
    /// Notes on what was repaired or assumed while loading.
    pub fn notes(&self) -> &[String] {
        &self.inner.notes
    }
    /// The tokenizer, if there is one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.inner.tokenizer.as_ref()
    }
    /// The chat template, if there is one that can be used.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.inner.chat_template.as_ref()
    }
    /// The reason why the model's chat template cannot be used, if so. Everything except chats works without it.
    pub fn chat_template_error(&self) -> Option<&Arc<ChatError>> {
        self.inner.chat_template_error.as_ref()
    }
    /// Sampling options as the model's files recommend them.
    pub fn default_sampling(&self) -> SamplingOptions {
        self.inner.sampling.clone()
    }
    /// Type of the KV cache of sessions.
    pub fn kv_type(&self) -> KvType {
        self.inner.kv
    }
    /// How often sessions keep states that cannot be rewound.
    pub fn snapshots(&self) -> Snapshots {
        self.inner.snapshots
    }
    /// The maximum number of tokens in a session; `usize::MAX` if nothing limits them, because no layer is attention.
    pub fn context(&self) -> usize {
        self.inner.context
    }

    /// Whether `token` ends a text.
    pub fn is_eos(&self, token: u32) -> bool {
        self.config().eos_token_ids.contains(&token)
    }

    /// Whether a text prompt begins with the beginning-of-text token: as the files say, or, if they do not say, if the
    /// configuration names one.
    pub fn adds_bos(&self) -> bool {
        let by_file = self.tokenizer().and_then(Tokenizer::add_bos);
        self.config().bos_token_id.is_some() && by_file.unwrap_or(true)
    }

    /// Tokens of `text`; with `bos`, the beginning-of-text token in front, if the model has one.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], or the errors of the tokenizer.
    pub fn encode(&self, text: &str, bos: bool) -> Result<Vec<u32>, Error> {
        let tokenizer = self.tokenizer().ok_or(Error::NoTokenizer)?;
        let mut ids: Vec<u32> = self.config().bos_token_id.filter(|_| bos).into_iter().collect();
        ids.extend(tokenizer.encode(text, false)?);
        Ok(ids)
    }

    /// Text of tokens, special ones left out.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], or the errors of the tokenizer.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        Ok(self.tokenizer().ok_or(Error::NoTokenizer)?.decode(ids, true))
    }

    /// Tokens of a conversation with the opening of the assistant's turn, through the chat template.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], [`Error::NoChatTemplate`], [`Error::ChatTemplate`], a template that fails.
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, Error> {
        self.encode_chat_with(messages, &RenderOptions::default())
    }

    /// Like [`Self::encode_chat`], with further inputs of the template: tools, documents, its own variables such as
    /// `enable_thinking`. The calls of a message (`tool_calls`, `tool_call_id` ...) go into [`Message::extra`].
    ///
    /// # Errors
    /// The errors of [`Self::encode_chat`].
    pub fn encode_chat_with(&self, messages: &[Message], options: &RenderOptions) -> Result<Vec<u32>, Error> {
        let tokenizer = self.tokenizer().ok_or(Error::NoTokenizer)?;
        let template = self.chat_template().ok_or_else(|| match self.chat_template_error() {
            Some(error) => Error::ChatTemplate(error.clone()),
            None => Error::NoChatTemplate,
        })?;
        Ok(template.encode(tokenizer, messages, options)?)
    }

    /// Logits after each of `ids`, `[ids, vocab]` f32, in reference numerics: f32 cache, f32 attention, no token added.
    ///
    /// # Errors
    /// A token outside of the vocabulary, more tokens than the context holds.
    pub fn logits(&self, ids: &[u32]) -> Result<Vec<f32>, Error> {
        Ok(Sequence::new(self.engine(), KvType::F32, Some(self.context())).feed_each(ids)?)
    }

    /// The vocabulary for constraints; made once.
    #[cfg(feature = "constrain")]
    pub(crate) fn vocabulary(&self) -> Result<crate::constrain::Vocabulary, Error> {
        if let Some(vocabulary) = self.inner.vocabulary.get() {
            return Ok(vocabulary.clone());
        }
        let made = crate::constrain::Vocabulary::new(self)?;
        Ok(self.inner.vocabulary.get_or_init(|| made).clone())
    }

    pub(crate) fn new_sequence(&self) -> Sequence {
        Sequence::new(self.engine(), self.inner.kv, Some(self.inner.context))
    }
}
