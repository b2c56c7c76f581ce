//! The guard: checks of speed that can run anywhere, because each compares two things measured in turn in the same
//! process, or counts bytes, or compares bits. No check knows a time in seconds.
//!
//! A time is the least of many rounds, and the rounds of both sides alternate: other work on a shared machine can only
//! add to some rounds. Each limit is where the purpose of the code would be lost, far from the measured values: a check
//! fails if a kernel is no longer used, a loop runs on one lane, or a step does its work twice; a loss of a tenth is
//! for `--compare` to find.

mod checks;
mod damage;
mod threads;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitnet_model::{Engine, EngineOptions, ModelConfig, ModelWeights, SyntheticWeights};
use measure::Turns;
use ternary_kernels::Kernel;

use crate::error::BenchError;

pub(crate) use damage::Sabotage;

/// Checks of one kind.
type Checks = fn(&Subject, &mut Verdict) -> Result<(), BenchError>;

/// Runs every check; with one part damaged, every kind of checks until one of a kind fails.
///
/// # Errors
/// [`BenchError::Guard`] if one fails.
pub(crate) fn run(sabotage: Option<Sabotage>) -> Result<(), BenchError> {
    let began = Instant::now();
    let mut verdict = Verdict::default();
    let subject = Subject::new(sabotage)?;
    let bytes: Checks = |subject, verdict| {
        checks::bytes(subject, verdict);
        Ok(())
    };
    let threads: Checks = |subject, verdict| threads::check(subject.sabotage, verdict);
    let kinds: [Checks; 6] = [checks::bits, bytes, checks::kernels, checks::many_tokens, checks::engine, threads];
    for checks in kinds {
        checks(&subject, &mut verdict)?;
        if sabotage.is_some() && verdict.failed > 0 {
            break;
        }
    }
    println!("guard: {} checks, {} failed, {:.1} s", verdict.checks, verdict.failed, began.elapsed().as_secs_f64());
    match verdict.failed {
        0 => Ok(()),
        count => Err(BenchError::Guard { count }),
    }
}

/// The kernels and the model that are checked, perhaps damaged.
struct Subject {
    weights: ModelWeights,
    sabotage: Option<Sabotage>,
}

impl Subject {
    fn new(sabotage: Option<Sabotage>) -> Result<Self, BenchError> {
        // Wide enough that products take nearly all of the time, and a head that takes nearly none.
        let config = ModelConfig::new(256, 1280, 3456, 3, 10, 5);
        Ok(Self { weights: ModelWeights::from_source(&SyntheticWeights::new(config, 1))?, sabotage })
    }

    /// A kernel as the check of kernels sees it.
    fn kernel(&self, kernel: Arc<dyn Kernel>) -> Arc<dyn Kernel> {
        match self.sabotage {
            Some(Sabotage::Kernel) => damage::slow(kernel, 64),
            _ => kernel,
        }
    }

    /// An engine with the best kernel.
    fn engine(&self, threads: usize) -> Result<Engine, BenchError> {
        let kernel = ternary_kernels::best()?;
        let kernel = match self.sabotage {
            Some(Sabotage::Engine) => damage::slow(kernel, 16),
            Some(Sabotage::Threads) => damage::by_part(kernel),
            Some(Sabotage::Batch) => damage::by_batch(kernel),
            _ => kernel,
        };
        Ok(Engine::new(&self.weights, &EngineOptions::default().threads(threads).kernel(kernel))?)
    }
}

/// Results of the checks.
#[derive(Debug, Default)]
struct Verdict {
    checks: usize,
    failed: usize,
}

impl Verdict {
    /// Notes and prints one check.
    fn note(&mut self, passed: bool, name: &str, says: &str) {
        self.checks += 1;
        self.failed += usize::from(!passed);
        println!("{}  {name:<44} {says}", if passed { "ok  " } else { "FAIL" });
    }

    /// A ratio that has to be at least `least`.
    fn at_least(&mut self, name: &str, ratio: f64, least: f64) {
        self.note(ratio >= least, name, &format!("{ratio:.2}x, at least {least}x"));
    }

    /// A ratio that may be at most `most`.
    fn at_most(&mut self, name: &str, ratio: f64, most: f64) {
        self.note(ratio <= most, name, &format!("{ratio:.2}x, at most {most}x"));
    }
}

/// Shortest timing.
const SLICE: Duration = Duration::from_micros(200);

/// Least seconds of each of `works` over `rounds` rounds in which they alternate. Each is repeated within a round
/// until it takes about [`SLICE`], so that the clock's own resolution does not count.
pub(crate) fn least_of<const N: usize>(rounds: usize, mut works: [&mut dyn FnMut(); N]) -> [f64; N] {
    let indices: [usize; N] = std::array::from_fn(|i| i);
    let samples = Turns::new(rounds).warm_once().at_least(SLICE).time(&indices, |&i| works[i]());
    indices.map(|i| samples[i].least())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits and bytes only: checks that depend on time are run by continuous integration as a command, not as a test.
    fn failed(sabotage: Option<Sabotage>) -> usize {
        let mut verdict = Verdict::default();
        let subject = Subject::new(sabotage).unwrap();
        checks::bits(&subject, &mut verdict).unwrap();
        checks::bytes(&subject, &mut verdict);
        assert!(verdict.checks > 3);
        verdict.failed
    }

    #[test]
    fn exact_checks_pass_and_can_fail() {
        assert_eq!(failed(None), 0);
        assert!(failed(Some(Sabotage::Threads)) > 0);
        assert!(failed(Some(Sabotage::Batch)) > 0);
    }

    #[test]
    fn limits_hold_from_their_side() {
        let mut v = Verdict::default();
        v.at_least("a", 2.0, 2.0);
        v.at_most("b", 2.0, 2.0);
        assert_eq!((v.checks, v.failed), (2, 0));
        v.at_least("c", 1.9, 2.0);
        v.at_most("d", 2.1, 2.0);
        v.at_least("e", f64::NAN, 2.0);
        assert_eq!((v.checks, v.failed), (5, 3));
    }

    #[test]
    fn the_least_is_found() {
        let (mut a, mut b) = (0, 0);
        let [x, y] = least_of(3, [&mut || a += 1, &mut || b += 1]);
        assert!(x.is_finite() && y.is_finite() && a >= 5 && b >= 5);
    }
}
