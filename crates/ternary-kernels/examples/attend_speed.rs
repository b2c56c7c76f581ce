//! Times causal attention of a prompt in the shape of a head of BitNet b1.58 2B4T: 4 heads of queries share one of keys and values, 128
//! elements each. `cargo run --release -p ternary-kernels --example attend_speed`, with `BITNET_ISA` for another instruction set.
//!
//! The operations are those of scores and values, 4 for each element of a query and each key that it sees. Next to them stand the least
//! time of several rounds and what was reached: a CPU with one fused multiply-add of 512 bits per cycle can do 32 of them per cycle, and
//! 128 with dot products of bytes; products of the codes of weights take two of those. The last lines are one token, as in generation.

use std::hint::black_box;
use std::time::{Duration, Instant};

use half::f16;
use ternary_kernels::ops::{AttendScratch, KvData, KvRows, Queries};
use ternary_kernels::{ColsMut, Isa, Ops};

const GROUP: usize = 4;
const HEAD_DIM: usize = 128;
/// Tokens that are read at once.
const TOKENS: usize = 256;
const ROUNDS: usize = 9;

/// Numbers around 0, the same in every run.
fn numbers(n: usize) -> Vec<f32> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_769) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn q8((codes, steps): &(Vec<i8>, Vec<f32>)) -> KvData<'_> {
    KvData::Int8 { codes, steps }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let isa = Isa::selected()?;
    let ops = Ops::for_isa(isa)?;
    let width = GROUP * HEAD_DIM;
    println!("{isa}, {TOKENS} tokens of {GROUP} heads of {HEAD_DIM}");
    for (before, tokens) in [(0, TOKENS), (256, TOKENS), (1024, TOKENS), (3840, TOKENS), (4095, 1)] {
        let len = before + tokens;
        let (q, k, v) = (numbers(tokens * width), numbers(len * HEAD_DIM), numbers(len * HEAD_DIM));
        let halves = |x: &[f32]| x.iter().map(|x| f16::from_f32(*x)).collect::<Vec<_>>();
        let (k16, v16) = (halves(&k), halves(&v));
        let codes = |x: &[f32]| -> (Vec<i8>, Vec<f32>) {
            let mut codes = vec![0; x.len()];
            let rows = x.chunks(HEAD_DIM).zip(codes.chunks_mut(HEAD_DIM));
            let steps = rows.map(|(x, codes)| ops.quantize_kv8(x, codes)).collect();
            (codes, steps)
        };
        let (k8, v8) = (codes(&k), codes(&v));
        let queries = Queries {
            data: &q,
            tokens,
            token_stride: width,
            group: GROUP,
            head_dim: HEAD_DIM,
            position: before,
            scale: 1.0 / (HEAD_DIM as f32).sqrt(),
        };
        let seen: usize = (0..tokens).map(|t| before + t + 1).sum();
        let operations = (4 * seen * width) as f64;
        let mut out = vec![0.0; tokens * width];
        let mut scratch = AttendScratch::new(GROUP, HEAD_DIM);
        for (name, keys, values) in [
            ("f32", KvData::F32(&k), KvData::F32(&v)),
            ("f16", KvData::F16(&k16), KvData::F16(&v16)),
            ("q8", q8(&k8), q8(&v8)),
        ] {
            let rows = |data| KvRows::new(data, len, HEAD_DIM, HEAD_DIM);
            let mut least = Duration::MAX;
            for _ in 0..ROUNDS {
                let began = Instant::now();
                let out = &mut ColsMut::new(&mut out, tokens, width);
                ops.attend(&queries, rows(keys), rows(values), &mut scratch, out);
                least = least.min(began.elapsed());
            }
            black_box(&out);
            let us = least.as_secs_f64() * 1e6;
            println!("{tokens} after {before:4} tokens, {name}: {us:8.0} us, {:5.1} GFLOP/s", operations / us * 1e-3);
        }
    }
    Ok(())
}
