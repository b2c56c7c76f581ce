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
use crate::body::Bytes;
use crate::engine::{Choice, Event, Generate, Job, Scores};
use crate::net::Peer;
use crate::pool::Asker;
use crate::state::{App, Lease, Site};
use answer::Answer;
pub(crate) use chat::chat;
pub(crate) use completions::completions;
pub(crate) use embeddings::embeddings;
use events::Events;
pub(crate) use fields::Fields;
use format::{Collected, Format};
pub(crate) use info::info;
pub(crate) use inner_loss::inner_loss;
pub(crate) use models::{describe, model, models};
use params::GenerationParams;
use pieces::json_in_pieces;
pub(crate) use responses::responses;
use serde_json::Value;
pub(crate) use status::{health, metrics};

/// Seconds since 1970, for answers.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Most names of models in a message.
pub(crate) const MAX_NAMES: usize = 20;

/// Takes `model`, and returns it as the client calls it; the first model need not be named.
fn take_model(fields: &mut Fields, app: &App) -> Result<String, ApiError> {
    Ok(fields.text("model")?.unwrap_or_else(|| app.name.clone()))
}

/// The number of the model that a request names; another one is an error.
fn named(fields: &mut Fields, site: &Site) -> Result<usize, ApiError> {
    let name = fields.peek_text("model")?;
    site.models.find(name.as_deref()).ok_or_else(|| models::unknown(&name.unwrap_or_default(), site))
}

/// Has the body of a request read by `plan`, with the model that it names; that is loaded first if it is not in memory.
/// The values of a body are not kept meanwhile: they take more room than its bytes.
async fn read<T: Send + 'static>(
    site: &Arc<Site>,
    body: Bytes,
    plan: impl Fn(&App, Fields, &Asker) -> Result<T, ApiError> + Clone + Send + 'static,
) -> Result<(Lease, T), ApiError> {
    let (bytes, body) = (body.len(), Arc::new(body));
    let (shared, again, first) = (site.clone(), body.clone(), plan.clone());
    let begun = move |asker: &Asker| {
        let mut fields = Fields::of_body(&again)?;
        let at = named(&mut fields, &shared)?;
        let Some(lease) = shared.models.here(at) else { return Ok(Err(at)) };
        let planned = first(&lease, fields, asker)?;
        Ok(Ok((lease, planned)))
    };
    let at = match site.workers.read(bytes, begun).await? {
        Ok(done) => return Ok(done),
        Err(at) => at,
    };
    let lease = site.models.get(at).await?;
    let rest = move |asker: &Asker| {
        let planned = plan(&lease, Fields::of_body(&body)?, asker)?;
        Ok((lease, planned))
    };
    site.workers.read(bytes, rest).await
}

/// Answers a request for texts; `plan` reads its body.
async fn generated(
    site: Arc<Site>,
    request: Request,
    plan: fn(&App, Fields) -> Result<Asked, ApiError>,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let peer = request.extensions().get::<Peer>().cloned();
    let body = site.read_body(request).await?;
    let came = Instant::now();
    let planned = move |app: &App, fields: Fields, asker: &Asker| {
        let draft = match plan(app, fields)? {
            Asked::Texts(draft) => *draft,
            Asked::Nothing(answer) => return Ok(Planned::Answered(answer)),
        };
        match draft.params.constrained() {
            Some(field) => Ok(Planned::Constrained(field, Box::new(draft))),
            None => draft.prepare(app, asker).map(Planned::Ready),
        }
    };
    let (lease, planned) = read(&site, body, planned).await?;
    match planned {
        Planned::Answered(answer) => Ok(json_response(StatusCode::OK, &answer)),
        Planned::Ready(plan) => plan.execute(lease, arrived, peer).await,
        Planned::Constrained(field, draft) => {
            // The time of a constraint counts from the end of its request, unless its model had to be loaded.
            let since = if lease.was_here(came) { came } else { Instant::now() };
            let build = move |asker: &Asker| draft.prepare(&lease, asker).map(|plan| (lease, plan));
            let (lease, plan) = site.workers.constrain(field, since, build).await?;
            plan.execute(lease, arrived, peer).await
        }
    }
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
    /// Has it done; the model stays until the answer was sent.
    async fn execute(self, app: Lease, arrived: Instant, peer: Option<Peer>) -> Result<Response, ApiError> {
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
            return Ok(Events::new(news, format, count, peer, app).into_response());
        }
        let collected = collect(news, count).await?;
        let parts = format.whole(collected);
        Ok(json_in_pieces(parts.inspect(move |_| {
            let _ = &app;
        })))
    }
}

/// The status of a body before anything is generated.
pub(crate) fn plan_only(site: &Site, path: &str, body: &[u8]) -> u16 {
    let asker = Asker::patient();
    let planned = || {
        let mut fields = Fields::of_body(body)?;
        let Some(app) = site.models.here(named(&mut fields, site)?) else { return Ok(()) };
        let app: &App = &app;
        let prepared = |asked| match asked {
            Asked::Texts(draft) => draft.prepare(app, &asker).map(drop),
            Asked::Nothing(_) => Ok(()),
        };
        match path {
            "/v1/chat/completions" => chat::plan(app, fields).and_then(prepared),
            "/v1/responses" => responses::plan(app, fields).and_then(prepared),
            "/v1/completions" => completions::plan(app, fields).and_then(prepared),
            "/api/chat" => ollama::plan_chat(app, fields).and_then(prepared),
            "/api/generate" => ollama::plan_generate(app, fields).and_then(prepared),
            "/api/embed" => ollama::plan_embed(app, fields).map(drop),
            "/api/embeddings" => ollama::plan_embeddings(app, fields).map(drop),
            "/v1/embeddings" => embeddings::plan(app, fields).map(drop),
            "/bitnet/inner-loss" => inner_loss::plan(app, fields).map(drop),
            _ => Err(ApiError::invalid("unknown endpoint").status(StatusCode::NOT_FOUND)),
        }
    };
    planned().map_or_else(|error: ApiError| error.into_response().status().as_u16(), |()| 200)
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
