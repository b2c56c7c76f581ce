//! Base 3 for AVX2 and AVX-VNNI: unpacked by `pshufb`, then as I2_S.

use std::arch::x86_64::*;

use super::{Base3, CHUNK_BYTES, GROUP_CHUNKS, Group, code};
use crate::i2s::avx2::{prefetch_page_ahead, to_array};
use crate::i2s::{Activations, BLOCK_CHUNKS, CHUNK_COLS, Chunk, PANEL_ROWS, avx2, vnni256};
use crate::isa::{Avx2, AvxVnni};
use crate::{Int4Matrix, Int8Batch, Int8Matrix, Int8Vector, Kernel, KernelError, Packed, PackedRows, TernaryMatrix};

/// Declares the kernel that unpacks with AVX2 and multiplies with the I2_S code in `$i2s`.
macro_rules! kernel {
    ($(#[$doc:meta])* $kernel:ident, name = $name:literal, token = $token:ty, i2s = $i2s:ident) => {
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
                super::prepack(Self::NAME, w)
            }
            fn gemv(&self, w: &PackedRows<'_>, x: &Int8Vector<'_>, acc: &mut [i32]) {
                let sum = [x.sum()];
                let Some(product) = Base3::new(w, &x.as_matrix(&sum), acc) else { return };
                product.gemv(
                    // SAFETY: `self` holds the proof that this CPU has what `unpack` is compiled for.
                    |groups, chunks| unsafe { unpack(groups, chunks) },
                    // SAFETY: likewise for `code_sums`.
                    |chunks, x| unsafe { to_array($i2s::code_sums(chunks, x)) },
                    acc,
                );
            }
            fn gemm(&self, w: &PackedRows<'_>, x: &Int8Matrix<'_>, acc: &mut [i32]) {
                self.in_tiles(w, x.into(), acc);
            }
            fn gemm_a4(&self, w: &PackedRows<'_>, x: &Int4Matrix<'_>, _: &mut Int8Batch, acc: &mut [i32]) {
                self.in_tiles(w, x.into(), acc);
            }
        }

        impl $kernel {
            fn in_tiles(&self, w: &PackedRows<'_>, x: Activations<'_>, acc: &mut [i32]) {
                let Some(product) = Base3::new(w, x, acc) else { return };
                let mut acts = [[0; CHUNK_COLS]; $i2s::MAX_TOKENS * BLOCK_CHUNKS];
                product.gemm(
                    1,
                    $i2s::MAX_TOKENS,
                    &mut acts,
                    // SAFETY: `self` holds the proof that this CPU has what `unpack` is compiled for.
                    |groups, chunks| unsafe { unpack(groups, chunks) },
                    // SAFETY: likewise for `tiles`.
                    |t| unsafe { $i2s::tiles(&product.io, &t, acc) },
                );
            }
        }
    };
}

kernel!(
    /// The AVX2 kernel.
    Base3Avx2,
    name = "base3_avx2",
    token = Avx2,
    i2s = avx2
);
kernel!(
    /// The AVX-VNNI kernel.
    Base3AvxVnni,
    name = "base3_avxvnni",
    token = AvxVnni,
    i2s = vnni256
);

/// Unpacks `groups` to the chunks of their columns.
#[target_feature(enable = "avx2,fma,f16c")]
fn unpack(groups: &[Group], out: &mut [Chunk]) {
    let fields = table(&code::FIELDS);
    let flip = table(&code::FLIP);
    for (group, [first @ .., last]) in groups.iter().zip(out.as_chunks_mut::<GROUP_CHUNKS>().0) {
        let mut fifth = [_mm256_setzero_si256(); 2];
        for s in (0..4).rev() {
            prefetch_page_ahead(&group[s]);
            let (quarter, chunk) = (halves(&group[s]), &mut first[s]);
            let mut four = [_mm256_setzero_si256(); 2];
            for i in 0..2 {
                let (fields, t4) = digits(quarter[i], &fields, &flip);
                four[i] = fields;
                // Digits are below 4, so nothing leaves its byte.
                fifth[i] = _mm256_or_si256(_mm256_slli_epi16::<2>(fifth[i]), t4);
            }
            store(four, chunk);
        }
        store(fifth, last);
    }
}

/// The first four digits, two bits each, and the last.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn digits(v: __m256i, fields: &[__m256i; 4], flip: &[__m256i; 4]) -> (__m256i, __m256i) {
    let u = _mm256_and_si256(v, _mm256_set1_epi8(63));
    let (mut b, mut d) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    for k in 0..4 {
        // Below 16 where this part of the tables is meant; saturated to 128 and above elsewhere, which looks up 0.
        let own = _mm256_xor_si256(u, _mm256_set1_epi8(16 * k as i8));
        let index = _mm256_adds_epu8(own, _mm256_set1_epi8(0x70));
        b = _mm256_or_si256(b, _mm256_shuffle_epi8(fields[k], index));
        d = _mm256_or_si256(d, _mm256_shuffle_epi8(flip[k], index));
    }
    let from = _mm256_set1_epi8(0xc0_u8 as i8);
    let escape = _mm256_cmpeq_epi8(_mm256_max_epu8(v, from), v);
    let d = _mm256_and_si256(d, escape);
    let h = _mm256_and_si256(_mm256_srli_epi16::<6>(v), _mm256_set1_epi8(3));
    let last = _mm256_xor_si256(h, _mm256_and_si256(d, _mm256_set1_epi8(3)));
    (_mm256_xor_si256(b, _mm256_and_si256(d, _mm256_set1_epi8(0xf0_u8 as i8))), last)
}

/// Four tables of 16 entries, each in both lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn table(entries: &[u8; 64]) -> [__m256i; 4] {
    let [a, b] = halves(entries);
    [
        _mm256_permute2x128_si256::<0x00>(a, a),
        _mm256_permute2x128_si256::<0x11>(a, a),
        _mm256_permute2x128_si256::<0x00>(b, b),
        _mm256_permute2x128_si256::<0x11>(b, b),
    ]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves(bytes: &[u8; CHUNK_BYTES]) -> [__m256i; 2] {
    avx2::load(bytes)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn store(v: [__m256i; 2], out: &mut Chunk) {
    let at = out.as_mut_ptr().cast::<__m256i>();
    // SAFETY: `out` is 64 writable bytes, and the stores need no alignment.
    unsafe {
        _mm256_storeu_si256(at, v[0]);
        _mm256_storeu_si256(at.add(1), v[1]);
    }
}
