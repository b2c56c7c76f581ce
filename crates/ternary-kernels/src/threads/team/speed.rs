//! The speeds of the workers, and the pieces that a slow one leaves to the others.
//!
//! A slow worker that takes one of the last pieces of a phase holds up all others: they are done with the rest before it is done
//! with that piece. So the caller compares, in some of the phases, the time that each worker took for a piece with its own, and tells
//! each worker how many pieces have to be left for it to take one.
//!
//! # How many
//!
//! Let a piece take the caller 1 and thread `v` the time `s_v`. A worker that takes a piece now ends with it after `s_w`. Until then a
//! thread `v`, which is somewhere within a piece, begins and ends `s_w / s_v - 1` further pieces on average (the expectation of
//! `floor(s_w / s_v - u)` for `u` evenly within 0..1). If no more pieces are left than the sum over the others, they do them all before
//! the worker would be done with one. Among equal threads the sum is 0, and everybody takes what there is. The caller takes pieces
//! while there are any, so that all are done whatever the workers decide.

use std::time::Duration;

/// One phase in so many is measured: the number of phases of a layer should not be a multiple of it.
const EVERY: u32 = 7;
/// Phases whose pieces are shorter say more about caches than about cores.
const LEAST_PIECE: Duration = Duration::from_micros(1);
/// Slower threads are not told apart, and one that has lost its CPU for a while does not count for long.
const SLOWEST: f32 = 8.0;
/// The weight of a measurement.
const WEIGHT: f32 = 1.0 / 8.0;
/// The share by which a worker without a piece in a measured phase is thought to come nearer to the others: after some hundred
/// phases it gets another trial.
const FORGETS: f32 = 1.0 / 64.0;

/// The times of the workers for a piece, as multiples of the caller's.
#[derive(Clone, Debug)]
pub(super) struct Speeds {
    /// One for each thread; the caller's is 1.
    times: Box<[f32]>,
    phases: u32,
}

impl Speeds {
    pub(super) fn new(threads: usize) -> Self {
        Self { times: vec![1.0; threads].into(), phases: 0 }
    }

    /// Counts a phase; whether it is one to be measured.
    pub(super) fn measures_next(&mut self) -> bool {
        self.phases = (self.phases + 1) % EVERY;
        self.phases == 0
    }

    /// Notes that the caller took `own` for each of its pieces of a phase, and that worker `i + 1` took `workers[i]`, in nanoseconds, 0 if
    /// it did none.
    pub(super) fn note(&mut self, own: Duration, workers: impl Iterator<Item = u32>) {
        if own < LEAST_PIECE {
            return;
        }
        let own = own.as_nanos() as f32;
        for (time, nanos) in self.times[1..].iter_mut().zip(workers) {
            let (found, weight) = match nanos {
                0 => (1.0, FORGETS),
                nanos => (nanos as f32 / own, WEIGHT),
            };
            *time += (found.clamp(1.0 / SLOWEST, SLOWEST) - *time) * weight;
        }
    }

    /// The most pieces that worker `me` leaves to the others; 0 for a worker that is about as fast as they are.
    pub(super) fn leaves(&self, me: usize) -> u32 {
        let mine = self.times[me];
        let others = self.times.iter().enumerate().filter(|(i, _)| *i != me);
        // At most `SLOWEST` squared for each thread.
        others.map(|(_, time)| (mine / time - 1.0).max(0.0)).sum::<f32>() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speeds(times: &[f32]) -> Speeds {
        Speeds { times: times.into(), phases: 0 }
    }

    /// The time of a phase of `pieces` equal pieces, which thread `i` does in `times[i]` each, if each takes the next one as soon as it is
    /// done, as long as it may.
    fn phase(times: &[f32], pieces: u32, leaves: impl Fn(usize) -> u32) -> f32 {
        let mut free = vec![0.0; times.len()];
        let mut left = pieces;
        let mut end = 0.0f32;
        while left > 0 {
            // The caller is never out, so there is one.
            let may = (0..times.len()).filter(|&i| i == 0 || left > leaves(i));
            let next = may.min_by(|a, b| f32::total_cmp(&free[*a], &free[*b])).unwrap();
            free[next] += times[next];
            end = end.max(free[next]);
            left -= 1;
        }
        end
    }

    #[test]
    fn equal_workers_leave_nothing() {
        for threads in 1..20 {
            let speeds = Speeds::new(threads);
            assert!((1..threads).all(|i| speeds.leaves(i) == 0));
        }
        // Nor do those that differ a little, or are faster than the caller.
        assert_eq!(speeds(&[1.0, 1.4]).leaves(1), 0);
        assert_eq!(speeds(&[1.0, 0.4, 0.4]).leaves(2), 0);
    }

    #[test]
    fn a_slow_worker_leaves_what_the_others_do_meanwhile() {
        assert_eq!(speeds(&[1.0, 2.5]).leaves(1), 1);
        assert_eq!(speeds(&[1.0, 4.0]).leaves(1), 3);
        // Two fast ones do twice as much.
        assert_eq!(speeds(&[1.0, 1.0, 4.0]).leaves(2), 6);
        // Next to others as slow as itself only the fast ones count.
        assert_eq!(speeds(&[1.0, 4.0, 4.0]).leaves(2), 3);
    }

    #[test]
    fn phases_end_earlier() {
        let mean = |times: &[f32], leaves: &dyn Fn(usize) -> u32| {
            let ideal = |pieces: u32| pieces as f32 / times.iter().map(|t| 1.0 / t).sum::<f32>();
            (2..=64).map(|pieces| ideal(pieces) / phase(times, pieces, leaves)).sum::<f32>() / 63.0
        };
        for times in [&[1.0f32, 2.5][..], &[1.0, 4.0], &[1.0, 1.0, 3.0], &[1.0, 1.0, 1.0, 1.0, 2.5, 2.5, 2.5, 2.5]] {
            let speeds = speeds(times);
            let (greedy, reluctant) = (mean(times, &|_| 0), mean(times, &|i| speeds.leaves(i)));
            assert!(reluctant > greedy, "{times:?}: {reluctant} after {greedy} of the sum of all speeds");
        }
        // Halves: the caller does both.
        assert_eq!(phase(&[1.0, 2.5], 2, |i| speeds(&[1.0, 2.5]).leaves(i)), 2.0);
        assert_eq!(phase(&[1.0, 4.0], 2, |i| speeds(&[1.0, 4.0]).leaves(i)), 2.0);
    }

    #[test]
    fn speeds_follow_what_is_measured() {
        let mut speeds = Speeds::new(3);
        let own = Duration::from_micros(4);
        (0..60).for_each(|_| speeds.note(own, [11_000, 4000].into_iter()));
        assert!((speeds.times[1] - 2.75).abs() < 0.01 && (speeds.times[2] - 1.0).abs() < 0.01, "{speeds:?}");
        assert_eq!([speeds.leaves(1), speeds.leaves(2)], [3, 0]);
        // A worker that lost its CPU once is not slow for long.
        speeds.note(own, [11_000, u32::MAX].into_iter());
        (0..8).for_each(|_| speeds.note(own, [11_000, 4000].into_iter()));
        assert_eq!(speeds.leaves(2), 0, "{speeds:?}");
        // Short pieces say nothing; one that takes no pieces gets a trial some time.
        speeds.note(Duration::from_nanos(900), [900, 90_000].into_iter());
        assert_eq!(speeds.leaves(2), 0);
        (0..300).for_each(|_| speeds.note(own, [0, 4000].into_iter()));
        assert_eq!(speeds.leaves(1), 0, "{speeds:?}");
        let measured = (0..70).filter(|_| speeds.measures_next()).count();
        assert_eq!(measured, 10);
    }
}
