//! Registers of 128 bits without a dot-product instruction: SSE4.1, NEON as every 64-bit ARM has it, and WebAssembly
//! SIMD.
//!
//! A panel is four registers of four rows each. As in [`crate::i2s::lanes128`], a lane of 16 bits is a row and one or two
//! columns of the field.

use super::lanes::{Lanes, array_rows};
use super::{CHUNK_BYTES, Chunk};
use crate::i2s::Acts;
use crate::i2s::lanes128::{self, Lanes128};
use crate::ops::lanes::Simd;

/// Registers of a panel.
const REGISTERS: usize = CHUNK_BYTES / 16;
/// A product, of codes up to 3 and digits from -128.
const PRODUCT: usize = 3 * 128;
/// With a column for each lane it takes one from each of four fields of a chunk: `16 * 4 * 384 = 24576 < 2^15`.
const FLUSH: usize = 16;
const _: () = assert!(FLUSH * 4 * PRODUCT <= i16::MAX as usize);
/// Four times as much, from two fields.
const FLUSH_QUADRUPLE: usize = 8;
const _: () = assert!(FLUSH_QUADRUPLE * 2 * 4 * PRODUCT <= i16::MAX as usize);

/// Lanes over the operations of `S`, a proof token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Narrow<S>(pub(super) S);

// Functions are qualified with their trait: `Simd` has others of the same name.
impl<S: Lanes128 + Simd> Lanes<REGISTERS> for Narrow<S> {
    type Float = S;
    type B = S::B;
    type A = S::P;
    const FLUSH: usize = FLUSH / S::COLUMNS;
    const FLUSH_QUADRUPLE: usize = FLUSH_QUADRUPLE / S::COLUMNS;
    array_rows!(4);

    #[inline(always)]
    fn float(self) -> S {
        self.0
    }
    #[inline(always)]
    fn load(self, chunk: &Chunk, r: usize) -> S::B {
        Lanes128::load(self.0, &chunk.as_chunks().0[r])
    }
    #[inline(always)]
    fn field<const J: i32>(self, v: S::B) -> S::B {
        match J {
            0 => lanes128::field::<S, 0>(self.0, v),
            1 => lanes128::field::<S, 1>(self.0, v),
            2 => lanes128::field::<S, 2>(self.0, v),
            _ => lanes128::field::<S, 3>(self.0, v),
        }
    }
    #[inline(always)]
    fn quadruples(self, v: S::B) -> [S::B; 4] {
        let (low, high) = (Lanes128::splat(self.0, 0x03), Lanes128::splat(self.0, 0x0c));
        let u = Lanes128::shr4(self.0, v);
        [
            Lanes128::and(self.0, v, low),
            Lanes128::and(self.0, v, high),
            Lanes128::and(self.0, u, low),
            Lanes128::and(self.0, u, high),
        ]
    }
    #[inline(always)]
    fn zero(self) -> Self::A {
        Lanes128::zero_p(self.0)
    }
    #[inline(always)]
    fn dot<const J: i32>(self, sum: Self::A, codes: S::B, x: &Acts) -> Self::A {
        Lanes128::mul_add(self.0, sum, codes, Lanes128::splat4(self.0, x.as_chunks().0[J as usize]))
    }
    #[inline(always)]
    fn rows(self, sums: Self::A) -> [i32; 4] {
        Lanes128::rows(self.0, Lanes128::widen(self.0, Lanes128::zero_w(self.0), sums))
    }
    #[inline(always)]
    fn prefetch(self, chunk: &Chunk) {
        Lanes128::prefetch(self.0, chunk);
    }
    #[inline(always)]
    fn panel(self, rows: [[i32; 4]; REGISTERS]) -> S::I {
        let mut all = [0; 16];
        all.copy_from_slice(rows.as_flattened());
        Simd::load_i(self.0, &all)
    }
}

#[cfg(target_arch = "x86_64")]
super::lanes::product!(
    product,
    lanes = Narrow<crate::isa::Sse41>,
    registers = 4,
    Sse41 = |lanes| lanes.0,
    panels = 1,
    tokens = 4,
    tiles = [(1, 2, 1, true), (1, 2, 2, false), (1, 1, 3, false), (1, 1, 4, false)]
);
#[cfg(target_arch = "wasm32")]
super::lanes::product!(
    product,
    lanes = Narrow<crate::isa::Simd128>,
    registers = 4,
    Simd128 = |lanes| lanes.0,
    panels = 1,
    tokens = 2,
    tiles = [(1, 2, 1, false), (1, 1, 2, false)]
);
