//! The sixteen lanes of f32 that every operation uses, and their portable form.
//!
//! Each operation is written once, generic over [`Simd`], and compiled for every instruction set. Its result is the
//! same on all of them bit for bit, because each method here is defined exactly: one correctly rounded IEEE operation
//! per lane, and reductions over one fixed tree. Only the payload of a NaN result is undefined.

use half::{bf16, f16};

pub(crate) use crate::isa::Portable;

/// Lanes of a vector on every instruction set, for any register width.
pub(crate) const LANES: usize = 16;

/// Bytes of codes in one integer product.
pub(crate) const CHUNK: usize = 64;

/// An instruction set's operations on vectors of 16 f32 (`F`) and 16 i32 (`I`).
///
/// `self` is a proof token: its holder may run the instructions, so the methods are safe. Methods and the generic
/// functions built on them are `#[inline(always)]`, so that they become part of a function that is compiled for the
/// instruction set; closures are not, so vectors never pass through one.
pub(crate) trait Simd: Copy {
    /// 16 f32.
    type F: Copy;
    /// 16 i32.
    type I: Copy;
    /// Accumulators that fit the registers with the operands, a power of 2 from 2 to 16.
    const ACCUMULATORS: usize;

    fn splat(self, x: f32) -> Self::F;
    fn load(self, x: &[f32; LANES]) -> Self::F;
    fn load_f16(self, x: &[f16; LANES]) -> Self::F;
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::F;
    fn load_i8(self, x: &[i8; LANES]) -> Self::F;
    #[inline(always)]
    fn load_i16(self, x: &[i16; LANES]) -> Self::F {
        self.to_f(self.load_i(&x.map(i32::from)))
    }
    /// Sixteen numbers of four bits in two's complement: lane `2i` is nibble `i` of the first four bytes, the lower
    /// half of a byte before the upper one, lane `2i + 1` nibble `i` of the last four.
    #[inline(always)]
    fn load_i4(self, x: &[u8; LANES / 2]) -> Self::F {
        let mut lanes = [0i8; LANES];
        for (i, lane) in lanes.iter_mut().enumerate() {
            let byte = x[4 * (i % 2) + i / 4];
            *lane = if i / 2 % 2 == 0 { (byte << 4) as i8 >> 4 } else { byte as i8 >> 4 };
        }
        self.load_i8(&lanes)
    }
    fn store(self, v: Self::F, out: &mut [f32; LANES]);
    /// Rounds to nearest, ties to even; values above the largest f16 become infinite.
    fn store_f16(self, v: Self::F, out: &mut [f16; LANES]);
    /// Rounds to nearest, ties to even.
    #[inline(always)]
    fn store_bf16(self, v: Self::F, out: &mut [bf16; LANES]) {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        for (out, x) in out.iter_mut().zip(lanes) {
            *out = bf16::from_f32(x);
        }
    }

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `if a < b { a } else { b }`: if either is NaN, `b`.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `if a > b { a } else { b }`: if either is NaN, `b`.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;

    /// Lane `l` becomes lane `l ^ H`; `H` is 1, 2, 4 or 8.
    fn swap<const H: usize>(self, v: Self::F) -> Self::F;

    fn splat_i(self, x: i32) -> Self::I;
    fn load_i(self, x: &[i32; LANES]) -> Self::I;
    /// Wrapping addition.
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// Wrapping subtraction.
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a >> 1`, rounding down.
    fn halve_i(self, a: Self::I) -> Self::I;
    /// The low byte of each lane.
    fn store_i8(self, a: Self::I, out: &mut [i8; LANES]);

    /// Rounds to nearest, ties to even.
    fn to_f(self, a: Self::I) -> Self::F;
    /// Rounds to nearest, ties to even; undefined for NaN and beyond 2^22.
    fn to_i(self, v: Self::F) -> Self::I;
    /// The bits of `|v|`, whose order as integers is that of the absolute values, with infinity and then NaN last.
    fn abs_bits(self, v: Self::F) -> Self::I;
    /// `2^n` for `n` in -126..=127; undefined for others.
    fn exp2(self, n: Self::I) -> Self::F;

    /// Adds lane `l + 8` to lane `l`, then `l + 4`, `l + 2`, `l + 1`.
    fn sum(self, v: Self::F) -> f32;
    /// [`Simd::max`] in the order of [`Simd::sum`].
    fn max_lane(self, v: Self::F) -> f32;
    /// Lane `i` is [`Simd::sum`] of `v[i]`.
    fn sums(self, v: [Self::F; LANES]) -> Self::F;
    /// Lane `j` of vector `i` becomes lane `i` of vector `j`.
    #[inline(always)]
    fn transpose(self, v: [Self::F; LANES]) -> [Self::F; LANES] {
        let mut rows = [[0.0; LANES]; LANES];
        let mut out = v;
        for i in 0..LANES {
            self.store(v[i], &mut rows[i]);
        }
        for j in 0..LANES {
            let mut column = [0.0; LANES];
            for i in 0..LANES {
                column[i] = rows[i][j];
            }
            out[j] = self.load(&column);
        }
        out
    }
    /// Wrapping sum of all lanes.
    fn sum_i(self, a: Self::I) -> i32;
    /// Lane `i` is [`Simd::sum_i`] of `v[i]`.
    #[inline(always)]
    fn sums_i(self, v: [Self::I; LANES]) -> Self::I {
        let mut sums = [0; LANES];
        for i in 0..LANES {
            sums[i] = self.sum_i(v[i]);
        }
        self.load_i(&sums)
    }

    /// The offset that [`Simd::dot_i8`] adds to each of its second codes.
    const DOT_I8_BIAS: i32 = 0;
    /// Adds the products of 64 codes in -127..=127 with as many, the bytes of `k`, to lanes of `acc`, in any order:
    /// only their sum is defined.
    #[inline(always)]
    fn dot_i8(self, acc: Self::I, q: &[i8; CHUNK], k: &[u8; CHUNK]) -> Self::I {
        self.add_i(acc, self.load_i(&dot_i8(q, k)))
    }
    /// The offset that [`Simd::dot_i4`] adds to each nibble.
    const DOT_I4_BIAS: i32 = 0;
    /// Like [`Simd::dot_i8`], with the lower nibbles of `k` in two's complement, and with the upper ones.
    #[inline(always)]
    fn dot_i4(self, acc: Self::I, [low, high]: [&[i8; CHUNK]; 2], k: &[u8; CHUNK]) -> Self::I {
        let lower = k.map(|b| ((b << 4) as i8 >> 4) as u8);
        let upper = k.map(|b| (b as i8 >> 4) as u8);
        let acc = self.add_i(acc, self.load_i(&dot_i8(low, &lower)));
        self.add_i(acc, self.load_i(&dot_i8(high, &upper)))
    }
    /// The largest lane.
    fn max_lane_i(self, a: Self::I) -> i32;

    /// Whether [`Simd::dot4`] is one instruction.
    const DOTS: bool = false;
    /// Adds to each lane of `acc` the products of the four bytes of `a`, which are unsigned, with those of `b`, which are signed.
    #[inline(always)]
    fn dot4(self, acc: Self::I, a: Self::I, b: Self::I) -> Self::I {
        let (mut a, mut b, mut sums) = (a, b, [0i32; LANES]);
        for _ in 0..4 {
            let (mut x, mut y) = ([0; LANES], [0; LANES]);
            self.store_i8(a, &mut x);
            self.store_i8(b, &mut y);
            for l in 0..LANES {
                sums[l] += i32::from(x[l] as u8) * i32::from(y[l]);
            }
            for _ in 0..8 {
                (a, b) = (self.halve_i(a), self.halve_i(b));
            }
        }
        self.add_i(acc, self.load_i(&sums))
    }
    /// Byte `i` of lane `l` becomes code `l` of row `i`.
    #[inline(always)]
    fn interleave(self, a: &[i8; LANES], b: &[i8; LANES], c: &[i8; LANES], d: &[i8; LANES], out: &mut [i32; LANES]) {
        for l in 0..LANES {
            out[l] = i32::from_ne_bytes([a[l], b[l], c[l], d[l]].map(|x| x as u8));
        }
    }
    /// The lower and the second bytes of four vectors of numbers: byte `i` of lane `l` is that of lane `l` of `n[i]`.
    #[inline(always)]
    fn store_digits(self, n: [Self::I; 4], low: &mut [i32; LANES], high: &mut [i32; LANES]) {
        let mut bytes = [[[0i8; LANES]; 4]; 2];
        let [low_bytes, high_bytes] = &mut bytes;
        for ((mut n, lower), upper) in n.into_iter().zip(low_bytes).zip(high_bytes) {
            self.store_i8(n, lower);
            for _ in 0..8 {
                n = self.halve_i(n);
            }
            self.store_i8(n, upper);
        }
        for (out, [a, b, c, d]) in [low, high].into_iter().zip(&bytes) {
            self.interleave(a, b, c, d, out);
        }
    }
}

/// A number type from which vectors are loaded, exactly.
pub(crate) trait Element: Copy {
    const ZERO: Self;
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::F;
}

impl Element for f32 {
    const ZERO: f32 = 0.0;
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[f32; LANES]) -> S::F {
        s.load(x)
    }
}

impl Element for f16 {
    const ZERO: f16 = f16::ZERO;
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[f16; LANES]) -> S::F {
        s.load_f16(x)
    }
}

impl Element for bf16 {
    const ZERO: bf16 = bf16::ZERO;
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[bf16; LANES]) -> S::F {
        s.load_bf16(x)
    }
}

/// Up to 16 elements, padded with `rest`.
#[inline(always)]
pub(crate) fn pad<T: Copy>(x: &[T], rest: T) -> [T; LANES] {
    let mut padded = [rest; LANES];
    padded[..x.len()].copy_from_slice(x);
    padded
}

/// Products of codes, four in turn in each sum.
fn dot_i8(q: &[i8; CHUNK], k: &[u8; CHUNK]) -> [i32; LANES] {
    let mut sums = [0; LANES];
    for (sum, (q, k)) in sums.iter_mut().zip(q.as_chunks::<4>().0.iter().zip(k.as_chunks::<4>().0)) {
        *sum = q.iter().zip(k).map(|(&q, &k)| i32::from(q) * i32::from(k as i8)).sum();
    }
    sums
}

/// `out[l] = f(a[l], b[l])`
#[inline(always)]
fn zip<A: Copy, B: Copy, T: Copy + Default>(a: [A; LANES], b: [B; LANES], f: impl Fn(A, B) -> T) -> [T; LANES] {
    let mut out = [T::default(); LANES];
    for l in 0..LANES {
        out[l] = f(a[l], b[l]);
    }
    out
}

/// Combines lane `l + 8` with lane `l`, then `l + 4`, `l + 2`, `l + 1`.
#[inline(always)]
fn tree<T: Copy>(mut v: [T; LANES], f: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            v[l] = f(v[l], v[l + half]);
        }
        half /= 2;
    }
    v[0]
}

/// `a * b + c`, rounded once, on CPUs without such an instruction: several times faster than a call of the C library's
/// function, and vectorised by the compiler.
///
/// The product of two f32 is exact in f64. The sum is rounded to odd: if it is inexact and its last bit is 0, it moves
/// one step towards the exact value. With 53 bits, more than 24 + 1, rounding that to f32 gives the same result as
/// rounding the exact sum, even if the result is subnormal (S. Boldo and G. Melquiond, "Emulation of a FMA and
/// correctly rounded sums", IEEE Transactions on Computers 57, 2008).
#[inline(always)]
fn fma(a: f32, b: f32, c: f32) -> f32 {
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    // The rounding error, exactly (Knuth's TwoSum); NaN if the sum is not finite.
    let part = sum - product;
    let lost = (product - (sum - part)) + (c - part);
    let bits = sum.to_bits();
    // In the bits, up means away from zero.
    let step = if (lost > 0.0) == (sum > 0.0) { 1 } else { u64::MAX };
    let inexact = (lost > 0.0) | (lost < 0.0);
    let odd = if inexact & (bits & 1 == 0) { bits.wrapping_add(step) } else { bits };
    f64::from_bits(odd) as f32
}

/// Methods with many instructions stay calls, so that the generic functions do not become enormous.
impl Simd for Portable {
    type F = [f32; LANES];
    type I = [i32; LANES];
    const ACCUMULATORS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        *x
    }
    #[inline(never)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::F {
        x.map(f16::to_f32)
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::F {
        x.map(|x| f32::from_bits(u32::from(x.to_bits()) << 16))
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> Self::F {
        x.map(f32::from)
    }
    #[inline(never)]
    fn load_i4(self, x: &[u8; LANES / 2]) -> Self::F {
        let halves = [[x[0], x[1], x[2], x[3]], [x[4], x[5], x[6], x[7]]].map(u32::from_le_bytes);
        std::array::from_fn(|l| ((halves[l % 2] << (28 - 4 * (l / 2))) as i32 >> 28) as f32)
    }
    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32; LANES]) {
        *out = v;
    }
    #[inline(never)]
    fn store_f16(self, v: Self::F, out: &mut [f16; LANES]) {
        *out = v.map(f16::from_f32);
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a / b)
    }
    #[inline(never)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        let mut out = c;
        for l in 0..LANES {
            out[l] = fma(a[l], b[l], c[l]);
        }
        out
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn swap<const H: usize>(self, v: Self::F) -> Self::F {
        std::array::from_fn(|l| v[l ^ H])
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        [x; LANES]
    }
    #[inline(always)]
    fn load_i(self, x: &[i32; LANES]) -> Self::I {
        *x
    }
    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::max)
    }
    #[inline(always)]
    fn halve_i(self, a: Self::I) -> Self::I {
        a.map(|a| a >> 1)
    }
    #[inline(always)]
    fn store_i8(self, a: Self::I, out: &mut [i8; LANES]) {
        *out = a.map(|a| a as i8);
    }

    #[inline(always)]
    fn to_f(self, a: Self::I) -> Self::F {
        a.map(|a| a as f32)
    }
    #[inline(never)]
    fn to_i(self, v: Self::F) -> Self::I {
        // Here the unit in the last place of an f32 is 1.
        v.map(|v| (v + 12_582_912.0).to_bits().wrapping_sub(12_582_912f32.to_bits()) as i32)
    }
    #[inline(always)]
    fn abs_bits(self, v: Self::F) -> Self::I {
        v.map(|v| v.abs().to_bits() as i32)
    }
    #[inline(never)]
    fn exp2(self, n: Self::I) -> Self::F {
        n.map(|n| f32::from_bits((n.wrapping_add(127) as u32) << 23))
    }

    #[inline(never)]
    fn sum(self, v: Self::F) -> f32 {
        tree(v, |a, b| a + b)
    }
    #[inline(never)]
    fn max_lane(self, v: Self::F) -> f32 {
        tree(v, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn sums(self, v: [Self::F; LANES]) -> Self::F {
        v.map(|v| self.sum(v))
    }
    #[inline(always)]
    fn sum_i(self, a: Self::I) -> i32 {
        tree(a, i32::wrapping_add)
    }
    #[inline(always)]
    fn max_lane_i(self, a: Self::I) -> i32 {
        tree(a, i32::max)
    }
}

#[cfg(test)]
mod tests {
    use super::fma;

    /// Compares bits; all NaNs are equal.
    fn check(a: f32, b: f32, c: f32) {
        let (got, want) = (fma(a, b, c), a.mul_add(b, c));
        assert!(
            got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
            "{a:e} * {b:e} + {c:e}: {got:e}, not {want:e}"
        );
    }

    /// `mul_add` is the CPU's instruction if it has one, otherwise the C library's function.
    #[test]
    fn portable_fused_products_are_rounded_once() {
        let mut state = 1u64;
        let mut bits = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        for _ in 0..1_000_000 {
            let (a, b, c) = (bits(), bits(), bits());
            check(f32::from_bits(a), f32::from_bits(b), f32::from_bits(c));
            // Exponents close to each other.
            let near = |x: u32, e: u32| f32::from_bits(x & 0x807f_ffff | (127 + e % 3) << 23);
            check(near(a, c), near(b, a), near(c, b));
            // The product is half a unit in the last place of `base`, plus or minus so little that f64 loses it:
            // rounding twice fails in one of the two cases.
            let (x, base) = (2f32.powi(-8 - (a % 4) as i32), f32::from_bits(c & 0x807f_ffff | 127 << 23));
            let half = if b & 1 == 0 { f32::EPSILON / 2.0 } else { -f32::EPSILON / 2.0 };
            check(half * (1.0 + x), 1.0 - x + x * x, base);
            check(half * (1.0 + x), 1.0 - x, base);
            check(half * (1.0 + f32::EPSILON), 1.0 - f32::EPSILON, base);
            // Subnormal results.
            check(near(a, b) * 1e-20, near(b, c) * 1e-19, near(c, a) * 2f32.powi(-127 - (b % 20) as i32));
        }
    }

    #[test]
    fn fused_products_of_special_numbers() {
        let special = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            f32::MAX,
            f32::MIN,
            1e-45,
            -1e-45,
            f32::MIN_POSITIVE,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
        ];
        for a in special {
            for b in special {
                for c in special {
                    check(a, b, c);
                }
            }
        }
        // Just below, at and just above the middle between two floats, which a single rounding distinguishes.
        let ulp = f32::EPSILON;
        check(ulp / 2.0, 1.0, 1.0);
        check(ulp / 2.0, 1.0 + ulp, 1.0);
        check(ulp / 2.0, 1.0 - ulp, 1.0);
        check(ulp / 2.0, 1.0 - ulp, 1.0 + ulp);
        check(1.0 + ulp, 1.0 + ulp, -1.0);
        check(ulp / 2.0 * (1.0 + ulp), 1.0 - ulp, 1.0 + ulp);
    }
}
