//! Times the parts of decoding that read memory once, beside reading the same memory without computing: products of
//! one token with `i2s`, `base3` and group weights, and the bounds of a coarse head.
//!
//! `cargo run --release -p ternary-kernels --example stream_speed -- [THREADS]`, with `BITNET_ISA` for another instruction
//! set. All take turns, so that a change of the machine's speed affects all of them; compare the shares.

use std::hint::black_box;
use std::num::NonZeroUsize;

use half::f16;
use measure::Turns;
use ternary_kernels::ops::coarse::{CoarseBatch, CoarsePlane, StoredRows};
use ternary_kernels::{
    AlignedBuf, GroupKernel, GroupScales, Int8Batch, Int16Batch, Isa, Ops, Packed, Scales, SharedBytes, Team,
    TernaryMatrix, for_format, split_cols,
};
use test_support::Random;

const ROWS: usize = 2560;
const COLS: usize = 2560;
/// Rows of the head that are packed, and how often they are repeated.
const HEAD: (usize, usize) = (2048, 48);
/// Copies of a matrix for each thread, of 1.6 MB each with two bits.
const COPIES: usize = 96;
/// Timings of each part; the median counts.
const ROUNDS: usize = 15;

/// The work of a thread in one timing.
type Work<'a> = Box<dyn Fn(usize) + Sync + 'a>;

fn main() {
    let threads = std::env::args().nth(1).map_or(NonZeroUsize::MIN, |n| n.parse().expect("a number of threads"));
    let isa = Isa::selected().expect("BITNET_ISA names an instruction set of this CPU");
    let (team, ops) = (Team::new(threads).expect("threads"), Ops::for_isa(isa).expect("an instruction set"));
    let mut random = Random(1);
    let trits = random.trits(ROWS * COLS);
    let codes: Vec<i8> = (0..COLS).map(|_| (random.below(255) as i16 - 127) as i8).collect();
    let x = Int8Batch::from_codes(1, COLS, &codes).expect("codes");
    let wide: Vec<i16> = (0..COLS).map(|_| (random.below(65279) as i32 - 32639) as i16).collect();
    let wide = Int16Batch::from_codes(1, COLS, &wide).expect("codes");
    let count = COPIES * threads.get();
    let own = |thread: usize| thread * COPIES..(thread + 1) * COPIES;

    let w = TernaryMatrix::from_trits(ROWS, COLS, &trits, Scales::Tensor(1.0)).expect("trits");
    let mut packed = Vec::new();
    for format in ["i2s", "base3"] {
        let kernel = for_format(format, isa).expect("a kernel for every set");
        let first = kernel.prepack(&w).expect("prepack");
        let copies: Vec<Packed> = (0..count).map(|_| copy_of(&first)).collect();
        packed.push((kernel, copies));
    }
    let group = GroupKernel::for_isa(isa).expect("an instruction set of this CPU");
    let d = (0..ROWS * COLS / 128).map(|_| f16::from_f32(0.001 + random.below(1000) as f32 / 1e5)).collect();
    let scales = GroupScales::new(128, ROWS, COLS, d).expect("scales");
    let first = group.pack_levels(ROWS, COLS, &trits, &scales).expect("groups that kernels take");
    let groups: Vec<_> = (0..count)
        .map(|_| first.with_bytes(SharedBytes::new(copied(first.bytes()))).expect("the same sizes"))
        .collect();

    let stored: Vec<f16> = (0..HEAD.0 * COLS).map(|_| f16::from_f32(random.normal())).collect();
    let part = CoarsePlane::build(ops, &team, HEAD.0, COLS, StoredRows::F16(&stored)).expect("a plane");
    let mut bytes = AlignedBuf::for_weights(part.byte_len() * HEAD.1);
    bytes.chunks_exact_mut(part.byte_len()).for_each(|to| to.copy_from_slice(part.bytes()));
    let plane = CoarsePlane::from_shared(HEAD.0 * HEAD.1, COLS, SharedBytes::new(bytes)).expect("whole blocks");
    let mut batch = CoarseBatch::new(COLS);
    assert!(batch.push(ops, &(0..COLS).map(|_| random.normal()).collect::<Vec<_>>()), "usual activations");
    let share = plane.blocks() / threads.get();

    let mut works: Vec<(String, usize, Work<'_>)> = Vec::new();
    let plain = &packed[0].1;
    works.push((
        "reading, no products".into(),
        plain[0].byte_len(),
        Box::new(|thread| plain[own(thread)].iter().for_each(|w| read(w.all().bytes()))),
    ));
    for (kernel, copies) in &packed {
        let x = &x;
        let run = move |thread: usize| {
            let mut acc = vec![0; ROWS];
            copies[own(thread)].iter().for_each(|w| kernel.gemv(black_box(&w.all()), &x.view().row(0), &mut acc));
        };
        works.push((kernel.name().to_owned(), copies[0].byte_len(), Box::new(run)));
    }
    works.push((
        format!("{}, groups of 128", group.name()),
        first.byte_len(),
        Box::new(|thread| {
            let mut out = vec![0.0; ROWS];
            groups[own(thread)].iter().for_each(|w| group.product(black_box(w), 0..ROWS, &wide.view(), &mut out));
        }),
    ));
    works.push((
        "coarse head".into(),
        share * (plane.byte_len() / plane.blocks()) / COPIES,
        Box::new(|thread| {
            let rows = share * (plane.rows() / plane.blocks());
            let (mut upper, mut maxima) = (vec![0.0; rows], vec![0.0; share]);
            let mut upper =
                split_cols(&mut upper, 1, rows, std::slice::from_ref(&(0..rows))).next().expect("one range");
            let mut maxima =
                split_cols(&mut maxima, 1, share, std::slice::from_ref(&(0..share))).next().expect("one range");
            ops.coarse_bounds(&plane, &batch, thread * share..(thread + 1) * share, &mut upper, &mut maxima);
        }),
    ));

    let seconds = Turns::new(ROUNDS).warm_once().medians(&works, |(_, _, work)| team.run(&|thread| work(thread)));
    let gb_s: Vec<f64> =
        works.iter().zip(&seconds).map(|((_, bytes, _), s)| (bytes * count) as f64 / s / 1e9).collect();
    println!("{isa}, {threads} thread(s), {ROWS} x {COLS}, medians of {ROUNDS}");
    for ((name, ..), rate) in works.iter().zip(&gb_s) {
        println!("{name:32} {rate:6.1} GB/s  {:4.0} % of reading", 100.0 * rate / gb_s[0]);
    }
}

/// Reads `bytes` with independent sums.
fn read(bytes: &[u8]) {
    let mut sums = [0u64; 32];
    for words in bytemuck::cast_slice::<u8, u64>(bytes).as_chunks::<32>().0 {
        sums.iter_mut().zip(words).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
    }
    black_box(sums);
}

fn copied(bytes: &[u8]) -> AlignedBuf<u8> {
    let mut to = AlignedBuf::for_weights(bytes.len());
    to.copy_from_slice(bytes);
    to
}

/// The same weights in newly allocated memory.
fn copy_of(w: &Packed) -> Packed {
    let (height, panel) = (w.panel_rows(), w.all().panel_bytes());
    Packed::new(w.kernel(), w.rows(), w.cols(), height, panel, copied(w.all().bytes())).expect("the same sizes")
}
