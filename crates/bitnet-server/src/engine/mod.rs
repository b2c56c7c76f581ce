//! The one thread that computes: it owns the batch of all texts, steps it, and sends to each request what is new.

mod cache;
mod queue;

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use bitnet::{Batch, EmbedOptions, Model, Ticket};
use tokio::sync::mpsc::UnboundedSender;

use crate::metrics::Metrics;
use cache::Cache;
pub(crate) use queue::{Choice, Embed, Event, Failure, Generate, Job, Queue, Refused, Usage};

/// Tokens of texts to make vectors of that pass at once: other texts wait for that long between two of their tokens.
const EMBED_STEP: usize = 256;

/// A running engine.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<bool>>>,
}

impl Engine {
    /// Starts the thread.
    pub(crate) fn start(model: Model, sizes: Sizes, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::new(sizes.max_sessions, sizes.queue));
        let mut worker = Worker {
            batch: Batch::new(&model),
            cache: Cache::new(sizes.cache_bytes),
            queue: queue.clone(),
            running: HashMap::new(),
            embeds: VecDeque::new(),
            max_sessions: sizes.max_sessions,
            metrics,
            model,
        };
        let run = move || {
            let ended = catch_unwind(AssertUnwindSafe(|| worker.run())).is_ok();
            if !ended {
                tracing::error!("the thread that computes has panicked; the server can only say so from now on");
                worker.queue.die();
            }
            // With the worker go the senders of all events, so nobody waits in vain.
            ended
        };
        let thread = std::thread::Builder::new().name("bitnet-engine".into()).spawn(run)?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Waits for the thread after [`Queue::close`]; whether it ended well.
    pub(crate) fn join(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.is_none_or(|t| t.join().unwrap_or(false))
    }
}

impl Drop for Engine {
    /// Nobody can ask any more; the thread ends by itself.
    fn drop(&mut self) {
        self.queue.close(Instant::now());
    }
}

/// How much at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) max_sessions: usize,
    pub(crate) queue: usize,
    pub(crate) cache_bytes: usize,
}

/// A text under way.
#[derive(Debug)]
struct Running {
    choice: usize,
    events: UnboundedSender<Event>,
    arrived: Instant,
    /// When its last token came.
    last: Option<Instant>,
    prompt: usize,
    cached: usize,
    failed: bool,
}

#[derive(Debug)]
struct Worker {
    model: Model,
    batch: Batch,
    cache: Cache,
    queue: Arc<Queue>,
    running: HashMap<Ticket, Running>,
    embeds: VecDeque<Embed>,
    max_sessions: usize,
    metrics: Arc<Metrics>,
}

impl Worker {
    /// Works until the server ends.
    fn run(&mut self) {
        loop {
            let idle = self.running.is_empty() && self.embeds.is_empty();
            let next = self.queue.next(self.max_sessions.saturating_sub(self.running.len()), idle);
            let nothing_new = next.turns.is_empty() && next.embeds.is_empty();
            for turn in next.turns {
                self.begin(turn);
            }
            self.embeds.extend(next.embeds);
            match next.closing {
                Some(deadline) if deadline <= Instant::now() => return self.break_off(),
                Some(_) if idle && nothing_new => return,
                _ => {}
            }
            self.leave_those_gone();
            self.embed();
            self.step();
        }
    }

    /// Lets a text join the batch.
    fn begin(&mut self, turn: queue::Turn) {
        let queue::Turn { choice, events, arrived } = turn;
        let (session, known) = self.cache.session_for(&self.model, &choice.ids);
        match self.batch.join_prepared(session, choice.ids.get(known..).unwrap_or_default(), choice.prepared) {
            Ok(ticket) => {
                self.metrics.queued.record(arrived.elapsed());
                self.metrics.prompt_tokens.fetch_add(choice.ids.len() as u64, Relaxed);
                self.metrics.cached_tokens.fetch_add(known as u64, Relaxed);
                let (prompt, choice) = (choice.ids.len(), choice.index);
                let running = Running { choice, events, arrived, last: None, prompt, cached: known, failed: false };
                self.running.insert(ticket, running);
            }
            Err(error) => {
                // A client that is gone need not know.
                let _ = events.send(Event::Failed(Failure::Model(error)));
                self.queue.ended(1);
            }
        }
    }

    /// Takes texts out that nobody waits for any more.
    fn leave_those_gone(&mut self) {
        let gone: Vec<Ticket> = self.running.iter().filter(|(_, r)| r.events.is_closed()).map(|(t, _)| *t).collect();
        for ticket in gone {
            let failed = self.running.remove(&ticket).is_some_and(|r| r.failed);
            if let Some((session, _)) = self.batch.leave(ticket)
                && !failed
            {
                self.cache.keep(session);
            }
            self.metrics.cancelled.fetch_add(1, Relaxed);
            self.queue.ended(1);
        }
    }

    /// The next token of every text.
    fn step(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let chunks = self.batch.step();
        self.metrics.steps.fetch_add(1, Relaxed);
        let now = Instant::now();
        for (ticket, chunk) in chunks {
            let Some(running) = self.running.get_mut(&ticket) else { continue };
            let event = match chunk {
                Ok(chunk) => {
                    if chunk.token.is_some() {
                        self.metrics.generated_tokens.fetch_add(1, Relaxed);
                        match running.last.replace(now) {
                            None => self.metrics.first_token.record(now - running.arrived),
                            Some(last) => self.metrics.next_token.record(now - last),
                        }
                    }
                    // The token that ends a text is no part of it.
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
            // Who does not listen any more is taken out before the next step.
            let _ = running.events.send(event);
        }
        for (ticket, session, output) in self.batch.take_finished() {
            let Some(running) = self.running.remove(&ticket) else { continue };
            self.queue.ended(1);
            if !running.failed {
                self.cache.keep(session);
                let usage = Usage { prompt: running.prompt, cached: running.cached, generated: output.ids.len() };
                let done = Event::Done { choice: running.choice, reason: output.finish_reason, usage };
                let _ = running.events.send(done);
            }
        }
    }

    /// Some of the texts that are to become vectors.
    fn embed(&mut self) {
        let Some(mut embed) = self.embeds.pop_front() else { return };
        let mut tokens = 0;
        let mut group = Vec::new();
        while let Some(text) = embed.texts.front()
            && (group.is_empty() || tokens + text.len() <= EMBED_STEP)
        {
            tokens += text.len();
            group.extend(embed.texts.pop_front());
        }
        if embed.answer.is_closed() {
            self.metrics.cancelled.fetch_add(1, Relaxed);
            return self.queue.ended(1);
        }
        match self.model.embed_ids(&group, EmbedOptions::default()) {
            Ok(vectors) => {
                self.metrics.embedded_tokens.fetch_add(tokens as u64, Relaxed);
                embed.vectors.extend(vectors);
                if !embed.texts.is_empty() {
                    return self.embeds.push_front(embed);
                }
                let _ = embed.answer.send(Ok(embed.vectors));
            }
            Err(error) => drop(embed.answer.send(Err(Failure::Model(error)))),
        }
        self.queue.ended(1);
    }

    /// Tells everybody that there will be nothing more.
    fn break_off(&mut self) {
        let ended = self.running.len() + self.embeds.len();
        for (ticket, running) in self.running.drain() {
            self.batch.leave(ticket);
            let _ = running.events.send(Event::Failed(Failure::Closing));
        }
        for embed in self.embeds.drain(..) {
            let _ = embed.answer.send(Err(Failure::Closing));
        }
        for job in self.queue.drain() {
            match job {
                Job::Generate(generate) => drop(generate.events.send(Event::Failed(Failure::Closing))),
                Job::Embed(embed) => drop(embed.answer.send(Err(Failure::Closing))),
            }
        }
        self.queue.ended(ended);
    }
}

/// Whether a constrained text was cut off. Clients of this interface know that by `finish_reason`.
#[cfg(feature = "constrain")]
fn is_cut_off(error: &bitnet::Error) -> bool {
    matches!(error, bitnet::Error::Constraint(bitnet::ConstraintError::Unfinished { .. }))
}

#[cfg(not(feature = "constrain"))]
fn is_cut_off(_: &bitnet::Error) -> bool {
    false
}
