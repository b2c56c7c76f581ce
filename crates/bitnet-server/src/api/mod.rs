//! The endpoints: from JSON to work for the engine, and from its news to JSON.

mod answer;
mod chat;
mod completions;
mod embeddings;
mod events;
mod fields;
mod format;
mod held;
mod info;
mod inner_loss;
mod models;
pub(crate) mod ollama;
mod params;
mod pieces;
mod responses;
mod status;
mod tools;
mod weight;

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bitnet::{Prepared, Scoring};
use tokio::sync::{mpsc, oneshot};

use crate::api_error::{ApiError, json_response, quoted};
use crate::engine::{Choice, Event, Generate, Job, Scores};
use crate::net::Peer;
use crate::pool::Asker;
use crate::state::App;
use answer::Answer;
pub(crate) use chat::chat;
pub(crate) use completions::completions;
pub(crate) use embeddings::embeddings;
use events::Events;
pub(crate) use fields::Fields;
use format::{Collected, Format};
pub(crate) use info::info;
pub(crate) use inner_loss::inner_loss;
pub(crate) use models::{model, models};
use params::GenerationParams;
use pieces::json_in_pieces;
pub(crate) use responses::responses;
use serde_json::Value;
pub(crate) use status::{health, metrics};

/// Seconds since 1970, for answers.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Takes `model`, and returns it as the client calls it. There is only one, so it need not be named; another one is an
/// error.
fn take_model(fields: &mut Fields, app: &App) -> Result<String, ApiError> {
    match fields.text("model")? {
        Some(name) if !models::is_called(app, &name) => Err(models::unknown(&name, app)),
        Some(name) => Ok(name),
        None => Ok(app.name.clone()),
    }
}

/// Answers a request for texts; `plan` reads its body.
async fn generated(
    app: Arc<App>,
    request: Request,
    plan: fn(&App, &[u8]) -> Result<Asked, ApiError>,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let peer = request.extensions().get::<Peer>().cloned();
    let body = app.read_body(request).await?;
    let (read, bytes) = (Instant::now(), body.len());
    let shared = app.clone();
    let planned = move |asker: &Asker| {
        let draft = match plan(&shared, &body)? {
            Asked::Texts(draft) => *draft,
            Asked::Nothing(answer) => return Ok(Planned::Answered(answer)),
        };
        match draft.params.constrained() {
            Some(field) => Ok(Planned::Constrained(field, Box::new(draft))),
            None => draft.prepare(&shared, asker).map(Planned::Ready),
        }
    };
    let plan = match app.workers.read(bytes, planned).await? {
        Planned::Answered(answer) => return Ok(json_response(StatusCode::OK, &answer)),
        Planned::Ready(plan) => plan,
        Planned::Constrained(field, draft) => {
            let shared = app.clone();
            app.workers.constrain(field, read, move |asker| draft.prepare(&shared, asker)).await?
        }
    };
    plan.execute(app, arrived, peer).await
}

/// The wish of a request.
enum Asked {
    /// Texts.
    Texts(Box<Draft>),
    /// No text; this is the answer.
    Nothing(Value),
}

impl From<Draft> for Asked {
    fn from(draft: Draft) -> Self {
        Self::Texts(Box::new(draft))
    }
}

/// A request that was read.
enum Planned {
    /// There is nothing to generate.
    Answered(Value),
    /// It can begin.
    Ready(CompletionPlan),
    /// The constraint of a field, which remains to be built.
    Constrained(&'static str, Box<Draft>),
}

/// Texts to generate, without the parts that may take long to build.
#[derive(Debug)]
struct Draft {
    params: GenerationParams,
    prompts: Vec<Vec<u32>>,
    format: Box<dyn Format>,
    /// Whether the probabilities of the prompts are part of the answer, if any are.
    scores: bool,
}

/// Texts to generate, checked as far as is possible without the engine.
#[derive(Debug)]
struct CompletionPlan {
    /// Prompts whose probabilities are part of the answer.
    scorings: Vec<Scoring>,
    choices: Vec<Choice>,
    format: Box<dyn Format>,
    stream: bool,
}

impl Draft {
    /// `params.n` texts for each of `prompts`.
    fn new(
        app: &App,
        params: GenerationParams,
        prompts: Vec<Vec<u32>>,
        field: &str,
        format: Box<dyn Format>,
    ) -> Result<Self, ApiError> {
        let limit = app.model.context();
        if let Some(long) = prompts.iter().find(|p| p.len() > limit) {
            return Err(ApiError::too_long(field, limit, long.len()));
        }
        if prompts.iter().any(Vec::is_empty) {
            return Err(ApiError::field(
                field,
                "the prompt is empty: at least one token is needed to predict the next",
            ));
        }
        let total = prompts.len().saturating_mul(params.n);
        if total > app.options.max_choices {
            let most = app.options.max_choices;
            return Err(ApiError::field("n", format!("{total} completions requested, at most {most} at once allowed")));
        }
        Ok(Self { params, prompts, format, scores: false })
    }

    /// Includes the prompts where probabilities are requested.
    fn with_scores(mut self) -> Self {
        self.scores = true;
        self
    }

    /// Makes everything that needs no session.
    fn prepare(self, app: &App, asker: &Asker) -> Result<CompletionPlan, ApiError> {
        let Self { params, prompts, format, scores } = self;
        let mut scorings = Vec::new();
        if let Some(top) = params.logprobs.filter(|_| scores) {
            for ids in &prompts {
                scorings.push(app.model.scoring(ids.clone(), top)?);
            }
        }
        let mut choices = Vec::new();
        // Bytes of the constraints of this request.
        let mut own = 0usize;
        for ids in prompts {
            for _ in 0..params.n {
                if asker.is_gone() {
                    // The receiver is gone; the error is dropped.
                    return Err(ApiError::invalid("the client is gone"));
                }
                let index = choices.len();
                let prepared = Prepared::new(&app.model, params.options(index)).map_err(|e| params.map_error(e))?;
                let mut memory = app.constraint_bytes.share();
                memory.set(prepared.constraint_bytes());
                own += memory.bytes();
                if memory.bytes() > 0 && !app.constraint_bytes.is_half_free() {
                    return Err(ApiError::constraints_too_large(
                        params.constrained(),
                        own,
                        app.constraint_bytes.half(),
                    ));
                }
                let (max_tokens, watched) = (params.max_tokens(), params.include_state);
                choices.push(Choice { index, ids: ids.clone(), max_tokens, prepared, memory, watched });
            }
        }
        Ok(CompletionPlan { scorings, choices, format, stream: params.stream })
    }
}

impl CompletionPlan {
    /// Has it done.
    async fn execute(self, app: Arc<App>, arrived: Instant, peer: Option<Peer>) -> Result<Response, ApiError> {
        let Self { scorings, choices, mut format, stream } = self;
        let count = choices.len();
        let scored = scorings.into_iter().map(|scoring| {
            let (answer, scored) = oneshot::channel();
            app.engine.queue.push(Job::Read(Box::new(Scores::new(scoring, answer)))).map(|()| scored)
        });
        let scored = scored.collect::<Result<Vec<_>, _>>()?;
        if !scored.is_empty() {
            let mut prompts = Vec::new();
            for scored in scored {
                prompts.push(scored.await.map_err(|_| ApiError::dead())??);
            }
            format.scored(prompts);
        }
        let (events, news) = mpsc::unbounded_channel();
        app.engine.queue.push(Job::Generate(Generate { choices: choices.into(), events, arrived }))?;
        if stream {
            return Ok(Events::new(news, format, count, peer).into_response());
        }
        let collected = collect(news, count).await?;
        Ok(json_in_pieces(format.whole(collected)))
    }
}

/// The status of a body before anything is generated.
pub(crate) fn plan_only(app: &App, path: &str, body: &[u8]) -> u16 {
    let asker = Asker::patient();
    let prepared = |asked| match asked {
        Asked::Texts(draft) => draft.prepare(app, &asker).map(drop),
        Asked::Nothing(_) => Ok(()),
    };
    let planned = match path {
        "/v1/chat/completions" => chat::plan(app, body).and_then(prepared),
        "/v1/responses" => responses::plan(app, body).and_then(prepared),
        "/v1/completions" => completions::plan(app, body).and_then(prepared),
        "/api/chat" => ollama::plan_chat(app, body).and_then(prepared),
        "/api/generate" => ollama::plan_generate(app, body).and_then(prepared),
        "/api/embed" => ollama::plan_embed(app, body).map(drop),
        "/api/embeddings" => ollama::plan_embeddings(app, body).map(drop),
        "/v1/embeddings" => embeddings::plan(app, body).map(drop),
        "/bitnet/inner-loss" => inner_loss::plan(app, body).map(drop),
        _ => Err(ApiError::invalid("unknown endpoint").status(StatusCode::NOT_FOUND)),
    };
    planned.map_or_else(|error| error.into_response().status().as_u16(), |()| 200)
}

/// All texts of a request. If this is dropped, because the client is gone, the engine leaves them.
async fn collect(mut news: mpsc::UnboundedReceiver<Event>, count: usize) -> Result<Vec<Collected>, ApiError> {
    let mut collected: Vec<Collected> = (0..count).map(|_| Collected::default()).collect();
    while collected.iter().any(|c| c.end.is_none()) {
        match news.recv().await {
            Some(Event::Piece { choice, text, logprob }) => {
                if let Some(c) = collected.get_mut(choice) {
                    c.text.push_str(&text);
                    c.logprobs.extend(logprob);
                }
            }
            Some(Event::Done { choice, end }) => {
                if let Some(c) = collected.get_mut(choice) {
                    c.end = Some(end);
                }
            }
            // Only streams report it.
            Some(Event::Progress { .. }) => {}
            Some(Event::Failed(failure)) => return Err(failure.into()),
            None => return Err(ApiError::dead()),
        }
    }
    Ok(collected)
}
