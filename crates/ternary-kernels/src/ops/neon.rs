//! Sixteen lanes on 64-bit ARM: four NEON registers.

use std::arch::aarch64::*;
use std::arch::asm;

use half::{bf16, f16};

use super::lanes::{CHUNK, LANES, Simd};
use crate::isa::{Neon, proven};
use crate::simd::{self, Bits};

/// An intrinsic on each of the four registers.
macro_rules! each {
    ($self:ident, $f:expr, $a:expr) => {
        proven!($self, [$f($a[0]), $f($a[1]), $f($a[2]), $f($a[3])])
    };
    ($self:ident, $f:expr, $a:expr, $b:expr) => {
        proven!($self, [$f($a[0], $b[0]), $f($a[1], $b[1]), $f($a[2], $b[2]), $f($a[3], $b[3])])
    };
}

impl Simd for Neon {
    /// Lanes 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
    type F = [float32x4_t; 4];
    type I = [int32x4_t; 4];
    const ACCUMULATORS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        proven!(self, [vdupq_n_f32(x); 4])
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        quarters(bytemuck::cast_ref::<_, [[f32; 4]; 4]>(x))
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::F {
        let x: [uint16x4_t; 4] = quarters(bytemuck::cast_ref::<_, [[f16; 4]; 4]>(x));
        [widen_f16(x[0]), widen_f16(x[1]), widen_f16(x[2]), widen_f16(x[3])]
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::F {
        let x: [uint16x4_t; 4] = quarters(bytemuck::cast_ref::<_, [[bf16; 4]; 4]>(x));
        each!(self, |x| vreinterpretq_f32_u32(vshll_n_u16::<16>(x)), x)
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> Self::F {
        let x = simd::load(x);
        proven!(self, {
            let (a, b) = (vmovl_s8(vget_low_s8(x)), vmovl_high_s8(x));
            let (a, b) =
                ([vmovl_s16(vget_low_s16(a)), vmovl_high_s16(a)], [vmovl_s16(vget_low_s16(b)), vmovl_high_s16(b)]);
            [vcvtq_f32_s32(a[0]), vcvtq_f32_s32(a[1]), vcvtq_f32_s32(b[0]), vcvtq_f32_s32(b[1])]
        })
    }
    #[inline(always)]
    fn load_i4(self, x: &[u8; LANES / 2]) -> Self::F {
        /// Shifts that move a nibble to the top, four lanes at a time.
        const SHIFTS: [[i32; 4]; 4] = [[28, 28, 24, 24], [20, 20, 16, 16], [12, 12, 8, 8], [4, 4, 0, 0]];
        let both = i64::from_le_bytes(*x);
        let shifts: [int32x4_t; 4] = quarters(&SHIFTS);
        let both = proven!(self, vreinterpretq_s32_s64(vdupq_n_s64(both)));
        each!(self, |s| vcvtq_f32_s32(vshrq_n_s32::<28>(vshlq_s32(both, s))), shifts)
    }
    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32; LANES]) {
        for (v, out) in v.into_iter().zip(out.as_chunks_mut::<4>().0) {
            simd::store(v, out);
        }
    }
    #[inline(always)]
    fn store_f16(self, v: Self::F, out: &mut [f16; LANES]) {
        for (v, out) in v.into_iter().zip(out.as_chunks_mut::<4>().0) {
            simd::store(narrow_f16(v), out);
        }
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        each!(self, vaddq_f32, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        each!(self, vsubq_f32, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        each!(self, vmulq_f32, a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        each!(self, vdivq_f32, a, b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        proven!(
            self,
            [
                vfmaq_f32(c[0], a[0], b[0]),
                vfmaq_f32(c[1], a[1], b[1]),
                vfmaq_f32(c[2], a[2], b[2]),
                vfmaq_f32(c[3], a[3], b[3]),
            ]
        )
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        // The instruction for minima treats NaN and zeros differently.
        each!(self, |a, b| vbslq_f32(vcltq_f32(a, b), a, b), a, b)
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        each!(self, |a, b| vbslq_f32(vcgtq_f32(a, b), a, b), a, b)
    }
    #[inline(always)]
    fn swap<const H: usize>(self, v: Self::F) -> Self::F {
        match H {
            1 => each!(self, |v| vrev64q_f32(v), v),
            2 => each!(self, |v| vextq_f32::<2>(v, v), v),
            4 => [v[1], v[0], v[3], v[2]],
            _ => [v[2], v[3], v[0], v[1]],
        }
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        proven!(self, [vdupq_n_s32(x); 4])
    }
    #[inline(always)]
    fn load_i(self, x: &[i32; LANES]) -> Self::I {
        quarters(bytemuck::cast_ref::<_, [[i32; 4]; 4]>(x))
    }
    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        each!(self, vaddq_s32, a, b)
    }
    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        each!(self, vsubq_s32, a, b)
    }
    #[inline(always)]
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I {
        each!(self, vmaxq_s32, a, b)
    }
    #[inline(always)]
    fn halve_i(self, a: Self::I) -> Self::I {
        each!(self, vshrq_n_s32::<1>, a)
    }
    #[inline(always)]
    fn store_i8(self, a: Self::I, out: &mut [i8; LANES]) {
        // Narrowing moves keep the low half of each lane.
        let bytes = proven!(self, {
            let low = vcombine_s16(vmovn_s32(a[0]), vmovn_s32(a[1]));
            let high = vcombine_s16(vmovn_s32(a[2]), vmovn_s32(a[3]));
            vcombine_s8(vmovn_s16(low), vmovn_s16(high))
        });
        simd::store(bytes, out);
    }

    #[inline(always)]
    fn to_f(self, a: Self::I) -> Self::F {
        each!(self, vcvtq_f32_s32, a)
    }
    #[inline(always)]
    fn to_i(self, v: Self::F) -> Self::I {
        each!(self, vcvtnq_s32_f32, v)
    }
    #[inline(always)]
    fn abs_bits(self, v: Self::F) -> Self::I {
        each!(self, |v| vreinterpretq_s32_f32(vabsq_f32(v)), v)
    }
    #[inline(always)]
    fn exp2(self, n: Self::I) -> Self::F {
        let bias = proven!(self, [vdupq_n_s32(127); 4]);
        each!(self, |n, bias| vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, bias))), n, bias)
    }

    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        proven!(self, {
            let four = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        })
    }
    #[inline(always)]
    fn max_lane(self, v: Self::F) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        let mut half = LANES / 2;
        while half > 0 {
            for l in 0..half {
                lanes[l] = if lanes[l] > lanes[l + half] { lanes[l] } else { lanes[l + half] };
            }
            half /= 2;
        }
        lanes[0]
    }
    #[inline(always)]
    fn sums(self, v: [Self::F; LANES]) -> Self::F {
        let mut out = self.splat(0.0);
        for (out, v) in out.iter_mut().zip(v.as_chunks::<4>().0) {
            let two = each!(
                self,
                |v: Self::F| {
                    let four = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
                    vadd_f32(vget_low_f32(four), vget_high_f32(four))
                },
                v
            );
            *out = proven!(self, vcombine_f32(vpadd_f32(two[0], two[1]), vpadd_f32(two[2], two[3])));
        }
        out
    }
    #[inline(always)]
    fn sum_i(self, a: Self::I) -> i32 {
        proven!(self, vaddvq_s32(vaddq_s32(vaddq_s32(a[0], a[1]), vaddq_s32(a[2], a[3]))))
    }
    #[inline(always)]
    fn max_lane_i(self, a: Self::I) -> i32 {
        proven!(self, vmaxvq_s32(vmaxq_s32(vmaxq_s32(a[0], a[1]), vmaxq_s32(a[2], a[3]))))
    }
    #[inline(always)]
    fn dot_i8(self, acc: Self::I, q: &[i8; CHUNK], k: &[u8; CHUNK]) -> Self::I {
        let mut acc = acc;
        let (q, k): ([int8x16_t; 4], [int8x16_t; 4]) = (sixteens(bytemuck::cast_ref(q)), sixteens(k));
        for (acc, (q, k)) in acc.iter_mut().zip(q.into_iter().zip(k)) {
            // Two products of at most 127 * 127 fit 16 bits.
            *acc = proven!(self, {
                let two = vmlal_high_s8(vmull_s8(vget_low_s8(q), vget_low_s8(k)), q, k);
                vpadalq_s16(*acc, two)
            });
        }
        acc
    }
    #[inline(always)]
    fn dot_i4(self, acc: Self::I, [low, high]: [&[i8; CHUNK]; 2], k: &[u8; CHUNK]) -> Self::I {
        let mut acc = acc;
        let (low, high) = (sixteens(bytemuck::cast_ref(low)), sixteens(bytemuck::cast_ref(high)));
        for (acc, ((low, high), k)) in acc.iter_mut().zip(low.into_iter().zip(high).zip(sixteens(k))) {
            // Four products of at most 8 * 127 fit 16 bits.
            *acc = proven!(self, {
                let (lower, upper) = (vshrq_n_s8::<4>(vshlq_n_s8::<4>(k)), vshrq_n_s8::<4>(k));
                let sum = vmlal_high_s8(vmull_s8(vget_low_s8(low), vget_low_s8(lower)), low, lower);
                let sum = vmlal_high_s8(vmlal_s8(sum, vget_low_s8(high), vget_low_s8(upper)), high, upper);
                vpadalq_s16(*acc, sum)
            });
        }
        acc
    }
}

/// Four registers.
#[inline(always)]
fn quarters<A: Bits, R: Bits>(x: &[A; 4]) -> [R; 4] {
    [simd::load(&x[0]), simd::load(&x[1]), simd::load(&x[2]), simd::load(&x[3])]
}

#[inline(always)]
fn sixteens(x: &[u8; CHUNK]) -> [int8x16_t; 4] {
    quarters(bytemuck::cast_ref::<_, [[u8; CHUNK / 4]; 4]>(x))
}

/// Exact. Written as assembly, because the intrinsic is not stable yet.
#[inline(always)]
fn widen_f16(x: uint16x4_t) -> float32x4_t {
    let out;
    // SAFETY: the instruction, which every CPU of the architecture has, only reads and writes its registers.
    unsafe {
        asm!("fcvtl {out:v}.4s, {x:v}.4h", out = out(vreg) out, x = in(vreg) x, options(pure, nomem, nostack));
    }
    out
}

/// Rounds to nearest, ties to even.
#[inline(always)]
fn narrow_f16(x: float32x4_t) -> uint16x4_t {
    let out;
    // SAFETY: as in `widen_f16`.
    unsafe {
        asm!("fcvtn {out:v}.4h, {x:v}.4s", out = out(vreg) out, x = in(vreg) x, options(pure, nomem, nostack));
    }
    out
}
