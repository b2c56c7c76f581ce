//! Causal attention with grouped key/value heads over the cache.
//!
//! Two phases of the team: [`store`] turns queries and keys by their positions and stores keys and values, then the threads
//! take the parts of the blocks of keys that the [`plan`] says. Results lie head by head, `[kv_heads, tokens, group *
//! head_dim]` for each segment, so that every part writes one piece of memory; [`gather_row`] reads them token by token.

mod plan;
mod store;

use std::ops::Range;

use smallvec::SmallVec;
use ternary_kernels::ops::{AttendScratch, KvRows, Ops, Partial, Queries};
use ternary_kernels::{ColsMut, Team};

use super::scratch::Scratch;
use super::{AttentionMixer, HeadRequest, SequenceState};
use crate::ModelConfig;
pub(super) use plan::Plan;
use plan::{Cut, Extent};

/// Tokens of one sequence within a block of rows.
#[derive(Debug)]
pub(super) struct Segment<'a> {
    pub(super) state: &'a mut SequenceState,
    pub(super) tokens: &'a [u32],
    /// Row of the first token.
    pub(super) first_row: usize,
    /// Rows whose logits are wanted.
    pub(super) wanted: Range<usize>,
    /// Which of their logits.
    pub(super) head: HeadRequest,
}

/// Rows of queries (tokens times heads of a group) that go through the blocks of keys together.
const TILE_ROWS: usize = 32;

/// Tokens of a tile.
pub(super) fn tile_tokens(c: &ModelConfig) -> usize {
    (TILE_ROWS / c.group_size()).max(1)
}

/// Parts of a phase on the stack.
const INLINE_PARTS: usize = 64;

/// What a part of attention leaves behind.
#[derive(Debug)]
pub(super) struct AttentionScratch {
    /// All blocks of the tile so far.
    sum: Partial,
    /// Blocks of a tile that began in an earlier part, in ascending order.
    deferred: Vec<Partial>,
    /// How many of `deferred` are in use.
    deferred_len: usize,
    /// The tile whose later blocks are in other parts; its first ones are in `sum`.
    open: Option<Cut>,
}

impl AttentionScratch {
    fn new(c: &ModelConfig) -> Self {
        Self { sum: partial(c), deferred: Vec::new(), deferred_len: 0, open: None }
    }
}

/// What each thread works with.
pub(super) fn attend_scratch(c: &ModelConfig) -> AttendScratch {
    AttendScratch::new(c.group_size(), c.head_dim)
}

/// Makes room for the parts of `plan`.
pub(super) fn reserve(c: &ModelConfig, plan: &Plan, parts: &mut Vec<AttentionScratch>) {
    if parts.len() < plan.parts() {
        parts.resize_with(plan.parts(), || AttentionScratch::new(c));
    }
}

/// Room for one more block of a tile.
fn defer<'a>(c: &ModelConfig, deferred: &'a mut Vec<Partial>, len: &mut usize) -> &'a mut Partial {
    if *len == deferred.len() {
        // Doubled, so that a text that grows token by token rarely meets this.
        let more = deferred.len().max(4);
        deferred.extend((0..more).map(|_| partial(c)));
    }
    *len += 1;
    &mut deferred[*len - 1]
}

fn partial(c: &ModelConfig) -> Partial {
    Partial::with_capacity(tile_tokens(c) * c.group_size(), c.head_dim)
}

/// A range of the line of units.
struct Part<'a> {
    from: Cut,
    to: Cut,
    out: &'a mut [f32],
    scratch: &'a mut AttentionScratch,
}

/// Normalises the heads of queries and keys where `mixer` says so, turns them by their positions, stores keys and values, and
/// computes `s.attn` from the queries.
pub(super) fn run(
    c: &ModelConfig,
    ops: Ops,
    team: &Team,
    s: &mut Scratch,
    mixer: &AttentionMixer,
    segments: &mut [Segment<'_>],
) {
    store::run(c, ops, team, s, mixer, segments);
    let Scratch { q, attn, attention, attend, plan, .. } = s;
    let attention = &mut attention[..plan.parts()];
    let width = c.group_size() * c.head_dim;
    let layer = Layer { c, ops, q, segments, layer: mixer.slot, plan };
    let mut rest = &mut attn[..plan.offset(plan.cuts[plan.cuts.len() - 1]) * width];
    let mut parts: SmallVec<[Part<'_>; INLINE_PARTS]> = SmallVec::new();
    let mut begin = 0;
    for (range, scratch) in plan.cuts.windows(2).zip(attention.iter_mut()) {
        let end = plan.offset(range[1]);
        let out;
        (out, rest) = rest.split_at_mut((end - begin) * width);
        begin = end;
        parts.push(Part { from: range[0], to: range[1], out, scratch });
    }
    // A few keys are not worth waking a thread for; parts without work are at the end.
    team.run_parts_with(&mut parts, attend, |_, part, attend| layer.share(part, attend));
    drop(parts);
    layer.close(attn, attention);
}

/// What all threads read.
struct Layer<'a> {
    c: &'a ModelConfig,
    ops: Ops,
    q: &'a [f32],
    segments: &'a [Segment<'a>],
    layer: usize,
    plan: &'a Plan,
}

impl Layer<'_> {
    /// The units of one part.
    fn share(&self, part: &mut Part<'_>, attend: &mut AttendScratch) {
        let width = self.c.group_size() * self.c.head_dim;
        let Part { from, to, out, scratch } = part;
        (scratch.deferred_len, scratch.open) = (0, None);
        let mut at = *from;
        let mut written = 0;
        while at < *to {
            let tile = Cut { block: 0, ..at };
            let (queries, rows) = self.operands(tile);
            let blocks = self.plan.blocks(tile);
            let next = self.plan.next_tile(tile);
            // The range ends within this tile, or behind it.
            let end = if *to < next { to.block } else { blocks };
            let AttentionScratch { sum, deferred, deferred_len, .. } = &mut **scratch;
            if at.block > 0 {
                self.ops.attend_blocks(&queries, at.block..end, rows, attend, |block| {
                    defer(self.c, deferred, deferred_len).copy_from(block);
                });
            } else {
                sum.reset(queries.rows(), queries.head_dim);
                self.ops.attend_blocks(&queries, 0..end, rows, attend, |block| {
                    self.ops.merge_partial(sum, block);
                });
                let len = queries.tokens * width;
                if end == blocks {
                    let out = &mut out[written..written + len];
                    self.ops.finish_partial(sum, &mut ColsMut::new(out, queries.tokens, width));
                } else {
                    scratch.open = Some(tile);
                }
                written += len;
            }
            at = next;
        }
    }

    /// Finishes the tiles that were cut.
    fn close(&self, attn: &mut [f32], scratch: &mut [AttentionScratch]) {
        let width = self.c.group_size() * self.c.head_dim;
        for t in 0..scratch.len() {
            let (first, later) = scratch.split_at_mut(t + 1);
            let AttentionScratch { sum, open, .. } = &mut first[t];
            let Some(tile) = open.take() else { continue };
            let tokens = self.plan.extents[tile.segment].tile(tile.tile, self.plan.tile_tokens).len();
            for (i, other) in later.iter().enumerate() {
                let from = self.plan.cuts[t + 1 + i];
                if (Cut { block: 0, ..from }) != tile {
                    break;
                }
                other.deferred[..other.deferred_len].iter().for_each(|next| self.ops.merge_partial(sum, next));
            }
            let start = self.plan.offset(tile) * width;
            let out = &mut attn[start..start + tokens * width];
            self.ops.finish_partial(sum, &mut ColsMut::new(out, tokens, width));
        }
    }

    /// Queries of a tile, and the keys and values that they see, block by block.
    fn operands<'l>(&'l self, tile: Cut) -> (Queries<'l>, impl Fn(usize) -> (KvRows<'l>, KvRows<'l>)) {
        let (c, d) = (self.c, self.c.head_dim);
        let qw = c.query_rows();
        let segment = &self.segments[tile.segment];
        let tokens = Extent::of(segment).tile(tile.tile, self.plan.tile_tokens);
        let first = (segment.first_row + tokens.start) * qw + tile.head * c.group_size() * d;
        let position = segment.state.len() + tokens.start;
        let queries = Queries {
            data: &self.q[first..],
            tokens: tokens.len(),
            token_stride: qw,
            group: c.group_size(),
            head_dim: d,
            position,
            scale: c.attention_scale.unwrap_or_else(|| 1.0 / (d as f32).sqrt()),
        };
        let len = position + tokens.len();
        let layer = &segment.state.kv.layers[self.layer];
        (queries, move |block| layer.block(tile.head, block, d, len))
    }
}

/// Copies the result for `row`, `[heads * head_dim]`, out of the order in which attention leaves it.
pub(super) fn gather_row(c: &ModelConfig, plan: &Plan, attn: &[f32], row: usize, out: &mut [f32]) {
    let width = c.group_size() * c.head_dim;
    let (mut token, mut start) = (row, 0);
    for e in &plan.extents {
        if token < e.tokens {
            for (head, out) in out.chunks_exact_mut(width).enumerate() {
                out.copy_from_slice(&attn[start + (head * e.tokens + token) * width..][..width]);
            }
            return;
        }
        token -= e.tokens;
        start += e.tokens * c.num_attention_heads * c.head_dim;
    }
}
