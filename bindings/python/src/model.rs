//! A model in memory.

use std::path::PathBuf;
use std::time::Instant;

use bitnet::{CancelToken, EmbedOptions, KvType, Pooling};
use loader::tokenizer::Tokenizer;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::choice::{self, Choice, Score};
use crate::errors::{option, raised};
use crate::generation::{Generation, Prompt};
use crate::matrix::Matrix;
use crate::options;
use crate::session::{self, Session, Slot};
use crate::wait::{self, LOOK};

/// A model: immutable, and used from any number of threads at the same time.
#[pyclass(frozen, module = "ternary_lm")]
pub(crate) struct Model {
    inner: bitnet::Model,
}

/// Tokens of texts that become vectors between two looks for signals.
const EMBED_STEP: usize = 256;

impl Model {
    /// A generation in a session of its own.
    fn begin(&self, py: Python<'_>, prompt: Prompt, given: Option<&Bound<'_, PyDict>>) -> PyResult<Generation> {
        let cancel = CancelToken::new();
        let options = options::generate(&self.inner, given, &cancel)?;
        Generation::begin(py, self.slot(), prompt, options, cancel)
    }

    fn slot(&self) -> Slot {
        Slot::new(self.inner.session())
    }

    /// The tokens of `value`: of a text as a prompt would have them, or as they are given.
    fn ids(&self, value: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
        match session::prompt(value)? {
            Prompt::Text(text) => self.inner.encode(&text, self.inner.adds_bos()).map_err(raised),
            Prompt::Ids(ids) => Ok(ids),
            Prompt::Chat(_) => Err(PyTypeError::new_err("a conversation is not a text")),
        }
    }
}

#[pymethods]
impl Model {
    /// Loads a GGUF file or a folder; without a path the small model of stories that is part of the package.
    #[new]
    #[pyo3(signature = (path = None, *, threads = None, context = None, kv = None, tokenizer = None, chat_template = None))]
    fn new(
        py: Python<'_>,
        path: Option<PathBuf>,
        threads: Option<usize>,
        context: Option<usize>,
        kv: Option<&str>,
        tokenizer: Option<PathBuf>,
        chat_template: Option<String>,
    ) -> PyResult<Self> {
        let mut builder = bitnet::Model::builder().threads(threads.unwrap_or(0));
        if let Some(tokens) = context {
            builder = builder.context(tokens);
        }
        if let Some(name) = kv {
            let kv = KvType::from_name(name).ok_or_else(|| {
                let known = KvType::ALL.map(KvType::name).join(", ");
                option(format!("kv is {name:?}; it must be one of {known}"))
            })?;
            builder = builder.kv(kv);
        }
        if let Some(path) = tokenizer {
            builder = builder.tokenizer(path);
        }
        if let Some(template) = chat_template {
            builder = builder.chat_template(template);
        }
        let loaded = wait::abandonable(py, move || match path {
            Some(path) => builder.load(path),
            None => builder.load_bytes(bitnet::TINY_MODEL),
        })?;
        Ok(Self { inner: loaded.map_err(raised)? })
    }

    /// Generates after a text; the whole new text.
    #[pyo3(signature = (prompt, **options))]
    fn generate(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<String> {
        self.begin(py, session::prompt(prompt)?, options)?.whole(py)
    }

    /// Generates after a text, piece by piece.
    #[pyo3(signature = (prompt, **options))]
    fn stream(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Generation> {
        self.begin(py, session::prompt(prompt)?, options)
    }

    /// The reply to a conversation, through the model's chat template.
    #[pyo3(signature = (messages, **options))]
    fn chat(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<String> {
        self.begin(py, Prompt::Chat(options::messages(messages)?), options)?.whole(py)
    }

    /// The reply to a conversation, piece by piece.
    #[pyo3(signature = (messages, **options))]
    fn stream_chat(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Generation> {
        self.begin(py, Prompt::Chat(options::messages(messages)?), options)
    }

    /// A value of a JSON Schema after a text.
    #[pyo3(signature = (prompt, schema, **options))]
    fn json<'py>(
        &self,
        prompt: &Bound<'py, PyAny>,
        schema: &Bound<'py, PyAny>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        session::json_value(self.slot(), &self.inner, session::prompt(prompt)?, schema, options)
    }

    /// The likeliest of several texts after a prompt.
    #[pyo3(signature = (prompt, choices, *, by = "total"))]
    fn choose(&self, py: Python<'_>, prompt: String, choices: Vec<String>, by: &str) -> PyResult<Choice> {
        let (model, by, texts) = (self.inner.clone(), choice::by(by)?, choices.clone());
        let best = wait::abandonable(py, move || model.choose(&prompt, &texts, by))?.map_err(raised)?;
        Ok(Choice::of(&choices, &best))
    }

    /// How likely each text is after a prompt.
    fn score(&self, py: Python<'_>, prompt: String, continuations: Vec<String>) -> PyResult<Vec<Score>> {
        let (model, texts) = (self.inner.clone(), continuations.clone());
        let scores = wait::abandonable(py, move || model.score(&prompt, &texts))?.map_err(raised)?;
        Ok(Score::of(&continuations, &scores))
    }

    /// The vectors of texts, a row for each.
    #[pyo3(signature = (texts, *, normalize = true, pooling = None))]
    fn embed(
        &self,
        py: Python<'_>,
        texts: &Bound<'_, PyAny>,
        normalize: bool,
        pooling: Option<&str>,
    ) -> PyResult<Matrix> {
        let texts = options::texts("texts", texts)?;
        let mut options = EmbedOptions::default().normalize(normalize);
        if let Some(name) = pooling {
            let known = || Pooling::ALL.map(Pooling::name).join(", ");
            let pooling = Pooling::from_name(name)
                .ok_or_else(|| option(format!("pooling is {name:?}; it must be one of {}", known())))?;
            options = options.pooling(pooling);
        }
        let model = self.inner.clone();
        let begin = move || {
            let ids = texts.iter().map(|text| model.encode_for_embedding(text)).collect::<Result<_, _>>()?;
            model.embedding(ids, options)
        };
        let mut embedding = wait::abandonable(py, begin)?.map_err(raised)?;
        while !embedding.is_finished() {
            py.detach(|| {
                let began = Instant::now();
                while !embedding.is_finished() && began.elapsed() < LOOK {
                    embedding.step(EMBED_STEP)?;
                }
                Ok(())
            })
            .map_err(raised)?;
            py.check_signals()?;
        }
        Ok(Matrix::of_rows(&embedding.finish(), self.inner.config().hidden_size))
    }

    /// The logits after each token of a text, or of given tokens: a row of the whole vocabulary for each.
    fn logits(&self, py: Python<'_>, prompt: &Bound<'_, PyAny>) -> PyResult<Matrix> {
        let (model, ids) = (self.inner.clone(), self.ids(prompt)?);
        let columns = model.config().vocab_size;
        let logits = wait::abandonable(py, move || model.logits(&ids))?.map_err(raised)?;
        Ok(Matrix::new(logits, columns))
    }

    /// The tokens of a text; `bos` says whether the token that begins a text is in front, if the model has one.
    #[pyo3(signature = (text, *, bos = None))]
    fn tokenize(&self, text: &str, bos: Option<bool>) -> PyResult<Vec<u32>> {
        self.inner.encode(text, bos.unwrap_or(self.inner.adds_bos())).map_err(raised)
    }

    /// The text of tokens, special ones left out.
    #[expect(clippy::needless_pass_by_value, reason = "Python's list becomes one of Rust")]
    fn detokenize(&self, ids: Vec<u32>) -> PyResult<String> {
        self.inner.decode(&ids).map_err(raised)
    }

    /// The tokens of a conversation with the opening of the reply.
    fn tokenize_chat(&self, messages: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
        self.inner.encode_chat(&options::messages(messages)?).map_err(raised)
    }

    /// A new, empty session.
    fn session(&self) -> Session {
        Session::new(self.inner.session())
    }

    /// The session that `Session.save` wrote.
    fn load_session(&self, py: Python<'_>, path: PathBuf) -> PyResult<Session> {
        session::load(py, &self.inner, path)
    }

    /// The session that `Session.to_bytes` made.
    fn restore_session(&self, py: Python<'_>, state: &[u8]) -> PyResult<Session> {
        py.detach(|| self.inner.restore_session(state)).map(Session::new).map_err(raised)
    }

    /// Facts about the model.
    #[getter]
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (model, about) = (&self.inner, PyDict::new(py));
        let (config, engine, info) = (model.config(), model.engine(), model.info());
        about.set_item("name", info.name.as_deref())?;
        about.set_item("architecture", &info.architecture)?;
        about.set_item("format", &info.ternary_format)?;
        about.set_item("parameters", config.parameters())?;
        about.set_item("layers", config.num_hidden_layers)?;
        about.set_item("hidden_size", config.hidden_size)?;
        about.set_item("vocab_size", config.vocab_size)?;
        about.set_item("context", Some(model.context()).filter(|tokens| *tokens != usize::MAX))?;
        let mixers: Vec<&str> = (0..config.num_hidden_layers).map(|layer| config.mixer(layer).name()).collect();
        about.set_item("mixers", mixers)?;
        about.set_item("kv", model.kv_type().name())?;
        about.set_item("threads", engine.threads())?;
        about.set_item("isa", engine.isa().to_string())?;
        about.set_item("kernel", engine.kernel_name())?;
        about.set_item("weight_bytes", engine.packed_bytes() + engine.head_bytes())?;
        about.set_item("bos_token", config.bos_token_id)?;
        about.set_item("eos_tokens", config.eos_token_ids.to_vec())?;
        about.set_item("tokenizer", model.tokenizer().map(Tokenizer::vocab_size))?;
        about.set_item("chat", model.chat_template().is_some() && model.tokenizer().is_some())?;
        about.set_item("notes", model.notes().to_vec())?;
        Ok(about)
    }

    fn __repr__(&self) -> String {
        let (info, parameters) = (self.inner.info(), self.inner.config().parameters());
        let name = info.name.as_deref().unwrap_or(&info.architecture);
        format!("Model({name:?}, {parameters} parameters)")
    }
}
