//! Turns of the engines of several models: they compute one after the other, pass by pass, for two that compute at once
//! share the same CPUs, and their threads would wait for each other.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Who has the turn. They come in the order in which they were asked for.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the next one that asks.
    next: u64,
    /// The number that has the turn, or will have it.
    now: u64,
}

/// A turn; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'t>(&'t Turns);

impl Turns {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn.
    pub(crate) fn take(&self) -> Turn<'_> {
        let mut state = self.lock();
        let mine = state.next;
        state.next += 1;
        while state.now != mine {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().now += 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn turns_come_in_order_and_one_at_a_time() {
        let turns = Turns::default();
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            let first = turns.take();
            for number in 0..4 {
                let (turns, tell) = (&turns, tell.clone());
                scope.spawn(move || {
                    let _turn = turns.take();
                    tell.send(number).unwrap();
                });
                // The next one asks after this one.
                while turns.lock().next < number + 2 {
                    std::thread::yield_now();
                }
            }
            assert!(told.try_recv().is_err(), "the first one has the turn");
            drop(first);
        });
        assert_eq!(told.try_iter().collect::<Vec<u64>>(), [0, 1, 2, 3]);
    }
}
