//! A fixed group of threads for fork-join phases of a few microseconds each.
//!
//! One forward step of a model is some hundred phases ("quantise", "q, k and v rows", "attention", ...), each split
//! over the same few threads. A phase that wakes threads through the kernel costs tens of microseconds, as much as
//! its work; here the threads spin between the phases of a step, so that a phase costs a fraction of a microsecond,
//! and sleep only between steps.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use ternary_kernels::Team;
//!
//! let team = Team::new(NonZeroUsize::new(2).unwrap())?;
//! let mut squares = [0usize; 100];
//! team.for_each_chunk(&mut squares, 10, |chunk, values| {
//!     for (i, v) in values.iter_mut().enumerate() {
//!         *v = (chunk * 10 + i).pow(2);
//!     }
//! });
//! assert_eq!(squares[99], 9801);
//! # Ok::<(), ternary_kernels::KernelError>(())
//! ```
//!
//! # How a phase runs
//!
//! The caller writes a pointer to the job and increments `epoch`; each worker sees the new epoch, calls the job with its
//! index and increments `done`; the caller does part 0 itself and returns once `done` is `epoch` times the number of
//! workers. So two cache lines change hands, each once in each direction. Every wait first spins, then yields its CPU between looks, and at last sleeps; where
//! there are more threads than CPUs it yields almost at once, because then the one waited for may need this CPU.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use crate::KernelError;

/// A wait spins this long before it begins to yield the CPU. A yield costs a fraction of a microsecond where no other thread
/// wants the CPU; where the machine is busy, the one waited for may be the one that wants it, and each microsecond of
/// spinning is lost twice.
const SPIN: Duration = Duration::from_micros(2);
/// The same where threads outnumber CPUs.
const SPIN_OVERSUBSCRIBED: Duration = Duration::ZERO;
/// After this long a wait sleeps until it is woken, which costs the waker a system call.
const AWAKE: Duration = Duration::from_micros(200);
/// Looks at the awaited value between two looks at the clock, about half a microsecond.
const LOOKS: u32 = 32;

/// Keeps what one thread writes out of the cache line that others read: two lines, since some CPUs fetch pairs.
#[repr(align(128))]
struct Padded<T>(T);

type Job = dyn Fn(usize) + Sync;
type Payload = Box<dyn Any + Send>;

/// What the caller announces, in one cache line.
struct Call {
    /// Number of jobs published so far, modulo the word.
    epoch: AtomicUsize,
    /// The current job; written only by a caller that holds `Team::turn` while no worker runs.
    job: UnsafeCell<Option<*const Job>>,
}

/// What changes seldom, so that both sides keep it in their caches.
struct Seldom {
    /// Workers that sleep or are about to.
    sleepers: AtomicUsize,
    /// Which ones.
    asleep: Box<[AtomicBool]>,
    /// Set by a caller before it sleeps; the worker that finishes last wakes it.
    caller_asleep: AtomicBool,
    caller: Mutex<Option<Thread>>,
    /// Whether `panic` holds something.
    panicked: AtomicBool,
    /// The first panic among the workers' parts of the current job.
    panic: Mutex<Option<Payload>>,
    stop: AtomicBool,
    spin: Duration,
}

/// What the caller and the workers share.
struct Shared {
    call: Padded<Call>,
    /// Parts that workers have finished so far, in all epochs, modulo the word.
    done: Padded<AtomicUsize>,
    seldom: Padded<Seldom>,
}

// SAFETY: all fields but `job` are Sync by themselves. `job` is written by a caller that holds `Team::turn` after all
// parts of the job before were done, that is, while no worker is between its Acquire load of a new epoch and its
// increment of `done`; workers read it only there. The write happens before the read through the increment and load
// of `epoch`, the read before the next write through the increment and load of `done`. The pointer leads to a `Sync`
// closure that is alive whenever it is read, because `Team::run` does not return before all parts are done.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it belongs to one thread.
unsafe impl Send for Shared {}

/// A fixed group of threads that run the parts of a job together; see the [module documentation](self).
///
/// Several callers may share one team: their jobs run one after the other. Dropping it ends and joins its threads.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    threads: NonZeroUsize,
    /// Held by the caller whose job runs.
    turn: Mutex<()>,
}

thread_local! {
    /// Whether this thread is inside of a part of some team's job.
    static IN_PART: Cell<bool> = const { Cell::new(false) };
}

impl Team {
    /// A team of `threads` threads: the caller of each job and `threads - 1` workers, named `team-1`, `team-2`, ...
    ///
    /// # Errors
    /// [`KernelError::ThreadNotStarted`] if the system refuses a thread.
    pub fn new(threads: NonZeroUsize) -> Result<Self, KernelError> {
        let workers = threads.get() - 1;
        let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let shared = Arc::new(Shared {
            call: Padded(Call { epoch: AtomicUsize::new(0), job: UnsafeCell::new(None) }),
            done: Padded(AtomicUsize::new(0)),
            seldom: Padded(Seldom {
                sleepers: AtomicUsize::new(0),
                asleep: (0..workers).map(|_| AtomicBool::new(false)).collect(),
                caller_asleep: AtomicBool::new(false),
                caller: Mutex::new(None),
                panicked: AtomicBool::new(false),
                panic: Mutex::new(None),
                stop: AtomicBool::new(false),
                spin: if threads.get() <= cpus { SPIN } else { SPIN_OVERSUBSCRIBED },
            }),
        });
        // A failed spawn drops `team`, which ends the workers that exist.
        let mut team = Self { shared, workers: Vec::with_capacity(workers), threads, turn: Mutex::new(()) };
        for index in 1..=workers {
            let shared = team.shared.clone();
            let worker = thread::Builder::new()
                .name(format!("team-{index}"))
                .spawn(move || shared.work(index, workers))
                .map_err(|e| KernelError::ThreadNotStarted { index, threads: threads.get(), reason: e.to_string() })?;
            team.workers.push(worker);
        }
        Ok(team)
    }

    /// Number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads.get()
    }

    /// Whether this thread runs a part of some team's job, so that [`Team::run`] would call all parts in turn.
    pub fn is_nested() -> bool {
        IN_PART.get()
    }

    /// Calls `f(i)` once for each `i` in `0..threads`, each on a thread of its own, `f(0)` on the caller's; returns
    /// when all are done. Called from inside of a part (of this team or another), it calls all of them in turn on the
    /// calling thread, so parts must not wait for one another, unless the caller has asked [`Team::is_nested`] before.
    ///
    /// # Panics
    /// With the panic of a part, after all parts have ended; parts that one thread calls in turn end at the first panic.
    pub fn run(&self, f: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || IN_PART.get() {
            (0..self.threads()).for_each(f);
            return;
        }
        let turn = lock(&self.turn);
        // SAFETY: only the lifetime changes. `Published` ends this function's use of `f`: its drop waits for all
        // workers, on return and on unwinding, and after their increment of `done` they do not touch the job.
        let job: &'static Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static Job>(f) };
        let published = self.publish(job);
        let mine = catch_unwind(AssertUnwindSafe(|| in_part(|| f(0))));
        drop(published);
        let theirs = self.shared.seldom.0.take_panic();
        drop(turn);
        if let Some(payload) = mine.err().or(theirs) {
            resume_unwind(payload);
        }
    }

    /// Calls `f(i, &mut parts[i])` once for each part, part `i` on thread `i % threads`, the parts of one thread in
    /// ascending order; returns when all are done. There may be more parts than threads, or fewer.
    ///
    /// # Panics
    /// The same as [`Team::run`]; a part that panics takes the later ones of its thread with it.
    pub fn run_parts<P: Send>(&self, parts: &mut [P], f: impl Fn(usize, &mut P) + Sync) {
        let (len, threads) = (parts.len(), self.threads());
        if len <= 1 {
            // The one part is the caller's.
            parts.iter_mut().enumerate().for_each(|(i, part)| f(i, part));
            return;
        }
        let parts = Base(parts.as_mut_ptr());
        self.run(&|thread| {
            for i in (thread..len).step_by(threads) {
                // SAFETY: `i < len`, and `run` hands each `thread` in 0..threads to one call, so that no other
                // call forms a reference to part `i`; the caller's exclusive borrow of `parts` outlives `run`.
                f(i, unsafe { &mut *parts.at(i) });
            }
        });
    }

    /// Cuts `data` into chunks of `chunk_len` elements, the last one maybe shorter, and calls `f(c, chunk)` once for
    /// each; every thread gets consecutive chunks, in ascending order, and nearly the same number of them.
    ///
    /// # Panics
    /// If `chunk_len` is 0 and `data` is not empty; else as [`Team::run_parts`].
    pub fn for_each_chunk<T: Send>(&self, data: &mut [T], chunk_len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        let len = data.len();
        if len == 0 {
            return;
        }
        assert!(chunk_len > 0, "chunks of 0 elements");
        let chunks = len.div_ceil(chunk_len);
        if chunks == 1 {
            return f(0, data);
        }
        let threads = self.threads();
        let data = Base(data.as_mut_ptr());
        self.run(&|thread| {
            for c in share(chunks, thread, threads) {
                let start = c * chunk_len;
                // SAFETY: `c < chunks`, so `start..start + this length` lies in `0..len`. The shares of the threads are
                // disjoint and `run` calls each `thread` once, so no other call forms a reference to chunk `c`; the
                // caller's exclusive borrow of `data` outlives `run`.
                f(c, unsafe { std::slice::from_raw_parts_mut(data.at(start), chunk_len.min(len - start)) });
            }
        });
    }
}

impl Team {
    /// Hands `job` to all workers. The caller holds `turn`.
    fn publish(&self, job: &'static Job) -> Published<'_> {
        // SAFETY: the caller holds `turn` and the job before this one was waited for, so no worker reads the cell
        // before the new epoch is announced below.
        unsafe { *self.shared.call.0.job.get() = Some(job) };
        let epoch = self.announce();
        Published { shared: &self.shared, done: epoch.wrapping_mul(self.workers.len()) }
    }

    /// Begins the next epoch, wakes the workers that sleep and returns the epoch.
    fn announce(&self) -> usize {
        // SeqCst here and in `Shared::next_epoch`: either this thread sees the sleeper, or the sleeper sees the epoch.
        let epoch = self.shared.call.0.epoch.fetch_add(1, SeqCst).wrapping_add(1);
        if self.shared.seldom.0.sleepers.load(SeqCst) > 0 {
            self.wake_sleepers();
        }
        epoch
    }

    #[cold]
    fn wake_sleepers(&self) {
        for (worker, asleep) in self.workers.iter().zip(&self.shared.seldom.0.asleep) {
            if asleep.load(SeqCst) {
                worker.thread().unpark();
            }
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.seldom.0.stop.store(true, Relaxed);
        self.announce();
        for worker in self.workers.drain(..) {
            // A worker cannot panic: each part is caught.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Team({} threads)", self.threads)
    }
}

/// The consecutive items of `0..len` that are `part`'s, where `parts` share them as evenly as whole items allow.
///
/// ```
/// assert_eq!(ternary_kernels::team::share(10, 0, 3), 0..3);
/// assert_eq!(ternary_kernels::team::share(10, 2, 3), 6..10);
/// ```
pub fn share(len: usize, part: usize, parts: usize) -> std::ops::Range<usize> {
    let parts = parts.max(1);
    let at = |p: usize| (len / parts) * p + (len % parts) * p / parts;
    at(part.min(parts))..at((part + 1).min(parts))
}

/// A job that workers may be running; dropping it waits until they are done.
struct Published<'a> {
    shared: &'a Shared,
    /// What `Shared::done` will be then.
    done: usize,
}

impl Drop for Published<'_> {
    fn drop(&mut self) {
        self.shared.wait_until_done(self.done);
    }
}

impl Shared {
    /// Main loop of worker `index` of `workers`.
    fn work(&self, index: usize, workers: usize) {
        IN_PART.set(true);
        let seldom = &self.seldom.0;
        let mut epoch = 0;
        loop {
            epoch = self.next_epoch(epoch, &seldom.asleep[index - 1]);
            if seldom.stop.load(Relaxed) {
                return;
            }
            // SAFETY: a new epoch that is no stop was announced by `publish`, after it wrote the cell; it is not written
            // again before this worker's increment of `done` below.
            let job = unsafe { *self.call.0.job.get() };
            if let Some(job) = job {
                // SAFETY: `run` keeps the closure borrowed until all parts are done, which needs the increment below.
                let part = AssertUnwindSafe(|| unsafe { (*job)(index) });
                if let Err(payload) = catch_unwind(part) {
                    seldom.put_panic(payload);
                }
            }
            // SeqCst here and in `wait_until_done`: either this thread sees the sleeping caller, or that one sees the end.
            let done = self.done.0.fetch_add(1, SeqCst).wrapping_add(1);
            if done == epoch.wrapping_mul(workers) && seldom.caller_asleep.load(SeqCst) {
                seldom.wake_caller();
            }
        }
    }

    /// Waits until the epoch is another than `seen`, and returns it.
    fn next_epoch(&self, seen: usize, asleep: &AtomicBool) -> usize {
        let Seldom { sleepers, spin, .. } = &self.seldom.0;
        let epoch = &self.call.0.epoch;
        if !stay_awake(*spin, || epoch.load(Acquire) != seen) {
            asleep.store(true, SeqCst);
            sleepers.fetch_add(1, SeqCst);
            while epoch.load(SeqCst) == seen {
                thread::park();
            }
            sleepers.fetch_sub(1, SeqCst);
            asleep.store(false, SeqCst);
        }
        // It cannot move on before this worker has done its part of the job.
        epoch.load(Acquire)
    }

    /// Waits until workers have finished so many parts.
    fn wait_until_done(&self, parts: usize) {
        let Seldom { caller_asleep, caller, spin, .. } = &self.seldom.0;
        if !stay_awake(*spin, || self.done.0.load(Acquire) == parts) {
            *lock(caller) = Some(thread::current());
            caller_asleep.store(true, SeqCst);
            while self.done.0.load(SeqCst) != parts {
                thread::park();
            }
            caller_asleep.store(false, SeqCst);
        }
    }
}

impl Seldom {
    #[cold]
    fn wake_caller(&self) {
        if let Some(caller) = &*lock(&self.caller) {
            caller.unpark();
        }
    }

    #[cold]
    fn put_panic(&self, payload: Payload) {
        let mut first = lock(&self.panic);
        match &*first {
            None => *first = Some(payload),
            // Dropping it could panic again, and this thread must go on.
            Some(_) => std::mem::forget(payload),
        }
        self.panicked.store(true, Relaxed);
    }

    /// The first panic of the workers' parts; the caller has seen that all are done.
    fn take_panic(&self) -> Option<Payload> {
        if !self.panicked.load(Relaxed) {
            return None;
        }
        self.panicked.store(false, Relaxed);
        lock(&self.panic).take()
    }
}

/// Looks at `ready` until it is true, spinning for `spin` and then giving the CPU away now and then; false if it is
/// not true after [`AWAKE`].
fn stay_awake(spin: Duration, ready: impl Fn() -> bool) -> bool {
    let mut start = None;
    loop {
        for _ in 0..LOOKS {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        let waited = start.get_or_insert_with(Instant::now).elapsed();
        if waited >= spin {
            break;
        }
    }
    loop {
        thread::yield_now();
        for _ in 0..LOOKS {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.is_none_or(|s| s.elapsed() >= AWAKE) {
            return false;
        }
    }
}

/// Calls `f` with the mark that a part runs on this thread.
fn in_part(f: impl FnOnce()) {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            IN_PART.set(false);
        }
    }
    IN_PART.set(true);
    let _leave = Leave;
    f();
}

/// Locks a mutex whose contents are whole even if a thread panicked while it held the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first element of a slice whose elements several threads write, each its own.
struct Base<T>(*mut T);

// SAFETY: sharing it hands elements to other threads by exclusive reference, which `T: Send` allows; a caller that
// dereferences a pointer proves that no other thread does so for the same element.
unsafe impl<T: Send> Sync for Base<T> {}

impl<T> Base<T> {
    /// The address of element `i`.
    fn at(&self, i: usize) -> *mut T {
        self.0.wrapping_add(i)
    }
}

#[cfg(test)]
#[path = "team_tests.rs"]
mod tests;
