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

use crate::{AlignedBuf, Int8Matrix, Int8Vector, KernelError, Packed, PackedRows, ROW_ALIGN, TernaryMatrix};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vnni256;

/// Rows of a panel.
pub(crate) const PANEL_ROWS: usize = 16;
/// Columns of a chunk.
const CHUNK_COLS: usize = 16;
/// Bytes of a chunk.
const CHUNK_BYTES: usize = 64;
/// Columns are padded to a multiple of this, four chunks, which is what activations are padded to.
const COL_ALIGN: usize = 64;
/// Four times code 1, weight 0.
const ZEROS: u8 = 0x55;

const _: () = assert!(PANEL_ROWS * CHUNK_COLS / 4 == CHUNK_BYTES);
const _: () = assert!(COL_ALIGN == ROW_ALIGN && COL_ALIGN.is_multiple_of(CHUNK_COLS));

/// The longest row: `127 * 2^24` still fits an i32, so no product can overflow its result.
pub(crate) const MAX_COLS: usize = 1 << 24;

/// One chunk of a panel.
type Chunk = [u8; CHUNK_BYTES];
/// The activations that meet one chunk, as raw bytes of int8.
type Acts = [u8; CHUNK_COLS];

/// Chunks of one panel, a multiple of four.
fn chunks_of(cols: usize) -> usize {
    cols.div_ceil(COL_ALIGN) * (COL_ALIGN / CHUNK_COLS)
}

/// Packs `w` for the kernel called `kernel`.
pub(crate) fn prepack(kernel: &str, w: &TernaryMatrix) -> Result<Packed, KernelError> {
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
    let mut bytes = AlignedBuf::zeroed(len);
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
    for (p, panel) in range.zip(out.chunks_exact_mut(chunks * CHUNK_BYTES)) {
        let (panel, _) = panel.as_chunks_mut::<CHUNK_BYTES>();
        for r in 0..PANEL_ROWS {
            if p * PANEL_ROWS + r < w.rows() {
                w.decode_row(p * PANEL_ROWS + r, &mut row[..w.cols()]);
                pack_row(&row, r, panel);
            } else {
                panel.iter_mut().for_each(|chunk| chunk[4 * r..4 * r + 4].fill(ZEROS));
            }
        }
    }
}

/// Packs one row of trits as row `r` of a panel.
fn pack_row(row: &[i8], r: usize, panel: &mut [Chunk]) {
    let (groups, _) = row.as_chunks::<CHUNK_COLS>();
    for (trits, chunk) in groups.iter().zip(panel) {
        let codes = trits.map(|t| t.wrapping_add(1) as u8);
        let (fields, _) = codes.as_chunks::<4>();
        // Codes are below 4, so shifting four of them at once inside a u32 carries nothing into a neighbour.
        let word = fields.iter().rev().fold(0u32, |word, &field| word << 2 | u32::from_le_bytes(field));
        chunk[4 * r..4 * r + 4].copy_from_slice(&word.to_le_bytes());
    }
}

/// What a product reads, with every length checked: the code below cuts slices from it and needs no other proof.
#[derive(Clone, Copy)]
struct Product<'a> {
    panels: &'a [Chunk],
    /// Chunks of one panel, at least 4.
    chunks: usize,
    rows: usize,
    codes: &'a [u8],
    stride: usize,
    sums: &'a [i32],
}

impl<'a> Product<'a> {
    /// Checks all lengths; `None` where there is nothing to multiply, and `acc` has been set to zero.
    fn new(w: &PackedRows<'a>, x: &Int8Matrix<'a>, acc: &mut [i32]) -> Option<Self> {
        let chunks = chunks_of(w.cols());
        assert_eq!(w.panel_bytes(), chunks * CHUNK_BYTES, "i2s: weights in another layout");
        assert_eq!(w.bytes().len(), w.rows().div_ceil(PANEL_ROWS) * w.panel_bytes(), "i2s: bytes of the weights");
        assert_eq!(x.k(), w.cols(), "i2s: activations per token");
        assert!(x.stride() >= chunks * CHUNK_COLS && x.codes().len() == x.n() * x.stride(), "i2s: padding");
        assert_eq!(acc.len(), x.n() * w.rows(), "i2s: accumulators");
        if chunks == 0 || acc.is_empty() {
            acc.fill(0);
            return None;
        }
        let (panels, _) = w.bytes().as_chunks();
        let codes = bytemuck::cast_slice(x.codes());
        Some(Self { panels, chunks, rows: w.rows(), codes, stride: x.stride(), sums: x.sums() })
    }

    /// One token; `sum` is `[x.sum()]`, lent by the caller.
    fn of_one(w: &PackedRows<'a>, x: &Int8Vector<'a>, sum: &'a [i32; 1], acc: &mut [i32]) -> Option<Self> {
        Self::new(w, &x.as_matrix(sum), acc)
    }

    /// Number of panels.
    fn panel_count(&self) -> usize {
        self.panels.len() / self.chunks
    }

    /// Panel `p`.
    fn panel(&self, p: usize) -> &'a [Chunk] {
        &self.panels[p * self.chunks..(p + 1) * self.chunks]
    }

    /// Activations of token `t`, one group per chunk.
    fn token(&self, t: usize) -> &'a [Acts] {
        self.codes[t * self.stride..][..self.chunks * CHUNK_COLS].as_chunks().0
    }

    /// Stores the sums of code times activation of the 16 rows of panel `p`, less the sum of the activations.
    fn store(&self, p: usize, t: usize, code_sums: &[i32; PANEL_ROWS], acc: &mut [i32]) {
        let row = p * PANEL_ROWS;
        let end = self.rows.min(row + PANEL_ROWS);
        let out = &mut acc[t * self.rows..][row..end];
        for (a, s) in out.iter_mut().zip(code_sums) {
            // Sums of codes can pass 2^31 for rows above 2^23; their difference fits, so wrapping is exact.
            *a = s.wrapping_sub(self.sums[t]);
        }
    }

    /// Calls `tile(panels, tokens)` for a cover of all panels and tokens with tiles of at most `max_panels` by
    /// `max_tokens`.
    ///
    /// Order: blocks of tokens whose activations stay in the second-level cache; within a block, panels whose
    /// weights stay close while the block's tokens pass in tiles of nearly equal width.
    fn for_tiles(&self, max_panels: usize, max_tokens: usize, mut tile: impl FnMut(Range<usize>, Range<usize>)) {
        /// Half of the second-level cache of common CPUs.
        const BLOCK_BYTES: usize = 384 << 10;
        let block = (BLOCK_BYTES / self.stride / max_tokens).max(1) * max_tokens;
        for tokens in even_parts(0..self.sums.len(), block) {
            let mut p = 0;
            while p < self.panel_count() {
                let end = self.panel_count().min(p + max_panels);
                even_parts(tokens.clone(), max_tokens).for_each(|t| tile(p..end, t));
                p = end;
            }
        }
    }
}

/// The fewest parts of `range` that are no longer than `max`, of nearly equal length.
fn even_parts(range: Range<usize>, max: usize) -> impl Iterator<Item = Range<usize>> {
    let (start, len) = (range.start, range.len());
    let parts = len.div_ceil(max);
    (0..parts).map(move |i| start + len * i / parts..start + len * (i + 1) / parts)
}

#[cfg(test)]
mod tests;
