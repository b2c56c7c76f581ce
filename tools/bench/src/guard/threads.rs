//! Threads that lose their CPU, and slow ones, must not hold up the others.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ternary_kernels::Team;

use super::{Sabotage, Verdict, least_of};
use crate::error::BenchError;

/// Phases of a step, as many as a model of thirty layers has.
const PHASES: usize = 200;
/// Pieces of a phase, of some microseconds each.
const PIECES: usize = 32;

/// Some work, the same on every thread.
fn piece() {
    for i in 0..4000u32 {
        black_box(i);
    }
}

/// A phase; if damaged, its halves are bound to their threads.
fn phase(team: &Team, damaged: bool) {
    if !damaged || team.threads() == 1 {
        return team.run_parts(&mut [(); PIECES], |_, ()| piece());
    }
    let come = AtomicUsize::new(0);
    team.run(&|_| {
        come.fetch_add(1, Relaxed);
        while come.load(Relaxed) < team.threads() {
            std::thread::yield_now();
        }
        (0..PIECES / team.threads()).for_each(|_| piece());
    });
}

/// Steps per second, of a whole second.
fn steps(team: &Team, damaged: bool) -> f64 {
    let (began, mut steps) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(1) {
        (0..PHASES).for_each(|_| phase(team, damaged));
        steps += 1;
    }
    f64::from(steps) / began.elapsed().as_secs_f64()
}

pub(super) fn check(sabotage: Option<Sabotage>, verdict: &mut Verdict) -> Result<(), BenchError> {
    let damaged = sabotage == Some(Sabotage::Halves);
    let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let two = NonZeroUsize::MIN.saturating_add(1);
    let both = Team::new(two)?;
    let alone = steps(&both, damaged);
    let stop = AtomicBool::new(false);
    let beside = std::thread::scope(|s| {
        for _ in 0..cpus {
            s.spawn(|| {
                while !stop.load(Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let beside = steps(&both, damaged);
        stop.store(true, Relaxed);
        beside
    });
    // A fair scheduler leaves a half or more. Where each phase waits for both threads, a twentieth is left.
    verdict.at_least("2 threads beside a busy one for each CPU", beside / alone, 0.2);
    if cpus < 2 {
        return Ok(());
    }
    let one = Team::new(NonZeroUsize::MIN)?;
    let unlike = Team::new(two)?;
    unlike.slow_thread(1, 3.0);
    let [single, unlike] = least_of(20, [&mut || phase(&one, damaged), &mut || phase(&unlike, damaged)]);
    // Four thirds of one thread would be all of it; with fixed halves two thirds.
    verdict.at_least("a thread and one of a third of its speed", single / unlike, 1.1);
    Ok(())
}
