//! Times the group kernels beside `i2s` of the same instruction set on a 6912 x 2560 matrix, with weights from memory
//! and from the cache. The difference is the cost of two digits and of a scale per group.
//!
//! `cargo run --release -p ternary-kernels --example group_speed -- [--gemm] [ISA]`; with `--gemm` only several tokens, in
//! blocks of rows as an engine does. All candidates take turns, so that a change
//! of the machine's speed meets all of them. GB/s are those of the weights, of which two bits each are the codes.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;

use half::f16;
use measure::Turns;
use ternary_kernels::{
    AlignedBuf, GroupKernel, GroupPacked, GroupScales, Int8Batch, Int16Batch, Isa, Kernel, Packed, Scales, SharedBytes,
    Team, TernaryMatrix, for_format,
};
use test_support::Random;

const ROWS: usize = 6912;
const COLS: usize = 2560;
/// Copies of the weights, more than any cache holds: 283 MB with two bits.
const COPIES: usize = 64;
/// Timings of each candidate; the median counts.
const ROUNDS: usize = 9;
/// Tokens of the largest product.
const MOST: usize = 128;

/// A kernel with copies of its weights.
enum Candidate {
    /// Sums alone, without scales and f32 results.
    I2s(Arc<dyn Kernel>, Vec<Packed>),
    Group(GroupKernel, Vec<GroupPacked>),
}

/// Activations and results of up to [`MOST`] tokens.
struct Inputs {
    int8: Int8Batch,
    int16: Int16Batch,
}

impl Candidate {
    fn name(&self) -> String {
        match self {
            Candidate::I2s(kernel, _) => kernel.name().to_owned(),
            Candidate::Group(kernel, w) => format!("{} g{}", kernel.name(), w[0].group_len()),
        }
    }
    fn bytes(&self) -> usize {
        match self {
            Candidate::I2s(_, w) => w[0].byte_len(),
            Candidate::Group(_, w) => w[0].byte_len(),
        }
    }
    /// The product with the first copy of the weights, block by block.
    fn run_blocks(&self, n: usize, x: &Inputs, out: &mut [f32]) {
        match self {
            Candidate::I2s(kernel, w) => {
                for rows in w[0].blocks(0..ROWS, kernel.block_rows()) {
                    let w = w[0].rows_range(rows).expect("blocks of panels");
                    let acc = bytemuck::cast_slice_mut(&mut out[..n * w.rows()]);
                    kernel.gemm(black_box(&w), &x.int8.view().rows(0..n), acc);
                }
            }
            Candidate::Group(kernel, w) => {
                for rows in w[0].blocks(0..ROWS, kernel.block_rows()) {
                    let out = &mut out[..n * rows.len()];
                    kernel.product(black_box(&w[0]), rows, &x.int16.view().rows(0..n), out);
                }
            }
        }
    }
    /// The product with copy `i` of the weights.
    fn run(&self, i: usize, n: usize, x: &Inputs, out: &mut [f32]) {
        match self {
            Candidate::I2s(kernel, w) => {
                let (w, x, acc) = (black_box(w[i].all()), x.int8.view().rows(0..n), bytemuck::cast_slice_mut(out));
                if n == 1 { kernel.gemv(&w, &x.row(0), acc) } else { kernel.gemm(&w, &x, acc) }
            }
            Candidate::Group(kernel, w) => {
                kernel.product(black_box(&w[i]), 0..ROWS, &x.int16.view().rows(0..n), out);
            }
        }
    }
}

/// Milliseconds, median of [`ROUNDS`], for each candidate; the candidates take turns.
fn medians(candidates: &[Candidate], f: impl FnMut(&Candidate)) -> Vec<f64> {
    Turns::new(ROUNDS).medians(candidates, f).into_iter().map(|seconds| 1e3 * seconds).collect()
}

fn copy(bytes: &[u8]) -> AlignedBuf<u8> {
    let mut copy = AlignedBuf::for_weights(bytes.len());
    copy.copy_from_slice(bytes);
    copy
}

fn main() {
    let gemm = std::env::args().any(|arg| arg == "--gemm");
    let isa = match std::env::args().skip(1).find(|arg| arg != "--gemm") {
        Some(name) => Isa::from_name(&name).expect("an instruction set"),
        None => Isa::selected().expect("BITNET_ISA names an instruction set of this CPU"),
    };
    let mut random = Random(1);
    let trits = random.trits(ROWS * COLS);
    let int8: Vec<i8> = (0..MOST * COLS).map(|_| (random.below(255) as i16 - 127) as i8).collect();
    let int16: Vec<i16> = (0..MOST * COLS).map(|_| (random.below(65279) as i32 - 32639) as i16).collect();
    let x = Inputs {
        int8: Int8Batch::from_codes(MOST, COLS, &int8).expect("codes"),
        int16: Int16Batch::from_codes(MOST, COLS, &int16).expect("codes"),
    };

    let kernel = for_format("i2s", isa).expect("an instruction set of this CPU");
    let w = TernaryMatrix::from_trits(ROWS, COLS, &trits, Scales::Tensor(1.0)).expect("trits");
    let packed = kernel.prepack(&w).expect("every shape can be packed");
    let i2s_copy = |_| {
        let (height, panel) = (packed.panel_rows(), packed.all().panel_bytes());
        Packed::new(packed.kernel(), ROWS, COLS, height, panel, copy(packed.all().bytes())).expect("the same sizes")
    };
    let copies = if gemm { 1 } else { COPIES };
    let mut candidates = vec![Candidate::I2s(kernel, (0..copies).map(i2s_copy).collect())];
    let kernel = GroupKernel::for_isa(isa).expect("an instruction set of this CPU");
    for group_len in [64, 128, 256] {
        let groups = ROWS * COLS.div_ceil(group_len);
        let d = (0..groups).map(|_| f16::from_f32(0.001 + random.below(1000) as f32 / 1e5)).collect();
        let scales = GroupScales::new(group_len, ROWS, COLS, d).expect("scales");
        let packed = kernel.pack_levels(ROWS, COLS, &trits, &scales).expect("groups that kernels take");
        let copies = (0..copies).map(|_| packed.with_bytes(SharedBytes::new(copy(packed.bytes()))));
        candidates.push(Candidate::Group(kernel.clone(), copies.map(|w| w.expect("the same sizes")).collect()));
    }

    println!("{ROWS} x {COLS}, milliseconds for one matrix, medians of {ROUNDS}");
    print!("{:22}", "");
    candidates.iter().for_each(|c| print!(" {:>24}", c.name()));
    println!();
    let line = |what: &str, ms: &[f64], unit: &dyn Fn(&Candidate, f64) -> String| {
        print!("{what:22}");
        candidates.iter().zip(ms).for_each(|(c, &ms)| print!(" {ms:10.4} {:>13}", unit(c, ms)));
        println!();
    };
    if gemm {
        let mut out = vec![0.0; MOST * ROWS];
        for n in [8, 16, 24, 32, 48, 64, MOST] {
            let ms = medians(&candidates, |c| c.run_blocks(n, &x, &mut out));
            line(&format!("N={n}, cache"), &ms, &|_, ms| {
                format!("{:.0} GOP/s", 2.0 * (n * ROWS * COLS) as f64 / ms / 1e6)
            });
        }
        return;
    }
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let mut out = vec![0.0; MOST.max(cores.get() * 8) * ROWS];
    for threads in [NonZeroUsize::MIN, cores] {
        let team = Team::new(threads).expect("threads");
        for n in [1, 2, 4, 6] {
            // Each thread has its own matrices.
            let per_thread = COPIES / threads.get();
            let ms = medians(&candidates, |c| {
                team.for_each_chunk(&mut out[..n * ROWS * threads.get()], n * ROWS, |part, out| {
                    (0..per_thread).for_each(|i| c.run(part * per_thread + i, n, &x, out));
                });
            });
            let ms: Vec<f64> = ms.iter().map(|ms| ms / per_thread as f64).collect();
            line(&format!("N={n}, memory, {threads} thr"), &ms, &|c, ms| {
                format!("{:.1} GB/s", (threads.get() * c.bytes()) as f64 / ms / 1e6)
            });
        }
    }
    for n in [1, 6, 12, 32, MOST] {
        let ms = medians(&candidates, |c| c.run(0, n, &x, &mut out[..n * ROWS]));
        line(&format!("N={n}, cache"), &ms, &|_, ms| format!("{:.0} GOP/s", 2.0 * (n * ROWS * COLS) as f64 / ms / 1e6));
    }
}
