//! 64-bit ARM: NEON alone ([`super::lanes128`]), and with the dot-product extension, whose `sdot` multiplies 4 rows by
//! 4 columns.
//!
//! The matrix-multiplication extension has no kernel here: its `smmla` takes tokens in pairs, which could be the two
//! digits.

use std::arch::aarch64::*;

use super::lanes::{Lanes, array_rows, product};
use super::lanes128::Narrow;
use super::{Chunk, MAX_GROUP_CHUNKS};
use crate::i2s::Acts;
use crate::i2s::neon::{load, sdot, to_array};
use crate::isa::{Neon, NeonDot, proven};
use crate::ops::lanes::Simd;

product!(
    product,
    lanes = Narrow<Neon>,
    registers = 4,
    Neon = |lanes| lanes.0,
    panels = 1,
    tokens = 4,
    tiles = [(1, 2, 1, false), (1, 1, 2, false), (1, 1, 3, false), (1, 1, 4, false)]
);

impl Lanes<4> for NeonDot {
    type Float = Neon;
    type B = int8x16_t;
    type A = int32x4_t;
    // Sums of 32 bits hold a group of any length.
    const FLUSH: usize = MAX_GROUP_CHUNKS;
    const FLUSH_QUADRUPLE: usize = MAX_GROUP_CHUNKS;
    array_rows!(4);

    #[inline(always)]
    fn float(self) -> Neon {
        self.neon()
    }
    #[inline(always)]
    fn load(self, chunk: &Chunk, r: usize) -> int8x16_t {
        load(&chunk.as_chunks().0[r])
    }
    #[inline(always)]
    fn field<const J: i32>(self, v: int8x16_t) -> int8x16_t {
        proven!(self, {
            let (v, three) = (vreinterpretq_u8_s8(v), vdupq_n_u8(3));
            vreinterpretq_s8_u8(match J {
                0 => vandq_u8(v, three),
                1 => vandq_u8(vshrq_n_u8::<2>(v), three),
                2 => vandq_u8(vshrq_n_u8::<4>(v), three),
                _ => vshrq_n_u8::<6>(v),
            })
        })
    }
    #[inline(always)]
    fn quadruples(self, v: int8x16_t) -> [int8x16_t; 4] {
        proven!(self, {
            let (v, low, high) = (vreinterpretq_u8_s8(v), vdupq_n_u8(0x03), vdupq_n_u8(0x0c));
            let u = vshrq_n_u8::<4>(v);
            [
                vreinterpretq_s8_u8(vandq_u8(v, low)),
                vreinterpretq_s8_u8(vandq_u8(v, high)),
                vreinterpretq_s8_u8(vandq_u8(u, low)),
                vreinterpretq_s8_u8(vandq_u8(u, high)),
            ]
        })
    }
    #[inline(always)]
    fn zero(self) -> int32x4_t {
        proven!(self, vdupq_n_s32(0))
    }
    #[inline(always)]
    fn dot<const J: i32>(self, sum: int32x4_t, codes: int8x16_t, x: &Acts) -> int32x4_t {
        // One load for all fields: compilers see that the loads are equal.
        proven!(self, sdot::<J>(sum, codes, load(x)))
    }
    #[inline(always)]
    fn rows(self, sum: int32x4_t) -> [i32; 4] {
        to_array(sum)
    }
    #[inline(always)]
    fn panel(self, rows: [[i32; 4]; 4]) -> <Neon as Simd>::I {
        let mut all = [0; 16];
        all.copy_from_slice(rows.as_flattened());
        Simd::load_i(self.neon(), &all)
    }
}

product!(
    product_dot,
    lanes = NeonDot,
    registers = 4,
    NeonDot = |lanes| lanes,
    panels = 1,
    tokens = 4,
    tiles = [(1, 4, 1, true), (1, 4, 2, false), (1, 2, 3, false), (1, 2, 4, false)]
);
