//! Attention of queries to the keys and values in the cache: the threads take parts of the blocks of keys, as planned.
//!
//! Results are stored head by head, `[kv_heads, tokens, group * head_dim]` for each segment, so that every part writes
//! one contiguous range; [`gather_row`] reads them token by token.

use smallvec::SmallVec;
use ternary_kernels::ColsMut;
use ternary_kernels::ops::{AttendScratch, KvRows, Ops, Queries};

use super::plan::{Cut, Extent, INLINE_PARTS, Plan};
use super::scratch::{AttentionScratch, PartScratch, defer};
use crate::ModelConfig;
use crate::engine::context::Context;
use crate::engine::segment::Segment;

/// A range of the line of units.
struct Part<'a> {
    from: Cut,
    to: Cut,
    out: &'a mut [f32],
    scratch: &'a mut PartScratch,
}

/// Fills `scratch.found` from the queries and the keys and values of layer `slot` among those that are attention.
pub(super) fn run(context: &Context<'_>, scratch: &mut AttentionScratch, slot: usize, segments: &[Segment<'_>]) {
    let config = context.config;
    let AttentionScratch { queries, found, threads, plan, parts: part_scratch, .. } = scratch;
    let part_scratch = &mut part_scratch[..plan.parts()];
    let width = config.group_size() * config.head_dim;
    let layer = Layer { config, ops: context.ops, queries, segments, slot, plan };
    let mut rest = &mut found[..plan.offset(plan.cuts[plan.cuts.len() - 1]) * width];
    let mut parts: SmallVec<[Part<'_>; INLINE_PARTS]> = SmallVec::new();
    let mut begin = 0;
    for (range, scratch) in plan.cuts.windows(2).zip(part_scratch.iter_mut()) {
        let end = plan.offset(range[1]);
        let out;
        (out, rest) = rest.split_at_mut((end - begin) * width);
        begin = end;
        parts.push(Part { from: range[0], to: range[1], out, scratch });
    }
    // A few keys are not worth waking a thread; parts without work are at the end.
    context.team.run_parts_with(&mut parts, threads, |_, part, attend| layer.part(part, attend));
    drop(parts);
    layer.close(found, part_scratch);
}

/// The data that all threads read.
struct Layer<'a> {
    config: &'a ModelConfig,
    ops: Ops,
    queries: &'a [f32],
    segments: &'a [Segment<'a>],
    slot: usize,
    plan: &'a Plan,
}

impl Layer<'_> {
    /// The units of one part.
    fn part(&self, part: &mut Part<'_>, attend: &mut AttendScratch) {
        let width = self.config.group_size() * self.config.head_dim;
        let Part { from, to, out, scratch } = part;
        (scratch.deferred_len, scratch.open) = (0, None);
        let mut at = *from;
        let mut written = 0;
        while at < *to {
            let tile = Cut { block: 0, ..at };
            let (queries, rows) = self.operands(tile);
            let blocks = self.plan.blocks(tile);
            let next = self.plan.next_tile(tile);
            // The range ends within this tile, or after it.
            let end = if *to < next { to.block } else { blocks };
            let PartScratch { sum, deferred, deferred_len, .. } = &mut **scratch;
            if at.block > 0 {
                self.ops.attend_blocks(&queries, at.block..end, rows, attend, |block| {
                    defer(self.config, deferred, deferred_len).copy_from(block);
                });
            } else {
                sum.reset(queries.rows(), queries.head_dim);
                self.ops.attend_onto(&queries, 0..end, rows, attend, sum);
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

    /// Merges the results of tiles that were split.
    fn close(&self, found: &mut [f32], parts: &mut [PartScratch]) {
        let width = self.config.group_size() * self.config.head_dim;
        for part in 0..parts.len() {
            let (first, later) = parts.split_at_mut(part + 1);
            let PartScratch { sum, open, .. } = &mut first[part];
            let Some(tile) = open.take() else { continue };
            let tokens = self.plan.extents[tile.segment].tile(tile.tile, self.plan.tile_tokens).len();
            for (i, other) in later.iter().enumerate() {
                let from = self.plan.cuts[part + 1 + i];
                if (Cut { block: 0, ..from }) != tile {
                    break;
                }
                other.deferred[..other.deferred_len].iter().for_each(|next| self.ops.merge_partial(sum, next));
            }
            let start = self.plan.offset(tile) * width;
            let out = &mut found[start..start + tokens * width];
            self.ops.finish_partial(sum, &mut ColsMut::new(out, tokens, width));
        }
    }

    /// Queries of a tile, and the keys and values that they see, block by block.
    fn operands<'l>(&'l self, tile: Cut) -> (Queries<'l>, impl Fn(usize) -> (KvRows<'l>, KvRows<'l>)) {
        let (config, head_dim) = (self.config, self.config.head_dim);
        let stride = config.query_rows();
        let segment = &self.segments[tile.segment];
        let tokens = Extent::of(segment).tile(tile.tile, self.plan.tile_tokens);
        let first = (segment.first_row + tokens.start) * stride + tile.head * config.group_size() * head_dim;
        let position = segment.state.len() + tokens.start;
        let queries = Queries {
            data: &self.queries[first..],
            tokens: tokens.len(),
            token_stride: stride,
            group: config.group_size(),
            head_dim,
            position,
            scale: config.attention_scale.unwrap_or_else(|| 1.0 / (head_dim as f32).sqrt()),
        };
        let len = position + tokens.len();
        let layer = &segment.state.kv.layers[self.slot];
        (queries, move |block| layer.block(tile.head, block, head_dim, len))
    }
}

/// Copies the results of the queries of `row`, `[heads * head_dim]`, from the order in which [`run`] stores them.
pub(super) fn gather_row(config: &ModelConfig, plan: &Plan, found: &[f32], row: usize, out: &mut [f32]) {
    let width = config.group_size() * config.head_dim;
    let (mut token, mut start) = (row, 0);
    for extent in &plan.extents {
        if token < extent.tokens {
            for (head, out) in out.chunks_exact_mut(width).enumerate() {
                out.copy_from_slice(&found[start + (head * extent.tokens + token) * width..][..width]);
            }
            return;
        }
        token -= extent.tokens;
        start += extent.tokens * config.num_attention_heads * config.head_dim;
    }
}
