//! I2_S for WebAssembly with SIMD: the algorithm of [`super::lanes128`].

use std::arch::wasm32::*;

use super::lanes128::{self, Lanes128};
use super::{Acts, Chunk, PANEL_ROWS, Product, Tile};
use crate::isa::Simd128;
use crate::simd;
use crate::simd::sums::{self, Sums};

impl Lanes128 for Simd128 {
    type B = v128;
    type H = v128;
    type P = Sums;
    type W = Sums;
    const COLUMNS: usize = if cfg!(target_feature = "relaxed-simd") { 2 } else { 1 };

    #[inline(always)]
    fn load(self, x: &[u8; 16]) -> v128 {
        simd::load(x)
    }
    #[inline(always)]
    fn store(self, v: v128, out: &mut [u8; 16]) {
        simd::store(v, out);
    }
    #[inline(always)]
    fn splat(self, x: u8) -> v128 {
        u8x16_splat(x)
    }
    #[inline(always)]
    fn splat4(self, x: [u8; 4]) -> v128 {
        u32x4_splat(u32::from_le_bytes(x))
    }
    #[inline(always)]
    fn and(self, a: v128, b: v128) -> v128 {
        v128_and(a, b)
    }
    #[inline(always)]
    fn or(self, a: v128, b: v128) -> v128 {
        v128_or(a, b)
    }
    #[inline(always)]
    fn xor(self, a: v128, b: v128) -> v128 {
        v128_xor(a, b)
    }
    #[inline(always)]
    fn sub(self, a: v128, b: v128) -> v128 {
        u8x16_sub(a, b)
    }
    // Shifts of bytes take five instructions on x86-64, which has none; those of 16 bits and a mask take two, and the mask
    // falls together with that of the field.
    #[inline(always)]
    fn shr2(self, a: v128) -> v128 {
        v128_and(u16x8_shr(a, 2), u8x16_splat(0x3f))
    }
    #[inline(always)]
    fn shr4(self, a: v128) -> v128 {
        v128_and(u16x8_shr(a, 4), u8x16_splat(0x0f))
    }
    #[inline(always)]
    fn shr6(self, a: v128) -> v128 {
        v128_and(u16x8_shr(a, 6), u8x16_splat(0x03))
    }
    #[inline(always)]
    fn shl2(self, a: v128) -> v128 {
        v128_and(u16x8_shl(a, 2), u8x16_splat(0xfc))
    }
    #[inline(always)]
    fn lookup(self, [a, b, c, d]: [v128; 4], index: v128) -> v128 {
        // `swizzle` yields 0 for an index above 15, so each part of the table contributes only its own entries.
        let low = v128_or(u8x16_swizzle(a, index), u8x16_swizzle(b, u8x16_sub(index, u8x16_splat(16))));
        let high = v128_or(
            u8x16_swizzle(c, u8x16_sub(index, u8x16_splat(32))),
            u8x16_swizzle(d, u8x16_sub(index, u8x16_splat(48))),
        );
        v128_or(low, high)
    }

    #[inline(always)]
    fn lookup16(self, table: v128, index: v128) -> v128 {
        u8x16_swizzle(table, index)
    }
    #[inline(always)]
    fn add(self, a: v128, b: v128) -> v128 {
        u8x16_add(a, b)
    }
    #[inline(always)]
    fn negative(self, v: v128) -> v128 {
        i8x16_shr(v, 7)
    }

    #[inline(always)]
    fn store_h(self, v: v128, out: &mut [i16; 8]) {
        simd::store(v, out);
    }
    #[inline(always)]
    fn zero_h(self) -> v128 {
        i16x8_splat(0)
    }
    #[inline(always)]
    fn add_digits(self, sums: [v128; 2], low: v128, high: v128, base: u8) -> [v128; 2] {
        let base = self.splat(base);
        let digits = [
            i16x8_add(i16x8_extend_low_i8x16(low), i16x8_extmul_low_i8x16(high, base)),
            i16x8_add(i16x8_extend_high_i8x16(low), i16x8_extmul_high_i8x16(high, base)),
        ];
        [i16x8_add(sums[0], digits[0]), i16x8_add(sums[1], digits[1])]
    }

    #[inline(always)]
    fn zero_p(self) -> Sums {
        sums::zero()
    }
    #[inline(always)]
    fn zero_w(self) -> Sums {
        sums::zero()
    }
    #[inline(always)]
    fn mul_add(self, sums: Sums, codes: v128, x: v128) -> Sums {
        sums::mul_add(sums, codes, x)
    }
    #[inline(always)]
    fn widen(self, wide: Sums, narrow: Sums) -> Sums {
        sums::widen(wide, narrow)
    }
    #[inline(always)]
    fn rows(self, wide: Sums) -> [i32; 4] {
        let sums = sums::rows(wide);
        [
            i32x4_extract_lane::<0>(sums),
            i32x4_extract_lane::<1>(sums),
            i32x4_extract_lane::<2>(sums),
            i32x4_extract_lane::<3>(sums),
        ]
    }
}

lanes128::backend!(Simd128);
