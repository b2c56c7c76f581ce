//! The cost or gain of low-bit activations, keys and values, on one thread: products of every kernel of this CPU with
//! activations of 8 and of 4 bits in turn; norm and quantisation with and without a Hadamard transform; attention of
//! one token over 4096 others, in all layers of BitNet b1.58 2B4T, with keys and values of every type.
//!
//! `cargo run --release --example int4_speed -- [NAME]...` runs the kernels whose names contain one of `NAME`.

use std::hint::black_box;

use measure::Turns;
use ternary_kernels::ops::{AttendScratch, KvData, KvRows, Prepare, Queries, largest_hadamard_block};
use ternary_kernels::{
    AlignedBuf, ColsMut, Int4Batch, Int8Batch, Ops, Packed, Scales, TernaryMatrix, kernels_available, last_level_cache,
};
use test_support::Random;

/// `[out, in]` of the large projections of BitNet b1.58 2B4T.
const SHAPES: [(usize, usize); 3] = [(2560, 2560), (6912, 2560), (2560, 6912)];
const TOKENS: [usize; 6] = [1, 2, 4, 8, 16, 64];
/// Timings of each; the median counts.
const ROUNDS: usize = 7;

/// Microseconds of both, medians of [`ROUNDS`] in turns.
fn medians(mut a: impl FnMut(), mut b: impl FnMut(), repeat: usize) -> [f64; 2] {
    let samples = Turns::new(ROUNDS).time(&[false, true], |&second| {
        (0..repeat).for_each(|_| if second { b() } else { a() });
    });
    [0, 1].map(|i| 1e6 * samples[i].median() / repeat as f64)
}

fn main() {
    let mut random = Random(1);
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wanted = move |name: &str| wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str()));
    println!("weights in the cache, one thread, microseconds: 8 bits, 4 bits, ratio of the speeds");
    for kernel in kernels_available().into_iter().filter(|k| wanted(k.name())) {
        for (m, k) in SHAPES {
            let trits = random.trits(m * k);
            let w = TernaryMatrix::from_trits(m, k, &trits, Scales::Tensor(1.0)).expect("trits");
            let packed = kernel.prepack(&w).expect("prepack");
            let w = packed.all();
            print!("{:18} {m:4} x {k:4}", kernel.name());
            for n in TOKENS {
                let codes: Vec<i8> = (0..n * k).map(|_| random.below(16) as i8 - 8).collect();
                let x8 = Int8Batch::from_codes(n, k, &codes).expect("codes");
                let x4 = Int4Batch::from_codes(n, k, &codes).expect("codes");
                let (mut acc8, mut acc4) = (vec![0; n * m], vec![0; n * m]);
                let mut widened = Int8Batch::with_capacity(0, 0);
                let [t8, t4] = medians(
                    || match n {
                        1 => kernel.gemv(black_box(&w), &x8.view().row(0), &mut acc8),
                        _ => kernel.gemm(black_box(&w), &x8.view(), &mut acc8),
                    },
                    || match n {
                        1 => kernel.gemv_a4(black_box(&w), &x4.view().row(0), &mut widened, &mut acc4),
                        _ => kernel.gemm_a4(black_box(&w), &x4.view(), &mut widened, &mut acc4),
                    },
                    (8 / n).max(1),
                );
                assert_eq!(acc8, acc4, "both are exact");
                print!("  N={n} {t8:.0} {t4:.0} {:.2}", t8 / t4);
            }
            println!();
        }
    }
    from_memory(&wanted, &mut random);
    let ops = Ops::selected().expect("an instruction set");
    for k in [2560, 6912, 2048, 8192] {
        let x: Vec<f32> = (0..k).map(|_| random.below(2001) as f32 / 1000.0 - 1.0).collect();
        let (gain, mut row) = (vec![1.0; k], vec![0.0; k]);
        let (mut int8, mut int4) = (Int8Batch::with_capacity(1, k), Int4Batch::with_capacity(1, k));
        int8.reset(1, k);
        int4.reset(1, k);
        let plain = Prepare { norm: Some((&gain, 1e-5)), hadamard: None };
        let turned = Prepare { hadamard: Some(largest_hadamard_block(k)), ..plain };
        let mut scratch = vec![0.0; k];
        let [a, b] = medians(
            || ops.prepare_int8(&x, plain, &mut row, int8.row_mut(0)).expect("finite"),
            || ops.prepare_int4(&x, turned, &mut scratch, int4.row_mut(0)).expect("finite"),
            200,
        );
        println!("{k}: norm and int8 {a:.2} us; norm, Hadamard transform and int4 {b:.2} us ({})", ops.isa());
    }
    attention(ops);
}

/// One token and so many copies of a matrix that they exceed every cache: decoding with a large model.
fn from_memory(wanted: &impl Fn(&str) -> bool, random: &mut Random) {
    let (m, k) = (6912, 2560);
    println!(
        "weights from memory, one token, one thread, microseconds for {m} x {k}: 8 bits, 4 bits, ratio of the speeds"
    );
    let trits = random.trits(m * k);
    let w = TernaryMatrix::from_trits(m, k, &trits, Scales::Tensor(1.0)).expect("trits");
    let codes: Vec<i8> = (0..k).map(|_| random.below(16) as i8 - 8).collect();
    let x8 = Int8Batch::from_codes(1, k, &codes).expect("codes");
    let x4 = Int4Batch::from_codes(1, k, &codes).expect("codes");
    for kernel in kernels_available().into_iter().filter(|k| wanted(k.name())) {
        let first = kernel.prepack(&w).expect("prepack");
        let bytes = first.all();
        let copies: Vec<Packed> = (0..(2 * last_level_cache()).div_ceil(first.byte_len()))
            .map(|_| {
                let (name, height, bytes_of_panel) = (kernel.name(), first.panel_rows(), bytes.panel_bytes());
                let copy = AlignedBuf::from_slice(bytes.bytes());
                Packed::new(name, m, k, height, bytes_of_panel, copy).expect("a copy")
            })
            .collect();
        let (mut acc8, mut acc4, mut widened) = (vec![0; m], vec![0; m], Int8Batch::with_capacity(0, 0));
        let times = medians(
            || copies.iter().for_each(|w| kernel.gemv(&black_box(w).all(), &x8.view().row(0), &mut acc8)),
            || {
                for w in &copies {
                    kernel.gemv_a4(&black_box(w).all(), &x4.view().row(0), &mut widened, &mut acc4);
                }
            },
            1,
        );
        assert_eq!(acc8, acc4, "both are exact");
        let [t8, t4] = times.map(|t| t / copies.len() as f64);
        println!("{:18} {t8:.0} {t4:.0} {:.2}", kernel.name(), t8 / t4);
    }
}

/// Heads of keys and values in all layers, their width, and the number of queries that share one.
const HEADS: usize = 30 * 5;
const HEAD_DIM: usize = 128;
const GROUP: usize = 4;
const CONTEXT: usize = 4096;

fn attention(ops: Ops) {
    let row: Vec<f32> = (0..HEAD_DIM).map(|i| (i as f32 * 0.7).sin()).collect();
    let queries: Vec<f32> = row.iter().cycle().take(GROUP * HEAD_DIM).copied().collect();
    let queries = Queries {
        data: &queries,
        tokens: 1,
        token_stride: GROUP * HEAD_DIM,
        group: GROUP,
        head_dim: HEAD_DIM,
        position: CONTEXT - 1,
        scale: 0.09,
    };
    let all = HEADS * CONTEXT * HEAD_DIM;
    let len = CONTEXT * HEAD_DIM;
    let at = |head: usize| head * len..(head + 1) * len;
    {
        let x = vec![half::f16::ONE; all];
        attend_all(ops, &queries, "f16", 2 * all, |h| KvRows::new(KvData::F16(&x[at(h)]), CONTEXT, HEAD_DIM, HEAD_DIM));
    }
    let steps = vec![0.01; CONTEXT];
    {
        let x: Vec<i8> = (0..all).map(|i| (i % 251) as i8).collect();
        let data = |h| KvData::Int8 { codes: &x[at(h)], steps: &steps };
        attend_all(ops, &queries, "q8", all, |h| KvRows::new(data(h), CONTEXT, HEAD_DIM, HEAD_DIM));
    }
    let x: Vec<u8> = (0..all / 2).map(|i| (i % 251) as u8).collect();
    let first = [1i8; HEAD_DIM];
    let half = |h: usize| h * len / 2..(h + 1) * len / 2;
    let data = |h| KvData::Int4 { nibbles: &x[half(h)], steps: &steps, first: Some((&first[..], 0.01)) };
    attend_all(ops, &queries, "q4", all / 2, |h| KvRows::new(data(h), CONTEXT, HEAD_DIM, HEAD_DIM));
}

/// Prints the median time of all heads; `rows` of one head are the keys, those of another the values.
fn attend_all<'a>(ops: Ops, queries: &Queries<'_>, name: &str, bytes: usize, rows: impl Fn(usize) -> KvRows<'a>) {
    let (mut scratch, mut out) = (AttendScratch::new(GROUP, HEAD_DIM), vec![0.0; GROUP * HEAD_DIM]);
    let samples = Turns::new(5).warm_once().time_one(|| {
        for head in 0..HEADS {
            let (keys, values) = (rows(head), rows((head + HEADS / 2) % HEADS));
            ops.attend(queries, keys, values, &mut scratch, &mut ColsMut::new(&mut out, 1, GROUP * HEAD_DIM));
        }
    });
    let ms = 1e3 * samples.median();
    let gb_s = 2.0 * bytes as f64 / ms / 1e6;
    println!("attention at {CONTEXT}, {name}: {ms:.2} ms per token, {gb_s:.1} GB/s");
}
