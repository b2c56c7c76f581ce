//! Base 3 in portable Rust: unpacked by tables, then as I2_S.

use super::{Base3, GROUP_CHUNKS, Group, code};
use crate::i2s::scalar::{MAX_TOKENS, code_sums, tiles};
use crate::i2s::{Activations, BLOCK_CHUNKS, CHUNK_BYTES, CHUNK_COLS, Chunk, PANEL_ROWS};
use crate::{Int4Matrix, Int8Batch, Int8Matrix, Int8Vector, Kernel, KernelError, Packed, PackedRows, TernaryMatrix};

pub(crate) const NAME: &str = "base3_scalar";

/// The first four digits of each byte, two bits each.
static FOUR: [u8; 256] = {
    let mut table = [0; 256];
    let mut v = 0;
    while v < 256 {
        let ([t0, t1, t2, t3], _) = code::digits(v as u8);
        table[v] = t0 | t1 << 2 | t2 << 4 | t3 << 6;
        v += 1;
    }
    table
};

/// The last digit of each byte.
static LAST: [u8; 256] = {
    let mut table = [0; 256];
    let mut v = 0;
    while v < 256 {
        table[v] = code::digits(v as u8).1;
        v += 1;
    }
    table
};

/// The portable kernel.
#[derive(Debug)]
pub(crate) struct Base3Scalar;

impl Kernel for Base3Scalar {
    fn name(&self) -> &str {
        NAME
    }
    fn panel_rows(&self) -> usize {
        PANEL_ROWS
    }
    fn prepack(&self, w: &TernaryMatrix) -> Result<Packed, KernelError> {
        super::prepack(NAME, w)
    }
    fn gemv(&self, w: &PackedRows<'_>, x: &Int8Vector<'_>, acc: &mut [i32]) {
        let sum = [x.sum()];
        let Some(product) = Base3::new(w, &x.as_matrix(&sum), acc) else { return };
        product.gemv(unpack, |chunks, x| code_sums::<1>(chunks, x.as_chunks().0)[0], acc);
    }
    fn gemm(&self, w: &PackedRows<'_>, x: &Int8Matrix<'_>, acc: &mut [i32]) {
        product_of(w, x.into(), acc);
    }
    fn gemm_a4(&self, w: &PackedRows<'_>, x: &Int4Matrix<'_>, _: &mut Int8Batch, acc: &mut [i32]) {
        product_of(w, x.into(), acc);
    }
}

fn product_of(w: &PackedRows<'_>, x: Activations<'_>, acc: &mut [i32]) {
    let Some(product) = Base3::new(w, x, acc) else { return };
    let mut acts = [[0; CHUNK_COLS]; MAX_TOKENS * BLOCK_CHUNKS];
    product.gemm(1, MAX_TOKENS, &mut acts, unpack, |t| tiles(&product.io, &t, acc));
}

/// Unpacks `groups` to the chunks of their columns.
pub(super) fn unpack(groups: &[Group], out: &mut [Chunk]) {
    for (group, [first @ .., last]) in groups.iter().zip(out.as_chunks_mut::<GROUP_CHUNKS>().0) {
        *last = [0; CHUNK_BYTES];
        for (s, (quarter, chunk)) in group.iter().zip(first).enumerate() {
            for i in 0..CHUNK_BYTES {
                let v = usize::from(quarter[i]);
                chunk[i] = FOUR[v];
                last[i] |= LAST[v] << (2 * s);
            }
        }
    }
}
