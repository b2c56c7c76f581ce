//! Quantised keys and values: the quantisers, attention over codes as the documentation defines it, and its
//! independence from other values computed with it.

use super::attend::{exp, tree};
use super::*;
use crate::ColsMut;
use crate::ops::{AttendScratch, KV_BLOCK, KvData, KvRows, Queries};

/// Rows of codes with their steps.
struct Coded {
    /// `[len, padded]`, for any stored width.
    codes: Vec<i8>,
    nibbles: Vec<u8>,
    steps: Vec<f32>,
    /// Row 0 in 8 bits.
    first: Option<(Vec<i8>, f32)>,
    padded: usize,
}

/// Nibbles in the documented order.
fn unpack(nibbles: &[u8]) -> Vec<i8> {
    let at = |l: usize| {
        let byte = nibbles[l / 16 * 8 + 4 * (l % 2) + l % 16 / 4];
        let nibble = if (l / 2).is_multiple_of(2) { byte & 15 } else { byte >> 4 };
        nibble as i8 - if nibble >= 8 { 16 } else { 0 }
    };
    (0..2 * nibbles.len()).map(at).collect()
}

impl Coded {
    fn new(ops: Ops, x: &[f32], d: usize, bits: u32, keep_first: bool) -> Self {
        let padded = d.next_multiple_of(16);
        let mut c = Self { codes: vec![], nibbles: vec![], steps: vec![], first: None, padded };
        for row in x.chunks(d) {
            if bits == 8 {
                let mut codes = vec![99; padded];
                c.steps.push(ops.quantize_kv8(row, &mut codes));
                c.codes.extend(codes);
            } else {
                let mut nibbles = vec![0x99; padded / 2];
                c.steps.push(ops.quantize_kv4(row, &mut nibbles));
                c.codes.extend(unpack(&nibbles));
                c.nibbles.extend(nibbles);
            }
        }
        if keep_first {
            let mut codes = vec![99; padded];
            let step = ops.quantize_kv8(&x[..d], &mut codes);
            // The nibbles of row 0 must not be read.
            c.nibbles[..padded / 2].fill(0x77);
            c.steps[0] = f32::NAN;
            c.first = Some((codes, step));
        }
        c
    }

    fn rows(&self, len: usize, d: usize) -> KvRows<'_> {
        let steps = &self.steps[..];
        let data = match self.nibbles.is_empty() {
            true => KvData::Int8 { codes: &self.codes, steps },
            false => KvData::Int4 {
                nibbles: &self.nibbles,
                steps,
                first: self.first.as_ref().map(|(codes, step)| (&codes[..], *step)),
            },
        };
        KvRows::new(data, len, d, self.padded)
    }

    /// Codes of row `j` as floats, and its step.
    fn row(&self, j: usize, d: usize) -> (Vec<f32>, f32) {
        let (codes, step) = match &self.first {
            Some((codes, step)) if j == 0 => (&codes[..], *step),
            _ => (&self.codes[j * self.padded..], self.steps[j]),
        };
        (codes[..d].iter().map(|&c| f32::from(c)).collect(), step)
    }
}

#[test]
fn rows_are_quantised_by_their_largest_value() {
    let mut random = Random(70);
    for d in [1, 2, 8, 16, 24, 64, 128, 130] {
        for x in [random.activations(d), vec![0.0; d], vec![1e-6; d], vec![-3e38; d]] {
            let max = x.iter().fold(1e-5f32, |m, x| m.max(x.abs()));
            for (bits, levels) in [(8, 127.0f32), (4, 7.0)] {
                let factor = levels / max;
                let mut want: Vec<i8> = x.iter().map(|x| (x * factor).round_ties_even() as i8).collect();
                want.resize(d.next_multiple_of(16), 0);
                for ops in all_ops() {
                    let got = Coded::new(ops, &x, d, bits, false);
                    assert_eq!(
                        (got.codes, got.steps),
                        (want.clone(), vec![max / levels]),
                        "{bits} bits, {}",
                        ops.isa()
                    );
                }
            }
        }
    }
}

struct Case {
    d: usize,
    heads: usize,
    queries: Vec<f32>,
    keys: Coded,
    values: Coded,
}

impl Case {
    fn attend(&self, ops: Ops, range: std::ops::Range<usize>) -> Vec<f32> {
        let (d, heads) = (self.d, self.heads);
        let queries = Queries {
            data: &self.queries[range.start * heads * d..],
            tokens: range.len(),
            token_stride: heads * d,
            group: heads,
            head_dim: d,
            position: range.start,
            scale: 0.25,
        };
        let mut out = vec![f32::NAN; range.len() * heads * d];
        let mut view = ColsMut::new(&mut out, range.len(), heads * d);
        let (keys, values) = (self.keys.rows(range.end, d), self.values.rows(range.end, d));
        ops.attend(&queries, keys, values, &mut AttendScratch::new(heads, d), &mut view);
        out
    }

    fn by_definition(&self, t: usize, h: usize) -> Vec<f32> {
        let d = self.d;
        let query = Coded::new(portable(), &self.queries[(t * self.heads + h) * d..][..d], d, 8, false);
        let (query, query_step) = query.row(0, d);
        let (mut max, mut sum, mut acc) = (f32::NEG_INFINITY, 0.0f32, vec![0.0f32; d]);
        for start in (0..=t).step_by(KV_BLOCK) {
            let block = start..(start + KV_BLOCK).min(t + 1);
            let score = |j: usize| {
                let (key, step) = self.keys.row(j, d);
                // Integers that f32 represents exactly.
                let product: f64 = query.iter().zip(&key).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                (product as f32 * (0.25 * query_step)) * step
            };
            let scores: Vec<f32> = block.clone().map(score).collect();
            let m = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let p = exp(&scores.iter().map(|s| s - m).collect::<Vec<_>>());
            let mut padded = p.clone();
            padded.resize(KV_BLOCK, 0.0);
            let l = tree(std::array::from_fn(|l| (padded[l] + padded[16 + l]) + (padded[32 + l] + padded[48 + l])));
            let new = max.max(m);
            let factors = exp(&[max - new, m - new]);
            sum = l.mul_add(factors[1], sum * factors[0]);
            let weights: Vec<f32> = block.clone().map(|j| p[j - start] * self.values.row(j, d).1).collect();
            let largest = weights.iter().copied().fold(0.0, f32::max);
            let mut o = vec![0i64; d];
            for j in block {
                let n = (weights[j - start] * (2047.0 / largest)).round_ties_even() as i64;
                o.iter_mut().zip(self.values.row(j, d).0).for_each(|(o, v)| *o += n * v as i64);
            }
            assert!(o.iter().all(|o| o.abs() < 1 << 24), "sums are exact in f32");
            let o = o.into_iter().map(|o| o as f32 * (largest / 2047.0));
            acc.iter_mut().zip(o).for_each(|(a, o)| *a = o.mul_add(factors[1], *a * factors[0]));
            max = new;
        }
        acc.iter().map(|o| o / sum).collect()
    }
}

#[test]
fn attention_over_codes_follows_the_definition_however_it_is_cut() {
    let mut random = Random(71);
    // For an emulator, one case with queries in fours and one of each way to read rows are enough.
    let usual =
        [(1, 3, 1), (8, 70, 3), (16, 65, 4), (40, 129, 5), (64, 140, 4), (128, 131, 4), (144, 66, 5), (256, 70, 1)];
    let small =
        [(1, 3, 1), (8, 70, 3), (16, 65, 4), (40, 129, 1), (64, 80, 2), (128, 67, 1), (144, 66, 1), (256, 70, 1)];
    for (d, len, heads) in if emulated() { small } else { usual } {
        let (k, v) = (random.activations(len * d), random.activations(len * d));
        let queries = random.activations(len * heads * d);
        for (bits, keep_first) in [(8, false), (4, false), (4, true)] {
            let coded = |x: &[f32]| Coded::new(portable(), x, d, bits, keep_first);
            let case = Case { d, heads, queries: queries.clone(), keys: coded(&k), values: coded(&v) };
            let want: Vec<f32> = (0..len)
                .flat_map(|t| (0..heads).map(move |h| (t, h)))
                .flat_map(|(t, h)| case.by_definition(t, h))
                .collect();
            for ops in all_ops() {
                let what = format!("{bits} bits, {heads} heads of {d}");
                assert_same(&what, ops, &case.attend(ops, 0..len), &want);
                let mut cut: Vec<f32> = (0..2).flat_map(|t| case.attend(ops, t..t + 1)).collect();
                cut.extend(case.attend(ops, 2..len - 1));
                cut.extend(case.attend(ops, len - 1..len));
                assert_same(&format!("{what}, cut"), ops, &cut, &want);
            }
        }
    }
}

/// A value that is not finite reaches every query that sees it, however small its weight, and no other; many queries and few.
#[test]
fn values_that_are_not_finite_are_seen() {
    let mut random = Random(72);
    let (d, len, heads, bad) = (32, 100, 2, 70);
    let coded = |x: &[f32]| Coded::new(portable(), x, d, 8, false);
    let (k, v) = (random.activations(len * d), random.activations(len * d));
    let mut case = Case { d, heads, queries: random.activations(len * heads * d), keys: coded(&k), values: coded(&v) };
    let want = case.attend(portable(), 0..len);
    for step in [f32::NAN, f32::INFINITY] {
        case.values.steps[bad] = step;
        for ops in all_ops() {
            for cut in [vec![0, len], (0..=len).collect()] {
                let got: Vec<f32> = cut.windows(2).flat_map(|w| case.attend(ops, w[0]..w[1])).collect();
                let (before, after) = got.split_at(bad * heads * d);
                assert_same("before", ops, before, &want[..before.len()]);
                assert!(after.iter().all(|x| !x.is_finite()), "{step}, {}", ops.isa());
            }
        }
    }
}

/// The first key takes nearly all of the attention, and its value is small: the others keep their resolution.
#[test]
fn weights_are_fine_where_the_largest_score_has_a_small_value() {
    let mut random = Random(73);
    let (d, len) = (16, 64);
    let mut k = vec![0.0; len * d];
    k[0] = 8.0;
    let mut v = random.activations(len * d);
    v[..d].fill(1e-4);
    let coded = |x: &[f32]| Coded::new(portable(), x, d, 8, false);
    let mut queries = vec![0.0; len * d];
    queries.chunks_mut(d).for_each(|q| q[0] = 4.0);
    let case = Case { d, heads: 1, queries, keys: coded(&k), values: coded(&v) };
    // Scores of 8 and of 0: with 255 steps of the largest exponential all others would vanish.
    let p = (-8f64).exp();
    let got = case.attend(*all_ops().last().unwrap(), len - 1..len);
    for (i, got) in got.into_iter().enumerate() {
        let rest: f64 = (1..len).map(|j| f64::from(v[j * d + i])).sum();
        let sizes: f64 = (0..len).map(|j| (0..d).map(|i| f64::from(v[j * d + i]).abs()).fold(0.0, f64::max)).sum();
        let want = (1e-4 + p * rest) / (1.0 + 63.0 * p);
        // Half a step of 254 for each value, and half of 2047 for each weight, relative to the largest.
        let bound = (1e-4 + p * sizes) * (0.5 / 127.0 + 64.0 * 0.5 / 2047.0);
        assert!((f64::from(got) - want).abs() < bound, "{got} {want} {bound}");
    }
}

#[test]
fn rows_without_steps_or_whole_vectors_are_refused() {
    let refused = |f: &dyn Fn() -> usize| assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err());
    let (codes, steps, first) = ([0i8; 64], [1.0f32; 4], [0i8; 8]);
    let int8 = |len, d, stride| KvRows::new(KvData::Int8 { codes: &codes, steps: &steps }, len, d, stride).len();
    assert_eq!((int8(4, 16, 16), int8(3, 8, 16), int8(2, 20, 32)), (4, 3, 2));
    refused(&|| int8(4, 8, 8));
    refused(&|| int8(2, 20, 20));
    refused(&|| int8(2, 16, 24));
    refused(&|| int8(5, 16, 16));
    refused(&|| KvRows::new(KvData::Int8 { codes: &codes, steps: &steps[..3] }, 4, 16, 16).len());
    let first = Some((&first[..], 1.0));
    refused(&|| KvRows::new(KvData::Int4 { nibbles: &[0; 32], steps: &steps, first }, 4, 16, 16).len());
    refused(&|| Ops::for_isa(Isa::Scalar).unwrap().quantize_kv8(&[0.0; 20], &mut [0; 20]) as usize);
    refused(&|| Ops::for_isa(Isa::Scalar).unwrap().quantize_kv4(&[0.0; 16], &mut [0; 16]) as usize);
}
