//! The operands of a product with panels, and the tiles that cover it.

use std::ops::Range;

use super::{Acts, BLOCK_CHUNKS, CHUNK_BYTES, CHUNK_COLS, Chunk, PANEL_ROWS, chunks_of};
use crate::activations::int4::{self, GROUP_BYTES};
use crate::{Int4Matrix, Int8Matrix, PackedRows};

/// The activations of a product.
#[derive(Clone, Copy)]
pub(crate) enum Activations<'a> {
    Int8(Int8Matrix<'a>),
    Int4(Int4Matrix<'a>),
}

impl<'a> From<&Int8Matrix<'a>> for Activations<'a> {
    fn from(x: &Int8Matrix<'a>) -> Self {
        Self::Int8(*x)
    }
}

impl<'a> From<&Int4Matrix<'a>> for Activations<'a> {
    fn from(x: &Int4Matrix<'a>) -> Self {
        Self::Int4(*x)
    }
}

impl<'a> Activations<'a> {
    /// The activations of the tokens in `range`.
    pub(crate) fn rows(&self, range: Range<usize>) -> Self {
        match self {
            Self::Int8(x) => Self::Int8(x.rows(range)),
            Self::Int4(x) => Self::Int4(x.rows(range)),
        }
    }

    /// Activations per token, the same with padding, and the sums of the tokens.
    pub(crate) fn shape(&self) -> (usize, usize, &'a [i32]) {
        let (k, padded, rows, sums) = match self {
            Self::Int8(x) => (x.k(), x.stride(), x.codes().len(), x.sums()),
            Self::Int4(x) => (x.k(), 2 * x.stride(), 2 * x.nibbles().len(), x.sums()),
        };
        assert_eq!(rows, sums.len() * padded, "rows of activations");
        (k, padded, sums)
    }
}

/// The operands of a product, with all lengths checked: the code below slices them and needs no other proof.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    /// The weights; empty if they have another layout and are unpacked tile by tile.
    panels: &'a [Chunk],
    /// Chunks of one panel, at least 4.
    chunks: usize,
    rows: usize,
    x: Activations<'a>,
    sums: &'a [i32],
}

impl<'a> Product<'a> {
    /// Checks all lengths; if there is nothing to multiply, sets `acc` to zero and returns `None`.
    pub(crate) fn new(w: &PackedRows<'a>, x: impl Into<Activations<'a>>, acc: &mut [i32]) -> Option<Self> {
        assert_eq!(w.panel_bytes(), chunks_of(w.cols()) * CHUNK_BYTES, "i2s: weights in another layout");
        let (panels, _) = w.bytes().as_chunks();
        Some(Self { panels, ..Self::without_weights(w, x, acc)? })
    }

    /// Like [`Product::new`] for weights in another layout of panels of [`PANEL_ROWS`], which the caller unpacks.
    pub(crate) fn without_weights(w: &PackedRows<'a>, x: impl Into<Activations<'a>>, acc: &mut [i32]) -> Option<Self> {
        let chunks = chunks_of(w.cols());
        let x = x.into();
        let (k, padded, sums) = x.shape();
        assert_eq!(w.bytes().len(), w.rows().div_ceil(PANEL_ROWS) * w.panel_bytes(), "bytes of the weights");
        assert_eq!(k, w.cols(), "activations per token");
        assert!(padded >= chunks * CHUNK_COLS, "padding");
        assert_eq!(acc.len(), sums.len() * w.rows(), "accumulators");
        if chunks == 0 || acc.is_empty() {
            acc.fill(0);
            return None;
        }
        Some(Self { panels: &[], chunks, rows: w.rows(), x, sums })
    }

    /// Number of panels.
    pub(crate) fn panel_count(&self) -> usize {
        self.rows.div_ceil(PANEL_ROWS)
    }

    /// Chunks of one panel.
    pub(crate) fn chunks(&self) -> usize {
        self.chunks
    }

    /// Number of tokens.
    pub(crate) fn tokens(&self) -> usize {
        self.sums.len()
    }

    /// Panel `p`.
    pub(crate) fn panel(&self, p: usize) -> &'a [Chunk] {
        &self.panels[p * self.chunks..(p + 1) * self.chunks]
    }

    /// Int8 activations of token `t`, one group per chunk.
    ///
    /// # Panics
    /// For int4, which is stored in halves of bytes: [`Product::interleave`] copies it to tiles, or the caller widens
    /// it.
    pub(crate) fn token(&self, t: usize) -> &'a [Acts] {
        self.rows_of(t..t + 1).0[..self.chunks * CHUNK_COLS].as_chunks().0
    }

    /// Int8 activations of `tokens`, up to the padding of the last one, and the distance from one to the next.
    ///
    /// # Panics
    /// Like [`Product::token`].
    pub(crate) fn rows_of(&self, tokens: Range<usize>) -> (&'a [u8], usize) {
        let Activations::Int8(x) = self.x else { panic!("int4 activations are not read as rows of int8") };
        let codes: &[u8] = bytemuck::cast_slice(x.codes());
        (&codes[tokens.start * x.stride()..tokens.end * x.stride()], x.stride())
    }

    /// Stores the sums of code times activation of the 16 rows of panel `p` for token `t`.
    pub(crate) fn store(&self, p: usize, t: usize, code_sums: &[i32; PANEL_ROWS], acc: &mut [i32]) {
        let row = p * PANEL_ROWS;
        let end = self.rows.min(row + PANEL_ROWS);
        let out = &mut acc[t * self.rows..][row..end];
        // Sums of codes can exceed 2^31 for rows above 2^23; their difference fits, so wrapping is exact.
        out.iter_mut().zip(code_sums).for_each(|(a, s)| *a = s.wrapping_sub(self.sums[t]));
    }

    /// Sets the results of panel `p` for token `t` to sums of trit times activation, or adds these to them.
    #[inline(always)]
    pub(crate) fn put(&self, p: usize, t: usize, sums: &[i16; PANEL_ROWS], set: bool, acc: &mut [i32]) {
        let row = p * PANEL_ROWS;
        let out = &mut acc[t * self.rows..][row..self.rows.min(row + PANEL_ROWS)];
        let put = |(a, s): (&mut i32, &i16)| *a = i32::from(*s) + if set { 0 } else { *a };
        match out.as_mut_array::<PANEL_ROWS>() {
            // The constant length lets the compiler emit vector instructions.
            Some(out) => out.iter_mut().zip(sums).for_each(put),
            None => out.iter_mut().zip(sums).for_each(put),
        }
    }

    /// Calls `tile` for tiles that cover the product, of at most `max_panels` panels by `max_tokens` tokens by
    /// [`BLOCK_CHUNKS`] chunks.
    ///
    /// ```text
    /// for each block of panels that stays in the level-2 cache:
    ///     for each tile of tokens:
    ///         for each block of columns:
    ///             copy its activations to a buffer, those of all tokens for one chunk side by side
    ///             for each tile of panels in the block:
    ///                 tile
    /// ```
    /// The copy stays in the level-1 cache while weights stream past it. It is one stream with constant offsets
    /// instead of a dozen, so it needs one address register, and rows a power of two apart do not evict each other.
    #[inline(always)]
    pub(crate) fn for_tiles(&self, max_panels: usize, max_tokens: usize, tile: impl FnMut(Tile<'_>)) {
        let needed = max_tokens.min(self.tokens()) * self.chunks;
        with_acts(max_tokens, needed, |buffer| self.for_tiles_in(max_panels, max_tokens, buffer, tile));
    }

    fn for_tiles_in(&self, max_panels: usize, max_tokens: usize, buffer: &mut [Acts], mut tile: impl FnMut(Tile<'_>)) {
        /// A quarter of the level-2 cache of current CPUs, and less than all of it on older ones.
        const PANELS_BYTES: usize = 384 << 10;
        let max_block = match self.sums.len() <= max_tokens {
            // Weights are read once, so there is nothing to keep in the cache.
            true => self.panel_count(),
            false => (PANELS_BYTES / (self.chunks * CHUNK_BYTES) / max_panels).max(1) * max_panels,
        };
        for block in even_parts(0..self.panel_count(), max_block) {
            for tokens in even_parts(0..self.sums.len(), max_tokens) {
                for chunks in even_parts(0..self.chunks, buffer.len() / tokens.len()) {
                    let acts = self.interleave(tokens.clone(), chunks.clone(), buffer);
                    for first in block.clone().step_by(max_panels) {
                        let panels = first..block.end.min(first + max_panels);
                        let weights = &self.panels[first * self.chunks + chunks.start..];
                        let (tokens, chunks) = (tokens.clone(), chunks.clone());
                        tile(Tile { panels, tokens, chunks, acts, weights, stride: self.chunks });
                    }
                }
            }
        }
    }

    /// Copies the activations of `tokens` for `chunks` to `buffer`, those of all tokens for one chunk side by side;
    /// int4 is widened here, once for all panels that use the copy.
    pub(crate) fn interleave<'b>(
        &self,
        tokens: Range<usize>,
        chunks: Range<usize>,
        buffer: &'b mut [Acts],
    ) -> &'b [Acts] {
        let acts = &mut buffer[..tokens.len() * chunks.len()];
        for (n, t) in tokens.clone().enumerate() {
            let to = acts.iter_mut().skip(n).step_by(tokens.len());
            match self.x {
                Activations::Int8(_) => to.zip(&self.token(t)[chunks.clone()]).for_each(|(to, from)| *to = *from),
                Activations::Int4(x) => {
                    let (groups, _) = x.nibbles()[t * x.stride()..].as_chunks::<GROUP_BYTES>();
                    // Two chunks are a group.
                    for (to, c) in to.zip(chunks.clone()) {
                        let group = &groups[c / 2];
                        *to = if c % 2 == 0 { int4::low(group) } else { int4::high(group) };
                    }
                }
            }
        }
        acts
    }
}

/// A part of a product that one pass over registers computes.
pub(crate) struct Tile<'a> {
    pub(crate) panels: Range<usize>,
    pub(crate) tokens: Range<usize>,
    pub(crate) chunks: Range<usize>,
    /// Activations of all `tokens` for the first of `chunks`, then for the second, and so on.
    pub(crate) acts: &'a [Acts],
    /// Weights of the first of `panels` for `chunks`; those of the next panel follow `stride` further on.
    pub(crate) weights: &'a [Chunk],
    pub(crate) stride: usize,
}

impl<'a> Tile<'a> {
    /// The weights of `P` panels.
    #[inline(always)]
    pub(crate) fn weights<const P: usize>(&self) -> [&'a [Chunk]; P] {
        std::array::from_fn(|i| &self.weights[i * self.stride..][..self.chunks.len()])
    }

    /// The product's results for the rows of `P` whole panels and token `n` of the tile, and the sum of the activations if the tile
    /// is to set them, `None` if it is to add to them; see [`Tile::store`]. `None` if the last panel is not whole.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn results<'r, const P: usize>(
        &self,
        product: &Product<'_>,
        n: usize,
        acc: &'r mut [i32],
    ) -> Option<(&'r mut [[i32; PANEL_ROWS]; P], Option<i32>)> {
        let (row, t) = (self.panels.start * PANEL_ROWS, self.tokens.start + n);
        let rows = acc.get_mut(t * product.rows..(t + 1) * product.rows)?.get_mut(row..row + P * PANEL_ROWS)?;
        let less = (self.chunks.start == 0).then_some(product.sums[t]);
        Some((rows.as_chunks_mut().0.as_mut_array()?, less))
    }

    /// Stores `sums`, code times activation of the 16 rows of panel `i` of the tile and token `n` of the tile: the
    /// first block of columns sets the accumulators, minus the sum of the activations, the others add to them.
    #[inline(always)]
    pub(crate) fn store(&self, product: &Product<'_>, i: usize, n: usize, sums: &[i32; PANEL_ROWS], acc: &mut [i32]) {
        let (row, t) = ((self.panels.start + i) * PANEL_ROWS, self.tokens.start + n);
        let rows = PANEL_ROWS.min(product.rows - row);
        let out = &mut acc[t * product.rows + row..][..rows];
        let (less, first) = (product.sums[t], self.chunks.start == 0);
        // Sums of codes can exceed 2^31 for rows above 2^23; their difference fits, so wrapping is exact.
        let put = |(a, s): (&mut i32, &i32)| *a = if first { s.wrapping_sub(less) } else { a.wrapping_add(*s) };
        match out.as_mut_array::<PANEL_ROWS>() {
            // The constant length lets the compiler emit vector instructions.
            Some(out) => out.iter_mut().zip(sums).for_each(put),
            None => out.iter_mut().zip(sums).for_each(put),
        }
    }
}

/// Lends a buffer for the activations of a tile of `tokens` tokens by [`BLOCK_CHUNKS`] chunks, or for `needed` groups of them, if these
/// are few. It is on the stack, as kernels do not allocate, and has one of three sizes, because it is set to zero first.
#[inline(always)]
pub(crate) fn with_acts(tokens: usize, needed: usize, work: impl FnOnce(&mut [Acts])) {
    /// Twelve tokens of 512 activations: a product of so few takes not much longer than to set the largest buffer to zero.
    const SMALL: usize = 12 * 32;
    const FEW: usize = 5;
    const MOST: usize = 12;
    let len = tokens * BLOCK_CHUNKS;
    if needed <= SMALL {
        work(&mut [[0; CHUNK_COLS]; SMALL]);
    } else if tokens <= FEW {
        work(&mut [[0; CHUNK_COLS]; FEW * BLOCK_CHUNKS][..len]);
    } else {
        work(&mut [[0; CHUNK_COLS]; MOST * BLOCK_CHUNKS][..len]);
    }
}

/// The fewest parts of `range` that are no longer than `max`, of nearly equal length.
pub(crate) fn even_parts(range: Range<usize>, max: usize) -> impl Iterator<Item = Range<usize>> {
    let (start, len) = (range.start, range.len());
    let parts = len.div_ceil(max);
    (0..parts).map(move |i| start + len * i / parts..start + len * (i + 1) / parts)
}
