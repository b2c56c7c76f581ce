//! Timing of candidates that take turns.

use std::time::{Duration, Instant};

use crate::Samples;

/// Repetitions in a timing, at the most, however fast a candidate is.
const MAX_REPEATS: u32 = 1000;

/// How candidates are timed: in each round every candidate once, and every round begins with another one. So a change
/// of the machine's speed affects all of them, and their figures can be compared.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    rounds: usize,
    warm_each_turn: bool,
    at_least: Duration,
}

/// The order in which `candidates` candidates take their turn in a round: each round begins with another one.
///
/// ```
/// assert_eq!(measure::order(1, 3).collect::<Vec<_>>(), [1, 2, 0]);
/// ```
pub fn order(round: usize, candidates: usize) -> impl Iterator<Item = usize> {
    (0..candidates).map(move |turn| (round + turn) % candidates)
}

impl Turns {
    /// `rounds` timings of each candidate, each after an untimed run, which fills the caches.
    pub fn new(rounds: usize) -> Self {
        Self { rounds, warm_each_turn: true, at_least: Duration::ZERO }
    }

    /// Warms up before the first round only.
    #[must_use]
    pub fn warm_once(self) -> Self {
        Self { warm_each_turn: false, ..self }
    }

    /// Repeats fast candidates within a timing (at most a thousand times) until it takes about this long, so that the
    /// resolution of the clock does not count. The samples are still those of one run.
    #[must_use]
    pub fn at_least(self, time: Duration) -> Self {
        Self { at_least: time, ..self }
    }

    /// Seconds of one run of each candidate, in the order of `candidates`.
    pub fn time<T>(self, candidates: &[T], mut run: impl FnMut(&T)) -> Vec<Samples> {
        let mut seconds = |candidate: &T, repeats: u32| {
            let began = Instant::now();
            (0..repeats).for_each(|_| run(candidate));
            began.elapsed().as_secs_f64() / f64::from(repeats)
        };
        let repeats: Vec<u32> = candidates
            .iter()
            .map(|c| {
                if !self.warm_each_turn {
                    seconds(c, 1);
                }
                match self.at_least.is_zero() {
                    true => 1,
                    false => (self.at_least.as_secs_f64() / seconds(c, 1).max(1e-9)).clamp(1.0, f64::from(MAX_REPEATS))
                        as u32,
                }
            })
            .collect();
        let mut all = vec![Vec::with_capacity(self.rounds); candidates.len()];
        for round in 0..self.rounds {
            for i in order(round, candidates.len()) {
                if self.warm_each_turn {
                    seconds(&candidates[i], 1);
                }
                all[i].push(seconds(&candidates[i], repeats[i]));
            }
        }
        all.into_iter().map(Samples::from).collect()
    }

    /// Medians of [`Turns::time`], in seconds.
    pub fn medians<T>(self, candidates: &[T], run: impl FnMut(&T)) -> Vec<f64> {
        self.time(candidates, run).iter().map(Samples::median).collect()
    }

    /// Seconds of one run of `run`.
    pub fn time_one(self, mut run: impl FnMut()) -> Samples {
        self.time(&[()], |()| run()).pop().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_take_turns_and_each_round_begins_with_another() {
        let mut order = String::new();
        let samples = Turns::new(3).time(&['a', 'b'], |c| order.push(*c));
        assert_eq!(order, "aabbbbaaaabb");
        assert_eq!(samples.iter().map(Samples::len).collect::<Vec<_>>(), [3, 3]);
        order.clear();
        Turns::new(2).warm_once().time(&['a', 'b'], |c| order.push(*c));
        assert_eq!(order, "ababba");
    }

    #[test]
    fn fast_candidates_are_repeated_and_slow_ones_are_not() {
        let mut runs = [0u32; 2];
        let turns = Turns::new(2).warm_once().at_least(Duration::from_millis(1));
        turns.time(&[0, 1], |&i| {
            runs[i] += 1;
            if i == 1 {
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        // Once to warm up, once to see how long it takes, then two timings.
        assert_eq!(runs[1], 4);
        assert!((5..=2 + 2 * MAX_REPEATS).contains(&runs[0]), "{runs:?}");
    }

    #[test]
    fn no_candidates_and_no_rounds_give_no_samples() {
        assert!(Turns::new(3).time(&[] as &[()], |()| ()).is_empty());
        assert!(Turns::new(0).time_one(|| ()).is_empty());
    }
}
