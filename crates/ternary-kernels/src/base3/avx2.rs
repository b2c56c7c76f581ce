//! Base 3 for AVX2 and AVX-VNNI: unpacked by `pshufb`, then multiplied like I2_S.

use std::arch::x86_64::*;

use super::{CHUNK_BYTES, GROUP_CHUNKS, Group, code};
use crate::i2s::{Chunk, avx2};
use crate::isa::{Avx2, AvxVnni, compiled};
use crate::panel_kernel::Unpack;
use crate::simd::{self, prefetch_page_ahead};

impl Unpack for Avx2 {
    fn unpack(self, groups: &[Group], out: &mut [Chunk]) {
        compiled!(Avx2, self => |_cpu, groups: &[Group], out: &mut [Chunk]| { unpack(groups, out) });
    }
}

impl Unpack for AvxVnni {
    fn unpack(self, groups: &[Group], out: &mut [Chunk]) {
        compiled!(AvxVnni, self => |_cpu, groups: &[Group], out: &mut [Chunk]| { unpack(groups, out) });
    }
}

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
                // Digits are below 4, so no bit leaves its byte.
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
        // Below 16 if this part of the tables holds the entry; otherwise saturated to 128 or more, which looks up 0.
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
    let halves: &mut [[u8; 32]; 2] = bytemuck::cast_mut(out);
    simd::store(v[0], &mut halves[0]);
    simd::store(v[1], &mut halves[1]);
}
