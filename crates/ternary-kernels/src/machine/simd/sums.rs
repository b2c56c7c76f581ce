//! Sums of products of bytes on WebAssembly SIMD, four rows each: in 16 bits first, a lane for each row and one or two
//! columns, then in 32.

#[cfg(not(target_feature = "relaxed-simd"))]
pub(crate) use plain::*;
#[cfg(target_feature = "relaxed-simd")]
pub(crate) use relaxed::*;

/// Products of bytes are 16 bits wide, and those of four rows take two registers.
#[cfg(not(target_feature = "relaxed-simd"))]
mod plain {
    use std::arch::wasm32::*;

    pub(crate) type Sums = [v128; 2];

    #[inline(always)]
    pub(crate) fn zero() -> Sums {
        [i32x4_splat(0); 2]
    }
    #[inline(always)]
    pub(crate) fn mul_add(sums: Sums, codes: v128, x: v128) -> Sums {
        [i16x8_add(sums[0], i16x8_extmul_low_i8x16(codes, x)), i16x8_add(sums[1], i16x8_extmul_high_i8x16(codes, x))]
    }
    #[inline(always)]
    pub(crate) fn widen([a, b]: Sums, narrow: Sums) -> Sums {
        [i32x4_add(a, i32x4_extadd_pairwise_i16x8(narrow[0])), i32x4_add(b, i32x4_extadd_pairwise_i16x8(narrow[1]))]
    }
    #[inline(always)]
    pub(crate) fn rows([a, b]: Sums) -> v128 {
        i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b))
    }
}

/// Two products are added by one instruction, whose result hosts agree on where the codes are below 128 and the sum
/// fits 16 bits: both hold here.
#[cfg(target_feature = "relaxed-simd")]
mod relaxed {
    use std::arch::wasm32::*;

    pub(crate) type Sums = v128;

    #[inline(always)]
    pub(crate) fn zero() -> Sums {
        i32x4_splat(0)
    }
    #[inline(always)]
    pub(crate) fn mul_add(sums: Sums, codes: v128, x: v128) -> Sums {
        i16x8_add(sums, i16x8_relaxed_dot_i8x16_i7x16(x, codes))
    }
    #[inline(always)]
    pub(crate) fn widen(wide: Sums, narrow: Sums) -> Sums {
        i32x4_add(wide, i32x4_extadd_pairwise_i16x8(narrow))
    }
    #[inline(always)]
    pub(crate) fn rows(wide: Sums) -> v128 {
        wide
    }
}
