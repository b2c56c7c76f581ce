//! Causal attention with grouped key/value heads over the cache.

use std::ops::Range;

use smallvec::SmallVec;
use ternary_kernels::ops::{Ops, RopeTable};
use ternary_kernels::{ColsMut, Team, split_cols};

use super::cache::{KvCache, LayerCache};
use super::scratch::Scratch;
use crate::ModelConfig;

/// Tokens of one sequence within a block of rows.
#[derive(Debug)]
pub(super) struct Segment<'a> {
    pub(super) cache: &'a mut KvCache,
    pub(super) tokens: &'a [u32],
    /// Row of the first token.
    pub(super) first_row: usize,
    /// Rows whose logits are wanted.
    pub(super) wanted: Range<usize>,
}

/// The work on one key/value head of one sequence.
struct Part<'a> {
    /// Queries of the head's group, replaced by the attention's output.
    q: ColsMut<'a, f32>,
    k: ColsMut<'a, f32>,
    v: ColsMut<'a, f32>,
    slab: Slab<'a>,
    /// Position of the first row.
    base: usize,
}

/// Keys and values of one head.
enum Slab<'a> {
    F32(&'a mut [f32], &'a mut [f32]),
}

/// Turns queries and keys, stores keys and values, and replaces the queries by the attention's output.
pub(super) fn run(c: &ModelConfig, ops: Ops, team: &Team, s: &mut Scratch, layer: usize, segments: &mut [Segment<'_>]) {
    let (d, heads) = (c.head_dim, c.num_key_value_heads);
    let (qw, kvw, gw) = (c.num_attention_heads * d, heads * d, c.group_size() * d);
    let q_bounds: SmallVec<[_; 16]> = (0..heads).map(|h| h * gw..(h + 1) * gw).collect();
    let kv_bounds: SmallVec<[_; 16]> = (0..heads).map(|h| h * d..(h + 1) * d).collect();
    let (mut q, mut k, mut v) = (&mut s.q[..], &mut s.k[..], &mut s.v[..]);
    let mut parts: SmallVec<[Part<'_>; 16]> = SmallVec::new();
    for segment in segments {
        let n = segment.tokens.len();
        let base = segment.cache.len();
        let slab = segment.cache.capacity() * d;
        let (sq, sk, sv);
        (sq, q) = q.split_at_mut(n * qw);
        (sk, k) = k.split_at_mut(n * kvw);
        (sv, v) = v.split_at_mut(n * kvw);
        let views = split_cols(sq, n, qw, &q_bounds).zip(split_cols(sk, n, kvw, &kv_bounds)).zip(split_cols(sv, n, kvw, &kv_bounds));
        let LayerCache::F32(cache) = &mut segment.cache.layers[layer] else { panic!() };
        for (((q, k), v), (ks, vs)) in views.zip(cache.k.chunks_mut(slab).zip(cache.v.chunks_mut(slab))) {
            parts.push(Part { q, k, v, slab: Slab::F32(ks, vs), base });
        }
    }
    let rope = &s.rope;
    team.run_parts(&mut parts, |_, part| head(ops, rope, d, part));
}

fn head(ops: Ops, rope: &RopeTable, d: usize, part: &mut Part<'_>) {
    let Slab::F32(ks, vs) = &mut part.slab;
    for i in 0..part.q.n() {
        let p = part.base + i;
        ops.rope_half(part.k.row_mut(i), rope.cos(p), rope.sin(p));
        ks[p * d..][..d].copy_from_slice(part.k.row(i));
        vs[p * d..][..d].copy_from_slice(part.v.row(i));
        let scale = 1.0 / (d as f32).sqrt();
        for q in part.q.row_mut(i).chunks_exact_mut(d) {
            ops.rope_half(q, rope.cos(p), rope.sin(p));
            let mut scores: Vec<f32> = (0..=p).map(|j| ops.dot(q, &ks[j * d..][..d]) * scale).collect();
            ops.softmax_in_place(&mut scores);
            q.fill(0.0);
            for (j, w) in scores.iter().enumerate() {
                ops.axpy(*w, &vs[j * d..][..d], q);
            }
        }
    }
}
