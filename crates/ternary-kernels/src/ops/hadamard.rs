//! The Hadamard transform: orthonormal, in place, in blocks of a power of two.
//!
//! `H_1 = (1)` and `H_2n = [[H_n, H_n], [H_n, -H_n]] / sqrt(2)`, in Sylvester's order; `H` is symmetric and its own
//! inverse, so it is also its own backward pass. A row whose length is not a power of two is transformed in blocks,
//! each separately: the matrix is block-diagonal with `H_block` on the diagonal, with the same properties.
//!
//! The order of the arithmetic is fixed: sums and differences of values at distance 1, then 2, 4, ... up to half a
//! block, then one product with `1 / sqrt(block)`, each rounded once. The number of stages per pass does not change the
//! bits.
//!
//! Paper: arXiv:2504.18415, section 2.1 (power-of-two lengths; blocks are this library's convention for others).

use super::Ops;
use super::lanes::{LANES, Simd, pad};
use crate::{Int4RowMut, Int8GroupRowMut, Int8RowMut, Int16RowMut, KernelError};

ops! {
    fn hadamard_blocks(x: &mut [f32], block: usize) = hadamard;
}

/// The largest block in which `len` values can be transformed: the largest power of two that divides `len`. 1, for odd
/// lengths, means that there is none.
///
/// ```
/// use ternary_kernels::ops::largest_hadamard_block;
/// assert_eq!([2048, 2560, 6912, 77].map(largest_hadamard_block), [2048, 512, 256, 1]);
/// ```
pub fn largest_hadamard_block(len: usize) -> usize {
    if len == 0 { 1 } else { 1 << len.trailing_zeros() }
}

/// Whether `len` values can be transformed in blocks of `block`.
///
/// # Errors
/// [`KernelError::HadamardBlock`] for a block that is not a power of two from 2 on or does not divide `len`.
pub fn check_hadamard_block(len: usize, block: usize) -> Result<(), KernelError> {
    let bad = |reason| Err(KernelError::HadamardBlock { len, block, reason });
    if block < 2 || !block.is_power_of_two() {
        return bad("block sizes are powers of two from 2 on");
    }
    if !len.is_multiple_of(block) {
        return bad(match len % 2 {
            0 => "the block size must divide the number of values",
            _ => "an odd number of values cannot be transformed",
        });
    }
    Ok(())
}

/// Steps before a row is quantised: norm, then Hadamard transform, each optional.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prepare<'a> {
    /// Gain and epsilon of an RMSNorm, see [`Ops::rms_norm`].
    pub norm: Option<(&'a [f32], f32)>,
    /// Block of a Hadamard transform, see [`Ops::hadamard`].
    pub hadamard: Option<usize>,
}

impl Ops {
    /// Transforms `x`, `[k]` f32, in place, in blocks of `block`: `x <- H x` for each block. Applied twice, it restores
    /// `x`, up to rounding.
    ///
    /// ```
    /// let ops = ternary_kernels::Ops::selected()?;
    /// let mut x = [1.0, 2.0, 3.0, 4.0, 8.0, 0.0, 0.0, 0.0];
    /// ops.hadamard(&mut x, 4)?;
    /// assert_eq!(x, [5.0, -1.0, -2.0, 0.0, 4.0, 4.0, 4.0, 4.0]);
    /// # Ok::<(), ternary_kernels::KernelError>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`check_hadamard_block`].
    pub fn hadamard(self, x: &mut [f32], block: usize) -> Result<(), KernelError> {
        check_hadamard_block(x.len(), block)?;
        self.hadamard_blocks(x, block);
        Ok(())
    }

    /// Norm, Hadamard transform and [`Ops::quantize_int8`] of one row, fused, with the bits of these steps; `x` is
    /// `[k]` f32, `scratch` is `[k]` or longer and used only for the transform.
    ///
    /// # Errors
    /// The errors of [`Ops::quantize_int8`] and [`check_hadamard_block`].
    ///
    /// # Panics
    /// If lengths differ, or `scratch` is too short for a transform.
    pub fn prepare_int8(
        self,
        x: &[f32],
        prepare: Prepare<'_>,
        scratch: &mut [f32],
        row: Int8RowMut<'_>,
    ) -> Result<(), KernelError> {
        match (self.rotated(x, prepare, scratch)?, prepare.norm) {
            (Some(x), _) => self.quantize_int8(x, row),
            (None, Some((gain, eps))) => self.rms_norm_quantize(x, gain, eps, row),
            (None, None) => self.quantize_int8(x, row),
        }
    }

    /// Like [`Ops::prepare_int8`] with [`Ops::quantize_int4`].
    ///
    /// # Errors
    /// The errors of [`Ops::quantize_int4`] and [`check_hadamard_block`].
    ///
    /// # Panics
    /// Like [`Ops::prepare_int8`].
    pub fn prepare_int4(
        self,
        x: &[f32],
        prepare: Prepare<'_>,
        scratch: &mut [f32],
        row: Int4RowMut<'_>,
    ) -> Result<(), KernelError> {
        match (self.rotated(x, prepare, scratch)?, prepare.norm) {
            (Some(x), _) => self.quantize_int4(x, row),
            (None, Some((gain, eps))) => self.rms_norm_quantize_int4(x, gain, eps, row),
            (None, None) => self.quantize_int4(x, row),
        }
    }

    /// Like [`Ops::prepare_int8`] with [`Ops::quantize_int16`].
    ///
    /// # Errors
    /// The errors of [`Ops::quantize_int16`] and [`check_hadamard_block`].
    ///
    /// # Panics
    /// Like [`Ops::prepare_int8`].
    pub fn prepare_int16(
        self,
        x: &[f32],
        prepare: Prepare<'_>,
        scratch: &mut [f32],
        row: Int16RowMut<'_>,
    ) -> Result<(), KernelError> {
        match (self.rotated(x, prepare, scratch)?, prepare.norm) {
            (Some(x), _) => self.quantize_int16(x, row),
            (None, Some((gain, eps))) => self.rms_norm_quantize_int16(x, gain, eps, row),
            (None, None) => self.quantize_int16(x, row),
        }
    }

    /// Like [`Ops::prepare_int8`] with [`Ops::quantize_int8_groups`].
    ///
    /// # Errors
    /// The errors of [`Ops::quantize_int8_groups`] and [`check_hadamard_block`].
    ///
    /// # Panics
    /// Like [`Ops::prepare_int8`].
    pub fn prepare_int8_groups(
        self,
        x: &[f32],
        prepare: Prepare<'_>,
        scratch: &mut [f32],
        row: Int8GroupRowMut<'_>,
    ) -> Result<(), KernelError> {
        match (self.rotated(x, prepare, scratch)?, prepare.norm) {
            (Some(x), _) => self.quantize_int8_groups(x, row),
            (None, Some((gain, eps))) => self.rms_norm_quantize_int8_groups(x, gain, eps, row),
            (None, None) => self.quantize_int8_groups(x, row),
        }
    }

    /// The row after norm and transform, in `scratch`; `None` if there is no transform.
    fn rotated<'s>(
        self,
        x: &[f32],
        prepare: Prepare<'_>,
        scratch: &'s mut [f32],
    ) -> Result<Option<&'s [f32]>, KernelError> {
        let Some(block) = prepare.hadamard else { return Ok(None) };
        assert!(x.len() <= scratch.len(), "a transform of {} values in a scratch of {}", x.len(), scratch.len());
        let scratch = &mut scratch[..x.len()];
        match prepare.norm {
            Some((gain, eps)) => self.rms_norm(x, gain, eps, scratch),
            None => scratch.copy_from_slice(x),
        }
        self.hadamard(scratch, block)?;
        Ok(Some(scratch))
    }
}

/// Signs of the lanes in the stages of distance 1, 2, 4 and 8.
static SIGNS: [[f32; LANES]; 4] = {
    let mut signs = [[1.0; LANES]; 4];
    let mut l = 0;
    while l < 4 * LANES {
        if (l % LANES) >> (l / LANES) & 1 == 1 {
            signs[l / LANES][l % LANES] = -1.0;
        }
        l += 1;
    }
    signs
};

/// `1 / sqrt(block)`, rounded once.
fn factor(block: usize) -> f32 {
    let stages = block.trailing_zeros();
    let half = 1.0 / (1u64 << (stages / 2)) as f32;
    if stages.is_multiple_of(2) { half } else { half * std::f32::consts::FRAC_1_SQRT_2 }
}

#[inline(always)]
fn hadamard<S: Simd>(s: S, x: &mut [f32], block: usize) {
    let f = s.splat(factor(block));
    if block <= LANES {
        let (vectors, tail) = x.as_chunks_mut();
        for v in vectors {
            s.store(s.mul(within(s, s.load(v), block), f), v);
        }
        if !tail.is_empty() {
            let mut last = pad(tail, 0.0);
            s.store(s.mul(within(s, s.load(&last), block), f), &mut last);
            tail.copy_from_slice(&last[..tail.len()]);
        }
        return;
    }
    for x in x.chunks_exact_mut(block) {
        let (v, _) = x.as_chunks_mut::<LANES>();
        if v.len() == 2 {
            let (a, b) = (within(s, s.load(&v[0]), LANES), within(s, s.load(&v[1]), LANES));
            s.store(s.mul(s.add(a, b), f), &mut v[0]);
            s.store(s.mul(s.sub(a, b), f), &mut v[1]);
            continue;
        }
        // Six stages in the first pass, then two in each, and one in the last if their number is odd.
        let only = v.len() == 4;
        for [a, b, c, d] in v.as_chunks_mut().0 {
            let quad = [
                within(s, s.load(a), LANES),
                within(s, s.load(b), LANES),
                within(s, s.load(c), LANES),
                within(s, s.load(d), LANES),
            ];
            store_quad(s, two_stages(s, quad), only.then_some(f), [a, b, c, d]);
        }
        let mut distance = 4;
        while 4 * distance <= v.len() {
            let f = (4 * distance == v.len()).then_some(f);
            for v in v.chunks_exact_mut(4 * distance) {
                let (ab, cd) = v.split_at_mut(2 * distance);
                let ((a, b), (c, d)) = (ab.split_at_mut(distance), cd.split_at_mut(distance));
                for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
                    let quad = two_stages(s, [s.load(a), s.load(b), s.load(c), s.load(d)]);
                    store_quad(s, quad, f, [a, b, c, d]);
                }
            }
            distance *= 4;
        }
        if distance < v.len() {
            let (a, b) = v.split_at_mut(distance);
            for (a, b) in a.iter_mut().zip(b) {
                let (x, y) = (s.load(a), s.load(b));
                s.store(s.mul(s.add(x, y), f), a);
                s.store(s.mul(s.sub(x, y), f), b);
            }
        }
    }
}

/// The stages within a vector, up to blocks of `block`.
#[inline(always)]
fn within<S: Simd>(s: S, v: S::F, block: usize) -> S::F {
    // A product with 1 or -1 is exact, so each lane is one sum or difference.
    let mut v = s.add(s.mul(v, s.load(&SIGNS[0])), s.swap::<1>(v));
    if block > 2 {
        v = s.add(s.mul(v, s.load(&SIGNS[1])), s.swap::<2>(v));
    }
    if block > 4 {
        v = s.add(s.mul(v, s.load(&SIGNS[2])), s.swap::<4>(v));
    }
    if block > 8 {
        v = s.add(s.mul(v, s.load(&SIGNS[3])), s.swap::<8>(v));
    }
    v
}

/// Two stages between four vectors at equal distances.
#[inline(always)]
fn two_stages<S: Simd>(s: S, [a, b, c, d]: [S::F; 4]) -> [S::F; 4] {
    let (a, b, c, d) = (s.add(a, b), s.sub(a, b), s.add(c, d), s.sub(c, d));
    [s.add(a, c), s.add(b, d), s.sub(a, c), s.sub(b, d)]
}

/// Stores four vectors, multiplied by `factor` if it is given.
#[inline(always)]
fn store_quad<S: Simd>(s: S, quad: [S::F; 4], factor: Option<S::F>, to: [&mut [f32; LANES]; 4]) {
    for (v, to) in quad.into_iter().zip(to) {
        match factor {
            Some(f) => s.store(s.mul(v, f), to),
            None => s.store(v, to),
        }
    }
}
