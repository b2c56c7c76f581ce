//! The speed beside other programs, and with a thread that is slower than the others.

use serde::Serialize;

use super::steps::Measured;
use crate::commands::beside::fair_share;
use crate::process;

/// The object that `--beside` adds.
#[derive(Debug, Serialize)]
pub(super) struct Beside {
    /// Busy processes.
    pub(super) busy: u32,
    pub(super) prefill_tok_s: Option<f64>,
    pub(super) decode_tok_s: Option<f64>,
    /// Share of the prefill speed without busy processes.
    pub(super) prefill_share: Option<f64>,
    /// Share of the decode speed without busy processes.
    pub(super) decode_share: Option<f64>,
    /// Share of the speed under a scheduler that divides the CPUs evenly.
    pub(super) fair_share: f64,
}

fn rate(measured: &Option<Measured>) -> Option<f64> {
    measured.as_ref().map(|m| m.rates.median())
}

impl Beside {
    pub(super) fn of(busy: u32, threads: usize, alone: [&Option<Measured>; 2], beside: [&Option<Measured>; 2]) -> Self {
        let share = |i: usize| Some(rate(beside[i])? / rate(alone[i])?);
        Self {
            busy,
            prefill_tok_s: rate(beside[0]),
            decode_tok_s: rate(beside[1]),
            prefill_share: share(0),
            decode_share: share(1),
            fair_share: fair_share(process::cpus().get(), threads, busy),
        }
    }
}

/// The object that `--slow-worker` adds.
#[derive(Debug, Serialize)]
pub(super) struct SlowWorker {
    /// How much slower the last thread was.
    pub(super) times: f32,
    pub(super) prefill_tok_s: Option<f64>,
    pub(super) decode_tok_s: Option<f64>,
    /// Share of the sum of all threads' speeds: see [`sum`].
    pub(super) prefill_share: Option<f64>,
    pub(super) decode_share: Option<f64>,
}

impl SlowWorker {
    /// Of prefill and decode: the speeds with all threads alike, without the last one, and with it slow.
    pub(super) fn of(times: f32, threads: usize, speeds: [[&Option<Measured>; 3]; 2]) -> Self {
        let share = |i: usize| {
            let [alike, without, slow] = speeds[i].map(rate);
            Some(slow? / sum(alike?, without?, threads, f64::from(times)))
        };
        let [prefill_share, decode_share] = [share(0), share(1)];
        let [prefill_tok_s, decode_tok_s] = speeds.map(|[_, _, slow]| rate(slow));
        Self { times, prefill_tok_s, decode_tok_s, prefill_share, decode_share }
    }
}

/// The speed that all but one of `threads` have, and what one adds that is `times` as slow as each of them; but no more
/// than when all are `alike`, where memory or the units that hardware threads share set a limit.
fn sum(alike: f64, without: f64, threads: usize, times: f64) -> f64 {
    let others = threads.max(2) as f64 - 1.0;
    (without * (1.0 + 1.0 / (others * times))).min(alike)
}

/// How much slower a thread can be.
pub(super) fn times(text: &str) -> Result<f32, String> {
    let range = 1.0..=100.0;
    text.parse().ok().filter(|t| range.contains(t)).ok_or_else(|| format!("{text:?} is not a number from 1 to 100"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_add_up_to_what_all_alike_have() {
        assert_eq!(sum(20.0, 10.0, 2, 2.5), 14.0);
        assert_eq!(sum(40.0, 30.0, 4, 2.0), 35.0);
        // Both hardware threads of a core, or memory that two fill.
        assert_eq!(sum(12.0, 10.0, 2, 2.0), 12.0);
    }

    #[test]
    fn times_are_numbers_of_one_and_more() {
        assert_eq!(times("2.5"), Ok(2.5));
        for bad in ["0.9", "inf", "NaN", "101", "", "x"] {
            assert!(times(bad).is_err(), "{bad}");
        }
    }
}
