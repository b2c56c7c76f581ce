//! The thread that computes: one model, its sessions, and their states on the disk. Nothing here is asynchronous and
//! nothing knows a window; the commands hand jobs over and wait.

mod request;
mod slot;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bitnet::{CancelToken, Model};
use bitnet_backend::Facts;
use serde::{Deserialize, Serialize};

pub use bitnet_backend::{GenerateRequest, Info};
pub use slot::{Listener, MemoryPoint, News, Outcome};

use crate::Failure;
use crate::memory::{About, Found, Memory, is_id};
use slot::Slot;

/// Most tokens of a session of a model with attention.
pub const CONTEXT: usize = 4096;
/// Sessions at the same time; a page that opens more has lost count.
const MAX_SESSIONS: usize = 256;
/// How often the thread looks for states to save while nothing is generated.
const IDLE: Duration = Duration::from_secs(2);

/// Where weights come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The model within the program.
    Builtin,
    /// A file.
    Path(PathBuf),
}

/// Which session has read which conversation, up to which of its texts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Ids of the page.
    pub conversation: String,
    /// See `conversation`.
    pub tip: String,
    /// Id of a session.
    pub session: String,
}

/// A session that was made of a remembered state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recalled {
    /// The new session.
    pub session: String,
    /// The last text that it has read.
    pub tip: String,
    /// Tokens within.
    pub tokens: usize,
}

type Job = Box<dyn FnOnce(&mut Worker) + Send>;
/// Told once for each new reason why a state could not be saved.
pub type OnTrouble = Box<dyn Fn(Failure) + Send>;

/// The engine's thread, seen from others.
#[derive(Debug)]
pub struct Engine {
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Engine {
    /// Starts the thread.
    pub fn start(memory: Option<Arc<Memory>>, trouble: OnTrouble) -> Self {
        let (jobs, received) = channel();
        let worker = Worker {
            memory,
            trouble,
            model: None,
            sessions: BTreeMap::new(),
            bound: Vec::new(),
            saved: BTreeMap::new(),
            failed: None,
            next: 0,
        };
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || worker.run(&received)).ok();
        Self { jobs: Mutex::new(thread.is_some().then_some(jobs)), thread: Mutex::new(thread) }
    }

    /// Has the thread do something, and waits for its result.
    ///
    /// # Errors
    /// The errors of the job; `closing` at the end of the program; `internal` if the job panicked.
    pub fn wait<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Worker) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = channel();
        let boxed: Job = Box::new(move |worker| {
            let _ = reply.send(job(worker));
        });
        let jobs = self.jobs.lock().unwrap_or_else(|e| e.into_inner()).clone();
        let sent = jobs.is_some_and(|jobs| jobs.send(boxed).is_ok());
        if !sent {
            return Err(Failure::new("closing", "the program is about to end"));
        }
        answer.recv().unwrap_or_else(|_| Err(Failure::internal("the engine failed; its sessions are gone")))
    }

    /// Saves every state and ends the thread. What is generated ends where it is.
    pub fn close(&self) {
        let jobs = self.jobs.lock().unwrap_or_else(|e| e.into_inner()).take();
        drop(jobs);
        if let Some(thread) = self.thread.lock().unwrap_or_else(|e| e.into_inner()).take() {
            let _ = thread.join();
        }
    }
}

/// The model, the sessions and the memory of the engine's thread.
pub struct Worker {
    memory: Option<Arc<Memory>>,
    trouble: OnTrouble,
    model: Option<(Model, Info)>,
    sessions: BTreeMap<String, Slot>,
    /// The sessions whose states are remembered.
    bound: Vec<Binding>,
    /// The state that was saved last for a conversation, and when.
    saved: BTreeMap<String, (Mark, Instant)>,
    /// Why saving failed the last time.
    failed: Option<String>,
    next: u64,
}

/// A saved state: session, last text, tokens.
type Mark = (String, String, usize);

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let busy = self.sessions.values().any(Slot::is_running);
            let job = match busy {
                true => match jobs.try_recv() {
                    Ok(job) => Some(job),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => break,
                },
                false => match jobs.recv_timeout(IDLE) {
                    Ok(job) => Some(job),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                },
            };
            let turn = catch_unwind(AssertUnwindSafe(|| match job {
                Some(job) => job(&mut self),
                None => {
                    self.sessions.values_mut().filter(|slot| slot.is_running()).for_each(|slot| {
                        slot.step();
                    });
                    self.save_states(false);
                }
            }));
            if turn.is_err() {
                // Its sessions are in an unknown state; the model is not.
                self.drop_sessions(&Failure::internal("the engine failed; its sessions are gone"));
            }
        }
        let _ = catch_unwind(AssertUnwindSafe(|| self.save_states(true)));
    }

    fn drop_sessions(&mut self, why: &Failure) {
        for (_, mut slot) in std::mem::take(&mut self.sessions) {
            let _ = catch_unwind(AssertUnwindSafe(|| slot.break_off(why.clone())));
        }
        self.bound.clear();
        self.saved.clear();
    }

    /// Loads a model in place of the one that is there, whose states are saved first.
    ///
    /// # Errors
    /// `model` for a file that is not a model or is damaged; then there is no model.
    pub fn load(&mut self, source: &Source, threads: usize) -> Result<Info, Failure> {
        self.save_states(true);
        self.drop_sessions(&Failure::new("interrupted", "another model was loaded"));
        self.model = None;
        let builder = Model::builder().threads(threads);
        let (model, name) = match source {
            Source::Builtin => (builder.load_bytes(bitnet::TINY_MODEL)?, "tiny-stories".into()),
            Source::Path(path) => {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let loaded = loader::load(path, &bitnet::LoadOptions::default())?;
                // Layers without keys and values have no limit, and need none.
                let limited = loaded.weights.config.context_limit().is_some();
                let builder = if limited { builder.context(CONTEXT) } else { builder };
                (builder.build(loaded)?, name)
            }
        };
        // Inner losses are not reported here.
        let info = Info::of(&model, Facts { name: &name, place: "", inner_loss: false });
        self.model = Some((model, info.clone()));
        Ok(info)
    }

    fn model(&self) -> Result<&(Model, Info), Failure> {
        self.model.as_ref().ok_or_else(|| Failure::new("request", "no model is loaded"))
    }

    /// Facts about the model.
    ///
    /// # Errors
    /// `request` without one.
    pub fn info(&self) -> Result<Info, Failure> {
        Ok(self.model()?.1.clone())
    }

    fn add(&mut self, session: bitnet::Session) -> Result<String, Failure> {
        if self.sessions.len() >= MAX_SESSIONS {
            return Err(Failure::new("busy", format!("there are {MAX_SESSIONS} sessions; close some of them first")));
        }
        self.next += 1;
        let id = format!("d{}", self.next);
        self.sessions.insert(id.clone(), Slot::new(session));
        Ok(id)
    }

    fn slot(&mut self, id: &str) -> Result<&mut Slot, Failure> {
        let missing = || Failure::request("session", format!("there is no session {id}"));
        self.sessions.get_mut(id).ok_or_else(missing)
    }

    /// A new, empty session.
    ///
    /// # Errors
    /// `request` without a model, `busy` with too many sessions.
    pub fn open(&mut self) -> Result<String, Failure> {
        let session = self.model()?.0.session();
        self.add(session)
    }

    /// Begins a generation; its news, the last of them its end, go to `listener`.
    pub fn generate(&mut self, request: &GenerateRequest, listener: Listener) {
        let seed = RandomState::new().hash_one(self.next) >> 11;
        let begun = match self.slot(&request.session) {
            Ok(slot) => slot.begin(request, seed, CancelToken::new(), listener),
            Err(failure) => Err((failure, listener)),
        };
        if let Err((error, mut listener)) = begun {
            listener(News::Failed { error });
        }
    }

    /// Ends a generation soon. An unknown or ended one is not an error.
    pub fn cancel(&mut self, name: &str) {
        self.sessions.values().for_each(|slot| slot.cancel(name));
    }

    /// A session that continues independently.
    ///
    /// # Errors
    /// `request` for an unknown session, `busy` while it generates.
    pub fn fork(&mut self, id: &str) -> Result<String, Failure> {
        let session = self.slot(id)?.fork()?;
        self.add(session)
    }

    /// A session as bytes, and its tokens.
    ///
    /// # Errors
    /// `request` for an unknown session.
    pub fn save(&mut self, id: &str) -> Result<(Vec<u8>, usize), Failure> {
        let slot = self.slot(id)?;
        let bytes = slot.save()?;
        Ok((bytes, slot.memory().map_or(0, |point| point.tokens)))
    }

    /// A session from bytes of [`Worker::save`].
    ///
    /// # Errors
    /// `session` for bytes that are damaged or of another model.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<String, Failure> {
        let restored = self.model()?.0.restore_session(bytes);
        let session = restored.map_err(|e| Failure { code: "session", ..Failure::from(e) })?;
        self.add(session)
    }

    /// Frees a session. An unknown one is not an error.
    ///
    /// # Errors
    /// `busy` while it generates.
    pub fn close(&mut self, id: &str) -> Result<(), Failure> {
        if self.sessions.get(id).is_some_and(Slot::is_running) {
            return Err(Failure::new("busy", "a text is being generated in this session; cancel it first"));
        }
        self.sessions.remove(id);
        self.bound.retain(|binding| binding.session != id);
        Ok(())
    }

    /// Remembers the states of these sessions from now on, in place of those that were named before.
    ///
    /// # Errors
    /// `request` for ids that no page makes.
    pub fn bind(&mut self, bindings: Vec<Binding>) -> Result<(), Failure> {
        if let Some(bad) = bindings.iter().find(|b| !is_id(&b.conversation) || !is_id(&b.tip)) {
            return Err(Failure::request("states", format!("{bad:?} has ids that are not words")));
        }
        self.bound = bindings;
        self.save_states(false);
        Ok(())
    }

    /// Saves the states that have changed, if it is time for them.
    fn save_states(&mut self, at_once: bool) {
        let (Some(memory), Some((model, info))) = (self.memory.clone(), &self.model) else { return };
        let fingerprint = if self.bound.is_empty() { String::new() } else { fingerprint(model) };
        for binding in &self.bound {
            let Some(slot) = self.sessions.get_mut(&binding.session) else { continue };
            let Some(point) = slot.memory().filter(|point| point.tokens > 0) else { continue };
            let mark = (binding.session.clone(), binding.tip.clone(), point.tokens);
            let before = self.saved.get(&binding.conversation);
            if before.is_some_and(|(saved, _)| *saved == mark) {
                continue;
            }
            let since = before.map(|(_, at)| at.elapsed());
            if !at_once && !is_due(point.bytes(), slot.is_running(), since) {
                continue;
            }
            let about = About {
                conversation: binding.conversation.clone(),
                tip: binding.tip.clone(),
                tokens: point.tokens,
                model: info.name.clone(),
                fingerprint: fingerprint.clone(),
            };
            let written = slot.save().and_then(|bytes| Ok(memory.keep_state(&about, &bytes)?));
            // Also after a failure, so that it is not repeated at every turn.
            self.saved.insert(binding.conversation.clone(), (mark, Instant::now()));
            match written {
                Ok(()) => self.failed = None,
                Err(failure) => {
                    if self.failed.as_ref() != Some(&failure.message) {
                        self.failed = Some(failure.message.clone());
                        (self.trouble)(failure);
                    }
                }
            }
        }
    }

    /// The session of a conversation as it is remembered; nothing without a state that this model made.
    ///
    /// # Errors
    /// `session` for a state that cannot be used; it is set aside, and the text can be read again.
    pub fn recall(&mut self, conversation: &str) -> Result<Option<Recalled>, Failure> {
        let Some(memory) = self.memory.clone() else { return Ok(None) };
        let (model, _) = self.model()?;
        let unusable = |(path, damage): (PathBuf, crate::memory::Damage)| {
            let message = format!("the remembered state was not used: {damage}; it lies now at {}", path.display());
            Failure::new("session", message)
        };
        let (about, bytes) = match memory.state(conversation, &fingerprint(model)) {
            Found::Nothing => return Ok(None),
            Found::SetAside(path, damage) => return Err(unusable((path, damage))),
            Found::Good(found) => found,
        };
        let session = match model.restore_session(&bytes) {
            Ok(session) => session,
            Err(error) => return Err(unusable(memory.refuse_state(&about, error.to_string()))),
        };
        let tokens = session.len();
        let session = self.add(session)?;
        let mark = (session.clone(), about.tip.clone(), tokens);
        self.saved.insert(conversation.to_owned(), (mark, Instant::now()));
        Ok(Some(Recalled { session, tip: about.tip, tokens }))
    }

    /// Forgets the states of a conversation, or of all.
    ///
    /// # Errors
    /// `internal` if a file cannot be removed.
    pub fn forget(&mut self, conversation: Option<&str>) -> Result<(), Failure> {
        let forgotten = |id: &str| conversation.is_none_or(|one| one == id);
        self.bound.retain(|binding| !forgotten(&binding.conversation));
        self.saved.retain(|id, _| !forgotten(id));
        let Some(memory) = &self.memory else { return Ok(()) };
        match conversation {
            Some(one) => memory.forget(one)?,
            None => memory.forget_all()?,
        }
        Ok(())
    }
}

fn fingerprint(model: &Model) -> String {
    format!("{:016x}", model.engine().fingerprint())
}

/// Whether a changed state of `bytes` is to be written now: small ones soon, also while they grow; large ones, which keep a
/// disk busy for seconds, rarely and not while the model writes. `since` is the time since the last one.
fn is_due(bytes: usize, running: bool, since: Option<Duration>) -> bool {
    let passed = |seconds| since.is_none_or(|time| time >= Duration::from_secs(seconds));
    match (bytes >> 20, running) {
        (0..16, true) => passed(3),
        (16.., true) => false,
        (0..64, false) => true,
        (64.., false) => passed(30),
    }
}

#[cfg(test)]
mod tests;
