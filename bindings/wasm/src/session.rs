//! One text with a model, generated step by step.

use bitnet::{Batch, CancelToken, GenerateOptions, Message, Output, RenderOptions, SequenceId};
use bitnet_backend::{GenerateRequest, Joined, Prompt, Turn, join};
use serde::Serialize;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::{Failure, Losses, clock};

/// A text: prompts and what was generated, with the model's state for them.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Session {
    model: bitnet::Model,
    /// The session while nothing is generated.
    idle: Option<bitnet::Session>,
    running: Option<Running>,
    last: Option<Last>,
}

/// A generation that has not ended.
#[derive(Debug)]
struct Running {
    batch: Batch,
    id: SequenceId,
    cancel: CancelToken,
    /// Tokens of the whole prompt, and those that were there before.
    prompt: usize,
    cached: usize,
    tokens: usize,
    began: f64,
    first: Option<f64>,
}

/// The outcome of the last generation.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Last {
    reason: &'static str,
    prompt_tokens: usize,
    cached_tokens: usize,
    new_tokens: usize,
    first_token_ms: f64,
    decode_ms: f64,
    prefill_per_second: Option<f64>,
    decode_per_second: Option<f64>,
    #[serde(skip)]
    ids: Vec<u32>,
}

/// News of a step.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    /// Tokens of the prompt that were read, of all of them, and those of the beginning that were there before.
    read: usize,
    total: usize,
    cached: usize,
    text: String,
    /// Tokens generated so far.
    tokens: usize,
    done: bool,
}

impl Session {
    pub(crate) fn new(session: bitnet::Session) -> Self {
        Self { model: session.model().clone(), idle: Some(session), running: None, last: None }
    }

    fn idle(&self) -> Result<&bitnet::Session, Failure> {
        self.idle.as_ref().ok_or_else(busy)
    }

    /// The session, whatever it does.
    fn any(&self) -> Option<&bitnet::Session> {
        self.idle.as_ref().or_else(|| self.running.as_ref().and_then(|r| r.batch.session(r.id)))
    }

    fn ids(&self, prompt: &Prompt) -> Result<Vec<u32>, Failure> {
        Ok(match prompt {
            Prompt::Text { text } => self.model.encode(text, self.model.adds_bos())?,
            Prompt::Chat { messages } => {
                let messages: Vec<Message> = messages.iter().map(Turn::message).collect();
                let mut options = RenderOptions::default();
                options.now = Some(clock::time_of_day());
                self.model.encode_chat_with(&messages, &options)?
            }
        })
    }

    /// Hands the session with its prompt to a batch of one.
    fn join(&mut self, ids: &[u32], options: GenerateOptions, cancel: CancelToken) -> Result<(), Failure> {
        // Checked first, so that a refusal leaves the session as it is.
        let prepared = bitnet::Prepared::new(&self.model, options)?;
        let began = clock::now();
        let joined = join(&self.model, &mut self.idle, ids, prepared)?;
        let Joined { batch, sequence: id, cached } = joined.ok_or_else(busy)?;
        let prompt = ids.len();
        self.running = Some(Running { batch, id, cancel, prompt, cached, tokens: 0, began, first: None });
        Ok(())
    }

    /// Takes the session back.
    fn end(&mut self) -> Option<&Last> {
        let mut running = self.running.take()?;
        let (session, output) = running.batch.leave(running.id)?;
        self.idle = Some(session);
        self.last = Some(Last::of(&running, output));
        self.last.as_ref()
    }
}

fn busy() -> Failure {
    Failure::new("busy", "a text is being generated in this session; cancel it first")
}

impl Last {
    fn of(running: &Running, output: Output) -> Self {
        let now = clock::now();
        let first = running.first.unwrap_or(now);
        let decode_ms = now - first;
        let rate = |tokens: usize, ms: f64| (tokens > 0 && ms > 0.0).then(|| tokens as f64 / ms * 1e3);
        let first_token_ms = first - running.began;
        Self {
            reason: output.finish_reason.name(),
            prompt_tokens: running.prompt,
            cached_tokens: running.cached,
            new_tokens: output.stats.new_tokens,
            first_token_ms,
            decode_ms,
            prefill_per_second: rate(running.prompt - running.cached, first_token_ms),
            decode_per_second: rate(output.stats.new_tokens.saturating_sub(1), decode_ms),
            ids: output.ids,
        }
    }
}

#[wasm_bindgen]
impl Session {
    /// Begins a generation, of a `GenerateRequest` as JSON. What the session holds of the prompt is not read again.
    ///
    /// # Errors
    /// `request`, `context-full`, `no-chat-template`, `constraint`, `busy`; then the session is as it was.
    pub fn begin(&mut self, request: &str) -> Result<(), Failure> {
        if self.running.is_some() {
            return Err(busy());
        }
        let request: GenerateRequest = serde_json::from_str(request).map_err(|e| Failure::form(&e))?;
        let cancel = CancelToken::new();
        let options = request.options(self.model.default_sampling(), &cancel)?;
        let ids = self.ids(&request.prompt)?;
        self.join(&ids, options, cancel)
    }

    /// Reads up to 64 tokens of the prompt, or generates one token; JSON of the news.
    ///
    /// # Errors
    /// The error that ended the generation; the session keeps what it has.
    pub fn step(&mut self) -> Result<String, Failure> {
        let Some(running) = &mut self.running else {
            return Err(Failure::new("request", "nothing is being generated in this session"));
        };
        let mut text = String::new();
        let mut failed = None;
        for (_, chunk) in running.batch.step() {
            match chunk {
                Ok(chunk) => {
                    text.push_str(&chunk.text);
                    if chunk.token.is_some() {
                        running.first.get_or_insert_with(clock::now);
                        running.tokens += 1;
                    }
                }
                Err(error) => failed = Some(Failure::from(error)),
            }
        }
        let len = running.batch.session(running.id).map_or(0, bitnet::Session::len);
        let (total, cached, tokens) = (running.prompt, running.cached, running.tokens);
        let done = running.batch.is_finished() || failed.is_some();
        if done {
            self.end();
        }
        match failed {
            Some(failure) => Err(failure),
            None => {
                let step = Step { read: len.min(total), total, cached, text, tokens, done };
                serde_json::to_string(&step).map_err(|e| Failure::new("internal", e.to_string()))
            }
        }
    }

    /// Has the next step be the last.
    pub fn cancel(&self) {
        if let Some(running) = &self.running {
            running.cancel.cancel();
        }
    }

    /// The outcome of the last generation, as JSON; nothing before the first.
    pub fn result(&self) -> Option<String> {
        self.last.as_ref().and_then(|last| serde_json::to_string(last).ok())
    }

    /// The tokens of the last generation.
    #[wasm_bindgen(js_name = resultIds)]
    pub fn result_ids(&self) -> Vec<u32> {
        self.last.as_ref().map_or_else(Vec::new, |last| last.ids.clone())
    }

    /// Tokens in the session, bytes of keys and values, bytes of states of constant size.
    pub fn memory(&self) -> Vec<f64> {
        let point =
            |s: &bitnet::Session| vec![s.len() as f64, s.state().kv_bytes() as f64, s.state().constant_bytes() as f64];
        self.any().map_or_else(|| vec![0.0; 3], point)
    }

    /// The inner losses of the text, to be computed step by step; nothing without test-time-training layers.
    ///
    /// # Errors
    /// `busy` while a text is being generated.
    pub fn losses(&self) -> Result<Option<Losses>, Failure> {
        let session = self.idle()?;
        Ok(self.model.config().has_ttt().then(|| Losses::new(&self.model, session.tokens())))
    }

    /// A session that goes on independently with the same text.
    ///
    /// # Errors
    /// `busy` while a text is being generated.
    pub fn fork(&self) -> Result<Session, Failure> {
        Ok(Session::new(self.idle()?.fork()))
    }

    /// The session as bytes.
    ///
    /// # Errors
    /// `busy` while a text is being generated.
    pub fn save(&mut self) -> Result<Vec<u8>, Failure> {
        Ok(self.idle.as_mut().ok_or_else(busy)?.save()?)
    }
}
