//! State that requests share.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bitnet::Model;

use crate::budget::Budget;
use crate::engine::{Engine, Sizes, Turns};
use crate::metrics::Metrics;
use crate::shelf::Shelf;
use crate::workers::Workers;
use crate::{Options, ServerError, api};

/// The default maximum number of tokens of a text that becomes a vector, if the model's context has no limit.
const DEFAULT_EMBED_TOKENS: usize = 32_768;

/// State that all requests share.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) models: Arc<Shelf>,
    pub(crate) options: Arc<Options>,
    pub(crate) workers: Workers,
    /// Bytes of all bodies that were read and are not done with.
    pub(crate) body_bytes: Arc<Budget>,
    /// Bytes of the automata of all texts, those that wait included.
    pub(crate) constraint_bytes: Arc<Budget>,
    pub(crate) metrics: Arc<Metrics>,
}

/// A model in memory, and the state that its requests share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) model: Model,
    pub(crate) name: String,
    pub(crate) created: u64,
    /// Most new tokens of a text.
    pub(crate) max_tokens: usize,
    /// Most tokens of a text that is to become a vector.
    pub(crate) max_embed_tokens: usize,
    pub(crate) options: Arc<Options>,
    pub(crate) constraint_bytes: Arc<Budget>,
    pub(crate) engine: Engine,
    /// How long it stays without a request; `None` as long as there is room.
    keep: Mutex<Option<Duration>>,
    /// Requests that use it.
    users: AtomicUsize,
    /// Whether it can be loaded again.
    may_leave: bool,
    shelf: Weak<Shelf>,
    /// Its place there.
    at: usize,
    /// When it came into memory.
    since: Instant,
}

/// The parts that every model is started with.
#[derive(Debug)]
pub(crate) struct Kit {
    pub(crate) options: Arc<Options>,
    pub(crate) constraint_bytes: Arc<Budget>,
    pub(crate) metrics: Arc<Metrics>,
    /// The turns of the engines of several models.
    pub(crate) turns: Option<Arc<Turns>>,
    /// When the server was started.
    pub(crate) created: u64,
}

impl Kit {
    /// Starts the engine of a model.
    pub(crate) fn start(
        &self,
        model: Model,
        name: &str,
        may_leave: bool,
        shelf: Weak<Shelf>,
        at: usize,
    ) -> Result<App, ServerError> {
        if model.tokenizer().is_none() {
            return Err(ServerError::NoTokenizer);
        }
        let options = &self.options;
        let endless = model.context() == usize::MAX;
        let natural = if endless { model.config().max_position_embeddings } else { model.context() };
        let Options { max_sessions, short_sessions, queue, cache_bytes, .. } = **options;
        let sizes = Sizes { max_sessions, short_sessions, queue, cache_bytes };
        let max_embed_tokens =
            options.max_embed_tokens.unwrap_or(if endless { DEFAULT_EMBED_TOKENS } else { usize::MAX });
        let (constraint_bytes, metrics) = (self.constraint_bytes.clone(), self.metrics.clone());
        Ok(App {
            max_embed_tokens: max_embed_tokens.min(model.context()),
            name: name.to_owned(),
            created: self.created,
            max_tokens: options.max_tokens.unwrap_or(natural).max(1),
            engine: Engine::start(model.clone(), sizes, constraint_bytes.clone(), metrics, self.turns.clone())?,
            constraint_bytes,
            options: options.clone(),
            model,
            keep: Mutex::new(None),
            users: AtomicUsize::new(0),
            may_leave,
            shelf,
            at,
            since: Instant::now(),
        })
    }
}

impl App {
    /// Bytes of its weights.
    pub(crate) fn weight_bytes(&self) -> u64 {
        (self.model.engine().packed_bytes() + self.model.engine().head_bytes()) as u64
    }

    /// Whether it was in memory at a time.
    pub(crate) fn was_here(&self, then: Instant) -> bool {
        self.since <= then
    }

    /// Whether a request uses it.
    pub(crate) fn is_used(&self) -> bool {
        self.users.load(Acquire) > 0
    }

    /// Whether it can leave memory.
    pub(crate) fn may_leave(&self) -> bool {
        self.may_leave
    }

    /// How long it is to stay without a request; `None` as long as there is room.
    pub(crate) fn set_keep(&self, keep: Option<Duration>) {
        *self.keep.lock().unwrap_or_else(PoisonError::into_inner) = keep;
    }

    pub(crate) fn keep(&self) -> Option<Duration> {
        *self.keep.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A model that a request uses: it stays in memory until this is dropped.
#[derive(Debug)]
pub(crate) struct Lease(Arc<App>);

impl Lease {
    /// To be made while the shelf is locked, so that the model is there.
    pub(crate) fn new(app: &Arc<App>) -> Self {
        app.users.fetch_add(1, AcqRel);
        Self(app.clone())
    }
}

impl std::ops::Deref for Lease {
    type Target = App;

    fn deref(&self) -> &App {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.0.users.fetch_sub(1, AcqRel) == 1
            && let Some(shelf) = self.0.shelf.upgrade()
        {
            shelf.left(self.0.at);
        }
    }
}

impl Drop for Site {
    /// Ends the thread that loads, and with it the engines.
    fn drop(&mut self) {
        self.models.close(Instant::now());
    }
}

impl Site {
    /// The names of all models, for a message.
    pub(crate) fn names(&self) -> String {
        let shown: Vec<String> = self.models.names().take(api::MAX_NAMES).map(|name| format!("{name:?}")).collect();
        let more = self.models.len() - shown.len();
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{rest}", shown.join(", "))
    }
}

/// A time after another one; one far away if there is none so far away.
pub(crate) fn until(from: Instant, after: Duration) -> Instant {
    from.checked_add(after).unwrap_or_else(|| from + Duration::from_secs(365 * 86_400))
}
