//! One text with a model.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bitnet::{CancelToken, Constraint};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::choice::{self, Choice, Score};
use crate::errors::{kinds, option, raised};
use crate::generation::{Generation, Prompt};
use crate::{options, wait};

/// The place of a session: it is here, or taken by what uses it.
#[derive(Clone)]
pub(crate) struct Slot(Arc<Mutex<Option<bitnet::Session>>>);

impl Slot {
    pub(crate) fn new(session: bitnet::Session) -> Self {
        Self(Arc::new(Mutex::new(Some(session))))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<bitnet::Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the session.
    ///
    /// # Errors
    /// `Busy` if something else has it.
    pub(crate) fn take(&self) -> PyResult<bitnet::Session> {
        self.lock().take().ok_or_else(busy)
    }

    pub(crate) fn put(&self, session: bitnet::Session) {
        *self.lock() = Some(session);
    }

    /// Looks at the session, without computing.
    fn look<T>(&self, see: impl FnOnce(&bitnet::Session) -> T) -> PyResult<T> {
        self.lock().as_ref().map(see).ok_or_else(busy)
    }

    /// Computes with the session, detached from the interpreter; signals wait until it is done.
    fn work<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut bitnet::Session) -> Result<T, bitnet::Error> + Send,
    ) -> PyResult<T> {
        let mut session = self.take()?;
        let result = py.detach(|| work(&mut session));
        self.put(session);
        result.map_err(raised)
    }
}

fn busy() -> PyErr {
    kinds::Busy::new_err(
        "a text is being generated in this session; iterate to its end, or close the generation, and use one session for each thread",
    )
}

/// One text with a model: prompts and what was generated, with the model's state for them.
#[pyclass(frozen, module = "ternary_lm")]
pub(crate) struct Session {
    model: bitnet::Model,
    slot: Slot,
}

impl Session {
    pub(crate) fn new(session: bitnet::Session) -> Self {
        Self { model: session.model().clone(), slot: Slot::new(session) }
    }

    fn begin(&self, py: Python<'_>, prompt: Prompt, given: Option<&Bound<'_, PyDict>>) -> PyResult<Generation> {
        let cancel = CancelToken::new();
        let options = options::generate(&self.model, given, &cancel)?;
        Generation::begin(py, self.slot.clone(), prompt, options, cancel)
    }
}

/// The prompt of a text or of tokens.
///
/// # Errors
/// `TypeError` for anything else.
pub(crate) fn prompt(value: &Bound<'_, PyAny>) -> PyResult<Prompt> {
    match value.extract::<String>() {
        Ok(text) => Ok(Prompt::Text(text)),
        Err(_) => value.extract::<Vec<u32>>().map(Prompt::Ids).map_err(|_| {
            pyo3::exceptions::PyTypeError::new_err("a prompt is a string, or the numbers of its tokens in a list")
        }),
    }
}

/// A value of the schema, out of a generation that [`generate`](Session::begin) would begin: what `json` of a model and of
/// a session do.
///
/// # Errors
/// `Unfinished` if it was cut off, and the errors of a generation.
pub(crate) fn json_value<'py>(
    slot: Slot,
    model: &bitnet::Model,
    prompt: Prompt,
    schema: &Bound<'py, PyAny>,
    given: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = schema.py();
    let cancel = CancelToken::new();
    let mut options = options::generate(model, given, &cancel)?;
    if options.constraint.is_some() {
        return Err(option("json has its constraint, the schema; leave the other one out"));
    }
    options.constraint = Some(Constraint::json_schema(&options::schema(schema)?));
    let text = Generation::begin(py, slot, prompt, options, cancel)?.whole(py)?;
    // A class that has a schema makes the value.
    match !schema.is_instance_of::<pyo3::types::PyString>() && schema.hasattr("model_validate_json")? {
        true => schema.call_method1("model_validate_json", (text,)),
        false => options::loads(py, &text),
    }
}

#[pymethods]
impl Session {
    /// Goes on with a text, or with tokens, and generates.
    #[pyo3(signature = (prompt, **options))]
    fn generate(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Generation> {
        self.begin(py, self::prompt(prompt)?, options)
    }

    /// Generates the reply to a conversation; what the session holds of it is not read again.
    #[pyo3(signature = (messages, **options))]
    fn chat(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Generation> {
        self.begin(py, Prompt::Chat(options::messages(messages)?), options)
    }

    /// A value of a JSON Schema after the text.
    #[pyo3(signature = (prompt, schema, **options))]
    fn json<'py>(
        &self,
        prompt: &Bound<'py, PyAny>,
        schema: &Bound<'py, PyAny>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        json_value(self.slot.clone(), &self.model, self::prompt(prompt)?, schema, options)
    }

    /// The likeliest of several texts to follow. The session stays as it is.
    #[pyo3(signature = (choices, *, by = "total"))]
    fn choose(&self, py: Python<'_>, choices: Vec<String>, by: &str) -> PyResult<Choice> {
        let by = choice::by(by)?;
        let best = self.slot.work(py, |session| session.choose(&choices, by))?;
        Ok(Choice::of(&choices, &best))
    }

    /// How likely each text is to follow. The session stays as it is.
    fn score(&self, py: Python<'_>, continuations: Vec<String>) -> PyResult<Vec<Score>> {
        let scores = self.slot.work(py, |session| session.score(&continuations))?;
        Ok(Score::of(&continuations, &scores))
    }

    /// Reads a text, or tokens, without generating.
    fn feed(&self, py: Python<'_>, prompt: &Bound<'_, PyAny>) -> PyResult<()> {
        let cancel = CancelToken::new();
        // Nothing is generated, so the prompt is read, and can be interrupted.
        let options = options::generate(&self.model, None, &cancel)?.max_tokens(0);
        Generation::begin(py, self.slot.clone(), self::prompt(prompt)?, options, cancel)?.whole(py).map(drop)
    }

    /// A session that goes on independently with the same text.
    fn fork(&self) -> PyResult<Session> {
        Ok(Session::new(self.slot.look(bitnet::Session::fork)?))
    }

    /// Forgets everything from token `length` on.
    fn rewind(&self, py: Python<'_>, length: usize) -> PyResult<()> {
        self.slot.work(py, |session| session.rewind(length))
    }

    /// Forgets everything.
    fn clear(&self) -> PyResult<()> {
        let mut session = self.slot.take()?;
        session.clear();
        self.slot.put(session);
        Ok(())
    }

    /// Writes the session to a file, whole or not at all; `Model.load_session` continues from it.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        self.slot.work(py, |session| session.save_to(&path))
    }

    /// The session as bytes; `Model.restore_session` continues from them.
    fn to_bytes(&self, py: Python<'_>) -> PyResult<Vec<u8>> {
        self.slot.work(py, bitnet::Session::save)
    }

    /// All tokens, prompts and generated ones.
    #[getter]
    fn tokens(&self) -> PyResult<Vec<u32>> {
        self.slot.look(|session| session.tokens().to_vec())
    }

    /// The text of all tokens.
    #[getter]
    fn text(&self) -> PyResult<String> {
        self.slot.look(|session| self.model.decode(session.tokens()))?.map_err(raised)
    }

    /// Tokens that still fit; `None` if nothing limits them.
    #[getter]
    fn remaining(&self) -> PyResult<Option<usize>> {
        let unlimited = self.model.context() == usize::MAX;
        self.slot.look(|session| Some(session.remaining()).filter(|_| !unlimited))
    }

    /// Bytes of keys and values and of states.
    #[getter]
    fn state_bytes(&self) -> PyResult<usize> {
        self.slot.look(|session| session.state().kv_bytes() + session.state().constant_bytes())
    }

    fn __len__(&self) -> PyResult<usize> {
        self.slot.look(bitnet::Session::len)
    }

    /// A session without tokens is there all the same.
    fn __bool__(&self) -> bool {
        true
    }

    fn __repr__(&self) -> String {
        match self.slot.look(bitnet::Session::len) {
            Ok(tokens) => format!("Session({tokens} tokens)"),
            Err(_) => "Session(generating)".to_owned(),
        }
    }
}

/// Reads a saved session.
///
/// # Errors
/// The errors of [`bitnet::Model::load_session`].
pub(crate) fn load(py: Python<'_>, model: &bitnet::Model, path: PathBuf) -> PyResult<Session> {
    let model = model.clone();
    wait::abandonable(py, move || model.load_session(path))?.map(Session::new).map_err(raised)
}
