//! The pieces of a job that one thread begins with. Why no thread reads a job that is over: [`super::crew`].

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicIsize, AtomicU32, AtomicUsize, Ordering::*};
use std::time::Duration;

/// The function of a job, called with thread `.0` and piece `.1`.
pub(super) type Job<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// The job of the pieces in a slot.
#[derive(Clone, Copy)]
pub(super) struct Task {
    pub(super) job: NonNull<Job<'static>>,
    /// The number after that of the last piece of the slot.
    pub(super) end: usize,
}

/// Counts how often the caller has called a worker.
pub(super) struct Bell(AtomicUsize);

impl Bell {
    pub(super) fn rung(&self) -> usize {
        self.0.load(Acquire)
    }

    /// Only one thread at a time rings.
    pub(super) fn ring(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Release);
    }
}

/// The pieces that one thread begins with. They share one cache line, which changes hands once when a job begins; slots
/// are two lines apart, since some CPUs fetch pairs.
#[repr(align(128))]
pub(super) struct Slot {
    pub(super) bell: Bell,
    /// Pieces that no thread has taken; 0 or less if there are none.
    left: AtomicIsize,
    /// This thread takes a piece only if more than so many are left in all slots.
    pub(super) leaves: AtomicU32,
    /// Nanoseconds that this thread took for each of its pieces of the last phase in which it did some, 0 if the caller has reset it.
    pub(super) took: AtomicU32,
    /// Written by a caller while no thread has a piece, read by threads that have one.
    task: UnsafeCell<Option<Task>>,
}

// SAFETY: only `task` is not Sync by itself. Only `Slot::fill` writes it, whose caller proves that every piece taken is
// done, and only a thread that has taken a piece reads it. The write happens before the reads through the store and the
// decrements of `left`, the reads before the next write through the increments and loads of `Shared::done`. The pointer
// in it leads to a `Sync` closure, which lives as long as pieces of it are not done.
unsafe impl Sync for Slot {}
// SAFETY: as above; nothing in it belongs to one thread.
unsafe impl Send for Slot {}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            bell: Bell(AtomicUsize::new(0)),
            left: AtomicIsize::new(0),
            leaves: AtomicU32::new(0),
            took: AtomicU32::new(0),
            task: UnsafeCell::new(None),
        }
    }

    /// Fills the slot with `len` pieces of a job.
    ///
    /// # Safety
    /// Every piece of any job that was taken is done, no other thread is in this function, and the job lives until
    /// these pieces are done.
    pub(super) unsafe fn fill(&self, task: Task, len: usize) {
        if len > 0 {
            // SAFETY: no thread has a piece, so none reads; and no other thread writes.
            unsafe { *self.task.get() = Some(task) };
            // Job sizes are lengths of slices and loops, far below half of the address space; `Shared::run` rejects
            // larger ones, which would be truncated here and never be done.
            self.left.store(len as isize, Release);
        }
    }

    /// Notes that the thread of this slot did `pieces` pieces of a phase within `time`.
    pub(super) fn note(&self, time: Duration, pieces: u32) {
        if let Some(piece) = time.checked_div(pieces) {
            self.took.store(u32::try_from(piece.as_nanos()).unwrap_or(u32::MAX).max(1), Relaxed);
        }
    }

    /// Pieces that no thread has taken.
    pub(super) fn left(&self) -> usize {
        self.left.load(Relaxed).max(0) as usize
    }

    /// Takes the next piece, if there is one.
    pub(super) fn take(&self) -> Option<(Task, usize)> {
        // Checked first: the cache line of an empty slot does not move, and the count falls below 0 by at most one for
        // each thread.
        if self.left.load(Relaxed) <= 0 {
            return None;
        }
        let left = self.left.fetch_sub(1, Acquire);
        if left <= 0 {
            return None;
        }
        // SAFETY: this thread has taken a piece, so the cell is not written before that piece is done.
        let task = unsafe { *self.task.get() }?;
        Some((task, task.end - left as usize))
    }
}
