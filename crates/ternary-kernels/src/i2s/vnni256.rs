//! I2_S for AVX-VNNI: 256-bit `vpdpbusd`, 8 rows by 4 columns per instruction.
//!
//! The algorithm is that of [`super::avx512`] with two registers of 8 rows for each chunk: GEMV masks without shifts
//! and divides the sums of each field at the end; GEMM keeps the sums of one panel and up to [`MAX_TOKENS`] tokens in
//! registers.
//!
//! `vpdpbusd` on 256 bits exists twice: VEX encoded (AVX-VNNI) and EVEX encoded (AVX-512 VNNI and VL). The body is
//! written once, as a macro over the intrinsic, so that the tests can run it in its EVEX form on CPUs that have only
//! that.

use std::arch::x86_64::*;

use super::avx2::{broadcast, load, to_array};
use super::{Acts, BLOCK_CHUNKS, Chunk, PANEL_ROWS, Product, Tile};
use crate::isa::{AvxVnni, compiled};
use crate::panel_kernel::Chunks;
use crate::simd::{prefetch_next_page, prefetch_page_ahead};

/// Tokens of a GEMM tile: two registers of sums for each, two of weights, two of codes, one of activations and the mask
/// are the 16 registers.
const MAX_TOKENS: usize = 5;

/// Chunks between two flushes of the GEMV accumulators. A chunk adds at most `64 * 2 * 127 * 4` to a lane of the widest
/// field, so `2^15` chunks stay below `2^31`.
const FLUSH: usize = 1 << 15;
const _: () = assert!(FLUSH as u64 * (64 * 2 * 127 * 4) < 1 << 31);

/// Makes `$backend`, which holds the token `$token`, a back end whose functions are compiled for `$features` and
/// multiply with `$dot`.
macro_rules! backend {
    ($backend:ty, $token:ident = |$cpu:ident| $proof:expr, features = $features:literal, dot = $dot:ident) => {
        impl Chunks for $backend {
            const MAX_TOKENS: usize = MAX_TOKENS;

            fn code_sums(self, panel: &[Chunk], x: &[Acts]) -> [i32; PANEL_ROWS] {
                let $cpu = self;
                compiled!($token, $proof => |_cpu, panel: &[Chunk], x: &[Acts]| -> [i32; PANEL_ROWS] {
                    let mut total = [_mm256_setzero_si256(); 2];
                    for (panel, x) in panel.chunks(FLUSH).zip(x.chunks(FLUSH)) {
                        let sums = code_sums(panel, x);
                        total = [_mm256_add_epi32(total[0], sums[0]), _mm256_add_epi32(total[1], sums[1])];
                    }
                    to_array(total)
                })
            }
            fn tile(self, product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
                let $cpu = self;
                compiled!($token, $proof => |_cpu, product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]| {
                    match t.tokens.len() {
                        1 => tile::<1>(product, t, acc),
                        2 => narrow_tile::<2>(product, t, acc),
                        3 => narrow_tile::<3>(product, t, acc),
                        4 => tile::<4>(product, t, acc),
                        MAX_TOKENS => tile::<MAX_TOKENS>(product, t, acc),
                        n => unreachable!("a tile of {n} tokens"),
                    }
                });
            }
        }

        /// Per row, the sum of code times activation.
        #[inline]
        #[target_feature(enable = $features)]
        fn code_sums(panel: &[Chunk], x: &[Acts]) -> [__m256i; 2] {
            let masks = [0x03, 0x0c, 0x30, 0xc0u8].map(|m| _mm256_set1_epi8(m as i8));
            let mut a = [[_mm256_setzero_si256(); 4]; 2];
            for (chunks, x) in panel.as_chunks::<4>().0.iter().zip(x.as_chunks::<4>().0) {
                for (chunk, x) in chunks.iter().zip(x) {
                    prefetch_page_ahead(chunk);
                    let v = load(chunk);
                    for j in 0..4 {
                        let x = broadcast(x, j);
                        for i in 0..2 {
                            a[i][j] = $dot(a[i][j], _mm256_and_si256(v[i], masks[j]), x);
                        }
                    }
                }
            }
            a.map(|a| all_fields(a))
        }

        /// The sum of `a[j] / 4^j`, exact as every term of field `j` is a multiple of `4^j`.
        #[inline]
        #[target_feature(enable = $features)]
        fn all_fields([a0, a1, a2, a3]: [__m256i; 4]) -> __m256i {
            _mm256_add_epi32(
                _mm256_add_epi32(a0, _mm256_srai_epi32::<2>(a1)),
                _mm256_add_epi32(_mm256_srai_epi32::<4>(a2), _mm256_srai_epi32::<6>(a3)),
            )
        }

        /// A tile of one panel times 2 or 3 tokens, with sums for each field as in GEMV to hide the latency: `4 * N`
        /// for rows 0 to 7, then as many for rows 8 to 15.
        #[target_feature(enable = $features)]
        fn narrow_tile<const N: usize>(product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
            const { assert!(N <= 3 && MAX_TOKENS * BLOCK_CHUNKS <= FLUSH) };
            let masks = [0x03, 0x0c, 0x30, 0xc0u8].map(|m| _mm256_set1_epi8(m as i8));
            let [w] = t.weights::<1>();
            let mut done = [[_mm256_setzero_si256(); 2]; N];
            for i in 0..2 {
                let mut a = [[_mm256_setzero_si256(); 4]; N];
                for (w, x) in w.iter().zip(t.acts.as_chunks::<N>().0) {
                    prefetch_next_page(std::slice::from_ref(w));
                    let v = load(w)[i];
                    for j in 0..4 {
                        let codes = _mm256_and_si256(v, masks[j]);
                        for n in 0..N {
                            a[n][j] = $dot(a[n][j], codes, broadcast(&x[n], j));
                        }
                    }
                }
                for n in 0..N {
                    done[n][i] = all_fields(a[n]);
                }
            }
            for (n, sums) in done.iter().enumerate() {
                t.store(product, 0, n, &to_array(*sums), acc);
            }
        }

        /// A tile of one panel times `N` tokens, all `2 * N` sums in registers.
        #[target_feature(enable = $features)]
        fn tile<const N: usize>(product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
            let (x, _) = t.acts.as_chunks::<N>();
            let [w] = t.weights::<1>();
            let three = _mm256_set1_epi8(3);
            let mut sums = [[_mm256_setzero_si256(); 2]; N];
            for (w, x) in w.iter().zip(x) {
                let v = load(w);
                // Written out, as in `avx512::tile`.
                add_field(&mut sums, v.map(|v| _mm256_and_si256(v, three)), x, 0);
                add_field(&mut sums, v.map(|v| _mm256_and_si256(_mm256_srli_epi16::<2>(v), three)), x, 1);
                add_field(&mut sums, v.map(|v| _mm256_and_si256(_mm256_srli_epi16::<4>(v), three)), x, 2);
                add_field(&mut sums, v.map(|v| _mm256_and_si256(_mm256_srli_epi16::<6>(v), three)), x, 3);
            }
            for (n, sums) in sums.iter().enumerate() {
                t.store(product, 0, n, &to_array(*sums), acc);
            }
        }

        /// Adds the products of field `j`.
        #[inline]
        #[target_feature(enable = $features)]
        fn add_field<const N: usize>(sums: &mut [[__m256i; 2]; N], codes: [__m256i; 2], x: &[Acts; N], j: usize) {
            for n in 0..N {
                let x = broadcast(&x[n], j);
                for i in 0..2 {
                    sums[n][i] = $dot(sums[n][i], codes[i], x);
                }
            }
        }
    };
}

backend!(AvxVnni, AvxVnni = |cpu| cpu, features = "avx2,fma,f16c,avxvnni", dot = _mm256_dpbusd_avx_epi32);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::i2s::I2s;
    use crate::isa::{Avx512Vnni, Cpu};
    use crate::panel_kernel::PanelKernel;

    /// The same body with the EVEX encoding of its instruction.
    #[derive(Clone, Copy, Debug)]
    struct EvexTwin(Avx512Vnni);

    backend!(
        EvexTwin,
        Avx512Vnni = |twin| twin.0,
        features = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni",
        dot = _mm256_dpbusd_epi32
    );

    #[test]
    fn the_body_equals_the_oracle_in_its_evex_form() {
        let Some(cpu) = Cpu::get().avx512_vnni() else {
            eprintln!("skipped: this CPU has no AVX-512 VNNI");
            return;
        };
        crate::i2s::tests::check_kernel(&PanelKernel::<I2s, _>::new("i2s_avxvnni_evex", EvexTwin(cpu)));
    }
}
