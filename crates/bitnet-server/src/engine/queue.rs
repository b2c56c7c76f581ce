//! What waits for the engine: a bounded queue between the connections and the one thread that computes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bitnet::{Embedding, FinishReason, Prepared, TokenLogprob};
use tokio::sync::{mpsc, oneshot};

/// Something to do for a request.
#[derive(Debug)]
pub(crate) enum Job {
    /// Texts to generate.
    Generate(Generate),
    /// Texts to make vectors of.
    Embed(Box<Embed>),
}

/// Texts to generate for one request.
#[derive(Debug)]
pub(crate) struct Generate {
    /// The texts that have not begun.
    pub(crate) choices: VecDeque<Choice>,
    /// Where the texts go. They are no longer wanted once nobody listens there.
    pub(crate) events: mpsc::UnboundedSender<Event>,
    /// When the request came.
    pub(crate) arrived: Instant,
}

/// One text to generate.
#[derive(Debug)]
pub(crate) struct Choice {
    /// Its number within the request.
    pub(crate) index: usize,
    /// The whole prompt.
    pub(crate) ids: Vec<u32>,
    /// Options, checked.
    pub(crate) prepared: Prepared,
}

/// Texts to make vectors of.
#[derive(Debug)]
pub(crate) struct Embed {
    /// The texts, and how far they are.
    pub(crate) embedding: Embedding,
    /// Where the vectors go. They are no longer wanted once nobody listens there.
    pub(crate) answer: oneshot::Sender<Result<Vec<Vec<f32>>, Failure>>,
}

/// News of the texts of a request.
#[derive(Debug)]
pub(crate) enum Event {
    /// More of a text.
    Piece {
        /// Which text.
        choice: usize,
        /// Whole characters, nothing that could be the beginning of a stop text; may be empty.
        text: String,
        /// How probable the token was, if asked for.
        logprob: Option<TokenLogprob>,
    },
    /// A text has ended.
    Done {
        /// Which text.
        choice: usize,
        /// Why.
        reason: FinishReason,
        /// What it took.
        usage: Usage,
    },
    /// There will be nothing more.
    Failed(Failure),
}

/// Tokens of one text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Of the prompt.
    pub(crate) prompt: usize,
    /// Of the prompt, that were known.
    pub(crate) cached: usize,
    /// Generated.
    pub(crate) generated: usize,
}

/// Why a request that was taken is not fulfilled.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The model says so.
    Model(bitnet::Error),
    /// The server ends.
    Closing,
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Too many wait already.
    Full,
    /// The server ends.
    Closing,
    /// The engine has failed.
    Dead,
}

impl Job {
    /// How many turns it needs.
    fn turns(&self) -> usize {
        match self {
            Job::Generate(g) => g.choices.len(),
            Job::Embed(_) => 1,
        }
    }

    /// Whether nobody waits for it.
    fn is_gone(&self) -> bool {
        match self {
            Job::Generate(g) => g.events.is_closed(),
            Job::Embed(e) => e.answer.is_closed(),
        }
    }
}

/// One text that has its turn.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) choice: Choice,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) arrived: Instant,
}

/// What the engine shall do next.
#[derive(Debug, Default)]
pub(crate) struct Next {
    /// Texts that begin.
    pub(crate) turns: Vec<Turn>,
    /// Vectors that are wanted.
    pub(crate) embeds: Vec<Embed>,
    /// The server ends, and this long is left for what has begun.
    pub(crate) closing: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    /// Turns that are taken.
    active: usize,
    closing: Option<Instant>,
    dead: bool,
}

impl State {
    fn turns(&self) -> usize {
        self.waiting.iter().map(Job::turns).sum()
    }
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    news: Condvar,
    /// Turns that may be taken or wait.
    capacity: usize,
}

impl Queue {
    /// For `max_sessions` texts at once and `queue` that wait.
    pub(crate) fn new(max_sessions: usize, queue: usize) -> Self {
        Self { state: Mutex::default(), news: Condvar::new(), capacity: max_sessions.saturating_add(queue) }
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a job at the end.
    pub(crate) fn push(&self, job: Job) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.dead {
            return Err(Refused::Dead);
        }
        if state.closing.is_some() {
            return Err(Refused::Closing);
        }
        let fits = |state: &State| state.active + state.turns() + job.turns() <= self.capacity;
        if !fits(&state) {
            // Those whose clients are gone make room.
            state.waiting.retain(|j| !j.is_gone());
            if !fits(&state) {
                return Err(Refused::Full);
            }
        }
        state.waiting.push_back(job);
        drop(state);
        self.news.notify_one();
        Ok(())
    }

    /// Takes what has its turn while `free` more texts can be generated. With `wait` it waits until there is something, or until the
    /// server ends.
    pub(crate) fn next(&self, free: usize, wait: bool) -> Next {
        let mut state = self.lock();
        while wait && state.waiting.is_empty() && state.closing.is_none() {
            state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut next = Next { closing: state.closing, ..Next::default() };
        while let Some(mut job) = state.waiting.pop_front() {
            if job.is_gone() {
                continue;
            }
            match &mut job {
                Job::Generate(generate) => {
                    while next.turns.len() < free
                        && let Some(choice) = generate.choices.pop_front()
                    {
                        let (events, arrived) = (generate.events.clone(), generate.arrived);
                        next.turns.push(Turn { choice, events, arrived });
                    }
                    if !generate.choices.is_empty() {
                        // In the order in which they came: nobody passes this one.
                        state.waiting.push_front(job);
                        break;
                    }
                }
                Job::Embed(_) => {
                    if let Job::Embed(embed) = job {
                        next.embeds.push(*embed);
                    }
                }
            }
        }
        state.active += next.turns.len() + next.embeds.len();
        next
    }

    /// So many turns have ended.
    pub(crate) fn ended(&self, turns: usize) {
        let mut state = self.lock();
        state.active = state.active.saturating_sub(turns);
    }

    /// Nothing more is taken, and what has been may go on until `deadline`.
    pub(crate) fn close(&self, deadline: Instant) {
        let mut state = self.lock();
        state.closing = Some(state.closing.map_or(deadline, |d| d.min(deadline)));
        drop(state);
        self.news.notify_all();
    }

    /// The engine has failed: whoever waits hears no more.
    pub(crate) fn die(&self) {
        let mut state = self.lock();
        state.dead = true;
        state.waiting.clear();
    }

    /// Takes everything that waits.
    pub(crate) fn drain(&self) -> VecDeque<Job> {
        std::mem::take(&mut self.lock().waiting)
    }

    /// Texts that have their turn, and texts that wait.
    pub(crate) fn lengths(&self) -> (usize, usize) {
        let state = self.lock();
        (state.active, state.turns())
    }

    /// Whether requests are taken; otherwise why not.
    pub(crate) fn state(&self) -> Result<(), Refused> {
        let state = self.lock();
        match (state.dead, state.closing) {
            (true, _) => Err(Refused::Dead),
            (_, Some(_)) => Err(Refused::Closing),
            _ => Ok(()),
        }
    }
}
