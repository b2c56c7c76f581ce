//! Causal attention with grouped key/value heads over the cache.

use std::ops::Range;

use half::{bf16, f16};
use smallvec::SmallVec;
use ternary_kernels::ops::{AttendScratch, KvData, KvRows, Ops, Queries, RopeTable};
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
    slab: Slab<'a>,
    /// Queries from the head's first element on, `[n, heads * head_dim]` less what lies before it.
    q: &'a [f32],
    /// New keys from the head's first element on.
    k: &'a [f32],
    /// New values from the head's first element on.
    v: &'a [f32],
    /// Position of the first row.
    base: usize,
    out: ColsMut<'a, f32>,
}

/// Keys and values of one head, `[capacity, head_dim]`.
enum Slab<'a> {
    F32(&'a mut [f32], &'a mut [f32]),
    F16(&'a mut [f16], &'a mut [f16]),
    Bf16(&'a mut [bf16], &'a mut [bf16]),
}

impl Slab<'_> {
    /// Stores a row of keys and values at `position`.
    fn store(&mut self, ops: Ops, position: usize, k: &[f32], v: &[f32]) {
        let at = position * k.len()..(position + 1) * k.len();
        match self {
            Slab::F32(keys, values) => {
                keys[at.clone()].copy_from_slice(k);
                values[at].copy_from_slice(v);
            }
            Slab::F16(keys, values) => {
                ops.f32_to_f16(k, &mut keys[at.clone()]);
                ops.f32_to_f16(v, &mut values[at]);
            }
            Slab::Bf16(keys, values) => {
                ops.f32_to_bf16(k, &mut keys[at.clone()]);
                ops.f32_to_bf16(v, &mut values[at]);
            }
        }
    }

    /// The first `len` rows of keys and of values.
    fn rows(&self, len: usize, d: usize) -> (KvRows<'_>, KvRows<'_>) {
        let rows = |data| KvRows::new(data, len, d, d);
        match self {
            Slab::F32(k, v) => (rows(KvData::F32(k)), rows(KvData::F32(v))),
            Slab::F16(k, v) => (rows(KvData::F16(k)), rows(KvData::F16(v))),
            Slab::Bf16(k, v) => (rows(KvData::Bf16(k)), rows(KvData::Bf16(v))),
        }
    }
}

/// Turns queries and keys by their positions, stores keys and values, and computes `s.attn` from the queries.
pub(super) fn run(c: &ModelConfig, ops: Ops, team: &Team, s: &mut Scratch, layer: usize, segments: &mut [Segment<'_>]) {
    rotate(c, ops, team, s, segments);
    let (d, kv_heads) = (c.head_dim, c.num_key_value_heads);
    let (qw, kvw, gw) = (c.num_attention_heads * d, kv_heads * d, c.group_size() * d);
    let bounds: SmallVec<[_; 16]> = (0..kv_heads).map(|h| h * gw..(h + 1) * gw).collect();
    let mut out = &mut s.attn[..];
    let mut parts: SmallVec<[Part<'_>; 16]> = SmallVec::new();
    for segment in segments {
        let (n, first, base) = (segment.tokens.len(), segment.first_row, segment.cache.len());
        let mine;
        (mine, out) = out.split_at_mut(n * qw);
        let slab = segment.cache.capacity() * d;
        let slabs = slabs(&mut segment.cache.layers[layer], slab);
        for (h, (out, slab)) in split_cols(mine, n, qw, &bounds).zip(slabs).enumerate() {
            let q = &s.q[first * qw..(first + n) * qw][h * gw..];
            let k = &s.k[first * kvw..(first + n) * kvw][h * d..];
            let v = &s.v[first * kvw..(first + n) * kvw][h * d..];
            parts.push(Part { slab, q, k, v, base, out });
        }
    }
    let scratch = &s.attend;
    team.run_parts(&mut parts, |p, part| {
        for (i, (k, v)) in part.k.chunks(kvw).zip(part.v.chunks(kvw)).enumerate() {
            part.slab.store(ops, part.base + i, &k[..d], &v[..d]);
        }
        let tokens = part.out.n();
        let (keys, values) = part.slab.rows(part.base + tokens, d);
        let queries = Queries {
            data: part.q,
            tokens,
            token_stride: qw,
            group: c.group_size(),
            head_dim: d,
            position: part.base,
            scale: 1.0 / (d as f32).sqrt(),
        };
        let mut scratch = lock(&scratch[p % scratch.len()]);
        ops.attend(&queries, keys, values, &mut scratch, &mut part.out);
    });
}

/// Part `p` runs on thread `p % threads`, so this lock is always free; it only proves that to the compiler.
fn lock(scratch: &std::sync::Mutex<AttendScratch>) -> std::sync::MutexGuard<'_, AttendScratch> {
    scratch.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The slabs of the heads of one layer.
fn slabs(layer: &mut LayerCache, len: usize) -> SmallVec<[Slab<'_>; 16]> {
    match layer {
        LayerCache::F32(s) => s.k.chunks_mut(len).zip(s.v.chunks_mut(len)).map(|(k, v)| Slab::F32(k, v)).collect(),
        LayerCache::F16(s) => s.k.chunks_mut(len).zip(s.v.chunks_mut(len)).map(|(k, v)| Slab::F16(k, v)).collect(),
        LayerCache::Bf16(s) => s.k.chunks_mut(len).zip(s.v.chunks_mut(len)).map(|(k, v)| Slab::Bf16(k, v)).collect(),
    }
}

/// Rotary embedding of all queries and keys in place, rows shared between the threads.
fn rotate(c: &ModelConfig, ops: Ops, team: &Team, s: &mut Scratch, segments: &[Segment<'_>]) {
    let d = c.head_dim;
    let (qw, kvw) = (c.num_attention_heads * d, c.num_key_value_heads * d);
    let n: usize = segments.iter().map(|g| g.tokens.len()).sum();
    let rope: &RopeTable = &s.rope;
    let chunk = n.div_ceil(team.threads());
    let mut parts: SmallVec<[_; 16]> =
        s.q[..n * qw].chunks_mut(chunk * qw).zip(s.k[..n * kvw].chunks_mut(chunk * kvw)).collect();
    team.run_parts(&mut parts, |p, (q, k)| {
        for (i, (q, k)) in q.chunks_exact_mut(qw).zip(k.chunks_exact_mut(kvw)).enumerate() {
            let row = p * chunk + i;
            let position = super::step::position_of(segments, row);
            let (cos, sin) = (rope.cos(position), rope.sin(position));
            for head in q.chunks_exact_mut(d).chain(k.chunks_exact_mut(d)) {
                ops.rope_half(head, cos, sin);
            }
        }
    });
}
