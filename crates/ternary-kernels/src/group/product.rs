//! A product in tiles: the parts that are the same on every instruction set.

use std::ops::Range;

use half::f16;

use super::packed::{GroupPacked, Shape};
use super::{CHUNKS_PER_QUAD, Chunk, PANEL_ROWS, QUAD_COLS, UNIT_GROUPS};
use crate::i2s::{Acts, CHUNK_COLS, even_parts};
use crate::token_tables::{self, TOKENS, prefetch_panel};
use crate::{Int8GroupMatrix, Int8Matrix, Int16Matrix};

/// The activations of all tokens of a tile, for as many columns as fit, are copied to a buffer of this many chunks, 32
/// KiB.
const BUFFER_CHUNKS: usize = 2048;
/// Sums of that buffer: one for each token and four chunks, of at least one digit.
const BUFFER_SUMS: usize = BUFFER_CHUNKS / CHUNKS_PER_QUAD;

/// The activations of a product.
#[derive(Clone, Copy)]
pub(super) enum Activations<'a> {
    /// Two digits, the upper before the lower.
    Int16(Int16Matrix<'a>),
    /// One digit.
    Int8(Int8Matrix<'a>),
    /// One digit, with a step for each group.
    Int8Groups(Int8GroupMatrix<'a>),
}

/// The operands of a product, with all lengths checked.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    /// Whether a level is +2.
    twos: bool,
    /// Lines of the panels of the range.
    lines: &'a [Chunk],
    shape: Shape,
    /// Rows of the range.
    rows: usize,
    x: Activations<'a>,
    /// Tokens.
    n: usize,
    /// `[n]`, if each token has one scale.
    scales: Option<&'a [f32]>,
    /// `[rows]`, if the scales are not group scales.
    row_scales: Option<&'a [f32]>,
}

impl<'a> Product<'a> {
    /// Checks all lengths; if there is nothing to multiply, sets `out` to zero and returns `None`.
    pub(super) fn new(
        w: &'a GroupPacked,
        rows: Range<usize>,
        x: Activations<'a>,
        scales: Option<&'a [f32]>,
        out: &mut [f32],
    ) -> Option<Self> {
        let shape = w.shape();
        let (n, k) = match x {
            Activations::Int16(x) => (x.n(), x.k()),
            Activations::Int8(x) => (x.n(), x.k()),
            Activations::Int8Groups(x) => (x.n(), x.k()),
        };
        let Range { start, end } = rows;
        let fits = start <= end
            && end <= shape.rows
            && start.is_multiple_of(PANEL_ROWS)
            && (end.is_multiple_of(PANEL_ROWS) || end == shape.rows);
        assert!(fits, "rows {start}..{end} of {} in panels of {PANEL_ROWS}", shape.rows);
        assert_eq!(k, shape.cols, "activations per token");
        assert!(scales.is_none_or(|s| s.len() == n), "scales of {n} tokens");
        assert_eq!(out.len(), n * rows.len(), "results");
        if shape.quads == 0 || out.is_empty() {
            out.fill(0.0);
            return None;
        }
        let (first, last) = (start / PANEL_ROWS, end.div_ceil(PANEL_ROWS));
        let lines = &w.lines()[first * shape.panel_lines()..last * shape.panel_lines()];
        let row_scales = w.row_scales().map(|s| &s[rows.clone()]);
        Some(Self { twos: w.has_twos(), lines, shape, rows: rows.len(), x, n, scales, row_scales })
    }

    pub(super) fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL_ROWS)
    }

    /// Calls `tile` for tiles that cover the product, of at most `max_panels` panels by `max_tokens` tokens.
    ///
    /// ```text
    /// for each block of panels that stays in the second-level cache:
    ///     for each tile of tokens:
    ///         for each block of columns, ascending:
    ///             copy its activations to a buffer, the digits of all tokens for one chunk side by side
    ///             for each tile of panels in the block:
    ///                 tile
    /// ```
    /// One token of two digits is stored like the buffer, so it is read in place, and each panel is one stream. Between
    /// blocks of columns the sums of a row are kept in the result, as f32, like in registers.
    pub(super) fn for_tiles(&self, max_panels: usize, max_tokens: usize, mut tile: impl FnMut(&Tile<'_>)) {
        let n = self.n;
        // Weights that only one tile of tokens reads come from memory: they are read as one stream.
        let max_panels = if n <= max_tokens { 1 } else { max_panels };
        if let (Activations::Int16(x), 1) = (self.x, n) {
            let (acts, _) = bytemuck::cast_slice::<i8, u8>(x.digits(0)).as_chunks();
            for p in 0..self.panels() {
                tile(&Tile {
                    panels: p..p + 1,
                    tokens: 0..1,
                    units: 0..self.shape.units(),
                    acts,
                    sums: x.sums(0),
                    steps: &[],
                });
            }
            return;
        }
        self.blocked(max_panels, max_tokens, &mut tile);
    }

    fn blocked(&self, max_panels: usize, max_tokens: usize, tile: &mut impl FnMut(&Tile<'_>)) {
        /// A quarter of the level-2 cache of current CPUs, and less than all of it on older ones.
        const PANELS_BYTES: usize = 384 << 10;
        let n = self.n;
        let max_block = match n <= max_tokens {
            // Weights are read once, so there is nothing to keep in the cache.
            true => self.panels(),
            false => (PANELS_BYTES / size_of_val(self.panel(0)) / max_panels).max(1) * max_panels,
        };
        let unit_chunks = UNIT_GROUPS * self.shape.group_quads * CHUNKS_PER_QUAD;
        let mut acts = [[0; CHUNK_COLS]; BUFFER_CHUNKS];
        let mut sums = [0; BUFFER_SUMS];
        let mut steps = [1.0; BUFFER_SUMS];
        for block in even_parts(0..self.panels(), max_block) {
            for tokens in even_parts(0..n, max_tokens) {
                let max_units = BUFFER_CHUNKS / (unit_chunks * tokens.len() * self.digits());
                for units in even_parts(0..self.shape.units(), max_units) {
                    let quads = self.quads_of(&units);
                    let acts = &mut acts[..quads.len() * CHUNKS_PER_QUAD * tokens.len() * self.digits()];
                    let sums = &mut sums[..quads.len() * tokens.len()];
                    let steps = &mut steps[..quads.len().div_ceil(self.shape.group_quads) * tokens.len()];
                    self.interleave_steps(tokens.clone(), &quads, steps);
                    self.interleave(tokens.clone(), quads, acts, sums);
                    for first in block.clone().step_by(max_panels) {
                        let panels = first..block.end.min(first + max_panels);
                        tile(&Tile { panels, tokens: tokens.clone(), units: units.clone(), acts, sums, steps });
                    }
                }
            }
        }
    }

    /// Digits of a code.
    pub(super) fn digits(&self) -> usize {
        match self.x {
            Activations::Int16(_) => 2,
            Activations::Int8(_) | Activations::Int8Groups(_) => 1,
        }
    }

    /// The columns of pairs of groups, in quads.
    fn quads_of(&self, units: &Range<usize>) -> Range<usize> {
        let unit = UNIT_GROUPS * self.shape.group_quads;
        units.start * unit..(units.end * unit).min(self.shape.quads)
    }

    /// Copies the activations of `tokens` for `quads` to `acts`, for each chunk the digits of the first token, of the
    /// second and so on, and their sums to `sums`, for each quad the sum of the first token, of the second and so on.
    fn interleave(&self, tokens: Range<usize>, quads: Range<usize>, acts: &mut [Acts], sums: &mut [i32]) {
        let chunks = quads.start * CHUNKS_PER_QUAD..quads.end * CHUNKS_PER_QUAD;
        for (n, t) in tokens.clone().enumerate() {
            let sums_to = sums.iter_mut().skip(n).step_by(tokens.len());
            match self.x {
                Activations::Int16(x) => {
                    let (from, _) = bytemuck::cast_slice::<i8, u8>(x.digits(t)).as_chunks::<CHUNK_COLS>();
                    let (pairs, _) = from.as_chunks::<2>();
                    let (to, _) = acts.as_chunks_mut::<2>();
                    let to = to.iter_mut().skip(n).step_by(tokens.len());
                    to.zip(&pairs[chunks.clone()]).for_each(|(to, from)| *to = *from);
                    sums_to.zip(&x.sums(t)[quads.clone()]).for_each(|(to, from)| *to = *from);
                }
                Activations::Int8(_) | Activations::Int8Groups(_) => {
                    let x = match self.x {
                        Activations::Int8Groups(x) => x.codes(),
                        Activations::Int8(x) => x,
                        Activations::Int16(_) => continue,
                    };
                    let row = &x.codes()[t * x.stride()..][quads.start * QUAD_COLS..quads.end * QUAD_COLS];
                    let (from, _) = bytemuck::cast_slice::<i8, u8>(row).as_chunks::<CHUNK_COLS>();
                    let to = acts.iter_mut().skip(n).step_by(tokens.len());
                    to.zip(from).for_each(|(to, from)| *to = *from);
                    let sum = |quad: &[i8; QUAD_COLS]| quad.iter().map(|&q| i32::from(q)).sum::<i32>();
                    sums_to.zip(row.as_chunks().0).for_each(|(to, quad)| *to = sum(quad));
                }
            }
        }
    }

    /// Copies the steps of the groups of `tokens` in `quads`, for each group that of the first token, of the second and
    /// so on. Without steps they stay 1.
    fn interleave_steps(&self, tokens: Range<usize>, quads: &Range<usize>, steps: &mut [f32]) {
        let Activations::Int8Groups(x) = self.x else { return };
        let first = quads.start / self.shape.group_quads;
        for (n, t) in tokens.clone().enumerate() {
            let to = steps.iter_mut().skip(n).step_by(tokens.len());
            to.zip(&x.steps(t)[first..]).for_each(|(to, from)| *to = *from);
        }
    }

    fn panel(&self, p: usize) -> &'a [Chunk] {
        let lines = self.shape.panel_lines();
        &self.lines[p * lines..(p + 1) * lines]
    }

    /// Where the results of panel `p` and token `t` lie.
    fn range(&self, p: usize, t: usize) -> Range<usize> {
        let row = p * PANEL_ROWS;
        let start = t * self.rows + row;
        start..start + PANEL_ROWS.min(self.rows - row)
    }

    /// Stores the results of panel `p` and token `t`, of which `y` are the sums over all groups.
    #[inline(always)]
    pub(super) fn finish(&self, p: usize, t: usize, y: &[f32; PANEL_ROWS], out: &mut [f32]) {
        let out = &mut out[self.range(p, t)];
        // A product with 1 changes no bit.
        let inv = self.scales.map_or(1.0, |scales| 1.0 / scales[t]);
        match self.row_scales {
            None => out.iter_mut().zip(y).for_each(|(out, y)| *out = y * inv),
            Some(scales) => {
                let scales = &scales[p * PANEL_ROWS..];
                out.iter_mut().zip(y).zip(scales).for_each(|((out, y), d)| *out = y * inv * d);
            }
        }
    }

    /// Rows of the range.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Tokens.
    pub(super) fn tokens(&self) -> usize {
        self.n
    }

    /// How many tokens, the first ones, tables multiply. A last tile is one from `last_from` lanes.
    pub(super) fn shared_tokens(&self, last_from: usize) -> usize {
        let lanes = token_tables::tokens_of(self.rows, self.n * self.digits(), last_from);
        if self.twos { 0 } else { lanes / self.digits() }
    }

    /// The product of some tokens, whose results are `[range.len(), rows]`.
    pub(super) fn of_tokens(&self, range: Range<usize>) -> Self {
        let x = match self.x {
            Activations::Int16(x) => Activations::Int16(x.rows(range.clone())),
            Activations::Int8(x) => Activations::Int8(x.rows(range.clone())),
            Activations::Int8Groups(x) => Activations::Int8Groups(x.rows(range.clone())),
        };
        Self { x, n: range.len(), scales: self.scales.map(|scales| &scales[range]), ..*self }
    }

    /// Quads of a row, and of a group.
    pub(super) fn quads(&self) -> (usize, usize) {
        (self.shape.quads, self.shape.group_quads)
    }

    /// The chunks of a quad of columns of panel `p`.
    #[inline(always)]
    pub(super) fn quad(&self, p: usize, quad: usize) -> &'a [Chunk] {
        let line = self.shape.chunk_line(quad * CHUNKS_PER_QUAD);
        &self.panel(p)[line..line + CHUNKS_PER_QUAD]
    }

    /// Like [`Product::quad`], of panels in turn.
    #[inline(always)]
    pub(super) fn quad_in_turn(&self, p: usize, quad: usize) -> &'a [Chunk] {
        let chunks = self.quad(p, quad);
        prefetch_panel(chunks, self.shape.panel_lines());
        chunks
    }

    /// The scales of the rows of panel `p` for a group.
    #[inline(always)]
    pub(super) fn group_scales(&self, p: usize, group: usize) -> [f16; PANEL_ROWS] {
        let line = &self.panel(p)[group / UNIT_GROUPS * self.shape.unit_lines()];
        let scales: [[f16; PANEL_ROWS]; UNIT_GROUPS] = bytemuck::pod_read_unaligned(line);
        scales[group % UNIT_GROUPS]
    }

    /// Copies chunk `c` of `tokens` to the rows of `to`, the upper digits to the first half of the rows and the lower ones to the
    /// second where there are two.
    pub(super) fn copy_chunk(&self, tokens: &Range<usize>, c: usize, to: &mut [Acts; TOKENS]) {
        match self.x {
            Activations::Int16(x) => {
                let (high, low) = to.split_at_mut(TOKENS / 2);
                for ((t, high), low) in tokens.clone().zip(high).zip(low) {
                    let (chunks, _) = bytemuck::cast_slice::<i8, u8>(x.digits(t)).as_chunks();
                    (*high, *low) = (chunks[2 * c], chunks[2 * c + 1]);
                }
            }
            Activations::Int8(x) => copy_int8(&x, tokens, c, to),
            Activations::Int8Groups(x) => copy_int8(&x.codes(), tokens, c, to),
        }
    }

    /// Whether activations have a step for each group.
    pub(super) fn has_steps(&self) -> bool {
        matches!(self.x, Activations::Int8Groups(_))
    }

    /// The step of a group of the token `i` of `tokens`; 1 where there is none.
    pub(super) fn step(&self, tokens: &Range<usize>, i: usize, group: usize) -> f32 {
        match self.x {
            Activations::Int8Groups(x) if i < tokens.len() => x.steps(tokens.start + i)[group],
            Activations::Int8Groups(_) | Activations::Int8(_) | Activations::Int16(_) => 1.0,
        }
    }
}

fn copy_int8(x: &Int8Matrix<'_>, tokens: &Range<usize>, c: usize, to: &mut [Acts; TOKENS]) {
    for (t, to) in tokens.clone().zip(to) {
        let row = &x.codes()[t * x.stride()..][c * CHUNK_COLS..(c + 1) * CHUNK_COLS];
        to.copy_from_slice(bytemuck::cast_slice(row));
    }
}

/// A part of a product that one pass over registers computes.
pub(super) struct Tile<'a> {
    pub(super) panels: Range<usize>,
    pub(super) tokens: Range<usize>,
    /// Pairs of groups.
    units: Range<usize>,
    /// Activations of all `tokens` for the first chunk of `units`, then for the second, and so on; both digits of each
    /// token.
    pub(super) acts: &'a [Acts],
    /// Sums of the codes of all `tokens` for the first 64 columns of `units`, then for the second, and so on.
    pub(super) sums: &'a [i32],
    /// With one digit, steps of all `tokens` for the first group of `units`, then for the second, and so on.
    pub(super) steps: &'a [f32],
}

impl Tile<'_> {
    /// Quads of the columns, and of a group.
    #[inline(always)]
    pub(super) fn quads(&self, product: &Product<'_>) -> (usize, usize) {
        (product.quads_of(&self.units).len(), product.shape.group_quads)
    }

    /// The weights of panel `i` of the tile.
    #[inline(always)]
    pub(super) fn weights<'a>(&self, product: &Product<'a>, i: usize) -> &'a [Chunk] {
        &product.panel(self.panels.start + i)[self.units.start * product.shape.unit_lines()..]
    }

    /// The range of the results of panel `i` and token `n` of the tile.
    fn range(&self, product: &Product<'_>, i: usize, n: usize) -> Range<usize> {
        product.range(self.panels.start + i, self.tokens.start + n)
    }

    /// The sums over the columns before this tile.
    #[inline(always)]
    pub(super) fn before(&self, product: &Product<'_>, i: usize, n: usize, out: &[f32]) -> [f32; PANEL_ROWS] {
        let mut y = [0.0; PANEL_ROWS];
        if self.units.start > 0 {
            let out = &out[self.range(product, i, n)];
            y[..out.len()].copy_from_slice(out);
        }
        y
    }

    /// Stores the sums `y` of panel `i` and token `n` of the tile; after the last columns they become results.
    #[inline(always)]
    pub(super) fn store(&self, product: &Product<'_>, i: usize, n: usize, y: &[f32; PANEL_ROWS], out: &mut [f32]) {
        if self.units.end < product.shape.units() {
            let out = &mut out[self.range(product, i, n)];
            return out.copy_from_slice(&y[..out.len()]);
        }
        product.finish(self.panels.start + i, self.tokens.start + n, y, out);
    }
}
