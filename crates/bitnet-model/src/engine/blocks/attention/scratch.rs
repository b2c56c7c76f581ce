//! Buffers of the attention block.

use ternary_kernels::AlignedBuf;
use ternary_kernels::ops::{AttendScratch, Partial, RopeTable};

use super::plan::{Cut, Plan};
use crate::ModelConfig;
use crate::engine::segment::Segment;

/// Rows of queries (tokens times heads of a group) that pass through the blocks of keys together.
const TILE_ROWS: usize = 32;

/// Tokens of a tile.
fn tile_tokens(config: &ModelConfig) -> usize {
    (TILE_ROWS / config.group_size()).max(1)
}

/// Buffers of the block.
#[derive(Debug)]
pub(in crate::engine) struct AttentionScratch {
    /// `[rows, heads * head_dim]`; in each row followed by the gates of the output, if attention has them.
    pub(super) queries: AlignedBuf<f32>,
    /// `[rows, kv_heads * head_dim]`.
    pub(super) keys: AlignedBuf<f32>,
    /// Like `keys`.
    pub(super) values: AlignedBuf<f32>,
    /// The results of attention, `[rows, heads * head_dim]` in the order described in [`super::attend::gather_row`].
    pub(super) found: AlignedBuf<f32>,
    /// A row of `found` for each thread.
    pub(super) rows: Vec<AlignedBuf<f32>>,
    /// Sines and cosines of the positions so far.
    pub(super) rope: RopeTable,
    /// Working memory of each thread.
    pub(super) threads: Vec<AttendScratch>,
    /// How the work is split into parts.
    pub(super) plan: Plan,
    /// The results of each part.
    pub(super) parts: Vec<PartScratch>,
}

impl AttentionScratch {
    /// Empty buffers; `None` for a model without attention.
    pub(in crate::engine) fn new(config: &ModelConfig, threads: usize) -> Option<Self> {
        if config.attention_layers() == 0 {
            return None;
        }
        let empty = AlignedBuf::zeroed(0);
        let width = config.num_attention_heads * config.head_dim;
        let rope = RopeTable::from_frequencies(0, config.rope_frequencies());
        Some(Self {
            queries: empty.clone(),
            keys: empty.clone(),
            values: empty.clone(),
            found: empty,
            rows: (0..threads).map(|_| AlignedBuf::zeroed(width)).collect(),
            rope: rope.with_magnitude(config.rope_attention_factor()),
            threads: (0..threads).map(|_| AttendScratch::new(config.group_size(), config.head_dim)).collect(),
            plan: Plan::default(),
            parts: Vec::new(),
        })
    }

    /// Makes room for `rows` tokens.
    pub(in crate::engine) fn reserve(&mut self, config: &ModelConfig, rows: usize) {
        let keys = config.num_key_value_heads * config.head_dim;
        self.queries = AlignedBuf::zeroed(rows * config.query_rows());
        self.keys = AlignedBuf::zeroed(rows * keys);
        self.values = AlignedBuf::zeroed(rows * keys);
        self.found = AlignedBuf::zeroed(rows * config.num_attention_heads * config.head_dim);
    }

    /// Prepares for a step of `segments`, in all layers: the angles of their positions, and the plan.
    pub(in crate::engine) fn begin(&mut self, config: &ModelConfig, segments: &[Segment<'_>], threads: usize) {
        let longest = segments.iter().map(|s| s.state.len() + s.tokens.len()).max().unwrap_or(0);
        if longest > self.rope.len() {
            self.rope.grow(longest.next_power_of_two());
        }
        self.plan.make(segments, config.num_key_value_heads, tile_tokens(config), threads);
        if self.parts.len() < self.plan.parts() {
            self.parts.resize_with(self.plan.parts(), || PartScratch::new(config));
        }
    }

    /// Bytes of the buffers of rows.
    pub(in crate::engine) fn byte_len(&self) -> usize {
        let buffers = [&self.queries, &self.keys, &self.values, &self.found].into_iter().chain(&self.rows);
        buffers.map(|b| size_of_val(&b[..])).sum()
    }
}

/// The results of a part of attention.
#[derive(Debug)]
pub(super) struct PartScratch {
    /// All blocks of the tile so far.
    pub(super) sum: Partial,
    /// Blocks of a tile that began in an earlier part, in ascending order.
    pub(super) deferred: Vec<Partial>,
    /// How many of `deferred` are in use.
    pub(super) deferred_len: usize,
    /// The tile whose later blocks are in other parts; its first ones are in `sum`.
    pub(super) open: Option<Cut>,
}

impl PartScratch {
    fn new(config: &ModelConfig) -> Self {
        Self { sum: partial(config), deferred: Vec::new(), deferred_len: 0, open: None }
    }
}

/// Room for one more block of a tile.
pub(super) fn defer<'a>(
    config: &ModelConfig,
    deferred: &'a mut Vec<Partial>,
    deferred_len: &mut usize,
) -> &'a mut Partial {
    if *deferred_len == deferred.len() {
        // Doubled, so that a text that grows token by token rarely reallocates.
        let more = deferred.len().max(4);
        deferred.extend((0..more).map(|_| partial(config)));
    }
    *deferred_len += 1;
    &mut deferred[*deferred_len - 1]
}

fn partial(config: &ModelConfig) -> Partial {
    Partial::with_capacity(tile_tokens(config) * config.group_size(), config.head_dim)
}
