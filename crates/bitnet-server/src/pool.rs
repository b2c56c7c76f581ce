//! Threads that compute for requests before the engine has them: they read large bodies, cut texts into tokens, build
//! constraints.
//!
//! They are not the runtime's: those wait for each other at the end, and a request that takes all of them would stop
//! everybody. Each kind of work has its own few threads and its own bounded queue.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

/// Parsers recurse, within their limits.
const STACK_BYTES: usize = 8 << 20;

/// Some threads and their queue. It ends when it is dropped; running work is not awaited.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Tasks that may wait.
    queue: usize,
    closing: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Task>,
    /// Threads without work.
    idle: usize,
    closed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("waiting", &self.waiting.len()).field("idle", &self.idle).finish_non_exhaustive()
    }
}

struct Task {
    asker: Asker,
    work: Box<dyn FnOnce(&Asker) + Send>,
}

/// The receiver of a result.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    gone: Arc<AtomicBool>,
    deadline: Instant,
}

impl Asker {
    /// One that waits for an hour.
    pub(crate) fn patient() -> Self {
        Self { gone: Arc::default(), deadline: Instant::now() + Duration::from_secs(3600) }
    }

    /// Whether the work was cancelled: the client is gone or its time is over. Work in several parts checks this
    /// between them.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Relaxed) || Instant::now() >= self.deadline
    }
}

/// Cancels the work: notifies its thread, and removes it from the queue if it has not begun.
struct Leave<'a> {
    shared: &'a Shared,
    gone: Arc<AtomicBool>,
    begun: Arc<AtomicBool>,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.gone.store(true, Relaxed);
        if !self.begun.load(Relaxed) {
            self.shared.forget_gone();
        }
    }
}

/// Why some work was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undone {
    /// Too much waits already.
    Full,
    /// It had no turn in time.
    Waited(Duration),
    /// It had begun and did not end in time.
    Late(Duration),
    /// It panicked.
    Failed,
    /// The server ends.
    Closing,
}

impl Pool {
    /// So many threads, and so many tasks that may wait for one.
    pub(crate) fn start(name: &str, threads: usize, queue: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            queue,
            closing: watch::Sender::new(false),
        });
        let pool = Self { shared };
        for _ in 0..threads.max(1) {
            let shared = pool.shared.clone();
            std::thread::Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(move || shared.work())?;
        }
        Ok(pool)
    }

    /// Has `work` done by one of the threads. It must be ready `limit` after `arrived`. If the future is dropped
    /// before, because the client is gone, work that has not begun never does.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        arrived: Instant,
        limit: Duration,
        work: impl FnOnce(&Asker) -> T + Send + 'static,
    ) -> Result<T, Undone> {
        let asker = Asker { gone: Arc::default(), deadline: arrived + limit };
        let (answer, result) = oneshot::channel();
        let begun = Arc::new(AtomicBool::new(false));
        let _leave = Leave { shared: &self.shared, gone: asker.gone.clone(), begun: begun.clone() };
        let begins = begun.clone();
        let deadline = asker.deadline;
        let work = move |asker: &Asker| {
            begins.store(true, Relaxed);
            // A panic drops the other end of the channel.
            if let Ok(result) = catch_unwind(AssertUnwindSafe(|| work(asker))) {
                let _ = answer.send(result);
            }
        };
        self.shared.push(Task { asker, work: Box::new(work) })?;
        let mut closing = self.shared.closing.subscribe();
        tokio::select! {
            biased;
            result = result => result.map_err(|_| if *closing.borrow() { Undone::Closing } else { Undone::Failed }),
            () = told(&mut closing) => Err(Undone::Closing),
            () = tokio::time::sleep_until(deadline.into()) => {
                Err(if begun.load(Relaxed) { Undone::Late(limit) } else { Undone::Waited(limit) })
            }
        }
    }

    /// Tasks that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.lock().waiting.len()
    }

    /// Accepts nothing more, and notifies everyone who waits.
    pub(crate) fn close(&self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let dropped = std::mem::take(&mut state.waiting);
        drop(state);
        self.shared.closing.send_replace(true);
        self.shared.changed.notify_all();
        drop(dropped);
    }
}

/// Waits until the end is announced.
pub(crate) async fn told(closing: &mut watch::Receiver<bool>) {
    // The other side is gone only when that is.
    let _ = closing.wait_for(|closing| *closing).await;
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, task: Task) -> Result<(), Undone> {
        let mut state = self.lock();
        if state.closed {
            return Err(Undone::Closing);
        }
        let full = |state: &State| state.waiting.len() >= self.queue.saturating_add(state.idle);
        if full(&state) {
            return Err(Undone::Full);
        }
        state.waiting.push_back(task);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Removes cancelled tasks.
    fn forget_gone(&self) {
        let mut state = self.lock();
        let (gone, waiting) = std::mem::take(&mut state.waiting).into_iter().partition(|task| task.asker.is_gone());
        state.waiting = waiting;
        drop(state);
        // The dropped tasks may be large.
        drop::<VecDeque<Task>>(gone);
    }

    /// Main loop of a thread.
    fn work(&self) {
        while let Some(task) = self.next() {
            (task.work)(&task.asker);
        }
    }

    /// The next task; `None` when the pool has ended.
    fn next(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            while let Some(task) = state.waiting.pop_front() {
                if !task.asker.is_gone() {
                    return Some(task);
                }
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const LONG: Duration = Duration::from_secs(60);

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn work_is_done_refused_or_given_up() {
        let pool = Pool::start("test", 1, 1).unwrap();
        block_on(async {
            assert_eq!(pool.run(Instant::now(), LONG, |_| 5).await, Ok(5));
            let (hold, held) = channel::<()>();
            let (begun, begins) = channel();
            let busy = pool.run(Instant::now(), LONG, move |_| {
                begun.send(()).unwrap();
                held.recv().unwrap();
                1
            });
            let mut busy = std::pin::pin!(busy);
            assert!(futures_poll(busy.as_mut()).is_none());
            begins.recv().unwrap();
            // One waits, the next is rejected; when the waiting one is gone there is room again, and it never begins.
            let (never, nothing) = channel();
            let mut waiting = Box::pin(pool.run(Instant::now(), LONG, move |_| never.send(()).unwrap()));
            assert!(futures_poll(waiting.as_mut()).is_none());
            assert_eq!(pool.run(Instant::now(), LONG, |_| ()).await, Err(Undone::Full));
            drop(waiting);
            assert_eq!(pool.waiting(), 0);
            let short = Duration::from_millis(20);
            assert_eq!(pool.run(Instant::now(), short, |_| ()).await, Err(Undone::Waited(short)));
            assert_eq!(pool.waiting(), 0);
            hold.send(()).unwrap();
            assert_eq!(busy.await, Ok(1));
            assert!(nothing.recv().is_err());
            // Work that does not end in time is notified, and can notice it.
            let (seen, sees) = channel();
            let late = pool.run(Instant::now(), short, move |asker: &Asker| {
                while !asker.is_gone() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                seen.send(()).unwrap();
            });
            assert!(matches!(late.await, Err(Undone::Late(_)) | Ok(())));
            sees.recv().unwrap();
            assert_eq!(pool.run(Instant::now(), LONG, |_| 7).await, Ok(7));
        });
    }

    #[test]
    fn an_end_is_told_to_those_who_wait() {
        let pool = Pool::start("test", 1, 4).unwrap();
        let (hold, held) = channel::<()>();
        block_on(async {
            let mut busy = Box::pin(pool.run(Instant::now(), LONG, move |_| held.recv().unwrap_or(())));
            let mut waiting = Box::pin(pool.run(Instant::now(), LONG, |_| ()));
            assert!(futures_poll(busy.as_mut()).is_none() && futures_poll(waiting.as_mut()).is_none());
            pool.close();
            assert_eq!((busy.await, waiting.await), (Err(Undone::Closing), Err(Undone::Closing)));
            assert_eq!(pool.run(Instant::now(), LONG, |_| ()).await, Err(Undone::Closing));
        });
        drop(hold);
    }

    /// Polls once.
    fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
