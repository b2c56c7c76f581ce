//! The cost of a phase of a team, alone and with busy threads: `cargo run --release --example phase_speed [-- BUSY]`.
//!
//! It times empty phases, then steps of 200 phases of 32 pieces of 3 microseconds, as in a model; then the same steps
//! next to one endless loop per CPU, or to as many as the argument gives. Next to the result it prints the fair
//! share: what a scheduler that divides the CPUs evenly leaves to the team.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ternary_kernels::Team;

const PHASES: usize = 200;
const PIECES: usize = 32;

/// Some work; its amount does not depend on the thread that does it.
fn work(rounds: u32) {
    for i in 0..rounds {
        black_box(i.wrapping_mul(31));
    }
}

/// Steps per second within `time`.
fn steps(team: &Team, rounds: u32, time: Duration) -> f64 {
    let (began, mut steps) = (Instant::now(), 0);
    let mut rooms = vec![(); team.threads()];
    while began.elapsed() < time {
        for _ in 0..PHASES {
            team.run_pieces(&mut rooms, PIECES, |_, ()| work(rounds));
        }
        steps += 1;
    }
    f64::from(steps) / began.elapsed().as_secs_f64()
}

fn main() {
    let cpus = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let busy = std::env::args().nth(1).map_or(cpus.get(), |n| n.parse().expect("a number of busy threads"));
    let time = Duration::from_secs(2);
    let rounds = {
        let began = Instant::now();
        work(10_000_000);
        (3e-6 / began.elapsed().as_secs_f64() * 1e7) as u32
    };
    for threads in [1, cpus.get()] {
        let team = Team::new(NonZeroUsize::new(threads).unwrap()).expect("threads");
        let mut parts = vec![(); threads];
        let began = Instant::now();
        (0..100_000).for_each(|_| team.run_parts(&mut parts, |_, ()| ()));
        println!("{threads} threads: {:.0} ns for an empty phase", began.elapsed().as_secs_f64() * 1e4);
        let alone = steps(&team, rounds, time);
        let best = threads as f64 / (PHASES as f64 * PIECES as f64 * 3e-6);
        println!("{threads} threads: {alone:.1} steps/s alone, {:.0} % of the work's own time", alone / best * 100.0);
        for busy in 1..=busy {
            let stop = AtomicBool::new(false);
            let beside = std::thread::scope(|s| {
                (0..busy)
                    .for_each(|_| _ = s.spawn(|| (0..).take_while(|_| !stop.load(Relaxed)).for_each(|_| work(1000))));
                let beside = steps(&team, rounds, 2 * time);
                stop.store(true, Relaxed);
                beside
            });
            let (cpus, all) = (cpus.get() as f64, (threads + busy) as f64);
            let fair = (cpus / all).min(1.0);
            let share = 100.0 * beside / alone;
            println!("{threads} threads beside {busy} busy ones: {share:.0} %, fair share {:.0} %", fair * 100.0);
        }
    }
}
