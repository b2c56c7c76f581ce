//! How the threads of a team wait for each other: first awake, then asleep.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::slot::Bell;

/// A wait spins this long before it sleeps: several times as long as a piece of work, so that it ends while all threads
/// of the team run. Otherwise the awaited thread has lost its CPU to another program, usually for milliseconds.
pub(super) const SPIN: Duration = Duration::from_micros(100);
/// The spinning time if threads outnumber CPUs, so that the awaited thread may need this CPU.
const SPIN_OVERSUBSCRIBED: Duration = Duration::ZERO;
/// How long a wait of a team with more threads than CPUs then repeatedly yields its CPU. Among the threads of one team
/// that is cheaper than sleep. Next to other programs it is not: a thread that yields goes to the end of the queue and
/// waits for a whole time slice of each of them, while a thread that sleeps keeps its claim. So other teams do not
/// yield.
const YIELD_OVERSUBSCRIBED: Duration = Duration::from_micros(200);
/// Checks of the awaited value between two readings of the clock, about half a microsecond.
const LOOKS: u32 = 32;

/// How long to stay awake.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) spin: Duration,
    pub(super) give_way: Duration,
}

impl Patience {
    /// For a team of `threads` on `cpus`.
    pub(super) fn of(threads: usize, cpus: usize) -> Self {
        if threads <= cpus {
            Self { spin: SPIN, give_way: Duration::ZERO }
        } else {
            Self { spin: SPIN_OVERSUBSCRIBED, give_way: YIELD_OVERSUBSCRIBED }
        }
    }

    /// Checks `ready` until it is true; returns false if it is not true within that time.
    pub(super) fn stay_awake(self, ready: impl Fn() -> bool) -> bool {
        let mut start = None;
        loop {
            for _ in 0..LOOKS {
                if ready() {
                    return true;
                }
                std::hint::spin_loop();
            }
            let waited = start.get_or_insert_with(Instant::now).elapsed();
            if waited < self.spin {
                continue;
            }
            if waited >= self.spin + self.give_way {
                return false;
            }
            thread::yield_now();
        }
    }
}

/// The workers that sleep, and whether the caller does.
pub(super) struct Sleep {
    /// Workers that sleep or are about to: the number of `asleep` that are true.
    sleepers: AtomicUsize,
    /// For each worker, from 1, whether it sleeps.
    asleep: Box<[AtomicBool]>,
    /// Set by a caller before it sleeps.
    caller_asleep: AtomicBool,
    caller: Mutex<Option<Thread>>,
}

impl Sleep {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            sleepers: AtomicUsize::new(0),
            asleep: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            caller_asleep: AtomicBool::new(false),
            caller: Mutex::new(None),
        }
    }

    /// Sleeps as worker `me` until `bell` has rung since `seen`.
    pub(super) fn until_rung(&self, me: usize, bell: &Bell, seen: usize) {
        let asleep = &self.asleep[me - 1];
        loop {
            if !asleep.swap(true, Relaxed) {
                self.sleepers.fetch_add(1, Relaxed);
            }
            // Pairs with the fence in `wake`: either this thread sees the bell, or the caller sees the sleeper.
            fence(SeqCst);
            if bell.rung() != seen {
                break;
            }
            // It may return early, because of a bell that was seen without sleep; then the worker announces itself
            // again.
            thread::park();
        }
        if asleep.swap(false, Relaxed) {
            self.sleepers.fetch_sub(1, Relaxed);
        }
    }

    /// Wakes those of `workers`, beginning with worker 1, that sleep; their bells were rung before.
    pub(super) fn wake<'a>(&self, workers: impl Iterator<Item = &'a Thread>) {
        fence(SeqCst);
        if self.sleepers.load(Relaxed) > 0 {
            self.wake_sleepers(workers);
        }
    }

    #[cold]
    fn wake_sleepers<'a>(&self, workers: impl Iterator<Item = &'a Thread>) {
        for (worker, asleep) in workers.zip(&self.asleep) {
            // Each is woken once, even if it takes long to arrive.
            if asleep.swap(false, Relaxed) {
                self.sleepers.fetch_sub(1, Relaxed);
                worker.unpark();
            }
        }
    }

    /// Sleeps as the caller until `ready`, whose loads are SeqCst.
    #[cold]
    pub(super) fn until_done(&self, ready: impl Fn() -> bool) {
        *lock(&self.caller) = Some(thread::current());
        self.caller_asleep.store(true, SeqCst);
        while !ready() {
            thread::park();
        }
        self.caller_asleep.store(false, SeqCst);
    }

    /// Wakes the caller if it sleeps. The awaited value was changed before, SeqCst, so that either this thread sees the
    /// sleeper or the caller sees the change.
    pub(super) fn wake_caller(&self) {
        if self.caller_asleep.load(SeqCst) {
            self.unpark_caller();
        }
    }

    #[cold]
    fn unpark_caller(&self) {
        if let Some(caller) = &*lock(&self.caller) {
            caller.unpark();
        }
    }

    #[cfg(test)]
    pub(super) fn sleepers(&self) -> usize {
        self.sleepers.load(SeqCst)
    }
}

/// Locks a mutex whose contents are intact even if a thread panicked while holding the lock.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
