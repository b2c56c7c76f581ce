//! Measures the limits of this machine: its memory bandwidth, which bounds decoding, and its rate of int8 products,
//! which bounds prefill.

mod peak;

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use crate::{AlignedBuf, KernelError, Team};

pub use peak::dot_peak;

/// Read bandwidth of main memory with `threads` threads, in GB/s (1e9 bytes per second): the best of the passes over
/// `bytes` of memory that fit into `time`, at least two.
/// Memory far larger than all caches (512 MiB and more) shows the speed of the memory, less shows the speed of the
/// caches.
/// Memory that is larger than all caches by far (512 MiB and more) shows the memory's speed, less shows the caches'.
///
/// # Errors
/// [`KernelError::ThreadNotStarted`] if the threads cannot be started.
///
/// ```
/// use std::time::Duration;
/// let gb_s = ternary_kernels::probe::read_bandwidth(std::num::NonZeroUsize::MIN, 1 << 20, Duration::from_millis(1)).unwrap();
/// assert!(gb_s > 0.0);
/// ```
pub fn read_bandwidth(threads: NonZeroUsize, bytes: usize, time: Duration) -> Result<f64, KernelError> {
    let team = Team::new(threads)?;
    let words = (bytes / 8).max(threads.get());
    let chunk = words.div_ceil(threads.get());
    let mut data = AlignedBuf::<u64>::for_weights(words);
    // Each thread touches its own part first, so that the pages exist and are close to it.
    team.for_each_chunk(&mut data, chunk, |i, part| part.fill(i as u64 + 1));
    let began = Instant::now();
    let mut best = f64::INFINITY;
    let mut passes = 0;
    while passes < 2 || began.elapsed() < time {
        let pass = Instant::now();
        team.for_each_chunk(&mut data, chunk, |_, part| {
            black_box(sum(part));
        });
        best = best.min(pass.elapsed().as_secs_f64());
        passes += 1;
    }
    Ok((words * 8) as f64 / best / 1e9)
}

/// Sums with independent accumulators, so that loads set the pace, not additions.
fn sum(part: &[u64]) -> u64 {
    let mut acc = [0u64; 32];
    let chunks = part.chunks_exact(32);
    let tail: u64 = chunks.remainder().iter().fold(0, |a, &b| a.wrapping_add(b));
    for chunk in chunks {
        for (a, &v) in acc.iter_mut().zip(chunk) {
            *a = a.wrapping_add(v);
        }
    }
    acc.iter().fold(tail, |a, &b| a.wrapping_add(b))
}
