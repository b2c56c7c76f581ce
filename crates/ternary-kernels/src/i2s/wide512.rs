//! GEMM for AVX-512 with VNNI: codes are unpacked once, to one byte each, for all tokens.
//!
//! ```text
//! for each block of panels, for each block of columns:
//!     unpack the codes into a buffer that stays in the level-2 cache       (1)
//!     for each tile of up to 12 tokens, for each pair of panels of the block:
//!         for each four columns:
//!             codes of two panels                          two loads
//!             for each token:
//!                 its four activations, broadcast          one load
//!                 two sums += codes . activations          two vpdpbusd             (2)
//! ```
//! 1. Where masks and shifts share their ports with `vpdpbusd` (Intel: both 512-bit ports), extracting fields within
//!    the tile costs a sixth of the multiplier's rate; here each field is extracted once per call.
//! 2. Only loads and `vpdpbusd`: 14 loads for 24 products, of which a core does two of each per cycle.
//!
//! The tile reads activations in place, without a copy that puts those of twelve tokens side by side. Two steps of four
//! columns share the address of a token, which leaves one addition for four products.
//!
//! On an Emerald Rapids server, 6912 x 2560 and 128 tokens, one thread: 625 of 772 GOP/s, against 580 (two bits) and
//! 480 (base 3) with codes extracted in each tile.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::avx512::{MAX_PANELS, MAX_TOKENS, load, store};
use super::{BLOCK_CHUNKS, CHUNK_BYTES, CHUNK_COLS, Chunk, FIELDS, Product, Tile, even_parts};
use crate::isa::{Avx512Vnni, compiled};
use crate::simd;

/// Codes of 16 rows for four columns, a byte each.
pub(crate) type Codes = [u8; CHUNK_BYTES];

/// Steps of four columns in one iteration of the inner loop: it computes one address for each token.
const PAIR: usize = 2;
const _: () = assert!(FIELDS.is_multiple_of(PAIR));

/// Panels whose codes are in the buffer at a time: 320 KiB, on the stack, as kernels do not allocate.
const BLOCK_PANELS: usize = 8;

/// All panels times all tokens, `chunks` of both; anything after them is padding. `panel` is a panel of weights in
/// units, and `codes` unpacks a unit to its `N` codes, [`FIELDS`] for each of its chunks. The last unit may be longer
/// than the chunks.
// Inlined into a function that is compiled for the instruction set of `codes`, which may be larger than this one's.
#[inline(always)]
pub(crate) fn gemm<'a, U: 'a, const N: usize>(
    cpu: Avx512Vnni,
    product: &Product<'_>,
    chunks: usize,
    panel: impl Fn(usize) -> &'a [U],
    codes: impl Fn(&U) -> [__m512i; N],
    acc: &mut [i32],
) {
    const { assert!(N > 0 && N.is_multiple_of(FIELDS)) };
    // Chunks of a unit.
    let unit = N / FIELDS;
    let mut buffer = [const { MaybeUninit::<Codes>::uninit() }; BLOCK_PANELS * BLOCK_CHUNKS * FIELDS];
    for block in even_parts(0..product.panel_count(), BLOCK_PANELS) {
        for units in even_parts(0..chunks.div_ceil(unit), BLOCK_CHUNKS / unit) {
            let chunks = units.start * unit..(units.end * unit).min(chunks);
            let stride = chunks.len() * FIELDS;
            let buffer = &mut buffer[..block.len() * stride];
            for (p, out) in block.clone().zip(buffer.chunks_exact_mut(stride)) {
                unpack(&panel(p)[units.clone()], out, &codes);
            }
            // SAFETY: the length of the buffer is a multiple of `stride`, so every element belongs to the part of a
            // panel of the block, and `unpack` has written each element of such a part.
            let codes: &[Chunk] = unsafe { &*(&raw const *buffer as *const [Codes]) };
            for tokens in even_parts(0..product.tokens(), MAX_TOKENS) {
                for first in block.clone().step_by(MAX_PANELS) {
                    let panels = first..block.end.min(first + MAX_PANELS);
                    let weights = &codes[(first - block.start) * stride..];
                    let (tokens, chunks) = (tokens.clone(), chunks.clone());
                    let t = &Tile { panels, tokens, chunks, acts: &[], weights, stride };
                    compiled!(Avx512Vnni, cpu => |_cpu, product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]| {
                        tiles(product, t, acc);
                    });
                }
            }
        }
    }
}

/// Writes every element of `out`: the codes of one unit after the other, of the last one as many as fit.
///
/// # Panics
/// If there is more room than codes.
#[inline(always)]
fn unpack<U, const N: usize>(units: &[U], out: &mut [MaybeUninit<Codes>], codes: impl Fn(&U) -> [__m512i; N]) {
    let (whole, rest) = out.as_chunks_mut::<N>();
    let (first, last) = units.split_at(whole.len());
    for (unit, out) in first.iter().zip(whole) {
        write(codes(unit), out);
    }
    if !rest.is_empty() {
        write(codes(&last[0]), rest);
    }
}

/// Writes every element of `out`, which has at most `N` elements.
#[inline(always)]
fn write<const N: usize>(codes: [__m512i; N], out: &mut [MaybeUninit<Codes>]) {
    assert!(out.len() <= N);
    for (codes, out) in codes.into_iter().zip(out) {
        out.write(simd::load(&codes));
    }
}

/// A tile of one or two panels and any number of tokens.
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

/// A tile of `P` panels times `N` tokens, all `P * N` sums in registers.
#[expect(clippy::needless_range_loop, reason = "small arrays are registers, all indexed by the same constants")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn tile<const P: usize, const N: usize>(product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
    let steps = t.chunks.len() * FIELDS;
    let w: [&[[Codes; PAIR]]; P] =
        std::array::from_fn(|i| &t.weights[i * t.stride..][..steps].as_chunks().0[..steps / PAIR]);
    let (x, stride) = product.rows_of(t.tokens.clone());
    let x = &x[t.chunks.start * CHUNK_COLS..];
    assert!(x.len() >= (N - 1) * stride + steps * 4, "activations of a tile");
    let mut sums = [[_mm512_setzero_si512(); P]; N];
    for k in 0..steps / PAIR {
        let v: [[__m512i; PAIR]; P] = std::array::from_fn(|i| std::array::from_fn(|j| load(&w[i][k][j])));
        for n in 0..N {
            for j in 0..PAIR {
                let at = n * stride + 4 * (PAIR * k + j);
                // SAFETY: `n < N` and `PAIR * k + j < steps`, so the last byte read is in `x`, as was checked above.
                let four = unsafe { x.as_ptr().add(at).cast::<i32>().read_unaligned() };
                let x = _mm512_set1_epi32(four);
                for i in 0..P {
                    sums[n][i] = _mm512_dpbusd_epi32(sums[n][i], v[i][j], x);
                }
            }
        }
    }
    let done = sums;
    store(product, t, &done, acc);
}
