//! Causal attention over blocks of keys; results have the same bits for any grouping of queries.
//!
//! Keys and values are divided into blocks of [`KV_BLOCK`] positions, counted from position 0. For one query and one
//! block
//! with the visible keys `k_j` and values `v_j`:
//!
//! - `s_j = (q . k_j) scale`, where the product of two rows sums vector after vector into 16 lanes, then over the tree;
//! - `m = max_j s_j`, `p_j = exp(s_j - m)`, `l = sum_j p_j` in the order of [`Ops::dot`];
//! - `o = sum_j p_j v_j`, one fused multiply-add after the other in ascending `j`.
//!
//! If keys and values are codes with a step `a_j` and `b_j` for each row, the query is quantised too, like
//! [`Ops::quantize_kv8`] does, with a step `c`: `s_j = ((q . k_j) (scale c)) a_j`, with the product of the codes, exact
//! and rounded once. Weights become whole numbers: with `w_j = p_j b_j`, `g = max_j w_j` and `L` = [`WEIGHT_LEVELS`],
//! `n_j = round(w_j (L / g))`, ties to even, and `o = (sum_j n_j v_j) (g / L)` with `v_j` the codes. That sum is an exact
//! integer below 2^24, also in f32, so it may be computed with integers or floats, in any order. If a step `b_j` is not finite, `o` is
//! NaN.
//!
//! `(m, l, o)` is the block's [`Partial`]. Those of blocks 0, 1, 2 ... are merged in this order: with `M = max(m, m')`
//! the result is `(M, l e^(m - M) + l' e^(m' - M), o e^(m - M) + o' e^(m' - M))`, the second product fused. Finally the
//! query's result is `o / l`.
//!
//! So the result depends on the query and on the keys and values up to its position, not on the number of queries
//! computed together, the boundary between prefill and decode, or the thread that computes a block: blocks may be
//! computed anywhere, as long as they are merged in order.
//!
//! Papers: arXiv:2205.14135 (blocks and their merging); arXiv:2504.18415, section 3.1 (queries, keys and values in few
//! bits).

use std::ops::Range;

use super::Ops;
use crate::{AlignedBuf, ColsMut};

mod data;
mod dots;
mod kernel;
mod rows;
mod score;
mod weigh;

pub use data::{KvData, KvRows};
use dots::DotRoom;
use score::QueryCodes;

/// Positions in a block of keys and values.
pub const KV_BLOCK: usize = 64;

/// The largest weight of a block whose values are codes: 64 weights times codes of up to 127 stay below 2^24, to which f32
/// represents all integers, so every instruction set computes the same sum.
const WEIGHT_LEVELS: f32 = 2047.0;
const _: () = assert!(KV_BLOCK as f32 * 127.0 * WEIGHT_LEVELS < (1 << 24) as f32);

/// Rows that [`Ops::attend`] takes through all blocks together: enough that loading a block is cheap compared with its
/// use, few enough that their scores and sums stay in the inner caches.
const TILE_ROWS: usize = 32;

/// Queries of consecutive tokens that share one head of keys and values: `group` heads each (1 without grouping).
///
/// Row `t * group + h` is head `h` of token `t`: the `head_dim` elements from `data[t * token_stride + h * head_dim]`
/// on. It sees the keys of positions up to its own, `position + t`.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// The queries, already rotated by their positions if the model uses RoPE.
    pub data: &'a [f32],
    /// Number of tokens.
    pub tokens: usize,
    /// Elements from one token to the next, at least `group * head_dim`.
    pub token_stride: usize,
    /// Heads of queries for this head of keys and values.
    pub group: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Position of token 0.
    pub position: usize,
    /// The factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
}

impl<'a> Queries<'a> {
    /// # Panics
    /// If tokens overlap or the last one exceeds the data.
    fn check(&self) {
        let Self { tokens, token_stride, group, head_dim, .. } = *self;
        let width = group.checked_mul(head_dim).filter(|w| *w <= token_stride);
        let end = width.and_then(|w| match tokens.checked_sub(1) {
            None => Some(0),
            Some(last) => last.checked_mul(token_stride)?.checked_add(w),
        });
        assert!(
            end.is_some_and(|end| end <= self.data.len()),
            "{tokens} tokens of {group} heads of {head_dim} with stride {token_stride} in {} elements",
            self.data.len()
        );
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.tokens * self.group
    }

    /// Number of blocks that the last token sees.
    pub fn blocks(&self) -> usize {
        if self.tokens == 0 { 0 } else { (self.position + self.tokens - 1) / KV_BLOCK + 1 }
    }

    /// Tokens `start..end`.
    fn tokens(&self, start: usize, end: usize) -> Self {
        let data = &self.data[if start == end { 0 } else { start * self.token_stride }..];
        Self { data, tokens: end - start, position: self.position + start, ..*self }
    }

    #[inline(always)]
    fn row(&self, row: usize) -> &'a [f32] {
        let start = row / self.group * self.token_stride + row % self.group * self.head_dim;
        &self.data[start..start + self.head_dim]
    }

    /// Keys of a block starting at position `start` that `row` sees.
    #[inline(always)]
    fn visible(&self, row: usize, start: usize) -> usize {
        (self.position + row / self.group + 1).saturating_sub(start).min(KV_BLOCK)
    }
}

/// The contribution of a part of the keys to each of some queries: the maximum `m` of the scores, the sum `l` of their
/// exponentials and the values `o` weighted with these. Before the first key `m` is minus infinity, `l` and `o` are 0.
#[derive(Clone, Debug)]
pub struct Partial {
    /// `[rows, stride]`: `o` padded with zeros to whole vectors, then `m`, `l` and zeros.
    values: AlignedBuf<f32>,
    rows: usize,
    head_dim: usize,
}

impl Partial {
    /// Room for `max_rows` queries of heads of up to `max_head_dim` elements.
    pub fn with_capacity(max_rows: usize, max_head_dim: usize) -> Self {
        Self { values: AlignedBuf::zeroed(max_rows * Self::stride_of(max_head_dim)), rows: 0, head_dim: 0 }
    }

    /// Resets it to `rows` queries before the first key.
    ///
    /// # Panics
    /// If the rows exceed the capacity.
    pub fn reset(&mut self, rows: usize, head_dim: usize) {
        let stride = Self::stride_of(head_dim);
        assert!(
            rows.checked_mul(stride).is_some_and(|len| len <= self.values.len()),
            "{rows} queries of heads of {head_dim} exceed the capacity"
        );
        (self.rows, self.head_dim) = (rows, head_dim);
        for row in self.values.chunks_exact_mut(stride).take(rows) {
            row.fill(0.0);
            row[stride - 16] = f32::NEG_INFINITY;
        }
    }

    /// Becomes a copy of `other`, without allocating.
    ///
    /// # Panics
    /// If `other` exceeds the capacity.
    pub fn copy_from(&mut self, other: &Self) {
        let len = other.rows * Self::stride_of(other.head_dim);
        assert!(len <= self.values.len(), "{} queries of heads of {} exceed the capacity", other.rows, other.head_dim);
        (self.rows, self.head_dim) = (other.rows, other.head_dim);
        self.values[..len].copy_from_slice(&other.values[..len]);
    }

    /// Number of queries.
    pub fn rows(&self) -> usize {
        self.rows
    }

    fn stride_of(head_dim: usize) -> usize {
        head_dim.next_multiple_of(16) + 16
    }
}

/// Keys and values of a block, and those of the next one, which may be prefetched meanwhile.
#[derive(Clone, Copy, Debug)]
struct BlockRows<'a> {
    keys: KvRows<'a>,
    values: KvRows<'a>,
    next: Option<(KvRows<'a>, KvRows<'a>)>,
}

/// Working memory for one block.
#[derive(Clone, Debug)]
struct Room {
    /// `[rows, KV_BLOCK]`
    scores: AlignedBuf<f32>,
    codes: QueryCodes,
    /// Keys, then values, as f32: `[2, KV_BLOCK, stride]`.
    rows: AlignedBuf<f32>,
    dots: DotRoom,
}

impl Room {
    /// Invalidates the codes of queries: other queries, or other keys, follow.
    fn forget(&mut self) {
        self.codes.forget();
        self.dots.forget();
    }

    /// Elements between the starts of consecutive rows.
    fn stride_of(head_dim: usize) -> usize {
        head_dim.next_multiple_of(16)
    }
}

/// Working memory of attention on one thread; nothing is allocated after construction.
#[derive(Clone, Debug)]
pub struct AttendScratch {
    room: Room,
    block: Partial,
    sum: Partial,
}

impl AttendScratch {
    /// Room for [`Ops::attend`] of any number of tokens with up to `max_group` heads of up to `max_head_dim` elements,
    /// and for [`Ops::attend_block`] of up to `max(32, max_group)` rows.
    pub fn new(max_group: usize, max_head_dim: usize) -> Self {
        let rows = TILE_ROWS.max(max_group);
        Self {
            room: Room {
                scores: AlignedBuf::zeroed(rows * KV_BLOCK),
                codes: QueryCodes::with_capacity(rows, max_head_dim),
                rows: AlignedBuf::zeroed(2 * KV_BLOCK * Room::stride_of(max_head_dim)),
                dots: DotRoom::with_capacity(rows, max_head_dim),
            },
            block: Partial::with_capacity(rows, max_head_dim),
            sum: Partial::with_capacity(rows, max_head_dim),
        }
    }
}

/// Calls `each` with blocks `blocks` in ascending order, and the rows of each and of the next one.
fn each_block<'a>(
    blocks: Range<usize>,
    rows: impl Fn(usize) -> (KvRows<'a>, KvRows<'a>),
    room: &mut Room,
    mut each: impl FnMut(&mut Room, usize, BlockRows<'a>),
) {
    room.forget();
    let Range { start, end } = blocks;
    let mut next = (start < end).then(|| rows(start));
    for block in start..end {
        let Some((keys, values)) = next else { return };
        next = (block + 1 < end).then(|| rows(block + 1));
        each(room, block, BlockRows { keys, values, next });
    }
}

ops! {
    fn block_within(
        queries: &Queries<'_>,
        block: usize,
        rows: BlockRows<'_>,
        room: &mut Room,
        out: &mut Partial,
    ) = kernel::block;

    fn codes_onto(
        queries: &Queries<'_>,
        block: usize,
        rows: BlockRows<'_>,
        room: &mut Room,
        sum: &mut Partial,
    ) -> bool = kernel::codes_onto;

    /// Adds the contribution of the next block: `sum` then covers its previous blocks and `next`.
    ///
    /// # Panics
    /// If shapes differ.
    pub fn merge_partial(sum: &mut Partial, next: &Partial) = kernel::merge;

    /// `out[t, h * head_dim + i] = o[t * group + h][i] / l`: the result of attention, once all blocks are merged. `out`
    /// is `[tokens, group * head_dim]`.
    ///
    /// # Panics
    /// If shapes differ.
    pub fn finish_partial(sum: &Partial, out: &mut ColsMut<'_, f32>) = kernel::finish;
}

impl Ops {
    /// The contribution of a block, merged into `sum`; `partial` is room for it.
    fn block_onto(
        self,
        queries: &Queries<'_>,
        block: usize,
        rows: BlockRows<'_>,
        room: &mut Room,
        partial: &mut Partial,
        sum: &mut Partial,
    ) {
        if !self.codes_onto(queries, block, rows, room, sum) {
            self.block_within(queries, block, rows, room, partial);
            self.merge_partial(sum, partial);
        }
    }

    /// The contribution of block `block` to `queries`: `keys` and `values` are the rows of positions from
    /// `block * KV_BLOCK` on, at least those that the last query sees. Queries at positions before the block get
    /// nothing.
    ///
    /// # Panics
    /// If shapes differ, or rows or capacity are missing.
    pub fn attend_block(
        self,
        queries: &Queries<'_>,
        block: usize,
        keys: KvRows<'_>,
        values: KvRows<'_>,
        scratch: &mut AttendScratch,
        out: &mut Partial,
    ) {
        scratch.room.forget();
        self.block_within(queries, block, BlockRows { keys, values, next: None }, &mut scratch.room, out);
    }

    /// [`Ops::attend_block`] for blocks `blocks`: `rows` returns the keys and values of each, and `each` receives the
    /// results in ascending order. Work common to the blocks is done once: queries for quantised keys are quantised
    /// once.
    ///
    /// # Panics
    /// Like [`Ops::attend_block`].
    pub fn attend_blocks<'a>(
        self,
        queries: &Queries<'_>,
        blocks: Range<usize>,
        rows: impl Fn(usize) -> (KvRows<'a>, KvRows<'a>),
        scratch: &mut AttendScratch,
        mut each: impl FnMut(&Partial),
    ) {
        let AttendScratch { room, block: partial, .. } = scratch;
        each_block(blocks, rows, room, |room, block, rows| {
            self.block_within(queries, block, rows, room, partial);
            each(partial);
        });
    }

    /// [`Ops::attend_blocks`], with each result merged into `sum`, which covers the blocks before.
    ///
    /// # Panics
    /// Like [`Ops::attend_block`] and [`Ops::merge_partial`].
    pub fn attend_onto<'a>(
        self,
        queries: &Queries<'_>,
        blocks: Range<usize>,
        rows: impl Fn(usize) -> (KvRows<'a>, KvRows<'a>),
        scratch: &mut AttendScratch,
        sum: &mut Partial,
    ) {
        let AttendScratch { room, block: partial, .. } = scratch;
        each_block(blocks, rows, room, |room, block, rows| {
            self.block_onto(queries, block, rows, room, partial, sum);
        });
    }

    /// `out[t] = softmax(q K^T scale) V` over the keys up to each query's own position, for keys and values stored in
    /// one piece from position 0 on: [`Ops::attend_blocks`], [`Ops::merge_partial`] and [`Ops::finish_partial`] for all
    /// tokens and blocks, with the same bits. `out` is `[tokens, group * head_dim]`.
    ///
    /// # Panics
    /// If shapes differ, or rows or capacity are missing.
    pub fn attend(
        self,
        queries: &Queries<'_>,
        keys: KvRows<'_>,
        values: KvRows<'_>,
        scratch: &mut AttendScratch,
        out: &mut ColsMut<'_, f32>,
    ) {
        assert_eq!(out.n(), queries.tokens, "attend: rows of the result");
        queries.check();
        let AttendScratch { room, block: partial, sum } = scratch;
        let tile = (TILE_ROWS / queries.group.max(1)).max(1);
        let mut start = 0;
        while start < queries.tokens {
            let end = (start + tile).min(queries.tokens);
            let queries = queries.tokens(start, end);
            sum.reset(queries.rows(), queries.head_dim);
            let blocks = 0..queries.blocks();
            let rows = |block| (keys.block(block), values.block(block));
            each_block(blocks, rows, room, |room, block, rows| {
                self.block_onto(&queries, block, rows, room, partial, sum);
            });
            self.finish_partial(sum, &mut out.rows_mut(start..end));
            start = end;
        }
    }
}
