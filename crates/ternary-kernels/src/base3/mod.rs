//! Base-3 kernels: five weights in a byte, 1.6 bits each, for weights that come from memory.
//!
//! If a model's weights do not fit the caches, decoding takes as long as reading them, and here a fifth fewer bytes are
//! read than with two bits. Unpacking costs more instructions, so the kernel pays off on CPUs that unpack faster than
//! their memory delivers: with AVX-512 VBMI. Elsewhere it is exact, small, and slower than I2_S.
//!
//! # Kernel layout
//! Rows are taken 16 at a time (a *panel*), columns 80 at a time (a *group*). A group of one panel is 256 bytes, four
//! *quarters* of one cache line. As in [`crate::i2s`], byte `4r + c` belongs to row `r`, so an i32 lane is a row and
//! nothing is added across lanes. Digits are weights + 1, so 1 is weight 0:
//!
//! ```text
//! quarter s of group g, byte 4r + c:
//!     digits t0 to t3 are the columns  80g + 16s + 4j + c   for j = 0, 1, 2, 3
//!     digit  t4       is the column    80g + 64 + 4s + c
//! ```
//!
//! So the first four digits of a quarter, once they are two bits each, are a chunk of the I2_S layout, and the last
//! digits of the four quarters together are a fifth chunk: a group unpacks to the five I2_S chunks of its 80 columns in
//! their order. GEMM unpacks weights once for all tokens and continues like I2_S, and so does GEMV unless it has a
//! faster way. [`code`] explains how five digits make a byte.
//!
//! Columns are padded to a multiple of 80, rows to a multiple of 16, with weight 0. A panel is one sequential stream,
//! and panels follow each other, so a range of rows is one stream too.
//!
//! ```
//! use ternary_kernels::{Scales, TernaryMatrix};
//! let mut trits = [0i8; 80];
//! (trits[0], trits[4], trits[8], trits[12], trits[64]) = (-1, -1, -1, -1, -1); // the first byte
//! (trits[1], trits[5], trits[9], trits[13], trits[65]) = (1, -1, 0, 1, 0); // the second
//! let w = TernaryMatrix::from_trits(1, 80, &trits, Scales::Tensor(1.0)).unwrap();
//! let packed = ternary_kernels::by_name("base3_scalar").unwrap().prepack(&w).unwrap();
//! assert_eq!(packed.byte_len(), 256); // one panel of one group: 1280 weights
//! let bytes = packed.all().bytes();
//! assert_eq!(bytes[0], 0);
//! assert_eq!(bytes[1], 64 * 1 + 7 * 2 + 5); // h = t4 = 1, the pair 2 0, and 1 2 for t2 t3
//! assert!(bytes[2..].iter().all(|&b| b == 94)); // five zero weights
//! ```

use std::ops::Range;

use crate::i2s::{Activations, BLOCK_CHUNKS, CHUNK_BYTES, CHUNK_COLS, MAX_COLS, PANEL_ROWS};
use crate::panel_kernel::{Backend, Layout, Unpack};
use crate::{AlignedBuf, KernelError, KernelLayout, Packed, PackedRows, TernaryMatrix};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod code;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "wasm32"))]
mod lanes128;
mod product;
mod scalar;
#[cfg(test)]
mod tests;

use product::Product;

/// The layout of this module.
#[derive(Debug)]
pub(crate) struct Base3;

impl Layout for Base3 {
    type Product<'a> = Product<'a>;
    const TABLE_PANELS: usize = product::TABLE_PANELS;

    fn prepack(kernel: &str, w: &TernaryMatrix) -> Result<Packed, KernelError> {
        prepack(kernel, w)
    }
    fn product<'a>(w: &PackedRows<'a>, x: Activations<'a>, acc: &mut [i32]) -> Option<Product<'a>> {
        Product::new(w, x, acc)
    }
}

impl<B: Unpack> Backend<Base3> for B {
    fn gemv(self, product: &Product<'_>, acc: &mut [i32]) {
        product.gemv(self, acc);
    }
    fn gemm(self, product: &Product<'_>, acc: &mut [i32]) {
        product.gemm(self, acc);
    }
    fn last_from(self) -> Option<usize> {
        // Unpacking takes an eighth of a tile of tables, and is shared by the tokens where they are multiplied: measured
        // with AVX2 on Zen 4, where a tile reaches 302 GOP/s, and 24 tokens 269 without tables.
        B::TABLES_FROM.map(|from| from + from / 8)
    }
    fn look_up(self, product: &Product<'_>, acc: &mut [i32]) {
        match B::TABLES_FROM {
            Some(_) => product.look_up(self, acc),
            None => product.gemm(self, acc),
        }
    }
}

/// Quarters of a group.
const QUARTERS: usize = 4;
/// Columns of a group.
const GROUP_COLS: usize = 80;
/// I2_S chunks that a group unpacks to.
const GROUP_CHUNKS: usize = GROUP_COLS / CHUNK_COLS;
/// Five zero weights.
const ZEROS: u8 = 94;

const _: () = assert!(GROUP_COLS == QUARTERS * 5 * 4 && GROUP_CHUNKS == 5);
const _: () = assert!(code::encode([1; 4], 1) == ZEROS as u32);

/// One group of a panel.
pub(crate) type Group = [[u8; CHUNK_BYTES]; QUARTERS];

/// Groups that are unpacked at a time: as many chunks as a tile of I2_S has.
const BLOCK_GROUPS: usize = BLOCK_CHUNKS / GROUP_CHUNKS;
/// Panels that GEMM unpacks at a time if they are multiplied with several tiles of tokens: 80 KiB of weights of two
/// bits, on the stack, as kernels do not allocate.
const BLOCK_PANELS: usize = 8;

/// Groups of one panel.
fn groups_of(cols: usize) -> usize {
    cols.div_ceil(GROUP_COLS)
}

/// Bytes of one panel.
pub(crate) fn panel_bytes(cols: usize) -> usize {
    groups_of(cols) * size_of::<Group>()
}

/// Writes the trits of row `r` of packed weights to `out`, `[cols]`.
pub(crate) fn decode_row(bytes: &[u8], cols: usize, r: usize, out: &mut [i8]) {
    let (quarters, _) = bytes.as_chunks::<CHUNK_BYTES>();
    let (groups, _) = quarters.as_chunks::<QUARTERS>();
    let per_panel = groups_of(cols);
    let panel = &groups[r / PANEL_ROWS * per_panel..][..per_panel];
    for (group, out) in panel.iter().zip(out.chunks_mut(GROUP_COLS)) {
        let mut trits = [0i8; GROUP_COLS];
        for (s, quarter) in group.iter().enumerate() {
            for (c, &byte) in quarter[4 * (r % PANEL_ROWS)..][..4].iter().enumerate() {
                let (four, last) = code::digits(byte);
                for (j, digit) in four.into_iter().enumerate() {
                    trits[CHUNK_COLS * s + 4 * j + c] = digit as i8 - 1;
                }
                trits[QUARTERS * CHUNK_COLS + 4 * s + c] = last as i8 - 1;
            }
        }
        out.copy_from_slice(&trits[..out.len()]);
    }
}

/// The first byte of the rows below `rows` that does not encode five trits, and the row that it belongs to.
pub(crate) fn invalid(bytes: &[u8], cols: usize, rows: usize) -> Option<(usize, u8)> {
    let row_of = |at: usize| at / panel_bytes(cols).max(1) * PANEL_ROWS + at % CHUNK_BYTES / 4;
    let valid = |byte: u8| {
        let (four, last) = code::digits(byte);
        code::encode(four.map(u32::from), u32::from(last)) == u32::from(byte)
    };
    let bad = bytes.iter().enumerate().filter(|(_, byte)| !valid(**byte));
    bad.map(|(at, byte)| (row_of(at), *byte)).find(|(row, _)| *row < rows)
}

/// Packs `w` for the kernel called `kernel`.
fn prepack(kernel: &str, w: &TernaryMatrix) -> Result<Packed, KernelError> {
    w.expect_plain_rows(kernel)?;
    let (rows, cols) = (w.rows(), w.cols());
    if cols > MAX_COLS {
        return Err(KernelError::RowTooLong { kernel: kernel.to_owned(), cols, max_cols: MAX_COLS });
    }
    let panels = rows.div_ceil(PANEL_ROWS);
    let panel_bytes = panel_bytes(cols);
    if let Some(bytes) = w.packed_bytes(KernelLayout::Base3) {
        return Packed::from_shared(kernel, rows, cols, PANEL_ROWS, panel_bytes, bytes.clone());
    }
    let len = panels.checked_mul(panel_bytes).filter(|&b| isize::try_from(b).is_ok()).ok_or(KernelError::TooLarge {
        op: "base3 prepack",
        rows,
        cols,
    })?;
    let mut bytes = AlignedBuf::for_weights(len);
    pack_panels(w, 0..panels, &mut bytes);
    Packed::new(kernel, rows, cols, PANEL_ROWS, panel_bytes, bytes)
}

/// Packs panels `range` of `w` into `out`, which has exactly their length.
fn pack_panels(w: &TernaryMatrix, range: Range<usize>, out: &mut [u8]) {
    let groups = groups_of(w.cols());
    if groups == 0 {
        return;
    }
    let (out, _) = out.as_chunks_mut::<CHUNK_BYTES>();
    let (out, _) = out.as_chunks_mut::<QUARTERS>();
    assert_eq!(out.len(), range.len() * groups, "pack_panels: length of the output");
    // One decoded row and one panel at a time: both stay in the level-1 cache.
    let mut row = vec![0i8; groups * GROUP_COLS];
    for (p, panel) in range.zip(out.chunks_exact_mut(groups)) {
        for r in 0..PANEL_ROWS {
            if p * PANEL_ROWS + r < w.rows() {
                w.decode_row(p * PANEL_ROWS + r, &mut row[..w.cols()]);
                pack_row(&row, r, panel);
            } else {
                panel.iter_mut().flatten().for_each(|quarter| quarter[4 * r..4 * r + 4].fill(ZEROS));
            }
        }
    }
}

/// Packs one row of trits as row `r` of a panel.
fn pack_row(row: &[i8], r: usize, panel: &mut [Group]) {
    for (trits, group) in row.as_chunks::<GROUP_COLS>().0.iter().zip(panel) {
        let digits = |at: usize| {
            // There is no carry between bytes: trits + 1 are 0, 1, 2, and the two lowest bits of trits are 3, 0, 1.
            let bits = u32::from_le_bytes([0, 1, 2, 3].map(|c| trits[at + c] as u8)) & 0x0303_0303;
            (bits + 0x0101_0101) & 0x0303_0303
        };
        for (s, quarter) in group.iter_mut().enumerate() {
            let four = [0, 1, 2, 3].map(|j| digits(16 * s + 4 * j));
            let word = code::encode(four, digits(64 + 4 * s));
            quarter[4 * r..4 * r + 4].copy_from_slice(&word.to_le_bytes());
        }
    }
}
