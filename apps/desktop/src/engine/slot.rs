//! One text with a model, generated step by step.

use std::time::{Duration, Instant};

use bitnet::{Batch, CancelToken, Model, Output, Prepared, SequenceId};
use bitnet_backend::{GenerateRequest, Joined, join};
use serde::Serialize;

use super::request;
use crate::Failure;

/// Time between two `text` events, and tokens between two `memory` events.
const BETWEEN_TEXTS: Duration = Duration::from_millis(16);
const BETWEEN_MEMORY: usize = 16;

/// The memory of a session, at a length: `MemoryPoint` of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryPoint {
    pub(crate) tokens: usize,
    kv: usize,
    state: usize,
}

impl MemoryPoint {
    fn of(session: &bitnet::Session) -> Self {
        let state = session.state();
        Self { tokens: session.len(), kv: state.kv_bytes(), state: state.constant_bytes() }
    }

    /// Bytes in all.
    pub(crate) fn bytes(self) -> usize {
        self.kv + self.state
    }
}

/// The outcome of a generation: `GenerateResult` of the page.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub(crate) reason: &'static str,
    prompt_tokens: usize,
    pub(crate) cached_tokens: usize,
    pub(crate) new_tokens: usize,
    first_token_ms: f64,
    decode_ms: f64,
    prefill_per_second: Option<f64>,
    decode_per_second: Option<f64>,
    memory: Option<MemoryPoint>,
}

/// News of a generation. The last of them is `Done` or `Failed`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
#[allow(missing_docs, reason = "fields that are named after what they hold have no comment")]
pub enum News {
    /// Tokens of the prompt that were read, of all of them, and those of the beginning that were there before.
    Reading { read: usize, total: usize, cached: usize },
    /// More of the text, and the tokens generated so far.
    Text { text: String, tokens: usize },
    /// The memory of the session now.
    Memory { point: MemoryPoint },
    /// The end.
    Done { result: Outcome },
    /// The end, with an error.
    Failed { error: Failure },
}

/// Takes the news of a generation.
pub type Listener = Box<dyn FnMut(News) + Send>;

/// A session, generating or not.
pub(super) struct Slot {
    pub(super) model: Model,
    /// The session while nothing is generated.
    idle: Option<bitnet::Session>,
    running: Option<Running>,
}

/// A generation that has not ended.
struct Running {
    batch: Batch,
    sequence: SequenceId,
    name: String,
    cancel: CancelToken,
    listener: Listener,
    /// Tokens of the whole prompt, and those that were there before.
    prompt: usize,
    cached: usize,
    tokens: usize,
    began: Instant,
    first: Option<Instant>,
    /// Text that was not told yet.
    held: String,
    told: Instant,
    counted: Option<usize>,
}

impl Slot {
    pub(super) fn new(session: bitnet::Session) -> Self {
        Self { model: session.model().clone(), idle: Some(session), running: None }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The session, whatever it does.
    fn any(&self) -> Option<&bitnet::Session> {
        self.idle.as_ref().or_else(|| self.running.as_ref().and_then(|r| r.batch.session(r.sequence)))
    }

    pub(super) fn memory(&self) -> Option<MemoryPoint> {
        self.any().map(MemoryPoint::of)
    }

    /// Begins a generation. What the session holds of the prompt is not read again.
    ///
    /// # Errors
    /// `request`, `context-full`, `no-chat-template`, `constraint`, `busy`; then the session is as it was.
    pub(super) fn begin(
        &mut self,
        request: &GenerateRequest,
        seed: u64,
        cancel: CancelToken,
        listener: Listener,
    ) -> Result<(), (Failure, Listener)> {
        match self.joined(request, seed, &cancel) {
            Err(failure) => Err((failure, listener)),
            Ok((Joined { batch, sequence, cached }, prompt)) => {
                let began = Instant::now();
                self.running = Some(Running {
                    batch,
                    sequence,
                    name: request.id.clone(),
                    cancel,
                    listener,
                    prompt,
                    cached,
                    tokens: 0,
                    began,
                    first: None,
                    held: String::new(),
                    told: began,
                    counted: None,
                });
                Ok(())
            }
        }
    }

    /// Hands the session with its prompt to a batch of one.
    fn joined(&mut self, asked: &GenerateRequest, seed: u64, cancel: &CancelToken) -> Result<(Joined, usize), Failure> {
        if self.is_running() {
            return Err(busy());
        }
        let before = self.idle.as_ref().map_or(&[][..], bitnet::Session::tokens);
        let ids = request::ids(&asked.prompt, &self.model, before)?;
        let mut recommended = self.model.default_sampling();
        recommended.seed = seed;
        // Checked first, so that a refusal leaves the session as it is.
        let prepared = Prepared::new(&self.model, asked.options(recommended, cancel)?)?;
        let joined = join(&self.model, &mut self.idle, &ids, prepared)?;
        Ok((joined.ok_or_else(busy)?, ids.len()))
    }

    /// Reads up to 64 tokens of the prompt, or generates one token. Whether the generation has ended.
    pub(super) fn step(&mut self) -> bool {
        let Some(running) = &mut self.running else { return true };
        let mut failed = None;
        for (_, chunk) in running.batch.step() {
            match chunk {
                Ok(chunk) => {
                    running.held.push_str(&chunk.text);
                    if chunk.token.is_some() {
                        running.first.get_or_insert_with(Instant::now);
                        running.tokens += 1;
                    }
                }
                Err(error) => failed = Some(Failure::from(error)),
            }
        }
        let done = running.batch.is_finished() || failed.is_some();
        running.tell(done);
        if done {
            self.end(failed);
        }
        done
    }

    /// Takes the session back and tells the end.
    fn end(&mut self, failed: Option<Failure>) {
        let Some(mut running) = self.running.take() else { return };
        let news = match running.batch.leave(running.sequence) {
            None => News::Failed { error: Failure::internal("the session is gone") },
            Some((session, output)) => {
                let result = running.outcome(&output, MemoryPoint::of(&session));
                self.idle = Some(session);
                match failed {
                    Some(error) => News::Failed { error },
                    None => News::Done { result },
                }
            }
        };
        (running.listener)(news);
    }

    /// Has the next step be the last, if it is this generation that runs.
    pub(super) fn cancel(&self, name: &str) {
        if let Some(running) = self.running.as_ref().filter(|r| r.name == name) {
            running.cancel.cancel();
        }
    }

    /// Ends a generation without its result.
    pub(super) fn break_off(&mut self, why: Failure) {
        if let Some(running) = &mut self.running {
            running.cancel.cancel();
            self.end(Some(why));
        }
    }

    /// A copy that goes on independently.
    ///
    /// # Errors
    /// `busy` while a text is being generated.
    pub(super) fn fork(&self) -> Result<bitnet::Session, Failure> {
        Ok(self.idle.as_ref().ok_or_else(busy)?.fork())
    }

    /// The session as bytes, as it is now, also while a text is being generated.
    ///
    /// # Errors
    /// The errors of [`bitnet::Session::save`].
    pub(super) fn save(&mut self) -> Result<Vec<u8>, Failure> {
        Ok(match &mut self.idle {
            Some(session) => session.save()?,
            None => self.any().ok_or_else(busy)?.fork().save()?,
        })
    }
}

impl Running {
    /// Tells the news of a step.
    fn tell(&mut self, done: bool) {
        let point = self.batch.session(self.sequence).map(MemoryPoint::of);
        if self.tokens == 0 && !done {
            let read = point.map_or(0, |p| p.tokens).min(self.prompt);
            (self.listener)(News::Reading { read, total: self.prompt, cached: self.cached });
        }
        if !self.held.is_empty() && (done || self.told.elapsed() >= BETWEEN_TEXTS) {
            let text = std::mem::take(&mut self.held);
            (self.listener)(News::Text { text, tokens: self.tokens });
            self.told = Instant::now();
        }
        let due = self.tokens > 0 && self.counted.is_none_or(|n| self.tokens - n >= BETWEEN_MEMORY);
        if let Some(point) = point.filter(|_| done || due) {
            (self.listener)(News::Memory { point });
            self.counted = Some(self.tokens);
        }
    }

    fn outcome(&self, output: &Output, memory: MemoryPoint) -> Outcome {
        let now = Instant::now();
        let first = self.first.unwrap_or(now);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let rate = |tokens: usize, ms: f64| (tokens > 0 && ms > 0.0).then(|| tokens as f64 / ms * 1e3);
        let (first_token_ms, decode_ms) = (ms(first - self.began), ms(now - first));
        let new_tokens = output.stats.new_tokens;
        Outcome {
            reason: output.finish_reason.name(),
            prompt_tokens: self.prompt,
            cached_tokens: self.cached,
            new_tokens,
            first_token_ms,
            decode_ms,
            prefill_per_second: rate(self.prompt - self.cached, first_token_ms),
            decode_per_second: rate(new_tokens.saturating_sub(1), decode_ms),
            memory: Some(memory),
        }
    }
}

fn busy() -> Failure {
    Failure::new("busy", "a text is being generated in this session; cancel it first")
}
