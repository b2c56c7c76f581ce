//! A generation: an iterator of pieces of text, which has the session until it ends.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use bitnet::{CancelToken, Error, FinishReason, GenerateOptions, Message, Stats, TokenLogprob};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use self_cell::{MutBorrow, self_cell};

use crate::errors::{kinds, raised};
use crate::session::Slot;
use crate::wait::{self, LOOK};

type Steps<'s> = bitnet::Generation<'s>;

self_cell!(
    /// A session with the generation that borrows it.
    struct Running {
        owner: MutBorrow<bitnet::Session>,
        #[covariant]
        dependent: Steps,
    }
);

impl Running {
    fn end(self) -> bitnet::Session {
        self.into_owner().into_inner()
    }
}

/// The beginning of a generation.
pub(crate) enum Prompt {
    /// A text that goes on with the session's.
    Text(String),
    /// Tokens, the same.
    Ids(Vec<u32>),
    /// A whole conversation, of which the session may hold the beginning.
    Chat(Vec<Message>),
}

/// Bytes of a prompt that is read on the calling thread: with fewer the model is done before anyone would interrupt it.
const SHORT: usize = 256;

impl Prompt {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Ids(ids) => 4 * ids.len(),
            Self::Chat(messages) => messages.iter().map(|m| m.content.len()).sum(),
        }
    }

    fn begin<'s>(&self, session: &'s mut bitnet::Session, options: GenerateOptions) -> Result<Steps<'s>, Error> {
        match self {
            Self::Text(text) => session.generate(text, options),
            Self::Ids(ids) => session.generate_ids(ids, options),
            Self::Chat(messages) => session.chat(messages, options),
        }
    }
}

/// The text so far, with its tokens.
#[derive(Default)]
struct Seen {
    text: String,
    ids: Vec<u32>,
    logprobs: Vec<TokenLogprob>,
    finish: Option<FinishReason>,
    stats: Stats,
}

struct State {
    /// `None` while a call steps it, and when it has ended.
    running: Option<Running>,
    stepping: bool,
    seen: Seen,
}

/// A text that is being generated. Iterating over it yields its pieces as they are certain.
#[pyclass(frozen, module = "ternary_lm")]
pub(crate) struct Generation {
    slot: Slot,
    cancel: CancelToken,
    state: Mutex<State>,
}

/// A token, the logarithm of its probability, and the likeliest tokens at its place with theirs.
type Logprob = (u32, Option<f64>, Vec<(u32, f64)>);

/// How far a call steps.
#[derive(Clone, Copy, PartialEq)]
enum Until {
    Text,
    End,
}

/// The outcome of a few steps.
enum Outcome {
    /// Some text.
    Text(String),
    /// It is time to look for signals.
    Time,
    End,
    Failed(Error),
}

impl Generation {
    /// Lets the session of `slot` read the prompt. After an error it is in its slot again.
    ///
    /// # Errors
    /// The errors of [`bitnet::Session::generate`], the exception of a handler.
    #[expect(clippy::result_large_err, reason = "an error gives the session back")]
    pub(crate) fn begin(
        py: Python<'_>,
        slot: Slot,
        prompt: Prompt,
        options: GenerateOptions,
        cancel: CancelToken,
    ) -> PyResult<Self> {
        let session = slot.take()?;
        let long = prompt.bytes() > SHORT;
        let work = move || {
            Running::try_new_or_recover(MutBorrow::new(session), |owner| prompt.begin(owner.borrow_mut(), options))
        };
        let (begun, signal) = match long {
            true => wait::cancellable(py, &cancel, work),
            false => (py.detach(work), Ok(())),
        };
        match (begun, signal) {
            (Ok(running), Ok(())) => {
                let state = State { running: Some(running), stepping: false, seen: Seen::default() };
                Ok(Self { slot, cancel, state: Mutex::new(state) })
            }
            (Ok(running), Err(signal)) => {
                slot.put(running.end());
                Err(signal)
            }
            (Err((session, error)), signal) => {
                slot.put(session.into_inner());
                Err(signal.err().unwrap_or_else(|| raised(error)))
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The generation, for the steps of one call; `None` if it has ended.
    fn take(&self) -> PyResult<Option<Running>> {
        let mut state = self.state();
        if state.stepping {
            return Err(kinds::Busy::new_err("another thread steps this generation"));
        }
        let running = state.running.take();
        state.stepping = running.is_some();
        Ok(running)
    }

    fn give_back(&self, running: Running) {
        let mut state = self.state();
        (state.running, state.stepping) = (Some(running), false);
    }

    fn end(&self, running: Running) {
        self.slot.put(running.end());
        self.state().stepping = false;
    }

    /// Steps, detached from the interpreter, until there is text, or for a short time.
    fn step(&self, running: &mut Running, until: Until) -> Outcome {
        let began = Instant::now();
        let mut made = String::new();
        let mut seen = Seen::default();
        let outcome = running.with_dependent_mut(|_, steps| {
            let outcome = loop {
                match steps.next() {
                    None => break Outcome::End,
                    Some(Err(error)) => break Outcome::Failed(error),
                    Some(Ok(chunk)) => {
                        seen.ids.extend(chunk.token);
                        seen.logprobs.extend(chunk.logprob);
                        made.push_str(&chunk.text);
                    }
                }
                if until == Until::Text && !made.is_empty() {
                    break Outcome::Text(String::new());
                }
                if began.elapsed() > LOOK {
                    break Outcome::Time;
                }
            };
            (seen.finish, seen.stats) = (steps.finish_reason(), steps.stats());
            outcome
        });
        let mut state = self.state();
        state.seen.text.push_str(&made);
        state.seen.ids.append(&mut seen.ids);
        state.seen.logprobs.append(&mut seen.logprobs);
        (state.seen.finish, state.seen.stats) = (seen.finish, seen.stats);
        match outcome {
            Outcome::Text(_) => Outcome::Text(made),
            other => other,
        }
    }

    /// The next piece of text, or with [`Until::End`] nothing, after all steps.
    fn advance(&self, py: Python<'_>, until: Until) -> PyResult<Option<String>> {
        let Some(mut running) = self.take()? else { return Ok(None) };
        loop {
            match py.detach(|| self.step(&mut running, until)) {
                Outcome::Text(text) => {
                    self.give_back(running);
                    return Ok(Some(text));
                }
                Outcome::Time => {
                    if let Err(signal) = py.check_signals() {
                        self.end(running);
                        return Err(signal);
                    }
                }
                Outcome::End => {
                    self.end(running);
                    return Ok(None);
                }
                Outcome::Failed(error) => {
                    self.end(running);
                    return Err(raised(error));
                }
            }
        }
    }

    /// Generates to the end and returns the whole text.
    ///
    /// # Errors
    /// The errors of a step.
    pub(crate) fn whole(&self, py: Python<'_>) -> PyResult<String> {
        self.advance(py, Until::End)?;
        Ok(self.state().seen.text.clone())
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = state.running.take() {
            self.slot.put(running.end());
        }
    }
}

#[pymethods]
impl Generation {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.advance(py, Until::Text)
    }

    /// Generates to the end; the whole text.
    fn finish(&self, py: Python<'_>) -> PyResult<String> {
        self.whole(py)
    }

    /// Has the next step be the last, from any thread.
    fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Ends it here; the session keeps what was generated.
    fn close(&self) -> PyResult<()> {
        if let Some(running) = self.take()? {
            self.state().seen.finish.get_or_insert(FinishReason::Cancelled);
            self.end(running);
        }
        Ok(())
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, _error: &Bound<'_, pyo3::types::PyTuple>) -> PyResult<()> {
        self.close()
    }

    /// The text so far.
    #[getter]
    fn text(&self) -> String {
        self.state().seen.text.clone()
    }

    /// The tokens so far.
    #[getter]
    fn ids(&self) -> Vec<u32> {
        self.state().seen.ids.clone()
    }

    /// Why it ended; `None` before.
    #[getter]
    fn finish_reason(&self) -> Option<&'static str> {
        self.state().seen.finish.map(FinishReason::name)
    }

    /// Of each token its log-probability and the likeliest tokens at its place, with the option `logprobs`.
    #[getter]
    fn logprobs(&self) -> Vec<Logprob> {
        self.state().seen.logprobs.iter().map(|l| (l.token, l.logprob, l.top.clone())).collect()
    }

    /// Tokens, times and rates.
    #[getter]
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let s = self.state().seen.stats;
        let about = PyDict::new(py);
        about.set_item("prompt_tokens", s.prompt_tokens)?;
        about.set_item("reused_tokens", s.reused_tokens)?;
        about.set_item("new_tokens", s.new_tokens)?;
        about.set_item("forced_tokens", s.forced_tokens)?;
        about.set_item("prefill_s", s.prefill.as_secs_f64())?;
        about.set_item("decode_s", s.decode.as_secs_f64())?;
        about.set_item("prefill_tok_s", s.prefill_tok_s())?;
        about.set_item("decode_tok_s", s.decode_tok_s())?;
        Ok(about)
    }

    fn __repr__(&self) -> String {
        let state = self.state();
        match state.seen.finish {
            Some(reason) => format!("Generation({} tokens, {reason})", state.seen.ids.len()),
            None => format!("Generation({} tokens so far)", state.seen.ids.len()),
        }
    }
}
