//! Upper bounds of the logits of all rows of a head, from a third of the bytes.
//!
//! The head of a language model is its largest stream per token: 657 MB in half precision at 128256 x 2560. A caller
//! that only needs the best logits need not read it all. A [`CoarsePlane`] holds six bits for each weight and, for each
//! row, how far they are from the stored weights. [`Ops::coarse_bounds`](crate::Ops::coarse_bounds) turns activations
//! into a number for each row that its logit **provably** does not exceed, and only rows whose number reaches the best
//! known logits have to be computed from the stored weights. The proof covers the logit as it would be computed, the
//! f32 result of [`Ops::dots`](crate::Ops::dots) with its rounding, not an ideal number near it.
//!
//! # The bound
//! All norms are Euclidean, `u = 2^-24` is the rounding of f32. A row of the head is `w`, split into `w = s q + e` with
//! integers `q` in -31..=31; the activations are `x`, split into `x = a p + d` with integers `p = 256 h + l` in
//! -32512..=32512, `h` in -127..=127, `l` in -128..=127. Then, exactly,
//!
//! ```text
//! w.x  =  s a (q.p)  +  s (q.d)  +  e.x
//! ```
//!
//! and the Cauchy-Schwarz inequality bounds the last two: `|s q.d| <= |s q| |d|` and `|e.x| <= |e| |x|`. Three more
//! differences lie between that and the comparison of two floats:
//!
//! 1. *The logit `L` is rounded.* [`Ops::dots`](crate::Ops::dots) adds each product to its lane by a fused multiply-add and
//!    adds the lanes over a tree, so that no product passes through more than `m = ceil(k / 64) + 6` roundings. Hence
//!    (Higham, *Accuracy and Stability of Numerical Algorithms*, section 3.1) `|L - w.x| <= g sum_i |w_i x_i| <= g |w| |x|`
//!    with `g = m u / (1 - m u)`, and `|w| <= |s q| + |e|`. A fused multiply-add whose result is subnormal errs by at most
//!    `2^-150` more, all of them together by less than `2^-131`. No partial sum overflows, because rows and activations
//!    that could cause one are treated separately (below).
//! 2. *The estimate is rounded.* `q.h` and `q.l` are exact in i32. The estimate is
//!    `c = fl(fl(s a) fl(256 fl(q.h) + fl(q.l)))`, each `fl` one rounding, of which four act on each of the two integers:
//!    `|c - s a q.p| <= 4.01 u |s q| H` with `H = a (256 |h| + |l|)`, and `|c| <= 1.01 |s q| H`. Nothing in it is subnormal,
//!    because `s a` is not and the integers are integers.
//! 3. *The sum `U = fl(c + B)` is rounded:* by at most `u (|c| + B) / (1 - u)`.
//!
//! So `L <= U` if `B` is at least `|x| ((1 + g) |e| + g |s q|) + |s q| (|d| + 5.1 u H) + 2^-131`, and `2 u` of itself
//! more. The stored and computed values are
//!
//! ```text
//! per row          N >= |s q|,    E >= (1 + g) |e| + g N
//! per activations  X >= |x| (1 + 2^-20),    Y >= (|d| + 8 u H) (1 + 2^-20)
//! B = fl(X E + fl(Y N + 2^-120))
//! ```
//!
//! where the factors `1 + 2^-20 = 1 + 16 u` cover the three roundings of `B` and that of `U`, and every `>=` is a
//! computation in f64, or in f32 with its own error bound, rounded upward. With `k` up to [`MAX_COLS`], `m u < 2^-12`.
//!
//! *Special cases.* A row with a value that is not finite or not below `2^50` gets `E` = infinity, so that it is always
//! computed exactly, and yields the NaN or infinity that the plain head yields. A row without a value of at least
//! `2^-56` gets `s = 0`: all of it is `e`. [`CoarseBatch::push`] rejects activations that are not finite or whose
//! largest is not in `2^-40..2^50`; then every row has to be computed. Within these limits `|w| |x| < 2^118`, so that
//! nothing overflows.
//!
//! For rows with normally distributed values `|e|` is about 3 % of `|w|`, and at 2560 columns `B` is some 1.6
//! standard deviations of the logits: at most a few hundred of 128256 rows can be the best one.
//!
//! # Layout
//! Sixteen rows are a *panel*, sixteen columns of a panel a *unit* of three times 64 bytes; with `c(j)` the code
//! `q + 32` of row `r`, column `4 j + i` of the unit, byte `4 r + i`
//!
//! ```text
//! of the first  64:  c(0) & 15 | (c(1) & 15) << 4
//! of the second 64:  c(2) & 15 | (c(3) & 15) << 4
//! of the third  64:  c(0) >> 4 | (c(1) >> 4) << 2 | (c(2) >> 4) << 4 | (c(3) >> 4) << 6
//! ```
//!
//! so that four codes of each row are in one lane of a register, as `vpdpbusd` needs them, and sums end up one row per
//! lane. A panel begins with a unit that holds sixteen `s`, sixteen `E` and sixteen `N`. Four panels are a *block*; the
//! last block is filled up with rows whose bound is minus infinity. A plane is one sequential stream.

use std::ops::Range;

use half::{bf16, f16};

use super::Ops;
use crate::{AlignedBuf, ColsMut, KernelError, SharedBytes, Team};

mod bounds;
mod build;
mod dot;
#[cfg(target_arch = "x86_64")]
mod dot_sse41;
#[cfg(target_arch = "wasm32")]
mod dot_wasm;
#[cfg(target_arch = "x86_64")]
mod dot_x86;
mod input;
#[cfg(test)]
mod tests;

pub use input::CoarseBatch;

/// Rows of a panel.
const PANEL: usize = 16;
const BLOCK_PANELS: usize = 4;
/// Rows of a block, the unit in which rows are shared among threads.
pub const BLOCK_ROWS: usize = PANEL * BLOCK_PANELS;
/// Blocks that are built between two progress reports: enough that waiting for the last of them does not matter.
const STRIP_BLOCKS: usize = 64;
/// Columns of a unit.
const UNIT_COLS: usize = 16;
/// Bytes of a unit.
const UNIT: usize = 192;
/// The code of weight 0.
const ZERO_CODE: i32 = 32;
/// The largest `|q|`.
const MAX_Q: f32 = 31.0;
/// The longest row for which the proof holds; integer sums fit an i32 up to there, too.
pub const MAX_COLS: usize = 1 << 17;

/// 16 columns of 16 rows.
type Unit = [u8; UNIT];

const _: () = assert!(UNIT == 3 * PANEL * 4 && PANEL * UNIT_COLS * 6 == UNIT * 8);
const _: () = assert!(MAX_COLS as u64 * 63 * 128 < 1 << 31);

/// The stored rows of a head, `[rows, cols]` row-major.
#[derive(Clone, Copy, Debug)]
pub enum StoredRows<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Half precision.
    F16(&'a [f16]),
    /// bfloat16.
    Bf16(&'a [bf16]),
}

impl StoredRows<'_> {
    fn len(self) -> usize {
        match self {
            StoredRows::F32(w) => w.len(),
            StoredRows::F16(w) => w.len(),
            StoredRows::Bf16(w) => w.len(),
        }
    }
}

/// Six bits for each weight of a head, and per row the bounds of their errors; see the [module documentation](self).
#[derive(Clone, Debug)]
pub struct CoarsePlane {
    rows: usize,
    cols: usize,
    /// Panels, each a unit of row facts and then its codes.
    units: SharedBytes,
}

impl CoarsePlane {
    /// Reads all of `stored`, `[rows, cols]`, once, with the threads of `team`.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] if `stored` holds another number of values; [`KernelError::RowTooLong`] for more
    /// than [`MAX_COLS`] columns; [`KernelError::TooLarge`].
    pub fn build(ops: Ops, team: &Team, rows: usize, cols: usize, stored: StoredRows<'_>) -> Result<Self, KernelError> {
        Self::build_watched(ops, team, (rows, cols), stored, &|_| ())
    }

    /// Like [`CoarsePlane::build`]; calls `done` with the rows of `stored` that were read, some thousand at a time.
    ///
    /// # Errors
    /// The errors of [`CoarsePlane::build`].
    pub fn build_watched(
        ops: Ops,
        team: &Team,
        (rows, cols): (usize, usize),
        stored: StoredRows<'_>,
        done: &dyn Fn(Range<usize>),
    ) -> Result<Self, KernelError> {
        if rows.checked_mul(cols) != Some(stored.len()) {
            let (expected, got) = (rows.saturating_mul(cols), stored.len());
            return Err(KernelError::ShapeMismatch { op: "coarse plane", what: "stored values", expected, got });
        }
        let len = Self::byte_len_of(rows, cols)?;
        let block_bytes = BLOCK_PANELS * panel_bytes(cols);
        let mut units = AlignedBuf::<u8>::for_weights(len);
        for (strip, units) in units.chunks_mut((STRIP_BLOCKS * block_bytes).max(1)).enumerate() {
            let start = strip * STRIP_BLOCKS * BLOCK_ROWS;
            team.for_each_chunk(units, block_bytes, |block, bytes| {
                let first = start + block * BLOCK_ROWS;
                build::block(ops, stored, cols, first..rows.min(first + BLOCK_ROWS), bytes);
            });
            done(start..rows.min(start + STRIP_BLOCKS * BLOCK_ROWS));
        }
        Ok(Self { rows, cols, units: SharedBytes::new(units) })
    }

    /// A plane that was built before, from its [`CoarsePlane::bytes`], for example in a file mapping. They are not
    /// read: a plane of another head, or a damaged one, selects other tokens.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] for a wrong number of bytes; [`KernelError::RowTooLong`];
    /// [`KernelError::TooLarge`].
    pub fn from_shared(rows: usize, cols: usize, bytes: SharedBytes) -> Result<Self, KernelError> {
        let (expected, got) = (Self::byte_len_of(rows, cols)?, bytes.len());
        if expected != got {
            return Err(KernelError::ShapeMismatch { op: "coarse plane", what: "bytes", expected, got });
        }
        // Row facts are read as floats in place.
        let aligned = (bytes.as_ptr() as usize).is_multiple_of(align_of::<Facts>());
        let units = if aligned { bytes } else { SharedBytes::new(AlignedBuf::from_slice(&bytes)) };
        Ok(Self { rows, cols, units })
    }

    /// Bytes of the plane of a `[rows, cols]` head.
    ///
    /// # Errors
    /// [`KernelError::RowTooLong`] for more than [`MAX_COLS`] columns; [`KernelError::TooLarge`].
    pub fn byte_len_of(rows: usize, cols: usize) -> Result<usize, KernelError> {
        if cols > MAX_COLS {
            return Err(KernelError::RowTooLong { kernel: "coarse plane".into(), cols, max_cols: MAX_COLS });
        }
        let len = rows.div_ceil(BLOCK_ROWS).checked_mul(BLOCK_PANELS * panel_bytes(cols));
        let len = len.filter(|&b| isize::try_from(b).is_ok());
        len.ok_or(KernelError::TooLarge { op: "coarse plane", rows, cols })
    }

    /// All bytes, for a file.
    pub fn bytes(&self) -> &[u8] {
        &self.units
    }

    /// Rows of the head.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Columns of the head.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// Blocks of [`BLOCK_ROWS`] rows, the last one filled up.
    pub fn blocks(&self) -> usize {
        self.rows.div_ceil(BLOCK_ROWS)
    }
    /// Bytes in memory, all of which a pass over all blocks reads.
    pub fn byte_len(&self) -> usize {
        self.units.len()
    }

    /// Row facts and codes of panel `p`.
    fn panel(&self, p: usize) -> (&Facts, &[Unit]) {
        let bytes = panel_bytes(self.cols);
        split_panel(&self.units[p * bytes..(p + 1) * bytes])
    }
}

/// Facts about the rows of a panel.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Facts {
    /// `s`.
    scale: [f32; PANEL],
    /// `E`.
    error: [f32; PANEL],
    /// `N`.
    norm: [f32; PANEL],
}

const _: () = assert!(size_of::<Facts>() == UNIT);

/// Units of columns.
fn units_of(cols: usize) -> usize {
    cols.div_ceil(UNIT_COLS)
}

fn panel_bytes(cols: usize) -> usize {
    (1 + units_of(cols)) * UNIT
}

fn split_panel(bytes: &[u8]) -> (&Facts, &[Unit]) {
    let (facts, codes) = bytes.split_at(UNIT);
    (bytemuck::from_bytes(facts), codes.as_chunks().0)
}

impl Ops {
    /// Writes, for each row of `blocks` and each of the `n` activations of `x`, a number that the row's logit does not
    /// exceed to `upper`, `[n, blocks * 64]`, and the largest of each block to `maxima`, `[n, blocks]`; rows after the
    /// last one have minus infinity. The bits are the same on every instruction set.
    ///
    /// # Panics
    /// If `upper` or `maxima` has another shape, `blocks` exceeds the plane, or `x` was made for other columns.
    pub fn coarse_bounds(
        self,
        plane: &CoarsePlane,
        x: &CoarseBatch,
        blocks: Range<usize>,
        upper: &mut ColsMut<'_, f32>,
        maxima: &mut ColsMut<'_, f32>,
    ) {
        let n = x.len();
        assert!(
            x.cols() == plane.cols && upper.n() == n && maxima.n() == n,
            "bounds of {n} activations of {} columns, head of {}",
            x.cols(),
            plane.cols
        );
        assert!(
            upper.width() == blocks.len() * BLOCK_ROWS
                && maxima.width() == blocks.len()
                && blocks.end <= plane.blocks(),
            "bounds of blocks {blocks:?} to {} rows and {} maxima",
            upper.width(),
            maxima.width()
        );
        let mut sums = [[dot::ZERO; CoarseBatch::MAX]; BLOCK_PANELS];
        for (i, block) in blocks.enumerate() {
            for (p, sums) in sums.iter_mut().enumerate() {
                let (_, codes) = plane.panel(block * BLOCK_PANELS + p);
                self.coarse_dots(codes, x, &mut sums[..n]);
            }
            #[expect(clippy::needless_range_loop, reason = "`t` is the second index of `sums`")]
            for t in 0..n {
                let mut largest = f32::NEG_INFINITY;
                let out = &mut upper.row_mut(t)[i * BLOCK_ROWS..][..BLOCK_ROWS];
                for (p, out) in out.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
                    let (facts, _) = plane.panel(block * BLOCK_PANELS + p);
                    largest = largest.max(self.coarse_panel_bounds(facts, &sums[p][t], x.facts(t), out));
                }
                maxima.row_mut(t)[i] = largest;
            }
        }
    }
}
