//! The state that the threads of a team share: pieces of the current job, which of them are taken, and how many are
//! done.
//!
//! # Why a late worker is safe
//!
//! A job is a closure that the caller borrows, and [`Shared::run`] returns when all pieces are done, by any
//! thread. A worker that was asleep or without a CPU all the time may arrive at any time: when the job is over, or when
//! the next one has begun. It never has to know which, because it can only access a job through a piece that it has
//! taken:
//!
//! - `Slot::left` counts the pieces of a slot that no thread has taken. A thread takes one by decrementing the count, and it has one if
//!   the count was above 0 before. Then, and only then, it reads `Slot::task`.
//! - A piece that is taken but not done keeps its job alive: the caller waits for `done` to count all pieces.
//! - The caller writes `Slot::task` only after all pieces of the job before were done, hence while no thread has a piece; and it sets
//!   `left` above 0 only after that, with Release, which the decrement acquires.
//!
//! So a thread reads the job whose piece it has taken, even if it began to look for a piece during an earlier job.
//! Job numbers are not compared anywhere, and nothing depends on when they wrap.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::*};
use std::thread::{self, Thread};
use std::time::Instant;

use super::pace::Pace;
use super::share;
use super::slot::{Job, Slot, Task};
use super::speed::Speeds;
use super::wait::{Patience, Sleep, lock};

pub(super) type Payload = Box<dyn Any + Send>;

thread_local! {
    /// Whether this thread is within a part of a team's job.
    static IN_PART: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is within a part of a team's job.
pub(super) fn in_part() -> bool {
    IN_PART.get()
}

/// The assignment of pieces to threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Each thread begins with consecutive pieces, nearly the same number for each; when they are done, it takes pieces
    /// of others. A slow worker leaves the last ones to the others ([`super::speed`]).
    Shares,
    /// Like `Shares`, with a piece for each thread, which it does however slow it is.
    Each,
    /// All threads take pieces in order: when a piece is taken, all before it have been taken.
    OneLine,
}

/// The state shared by the caller and the workers.
pub(super) struct Shared {
    /// One for each thread, the caller's first.
    slots: Box<[Slot]>,
    done: Done,
    pub(super) sleep: Sleep,
    /// Whether `panic` holds a panic.
    panicked: AtomicBool,
    /// The first panic among the pieces of the current job.
    panic: Mutex<Option<Payload>>,
    stop: AtomicBool,
    patience: Patience,
    pub(super) slowed: Slowed,
}

/// Pieces that workers have done so far, in all jobs, modulo the word size. A worker adds its own when it finds no more
/// pieces.
#[repr(align(128))]
struct Done(AtomicUsize);

/// A thread that waits after each piece, so that it takes several times as long: a slow core, for tests and measurements. A worker
/// that takes infinitely long does no pieces.
pub(super) struct Slowed {
    /// The largest number for none.
    thread: AtomicUsize,
    /// Bits of an f32 of 1 and more.
    times: AtomicU32,
}

impl Slowed {
    fn none() -> Self {
        Self { thread: AtomicUsize::new(usize::MAX), times: AtomicU32::new(1f32.to_bits()) }
    }

    pub(super) fn set(&self, thread: usize, times: f32) {
        self.times.store(times.max(1.0).to_bits(), Relaxed);
        self.thread.store(thread, Relaxed);
    }

    /// How long thread `me` takes for a piece that takes 1; `None` for 1.
    fn times(&self, me: usize) -> Option<f32> {
        (self.thread.load(Relaxed) == me).then(|| f32::from_bits(self.times.load(Relaxed)))
    }
}

impl Shared {
    pub(super) fn new(threads: usize, cpus: usize) -> Self {
        Self {
            slots: (0..threads).map(|_| Slot::new()).collect(),
            done: Done(AtomicUsize::new(0)),
            sleep: Sleep::new(threads - 1),
            panicked: AtomicBool::new(false),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
            patience: Patience::of(threads, cpus),
            slowed: Slowed::none(),
        }
    }

    /// Runs pieces `0..pieces` of `job` on this thread and on those of `workers` that arrive in time; returns when all
    /// are done, with the first panic.
    ///
    /// # Safety
    /// One thread at a time may call this.
    pub(super) unsafe fn run<'a>(
        &self,
        job: &Job<'_>,
        pieces: usize,
        order: Order,
        speeds: &mut Speeds,
        workers: impl Iterator<Item = &'a Thread>,
    ) -> Option<Payload> {
        assert!(isize::try_from(pieces).is_ok(), "{pieces} pieces");
        // SAFETY: only the lifetime changes. This function does not end, by return or by unwinding, before all pieces
        // are done (`all` waits when it is dropped), and no thread accesses the job without a piece.
        let job = unsafe { std::mem::transmute::<&Job<'_>, &'static Job<'static>>(job) };
        let all = Pieces { shared: self, before: self.done.0.load(Relaxed), count: pieces, own: Cell::new(0) };
        let parts = pieces.min(self.slots.len());
        let measures = order == Order::Shares && speeds.measures_next();
        // The caller's slot first: a worker that hears its bell finds everything in place.
        for (i, slot) in self.slots[..parts].iter().enumerate() {
            let range = match order {
                Order::Shares | Order::Each => share(pieces, i, parts),
                Order::OneLine if i == 0 => 0..pieces,
                Order::OneLine => pieces..pieces,
            };
            if i > 0 {
                slot.leaves.store(if order == Order::Shares { speeds.leaves(i) } else { 0 }, Relaxed);
                if measures {
                    slot.took.store(0, Relaxed);
                }
            }
            // SAFETY: all pieces of earlier jobs are done, since every call of this function waits for its own; the
            // caller guarantees that no other call runs; and this one waits before the job ends.
            unsafe { slot.fill(Task { job: NonNull::from(job), end: range.end }, range.len()) };
            if i > 0 {
                slot.bell.ring();
            }
        }
        self.sleep.wake(workers.take(parts.saturating_sub(1)));
        IN_PART.set(true);
        let began = measures.then(Instant::now);
        self.do_pieces(0, &all.own, None);
        let own = began.and_then(|began| began.elapsed().checked_div(u32::try_from(all.own.get()).ok()?));
        IN_PART.set(false);
        drop(all);
        if let Some(own) = own {
            // Workers have written these times before they handed their pieces in.
            speeds.note(own, self.slots[1..parts].iter().map(|slot| slot.took.load(Relaxed)));
        }
        self.take_panic()
    }

    /// Main loop of worker `me`.
    pub(super) fn work(&self, me: usize) {
        IN_PART.set(true);
        let bell = &self.slots[me].bell;
        let mut seen = 0;
        let count = Cell::new(0);
        let mut pace = Pace::new(Instant::now());
        loop {
            if !self.patience.stay_awake(|| bell.rung() != seen) {
                self.sleep.until_rung(me, bell, seen);
                pace.slept(Instant::now());
            }
            seen = bell.rung();
            if self.stop.load(Relaxed) {
                return;
            }
            if self.slowed.times(me).is_some_and(f32::is_infinite) {
                continue;
            }
            let began = Instant::now();
            let did = self.do_pieces(me, &count, Some(&mut pace));
            let ended = Instant::now();
            self.slots[me].note(ended - began, did);
            pace.phase(began, ended);
            self.hand_in(&count);
        }
    }

    /// Counts the pieces that a worker has done.
    fn hand_in(&self, count: &Cell<usize>) {
        let count = count.take();
        if count > 0 {
            self.done.0.fetch_add(count, SeqCst);
            self.sleep.wake_caller();
        }
    }

    /// Ends all workers.
    pub(super) fn stop<'a>(&self, workers: impl Iterator<Item = &'a Thread>) {
        self.stop.store(true, Relaxed);
        self.slots.iter().for_each(|slot| slot.bell.ring());
        self.sleep.wake(workers);
    }

    /// Does pieces as thread `me` until there are none to take, its own first, and adds them to `count` one by one. A
    /// worker has a `pace`, and rests when `pace` asks for it; it stops if so few are left that it should leave them to others. Returns
    /// the number of its pieces, 0 if it has rested, so that the time was not theirs.
    fn do_pieces(&self, me: usize, count: &Cell<usize>, mut pace: Option<&mut Pace>) -> u32 {
        let (before, from) = self.slots.split_at(me);
        let (mut did, mut rested) = (0, false);
        for slot in from.iter().chain(before) {
            loop {
                let timed = pace.as_deref_mut().filter(|p| p.watches()).map(|p| (p, Instant::now()));
                let timed = timed.map(|(pace, now)| match pace.rest(now) {
                    Some(rest) => {
                        // The caller must not wait for pieces that are done.
                        self.hand_in(count);
                        thread::sleep(rest);
                        rested = true;
                        let now = Instant::now();
                        pace.slept(now);
                        (pace, now)
                    }
                    None => (pace, now),
                });
                if !self.enough_left(me) {
                    return if rested { 0 } else { did };
                }
                let Some((task, piece)) = slot.take() else { break };
                // SAFETY: this thread has taken a piece of this job and counts it as done below, so `run` still borrows
                // it.
                let job = unsafe { task.job.as_ref() };
                let slowed = self.slowed.times(me).filter(|t| t.is_finite()).map(|times| (Instant::now(), times));
                if let Err(payload) = catch_unwind(AssertUnwindSafe(|| job(me, piece))) {
                    self.put_panic(payload);
                }
                if let Some((began, times)) = slowed {
                    let until = began.elapsed().mul_f32(times);
                    while began.elapsed() < until {
                        std::hint::spin_loop();
                    }
                }
                if let Some((pace, began)) = timed {
                    pace.piece(began, Instant::now());
                }
                count.set(count.get() + 1);
                did += 1;
            }
        }
        if rested { 0 } else { did }
    }

    /// Whether so many pieces are left that thread `me` should take one.
    fn enough_left(&self, me: usize) -> bool {
        let leaves = self.slots[me].leaves.load(Relaxed) as usize;
        // Its own slot usually is enough, and in its cache.
        leaves == 0 || self.slots[me].left() > leaves || self.slots.iter().map(Slot::left).sum::<usize>() > leaves
    }

    #[cold]
    fn put_panic(&self, payload: Payload) {
        let mut first = lock(&self.panic);
        match &*first {
            None => *first = Some(payload),
            // Dropping it could panic again, and this thread must continue.
            Some(_) => std::mem::forget(payload),
        }
        self.panicked.store(true, Relaxed);
    }

    /// The first panic of the pieces; to be called when all are done.
    fn take_panic(&self) -> Option<Payload> {
        if !self.panicked.load(Relaxed) {
            return None;
        }
        self.panicked.store(false, Relaxed);
        lock(&self.panic).take()
    }
}

/// A job whose pieces may be in progress; dropping it waits until all are done.
struct Pieces<'a> {
    shared: &'a Shared,
    /// [`Shared::done`] when it began. No thread adds to it between jobs.
    before: usize,
    count: usize,
    /// Pieces that the caller has done itself, which `done` does not count.
    own: Cell<usize>,
}

impl Drop for Pieces<'_> {
    fn drop(&mut self) {
        let Shared { done, patience, sleep, .. } = self.shared;
        let all = self.before.wrapping_add(self.count - self.own.get());
        if done.0.load(Acquire) != all && !patience.stay_awake(|| done.0.load(Acquire) == all) {
            sleep.until_done(|| done.0.load(SeqCst) == all);
        }
    }
}
