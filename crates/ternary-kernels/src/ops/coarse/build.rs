//! From stored rows to codes and the bounds of their errors.

use std::ops::Range;

use half::{bf16, f16};

use super::input::round_up;
use super::{BLOCK_PANELS, Facts, MAX_Q, PANEL, StoredRows, UNIT, UNIT_COLS, Unit, ZERO_CODE, panel_bytes, units_of};
use crate::ops::Ops;
use crate::ops::lanes::{Element, LANES, Simd, pad};
use crate::ops::reduce::{TURNS, total};

/// Values from here on are not multiplied: their row is always computed exactly.
const HUGE: f32 = f32::from_bits((127 + 50) << 23);
/// A row whose values are all below this has no codes.
const TINY: f32 = f32::from_bits((127 - 56) << 23);

/// The steps that are tried, relative to the one that reaches the largest value: clipping a few values often costs less
/// than coarser codes for all others.
const STEPS: [f32; 3] = [1.0, 0.84, 0.7];

ops! {
    /// Codes of a row; `codes` has room for whole units.
    fn coarse_row_f32(w: &[f32], codes: &mut [i8]) -> RowFacts = row;
    /// Like `coarse_row_f32`.
    fn coarse_row_f16(w: &[f16], codes: &mut [i8]) -> RowFacts = row;
    /// Like `coarse_row_f32`.
    fn coarse_row_bf16(w: &[bf16], codes: &mut [i8]) -> RowFacts = row;
}

/// `s`, `E` and `N` of a row.
struct RowFacts {
    scale: f32,
    error: f32,
    norm: f32,
}

/// Fills a block with `rows` of `stored`.
pub(super) fn block(ops: Ops, stored: StoredRows<'_>, cols: usize, rows: Range<usize>, out: &mut [u8]) {
    let mut codes = vec![0i8; units_of(cols) * UNIT_COLS];
    let mut rows = rows;
    for panel in out.chunks_exact_mut(panel_bytes(cols)).take(BLOCK_PANELS) {
        let (facts, units) = panel.split_at_mut(UNIT);
        let facts: &mut Facts = bytemuck::from_bytes_mut(facts);
        let units: &mut [Unit] = units.as_chunks_mut().0;
        for r in 0..PANEL {
            let Some(row) = rows.next() else {
                // Beyond the last row: a bound of minus infinity.
                facts.error[r] = f32::NEG_INFINITY;
                continue;
            };
            let span = row * cols..(row + 1) * cols;
            let f = match stored {
                StoredRows::F32(w) => ops.coarse_row_f32(&w[span], &mut codes),
                StoredRows::F16(w) => ops.coarse_row_f16(&w[span], &mut codes),
                StoredRows::Bf16(w) => ops.coarse_row_bf16(&w[span], &mut codes),
            };
            (facts.scale[r], facts.error[r], facts.norm[r]) = (f.scale, f.error, f.norm);
            pack(&codes, r, units);
        }
    }
}

/// Writes the codes of row `r` of a panel to their places.
fn pack(codes: &[i8], r: usize, units: &mut [Unit]) {
    let four = |c: &[i8]| u32::from_le_bytes([c[0] as u8, c[1] as u8, c[2] as u8, c[3] as u8]);
    for (codes, unit) in codes.as_chunks::<UNIT_COLS>().0.iter().zip(units) {
        let c = [four(&codes[..4]), four(&codes[4..8]), four(&codes[8..12]), four(&codes[12..])];
        let low = c.map(|c| c & 0x0f0f_0f0f);
        let high = c.map(|c| (c >> 4) & 0x0303_0303);
        let words = [low[0] | low[1] << 4, low[2] | low[3] << 4, high[0] | high[1] << 2 | high[2] << 4 | high[3] << 6];
        for (i, word) in words.into_iter().enumerate() {
            unit[64 * i + 4 * r..][..4].copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// `g` of the module's documentation: how far [`Ops::dots`] of `cols` products may be from the exact sum, relative to
/// the sum of their absolute values.
fn dot_error(cols: usize) -> f64 {
    let roundings = cols.div_ceil(LANES * TURNS) + (LANES * TURNS).ilog2() as usize;
    let mu = roundings as f64 * 2f64.powi(-24);
    mu / (1.0 - mu)
}

#[inline(always)]
fn row<S: Simd, W: Element>(s: S, w: &[W], codes: &mut [i8]) -> RowFacts {
    let cols = w.len();
    let (vectors, tail) = w.as_chunks::<LANES>();
    let mut largest = s.abs_bits(W::load(s, &pad(tail, W::ZERO)));
    for v in vectors {
        largest = s.max_i(largest, s.abs_bits(W::load(s, v)));
    }
    let largest = f32::from_bits(s.max_lane_i(largest) as u32);
    let g = dot_error(cols);
    let uncoded = |error| RowFacts { scale: 0.0, error, norm: 0.0 };
    if largest.is_nan() || largest >= HUGE {
        codes.fill(ZERO_CODE as i8);
        return uncoded(f32::INFINITY);
    }
    if largest < TINY {
        codes.fill(ZERO_CODE as i8);
        return uncoded(round_up(f64::from(largest) * (cols as f64).sqrt() * (1.0 + g) * (1.0 + 1e-9)));
    }
    let (mut scale, mut least) = (0.0, f32::INFINITY);
    for share in STEPS {
        let step = largest * share / MAX_Q;
        let [error, _] = code(s, w, step, None);
        if error < least {
            (scale, least) = (step, error);
        }
    }
    let [error, squares] = code(s, w, scale, Some(codes));
    // Both sums have a relative error below 2^-12 (each term is rounded at most 2^11 + 6 times, with k <= 2^17; a
    // difference itself is rounded once). The first loses less than 2^-149 for each term to subnormal numbers.
    let error = (f64::from(error) + cols as f64 * 2f64.powi(-148)).sqrt() * (1.0 + 2f64.powi(-11));
    let norm = f64::from(scale) * f64::from(squares).sqrt() * (1.0 + 2f64.powi(-11));
    let norm = round_up(norm);
    RowFacts { scale, error: round_up((error * (1.0 + g) + g * f64::from(norm)) * (1.0 + 1e-9)), norm }
}

/// With `q = round(w / scale)`, clipped at 31: the sums of `(w - scale q)^2` and of `q^2`. If `codes` is given,
/// `q + 32` is written there.
#[inline(always)]
fn code<S: Simd, W: Element>(s: S, w: &[W], scale: f32, mut codes: Option<&mut [i8]>) -> [f32; 2] {
    let by = Coder {
        inverse: s.splat(1.0 / scale),
        minus: s.splat(-scale),
        low: s.splat(-MAX_Q),
        high: s.splat(MAX_Q),
        zero: s.splat_i(ZERO_CODE),
    };
    let mut errors = [s.splat(0.0); TURNS];
    let mut squares = [s.splat(0.0); TURNS];
    let (vectors, tail) = w.as_chunks::<LANES>();
    let (turns, last) = vectors.as_chunks::<TURNS>();
    for (i, vectors) in turns.iter().enumerate() {
        for turn in 0..TURNS {
            let v = W::load(s, &vectors[turn]);
            by.add(s, v, &mut errors[turn], &mut squares[turn], place(&mut codes, TURNS * i + turn));
        }
    }
    for turn in 0..TURNS {
        let v = if turn < last.len() {
            W::load(s, &last[turn])
        } else if turn == last.len() && !tail.is_empty() {
            W::load(s, &pad(tail, W::ZERO))
        } else {
            break;
        };
        by.add(s, v, &mut errors[turn], &mut squares[turn], place(&mut codes, TURNS * turns.len() + turn));
    }
    [total(s, errors), total(s, squares)]
}

/// The place for the codes of vector `i`.
#[inline(always)]
fn place<'a>(codes: &'a mut Option<&mut [i8]>, i: usize) -> Option<&'a mut [i8; LANES]> {
    codes.as_deref_mut().map(|c| &mut c.as_chunks_mut().0[i])
}

/// Constants of [`code`].
struct Coder<S: Simd> {
    inverse: S::F,
    minus: S::F,
    low: S::F,
    high: S::F,
    zero: S::I,
}

impl<S: Simd> Coder<S> {
    #[inline(always)]
    fn add(&self, s: S, v: S::F, error: &mut S::F, squares: &mut S::F, codes: Option<&mut [i8; LANES]>) {
        let q = s.to_i(s.max(s.min(s.mul(v, self.inverse), self.high), self.low));
        let f = s.to_f(q);
        let e = s.fma(self.minus, f, v);
        *error = s.fma(e, e, *error);
        if let Some(codes) = codes {
            *squares = s.fma(f, f, *squares);
            s.store_i8(s.add_i(q, self.zero), codes);
        }
    }
}
