//! Integer sums of the rows of a panel with vector instructions of x86-64.
//!
//! Codes are at most 63 and digits at least -128, so that a product of two neighbours, at most `2 * 63 * 128 = 16128`,
//! fits the 16 bits of `vpmaddubsw` without saturation, and so does a sum of two of them: only then are they widened.
//! `vpdpbusd` adds four products to 32 bits at once.
//!
//! Unpacking costs five shifts, four ands and four selections for the 256 codes of a unit, and each row of activations
//! eight multiplications. Memory delivers a unit in about twenty cycles, so for a few rows of activations the sums cost
//! nothing on top of reading.

use std::arch::x86_64::*;

use super::dot::Sums;
use super::input::Digits;
use super::{CoarseBatch, UNIT, Unit};
use crate::isa::compiled;
use crate::simd;

/// Prefetches the unit one page further on in the stream.
///
/// Prefetching every line pays off here, unlike for the ternary kernels, because there is more computation between two
/// lines: from memory, 2 rows of activations took 11.8 ms instead of 18.9 with one line for each page, and 8 rows 24.7
/// instead of 33.9 (128256 x 2560 on a Zen 4 server, one thread; one row 9.9 instead of 11.5). Distances from 2 to 8
/// KiB make no difference.
#[inline(always)]
pub(super) fn prefetch_ahead(unit: &Unit) {
    const PREFETCH_BYTES: usize = 4096;
    for line in 0..UNIT / 64 {
        simd::prefetch(unit.as_ptr().wrapping_add(PREFETCH_BYTES + 64 * line));
    }
}

/// Four digits in every lane: those of the columns from `4 j` on.
#[inline(always)]
pub(super) fn word(digits: &Digits, j: usize) -> i32 {
    i32::from_le_bytes([digits[4 * j], digits[4 * j + 1], digits[4 * j + 2], digits[4 * j + 3]])
}

/// Calls `tile` with tiles of 8, 4, 2 and 1 rows of activations, as many of the larger ones as fit, up to `$max`.
macro_rules! tiles {
    ($x:ident, $out:ident, $max:literal, |$N:ident, $xs:ident, $tile:ident| $body:expr) => {{
        let mut t = 0;
        while t < $out.len() {
            let left = $out.len() - t;
            macro_rules! step {
                ($n:literal) => {{
                    const $N: usize = $n;
                    let $xs: [&[Digits]; $n] = std::array::from_fn(|i| $x.digits(t + i));
                    let $tile: &mut [Sums] = &mut $out[t..t + $n];
                    $body;
                    t += $n;
                }};
            }
            match left {
                8.. if $max >= 8 => step!(8),
                4.. if $max >= 4 => step!(4),
                2.. => step!(2),
                _ => step!(1),
            }
        }
    }};
}

pub(super) mod avx512 {
    use super::*;
    use crate::isa::Avx512Vnni;

    /// Adds the sums of `panel` for every row of `x`.
    pub(in super::super) fn dots(cpu: Avx512Vnni, panel: &[Unit], x: &CoarseBatch, out: &mut [Sums]) {
        compiled!(Avx512Vnni, cpu => |_cpu, panel: &[Unit], x: &CoarseBatch, out: &mut [Sums]| {
            tiles!(x, out, 8, |N, xs, out| {
                // Few accumulators would wait for each other.
                if N <= 2 { tile::<N, 4>(panel, xs, out) } else { tile::<N, 1>(panel, xs, out) }
            });
        });
    }

    /// `N` rows of activations, each with `T` accumulators in turn for each digit.
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    fn tile<const N: usize, const T: usize>(panel: &[Unit], x: [&[Digits]; N], out: &mut [Sums]) {
        let x = x.map(|x| &x[..panel.len()]);
        let mut sums = [[[_mm512_setzero_si512(); 2]; N]; T];
        for (i, unit) in panel.iter().enumerate() {
            prefetch_ahead(unit);
            let codes = codes(unit);
            for j in 0..4 {
                for n in 0..N {
                    let s = &mut sums[j % T][n];
                    s[0] = _mm512_dpbusd_epi32(s[0], codes[j], _mm512_set1_epi32(word(&x[n][i], j)));
                    s[1] = _mm512_dpbusd_epi32(s[1], codes[j], _mm512_set1_epi32(word(&x[n][i], 4 + j)));
                }
            }
        }
        for (n, out) in out.iter_mut().enumerate() {
            let [mut high, mut low] = sums[0][n];
            for s in &sums[1..] {
                high = _mm512_add_epi32(high, s[n][0]);
                low = _mm512_add_epi32(low, s[n][1]);
            }
            *out = Sums { high: simd::load(&high), low: simd::load(&low) };
        }
    }

    /// The codes of a unit, four columns each.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    fn codes(unit: &Unit) -> [__m512i; 4] {
        let (lines, _) = unit.as_chunks::<64>();
        let (a, b, c) = (simd::load(&lines[0]), simd::load(&lines[1]), simd::load(&lines[2]));
        let (nibble, six) = (_mm512_set1_epi8(0x0f), _mm512_set1_epi8(0x3f));
        // Bits 0 to 3 of the first, 4 and 5 of the second; shifts of 16-bit lanes move bits across bytes only where
        // they are masked. 0xca is `if mask { low } else { high }`.
        let join = |low, high| _mm512_and_si512(_mm512_ternarylogic_epi32::<0xca>(nibble, low, high), six);
        [
            join(a, _mm512_slli_epi16::<4>(c)),
            join(_mm512_srli_epi16::<4>(a), _mm512_slli_epi16::<2>(c)),
            join(b, c),
            join(_mm512_srli_epi16::<4>(b), _mm512_srli_epi16::<2>(c)),
        ]
    }
}

/// The body for 256-bit registers, generic over the instruction that multiplies and adds.
macro_rules! body256 {
    ($token:ident, features = $features:literal, dot = $dot:ident, one = $one:ident) => {
        /// Adds the sums of `panel` for every row of `x`.
        pub(in super::super) fn dots(cpu: $token, panel: &[Unit], x: &CoarseBatch, out: &mut [Sums]) {
            compiled!($token, cpu => |_cpu, panel: &[Unit], x: &CoarseBatch, out: &mut [Sums]| {
                tiles!(x, out, 2, |N, xs, out| {
                    match (&xs[..], &mut out[..]) {
                        ([x], [out]) => $one(panel, x, out),
                        (_, out) => tile::<N, 1>(panel, xs, out),
                    }
                });
            });
        }

        /// `N` rows of activations, each with `T` accumulators in turn for each digit and half of the rows.
        #[target_feature(enable = $features)]
        fn tile<const N: usize, const T: usize>(panel: &[Unit], x: [&[Digits]; N], out: &mut [Sums]) {
            let x = x.map(|x| &x[..panel.len()]);
            let mut sums = [[[[_mm256_setzero_si256(); 2]; 2]; N]; T];
            for (i, unit) in panel.iter().enumerate() {
                prefetch_ahead(unit);
                for half in 0..2 {
                    let codes = codes(unit, half);
                    let (pairs, _) = codes.as_chunks::<2>();
                    for (j, pair) in pairs.iter().enumerate() {
                        for n in 0..N {
                            let s = &mut sums[j % T][n][half];
                            let digits = |at| [at, at + 1].map(|j| _mm256_set1_epi32(word(&x[n][i], j)));
                            s[0] = $dot(s[0], *pair, digits(2 * j));
                            s[1] = $dot(s[1], *pair, digits(4 + 2 * j));
                        }
                    }
                }
            }
            for (n, out) in out.iter_mut().enumerate() {
                for half in 0..2 {
                    let [mut high, mut low] = sums[0][n][half];
                    for s in &sums[1..] {
                        high = _mm256_add_epi32(high, s[n][half][0]);
                        low = _mm256_add_epi32(low, s[n][half][1]);
                    }
                    simd::store(high, &mut out.high.as_chunks_mut::<8>().0[half]);
                    simd::store(low, &mut out.low.as_chunks_mut::<8>().0[half]);
                }
            }
        }

        /// The codes of rows 0 to 7 or 8 to 15 of a unit, four columns each.
        #[inline]
        #[target_feature(enable = $features)]
        fn codes(unit: &Unit, half: usize) -> [__m256i; 4] {
            let (halves, _) = unit.as_chunks::<32>();
            let (a, b, c) =
                (simd::load(&halves[half]), simd::load(&halves[2 + half]), simd::load(&halves[4 + half]));
            let (nibble, two) = (_mm256_set1_epi8(0x0f), _mm256_set1_epi8(0x30));
            let join = |low, high| _mm256_or_si256(_mm256_and_si256(low, nibble), _mm256_and_si256(high, two));
            [
                join(a, _mm256_slli_epi16::<4>(c)),
                join(_mm256_srli_epi16::<4>(a), _mm256_slli_epi16::<2>(c)),
                join(b, c),
                join(_mm256_srli_epi16::<4>(b), _mm256_srli_epi16::<2>(c)),
            ]
        }
    };
}

pub(super) mod avx2 {
    use super::*;
    use crate::isa::Avx2;

    body256!(Avx2, features = "avx2,fma,f16c", dot = dot, one = one);

    /// Units that one half of the rows reads before the other one: two half passes over what stays in the first-level cache need
    /// few registers, so that sums and masks stay in them.
    const RUN: usize = 8;

    /// One row of activations.
    #[target_feature(enable = "avx2,fma,f16c")]
    fn one(panel: &[Unit], x: &[Digits], out: &mut Sums) {
        let [mut first, mut second] = [[_mm256_setzero_si256(); 2]; 2];
        for (units, x) in panel.chunks(RUN).zip(x.chunks(RUN)) {
            first = half::<0>(first, units, x);
            second = half::<1>(second, units, x);
        }
        let [[high0, low0], [high1, low1]] = [first, second];
        *out = Sums { high: simd::load(&[high0, high1]), low: simd::load(&[low0, low1]) };
    }

    /// Adds the sums of rows 0 to 7 or 8 to 15 of some units, which are read first with `HALF` 0.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn half<const HALF: usize>([mut high, mut low]: [__m256i; 2], units: &[Unit], x: &[Digits]) -> [__m256i; 2] {
        for (unit, x) in units.iter().zip(x) {
            if HALF == 0 {
                prefetch_ahead(unit);
            }
            let [a, b, c, d] = codes(unit, HALF);
            let digits = |at| [_mm256_set1_epi32(word(x, at)), _mm256_set1_epi32(word(x, at + 1))];
            high = dot(dot(high, [a, b], digits(0)), [c, d], digits(2));
            low = dot(dot(low, [a, b], digits(4)), [c, d], digits(6));
        }
        [high, low]
    }

    // Two products of two neighbours each.
    const _: () = assert!(2 * 2 * 63 * 128 <= i16::MAX as usize);

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn dot(sum: __m256i, codes: [__m256i; 2], digits: [__m256i; 2]) -> __m256i {
        let [a, b] = [_mm256_maddubs_epi16(codes[0], digits[0]), _mm256_maddubs_epi16(codes[1], digits[1])];
        _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_add_epi16(a, b), _mm256_set1_epi16(1)))
    }
}

pub(super) mod vnni256 {
    use super::*;
    use crate::isa::AvxVnni;

    body256!(AvxVnni, features = "avx2,fma,f16c,avxvnni", dot = dot, one = one);

    /// One row of activations, each digit with two accumulators in turn.
    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    fn one(panel: &[Unit], x: &[Digits], out: &mut Sums) {
        tile::<1, 2>(panel, [x], std::slice::from_mut(out));
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    fn dot(sum: __m256i, codes: [__m256i; 2], digits: [__m256i; 2]) -> __m256i {
        _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(sum, codes[0], digits[0]), codes[1], digits[1])
    }
}

/// The AVX-VNNI body with the EVEX encoding of its instruction, for CPUs that have only that.
#[cfg(test)]
pub(super) mod evex256 {
    use super::*;
    use crate::isa::Avx512Vnni;

    body256!(
        Avx512Vnni,
        features = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni",
        dot = dot,
        one = one
    );

    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    fn one(panel: &[Unit], x: &[Digits], out: &mut Sums) {
        tile::<1, 2>(panel, [x], std::slice::from_mut(out));
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    fn dot(sum: __m256i, codes: [__m256i; 2], digits: [__m256i; 2]) -> __m256i {
        _mm256_dpbusd_epi32(_mm256_dpbusd_epi32(sum, codes[0], digits[0]), codes[1], digits[1])
    }
}
