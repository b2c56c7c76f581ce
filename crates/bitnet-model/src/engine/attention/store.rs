//! Rotary embedding of queries and keys, and the new rows of the cache.

use half::{bf16, f16};
use smallvec::SmallVec;
use ternary_kernels::ops::{Ops, RopeTable};
use ternary_kernels::{ColsMut, Team, split_cols};

use super::{INLINE_PARTS, Segment};
use crate::ModelConfig;
use crate::engine::cache::LayerCache;
use crate::engine::scratch::Scratch;

/// The new rows of one key/value head of one sequence.
struct Part<'a> {
    slab: Slab<'a>,
    /// Queries of the head's group, turned in place.
    q: ColsMut<'a, f32>,
    /// New keys, turned in place.
    k: ColsMut<'a, f32>,
    /// New values from the head's first element on.
    v: &'a [f32],
    /// Position of the first row.
    base: usize,
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
}

/// Turns queries and keys by their positions, and stores keys and values.
pub(super) fn run(c: &ModelConfig, ops: Ops, team: &Team, s: &mut Scratch, layer: usize, segments: &mut [Segment<'_>]) {
    let (d, kv_heads) = (c.head_dim, c.num_key_value_heads);
    let (qw, kvw, gw) = (c.num_attention_heads * d, kv_heads * d, c.group_size() * d);
    let bounds = |width: usize| (0..kv_heads).map(move |h| h * width..(h + 1) * width);
    let q_bounds: SmallVec<[_; INLINE_PARTS]> = bounds(gw).collect();
    let k_bounds: SmallVec<[_; INLINE_PARTS]> = bounds(d).collect();
    let (mut q_rest, mut k_rest) = (&mut s.q[..], &mut s.k[..]);
    let mut parts: SmallVec<[Part<'_>; INLINE_PARTS]> = SmallVec::new();
    for segment in segments {
        let (n, first, base) = (segment.tokens.len(), segment.first_row, segment.state.len());
        let (q, k);
        (q, q_rest) = q_rest.split_at_mut(n * qw);
        (k, k_rest) = k_rest.split_at_mut(n * kvw);
        let slab = segment.state.kv.capacity() * d;
        let heads = split_cols(q, n, qw, &q_bounds).zip(split_cols(k, n, kvw, &k_bounds));
        let slabs = slabs(&mut segment.state.kv.layers[layer], slab);
        for (h, ((q, k), slab)) in heads.zip(slabs).enumerate() {
            let v = if n == 0 { &[] } else { &s.v[first * kvw..(first + n) * kvw][h * d..] };
            parts.push(Part { slab, q, k, v, base });
        }
    }
    let rope: &RopeTable = &s.rope;
    team.run_parts(&mut parts, |_, part| {
        for (i, v) in part.v.chunks(kvw).enumerate() {
            let position = part.base + i;
            let (cos, sin) = (rope.cos(position), rope.sin(position));
            part.q.row_mut(i).chunks_exact_mut(d).for_each(|head| ops.rope_half(head, cos, sin));
            let k = part.k.row_mut(i);
            ops.rope_half(k, cos, sin);
            part.slab.store(ops, position, k, &v[..d]);
        }
    });
}

/// The slabs of the heads of one layer.
fn slabs(layer: &mut LayerCache, len: usize) -> SmallVec<[Slab<'_>; 16]> {
    match layer {
        LayerCache::F32(s) => s.k.chunks_mut(len).zip(s.v.chunks_mut(len)).map(|(k, v)| Slab::F32(k, v)).collect(),
        LayerCache::F16(s) => s.k.chunks_mut(len).zip(s.v.chunks_mut(len)).map(|(k, v)| Slab::F16(k, v)).collect(),
        LayerCache::Bf16(s) => s.k.chunks_mut(len).zip(s.v.chunks_mut(len)).map(|(k, v)| Slab::Bf16(k, v)).collect(),
    }
}
