//! Times every kernel of this CPU: GEMV and GEMM of a 6912 x 2560 matrix, weights warm in the cache, and GEMV over
//! enough matrices that the weights come from memory.
//!
//! `cargo run --release --example kernel_speed`

use std::hint::black_box;
use std::time::Instant;

use ternary_kernels::{Int8Batch, Scales, TernaryMatrix, registry};

const ROWS: usize = 6912;
const COLS: usize = 2560;

/// Best and median of `runs` timings in seconds.
fn time(runs: usize, mut f: impl FnMut()) -> (f64, f64) {
    f();
    let mut seconds: Vec<f64> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    (seconds[0], seconds[runs / 2])
}

fn main() {
    let mut state = 1u64;
    let mut next = |n: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % n
    };
    let trits: Vec<i8> = (0..ROWS * COLS).map(|_| next(3) as i8 - 1).collect();
    let w = TernaryMatrix::from_trits(ROWS, COLS, &trits, Scales::Tensor(1.0)).expect("trits");
    let codes: Vec<i8> = (0..512 * COLS).map(|_| (next(255) as i16 - 127) as i8).collect();
    println!("{ROWS} x {COLS}, one thread; best and median");
    for entry in registry() {
        let Some(kernel) = entry.kernel() else {
            println!("{:16} not on this CPU", entry.name);
            continue;
        };
        let start = Instant::now();
        let packed = kernel.prepack(&w).expect("prepack");
        let prepack = start.elapsed().as_secs_f64();
        println!("{:16} prepack {:.2} Gweights/s", entry.name, (ROWS * COLS) as f64 / prepack / 1e9);
        let bytes = packed.byte_len() as f64;
        let mut acc = vec![0; 512 * ROWS];
        let x = Int8Batch::from_codes(1, COLS, &codes[..COLS]).expect("codes");
        let (best, median) = time(200, || kernel.gemv(black_box(&packed.all()), &x.view().row(0), &mut acc[..ROWS]));
        println!("    gemv warm      {:7.4} {:7.4} ms {:6.1} GB/s", best * 1e3, median * 1e3, bytes / best / 1e9);
        // 32 copies are 141 MB, beyond any cache of the kind.
        let copies: Vec<_> = (0..32).map(|_| kernel.prepack(&w).expect("prepack")).collect();
        let (best, median) = time(8, || {
            copies.iter().for_each(|c| kernel.gemv(black_box(&c.all()), &x.view().row(0), &mut acc[..ROWS]));
        });
        let gb = 32.0 * bytes / best / 1e9;
        println!("    gemv memory    {:7.4} {:7.4} ms {gb:6.1} GB/s", best / 32.0 * 1e3, median / 32.0 * 1e3);
        for n in [2, 4, 8] {
            let x = Int8Batch::from_codes(n, COLS, &codes[..n * COLS]).expect("codes");
            let (best, median) = time(8, || {
                copies.iter().for_each(|c| kernel.gemm(black_box(&c.all()), &x.view(), &mut acc[..n * ROWS]));
            });
            println!("    gemm memory N={n} {:5.3} {:7.3} ms", best / 32.0 * 1e3, median / 32.0 * 1e3);
        }
        for n in [2, 4, 8, 12, 13, 128, 512] {
            let x = Int8Batch::from_codes(n, COLS, &codes[..n * COLS]).expect("codes");
            let runs = if n > 128 { 4 } else { 20 };
            let (best, median) = time(runs, || {
                kernel.gemm(black_box(&packed.all()), &x.view(), &mut acc[..n * ROWS]);
            });
            let gop = 2.0 * (n * ROWS * COLS) as f64 / best / 1e9;
            println!("    gemm N={n:<4}    {:7.3} {:7.3} ms {gop:6.0} GOP/s", best * 1e3, median * 1e3);
        }
    }
}
