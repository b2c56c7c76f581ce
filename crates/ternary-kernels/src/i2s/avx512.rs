//! I2_S for AVX-512 with VNNI: 512-bit `vpdpbusd`, 16 rows by 4 columns per instruction.
//!
//! # GEMV
//! ```text
//! for each panel:
//!     a[0..2][0..4] = 0                          8 accumulators hide the latency of vpdpbusd
//!     for each chunk t:
//!         v = 64 bytes of the panel              (1)
//!         for j in 0..4:
//!             codes = v & (3 << 2j)              (2)
//!             a[t % 2][j] += codes . x[16t + 4j ..][..4], broadcast to all lanes   (3)
//!     acc[row] = sum_j (a[0][j] + a[1][j]) / 4^j  -  sum(x)      (4)
//! ```
//! 1. The panels of a range are one stream; see [`prefetch_page_ahead`].
//! 2. No shifts: the masked bytes are `4^j * code`, at most 128, still an unsigned byte.
//! 3. The broadcast is part of the instruction.
//! 4. Each field has its own accumulators, which are exact multiples of `4^j`.
//!
//! # GEMM
//! A tile of two panels by up to 12 tokens keeps 24 accumulators in registers. Codes are extracted once per chunk and
//! field (shift and mask, as all fields of a token share its accumulators) and used for every token of the tile.
//!
//! For more than 64 tokens the codes are extracted once for all of them ([`super::wide512`]).
//!
//! Up to 12 tokens are one tile, so weights are read once, usually from memory: then panels are processed one by one as
//! a single stream, as in GEMV. Up to 6 tokens have accumulators for each field, as in GEMV, which hides the latency.
//! (Two panels at a time took 0.47 ms for two tokens of 6912 x 2560 from memory on a Zen 4 server, one panel 0.18 ms,
//! little more than GEMV.)

use std::arch::x86_64::*;

use super::{Acts, BLOCK_CHUNKS, CHUNK_COLS, Chunk, FIELDS, I2s, PANEL_ROWS, Product, Tile, wide512};
use crate::Int4Vector;
use crate::isa::{Avx512Vnni, compiled};
use crate::panel_kernel::Backend;
use crate::simd::{self, prefetch_next_page, prefetch_page_ahead};

/// Panels of a GEMM tile.
pub(crate) const MAX_PANELS: usize = 2;
/// Tokens of a GEMM tile.
pub(crate) const MAX_TOKENS: usize = 12;

/// Up to this many tokens, each tile unpacks the codes itself; more tokens share codes that are unpacked once
/// ([`wide512`]). Measured on Emerald Rapids.
const MAX_TILED: usize = 64;

/// Chunks between two flushes of the GEMV accumulators. A chunk adds at most `64 * 2 * 127 * 4` to a lane of the widest
/// field, so `2^15` chunks stay below `2^31`.
const FLUSH: usize = 1 << 15;
const _: () = assert!(FLUSH as u64 * (64 * 2 * 127 * 4) < 1 << 31);

impl Backend<I2s> for Avx512Vnni {
    fn gemv(self, product: &Product<'_>, acc: &mut [i32]) {
        compiled!(Avx512Vnni, self => |_cpu, product: &Product<'_>, acc: &mut [i32]| { gemv(product, acc) });
    }
    fn gemm(self, product: &Product<'_>, acc: &mut [i32]) {
        if product.tokens() > MAX_TILED {
            return compiled!(Avx512Vnni, self => |cpu, product: &Product<'_>, acc: &mut [i32]| {
                wide512::gemm(cpu, product, product.chunks(), |p| product.panel(p), |chunk| codes(chunk), acc);
            });
        }
        // Weights that only one tile of tokens reads come from memory: they are read as one stream.
        let panels = if product.tokens() <= MAX_TOKENS { 1 } else { MAX_PANELS };
        product.for_tiles(panels, MAX_TOKENS, |t| {
            let t = &t;
            compiled!(Avx512Vnni, self => |_cpu, product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]| {
                tiles(product, t, acc);
            });
        });
    }
    fn reads_int4(self, tokens: usize) -> bool {
        tokens <= MAX_TILED
    }
    fn widen(self, row: &Int4Vector<'_>, out: &mut [i8]) {
        compiled!(Avx512Vnni, self => |_cpu, row: &Int4Vector<'_>, out: &mut [i8]| { row.widen(out) });
    }
}

/// All panels times token 0.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn gemv(product: &Product<'_>, acc: &mut [i32]) {
    let x = product.token(0);
    for p in 0..product.panel_count() {
        let panel = product.panel(p);
        let mut total = _mm512_setzero_si512();
        for (panel, x) in panel.chunks(FLUSH).zip(x.chunks(FLUSH)) {
            total = _mm512_add_epi32(total, code_sums(panel, x));
        }
        product.store(p, 0, &to_array(total), acc);
    }
}

/// Per row, the sum of code times activation.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn code_sums(panel: &[Chunk], x: &[Acts]) -> __m512i {
    let masks = [0x03, 0x0c, 0x30, 0xc0u8].map(|m| _mm512_set1_epi8(m as i8));
    let mut a = [[_mm512_setzero_si512(); 4]; 2];
    let (panel, _) = panel.as_chunks::<4>();
    let (x, _) = x.as_chunks::<4>();
    for (chunks, x) in panel.iter().zip(x) {
        for i in 0..4 {
            prefetch_page_ahead(&chunks[i]);
            let v = load(&chunks[i]);
            for j in 0..4 {
                let sum = &mut a[i % 2][j];
                *sum = _mm512_dpbusd_epi32(*sum, _mm512_and_si512(v, masks[j]), broadcast(&x[i], j));
            }
        }
    }
    all_fields(std::array::from_fn(|j| _mm512_add_epi32(a[0][j], a[1][j])))
}

/// The sum of `a[j] / 4^j`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn all_fields([a0, a1, a2, a3]: [__m512i; 4]) -> __m512i {
    // Exact: every term of field j is a multiple of 4^j. The sums themselves are positive or negative, so the
    // shifts are arithmetic.
    _mm512_add_epi32(
        _mm512_add_epi32(a0, _mm512_srai_epi32::<2>(a1)),
        _mm512_add_epi32(_mm512_srai_epi32::<4>(a2), _mm512_srai_epi32::<6>(a3)),
    )
}

/// The codes of a chunk, field by field.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn codes(chunk: &Chunk) -> [__m512i; FIELDS] {
    prefetch_next_page(std::slice::from_ref(chunk));
    let (v, three) = (load(chunk), _mm512_set1_epi8(3));
    let fields = [v, _mm512_srli_epi16::<2>(v), _mm512_srli_epi16::<4>(v), _mm512_srli_epi16::<6>(v)];
    fields.map(|field| _mm512_and_si512(field, three))
}

/// A tile of one or [`MAX_PANELS`] panels and any number of tokens.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn tiles(product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
    match t.panels.len() {
        1 => tiles_of::<1>(product, t, acc),
        _ => tiles_of::<MAX_PANELS>(product, t, acc),
    }
}

/// A tile of `P` panels and any number of tokens.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn tiles_of<const P: usize>(product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
    match t.tokens.len() {
        1 if P == 1 => narrow_tile::<1>(product, t, acc),
        2 if P == 1 => narrow_tile::<2>(product, t, acc),
        3 if P == 1 => narrow_tile::<3>(product, t, acc),
        4 if P == 1 => narrow_tile::<4>(product, t, acc),
        5 if P == 1 => narrow_tile::<5>(product, t, acc),
        6 if P == 1 => narrow_tile::<6>(product, t, acc),
        1 => tile::<P, 1>(product, t, acc),
        2 => tile::<P, 2>(product, t, acc),
        3 => tile::<P, 3>(product, t, acc),
        4 => tile::<P, 4>(product, t, acc),
        5 => tile::<P, 5>(product, t, acc),
        6 => tile::<P, 6>(product, t, acc),
        7 => tile::<P, 7>(product, t, acc),
        8 => tile::<P, 8>(product, t, acc),
        9 => tile::<P, 9>(product, t, acc),
        10 => tile::<P, 10>(product, t, acc),
        11 => tile::<P, 11>(product, t, acc),
        MAX_TOKENS => tile::<P, MAX_TOKENS>(product, t, acc),
        n => unreachable!("a tile of {n} tokens"),
    }
}

/// A tile of one panel times `N <= 6` tokens with sums for each field, as in GEMV: `4 * N` of them hide the latency.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn narrow_tile<const N: usize>(product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
    const { assert!(N <= 6 && MAX_TOKENS * BLOCK_CHUNKS <= FLUSH) };
    let [w] = t.weights::<1>();
    let masks = [0x03, 0x0c, 0x30, 0xc0u8].map(|m| _mm512_set1_epi8(m as i8));
    let mut sums = [[_mm512_setzero_si512(); 4]; N];
    for (w, x) in w.iter().zip(t.acts.as_chunks::<N>().0) {
        prefetch_page_ahead(w);
        let v = load(w);
        for j in 0..4 {
            let codes = _mm512_and_si512(v, masks[j]);
            for n in 0..N {
                sums[n][j] = _mm512_dpbusd_epi32(sums[n][j], codes, broadcast(&x[n], j));
            }
        }
    }
    let done = sums.map(|s| [all_fields(s)]);
    store(product, t, &done, acc);
}

/// A tile of `P` panels times `N` tokens, all `P * N` sums in registers.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn tile<const P: usize, const N: usize>(product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
    let (x, _) = t.acts.as_chunks::<N>();
    let w = t.weights::<P>().map(|w| &w[..x.len()]);
    let three = _mm512_set1_epi8(3);
    let mut sums = [[_mm512_setzero_si512(); P]; N];
    for (k, x) in x.iter().enumerate() {
        if P == 1 {
            prefetch_next_page(std::slice::from_ref(&w[0][k]));
        }
        let v = w.map(|w| load(&w[k]));
        // Written out: the sums stay in registers only if no loop around them remains to be unrolled.
        add_field(&mut sums, v.map(|v| _mm512_and_si512(v, three)), x, 0);
        add_field(&mut sums, v.map(|v| _mm512_and_si512(_mm512_srli_epi16::<2>(v), three)), x, 1);
        add_field(&mut sums, v.map(|v| _mm512_and_si512(_mm512_srli_epi16::<4>(v), three)), x, 2);
        add_field(&mut sums, v.map(|v| _mm512_and_si512(_mm512_srli_epi16::<6>(v), three)), x, 3);
    }
    // A copy: sums whose address is taken would be written to memory in each iteration of the loop above.
    let done = sums;
    store(product, t, &done, acc);
}

#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn store<const P: usize, const N: usize>(
    product: &Product<'_>,
    t: &Tile<'_>,
    sums: &[[__m512i; P]; N],
    acc: &mut [i32],
) {
    for (n, sums) in sums.iter().enumerate() {
        match t.results::<P>(product, n, acc) {
            Some((results, Some(less))) => {
                let less = _mm512_set1_epi32(less);
                for (result, sum) in results.iter_mut().zip(sums) {
                    *result = to_array(_mm512_sub_epi32(*sum, less));
                }
            }
            Some((results, None)) => {
                for (result, sum) in results.iter_mut().zip(sums) {
                    *result = to_array(_mm512_add_epi32(simd::load(result), *sum));
                }
            }
            None => {
                for (i, sum) in sums.iter().enumerate() {
                    t.store(product, i, n, &to_array(*sum), acc);
                }
            }
        }
    }
}

/// Adds the products of field `j`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn add_field<const P: usize, const N: usize>(
    sums: &mut [[__m512i; P]; N],
    codes: [__m512i; P],
    x: &[Acts; N],
    j: usize,
) {
    for n in 0..N {
        let x = broadcast(&x[n], j);
        for i in 0..P {
            sums[n][i] = _mm512_dpbusd_epi32(sums[n][i], codes[i], x);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn load(chunk: &Chunk) -> __m512i {
    simd::load(chunk)
}

/// Activations `4j..4j + 4` in every lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn broadcast(x: &Acts, j: usize) -> __m512i {
    const { assert!(CHUNK_COLS == 16) };
    _mm512_set1_epi32(i32::from_le_bytes([x[4 * j], x[4 * j + 1], x[4 * j + 2], x[4 * j + 3]]))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn to_array(v: __m512i) -> [i32; PANEL_ROWS] {
    simd::load(&v)
}
