//! Tables shared by tokens on NEON without the dot-product extension.

use std::arch::aarch64::*;

use super::TokenLanes;
use crate::isa::{Neon, proven};
use crate::simd;

impl TokenLanes for Neon {
    type Register = int16x8_t;
    type Memory = [i16; 8];
    type Narrow = [i8; 8];
    type Bytes = uint8x16_t;
    const LANES: usize = 8;
    // Counted, not measured: a tile takes three fifths of the instructions.
    const LAST_FROM: usize = 20;
    const ZERO: [i16; 8] = [0; 8];

    #[inline(always)]
    fn zero(self) -> int16x8_t {
        proven!(self, vdupq_n_s16(0))
    }
    #[inline(always)]
    fn load(self, from: &[i16; 8]) -> int16x8_t {
        simd::load(from)
    }
    #[inline(always)]
    fn store(self, v: int16x8_t, to: &mut [i16; 8]) {
        simd::store(v, to);
    }
    #[inline(always)]
    fn add(self, a: int16x8_t, b: int16x8_t) -> int16x8_t {
        proven!(self, vaddq_s16(a, b))
    }
    #[inline(always)]
    fn sub(self, a: int16x8_t, b: int16x8_t) -> int16x8_t {
        proven!(self, vsubq_s16(a, b))
    }
    #[inline(always)]
    fn widen(self, x: &[i8; 8]) -> int16x8_t {
        proven!(self, vmovl_s8(simd::load(x)))
    }

    #[inline(always)]
    fn load_bytes(self, from: &[u8; 16]) -> uint8x16_t {
        simd::load(from)
    }
    #[inline(always)]
    fn store_bytes(self, v: uint8x16_t, to: &mut [u8; 16]) {
        simd::store(v, to);
    }
    #[inline(always)]
    fn zip_bytes(self, a: uint8x16_t, b: uint8x16_t) -> [uint8x16_t; 2] {
        proven!(self, [vzip1q_u8(a, b), vzip2q_u8(a, b)])
    }
    #[inline(always)]
    fn zip_pairs(self, a: uint8x16_t, b: uint8x16_t) -> [uint8x16_t; 2] {
        proven!(self, {
            let (a, b) = (vreinterpretq_u16_u8(a), vreinterpretq_u16_u8(b));
            [vreinterpretq_u8_u16(vzip1q_u16(a, b)), vreinterpretq_u8_u16(vzip2q_u16(a, b))]
        })
    }
}
