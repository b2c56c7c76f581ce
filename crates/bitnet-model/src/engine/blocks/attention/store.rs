//! Rotary embedding of queries and keys, and the new rows of the cache.

use std::ops::Range;

use half::{bf16, f16};
use smallvec::SmallVec;
use ternary_kernels::ops::Ops;
use ternary_kernels::{ColsMut, split_cols};

use super::plan::INLINE_PARTS;
use super::scratch::AttentionScratch;
use crate::engine::cache::{LayerCache, PAGE, Quantized, Slabs, padded};
use crate::engine::context::Context;
use crate::engine::segment::Segment;

/// The new rows of one key/value head of one sequence.
struct Part<'a> {
    /// In the pages that hold the rows.
    slabs: SmallVec<[Slab<'a>; 2]>,
    /// Queries of the head's group, rotated in place.
    queries: ColsMut<'a, f32>,
    /// New keys, rotated in place.
    keys: ColsMut<'a, f32>,
    /// New values, from the head's first element on.
    values: &'a [f32],
    /// Position of the first row.
    base: usize,
}

/// Keys and values of one head in a page, `[PAGE, head_dim]`.
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

/// Two codes per byte, and in the first page position 0 in int8.
struct Nibbles<'a> {
    rows: Codes<'a, u8>,
    first: Option<&'a mut [i8]>,
}

impl Codes<'_, i8> {
    fn store(&mut self, ops: Ops, row: usize, x: &[f32]) {
        let width = padded(x.len());
        self.steps[row] = ops.quantize_kv8(x, &mut self.codes[row * width..][..width]);
    }
}

impl Nibbles<'_> {
    fn store(&mut self, ops: Ops, row: usize, x: &[f32]) {
        let width = padded(x.len()) / 2;
        self.rows.steps[row] = match &mut self.first {
            Some(first) if row == 0 => ops.quantize_kv8(x, first),
            _ => ops.quantize_kv4(x, &mut self.rows.codes[row * width..][..width]),
        };
    }
}

impl Slab<'_> {
    /// Stores a row of keys and values as row `row` of the page.
    fn store(&mut self, ops: Ops, row: usize, k: &[f32], v: &[f32]) {
        let at = row * k.len()..(row + 1) * k.len();
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
                keys.store(ops, row, k);
                values.store(ops, row, v);
            }
            Slab::Q4(keys, values) => {
                keys.store(ops, row, k);
                values.store(ops, row, v);
            }
        }
    }
}

/// Gain of the norm of each head of queries, and of keys, if the model has such norms.
#[derive(Debug)]
pub(in crate::engine) struct HeadNorms {
    pub(in crate::engine) query: Option<Vec<f32>>,
    pub(in crate::engine) key: Option<Vec<f32>>,
}

/// Normalises the heads of queries and keys if `norms` are given, rotates them by their positions, and stores keys and
/// values as layer `slot` among those that are attention.
pub(super) fn run(
    context: &Context<'_>,
    scratch: &mut AttentionScratch,
    norms: &HeadNorms,
    slot: usize,
    segments: &mut [Segment<'_>],
) {
    let (config, ops) = (context.config, context.ops);
    let (head_dim, kv_heads, turned) = (config.head_dim, config.num_key_value_heads, config.rotary_width());
    let (query_width, key_width) = (config.query_rows(), kv_heads * head_dim);
    let bounds = |width: usize| (0..kv_heads).map(move |h| h * width..(h + 1) * width);
    let query_bounds: SmallVec<[_; INLINE_PARTS]> = bounds(config.group_size() * head_dim).collect();
    let key_bounds: SmallVec<[_; INLINE_PARTS]> = bounds(head_dim).collect();
    let AttentionScratch { queries, keys, values, rope, .. } = scratch;
    let (mut queries, mut keys, rope) = (&mut queries[..], &mut keys[..], &*rope);
    let mut parts: SmallVec<[Part<'_>; INLINE_PARTS]> = SmallVec::new();
    for segment in segments {
        let (tokens, base, rows) = (segment.tokens.len(), segment.state.len(), segment.rows());
        let (own_queries, own_keys);
        (own_queries, queries) = queries.split_at_mut(tokens * query_width);
        (own_keys, keys) = keys.split_at_mut(tokens * key_width);
        let heads = split_cols(own_queries, tokens, query_width, &query_bounds).zip(split_cols(
            own_keys,
            tokens,
            key_width,
            &key_bounds,
        ));
        let before = parts.len();
        for (h, (queries, keys)) in heads.enumerate() {
            let own = &values[rows.start * key_width..rows.end * key_width];
            let values = if tokens == 0 { &[] } else { &own[h * head_dim..] };
            parts.push(Part { slabs: SmallVec::new(), queries, keys, values, base });
        }
        let pages = base / PAGE..(base + tokens).div_ceil(PAGE);
        slabs(&mut segment.state.kv.layers[slot], pages, head_dim, &mut parts[before..]);
    }
    let norm = |head: &mut [f32], gain: Option<&[f32]>| {
        if let Some(gain) = gain {
            ops.rms_norm_in_place(head, gain, config.rms_norm_eps);
        }
    };
    let turn = |head: &mut [f32], gain: Option<&[f32]>, position: usize| {
        let (before, after) = if config.head_norms_after_rope { (None, gain) } else { (gain, None) };
        norm(head, before);
        ops.rope_half(&mut head[..turned], rope.cos(position), rope.sin(position));
        norm(head, after);
    };
    let [query_norm, key_norm] = [norms.query.as_deref(), norms.key.as_deref()];
    context.team.run_parts(&mut parts, |_, part| {
        for (i, value) in part.values.chunks(key_width).enumerate() {
            let position = part.base + i;
            part.queries.row_mut(i).chunks_exact_mut(head_dim).for_each(|head| turn(head, query_norm, position));
            let key = part.keys.row_mut(i);
            turn(key, key_norm, position);
            part.slabs[position / PAGE - part.base / PAGE].store(ops, position % PAGE, key, &value[..head_dim]);
        }
    });
}

/// Distributes the slabs of `pages` of one layer, in rows of `d` elements, to the parts of the heads.
fn slabs<'a>(layer: &'a mut LayerCache, pages: Range<usize>, d: usize, parts: &mut [Part<'a>]) {
    let (len, width) = (PAGE * d, padded(d));
    match layer {
        LayerCache::F32(p) => p.range_mut(pages).for_each(|s| hand_out(floats(s, len, Slab::F32), parts)),
        LayerCache::F16(p) => p.range_mut(pages).for_each(|s| hand_out(floats(s, len, Slab::F16), parts)),
        LayerCache::Bf16(p) => p.range_mut(pages).for_each(|s| hand_out(floats(s, len, Slab::Bf16), parts)),
        LayerCache::Q8(p) => p.range_mut(pages).for_each(|Quantized { codes: c, steps, .. }| {
            let (keys, values) = (codes(&mut c.k, &mut steps.k, width), codes(&mut c.v, &mut steps.v, width));
            hand_out(keys.zip(values).map(|(k, v)| Slab::Q8(k, v)), parts);
        }),
        LayerCache::Q4(p) => p.range_mut(pages).for_each(|Quantized { codes: c, steps, first }| {
            let keys = codes(&mut c.k, &mut steps.k, width / 2).zip(firsts(&mut first.k, width));
            let values = codes(&mut c.v, &mut steps.v, width / 2).zip(firsts(&mut first.v, width));
            let nibbles = |(rows, first)| Nibbles { rows, first };
            hand_out(keys.zip(values).map(|(k, v)| Slab::Q4(nibbles(k), nibbles(v))), parts);
        }),
    }
}

/// One slab for each part.
fn hand_out<'a>(slabs: impl Iterator<Item = Slab<'a>>, parts: &mut [Part<'a>]) {
    parts.iter_mut().zip(slabs).for_each(|(part, slab)| part.slabs.push(slab));
}

/// The slabs of the heads of a page, of `len` elements each.
fn floats<'a, T: bytemuck::Pod>(
    slabs: &'a mut Slabs<T>,
    len: usize,
    slab: fn(&'a mut [T], &'a mut [T]) -> Slab<'a>,
) -> impl Iterator<Item = Slab<'a>> {
    slabs.k.chunks_mut(len).zip(slabs.v.chunks_mut(len)).map(move |(k, v)| slab(k, v))
}

/// The codes of one half of a quantised page, `width` elements of `T` in a row.
fn codes<'a, T>(codes: &'a mut [T], steps: &'a mut [f32], width: usize) -> impl Iterator<Item = Codes<'a, T>> {
    codes.chunks_mut(PAGE * width).zip(steps.chunks_mut(PAGE)).map(|(codes, steps)| Codes { codes, steps })
}

/// For each head the row of position 0 in int8, if the page has such rows.
fn firsts(first: &mut [i8], width: usize) -> impl Iterator<Item = Option<&mut [i8]>> {
    first.chunks_mut(width).map(Some).chain(std::iter::repeat_with(|| None))
}
