//! The only computing thread: it owns the batch of all texts, steps it, and sends new tokens to each request.

mod cache;
mod embeds;
mod losses;
mod queue;
mod scores;
mod turns;

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use bitnet::{Batch, Model, SequenceId, Session, Stats};
use tokio::sync::mpsc::UnboundedSender;

use crate::budget::{Budget, Share};
use crate::metrics::Metrics;
use cache::Cache;
use embeds::Embeds;
pub(crate) use losses::{LossPoint, Losses};
pub(crate) use queue::{Choice, Embed, End, Event, Failure, Generate, Job, Progress, Queue, Refused, Usage};
use queue::{Room, Seat};
pub(crate) use scores::{HEAD_COST, Scores};
pub(crate) use turns::Turns;

/// Tokens of texts to make vectors of that pass at once while nothing is generated.
const EMBED_STEP: usize = 256;
/// New tokens between two reports of a text whose progress is requested.
const REPORT_TOKENS: usize = 16;

/// A text that is only read, in pieces between the tokens of other texts.
pub(crate) trait Reading: std::fmt::Debug + Send {
    /// Tokens that are to be read.
    fn tokens_left(&self) -> usize;

    /// Whether the client is gone.
    fn is_gone(&self) -> bool;

    /// Reads about `tokens` tokens; whether the answer was sent.
    fn step(&mut self, tokens: usize) -> bool;

    /// Ends it without a result.
    fn fail(&mut self, failure: Failure);
}

/// A running engine.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) queue: Arc<Queue>,
    /// Whether the thread has ended well, once it has.
    ended: Arc<(Mutex<Option<bool>>, Condvar)>,
}

impl Engine {
    /// Starts the thread.
    pub(crate) fn start(
        model: Model,
        sizes: Sizes,
        constraint_bytes: Arc<Budget>,
        metrics: Arc<Metrics>,
        turns: Option<Arc<Turns>>,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::new(sizes.max_sessions.saturating_add(sizes.short_sessions), sizes.queue));
        let mut worker = Worker {
            batch: Batch::new(&model),
            cache: Cache::new(sizes.cache_bytes),
            queue: queue.clone(),
            running: HashMap::new(),
            embeds: Embeds::default(),
            readings: VecDeque::new(),
            sizes,
            constraint_bytes,
            metrics,
            turns,
            model,
        };
        let ended = Arc::new((Mutex::new(None), Condvar::new()));
        let tells = ended.clone();
        let run = move || {
            let well = catch_unwind(AssertUnwindSafe(|| worker.run())).is_ok();
            if !well {
                tracing::error!("engine thread panicked; all requests will fail with 503");
                worker.queue.fail();
            }
            // Dropping the worker drops the senders of all events, so no client waits in vain.
            drop(worker);
            *tells.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(well);
            tells.1.notify_all();
        };
        std::thread::Builder::new().name("bitnet-engine".into()).spawn(run)?;
        Ok(Self { queue, ended })
    }

    /// Waits for the thread after [`Queue::close`]; whether it ended well, or `None` if it has not by `deadline`.
    pub(crate) fn join(&self, deadline: Instant) -> Option<bool> {
        let (ended, news) = &*self.ended;
        let ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        let (ended, _) = news.wait_timeout_while(ended, left, |e| e.is_none()).unwrap_or_else(PoisonError::into_inner);
        *ended
    }
}

impl Drop for Engine {
    /// Closes the queue; the thread then ends by itself.
    fn drop(&mut self) {
        self.queue.close(Instant::now());
    }
}

/// Limits of simultaneous work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) max_sessions: usize,
    /// Additional places for short texts.
    pub(crate) short_sessions: usize,
    pub(crate) queue: usize,
    pub(crate) cache_bytes: usize,
}

/// A text under way.
#[derive(Debug)]
struct Running {
    choice: usize,
    seat: Seat,
    /// Whether the prompt is a long one.
    long: bool,
    events: UnboundedSender<Event>,
    arrived: Instant,
    /// When its last token came.
    last: Option<Instant>,
    prompt: usize,
    cached: usize,
    /// Memory of its constraint.
    memory: Share,
    failed: bool,
    /// Tokens so far, without the prompt.
    generated: usize,
    /// Tokens of the session when its progress was last reported; `None` if it is not requested.
    reported: Option<usize>,
}

impl Running {
    /// How far it is.
    fn progress(&self, session: &Session, stats: Option<Stats>) -> Progress {
        Progress {
            tokens: session.len(),
            prompt: self.prompt,
            cached: self.cached,
            generated: self.generated,
            kv_bytes: session.state().kv_bytes(),
            constant_bytes: session.state().constant_bytes(),
            stats,
        }
    }
}

#[derive(Debug)]
struct Worker {
    model: Model,
    batch: Batch,
    cache: Cache,
    queue: Arc<Queue>,
    running: HashMap<SequenceId, Running>,
    embeds: Embeds,
    /// Texts that are only read, in the order in which they came.
    readings: VecDeque<Box<dyn Reading>>,
    sizes: Sizes,
    constraint_bytes: Arc<Budget>,
    metrics: Arc<Metrics>,
    /// The turns of the engines of several models.
    turns: Option<Arc<Turns>>,
}

impl Worker {
    /// Works until the server ends.
    fn run(&mut self) {
        loop {
            let idle = self.running.is_empty() && self.embeds.is_empty() && self.readings.is_empty();
            let next = self.queue.next(self.room(), idle);
            let nothing_new = next.turns.is_empty() && next.embeds.is_empty() && next.readings.is_empty();
            for turn in next.turns {
                self.begin(turn);
            }
            self.embeds.extend(next.embeds);
            self.readings.extend(next.readings);
            match next.closing {
                Some(deadline) if deadline <= Instant::now() => return self.break_off(),
                Some(_) if idle && nothing_new => return,
                _ => {}
            }
            self.drop_disconnected();
            let turns = self.turns.clone();
            let turn = turns.as_ref().map(|turns| turns.take());
            self.embed();
            self.read();
            self.step();
            drop(turn);
            self.report();
            self.weigh();
        }
    }

    /// Room for more texts.
    fn room(&self) -> Room {
        let short_taken = self.running.values().filter(|r| r.seat == Seat::Short).count();
        // At most half of the places read at once: the others wait where they block nothing else.
        let read = self.running.values().filter(|r| r.long && r.last.is_none()).count();
        Room {
            places: self.sizes.max_sessions.saturating_sub(self.running.len() - short_taken),
            long: self.sizes.max_sessions.div_ceil(2).saturating_sub(read),
            short: self.sizes.short_sessions,
            short_taken,
        }
    }

    /// Lets a text join the batch.
    fn begin(&mut self, turn: queue::QueuedChoice) {
        let queue::QueuedChoice { seat, choice, events, arrived } = turn;
        let long = choice.is_long();
        let (session, known) = self.cache.session_for(&self.model, &choice.ids);
        match self.batch.join_prepared(session, choice.ids.get(known..).unwrap_or_default(), choice.prepared) {
            Ok(id) => {
                let memory = choice.memory;
                self.metrics.queued.record(arrived.elapsed());
                self.metrics.prompt_tokens.fetch_add(choice.ids.len() as u64, Relaxed);
                self.metrics.cached_tokens.fetch_add(known as u64, Relaxed);
                let reported = choice.watched.then_some(known);
                let (prompt, choice) = (choice.ids.len(), choice.index);
                let running = Running {
                    choice,
                    seat,
                    long,
                    events,
                    arrived,
                    last: None,
                    prompt,
                    cached: known,
                    memory,
                    failed: false,
                    generated: 0,
                    reported,
                };
                self.running.insert(id, running);
            }
            Err(error) => {
                // The client may be gone.
                let _ = events.send(Event::Failed(Failure::Model(error)));
                self.queue.ended(1);
            }
        }
    }

    /// Removes sequences whose client is gone.
    fn drop_disconnected(&mut self) {
        let gone: Vec<SequenceId> =
            self.running.iter().filter(|(_, r)| r.events.is_closed()).map(|(t, _)| *t).collect();
        for id in gone {
            let failed = self.running.remove(&id).is_some_and(|r| r.failed);
            if let Some((session, _)) = self.batch.leave(id)
                && !failed
            {
                self.cache.keep(session);
            }
            self.metrics.cancelled.fetch_add(1, Relaxed);
            self.queue.ended(1);
        }
        let before = self.readings.len();
        self.readings.retain(|reading| !reading.is_gone());
        let gone = self.embeds.drop_gone() + before - self.readings.len();
        self.metrics.cancelled.fetch_add(gone as u64, Relaxed);
        self.queue.ended(gone);
    }

    /// The next token of every text.
    fn step(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let chunks = self.batch.step();
        self.metrics.steps.fetch_add(1, Relaxed);
        let now = Instant::now();
        for (id, chunk) in chunks {
            let Some(running) = self.running.get_mut(&id) else { continue };
            let event = match chunk {
                Ok(chunk) => {
                    if chunk.token.is_some() {
                        running.generated += 1;
                        self.metrics.generated_tokens.fetch_add(1, Relaxed);
                        match running.last.replace(now) {
                            None => self.metrics.first_token.record(now - running.arrived),
                            Some(last) => self.metrics.next_token.record(now - last),
                        }
                    }
                    // The token that ends a text is not part of it.
                    let logprob = chunk.logprob.filter(|l| !self.model.is_eos(l.token));
                    if chunk.text.is_empty() && logprob.is_none() {
                        continue;
                    }
                    Event::Piece { choice: running.choice, text: chunk.text, logprob }
                }
                Err(error) if is_cut_off(&error) => continue,
                Err(error) => {
                    running.failed = true;
                    Event::Failed(Failure::Model(error))
                }
            };
            // Requests without a receiver are removed before the next step.
            let _ = running.events.send(event);
        }
        for (id, session, output) in self.batch.take_finished() {
            let Some(running) = self.running.remove(&id) else { continue };
            self.queue.ended(1);
            if !running.failed {
                if running.reported.is_some() {
                    let progress = running.progress(&session, Some(output.stats));
                    let _ = running.events.send(Event::Progress { choice: running.choice, progress });
                }
                self.cache.keep(session);
                let usage = Usage { prompt: running.prompt, cached: running.cached, generated: output.ids.len() };
                let end = End { reason: output.finish_reason, usage, stats: output.stats, ids: output.ids };
                let _ = running.events.send(Event::Done { choice: running.choice, end });
            }
        }
    }

    /// Reports how far the texts are whose progress is requested: at each part of a prompt, then every few tokens.
    fn report(&mut self) {
        for (id, running) in &mut self.running {
            let Some(reported) = running.reported else { continue };
            let Some(session) = self.batch.session(*id) else { continue };
            let every = if running.last.is_none() { 1 } else { REPORT_TOKENS };
            if session.len() >= reported + every {
                running.reported = Some(session.len());
                let progress = running.progress(session, None);
                // Requests without a receiver are removed before the next step.
                let _ = running.events.send(Event::Progress { choice: running.choice, progress });
            }
        }
    }

    /// Reads the next part of a text that is only read.
    fn read(&mut self) {
        let Some(reading) = self.readings.front_mut() else { return };
        // A piece delays the next tokens of all texts.
        let tokens = if self.running.is_empty() { EMBED_STEP } else { Batch::PROMPT_STEP };
        let before = reading.tokens_left();
        let ended = reading.step(tokens);
        let read = before - reading.tokens_left();
        self.metrics.embedded_tokens.fetch_add(read as u64, Relaxed);
        if ended {
            self.readings.pop_front();
            self.queue.ended(1);
        }
    }

    /// Automata grow with their texts. Where all of them are too large, the text with the largest ends.
    fn weigh(&mut self) {
        for (id, running) in self.running.iter_mut().filter(|(_, r)| r.memory.bytes() > 0) {
            running.memory.set(self.batch.constraint_bytes(*id));
        }
        if self.constraint_bytes.fits() {
            return;
        }
        let largest = self.running.iter().max_by_key(|(id, r)| (r.memory.bytes(), **id)).map(|(t, _)| *t);
        if let Some(id) = largest
            && let Some(running) = self.running.remove(&id)
        {
            self.batch.leave(id);
            // The client may be gone.
            let _ = running.events.send(Event::Failed(Failure::Memory));
            self.queue.ended(1);
        }
    }

    /// Reads the next part of a text for a vector.
    fn embed(&mut self) {
        let Some(mut embed) = self.embeds.next() else { return };
        // A piece delays the next tokens of all texts.
        let tokens = if self.running.is_empty() { EMBED_STEP } else { Batch::PROMPT_STEP };
        let before = embed.embedding.tokens_left();
        let step = embed.embedding.step(tokens);
        let read = before - embed.embedding.tokens_left();
        self.metrics.embedded_tokens.fetch_add(read as u64, Relaxed);
        let vectors = match step {
            Ok(()) if !embed.embedding.is_finished() => return self.embeds.put_back(embed),
            Ok(()) => Ok(embed.embedding.finish()),
            Err(error) => Err(Failure::Model(error)),
        };
        self.queue.ended(1);
        // The client may be gone.
        let _ = embed.answer.send(vectors);
    }

    /// Tells everybody that there will be nothing more.
    fn break_off(&mut self) {
        let ended = self.running.len() + self.embeds.len() + self.readings.len();
        for (id, running) in self.running.drain() {
            self.batch.leave(id);
            let _ = running.events.send(Event::Failed(Failure::Closing));
        }
        for embed in self.embeds.drain() {
            let _ = embed.answer.send(Err(Failure::Closing));
        }
        self.readings.drain(..).for_each(|mut reading| reading.fail(Failure::Closing));
        for job in self.queue.drain() {
            match job {
                Job::Generate(generate) => drop(generate.events.send(Event::Failed(Failure::Closing))),
                Job::Embed(embed) => drop(embed.answer.send(Err(Failure::Closing))),
                Job::Read(mut reading) => reading.fail(Failure::Closing),
            }
        }
        self.queue.ended(ended);
    }
}

/// Whether a constrained text was cut off. Clients of this interface see that in `finish_reason`.
#[cfg(feature = "constrain")]
fn is_cut_off(error: &bitnet::Error) -> bool {
    matches!(error, bitnet::Error::Constraint(bitnet::ConstraintError::Unfinished { .. }))
}

#[cfg(not(feature = "constrain"))]
fn is_cut_off(_: &bitnet::Error) -> bool {
    false
}
