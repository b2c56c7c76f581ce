//! The operands of a product with base-3 weights, and its tiles: unpacked to the I2_S layout block by block.

use std::ops::Range;

use super::{BLOCK_GROUPS, BLOCK_PANELS, GROUP_CHUNKS, Group, groups_of};
use crate::PackedRows;
use crate::i2s::{self, Activations, Acts, BLOCK_CHUNKS, CHUNK_BYTES, Chunk, PANEL_ROWS, Tile, even_parts, with_acts};
use crate::panel_kernel::Unpack;
use crate::token_tables::{STEP_CHUNKS, StepWeights, prefetch_panel};

/// A product with base-3 weights, with all lengths checked.
pub(crate) struct Product<'a> {
    /// The operands besides the weights, and the results.
    pub(super) io: i2s::Product<'a>,
    groups: &'a [Group],
    /// Groups of one panel, at least 1.
    pub(super) per_panel: usize,
}

impl<'a> Product<'a> {
    /// Checks all lengths; if there is nothing to multiply, sets `acc` to zero and returns `None`.
    pub(super) fn new(w: &PackedRows<'a>, x: impl Into<Activations<'a>>, acc: &mut [i32]) -> Option<Self> {
        let per_panel = groups_of(w.cols());
        assert_eq!(w.panel_bytes(), per_panel * size_of::<Group>(), "base3: weights in another layout");
        let io = i2s::Product::without_weights(w, x, acc)?;
        let (quarters, _) = w.bytes().as_chunks();
        Some(Self { io, groups: quarters.as_chunks().0, per_panel })
    }

    /// Panel `p`.
    pub(super) fn panel(&self, p: usize) -> &'a [Group] {
        &self.groups[p * self.per_panel..][..self.per_panel]
    }

    /// The I2_S chunks of `groups`, without those beyond the activations' padding, which hold only padding.
    pub(super) fn chunks(&self, groups: &Range<usize>) -> Range<usize> {
        groups.start * GROUP_CHUNKS..(groups.end * GROUP_CHUNKS).min(self.io.chunks())
    }

    /// All panels times token 0: block by block, a panel is unpacked and multiplied.
    pub(super) fn gemv<B: Unpack>(&self, backend: B, acc: &mut [i32]) {
        // Blocks are a multiple of four chunks, as `code_sums` requires.
        const GROUPS: usize = 16;
        let mut chunks = [[0; CHUNK_BYTES]; GROUPS * GROUP_CHUNKS];
        let x = self.io.token(0);
        for p in 0..self.io.panel_count() {
            let mut total = [0i32; PANEL_ROWS];
            for (groups, x) in self.panel(p).chunks(GROUPS).zip(x.chunks(chunks.len())) {
                backend.unpack(groups, &mut chunks[..groups.len() * GROUP_CHUNKS]);
                let sums = backend.code_sums(&chunks[..x.len()], x);
                total.iter_mut().zip(sums).for_each(|(total, sum)| *total = total.wrapping_add(sum));
            }
            self.io.store(p, 0, &total, acc);
        }
    }

    /// All panels times all tokens, in tiles of the I2_S layout.
    pub(super) fn gemm<B: Unpack>(&self, backend: B, acc: &mut [i32]) {
        with_acts(B::MAX_TOKENS, usize::MAX, |acts| {
            if self.io.tokens() <= B::MAX_TOKENS {
                self.gemm_once(backend, acts, acc);
            } else {
                self.gemm_in_blocks(backend, acts, acc);
            }
        });
    }

    /// All panels times all tokens by tables that tokens share.
    pub(super) fn look_up<B: Unpack>(&self, backend: B, acc: &mut [i32]) {
        let chunks = [[[0; CHUNK_BYTES]; SPAN_CHUNKS]; TABLE_PANELS];
        let mut weights = Unpacked { product: self, backend, first: 0, chunks };
        backend.by_tables(&self.io, &mut weights, acc);
    }

    /// All tokens are one tile, so weights are read once, panel by panel, as a single stream.
    fn gemm_once<B: Unpack>(&self, backend: B, acts: &mut [Acts], acc: &mut [i32]) {
        let mut unpacked = [[0; CHUNK_BYTES]; BLOCK_CHUNKS];
        let tokens = 0..self.io.tokens();
        for groups in even_parts(0..self.per_panel, BLOCK_GROUPS) {
            let chunks = self.chunks(&groups);
            let acts = self.io.interleave(tokens.clone(), chunks.clone(), acts);
            let unpacked = &mut unpacked[..groups.len() * GROUP_CHUNKS];
            for p in 0..self.io.panel_count() {
                backend.unpack(&self.panel(p)[groups.clone()], unpacked);
                let (tokens, chunks, stride) = (tokens.clone(), chunks.clone(), unpacked.len());
                let tile = Tile { panels: p..p + 1, tokens, chunks, acts, weights: unpacked, stride };
                backend.tile(&self.io, &tile, acc);
            }
        }
    }

    /// Several tiles of tokens: each block of panels and columns is unpacked once and multiplied with all tokens.
    fn gemm_in_blocks<B: Unpack>(&self, backend: B, acts: &mut [Acts], acc: &mut [i32]) {
        let mut unpacked = [[0; CHUNK_BYTES]; BLOCK_PANELS * BLOCK_CHUNKS];
        for block in even_parts(0..self.io.panel_count(), BLOCK_PANELS) {
            for groups in even_parts(0..self.per_panel, BLOCK_GROUPS) {
                let chunks = self.chunks(&groups);
                let stride = groups.len() * GROUP_CHUNKS;
                for (p, unpacked) in block.clone().zip(unpacked.chunks_exact_mut(stride)) {
                    backend.unpack(&self.panel(p)[groups.clone()], unpacked);
                }
                for tokens in even_parts(0..self.io.tokens(), B::MAX_TOKENS) {
                    let acts = self.io.interleave(tokens.clone(), chunks.clone(), acts);
                    for p in block.clone() {
                        let weights = &unpacked[(p - block.start) * stride..];
                        let (tokens, chunks) = (tokens.clone(), chunks.clone());
                        let tile = Tile { panels: p..p + 1, tokens, chunks, acts, weights, stride };
                        backend.tile(&self.io, &tile, acc);
                    }
                }
            }
        }
    }
}

/// Groups that are unpacked at a time for tables, so that steps of tables and groups end together.
const SPAN_GROUPS: usize = 4;
/// Their chunks.
const SPAN_CHUNKS: usize = SPAN_GROUPS * GROUP_CHUNKS;
const _: () = assert!(SPAN_CHUNKS.is_multiple_of(STEP_CHUNKS));

/// Panels of a block for tables.
pub(super) const TABLE_PANELS: usize = 64;

/// The weights of some steps of a block of panels, 80 KB.
struct Unpacked<'p, 'a, B> {
    product: &'p Product<'a>,
    backend: B,
    /// The first panel of the block.
    first: usize,
    chunks: [[Chunk; SPAN_CHUNKS]; TABLE_PANELS],
}

impl<B: Unpack> StepWeights for Unpacked<'_, '_, B> {
    const PANELS: usize = TABLE_PANELS;

    fn prepare(&mut self, panels: &Range<usize>, start: usize) {
        if !start.is_multiple_of(SPAN_CHUNKS) {
            return;
        }
        let first = start / GROUP_CHUNKS;
        let groups = first..(first + SPAN_GROUPS).min(self.product.per_panel);
        self.first = panels.start;
        for (p, out) in panels.clone().zip(&mut self.chunks) {
            // Chunks behind the last group meet activations of 0, whatever is left there.
            let groups = &self.product.panel(p)[groups.clone()];
            prefetch_panel(groups, self.product.per_panel);
            self.backend.unpack(groups, &mut out[..groups.len() * GROUP_CHUNKS]);
        }
    }
    fn step(&self, p: usize, start: usize) -> &[Chunk] {
        &self.chunks[p - self.first][start % SPAN_CHUNKS..][..STEP_CHUNKS]
    }
}
