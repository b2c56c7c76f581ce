//! Attention: the definition in plain code, its error against f64, and its independence from other values computed with
//! it.

use super::*;
use crate::ops::attend::{AttendScratch, KV_BLOCK, KvData, KvRows, Partial, Queries};
use crate::{ColsMut, split_cols};

/// Keys and values of one head with gaps between rows, and queries `[len, heads * d]`, some heads of which are used.
struct Case {
    d: usize,
    len: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
    stride: usize,
    queries: Vec<f32>,
    heads: usize,
    scale: f32,
}

impl Case {
    fn new(random: &mut Random, d: usize, len: usize, heads: usize) -> Self {
        let stride = d + random.bits() as usize % 5;
        // The contents of the gaps must not be read as numbers.
        let mut rows = |stride: usize, width: usize| -> Vec<f32> {
            (0..len * stride).map(|i| if i % stride < width { random.activation() } else { f32::NAN }).collect()
        };
        let (keys, values, queries) = (rows(stride, d), rows(stride, d), rows(heads * d, heads * d));
        Self { d, len, keys, values, stride, queries, heads, scale: 1.0 / (d.max(1) as f32).sqrt() }
    }

    /// This case with keys and values that every type represents exactly.
    fn exact_in_16_bits(mut self) -> Self {
        for x in self.keys.iter_mut().chain(&mut self.values) {
            *x = (*x * 16.0).round() / 16.0;
        }
        self
    }

    fn key(&self, j: usize) -> &[f32] {
        &self.keys[j * self.stride..][..self.d]
    }
    fn value(&self, j: usize) -> &[f32] {
        &self.values[j * self.stride..][..self.d]
    }
    fn query(&self, t: usize, h: usize) -> &[f32] {
        &self.queries[(t * self.heads + h) * self.d..][..self.d]
    }

    /// Heads `first..first + group` of tokens `range`.
    fn tokens(&self, range: std::ops::Range<usize>, first: usize, group: usize) -> Queries<'_> {
        Queries {
            data: &self.queries[(range.start * self.heads + first) * self.d..],
            tokens: range.len(),
            token_stride: self.heads * self.d,
            group,
            head_dim: self.d,
            position: range.start,
            scale: self.scale,
        }
    }

    fn rows<'a>(&self, data: &'a [f32]) -> KvRows<'a> {
        KvRows::new(KvData::F32(data), self.len, self.d, self.stride)
    }

    /// All heads of tokens `range` in one call.
    fn attend(&self, ops: Ops, range: std::ops::Range<usize>) -> Vec<f32> {
        let mut scratch = AttendScratch::new(self.heads, self.d);
        let mut out = vec![f32::NAN; range.len() * self.heads * self.d];
        let mut view = ColsMut::new(&mut out, range.len(), self.heads * self.d);
        let queries = self.tokens(range, 0, self.heads);
        ops.attend(&queries, self.rows(&self.keys), self.rows(&self.values), &mut scratch, &mut view);
        out
    }

    /// One head of one token as the documentation defines it.
    fn by_definition(&self, t: usize, h: usize) -> Vec<f32> {
        let (mut max, mut sum, mut acc) = (f32::NEG_INFINITY, 0.0f32, vec![0.0f32; self.d]);
        for start in (0..=t).step_by(KV_BLOCK) {
            let block = start..(start + KV_BLOCK).min(t + 1);
            let scores: Vec<f32> =
                block.clone().map(|j| lane_dot(self.query(t, h), self.key(j)) * self.scale).collect();
            let m = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let p = exp(&scores.iter().map(|s| s - m).collect::<Vec<_>>());
            let mut padded = p.clone();
            padded.resize(KV_BLOCK, 0.0);
            let lanes: [f32; 16] =
                std::array::from_fn(|l| (padded[l] + padded[16 + l]) + (padded[32 + l] + padded[48 + l]));
            let l = tree(lanes);
            let new = max.max(m);
            let factors = exp(&[max - new, m - new]);
            sum = l.mul_add(factors[1], sum * factors[0]);
            for (i, acc) in acc.iter_mut().enumerate() {
                let o = block.clone().fold(0.0f32, |o, j| p[j - start].mul_add(self.value(j)[i], o));
                *acc = o.mul_add(factors[1], *acc * factors[0]);
            }
            max = new;
        }
        acc.iter().map(|o| o / sum).collect()
    }
}

pub(super) fn tree(mut lanes: [f32; 16]) -> f32 {
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
    }
    lanes[0]
}

pub(super) fn lane_dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        lanes[i % 16] = a.mul_add(*b, lanes[i % 16]);
    }
    tree(lanes)
}

pub(super) fn exp(x: &[f32]) -> Vec<f32> {
    let mut e = vec![0.0; x.len()];
    portable().exp(x, &mut e);
    e
}

#[test]
fn attention_follows_the_definition() {
    let mut random = Random(40);
    for (d, len, heads) in
        [(1, 3, 1), (8, 70, 3), (16, 65, 4), (33, 129, 2), (64, 200, 4), (80, 64, 5), (128, 131, 4), (144, 30, 9)]
    {
        let case = Case::new(&mut random, d, len, heads);
        let want: Vec<f32> = (0..len)
            .flat_map(|t| (0..heads).flat_map(move |h| [(t, h)]))
            .flat_map(|(t, h)| case.by_definition(t, h))
            .collect();
        for ops in all_ops() {
            assert_same(&format!("{heads} heads of {d}"), ops, &case.attend(ops, 0..len), &want);
        }
    }
}

#[test]
fn attention_does_not_depend_on_what_is_computed_with_it() {
    let mut random = Random(41);
    let heads: &[_] = if emulated() { &[(16, 4), (64, 1), (40, 3)] } else { &[(16, 4), (64, 3), (128, 4), (40, 8)] };
    for &(d, heads) in heads {
        let len = 150;
        let case = Case::new(&mut random, d, len, heads);
        for ops in all_ops() {
            let whole = case.attend(ops, 0..len);
            let width = heads * d;
            // Boundaries between chunks of prefill, with single tokens (decode) at both ends and across blocks.
            for cuts in [&[0, 1, 8, 40, 120, 149, 150][..], &[0, 63, 64, 65, 66, 128, 150]] {
                let parts: Vec<f32> = cuts.windows(2).flat_map(|w| case.attend(ops, w[0]..w[1])).collect();
                assert_same("chunks", ops, &parts, &whole);
            }
            // Each head separately, written to its columns.
            let mut out = vec![f32::NAN; len * width];
            let bounds: Vec<_> = (0..heads).map(|h| h * d..(h + 1) * d).collect();
            let mut scratch = AttendScratch::new(1, d);
            for (h, mut view) in split_cols(&mut out, len, width, &bounds).enumerate() {
                let queries = case.tokens(0..len, h, 1);
                ops.attend(&queries, case.rows(&case.keys), case.rows(&case.values), &mut scratch, &mut view);
            }
            assert_same("single heads", ops, &out, &whole);
        }
    }
}

#[test]
fn blocks_may_be_computed_anywhere_and_merged_in_order() {
    let mut random = Random(42);
    let (d, len, heads) = (64, 300, 4);
    let case = Case::new(&mut random, d, len, heads);
    for ops in all_ops() {
        // Tokens of three blocks, so that some see nothing of the last one.
        let queries = case.tokens(180..185, 0, heads);
        let mixed = case.tokens(120..135, 0, heads);
        for queries in [queries, mixed] {
            let range = queries.position..queries.position + queries.tokens;
            let mut scratch = AttendScratch::new(queries.rows(), d);
            let mut partials = vec![Partial::with_capacity(queries.rows(), d); queries.blocks()];
            for (block, partial) in partials.iter_mut().enumerate().rev() {
                let (keys, values) = (case.rows(&case.keys).block(block), case.rows(&case.values).block(block));
                ops.attend_block(&queries, block, keys, values, &mut scratch, partial);
            }
            let mut sum = Partial::with_capacity(queries.rows(), d);
            sum.reset(queries.rows(), d);
            for partial in &partials {
                ops.merge_partial(&mut sum, partial);
            }
            let mut out = vec![f32::NAN; queries.rows() * d];
            ops.finish_partial(&sum, &mut ColsMut::new(&mut out, queries.tokens, heads * d));
            assert_same("merged blocks", ops, &out, &case.attend(ops, range));
        }
    }
}

#[test]
fn keys_and_values_of_all_types_give_the_same() {
    let mut random = Random(43);
    for d in [24, 128] {
        let (len, heads) = (100, 4);
        let case = Case::new(&mut random, d, len, heads).exact_in_16_bits();
        let (kh, vh, kb, vb) = (to_f16(&case.keys), to_f16(&case.values), to_bf16(&case.keys), to_bf16(&case.values));
        let rows = |data| KvRows::new(data, len, d, case.stride);
        let keys = [KvData::F32(&case.keys), KvData::F16(&kh), KvData::Bf16(&kb)].map(rows);
        let values = [KvData::F32(&case.values), KvData::F16(&vh), KvData::Bf16(&vb)].map(rows);
        for ops in all_ops() {
            let want = case.attend(ops, 90..100);
            for keys in keys {
                for values in values {
                    let mut out = vec![f32::NAN; 10 * heads * d];
                    let mut scratch = AttendScratch::new(heads, d);
                    let mut view = ColsMut::new(&mut out, 10, heads * d);
                    ops.attend(&case.tokens(90..100, 0, heads), keys, values, &mut scratch, &mut view);
                    assert_same("16-bit rows", ops, &out, &want);
                }
            }
        }
    }
}

#[test]
fn attention_against_f64() {
    let mut random = Random(44);
    for (d, len) in [(64, 300), (128, 140)] {
        let case = Case::new(&mut random, d, len, 1);
        let got = case.attend(*all_ops().last().unwrap(), 0..len);
        for t in 0..len {
            let exact = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
            let (q, scale) = (exact(case.query(t, 0)), f64::from(case.scale));
            let terms = |j: usize| exact(case.key(j)).iter().zip(&q).map(|(k, q)| k * q * scale).collect::<Vec<f64>>();
            let scores: Vec<f64> = (0..=t).map(|j| terms(j).iter().sum()).collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let blocks = (t / KV_BLOCK + 1) as f64;
            // The error of an exponential: that of its score (a chain of d / 16, four tree levels and the scale), of
            // the differences from maxima, and of `exp` (2 u) once for the score and, with a product, once for each
            // merge.
            let own = |j: usize| {
                let size: f64 = terms(j).iter().map(|t| t.abs()).sum();
                (d as f64 / 16.0 + 4.0 + 1.0) * size + (max - scores[j]) + 2.0 + 3.0 * blocks
            };
            let own: Vec<f64> = (0..=t).map(own).collect();
            // The error of their sum: the weighted mean of theirs, six additions in a block and one for each merge.
            let of_sum = own.iter().zip(&weights).map(|(o, w)| o * w).sum::<f64>() / sum + 6.0 + blocks;
            for i in 0..d {
                let (mut want, mut bound) = (0.0, 0.0);
                for j in 0..=t {
                    let term = weights[j] / sum * f64::from(case.value(j)[i]);
                    want += term;
                    // Plus the chain of a block's values, one addition for each merge, and the quotient.
                    bound += term.abs() * (own[j] + of_sum + KV_BLOCK as f64 + blocks + 1.0) * U;
                }
                let error = (f64::from(got[t * d + i]) - want).abs();
                assert!(error <= bound, "token {t}, element {i}: error {error:e} above {bound:e}");
            }
        }
    }
}

#[test]
fn extreme_scores_are_no_trouble() {
    // One key far above the others, in another block; then all scores equal.
    let mut random = Random(45);
    let mut case = Case::new(&mut random, 16, 130, 1);
    case.queries.fill(1e3);
    for ops in all_ops() {
        case.keys.fill(-1e3);
        case.keys[70 * case.stride..][..16].fill(1e3);
        let out = case.attend(ops, 129..130);
        assert_same("one key", ops, &out, case.value(70));
        case.keys.fill(0.0);
        case.values.fill(0.25);
        assert_same("equal keys", ops, &case.attend(ops, 129..130), &[0.25; 16]);
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    fn refused<R>(f: impl FnOnce() -> R) {
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| _ = f())).is_err());
    }
    let data = [0.0; 64];
    let rows = |len, d, stride| KvRows::new(KvData::F32(&data), len, d, stride);
    refused(|| rows(5, 16, 16));
    refused(|| rows(4, 16, 15));
    refused(|| rows(usize::MAX, 16, usize::MAX));
    assert_eq!(rows(4, 16, 16).block(1).len(), 0);
    let queries = Queries { data: &data, tokens: 1, token_stride: 32, group: 2, head_dim: 16, position: 3, scale: 1.0 };
    let ops = portable();
    let mut scratch = AttendScratch::new(2, 16);
    let mut out = [0.0; 64];
    let mut run = |queries: Queries<'_>, keys, values, n, m: usize| {
        ops.attend(&queries, keys, values, &mut scratch, &mut ColsMut::new(&mut out[..n * m], n, m));
    };
    run(queries, rows(4, 16, 16), rows(4, 16, 16), 1, 32);
    refused(|| run(queries, rows(3, 16, 16), rows(4, 16, 16), 1, 32));
    refused(|| run(queries, rows(4, 16, 16), rows(3, 16, 16), 1, 32));
    refused(|| run(queries, rows(4, 8, 16), rows(4, 16, 16), 1, 32));
    refused(|| run(queries, rows(4, 16, 16), rows(4, 16, 16), 2, 32));
    refused(|| run(queries, rows(4, 16, 16), rows(4, 16, 16), 1, 16));
    refused(|| run(Queries { tokens: 3, position: 0, ..queries }, rows(4, 16, 16), rows(4, 16, 16), 3, 32));
    refused(|| run(Queries { token_stride: 31, ..queries }, rows(4, 16, 16), rows(4, 16, 16), 1, 32));
    refused(|| run(Queries { head_dim: 32, token_stride: 64, ..queries }, rows(2, 32, 32), rows(2, 32, 32), 1, 64));
}
