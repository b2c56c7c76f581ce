//! A fixed group of threads for fork-join phases of a few microseconds each.
//!
//! One forward step of a model is some hundred phases ("quantise", "q, k and v rows", "attention", ...), each done by
//! the same few threads. A phase that wakes threads through the kernel costs tens of microseconds, as much as its work.
//! Here the threads spin between the phases of a step, so that a phase costs a fraction of a microsecond, and sleep
//! only between steps.
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
//! A phase is a number of pieces. Each thread has a slot with its share of them, consecutive ones, and takes one after
//! the other; when they are all taken, it takes pieces from the slots of the others. The phase is over when all pieces
//! are done, not when all threads have arrived: if another program has the CPU of a worker, the others do its pieces,
//! and wait for at most the one that it holds. For the same reason a slow core does fewer pieces, and none of the last ones, which the
//! others finish sooner (`team/speed.rs`).
//!
//! Without disturbance, each thread does its own share, so that the same data are in the same core's caches in every
//! step, and two cache lines change hands, each once in each direction. A wait first spins and then sleeps; if there
//! are more threads than CPUs, it yields its CPU in between. A worker that shares its CPU with other programs rests
//! between pieces before its time slice ends (`team/pace.rs`). Why a late worker is safe: `team/crew.rs`.
//!
//! Any thread may do any piece, so results must not depend on it; between pieces a thread may keep scratch memory, but
//! no results.

mod crew;
mod pace;
mod slot;
mod speed;
mod wait;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::{ColsMut, KernelError};
use crew::{Order, Shared};
use slot::Job;
use speed::Speeds;
use wait::lock;

/// A fixed group of threads that share the pieces of a job; see the [module documentation](self).
///
/// Several callers may share one team: their jobs run one after the other. Dropping the team ends and joins its
/// threads.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    threads: NonZeroUsize,
    /// Held by the caller whose job runs: what callers know of the workers' speeds.
    turn: Mutex<Speeds>,
}

impl Team {
    /// A team of `threads` threads: the caller of each job and `threads - 1` workers, named `team-1`, `team-2`, ...
    ///
    /// # Errors
    /// [`KernelError::ThreadNotStarted`] if the system refuses a thread.
    pub fn new(threads: NonZeroUsize) -> Result<Self, KernelError> {
        let cpus = crate::available_cpus().get();
        let shared = Arc::new(Shared::new(threads.get(), cpus));
        // A failed spawn drops `team`, which ends the workers that exist.
        let turn = Mutex::new(Speeds::new(threads.get()));
        let mut team = Self { shared, workers: Vec::with_capacity(threads.get() - 1), threads, turn };
        for index in 1..threads.get() {
            let shared = team.shared.clone();
            let worker = thread::Builder::new()
                .name(format!("team-{index}"))
                .spawn(move || shared.work(index))
                .map_err(|e| KernelError::ThreadNotStarted { index, threads: threads.get(), reason: e.to_string() })?;
            team.workers.push(worker);
        }
        Ok(team)
    }

    /// From now on thread `thread` takes `times` as long for each piece as it needs, as a slow core does; a worker does none at all
    /// where that is infinite. No other thread is slow any more. To test and to measure with.
    #[doc(hidden)]
    pub fn slow_thread(&self, thread: usize, times: f32) {
        self.shared.slowed.set(thread, times);
    }

    /// Number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads.get()
    }

    /// Whether this thread runs a part of a team's job, so that [`Team::run`] would call all parts in turn.
    pub fn is_nested() -> bool {
        crew::in_part()
    }

    /// Calls `job(thread, piece)` for each piece of `0..pieces`, never two at once with the same `thread`, which is
    /// below [`Team::threads`]. If called from within a part (of this team or another), or with one piece, it does all
    /// in turn on the calling thread, as thread 0.
    fn pieces(&self, pieces: usize, order: Order, job: &Job<'_>) {
        if self.workers.is_empty() || pieces <= 1 || crew::in_part() {
            (0..pieces).for_each(|piece| job(0, piece));
            return;
        }
        let mut turn = lock(&self.turn);
        let workers = self.workers.iter().map(JoinHandle::thread);
        // SAFETY: this call holds `turn`.
        let panic = unsafe { self.shared.run(job, pieces, order, &mut turn, workers) };
        drop(turn);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Calls `f(i)` once for each `i` in `0..threads`, each on its own thread unless a thread is so late that another
    /// one has done its part; returns when all are done. If called from within a part (of this team or another), it
    /// calls all of them in turn on the calling thread. So parts must not wait for each other.
    ///
    /// # Panics
    /// With the panic of a part, after all parts have ended; if one thread calls the parts in turn, because the call is
    /// nested or the team has one thread, the first panic ends them.
    pub fn run(&self, f: &(dyn Fn(usize) + Sync)) {
        self.pieces(self.threads(), Order::Each, &|_, i| f(i));
    }

    /// Calls `f(i, &mut parts[i])` once for each part; returns when all are done. There may be more or fewer parts than
    /// threads. Consecutive parts are meant for the same thread, but any thread may do any part.
    ///
    /// # Panics
    /// Like [`Team::run`].
    pub fn run_parts<P: Send>(&self, parts: &mut [P], f: impl Fn(usize, &mut P) + Sync) {
        let len = parts.len();
        let parts = Base(parts.as_mut_ptr());
        self.pieces(len, Order::Shares, &|_, i| {
            // SAFETY: `i < len`, and `pieces` hands each `i` to one call, so that no other call forms a reference to
            // part `i`; the caller's exclusive borrow of `parts` outlives this.
            f(i, unsafe { &mut *parts.at(i) });
        });
    }

    /// Splits `data` into chunks of `chunk_len` elements, the last one possibly shorter, and calls `f(c, chunk)` once
    /// for each; every thread begins with consecutive chunks, in ascending order, and nearly the same number of them.
    ///
    /// # Panics
    /// If `chunk_len` is 0 and `data` is not empty; otherwise like [`Team::run`].
    pub fn for_each_chunk<T: Send>(&self, data: &mut [T], chunk_len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        let len = data.len();
        if len == 0 {
            return;
        }
        assert!(chunk_len > 0, "chunks of 0 elements");
        let data = Base(data.as_mut_ptr());
        self.pieces(len.div_ceil(chunk_len), Order::Shares, &|_, c| {
            let start = c * chunk_len;
            // SAFETY: `c` is below the number of chunks, so `start..start + this length` is within `0..len`. `pieces`
            // hands each `c` to one call, so no other call forms a reference to chunk `c`; the caller's exclusive
            // borrow of `data` outlives this.
            f(c, unsafe { std::slice::from_raw_parts_mut(data.at(start), chunk_len.min(len - start)) });
        });
    }

    /// Calls `f(piece, room)` once for each piece of `0..pieces`, with the scratch memory `room` of the thread that
    /// does it, which no other call has at that time.
    ///
    /// # Panics
    /// If there are fewer rooms than threads; otherwise like [`Team::run`].
    pub fn run_pieces<S: Send>(&self, rooms: &mut [S], pieces: usize, f: impl Fn(usize, &mut S) + Sync) {
        self.with_rooms(rooms, pieces, Order::Shares, f);
    }

    /// Calls `f(i, &mut parts[i], room)` once for each part; rooms as in [`Team::run_pieces`].
    ///
    /// # Panics
    /// Like [`Team::run_pieces`].
    pub fn run_parts_with<P: Send, S: Send>(
        &self,
        parts: &mut [P],
        rooms: &mut [S],
        f: impl Fn(usize, &mut P, &mut S) + Sync,
    ) {
        self.parts_and_rooms(parts, rooms, Order::Shares, f);
    }

    /// Like [`Team::run_parts_with`], with the parts in order: when `f` is called with a part, the calls with all
    /// earlier parts have begun. So a part may wait for earlier ones.
    ///
    /// # Panics
    /// Like [`Team::run_pieces`].
    pub fn run_in_line<P: Send, S: Send>(
        &self,
        parts: &mut [P],
        rooms: &mut [S],
        f: impl Fn(usize, &mut P, &mut S) + Sync,
    ) {
        self.parts_and_rooms(parts, rooms, Order::OneLine, f);
    }

    fn parts_and_rooms<P: Send, S: Send>(
        &self,
        parts: &mut [P],
        rooms: &mut [S],
        order: Order,
        f: impl Fn(usize, &mut P, &mut S) + Sync,
    ) {
        let len = parts.len();
        let parts = Base(parts.as_mut_ptr());
        self.with_rooms(rooms, len, order, |i, room| {
            // SAFETY: as in `run_parts`.
            f(i, unsafe { &mut *parts.at(i) }, room);
        });
    }

    fn with_rooms<S: Send>(&self, rooms: &mut [S], pieces: usize, order: Order, f: impl Fn(usize, &mut S) + Sync) {
        assert!(rooms.len() >= self.threads(), "{} rooms for {} threads", rooms.len(), self.threads());
        let rooms = Base(rooms.as_mut_ptr());
        self.pieces(pieces, order, &|thread, piece| {
            // SAFETY: `thread` is below the number of threads, hence of rooms, and `pieces` never makes two calls at
            // once with the same; the caller's exclusive borrow of `rooms` outlives this.
            f(piece, unsafe { &mut *rooms.at(thread) });
        });
    }

    /// Calls `f(what, rows, columns, view, room)` for pieces that cover each of `outputs` once; `view` holds these columns of
    /// these rows, and `room` is as in [`Team::run_pieces`].
    ///
    /// # Panics
    /// Like [`Team::run_pieces`].
    pub fn run_columns<W: Sync, T: Send + Sync, S: Send>(
        &self,
        outputs: &mut [Columns<'_, W, T>],
        rooms: &mut [S],
        f: impl Fn(&W, Range<usize>, Range<usize>, &mut ColsMut<'_, T>, &mut S) + Sync,
    ) {
        let outputs = &*outputs;
        let pieces = outputs.iter().map(Columns::all_pieces).sum();
        self.with_rooms(rooms, pieces, Order::Shares, |mut piece, room| {
            for output in outputs {
                if piece < output.all_pieces() {
                    let (rows, cols) = (output.rows(piece / output.pieces), output.cols(piece % output.pieces));
                    if !rows.is_empty() && !cols.is_empty() {
                        // SAFETY: the columns of a piece end where those of the next one of its rows begin, and these rows where
                        // the next ones begin, so pieces are disjoint, and each is handed to one call. The views are made from
                        // an exclusive borrow, which outlives this.
                        let mut view = unsafe { output.out.part(rows.clone(), cols.clone()) };
                        f(&output.what, rows, cols, &mut view, room);
                    }
                    return;
                }
                piece -= output.all_pieces();
            }
        });
    }
}

/// An output that the pieces of a phase compute, each some columns of all rows or of a block of them, for
/// [`Team::run_columns`].
#[derive(Debug)]
pub struct Columns<'a, W, T> {
    what: W,
    out: ColsMut<'a, T>,
    panel: usize,
    /// Pieces of the columns.
    pieces: usize,
    /// Rows of a block.
    block: usize,
}

impl<'a, W, T> Columns<'a, W, T> {
    /// All columns of `out`, in `pieces` of nearly equal size, which begin at multiples of `panel`; `what` is passed to
    /// the function that computes them.
    pub fn new(what: W, out: ColsMut<'a, T>, panel: usize, pieces: usize) -> Self {
        Self { what, block: out.n().max(1), out, panel: panel.max(1), pieces: pieces.max(1) }
    }

    /// The same in blocks of `rows` rows, the last one of the rest: the columns of each are divided into pieces.
    pub fn in_blocks(self, rows: usize) -> Self {
        Self { block: rows.clamp(1, self.block), ..self }
    }

    /// Pieces of all blocks.
    fn all_pieces(&self) -> usize {
        self.out.n().div_ceil(self.block) * self.pieces
    }

    /// The rows of block `block`.
    fn rows(&self, block: usize) -> Range<usize> {
        let start = block * self.block;
        start..self.out.n().min(start + self.block)
    }

    /// The columns of piece `piece` in `out`.
    fn cols(&self, piece: usize) -> Range<usize> {
        let panels = share(self.out.width().div_ceil(self.panel), piece, self.pieces);
        let at = |panel: usize| panel.saturating_mul(self.panel).min(self.out.width());
        at(panels.start)..at(panels.end)
    }
}

/// Multiply-accumulates that are worth a piece: some microseconds.
const LEAST_WORK: usize = 256 << 10;
/// The maximum number of pieces for each thread: then a slow thread's last piece delays the others only a little.
const MOST_PIECES: usize = 32;

/// The number of pieces in which `threads` threads do a product of `rows` rows: a multiple of the threads; each has at
/// least `least_rows` rows if there are enough, and takes some microseconds. `work` counts the multiply-accumulates of
/// all rows.
///
/// ```
/// use ternary_kernels::team::pieces;
/// assert_eq!(pieces(2, 2560, 32, 2560 * 2560), 24);
/// assert_eq!(pieces(2, 256, 32, 256 * 256), 2);
/// assert_eq!(pieces(1, 2560, 32, 2560 * 2560), 1);
/// ```
pub fn pieces(threads: usize, rows: usize, least_rows: usize, work: usize) -> usize {
    if threads <= 1 {
        return 1;
    }
    let of_work = work / LEAST_WORK.saturating_mul(threads);
    let of_rows = rows / least_rows.max(1).saturating_mul(threads);
    threads.saturating_mul(of_work.min(of_rows).clamp(1, MOST_PIECES))
}

/// The sizes of a call of a kernel: `Kernel::block_tokens`, `Kernel::block_rows` and `Kernel::least_rows`.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The most tokens.
    pub tokens: usize,
    /// The most rows.
    pub rows: usize,
    /// Rows that it should have at least.
    pub least_rows: usize,
}

/// How `threads` threads share a product of `n` tokens with `[rows, cols]` weights: the tokens of a block, and the number of
/// pieces of the rows for each block. [`pieces`] if a call takes all tokens; otherwise as few as make two pieces for each thread, so
/// that each has many rows. Small matrices take more tokens at a time, but never more outputs than the largest call.
///
/// ```
/// use ternary_kernels::team::{Call, tokens_and_pieces};
/// let call = Call { tokens: 32, rows: 2560, least_rows: 640 };
/// let of = |threads, n, rows| tokens_and_pieces(threads, n, (rows, 2560), &call);
/// assert_eq!([32, 64, 96, 128, 512].map(|n| of(2, n, 2560)), [(32, 4), (32, 2), (32, 2), (32, 1), (32, 1)]);
/// assert_eq!([32, 128].map(|n| of(8, n, 2560)), [(32, 8), (32, 4)]);
/// assert_eq!(of(2, 512, 64), (96, 1));
/// assert_eq!(of(1, 128, 2560), (32, 1));
/// assert_eq!(tokens_and_pieces(2, 128, (2560, 2560), &Call { tokens: usize::MAX, ..call }).1, 4);
/// ```
pub fn tokens_and_pieces(threads: usize, n: usize, (rows, cols): (usize, usize), call: &Call) -> (usize, usize) {
    /// Multiply-accumulates beside which the beginning of a call hardly counts.
    const WORK: usize = 16 << 20;
    let work = |tokens: usize| rows.saturating_mul(cols).saturating_mul(tokens);
    let times = (WORK / work(call.tokens).max(1)).min(call.rows / rows.max(1)).max(1);
    let tokens = call.tokens.saturating_mul(times).max(1);
    let blocks = n.div_ceil(tokens);
    if threads <= 1 || blocks <= 1 {
        return (tokens, pieces(threads, rows, call.least_rows, work(n)));
    }
    let even = |&of_rows: &usize| {
        let all = blocks.saturating_mul(of_rows);
        all >= 2 * threads && (all.is_multiple_of(threads) || all >= 8 * threads)
    };
    let most = (rows / call.least_rows.max(1)).clamp(1, MOST_PIECES);
    (tokens, (1..=most).find(even).unwrap_or(most).max(threads.div_ceil(blocks)))
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop(self.workers.iter().map(JoinHandle::thread));
        for worker in self.workers.drain(..) {
            // A worker cannot panic: the panics of pieces are caught.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Team({} threads)", self.threads)
    }
}

/// The consecutive items of `0..len` that belong to `part`, if `parts` share them as evenly as whole items allow.
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

/// The first element of a slice whose elements are written by several threads, each element by one.
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
mod tests;
