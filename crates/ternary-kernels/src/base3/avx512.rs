//! Base 3 for AVX-512 with VNNI and VBMI: unpacked and multiplied in registers.
//!
//! # GEMV
//! ```text
//! for each panel:
//!     a[0..2][0..4] = 0                                8 accumulators hide the latency of vpdpbusd
//!     for each group, for each quarter s:
//!         v = 64 bytes of the panel                    (1)
//!         b = FIELDS[v]          vpermb, which reads the lower six bits
//!         d = FIX[v - 191]       vpsubusb, vpermb: no correction below 192      (2)
//!         a[s % 2][0] += (b & 0x03) . x[80g + 16s ..][..4], broadcast to all lanes
//!         a[s % 2][1] += (b & 0x0c) . x[80g + 16s + 4 ..]
//!         a[s % 2][2] += ((b ^ d) & 0x30) . x[80g + 16s + 8 ..]      vpternlog
//!         a[s % 2][3] += (b & !d & 0xc0) . x[80g + 16s + 12 ..]
//!         a[s % 2][3] += (v & !d & 0xc0) . x[80g + 64 + 4s ..]
//!     acc[row] = sum_j (a[0][j] + a[1][j]) / 4^j  -  sum(x)          (3)
//! ```
//! 1. The panels of a range are one stream; see [`prefetch_page_ahead`].
//! 2. The difference saturates to 0, the entry without a correction; entry `u + 1` belongs to the escape `192 + u`.
//! 3. Nothing is shifted: each field has its own accumulators, which are exact multiples of `4^j`.
//!
//! That is 13 instructions for 320 weights, five of them `vpdpbusd`; I2_S needs 8 for 256. Plain base 3,
//! `v = sum t_j 3^j`, takes 17 (two pairs of `vpermi2b`, each with a masked move) and 1.7 times the time on Zen 4; a
//! masked second `vpermb` in place of the corrections takes 1.2 times.
//! masked second `vpermb` in place of the corrections 1.2 times.

use std::arch::x86_64::*;

use super::{Base3, GROUP_CHUNKS, GROUP_COLS, Group, Product, QUARTERS, code};
use crate::Int4Vector;
use crate::i2s::avx512::{all_fields, load, to_array};
use crate::i2s::{FIELDS, even_parts, wide512};
use crate::isa::{Avx512Vbmi, compiled};
use crate::panel_kernel::Backend;
use crate::simd::{prefetch_next_page, prefetch_page_ahead};

/// Tokens whose accumulators fit the registers together with the five fields of a quarter.
const MAX_FEW: usize = 5;

/// Up to this many tokens, weights are unpacked in registers, again for each [`MAX_FEW`] tokens; more tokens share
/// weights that are unpacked once.
const MAX_STREAMED: usize = 12;

/// Groups between two flushes of the GEMV accumulators. Each quarter adds two products of at most `64 * 2 * 127 * 4` to
/// a lane of the widest.
const FLUSH: usize = 1 << 12;
const _: () = assert!(FLUSH as u64 * QUARTERS as u64 * 2 * (64 * 2 * 127 * 4) < 1 << 31);

/// [`code::FIX`], indexed by `u + 1`; entry 0 corrects nothing, and `u = 63` does not occur.
static FIX: [u8; 64] = {
    let mut table = [0; 64];
    let mut u = 0;
    while u < 63 {
        table[u + 1] = code::FIX[u];
        u += 1;
    }
    table
};

impl Backend<Base3> for Avx512Vbmi {
    fn gemv(self, product: &Product<'_>, acc: &mut [i32]) {
        compiled!(Avx512Vbmi, self => |_cpu, product: &Product<'_>, acc: &mut [i32]| { stream(product, acc) });
    }
    fn gemm(self, product: &Product<'_>, acc: &mut [i32]) {
        if product.io.tokens() <= MAX_STREAMED {
            return Backend::<Base3>::gemv(self, product, acc);
        }
        compiled!(Avx512Vbmi, self => |cpu, product: &Product<'_>, acc: &mut [i32]| {
            let chunks = product.chunks(&(0..product.per_panel)).end;
            let tables = [load(&code::FIELDS), load(&FIX)];
            let masks = masks();
            let codes = |group: &Group| codes(group, tables, masks);
            wide512::gemm(cpu.vnni(), &product.io, chunks, |p| product.panel(p), codes, acc);
        });
    }
    /// Kernels read the tokens in place.
    fn reads_int4(self, _tokens: usize) -> bool {
        false
    }
    fn widen(self, row: &Int4Vector<'_>, out: &mut [i8]) {
        compiled!(Avx512Vbmi, self => |_cpu, row: &Int4Vector<'_>, out: &mut [i8]| { row.widen(out) });
    }
}

/// All panels times all tokens, panel by panel: one stream from memory. Each panel is multiplied with at most
/// [`MAX_FEW`] tokens at a time.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn stream(product: &Product<'_>, acc: &mut [i32]) {
    for p in 0..product.io.panel_count() {
        for tokens in even_parts(0..product.io.tokens(), MAX_FEW) {
            match tokens.len() {
                1 => few::<1>(product, p, tokens.start, acc),
                2 => few::<2>(product, p, tokens.start, acc),
                3 => few::<3>(product, p, tokens.start, acc),
                4 => few::<4>(product, p, tokens.start, acc),
                MAX_FEW => few::<MAX_FEW>(product, p, tokens.start, acc),
                n => unreachable!("{n} tokens"),
            }
        }
    }
}

/// Panel `p` times `N` tokens from `first`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn few<const N: usize>(product: &Product<'_>, p: usize, first: usize, acc: &mut [i32]) {
    let tokens: [_; N] = std::array::from_fn(|n| product.io.token(first + n).as_flattened().as_chunks::<GROUP_COLS>());
    let whole = tokens[0].0.len().min(product.per_panel);
    let (panel, tail) = product.panel(p).split_at(whole);
    let mut total = [_mm512_setzero_si512(); N];
    if !tail.is_empty() {
        // Weights are padded to whole groups, activations to whole cache lines: the last group is copied.
        let mut last = [[0; GROUP_COLS]; N];
        for (last, (_, rest)) in last.iter_mut().zip(tokens) {
            last[..rest.len()].copy_from_slice(rest);
        }
        total = code_sums::<N>(tail, std::array::from_fn(|n| std::slice::from_ref(&last[n])));
    }
    for (i, panel) in panel.chunks(FLUSH).enumerate() {
        let sums = code_sums::<N>(panel, std::array::from_fn(|n| &tokens[n].0[i * FLUSH..][..panel.len()]));
        for n in 0..N {
            total[n] = _mm512_add_epi32(total[n], sums[n]);
        }
    }
    for (n, total) in total.into_iter().enumerate() {
        product.io.store(p, first + n, &to_array(total), acc);
    }
}

/// Per token and row, the sum of digit times activation; `x` are as long as `panel`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn code_sums<const N: usize>(panel: &[Group], x: [&[[u8; GROUP_COLS]]; N]) -> [__m512i; N] {
    let masks = masks();
    let tables = [load(&code::FIELDS), load(&FIX)];
    // One token needs more accumulators than there are fields, to hide the latency of `vpdpbusd`.
    let mut a = [[_mm512_setzero_si512(); 4]; N];
    let mut a1 = [_mm512_setzero_si512(); 4];
    for (g, group) in panel.iter().enumerate() {
        let x: [&[u8; GROUP_COLS]; N] = std::array::from_fn(|n| &x[n][g]);
        for (s, quarter) in group.iter().enumerate() {
            prefetch_page_ahead(quarter);
            let codes = fields(load(quarter), tables, masks);
            for n in 0..N {
                let a = if N == 1 && s % 2 == 1 { &mut a1 } else { &mut a[n] };
                for j in 0..4 {
                    a[j] = _mm512_dpbusd_epi32(a[j], codes[j], broadcast(x[n], 16 * s + 4 * j));
                }
                a[3] = _mm512_dpbusd_epi32(a[3], codes[4], broadcast(x[n], 64 + 4 * s));
            }
        }
    }
    if N == 1 {
        a[0] = std::array::from_fn(|j| _mm512_add_epi32(a[0][j], a1[j]));
    }
    a.map(|a| all_fields(a))
}

/// The five digits of each byte in place: `t0`, `t1 << 2`, `t2 << 4`, `t3 << 6`, `t4 << 6`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn fields(v: __m512i, [fields, fix]: [__m512i; 2], masks: [__m512i; 4]) -> [__m512i; 5] {
    /// `(a ^ b) & c`
    const XOR_AND: i32 = 0x28;
    /// `a & !b & c`
    const AND_NOT_AND: i32 = 0x20;
    let b = _mm512_permutexvar_epi8(v, fields);
    let d = _mm512_permutexvar_epi8(_mm512_subs_epu8(v, _mm512_set1_epi8(191_u8 as i8)), fix);
    [
        _mm512_and_si512(b, masks[0]),
        _mm512_and_si512(b, masks[1]),
        _mm512_ternarylogic_epi32::<XOR_AND>(b, d, masks[2]),
        _mm512_ternarylogic_epi32::<AND_NOT_AND>(b, d, masks[3]),
        _mm512_ternarylogic_epi32::<AND_NOT_AND>(v, d, masks[3]),
    ]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn masks() -> [__m512i; 4] {
    [0x03, 0x0c, 0x30, 0xc0u8].map(|m| _mm512_set1_epi8(m as i8))
}

/// The codes of a group, in column order.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn codes(group: &Group, tables: [__m512i; 2], masks: [__m512i; 4]) -> [__m512i; GROUP_CHUNKS * FIELDS] {
    prefetch_next_page(group);
    let mut codes = [_mm512_setzero_si512(); GROUP_CHUNKS * FIELDS];
    for s in 0..QUARTERS {
        let [t0, t1, t2, t3, t4] = fields(load(&group[s]), tables, masks);
        codes[FIELDS * s] = t0;
        codes[FIELDS * s + 1] = _mm512_srli_epi16::<2>(t1);
        codes[FIELDS * s + 2] = _mm512_srli_epi16::<4>(t2);
        codes[FIELDS * s + 3] = _mm512_srli_epi16::<6>(t3);
        codes[FIELDS * QUARTERS + s] = _mm512_srli_epi16::<6>(t4);
    }
    codes
}

/// Activations `at..at + 4` in every lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn broadcast(x: &[u8; GROUP_COLS], at: usize) -> __m512i {
    _mm512_set1_epi32(i32::from_le_bytes([x[at], x[at + 1], x[at + 2], x[at + 3]]))
}
