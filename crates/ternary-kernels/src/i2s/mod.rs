//! I2_S kernels: two bits per weight, one kernel layout for every instruction set, for GEMV and for GEMM.
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

use crate::panel_kernel::Layout;
use crate::token_tables::{InPlace, StepWeights};
use crate::{AlignedBuf, KernelError, KernelLayout, Packed, PackedRows, ROW_ALIGN, TernaryMatrix};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "wasm32"))]
pub(crate) mod lanes128;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
mod product;
pub(crate) mod scalar;
#[cfg(target_arch = "x86_64")]
pub(crate) mod sse41;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vnni256;
#[cfg(target_arch = "wasm32")]
pub(crate) mod wasm;
#[cfg(target_arch = "x86_64")]
pub(crate) mod wide512;

pub(crate) use product::{Activations, Product, Tile, even_parts, with_acts};

/// The layout of this module.
#[derive(Debug)]
pub(crate) struct I2s;

impl Layout for I2s {
    type Product<'a> = Product<'a>;
    const TABLE_PANELS: usize = <InPlace<'_> as StepWeights>::PANELS;

    fn prepack(kernel: &str, w: &TernaryMatrix) -> Result<Packed, KernelError> {
        prepack(kernel, w)
    }
    fn product<'a>(w: &PackedRows<'a>, x: Activations<'a>, acc: &mut [i32]) -> Option<Product<'a>> {
        Product::new(w, x, acc)
    }
}

/// Rows of a panel.
pub(crate) const PANEL_ROWS: usize = 16;
/// Columns of a chunk.
pub(crate) const CHUNK_COLS: usize = 16;
/// Bytes of a chunk.
pub(crate) const CHUNK_BYTES: usize = 64;
/// Fields of a chunk, of four columns each.
#[cfg(target_arch = "x86_64")]
pub(crate) const FIELDS: usize = CHUNK_COLS / 4;
/// Columns are padded to a multiple of this, four chunks, like activations.
const COL_ALIGN: usize = 64;
/// Code 1, weight 0, four times.
pub(crate) const ZEROS: u8 = 0x55;

const _: () = assert!(PANEL_ROWS * CHUNK_COLS / 4 == CHUNK_BYTES);
const _: () = assert!(COL_ALIGN == ROW_ALIGN && COL_ALIGN.is_multiple_of(CHUNK_COLS));

/// The longest row: `127 * 2^24` still fits an i32, so no product can overflow its result.
pub(crate) const MAX_COLS: usize = 1 << 24;

/// Chunks of a GEMM tile: 2560 columns, so that the activations of a dozen tokens fill 30 KiB.
pub(crate) const BLOCK_CHUNKS: usize = 160;

/// One chunk of a panel.
pub(crate) type Chunk = [u8; CHUNK_BYTES];
/// The activations for one chunk, as raw bytes of int8.
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
    if let Some(bytes) = w.packed_bytes(KernelLayout::I2s) {
        return Packed::from_shared(kernel, rows, cols, PANEL_ROWS, panel_bytes, bytes.clone());
    }
    let len = panels.checked_mul(panel_bytes).filter(|&b| isize::try_from(b).is_ok()).ok_or(KernelError::TooLarge {
        op: "i2s prepack",
        rows,
        cols,
    })?;
    let mut bytes = AlignedBuf::for_weights(len);
    pack_panels(w, 0..panels, &mut bytes);
    Packed::new(kernel, rows, cols, PANEL_ROWS, panel_bytes, bytes)
}

/// Packs panels `range` of `w` into `out`, which has exactly their length; callers may split the panels of a matrix
/// between threads.
pub(crate) fn pack_panels(w: &TernaryMatrix, range: Range<usize>, out: &mut [u8]) {
    let chunks = chunks_of(w.cols());
    if chunks == 0 {
        return;
    }
    assert_eq!(out.len(), range.len() * chunks * CHUNK_BYTES, "pack_panels: length of the output");
    // One decoded row and one panel at a time: both stay in the level-1 cache.
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

/// Packs one row of trits as row `r` of a panel; `words` is scratch, one word for each chunk.
fn pack_row(row: &[i8], words: &mut [u32], r: usize, panel: &mut [Chunk]) {
    // Two loops: the first has no strided store and is vectorised.
    row_words(row, words);
    for (chunk, word) in panel.iter_mut().zip(words) {
        chunk[4 * r..4 * r + 4].copy_from_slice(&word.to_le_bytes());
    }
}

/// The codes of one row, levels in -1..=2, as words of the chunks.
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

#[cfg(test)]
mod tests;
