//! The queue of the engine: bounded, between the connections and the one thread that computes.
//!
//! Requests have their turn in the order in which they came, with two exceptions that keep a plain request from waiting
//! for heavy ones: of long prompts only half of the places may be read at a time, so that others pass those that wait;
//! and short texts have a few separate places.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bitnet::{Embedding, FinishReason, Prepared, Stats, TokenLogprob};
use tokio::sync::{mpsc, oneshot};

use super::Reading;
use crate::budget::Share;

/// A prompt of more tokens is a long one.
pub(super) const LONG_PROMPT: usize = 512;
/// Most tokens, prompt and answer together, of a short text.
const SHORT_TEXT: usize = 1024;
/// The share of the queue that is for single short texts.
const SHORT_QUEUE_DIVISOR: usize = 4;

/// Something to do for a request.
#[derive(Debug)]
pub(crate) enum Job {
    /// Texts to generate.
    Generate(Generate),
    /// Texts to make vectors of.
    Embed(Box<Embed>),
    /// A text that is only read.
    Read(Box<dyn Reading>),
}

/// Texts to generate for one request.
#[derive(Debug)]
pub(crate) struct Generate {
    /// The texts that have not begun.
    pub(crate) choices: VecDeque<Choice>,
    /// The receiver of the texts. The job is cancelled when it is closed.
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
    /// Most new tokens.
    pub(crate) max_tokens: usize,
    /// Options, checked.
    pub(crate) prepared: Prepared,
    /// Memory of their constraint.
    pub(crate) memory: Share,
    /// Whether its progress is reported.
    pub(crate) watched: bool,
}

/// Texts to make vectors of.
#[derive(Debug)]
pub(crate) struct Embed {
    /// The texts, and how far they are.
    pub(crate) embedding: Embedding,
    /// The receiver of the vectors. The job is cancelled when it is closed.
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
        /// The probability of the token, if requested.
        logprob: Option<TokenLogprob>,
    },
    /// A text has ended.
    Done {
        /// Which text.
        choice: usize,
        /// How.
        end: End,
    },
    /// How far a text is, if requested.
    Progress {
        /// Which text.
        choice: usize,
        /// How far it is.
        progress: Progress,
    },
    /// There will be nothing more.
    Failed(Failure),
}

/// How far a text is, and the memory of its session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Progress {
    /// Tokens that the session has read.
    pub(crate) tokens: usize,
    /// Tokens of the prompt, and how many of them were cached.
    pub(crate) prompt: usize,
    pub(crate) cached: usize,
    pub(crate) generated: usize,
    /// Bytes of keys and values.
    pub(crate) kv_bytes: usize,
    /// Bytes of states of constant size.
    pub(crate) constant_bytes: usize,
    /// Times, once the text has ended.
    pub(crate) stats: Option<Stats>,
}

/// Tokens of one text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) prompt: usize,
    /// Tokens of the prompt that were cached.
    pub(crate) cached: usize,
    pub(crate) generated: usize,
}

/// How a text ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// Why.
    pub(crate) reason: FinishReason,
    /// Its cost in tokens.
    pub(crate) usage: Usage,
    /// Its cost in time.
    pub(crate) stats: Stats,
    /// The new tokens, the one that ended the text included.
    pub(crate) ids: Vec<u32>,
}

/// Why a request that was taken is not fulfilled.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error of the model.
    Model(bitnet::Error),
    /// The constraints of all texts take too much memory, and that of this one most.
    Memory,
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
    /// The number of turns that it needs.
    fn turns(&self) -> usize {
        match self {
            Job::Generate(g) => g.choices.len(),
            Job::Embed(_) | Job::Read(_) => 1,
        }
    }

    /// Whether it is one short text.
    fn is_short(&self) -> bool {
        match self {
            Job::Generate(g) => g.choices.len() == 1 && g.choices.iter().all(|c| c.tokens() <= SHORT_TEXT),
            Job::Embed(e) => e.embedding.tokens_left() <= SHORT_TEXT,
            Job::Read(r) => r.tokens_left() <= SHORT_TEXT,
        }
    }

    /// Whether its client is gone.
    fn is_gone(&self) -> bool {
        match self {
            Job::Generate(g) => g.events.is_closed(),
            Job::Embed(e) => e.answer.is_closed(),
            Job::Read(r) => r.is_gone(),
        }
    }
}

impl Choice {
    /// Tokens that it may have at the end.
    fn tokens(&self) -> usize {
        self.ids.len().saturating_add(self.max_tokens)
    }
    /// Whether its prompt is a long one.
    pub(super) fn is_long(&self) -> bool {
        self.ids.len() > LONG_PROMPT
    }
}

/// The amount of work that the engine can begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// Free places for any text.
    pub(crate) places: usize,
    /// Long prompts that may be begun.
    pub(crate) long: usize,
    /// Places for short texts, and how many of them are taken.
    pub(crate) short: usize,
    pub(crate) short_taken: usize,
}

/// The kind of place that a text has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// One for any text.
    Any,
    /// One for short texts.
    Short,
}

impl Room {
    /// Takes a place for a text, if there is one.
    fn take(&mut self, choice: &Choice) -> Option<Seat> {
        if self.places > 0 && (!choice.is_long() || self.long > 0) {
            self.places -= 1;
            self.long -= usize::from(choice.is_long());
            return Some(Seat::Any);
        }
        // Each place takes texts of half the tokens of the one before it: the shortest ones do not wait for shorter
        // ones.
        let fitting = (0..self.short).take_while(|place| choice.tokens() <= SHORT_TEXT >> (*place).min(3)).count();
        (self.short_taken < fitting).then(|| {
            self.short_taken += 1;
            Seat::Short
        })
    }
}

/// One text that has its turn.
#[derive(Debug)]
pub(crate) struct QueuedChoice {
    pub(crate) seat: Seat,
    pub(crate) choice: Choice,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) arrived: Instant,
}

/// The engine's next task.
#[derive(Debug, Default)]
pub(crate) struct Next {
    /// Texts that begin.
    pub(crate) turns: Vec<QueuedChoice>,
    /// Requested vectors.
    pub(crate) embeds: Vec<Embed>,
    /// Texts that are only read.
    pub(crate) readings: Vec<Box<dyn Reading>>,
    /// The server ends, with this deadline for running texts.
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
    changed: Condvar,
    /// Turns that may be taken or wait.
    capacity: usize,
    /// Turns reserved for single short texts, a part of `capacity`.
    kept: usize,
}

impl Queue {
    /// For `sessions` texts at once and `queue` that wait.
    pub(crate) fn new(sessions: usize, queue: usize) -> Self {
        let capacity = sessions.saturating_add(queue);
        Self { state: Mutex::default(), changed: Condvar::new(), capacity, kept: queue / SHORT_QUEUE_DIVISOR }
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
        let capacity = self.capacity - if job.is_short() { 0 } else { self.kept };
        let fits = |state: &State| state.active + state.turns() + job.turns() <= capacity;
        if !fits(&state) {
            // Jobs whose clients are gone make room.
            state.waiting.retain(|j| !j.is_gone());
            if !fits(&state) {
                return Err(Refused::Full);
            }
        }
        state.waiting.push_back(job);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes the next job that fits into `room`. With `wait` it waits until there is one, or until the server ends.
    pub(crate) fn next(&self, mut room: Room, wait: bool) -> Next {
        let mut state = self.lock();
        while wait && state.waiting.is_empty() && state.closing.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut next = Next { closing: state.closing, ..Next::default() };
        let waiting = std::mem::take(&mut state.waiting);
        for mut job in waiting.into_iter().filter(|job| !job.is_gone()) {
            match job {
                Job::Generate(ref mut generate) => {
                    while let Some(seat) = generate.choices.front().and_then(|choice| room.take(choice))
                        && let Some(choice) = generate.choices.pop_front()
                    {
                        let (events, arrived) = (generate.events.clone(), generate.arrived);
                        next.turns.push(QueuedChoice { seat, choice, events, arrived });
                    }
                    if !generate.choices.is_empty() {
                        state.waiting.push_back(job);
                    }
                }
                Job::Embed(embed) => next.embeds.push(*embed),
                Job::Read(reading) => next.readings.push(reading),
            }
        }
        state.active += next.turns.len() + next.embeds.len() + next.readings.len();
        next
    }

    /// Notes that this many turns have ended.
    pub(crate) fn ended(&self, turns: usize) {
        let mut state = self.lock();
        state.active = state.active.saturating_sub(turns);
    }

    /// Accepts nothing more; running jobs may continue until `deadline`.
    pub(crate) fn close(&self, deadline: Instant) {
        let mut state = self.lock();
        state.closing = Some(state.closing.map_or(deadline, |d| d.min(deadline)));
        drop(state);
        self.changed.notify_all();
    }

    /// The engine has failed: drops all waiting jobs, which closes their channels.
    pub(crate) fn fail(&self) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use bitnet::{EmbedOptions, GenerateOptions, Model};

    /// A request for texts of so many tokens of prompt and answer; its client stays.
    fn job(model: &Model, texts: &[(usize, usize)]) -> Job {
        let (events, news) = mpsc::unbounded_channel();
        std::mem::forget(news);
        let choice = |(index, (prompt, max_tokens)): (usize, &(usize, usize))| {
            let prepared = Prepared::new(model, GenerateOptions::default().max_tokens(*max_tokens)).unwrap();
            let memory = Budget::new(0).share();
            Choice { index, ids: vec![5; *prompt], max_tokens: *max_tokens, prepared, memory, watched: false }
        };
        Job::Generate(Generate {
            choices: texts.iter().enumerate().map(choice).collect(),
            events,
            arrived: Instant::now(),
        })
    }

    fn begun(next: &Next) -> Vec<(usize, Seat)> {
        next.turns.iter().map(|turn| (turn.choice.ids.len(), turn.seat)).collect()
    }

    #[test]
    fn long_prompts_let_others_pass_and_keep_their_order() {
        let model = Model::tiny().unwrap();
        let queue = Queue::new(8, 64);
        for prompt in [8000, 8001, 8002, 20, 8003, 30] {
            queue.push(job(&model, &[(prompt, 5000)])).unwrap();
        }
        let room = Room { places: 4, long: 2, ..Room::default() };
        let first = begun(&queue.next(room, false));
        assert_eq!(first, [8000, 8001, 20, 30].map(|prompt| (prompt, Seat::Any)));
        // One of them was read.
        assert_eq!(begun(&queue.next(Room { places: 3, long: 1, ..Room::default() }, false)), [(8002, Seat::Any)]);
        assert_eq!(queue.lengths(), (5, 1));
        // A prompt of 512 tokens is not long, one of 513 is.
        queue.push(job(&model, &[(LONG_PROMPT, 5000), (LONG_PROMPT + 1, 5000)])).unwrap();
        assert_eq!(begun(&queue.next(Room { places: 9, ..Room::default() }, false)), [(LONG_PROMPT, Seat::Any)]);
    }

    #[test]
    fn short_texts_have_places_that_longer_ones_cannot_take() {
        let model = Model::tiny().unwrap();
        let queue = Queue::new(8, 64);
        let room = Room { short: 4, ..Room::default() };
        for text in [(5, 2000), (500, 524), (500, 500), (200, 200), (8, 4), (100, 28), (5, 4)] {
            queue.push(job(&model, &[text])).unwrap();
        }
        // The first is too long for all; of the next two one; then shorter and shorter ones.
        let taken = begun(&queue.next(room, false));
        assert_eq!(taken, [500, 200, 8, 100].map(|prompt| (prompt, Seat::Short)));
        assert!(begun(&queue.next(Room { short_taken: 4, ..room }, false)).is_empty());
        assert_eq!(begun(&queue.next(Room { short_taken: 3, ..room }, false)), [(5, Seat::Short)]);
        assert_eq!(begun(&queue.next(Room { places: 1, ..room }, false)), [(5, Seat::Any), (500, Seat::Short)]);
        // Jobs that are longer than every such place.
        queue.push(job(&model, &[(500, 525)])).unwrap();
        assert!(begun(&queue.next(room, false)).is_empty());
    }

    #[test]
    fn a_part_of_the_queue_is_kept_for_short_texts() {
        let model = Model::tiny().unwrap();
        let queue = Queue::new(1, 8);
        for _ in 0..7 {
            queue.push(job(&model, &[(5, 5000)])).unwrap();
        }
        assert_eq!(queue.push(job(&model, &[(5, 5000)])), Err(Refused::Full));
        assert_eq!(queue.push(job(&model, &[(5, 5), (5, 5)])), Err(Refused::Full));
        let embed = |tokens: usize| {
            let (answer, kept) = oneshot::channel();
            std::mem::forget(kept);
            let embedding = model.embedding(vec![vec![5; tokens]], EmbedOptions::default()).unwrap();
            Job::Embed(Box::new(Embed { embedding, answer }))
        };
        assert_eq!(queue.push(embed(SHORT_TEXT + 1)), Err(Refused::Full));
        queue.push(embed(SHORT_TEXT)).unwrap();
        queue.push(job(&model, &[(5, 5)])).unwrap();
        assert_eq!(queue.push(job(&model, &[(5, 5)])), Err(Refused::Full));
        // Turns that have begun count, too, until they have ended.
        let next = queue.next(Room { places: 1, long: 1, ..Room::default() }, false);
        assert_eq!((next.turns.len(), next.embeds.len(), queue.lengths()), (1, 1, (2, 7)));
        assert_eq!(queue.push(job(&model, &[(5, 5)])), Err(Refused::Full));
        queue.ended(1);
        queue.push(job(&model, &[(5, 5)])).unwrap();
    }

    #[test]
    fn those_whose_clients_are_gone_make_room_and_have_no_turn() {
        let model = Model::tiny().unwrap();
        let queue = Queue::new(0, 1);
        let gone = || {
            let (events, _) = mpsc::unbounded_channel();
            let Job::Generate(rest) = job(&model, &[(5, 5)]) else { unreachable!("it is one") };
            Job::Generate(Generate { events, ..rest })
        };
        queue.push(gone()).unwrap();
        queue.push(gone()).unwrap();
        assert_eq!(queue.lengths(), (0, 1));
        assert!(queue.next(Room { places: 1, ..Room::default() }, false).turns.is_empty());
        assert_eq!(queue.lengths(), (0, 0));
    }

    #[test]
    fn an_end_refuses_what_comes_and_tells_how_long_is_left() {
        let model = Model::tiny().unwrap();
        let queue = Queue::new(1, 1);
        let (soon, late) = (Instant::now(), Instant::now() + std::time::Duration::from_secs(5));
        queue.push(job(&model, &[(5, 5)])).unwrap();
        queue.close(soon);
        queue.close(late);
        assert_eq!(queue.push(job(&model, &[(5, 5)])), Err(Refused::Closing));
        assert_eq!(queue.state(), Err(Refused::Closing));
        assert_eq!(queue.next(Room::default(), true).closing, Some(soon), "the earlier one counts");
        assert_eq!(queue.drain().len(), 1);
        queue.fail();
        assert_eq!((queue.push(job(&model, &[(5, 5)])), queue.state()), (Err(Refused::Dead), Err(Refused::Dead)));
    }
}
