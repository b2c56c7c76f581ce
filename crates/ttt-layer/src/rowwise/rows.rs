//! Rows of a buffer, and causal convolutions over them.

use std::ops::Range;

use smallvec::SmallVec;
use ternary_kernels::{AlignedBuf, Ops};

use crate::TttError;
use crate::parameters::ConvParameters;

/// Some columns of all rows of a row-major buffer, to read: the queries within one product of queries, keys and values,
/// for example.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    data: &'a [f32],
    stride: usize,
    start: usize,
    cols: usize,
}

impl<'a> Rows<'a> {
    /// All of `data`, `[n, cols]`.
    ///
    /// # Panics
    /// If `data` is not whole rows.
    pub fn new(data: &'a [f32], cols: usize) -> Self {
        Self::columns(data, cols, 0..cols)
    }

    /// The columns `cols` of `data`, `[n, stride]`.
    ///
    /// # Panics
    /// If `data` is not whole rows, or the columns are not within one.
    pub fn columns(data: &'a [f32], stride: usize, cols: Range<usize>) -> Self {
        assert!(
            cols.start <= cols.end && cols.end <= stride && (stride == 0 || data.len().is_multiple_of(stride)),
            "columns {cols:?} of rows of {stride} in {} elements",
            data.len()
        );
        Self { data, stride, start: cols.start, cols: cols.len() }
    }

    /// Number of rows.
    pub fn n(&self) -> usize {
        self.data.len().checked_div(self.stride).unwrap_or(0)
    }

    /// Columns of a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Some columns of some rows.
    pub(crate) fn part(&self, rows: Range<usize>, cols: Range<usize>) -> Self {
        let data = &self.data[rows.start * self.stride..rows.end * self.stride];
        Self { data, stride: self.stride, start: self.start + cols.start, cols: cols.len() }
    }

    /// Row `i`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, i: usize) -> &'a [f32] {
        let start = i * self.stride + self.start;
        &self.data[start..start + self.cols]
    }
}

/// The rows that a row of a convolution depends on, oldest first.
pub(crate) type ConvInputs<'r> = SmallVec<[&'r [f32]; 8]>;

/// A depthwise causal convolution over rows, `y[t, c] = bias[c] + sum_j weight[c, j] x[t - k + 1 + j, c]`, taps in
/// ascending order and fused. The rows before the first are kept in a window of `k - 1` rows, oldest first; zeros at
/// the beginning of a text.
#[derive(Clone, Debug)]
pub struct ConvRows {
    /// `[k, C]`
    pub(super) taps: AlignedBuf<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) kernel: usize,
}

impl ConvRows {
    /// The convolution of these parameters over `channels` channels with `kernel` taps.
    ///
    /// # Errors
    /// [`TttError::Length`].
    pub fn new(parameters: &ConvParameters, channels: usize, kernel: usize) -> Result<Self, TttError> {
        parameters.validate("conv", channels, kernel)?;
        let tap = |i: usize| parameters.weight[i % channels * kernel + i / channels];
        let mut taps = AlignedBuf::zeroed(channels * kernel);
        taps.iter_mut().enumerate().for_each(|(i, t)| *t = tap(i));
        Ok(Self { taps, bias: parameters.bias.clone(), kernel })
    }

    /// Everything that the convolution has learnt, as it computes with it.
    pub fn learnt(&self) -> impl Iterator<Item = &[f32]> {
        [&self.taps[..], &self.bias].into_iter()
    }

    /// Elements of the window.
    pub fn window_len(&self) -> usize {
        (self.kernel - 1) * self.bias.len()
    }

    /// The inputs of row `t` of the result: of `window`, then of `x`, which have the same channels.
    pub(crate) fn inputs<'r>(&self, window: &'r [f32], x: Rows<'r>, t: usize) -> ConvInputs<'r> {
        let (before, len) = (self.kernel - 1, x.cols());
        let mut rows = ConvInputs::new();
        // Not collected, which would move them.
        for j in 0..self.kernel {
            rows.push(match (t + j).checked_sub(before) {
                Some(i) => x.row(i),
                None => &window[(t + j) * len..(t + j + 1) * len],
            });
        }
        rows
    }

    /// A row of the result, for the channels `channels`, from its inputs.
    pub(crate) fn row(&self, ops: Ops, channels: Range<usize>, inputs: &ConvInputs<'_>, out: &mut [f32]) {
        ops.convolve_row(inputs, &self.taps[channels.start..], self.bias.len(), &self.bias[channels], out);
    }

    /// All rows of `x` `[n, C]` into `out` `[n, C]`; then the last rows of `x` are in the window.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn forward(&self, ops: Ops, window: &mut [f32], x: Rows<'_>, out: &mut [f32]) {
        let channels = self.bias.len();
        assert!(x.cols() == channels && window.len() == self.window_len() && out.len() == x.n() * channels);
        for (t, out) in out.chunks_exact_mut(channels).enumerate() {
            self.row(ops, 0..channels, &self.inputs(window, x, t), out);
        }
        slide(window, x, x.n());
    }
}

/// Moves the first `n` rows of `x` into a window.
pub(crate) fn slide(window: &mut [f32], x: Rows<'_>, n: usize) {
    let cols = x.cols();
    let rows = window.len() / cols;
    let kept = rows.saturating_sub(n);
    window.copy_within((rows - kept) * cols.., 0);
    for (i, row) in window.chunks_exact_mut(cols).enumerate().skip(kept) {
        row.copy_from_slice(x.row(i + n - rows));
    }
}
