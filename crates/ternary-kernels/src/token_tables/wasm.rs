//! Tables shared by tokens on WebAssembly SIMD.

use std::arch::wasm32::*;

use super::TokenLanes;
use crate::isa::Simd128;
use crate::simd;

impl TokenLanes for Simd128 {
    type Register = v128;
    type Memory = [i16; 8];
    type Narrow = [i8; 8];
    type Bytes = v128;
    const LANES: usize = 8;
    // Counted, not measured: a tile takes three fifths of the instructions.
    const LAST_FROM: usize = 20;
    const ZERO: [i16; 8] = [0; 8];

    #[inline(always)]
    fn zero(self) -> v128 {
        i16x8_splat(0)
    }
    #[inline(always)]
    fn load(self, from: &[i16; 8]) -> v128 {
        simd::load(from)
    }
    #[inline(always)]
    fn store(self, v: v128, to: &mut [i16; 8]) {
        simd::store(v, to);
    }
    #[inline(always)]
    fn add(self, a: v128, b: v128) -> v128 {
        i16x8_add(a, b)
    }
    #[inline(always)]
    fn sub(self, a: v128, b: v128) -> v128 {
        i16x8_sub(a, b)
    }
    #[inline(always)]
    fn widen(self, x: &[i8; 8]) -> v128 {
        i16x8_extend_low_i8x16(i64x2_splat(i64::from_le_bytes(x.map(|x| x as u8))))
    }

    #[inline(always)]
    fn load_bytes(self, from: &[u8; 16]) -> v128 {
        simd::load(from)
    }
    #[inline(always)]
    fn store_bytes(self, v: v128, to: &mut [u8; 16]) {
        simd::store(v, to);
    }
    #[inline(always)]
    fn zip_bytes(self, a: v128, b: v128) -> [v128; 2] {
        [
            i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(a, b),
            i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(a, b),
        ]
    }
    #[inline(always)]
    fn zip_pairs(self, a: v128, b: v128) -> [v128; 2] {
        [i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(a, b), i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(a, b)]
    }
}
