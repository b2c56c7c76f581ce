//! Times every kernel of this CPU on a 6912 x 2560 matrix: packing, GEMV and GEMM with the weights in the cache, and
//! both over so many matrices that the weights come from memory, with one thread and with several.
//!
//! Timings of all kernels take turns, so that a change of the machine's speed affects all of them: compare columns with
//! each other. `cargo run --release --example kernel_speed -- [--cached] [NAME]...` runs the kernels whose names
//! contain one of `NAME`. With `--cached`, one thread multiplies two shapes with one and with 128 tokens and prints one
//! line for each kernel. With `--gemm` it multiplies them with several numbers of tokens, in blocks of rows like an
//! engine, and prints GOP/s.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use measure::Turns;
use ternary_kernels::{Entry, Int8Batch, Kernel, Packed, Scales, Team, TernaryMatrix, registry};
use test_support::Random;

const ROWS: usize = 6912;
const COLS: usize = 2560;
/// Copies of the weights, more than any cache holds: 283 MB with two bits, 226 MB with 1.6.
const COPIES: usize = 64;
/// Timings of each kernel; the median counts.
const ROUNDS: usize = 9;

/// A kernel with its weights.
struct Candidate {
    kernel: Arc<dyn Kernel>,
    copies: Vec<Packed>,
}

/// Milliseconds, median of [`ROUNDS`], for each candidate; the candidates take turns.
fn medians(candidates: &[Candidate], f: impl FnMut(&Candidate)) -> Vec<f64> {
    Turns::new(ROUNDS).medians(candidates, f).into_iter().map(|seconds| 1e3 * seconds).collect()
}

fn line(what: &str, ms: &[f64], unit: impl Fn(usize, f64) -> String) {
    print!("{what:22}");
    for (i, &ms) in ms.iter().enumerate() {
        print!(" {ms:9.4} {:>9}", unit(i, ms));
    }
    println!();
}

fn main() {
    let mut random = Random(1);
    let trits = random.trits(ROWS * COLS);
    let w = TernaryMatrix::from_trits(ROWS, COLS, &trits, Scales::Tensor(1.0)).expect("trits");
    let codes: Vec<i8> = (0..512 * COLS).map(|_| (random.below(255) as i16 - 127) as i8).collect();
    let batch = |n: usize| Int8Batch::from_codes(n, COLS, &codes[..n * COLS]).expect("codes");
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    let cached = wanted.iter().any(|w| w == "--cached");
    let gemm = wanted.iter().any(|w| w == "--gemm");
    wanted.retain(|w| w != "--cached" && w != "--gemm");
    let wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str()));
    let kernels = || registry().iter().filter_map(Entry::kernel).filter(|k| wanted(k.name()));
    if gemm {
        return many_tokens(&kernels().collect::<Vec<_>>(), &trits, &codes);
    }
    if cached {
        return in_cache(&kernels().collect::<Vec<_>>(), &trits, &codes);
    }
    let mut candidates = Vec::new();
    println!("{ROWS} x {COLS}, milliseconds for one matrix, medians of {ROUNDS}");
    for kernel in kernels() {
        let start = Instant::now();
        let first = kernel.prepack(&w).expect("prepack");
        let gweights = (ROWS * COLS) as f64 / start.elapsed().as_secs_f64() / 1e9;
        println!("{:18} {:8} bytes, packed at {gweights:.2} Gweights/s", kernel.name(), first.byte_len());
        let copies = (0..COPIES).map(|_| copy(&first)).collect();
        candidates.push(Candidate { kernel, copies });
    }
    print!("{:22}", "");
    candidates.iter().for_each(|c| print!(" {:>19}", c.kernel.name()));
    println!();

    let mut acc = vec![0; 512 * ROWS];
    let gb_s = |i: usize, ms: f64, threads: usize| {
        format!("{:.1} GB/s", (threads * candidates[i].copies[0].byte_len()) as f64 / ms / 1e6)
    };
    let x = batch(1);
    let ms = medians(&candidates, |c| {
        for _ in 0..8 {
            c.kernel.gemv(black_box(&c.copies[0].all()), &x.view().row(0), &mut acc[..ROWS]);
        }
    });
    line("gemv, cache", &ms.iter().map(|ms| ms / 8.0).collect::<Vec<_>>(), |i, ms| gb_s(i, ms, 1));
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    for threads in [NonZeroUsize::MIN, cores] {
        let team = Team::new(threads).expect("threads");
        for n in [1, 2, 3, 4, 5, 6, 8, 12] {
            let x = batch(n);
            // Each thread has its own matrices.
            let per_thread = COPIES / threads.get();
            let ms = medians(&candidates, |c| {
                team.for_each_chunk(&mut acc[..n * ROWS * threads.get()], n * ROWS, |part, acc| {
                    for w in &c.copies[part * per_thread..][..per_thread] {
                        let (w, x) = (black_box(w.all()), x.view());
                        if n == 1 { c.kernel.gemv(&w, &x.row(0), acc) } else { c.kernel.gemm(&w, &x, acc) }
                    }
                });
            });
            let ms: Vec<_> = ms.iter().map(|ms| ms / per_thread as f64).collect();
            line(&format!("N={n}, memory, {threads} thr"), &ms, |i, ms| gb_s(i, ms, threads.get()));
        }
    }
    for n in [2, 4, 6, 8, 12, 13, 32, 128, 512] {
        let x = batch(n);
        let ms = medians(&candidates, |c| {
            c.kernel.gemm(black_box(&c.copies[0].all()), &x.view(), &mut acc[..n * ROWS]);
        });
        line(&format!("N={n}, cache"), &ms, |_, ms| format!("{:.0} GOP/s", 2.0 * (n * ROWS * COLS) as f64 / ms / 1e6));
    }
}

/// One and 128 tokens, weights in the cache, one thread: a line of milliseconds for each kernel.
fn in_cache(kernels: &[Arc<dyn Kernel>], trits: &[i8], codes: &[i8]) {
    const MANY: usize = 128;
    let mut columns = Vec::new();
    for rows in [2560, ROWS] {
        let w = TernaryMatrix::from_trits(rows, COLS, &trits[..rows * COLS], Scales::Tensor(1.0)).expect("trits");
        let packed = |kernel: &Arc<dyn Kernel>| vec![kernel.prepack(&w).expect("every shape can be packed")];
        let all: Vec<Candidate> =
            kernels.iter().map(|kernel| Candidate { kernel: kernel.clone(), copies: packed(kernel) }).collect();
        let x = Int8Batch::from_codes(MANY, COLS, &codes[..MANY * COLS]).expect("codes");
        let mut acc = vec![0; MANY * rows];
        let one = medians(&all, |c| c.kernel.gemv(black_box(&c.copies[0].all()), &x.view().row(0), &mut acc[..rows]));
        let many = medians(&all, |c| c.kernel.gemm(black_box(&c.copies[0].all()), &x.view(), &mut acc));
        columns.extend([one, many]);
    }
    println!("{:20} {:>11} {:>11} {:>11} {:>11}", "ms, one thread", "2560, N=1", "N=128", "6912, N=1", "N=128");
    for (i, kernel) in kernels.iter().enumerate() {
        let cells: String = columns.iter().map(|c| format!(" {:11.4}", c[i])).collect();
        println!("{:20}{cells}", kernel.name());
    }
}

/// Products of several tokens, one thread, weights in the cache if they fit: GOP/s.
fn many_tokens(kernels: &[Arc<dyn Kernel>], trits: &[i8], codes: &[i8]) {
    const TOKENS: [usize; 8] = [8, 16, 24, 32, 48, 64, 128, 512];
    println!("{:30}{}", "GOP/s, one thread", TOKENS.map(|n| format!(" {:>7}", format!("N={n}"))).concat());
    for rows in [2560, ROWS] {
        let w = TernaryMatrix::from_trits(rows, COLS, &trits[..rows * COLS], Scales::Tensor(1.0)).expect("trits");
        let packed = |kernel: &Arc<dyn Kernel>| vec![kernel.prepack(&w).expect("every shape can be packed")];
        let all: Vec<Candidate> =
            kernels.iter().map(|kernel| Candidate { kernel: kernel.clone(), copies: packed(kernel) }).collect();
        let mut acc = vec![0; 512 * kernels.iter().map(|k| k.block_rows()).max().unwrap_or(0)];
        let columns = TOKENS.map(|n| {
            let x = Int8Batch::from_codes(n, COLS, &codes[..n * COLS]).expect("codes");
            let ms = medians(&all, |c| {
                for rows in c.copies[0].blocks(0..rows, c.kernel.block_rows()) {
                    let w = c.copies[0].rows_range(rows).expect("blocks of panels");
                    c.kernel.gemm(black_box(&w), &x.view(), &mut acc[..n * w.rows()]);
                }
            });
            ms.iter().map(|ms| 2.0 * (n * rows * COLS) as f64 / ms / 1e6).collect::<Vec<_>>()
        });
        for (i, c) in all.iter().enumerate() {
            let cells: String = columns.iter().map(|c| format!(" {:7.0}", c[i])).collect();
            println!("{:30}{cells}", format!("{rows} x {COLS}, {}", c.kernel.name()));
        }
    }
}

/// A copy of the weights in newly allocated memory.
fn copy(w: &Packed) -> Packed {
    let mut bytes = ternary_kernels::AlignedBuf::for_weights(w.byte_len());
    bytes.copy_from_slice(w.all().bytes());
    Packed::new(w.kernel(), w.rows(), w.cols(), w.panel_rows(), w.all().panel_bytes(), bytes).expect("the same sizes")
}
