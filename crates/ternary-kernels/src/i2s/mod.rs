//! I2_S kernels: two bits per weight, one kernel layout for every instruction set, GEMV and GEMM alike.
//!
//! # Kernel layout
//! Rows are taken 16 at a time (a *panel*), columns 16 at a time (a *chunk*). One chunk of one panel is 64 bytes,
//! one cache line, one AVX-512 register:
//!
//! ```text
//! byte   0   1   2   3 |  4   5   6   7 | ... | 60  61  62  63
//! row    0   0   0   0 |  1   1   1   1 | ... | 15  15  15  15       r = byte / 4
//! c      0   1   2   3 |  0   1   2   3 | ... |  0   1   2   3       c = byte % 4
//!
//! bits of a byte   7 6 | 5 4 | 3 2 | 1 0
//! field j            3 |   2 |   1 |   0
//! ```
//!
//! Field `j` of byte `4r + c` in chunk `t` of panel `p` is the code of `W[16p + r, 16t + 4j + c]`.
//!
//! | code | weight |
//! |---|---|
//! | 0 | -1 |
//! | 1 | 0 |
//! | 2 | +1 |
//! | 3 | never written |
//!
//! So field `j` of a chunk is a register whose i32 lane `r` holds four consecutive weights of row `r`: one `vpdpbusd`
//! with four activations broadcast to all lanes advances 16 rows by 4 columns, sums end up one row per lane, and
//! nothing is added across lanes. As codes are `T + 1`, a row's sum of `code * x` minus the sum of `x` is its product.
//!
//! Columns are padded to a multiple of 64 (whole steps of an unrolled loop; activations are zero there), rows to a
//! multiple of 16 (computed and dropped); both paddings hold code 1, weight 0. A panel is one sequential stream, and
//! panels follow each other, so a range of rows is one stream too.
//!
//! A worked chunk: row 0 begins `+1 0 -1 0 | 0 0 0 0 | -1 0 0 0 | +1 0 0 0`, all else is zero.
//!
//! ```
//! use ternary_kernels::{Scales, TernaryMatrix};
//! let mut trits = [0i8; 16];
//! (trits[0], trits[2], trits[8], trits[12]) = (1, -1, -1, 1);
//! let w = TernaryMatrix::from_trits(1, 16, &trits, Scales::Tensor(1.0)).unwrap();
//! let packed = ternary_kernels::by_name("i2s_scalar").unwrap().prepack(&w).unwrap();
//! assert_eq!(packed.byte_len(), 256); // one panel of 64 columns, three chunks of it padding
//! let bytes = packed.all().bytes();
//! assert_eq!(bytes[0], 0b10_00_01_10); // columns 12, 8, 4, 0
//! assert_eq!(bytes[1], 0b01_01_01_01);
//! assert_eq!(bytes[2], 0b01_01_01_00); // column 2 is -1
//! assert!(bytes[3..].iter().all(|&b| b == 0x55));
//! ```

use std::ops::Range;

use crate::int4::{self, GROUP_BYTES};
use crate::{
    AlignedBuf, Int4Matrix, Int8Matrix, Int8Vector, KernelError, Packed, PackedRows, ROW_ALIGN, TernaryMatrix,
};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(any(target_arch = "aarch64", target_arch = "wasm32"))]
pub(crate) mod lanes128;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod scalar;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vnni256;
#[cfg(target_arch = "wasm32")]
pub(crate) mod wasm;
#[cfg(target_arch = "x86_64")]
pub(crate) mod wide512;

/// Rows of a panel.
pub(crate) const PANEL_ROWS: usize = 16;
/// Columns of a chunk.
pub(crate) const CHUNK_COLS: usize = 16;
/// Bytes of a chunk.
pub(crate) const CHUNK_BYTES: usize = 64;
/// Fields of a chunk, of four columns each.
#[cfg(target_arch = "x86_64")]
pub(crate) const FIELDS: usize = CHUNK_COLS / 4;
/// Columns are padded to a multiple of this, four chunks, which is what activations are padded to.
const COL_ALIGN: usize = 64;
/// Four times code 1, weight 0.
pub(crate) const ZEROS: u8 = 0x55;

const _: () = assert!(PANEL_ROWS * CHUNK_COLS / 4 == CHUNK_BYTES);
const _: () = assert!(COL_ALIGN == ROW_ALIGN && COL_ALIGN.is_multiple_of(CHUNK_COLS));

/// The longest row: `127 * 2^24` still fits an i32, so no product can overflow its result.
pub(crate) const MAX_COLS: usize = 1 << 24;

/// Chunks of a tile of a GEMM: 2560 columns, so that the activations of a dozen tokens fill 30 KiB.
pub(crate) const BLOCK_CHUNKS: usize = 160;

/// One chunk of a panel.
pub(crate) type Chunk = [u8; CHUNK_BYTES];
/// The activations that meet one chunk, as raw bytes of int8.
pub(crate) type Acts = [u8; CHUNK_COLS];

/// Chunks of one panel, a multiple of four.
fn chunks_of(cols: usize) -> usize {
    cols.div_ceil(COL_ALIGN) * (COL_ALIGN / CHUNK_COLS)
}

/// Packs `w` for the kernel called `kernel`.
pub(crate) fn prepack(kernel: &str, w: &TernaryMatrix) -> Result<Packed, KernelError> {
    w.expect_plain_rows(kernel)?;
    let (rows, cols) = (w.rows(), w.cols());
    if cols > MAX_COLS {
        return Err(KernelError::RowTooLong { kernel: kernel.to_owned(), cols, max_cols: MAX_COLS });
    }
    let panels = rows.div_ceil(PANEL_ROWS);
    let panel_bytes = chunks_of(cols) * CHUNK_BYTES;
    let len = panels.checked_mul(panel_bytes).filter(|&b| isize::try_from(b).is_ok()).ok_or(KernelError::TooLarge {
        op: "i2s prepack",
        rows,
        cols,
    })?;
    let mut bytes = AlignedBuf::for_weights(len);
    pack_panels(w, 0..panels, &mut bytes);
    Packed::new(kernel, rows, cols, PANEL_ROWS, panel_bytes, bytes)
}

/// Packs panels `range` of `w` into `out`, which holds exactly those; callers may split the panels of a matrix
/// between threads.
pub(crate) fn pack_panels(w: &TernaryMatrix, range: Range<usize>, out: &mut [u8]) {
    let chunks = chunks_of(w.cols());
    if chunks == 0 {
        return;
    }
    assert_eq!(out.len(), range.len() * chunks * CHUNK_BYTES, "pack_panels: length of the output");
    // One decoded row and one panel at a time: both stay in the first-level cache.
    let mut row = vec![0i8; chunks * CHUNK_COLS];
    let mut words = vec![0u32; chunks];
    for (p, panel) in range.zip(out.chunks_exact_mut(chunks * CHUNK_BYTES)) {
        let (panel, _) = panel.as_chunks_mut::<CHUNK_BYTES>();
        for r in 0..PANEL_ROWS {
            if p * PANEL_ROWS + r < w.rows() {
                w.decode_row(p * PANEL_ROWS + r, &mut row[..w.cols()]);
                pack_row(&row, &mut words, r, panel);
            } else {
                panel.iter_mut().for_each(|chunk| chunk[4 * r..4 * r + 4].fill(ZEROS));
            }
        }
    }
}

/// Packs one row of trits as row `r` of a panel; `words` is scratch, one for each chunk.
fn pack_row(row: &[i8], words: &mut [u32], r: usize, panel: &mut [Chunk]) {
    // Two loops: the first has no strided store and is vectorised.
    row_words(row, words);
    for (chunk, word) in panel.iter_mut().zip(words) {
        chunk[4 * r..4 * r + 4].copy_from_slice(&word.to_le_bytes());
    }
}

/// The codes of one row, levels in -1..=2, as they lie in each chunk.
pub(crate) fn row_words(row: &[i8], words: &mut [u32]) {
    /// The lower bit of each field.
    const LOW: u32 = 0x5555_5555;
    for (trits, word) in row.as_chunks::<CHUNK_COLS>().0.iter().zip(words) {
        let [a, b, c, d] = [0, 4, 8, 12].map(|i| u32::from_le_bytes([0, 1, 2, 3].map(|c| trits[i + c] as u8)));
        // The two lowest bits of the levels, 3, 0, 1, 2 for -1, 0, +1, +2; then one is added to each field modulo 4.
        let bits = (a & 0x0303_0303) | (b & 0x0303_0303) << 2 | (c & 0x0303_0303) << 4 | (d & 0x0303_0303) << 6;
        *word = bits ^ LOW ^ ((bits & LOW) << 1);
    }
}

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
    /// Those of the tokens in `range`.
    pub(crate) fn rows(&self, range: Range<usize>) -> Self {
        match self {
            Self::Int8(x) => Self::Int8(x.rows(range)),
            Self::Int4(x) => Self::Int4(x.rows(range)),
        }
    }

    /// Activations per token, those with their padding, tokens and sums.
    pub(crate) fn shape(&self) -> (usize, usize, &'a [i32]) {
        let (k, padded, rows, sums) = match self {
            Self::Int8(x) => (x.k(), x.stride(), x.codes().len(), x.sums()),
            Self::Int4(x) => (x.k(), 2 * x.stride(), 2 * x.nibbles().len(), x.sums()),
        };
        assert_eq!(rows, sums.len() * padded, "rows of activations");
        (k, padded, sums)
    }
}

/// What a product reads, with every length checked: the code below cuts slices from it and needs no other proof.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    /// The weights; empty where they have another layout and are unpacked tile by tile.
    panels: &'a [Chunk],
    /// Chunks of one panel, at least 4.
    chunks: usize,
    rows: usize,
    x: Activations<'a>,
    sums: &'a [i32],
}

impl<'a> Product<'a> {
    /// Checks all lengths; `None` where there is nothing to multiply, and `acc` has been set to zero.
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

    /// One token; `sum` is `[x.sum()]`, lent by the caller.
    fn of_one(w: &PackedRows<'a>, x: &Int8Vector<'a>, sum: &'a [i32; 1], acc: &mut [i32]) -> Option<Self> {
        Self::new(w, &x.as_matrix(sum), acc)
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
    /// For int4, which lies in halves of bytes: it is brought to tiles by [`Product::interleave`], or widened before.
    pub(crate) fn token(&self, t: usize) -> &'a [Acts] {
        self.rows_of(t..t + 1).0[..self.chunks * CHUNK_COLS].as_chunks().0
    }

    /// Int8 activations of `tokens`, as far as the last one's padding, and the distance from one to the next.
    ///
    /// # Panics
    /// The same as [`Product::token`].
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
        // Sums of codes can pass 2^31 for rows above 2^23; their difference fits, so wrapping is exact.
        out.iter_mut().zip(code_sums).for_each(|(a, s)| *a = s.wrapping_sub(self.sums[t]));
    }

    /// Sets the results of panel `p` for token `t` to sums of trit times activation, or adds them to what is there.
    #[inline(always)]
    pub(crate) fn put(&self, p: usize, t: usize, sums: &[i16; PANEL_ROWS], set: bool, acc: &mut [i32]) {
        let row = p * PANEL_ROWS;
        let out = &mut acc[t * self.rows..][row..self.rows.min(row + PANEL_ROWS)];
        let put = |(a, s): (&mut i32, &i16)| *a = i32::from(*s) + if set { 0 } else { *a };
        match out.as_mut_array::<PANEL_ROWS>() {
            // A known length becomes vector instructions.
            Some(out) => out.iter_mut().zip(sums).for_each(put),
            None => out.iter_mut().zip(sums).for_each(put),
        }
    }

    /// Calls `tile` for a cover of the product with tiles of at most `max_panels` panels by `max_tokens` tokens by
    /// [`BLOCK_CHUNKS`] chunks; `buffer` has room for the activations of one, `max_tokens * BLOCK_CHUNKS`.
    ///
    /// ```text
    /// for each block of panels that stays in the second-level cache:
    ///     for each tile of tokens:
    ///         for each block of columns:
    ///             copy its activations to `buffer`, those of all tokens for one chunk side by side
    ///             for each tile of panels in the block:
    ///                 tile
    /// ```
    /// The copy stays in the first-level cache while weights stream past it. It is one stream with constant offsets
    /// instead of a dozen, so it needs one address register, and rows a power of two apart do not evict each other.
    fn for_tiles(&self, max_panels: usize, max_tokens: usize, buffer: &mut [Acts], mut tile: impl FnMut(Tile<'_>)) {
        /// A quarter of the second-level cache of current CPUs, and less than all of it on older ones.
        const PANELS_BYTES: usize = 384 << 10;
        let max_block = match self.sums.len() <= max_tokens {
            // Weights are read once, so there is nothing to keep.
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

    /// Copies the activations of `tokens` for `chunks` to `buffer`, those of all tokens for one chunk side by side; int4 is
    /// widened here, once for as many panels as the copy serves.
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
    /// Activations of all `tokens` for the first of `chunks`, then for the second ...
    pub(crate) acts: &'a [Acts],
    /// Weights of the first of `panels` for `chunks`, those of the next panel `stride` further on.
    pub(crate) weights: &'a [Chunk],
    pub(crate) stride: usize,
}

impl<'a> Tile<'a> {
    /// The weights of `P` panels.
    #[inline(always)]
    fn weights<const P: usize>(&self) -> [&'a [Chunk]; P] {
        std::array::from_fn(|i| &self.weights[i * self.stride..][..self.chunks.len()])
    }

    /// Stores `sums`, code times activation of the 16 rows of panel `i` of the tile and token `n` of the tile: the first
    /// block of columns sets the accumulators, less the sum of the activations, the others add to them.
    #[inline(always)]
    fn store(&self, product: &Product<'_>, i: usize, n: usize, sums: &[i32; PANEL_ROWS], acc: &mut [i32]) {
        let (row, t) = ((self.panels.start + i) * PANEL_ROWS, self.tokens.start + n);
        let rows = PANEL_ROWS.min(product.rows - row);
        let out = &mut acc[t * product.rows + row..][..rows];
        let (less, first) = (product.sums[t], self.chunks.start == 0);
        // Sums of codes can pass 2^31 for rows above 2^23; their difference fits, so wrapping is exact.
        let put = |(a, s): (&mut i32, &i32)| *a = if first { s.wrapping_sub(less) } else { a.wrapping_add(*s) };
        match out.as_mut_array::<PANEL_ROWS>() {
            // A known length becomes vector instructions.
            Some(out) => out.iter_mut().zip(sums).for_each(put),
            None => out.iter_mut().zip(sums).for_each(put),
        }
    }
}

/// The fewest parts of `range` that are no longer than `max`, of nearly equal length.
pub(crate) fn even_parts(range: Range<usize>, max: usize) -> impl Iterator<Item = Range<usize>> {
    let (start, len) = (range.start, range.len());
    let parts = len.div_ceil(max);
    (0..parts).map(move |i| start + len * i / parts..start + len * (i + 1) / parts)
}

#[cfg(test)]
mod tests;
