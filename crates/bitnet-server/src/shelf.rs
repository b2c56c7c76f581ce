//! The models of a server: which of them are in memory, who waits for one, and which one leaves.
//!
//! One thread loads models and lets them go, one at a time; it holds no lock while it does. A model that was loaded stays
//! at least [`Options::model_stay`](crate::Options::model_stay) and ten times as long as its loading took, and a file that
//! cannot be loaded is not tried again for as long: so requests for ever other models cannot keep the machine loading.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bitnet::Model;
use serde_json::Value;
use tokio::sync::Notify;

use crate::api_error::{ApiError, presentable};
use crate::engine::Refused;
use crate::models::{Listed, Load, LoadFailure, default_name};
use crate::state::{App, Kit, Lease, until};
use crate::{ServerError, api};

/// A loaded model stays so many times as long as its loading took.
const STAY_FACTOR: u32 = 10;
/// A model that cannot be loaded is not tried again for so long at least.
const REST: Duration = Duration::from_secs(1);
/// How long the engine of a model that leaves may take to notice.
const LEAVE_LIMIT: Duration = Duration::from_secs(60);

/// All models.
#[derive(Debug)]
pub(crate) struct Shelf {
    entries: Vec<Entry>,
    state: Mutex<State>,
    /// For the thread that loads.
    changed: Condvar,
    /// For requests that wait.
    news: Notify,
    kit: Kit,
}

/// A model, in memory or not.
struct Entry {
    name: String,
    /// Bytes of its files.
    bytes: u64,
    /// How it is loaded; without that it never leaves.
    load: Option<Load>,
    /// Facts about it, once it was in memory.
    known: OnceLock<Known>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Facts that clients are told about a model that is not in memory at the moment.
#[derive(Debug)]
struct Known {
    openai: Value,
    ollama: Value,
}

#[derive(Debug)]
struct State {
    slots: Vec<Slot>,
    /// Requests that wait for a model.
    waiting: usize,
    closed: bool,
}

/// The state of a model.
#[derive(Debug)]
struct Slot {
    place: Place,
    /// Requests that wait for it, and since when.
    waiting: usize,
    asked: Instant,
    /// When a request last used it.
    used: Instant,
    /// Bytes that it took when it was in memory last.
    took: Option<u64>,
    /// Why it cannot be loaded, and until when that counts.
    failure: Option<(String, Instant)>,
}

#[derive(Debug)]
enum Place {
    Away,
    /// On its way into memory or out of it, which takes so many bytes.
    Moving(u64),
    Here {
        app: Arc<App>,
        bytes: u64,
        /// Until when it does not leave for others.
        stays: Instant,
    },
}

/// The next task of the thread that loads.
enum Task {
    Load(usize),
    Leave(usize),
    /// Nothing before that time, or before something changes.
    Wait(Option<Instant>),
    End,
}

/// A model as a list shows it.
pub(crate) struct Shown {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// Facts, if it was in memory once.
    pub(crate) openai: Option<Value>,
    pub(crate) ollama: Option<Value>,
    /// The model, if it is in memory.
    pub(crate) here: Option<Here>,
}

/// A model in memory.
pub(crate) struct Here {
    /// Bytes of its weights.
    pub(crate) bytes: u64,
    /// How long it will stay without a request, if that is limited.
    pub(crate) leaves: Option<Duration>,
}

/// A request that waits.
struct Ticket<'s> {
    shelf: &'s Shelf,
    at: usize,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = self.shelf.lock();
        state.waiting -= 1;
        if let Some(slot) = state.slots.get_mut(self.at) {
            slot.waiting -= 1;
        }
    }
}

impl Shelf {
    /// Puts the models there, and starts the thread if one may be loaded.
    pub(crate) fn start(list: Vec<Listed>, kit: Kit) -> Result<Arc<Self>, ServerError> {
        let now = Instant::now();
        let (mut entries, mut models) = (Vec::new(), Vec::new());
        for Listed { name, model, load, bytes } in list {
            let name = name.or_else(|| model.as_ref().map(default_name)).unwrap_or_default();
            if entries.iter().any(|entry: &Entry| entry.name == name) {
                return Err(ServerError::SameName { name });
            }
            entries.push(Entry { name, bytes, load, known: OnceLock::new() });
            models.push(model);
        }
        if entries.is_empty() {
            return Err(ServerError::NoModels);
        }
        let slot = || Slot { place: Place::Away, waiting: 0, asked: now, used: now, took: None, failure: None };
        let slots = entries.iter().map(|_| slot()).collect();
        let loads = entries.iter().any(|entry| entry.load.is_some());
        let shelf = Arc::new(Self {
            state: Mutex::new(State { slots, waiting: 0, closed: false }),
            entries,
            changed: Condvar::new(),
            news: Notify::new(),
            kit,
        });
        for (at, model) in models.into_iter().enumerate() {
            let Some(model) = model else { continue };
            let app = shelf.app(model, at)?;
            let bytes = shelf.bytes_of(&app);
            if let Some(slot) = shelf.lock().slots.get_mut(at) {
                slot.place = Place::Here { app, bytes, stays: now };
            }
        }
        if let Some(limit) = shelf.limit() {
            let needed = shelf.lock().bytes();
            if needed > limit {
                return Err(ServerError::Memory { needed, limit });
            }
        }
        if loads {
            let shelf = shelf.clone();
            std::thread::Builder::new().name("bitnet-load".into()).spawn(move || work(&shelf))?;
        }
        Ok(shelf)
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limit(&self) -> Option<u64> {
        self.kit.options.memory_limit
    }

    fn app(self: &Arc<Self>, model: Model, at: usize) -> Result<Arc<App>, ServerError> {
        let entry = &self.entries[at];
        let app = Arc::new(self.kit.start(model, &entry.name, entry.load.is_some(), Arc::downgrade(self), at)?);
        entry.known.get_or_init(|| Known { openai: api::describe(&app), ollama: api::ollama::described(&app) });
        Ok(app)
    }

    /// Bytes that count for a model in memory: its weights, and the ended texts that it may keep.
    fn bytes_of(&self, app: &App) -> u64 {
        app.weight_bytes().saturating_add(self.kit.options.cache_bytes as u64)
    }

    /// When the server was started, in seconds since 1970.
    pub(crate) fn created(&self) -> u64 {
        self.kit.created
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// The number of the model of a name, or of the first one. Clients of Ollama's interface add a version to names.
    pub(crate) fn find(&self, name: Option<&str>) -> Option<usize> {
        let Some(name) = name else { return Some(0) };
        let of = |name: &str| self.entries.iter().position(|entry| entry.name == name);
        of(name).or_else(|| name.strip_suffix(":latest").and_then(of))
    }

    /// All models, for a list.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        let state = self.lock();
        let now = Instant::now();
        let show = |(entry, slot): (&Entry, &Slot)| {
            let known = entry.known.get();
            let here = match &slot.place {
                Place::Here { app, stays, .. } => {
                    let leaves = app.keep().filter(|_| entry.load.is_some());
                    let leaves = leaves.map(|keep| until(slot.used, keep).max(*stays).saturating_duration_since(now));
                    Some(Here { bytes: app.weight_bytes(), leaves })
                }
                _ => None,
            };
            let (openai, ollama) = (known.map(|k| k.openai.clone()), known.map(|k| k.ollama.clone()));
            Shown { name: entry.name.clone(), bytes: entry.bytes, openai, ollama, here }
        };
        self.entries.iter().zip(&state.slots).map(show).collect()
    }

    /// The models in memory.
    pub(crate) fn apps(&self) -> Vec<Arc<App>> {
        let state = self.lock();
        let app = |slot: &Slot| match &slot.place {
            Place::Here { app, .. } => Some(app.clone()),
            _ => None,
        };
        state.slots.iter().filter_map(app).collect()
    }

    /// The model, if it is in memory.
    pub(crate) fn here(&self, at: usize) -> Option<Lease> {
        let mut state = self.lock();
        let slot = state.slots.get_mut(at)?;
        match &slot.place {
            Place::Here { app, .. } => {
                slot.used = Instant::now();
                Some(Lease::new(app))
            }
            _ => None,
        }
    }

    /// The model; if it is not in memory, once it was loaded.
    pub(crate) async fn get(&self, at: usize) -> Result<Lease, ApiError> {
        let limit = self.kit.options.load_timeout;
        let deadline = tokio::time::Instant::now() + limit;
        let mut ticket = None;
        loop {
            // Before the state is looked at, so that no news is missed.
            let news = self.news.notified();
            if let Some(lease) = self.here(at) {
                return Ok(lease);
            }
            if let Some(failure) = self.failure(at)? {
                let name = self.entries.get(at).map_or("", |entry| &entry.name);
                return Err(ApiError::not_loaded(name, &failure));
            }
            if ticket.is_none() {
                ticket = Some(self.wait(at)?);
            }
            tokio::select! {
                () = news => {}
                () = tokio::time::sleep_until(deadline) => return Err(ApiError::no_room(limit)),
            }
        }
    }

    /// Why the model cannot be loaded, if it was tried a short while ago.
    fn failure(&self, at: usize) -> Result<Option<String>, ApiError> {
        let state = self.lock();
        if state.closed {
            return Err(Refused::Closing.into());
        }
        let failure = state.slots.get(at).and_then(|slot| slot.failure.as_ref());
        Ok(failure.filter(|(_, until)| *until > Instant::now()).map(|(why, _)| why.clone()))
    }

    /// Asks for the model.
    fn wait(&self, at: usize) -> Result<Ticket<'_>, ApiError> {
        let mut state = self.lock();
        if state.waiting >= self.kit.options.queue.max(1) {
            return Err(Refused::Full.into());
        }
        state.waiting += 1;
        if let Some(slot) = state.slots.get_mut(at) {
            if slot.waiting == 0 {
                slot.asked = Instant::now();
            }
            slot.waiting += 1;
        }
        drop(state);
        self.changed.notify_all();
        Ok(Ticket { shelf: self, at })
    }

    /// No request uses the model any more.
    pub(crate) fn left(&self, at: usize) {
        let mut state = self.lock();
        if let Some(slot) = state.slots.get_mut(at) {
            slot.used = Instant::now();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Takes nothing more; running texts may continue until `deadline`. Returns the models in memory.
    pub(crate) fn close(&self, deadline: Instant) -> Vec<Arc<App>> {
        self.lock().closed = true;
        self.changed.notify_all();
        self.news.notify_waiters();
        let apps = self.apps();
        apps.iter().for_each(|app| app.engine.queue.close(deadline));
        apps
    }

    /// Whether requests are taken; otherwise why not.
    pub(crate) fn state(&self) -> Result<(), Refused> {
        if self.lock().closed {
            return Err(Refused::Closing);
        }
        self.apps().iter().try_for_each(|app| app.engine.queue.state())
    }

    /// Decides on the next task.
    fn next(&self, state: &mut State) -> Task {
        if state.closed {
            return Task::End;
        }
        let now = Instant::now();
        let mut wake: Option<Instant> = None;
        let mut at_last = |time: Instant| wake = Some(wake.map_or(time, |wake| wake.min(time)));
        // Models whose time without a request is over.
        for (at, slot) in state.slots.iter().enumerate() {
            if let Place::Here { app, stays, .. } = &slot.place
                && self.may_leave(at)
                && let Some(keep) = app.keep()
                && slot.waiting == 0
                && !app.is_used()
            {
                let leaves = until(slot.used, keep).max(*stays);
                if leaves <= now {
                    return Task::Leave(at);
                }
                at_last(leaves);
            }
        }
        // Those that are wanted, in the order in which they were asked for.
        let mut wanted: Vec<usize> = (0..state.slots.len()).filter(|at| state.slots[*at].is_wanted(now)).collect();
        wanted.sort_by_key(|at| state.slots[*at].asked);
        for at in wanted {
            let needed = self.needed(at, &state.slots[at]);
            let Some(limit) = self.limit() else { return Task::Load(at) };
            if let Err(least) = state.fits_at_all(needed, limit, |at| self.may_leave(at)) {
                let why = format!(
                    "it needs {needed} bytes of memory, and {least} of the {limit} allowed ones are free at best"
                );
                state.slots[at].failure = Some((why, until(now, self.stay(Duration::ZERO).max(REST))));
                self.news.notify_waiters();
                continue;
            }
            if state.bytes().saturating_add(needed) <= limit {
                return Task::Load(at);
            }
            match self.leaving(state, needed, limit, now) {
                Leaving::This(other) => return Task::Leave(other),
                Leaving::Later(time) => at_last(time),
                Leaving::Used => {}
            }
        }
        Task::Wait(wake)
    }

    /// Whether it can be loaded again.
    fn may_leave(&self, at: usize) -> bool {
        self.entries.get(at).is_some_and(|entry| entry.load.is_some())
    }

    /// Bytes that a model will take: those of the last time, or of its files.
    fn needed(&self, at: usize, slot: &Slot) -> u64 {
        let of_files = self.entries.get(at).map_or(0, |entry| entry.bytes);
        slot.took.unwrap_or_else(|| of_files.saturating_add(self.kit.options.cache_bytes as u64))
    }

    /// How long a model stays whose loading took so long.
    fn stay(&self, took: Duration) -> Duration {
        self.kit.options.model_stay.max(took.saturating_mul(STAY_FACTOR))
    }

    /// The model that has been without a request longest, if those that have been so longest make enough room and may
    /// all leave now.
    fn leaving(&self, state: &State, needed: u64, limit: u64, now: Instant) -> Leaving {
        let mut idle = Vec::new();
        for (at, slot) in state.slots.iter().enumerate() {
            if let Place::Here { app, bytes, stays } = &slot.place
                && self.may_leave(at)
                && !app.is_used()
            {
                idle.push((at, slot.used, *stays, *bytes));
            }
        }
        idle.sort_by_key(|(_, used, ..)| *used);
        let mut rest = state.bytes();
        // When the last of those that have to leave may do so.
        let mut ready = now;
        for (_, _, stays, bytes) in &idle {
            rest = rest.saturating_sub(*bytes);
            ready = ready.max(*stays);
            if rest.saturating_add(needed) <= limit {
                return match idle.first() {
                    Some((at, ..)) if ready <= now => Leaving::This(*at),
                    _ => Leaving::Later(ready),
                };
            }
        }
        Leaving::Used
    }

    /// Loads a model, whose place is marked; it holds no lock meanwhile.
    fn load(self: &Arc<Self>, at: usize) {
        let began = Instant::now();
        let load = || match &self.entries[at].load {
            Some(load) => load(),
            None => Err(LoadFailure::from("it cannot be loaded again")),
        };
        let loaded = catch_unwind(AssertUnwindSafe(|| {
            let model = load().map_err(|error| error.to_string())?;
            self.app(model, at).map_err(|error| error.to_string())
        }));
        let loaded = loaded.unwrap_or_else(|_| Err("loading it failed; this is a bug, please report it".to_owned()));
        let took = began.elapsed();
        let mut over = None;
        let mut state = self.lock();
        let now = Instant::now();
        let stays = until(now, self.stay(took));
        let others = state.bytes_without(at);
        if let Some(slot) = state.slots.get_mut(at) {
            match loaded {
                Ok(app) => {
                    let bytes = self.bytes_of(&app);
                    slot.took = Some(bytes);
                    if self.limit().is_some_and(|limit| others.saturating_add(bytes) > limit) {
                        // It takes more than its files made believe: it is decided once more, now that this is known.
                        slot.place = Place::Moving(bytes);
                        over = Some(app);
                    } else {
                        tracing::info!(model = app.name, seconds = took.as_secs_f64(), "a model was loaded");
                        self.kit.metrics.loaded.fetch_add(1, Relaxed);
                        (slot.used, slot.failure) = (now, None);
                        slot.place = Place::Here { app, bytes, stays };
                    }
                }
                Err(why) => {
                    tracing::warn!(model = self.entries[at].name, error = why, "a model could not be loaded");
                    self.kit.metrics.load_failures.fetch_add(1, Relaxed);
                    slot.failure = Some((presentable(why), stays.max(until(now, REST))));
                    slot.place = Place::Away;
                }
            }
        }
        drop(state);
        match over {
            Some(app) => self.end(at, app),
            None => self.news.notify_waiters(),
        }
    }

    /// Ends the engine of a model, whose place is marked, and frees its memory.
    fn end(&self, at: usize, app: Arc<App>) {
        let now = Instant::now();
        app.engine.queue.close(now);
        if app.engine.join(now + LEAVE_LIMIT).is_none() {
            tracing::warn!(model = app.name, "the engine of a model that leaves has not ended in time");
        }
        drop(app);
        let mut state = self.lock();
        if let Some(slot) = state.slots.get_mut(at) {
            slot.place = Place::Away;
        }
        drop(state);
        self.news.notify_waiters();
    }
}

/// Which model makes room.
enum Leaving {
    This(usize),
    /// None before that time.
    Later(Instant),
    /// None before a request ends.
    Used,
}

/// Loads models and lets them go, until the shelf is closed.
fn work(shelf: &Arc<Shelf>) {
    let mut state = shelf.lock();
    loop {
        match shelf.next(&mut state) {
            Task::End => return,
            Task::Wait(None) => state = shelf.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Task::Wait(Some(time)) => {
                let left = time.saturating_duration_since(Instant::now());
                state = shelf.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            Task::Load(at) => {
                if let Some(slot) = state.slots.get_mut(at) {
                    slot.place = Place::Moving(shelf.needed(at, slot));
                }
                drop(state);
                shelf.load(at);
                state = shelf.lock();
            }
            Task::Leave(at) => {
                let place = state.slots.get_mut(at).map(|slot| {
                    let bytes = slot.bytes();
                    std::mem::replace(&mut slot.place, Place::Moving(bytes))
                });
                drop(state);
                if let Some(Place::Here { app, .. }) = place {
                    tracing::info!(model = app.name, "a model leaves memory");
                    shelf.kit.metrics.left.fetch_add(1, Relaxed);
                    shelf.end(at, app);
                }
                state = shelf.lock();
            }
        }
    }
}

impl Slot {
    fn bytes(&self) -> u64 {
        match &self.place {
            Place::Away => 0,
            Place::Moving(bytes) | Place::Here { bytes, .. } => *bytes,
        }
    }

    /// Whether it is to be loaded.
    fn is_wanted(&self, now: Instant) -> bool {
        let failed = self.failure.as_ref().is_some_and(|(_, until)| *until > now);
        self.waiting > 0 && matches!(self.place, Place::Away) && !failed
    }
}

impl State {
    /// Bytes of all models in memory.
    fn bytes(&self) -> u64 {
        self.slots.iter().map(Slot::bytes).fold(0, u64::saturating_add)
    }

    /// Bytes of all models in memory but one.
    fn bytes_without(&self, at: usize) -> u64 {
        let others = self.slots.iter().enumerate().filter(|(other, _)| *other != at);
        others.map(|(_, slot)| slot.bytes()).fold(0, u64::saturating_add)
    }

    /// Whether so many bytes fit beside the models that never leave; otherwise the bytes that are free at best.
    fn fits_at_all(&self, needed: u64, limit: u64, may_leave: impl Fn(usize) -> bool) -> Result<(), u64> {
        let staying = self.slots.iter().enumerate().filter(|(at, _)| !may_leave(*at));
        let free = limit.saturating_sub(staying.map(|(_, slot)| slot.bytes()).fold(0, u64::saturating_add));
        if needed <= free { Ok(()) } else { Err(free) }
    }
}
