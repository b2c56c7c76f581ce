//! Rotary embedding of queries and keys, and the new rows of the cache.

use half::{bf16, f16};
use smallvec::SmallVec;
use ternary_kernels::ops::{Ops, RopeTable};
use ternary_kernels::{ColsMut, Team, split_cols};

use super::{INLINE_PARTS, Segment};
use crate::ModelConfig;
use crate::engine::cache::{LayerCache, padded};
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
    Q8(Codes<'a, i8>, Codes<'a, i8>),
    Q4(Nibbles<'a>, Nibbles<'a>),
}

/// Codes of one head and their steps.
struct Codes<'a, T> {
    codes: &'a mut [T],
    steps: &'a mut [f32],
}

/// Two codes in a byte, and position 0 in int8.
struct Nibbles<'a> {
    rows: Codes<'a, u8>,
    first: &'a mut [i8],
}

impl Codes<'_, i8> {
    fn store(&mut self, ops: Ops, position: usize, x: &[f32]) {
        let width = padded(x.len());
        self.steps[position] = ops.quantize_kv8(x, &mut self.codes[position * width..][..width]);
    }
}

impl Nibbles<'_> {
    fn store(&mut self, ops: Ops, position: usize, x: &[f32]) {
        let width = padded(x.len()) / 2;
        self.rows.steps[position] = match position {
            0 => ops.quantize_kv8(x, self.first),
            _ => ops.quantize_kv4(x, &mut self.rows.codes[position * width..][..width]),
        };
    }
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
            Slab::Q8(keys, values) => {
                keys.store(ops, position, k);
                values.store(ops, position, v);
            }
            Slab::Q4(keys, values) => {
                keys.store(ops, position, k);
                values.store(ops, position, v);
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
        let capacity = segment.state.kv.capacity();
        let heads = split_cols(q, n, qw, &q_bounds).zip(split_cols(k, n, kvw, &k_bounds));
        let slabs = slabs(&mut segment.state.kv.layers[layer], capacity, d);
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

/// The slabs of the heads of one layer, of `capacity` rows of `d` elements.
fn slabs(layer: &mut LayerCache, capacity: usize, d: usize) -> SmallVec<[Slab<'_>; 16]> {
    let (len, width) = (capacity * d, padded(d));
    match layer {
        LayerCache::F32(s) => s.k.chunks_mut(len).zip(s.v.chunks_mut(len)).map(|(k, v)| Slab::F32(k, v)).collect(),
        LayerCache::F16(s) => s.k.chunks_mut(len).zip(s.v.chunks_mut(len)).map(|(k, v)| Slab::F16(k, v)).collect(),
        LayerCache::Bf16(s) => s.k.chunks_mut(len).zip(s.v.chunks_mut(len)).map(|(k, v)| Slab::Bf16(k, v)).collect(),
        LayerCache::Q8(s) => {
            let keys = codes(&mut s.codes.k, &mut s.steps.k, capacity, width);
            let values = codes(&mut s.codes.v, &mut s.steps.v, capacity, width);
            keys.zip(values).map(|(k, v)| Slab::Q8(k, v)).collect()
        }
        LayerCache::Q4(s) => {
            let keys = codes(&mut s.codes.k, &mut s.steps.k, capacity, width / 2).zip(s.first.k.chunks_mut(width));
            let values = codes(&mut s.codes.v, &mut s.steps.v, capacity, width / 2).zip(s.first.v.chunks_mut(width));
            let nibbles = |(rows, first)| Nibbles { rows, first };
            keys.zip(values).map(|(k, v)| Slab::Q4(nibbles(k), nibbles(v))).collect()
        }
    }
}

/// Those of one half of a quantised layer, `width` elements of `T` in a row.
fn codes<'a, T>(
    codes: &'a mut [T],
    steps: &'a mut [f32],
    capacity: usize,
    width: usize,
) -> impl Iterator<Item = Codes<'a, T>> {
    let codes = codes.chunks_mut(capacity * width);
    codes.zip(steps.chunks_mut(capacity)).map(|(codes, steps)| Codes { codes, steps })
}
