//! Activations in sixteen bits, as two digits, with bounds of their errors.

use super::{UNIT_COLS, ZERO_CODE, units_of};
use crate::AlignedBuf;
use crate::ops::Ops;
use crate::ops::lanes::Simd;

/// The digits for one unit: sixteen `h`, then sixteen `l`, as raw bytes of int8.
pub(super) type Digits = [u8; 2 * UNIT_COLS];

/// The largest `|p|`: both digits fit an int8.
const MAX_P: f32 = 127.0 * 256.0;

/// Up to [`CoarseBatch::MAX`] rows of activations, prepared for [`Ops::coarse_bounds`](crate::Ops::coarse_bounds).
#[derive(Debug)]
pub struct CoarseBatch {
    cols: usize,
    digits: AlignedBuf<u8>,
    facts: [InputFacts; Self::MAX],
    len: usize,
}

/// Facts about one row of activations; names as in the module's documentation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InputFacts {
    /// `a`.
    pub(super) step: f32,
    /// 32 times the sum of the `h`, which codes add to `q.h`.
    pub(super) zero_high: i32,
    /// 32 times the sum of the `l`.
    pub(super) zero_low: i32,
    /// `X`.
    pub(super) norm: f32,
    /// `Y`.
    pub(super) rest: f32,
}

impl CoarseBatch {
    /// The maximum number of activations that share a pass over a plane.
    pub const MAX: usize = 16;

    /// An empty batch for rows of `cols` activations; nothing is allocated later.
    pub fn new(cols: usize) -> Self {
        let digits = AlignedBuf::zeroed(Self::MAX * units_of(cols) * size_of::<Digits>());
        Self { cols, digits, facts: Default::default(), len: 0 }
    }

    /// Activations in the batch.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Activations of each row.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// Removes all activations.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Adds a row of activations, `[cols]` f32. Returns `false` and adds nothing if one of them is not finite, the
    /// largest absolute value is not in `2^-40..2^50` (for example if all are 0), or the batch is full: then no bound
    /// is known, so every row of the head has to be computed.
    ///
    /// # Panics
    /// If `x` has another length.
    #[must_use]
    pub fn push(&mut self, ops: Ops, x: &[f32]) -> bool {
        assert_eq!(x.len(), self.cols, "a batch of rows of {} activations", self.cols);
        if self.len == Self::MAX {
            return false;
        }
        let len = units_of(self.cols);
        let digits = &mut self.digits.as_chunks_mut().0[self.len * len..][..len];
        let usable = ops.coarse_digits(x, digits, &mut self.facts[self.len]);
        self.len += usize::from(usable);
        usable
    }

    pub(super) fn facts(&self, t: usize) -> &InputFacts {
        &self.facts[t]
    }

    /// The digits of row `t`, one per unit.
    pub(super) fn digits(&self, t: usize) -> &[Digits] {
        let len = units_of(self.cols);
        &self.digits.as_chunks().0[t * len..][..len]
    }
}

ops! {
    /// Splits `x` into digits and completes `facts`; `false` if it is outside the limits.
    fn coarse_digits(x: &[f32], digits: &mut [Digits], facts: &mut InputFacts) -> bool = split;
}

/// Plain loops over arrays of sixteen, which the compiler vectorises for the instruction set around them.
#[inline(always)]
fn split<S: Simd>(_: S, x: &[f32], digits: &mut [Digits], facts: &mut InputFacts) -> bool {
    let mut largest = [0u32; UNIT_COLS];
    for v in x.chunks(UNIT_COLS) {
        for (m, v) in largest.iter_mut().zip(v) {
            // As integers, absolute values are in order, infinity and NaN last.
            *m = (*m).max(v.abs().to_bits());
        }
    }
    let largest = f32::from_bits(largest.into_iter().fold(0, u32::max));
    if !(2f32.powi(-40)..2f32.powi(50)).contains(&largest) {
        return false;
    }
    let (step, inverse) = (largest / MAX_P, MAX_P / largest);
    let mut squares = [[0.0f64; UNIT_COLS]; 2];
    let mut digit_squares = [[0i64; UNIT_COLS]; 2];
    let mut digit_sums = [[0i32; UNIT_COLS]; 2];
    for (v, out) in x.chunks(UNIT_COLS).zip(digits) {
        let mut lanes = [0.0; UNIT_COLS];
        lanes[..v.len()].copy_from_slice(v);
        let (high_out, low_out) = out.split_at_mut(UNIT_COLS);
        for l in 0..UNIT_COLS {
            /// `1.5 * 2^23`: adding it leaves the nearest integer in the low bits of the sum.
            const ROUNDER: f32 = 12_582_912.0;
            // |x / largest| <= 1, so that |p| <= 32512 (1 + 3 u) before it is rounded to an integer.
            let p = (lanes[l] * inverse + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits()) as i32;
            let high = (p + 128) >> 8;
            let low = p - (high << 8);
            // The product is exact in f64, the difference is rounded once.
            let (value, rest) = (f64::from(lanes[l]), f64::from(lanes[l]) - f64::from(step) * f64::from(p));
            squares[0][l] += value * value;
            squares[1][l] += rest * rest;
            digit_squares[0][l] += i64::from(high * high);
            digit_squares[1][l] += i64::from(low * low);
            digit_sums[0][l] += high;
            digit_sums[1][l] += low;
            high_out[l] = high as u8;
            low_out[l] = low as u8;
        }
    }
    // Sums of at most 2^17 squares of f64, whose relative error is below 2^-35.
    let norm = |squares: [f64; UNIT_COLS]| squares.iter().sum::<f64>().sqrt() * (1.0 + 1e-9);
    let digit_norm = |squares: [i64; UNIT_COLS]| (squares.iter().sum::<i64>() as f64).sqrt() * (1.0 + 1e-9);
    let [high_norm, low_norm] = digit_squares.map(digit_norm);
    let [x_norm, rest_norm] = squares.map(norm);
    let (u, slack) = (2f64.powi(-24), 1.0 + 2f64.powi(-20));
    let h = f64::from(step) * (256.0 * high_norm + low_norm);
    *facts = InputFacts {
        step,
        zero_high: ZERO_CODE * digit_sums[0].iter().sum::<i32>(),
        zero_low: ZERO_CODE * digit_sums[1].iter().sum::<i32>(),
        norm: round_up(x_norm * slack),
        rest: round_up((rest_norm + 8.0 * u * h) * slack * (1.0 + 1e-9)),
    };
    true
}

/// The smallest f32 that is not below `x`.
pub(super) fn round_up(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) < x { near.next_up() } else { near }
}
