//! Rotary position embedding, in the variant that pairs the two halves of a head and in the one that pairs neighbours.
//!
//! Paper: arXiv:2104.09864. The two elements of pair `i` are rotated by the angle `position * theta^(-2 i / d)`; a pair
//! is element `i` of the first half and element `i` of the second, or elements `2 i` and `2 i + 1`.

use super::lanes::{LANES, Simd, pad};

ops! {
    /// Rotates one head, `x` is `[d]` f32, `cos` and `sin` are `[d / 2]`: with `h = d / 2`,
    /// `x[i] = x[i] cos[i] - x[i + h] sin[i]` and `x[i + h] = x[i + h] cos[i] + x[i] sin[i]`. Both products are rounded
    /// before the sum, like in frameworks without a fused operation for this.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn rope_half(x: &mut [f32], cos: &[f32], sin: &[f32]) = rope_half;

    /// Like [`Ops::rope_half`](crate::Ops::rope_half) with neighbours as pairs:
    /// `x[2 i] = x[2 i] cos[i] - x[2 i + 1] sin[i]` and `x[2 i + 1] = x[2 i + 1] cos[i] + x[2 i] sin[i]`.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn rope_neighbours(x: &mut [f32], cos: &[f32], sin: &[f32]) = rope_neighbours;
}

/// Plain code: the compiler vectorises it, and with every product rounded before its sum, no instruction set can round
/// differently.
#[inline(always)]
fn rope_neighbours<S: Simd>(_: S, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let h = cos.len();
    assert!(x.len() == 2 * h && sin.len() == h, "rope: a head of {}, {h} cosines, {} sines", x.len(), sin.len());
    for (([a, b], cos), sin) in x.as_chunks_mut().0.iter_mut().zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

#[inline(always)]
fn turn<S: Simd>(s: S, a: &mut [f32; LANES], b: &mut [f32; LANES], cos: &[f32; LANES], sin: &[f32; LANES]) {
    let (x, y, cos, sin) = (s.load(a), s.load(b), s.load(cos), s.load(sin));
    s.store(s.sub(s.mul(x, cos), s.mul(y, sin)), a);
    s.store(s.add(s.mul(y, cos), s.mul(x, sin)), b);
}

#[inline(always)]
fn rope_half<S: Simd>(s: S, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let h = cos.len();
    assert!(x.len() == 2 * h && sin.len() == h, "rope: a head of {}, {h} cosines, {} sines", x.len(), sin.len());
    let (a, b) = x.split_at_mut(h);
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks_mut(), b.as_chunks_mut());
    let ((cos, cos_tail), (sin, sin_tail)) = (cos.as_chunks(), sin.as_chunks());
    for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
        turn(s, a, b, cos, sin);
    }
    if !a_tail.is_empty() {
        let (mut a, mut b) = (pad(a_tail, 0.0), pad(b_tail, 0.0));
        turn(s, &mut a, &mut b, &pad(cos_tail, 0.0), &pad(sin_tail, 0.0));
        a_tail.copy_from_slice(&a[..a_tail.len()]);
        b_tail.copy_from_slice(&b[..b_tail.len()]);
    }
}

/// Cosines and sines of the angles of positions `0..len`.
///
/// Frequencies are f32 as in the published implementations: `1 / p` with `p` the f32 nearest to `theta^(2 i / d)`; an
/// angle is the f32 product of position and frequency; its cosine and sine are computed in f64 and rounded. Power,
/// cosine and sine come from the platform's f64 library: two platforms whose results differ in the last bit of f64 give
/// the same f32 except in about one case of 2^28.
///
/// A table may have a magnitude, by which each cosine and sine is multiplied in f32 after rounding: the attention
/// factor of YaRN (arXiv:2309.00071) and LongRoPE.
#[derive(Clone, Debug)]
pub struct RopeTable {
    frequencies: Vec<f32>,
    magnitude: f32,
    /// `[len, d / 2]`
    cos: Vec<f32>,
    /// `[len, d / 2]`
    sin: Vec<f32>,
    len: usize,
}

impl RopeTable {
    /// A table for heads of `head_dim` elements, a multiple of 2, and positions `0..len`.
    pub fn new(len: usize, head_dim: usize, theta: f32) -> Self {
        let frequency = |i: usize| {
            let exponent = (2 * i) as f32 / head_dim as f32;
            1.0 / f64::from(theta).powf(f64::from(exponent)) as f32
        };
        Self::from_frequencies(len, (0..head_dim / 2).map(frequency).collect())
    }

    /// A table for the given frequencies, `[d / 2]`: for models that scale them.
    pub fn from_frequencies(len: usize, frequencies: Vec<f32>) -> Self {
        let mut table = Self { frequencies, magnitude: 1.0, cos: Vec::new(), sin: Vec::new(), len: 0 };
        table.grow(len);
        table
    }

    /// This table with the given magnitude; the positions are kept.
    #[must_use]
    pub fn with_magnitude(mut self, magnitude: f32) -> Self {
        let len = std::mem::take(&mut self.len);
        (self.cos, self.sin, self.magnitude) = (Vec::new(), Vec::new(), magnitude);
        self.grow(len);
        self
    }

    /// Adds missing positions up to `len`.
    pub fn grow(&mut self, len: usize) {
        for position in self.len..len {
            for &frequency in &self.frequencies {
                let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
                self.cos.push(cos as f32 * self.magnitude);
                self.sin.push(sin as f32 * self.magnitude);
            }
        }
        self.len = self.len.max(len);
    }

    /// Number of positions.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there are no positions.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Frequencies, `[d / 2]`.
    pub fn frequencies(&self) -> &[f32] {
        &self.frequencies
    }

    /// Cosines of `position`, `[d / 2]`.
    ///
    /// # Panics
    /// If `position` is not in the table.
    pub fn cos(&self, position: usize) -> &[f32] {
        self.row(&self.cos, position)
    }

    /// Sines of `position`, `[d / 2]`.
    ///
    /// # Panics
    /// If `position` is not in the table.
    pub fn sin(&self, position: usize) -> &[f32] {
        self.row(&self.sin, position)
    }

    fn row<'a>(&self, values: &'a [f32], position: usize) -> &'a [f32] {
        assert!(position < self.len, "position {position} of a table of {}", self.len);
        let half = self.frequencies.len();
        &values[position * half..(position + 1) * half]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magnitudes_multiply_cosines_and_sines_of_all_positions() {
        let plain = RopeTable::new(5, 8, 10_000.0);
        let mut scaled = RopeTable::new(3, 8, 10_000.0).with_magnitude(1.25);
        scaled.grow(5);
        assert_eq!((scaled.len(), scaled.frequencies()), (5, plain.frequencies()));
        for position in 0..5 {
            let times = |v: &[f32]| v.iter().map(|v| v * 1.25).collect::<Vec<f32>>();
            assert_eq!(scaled.cos(position), times(plain.cos(position)));
            assert_eq!(scaled.sin(position), times(plain.sin(position)));
        }
        let one = plain.clone().with_magnitude(1.0);
        assert_eq!((one.cos(4), one.sin(4)), (plain.cos(4), plain.sin(4)));
    }
}
