//! I2_S for AVX-VNNI: 256-bit `vpdpbusd`, 8 rows by 4 columns per instruction.
//!
//! The algorithm is that of [`super::avx512`] with two registers of 8 rows for each chunk: GEMV masks without shifts
//! and divides the sums of each field at the end; GEMM keeps a tile of one panel by up to [`MAX_TOKENS`] tokens in
//! registers.
//!
//! `vpdpbusd` on 256 bits exists twice: VEX encoded (AVX-VNNI) and EVEX encoded (AVX-512 VNNI and VL). The body is
//! written once, as a macro over the intrinsic, so that the tests run the same code in its EVEX form on CPUs that have
//! only that.

use std::arch::x86_64::*;

use super::avx2::{broadcast, load, prefetch, to_array};
use super::{Acts, Chunk, PANEL_ROWS, Product};
use crate::isa::AvxVnni;
use crate::{Int8Matrix, Int8Vector, Isa, Kernel, KernelError, Packed, PackedRows, TernaryMatrix};

/// Bytes between a load of GEMV and the line that it asks for.
const PREFETCH: usize = 8 << 10;
/// Tokens of a GEMM tile: with two registers of sums each, and two of codes, they fit the 16 registers.
const MAX_TOKENS: usize = 6;

/// Chunks between two flushes of the GEMV accumulators. A chunk adds at most `64 * 2 * 127 * 4` to a lane of the widest
/// field, so `2^15` chunks stay below `2^31`.
const FLUSH: usize = 1 << 15;
const _: () = assert!(FLUSH as u64 * (64 * 2 * 127 * 4) < 1 << 31);

/// Declares a kernel whose functions are compiled for `features` and multiply with `dot`.
macro_rules! kernel {
    ($(#[$doc:meta])* $kernel:ident, name = $name:literal, token = $token:ty, features = $features:literal, dot = $dot:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $kernel {
            /// Proof that the functions compiled for the instruction set may be called.
            _cpu: $token,
        }

        impl $kernel {
            pub(crate) const NAME: &str = $name;
            pub(crate) fn new(cpu: $token) -> Self {
                Self { _cpu: cpu }
            }
        }

        impl Kernel for $kernel {
            fn name(&self) -> &str {
                Self::NAME
            }
            fn panel_rows(&self) -> usize {
                PANEL_ROWS
            }
            fn prepack(&self, w: &TernaryMatrix) -> Result<Packed, KernelError> {
                crate::i2s::prepack(Self::NAME, w)
            }
            fn gemv(&self, w: &PackedRows<'_>, x: &Int8Vector<'_>, acc: &mut [i32]) {
                if let Some(product) = Product::of_one(w, x, &[x.sum()], acc) {
                    // SAFETY: `self` holds the proof that this CPU has what `gemv` is compiled for.
                    unsafe { gemv(&product, acc) }
                }
            }
            fn gemm(&self, w: &PackedRows<'_>, x: &Int8Matrix<'_>, acc: &mut [i32]) {
                let Some(product) = Product::new(w, x, acc) else { return };
                if x.n() == 1 {
                    // SAFETY: as in `gemv`.
                    return unsafe { gemv(&product, acc) };
                }
                product.for_tiles(1, MAX_TOKENS, |panels, tokens| {
                    let (p, t) = (panels.start, tokens.start);
                    // SAFETY: `self` holds the proof that this CPU has what `tile` is compiled for.
                    unsafe {
                        match tokens.len() {
                            1 => tile::<1>(&product, p, t, acc),
                            2 => tile::<2>(&product, p, t, acc),
                            3 => tile::<3>(&product, p, t, acc),
                            4 => tile::<4>(&product, p, t, acc),
                            5 => tile::<5>(&product, p, t, acc),
                            MAX_TOKENS => tile::<MAX_TOKENS>(&product, p, t, acc),
                            n => unreachable!("a tile of {n} tokens"),
                        }
                    }
                });
            }
        }

        /// All panels times token 0.
        #[target_feature(enable = $features)]
        fn gemv(product: &Product<'_>, acc: &mut [i32]) {
            let x = product.token(0);
            for p in 0..product.panel_count() {
                let mut total = [_mm256_setzero_si256(); 2];
                for (panel, x) in product.panel(p).chunks(FLUSH).zip(x.chunks(FLUSH)) {
                    let sums = code_sums(panel, x);
                    total = [_mm256_add_epi32(total[0], sums[0]), _mm256_add_epi32(total[1], sums[1])];
                }
                product.store(p, 0, &to_array(total), acc);
            }
        }

        /// Per row, the sum of code times activation.
        #[inline]
        #[target_feature(enable = $features)]
        fn code_sums(panel: &[Chunk], x: &[Acts]) -> [__m256i; 2] {
            let masks = [0x03, 0x0c, 0x30, 0xc0u8].map(|m| _mm256_set1_epi8(m as i8));
            let mut a = [[_mm256_setzero_si256(); 4]; 2];
            for (chunk, x) in panel.iter().zip(x) {
                prefetch(chunk, PREFETCH);
                let v = load(chunk);
                for j in 0..4 {
                    let x = broadcast(x, j);
                    for i in 0..2 {
                        a[i][j] = $dot(a[i][j], _mm256_and_si256(v[i], masks[j]), x);
                    }
                }
            }
            // Exact: every term of field j is a multiple of 4^j.
            a.map(|[a0, a1, a2, a3]| {
                _mm256_add_epi32(
                    _mm256_add_epi32(a0, _mm256_srai_epi32::<2>(a1)),
                    _mm256_add_epi32(_mm256_srai_epi32::<4>(a2), _mm256_srai_epi32::<6>(a3)),
                )
            })
        }

        /// Panel `p` times `N` tokens from `t`; sums beyond `2^23` columns wrap, and so does the subtraction after it.
        #[target_feature(enable = $features)]
        fn tile<const N: usize>(product: &Product<'_>, p: usize, t: usize, acc: &mut [i32]) {
            let panel = product.panel(p);
            let tokens: [&[Acts]; N] = std::array::from_fn(|n| &product.token(t + n)[..panel.len()]);
            let three = _mm256_set1_epi8(3);
            let mut sums = [[_mm256_setzero_si256(); 2]; N];
            for k in 0..panel.len() {
                let mut v = load(&panel[k]);
                for j in 0..4 {
                    let codes = v.map(|v| _mm256_and_si256(v, three));
                    for n in 0..N {
                        let x = broadcast(&tokens[n][k], j);
                        for i in 0..2 {
                            sums[n][i] = $dot(sums[n][i], codes[i], x);
                        }
                    }
                    v = v.map(|v| _mm256_srli_epi16::<2>(v));
                }
            }
            for (n, sums) in sums.iter().enumerate() {
                product.store(p, t + n, &to_array(*sums), acc);
            }
        }
    };
}

kernel!(
    /// The AVX-VNNI kernel.
    I2sAvxVnni,
    name = "i2s_avxvnni",
    token = AvxVnni,
    features = "avx2,fma,f16c,avxvnni",
    dot = _mm256_dpbusd_avx_epi32
);

impl I2sAvxVnni {
    pub(crate) const ISA: Isa = Isa::AvxVnni;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Avx512Vnni, Cpu};

    kernel!(
        /// The same body with the other encoding of its instruction.
        EvexTwin,
        name = "i2s_avxvnni_evex",
        token = Avx512Vnni,
        features = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni",
        dot = _mm256_dpbusd_epi32
    );

    #[test]
    fn the_body_equals_the_oracle_in_its_evex_form() {
        let Some(cpu) = Cpu::get().avx512_vnni() else {
            eprintln!("skipped: this CPU has no AVX-512 VNNI");
            return;
        };
        crate::i2s::tests::check_kernel(&EvexTwin::new(cpu));
    }
}
