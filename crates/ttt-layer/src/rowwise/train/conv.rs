//! Gradients of causal convolutions over rows.

use ternary_kernels::Ops;

use super::rows_of;
use crate::rowwise::{ConvRows, Rows};

impl ConvRows {
    /// The convolution of texts of these lengths, one after the other, each with zeros before its first token: `out`
    /// `[n, C]` for `x` `[n, C]`.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn forward_texts(&self, ops: Ops, x: Rows<'_>, texts: &[usize], out: &mut [f32]) {
        let channels = self.bias.len();
        assert!(x.cols() == channels && out.len() == x.n() * channels, "a convolution of {} rows", x.n());
        let mut before = vec![0.0; self.window_len()];
        for rows in rows_of(texts, x.n()) {
            before.fill(0.0);
            let out = &mut out[rows.start * channels..rows.end * channels];
            self.forward(ops, &mut before, x.part(rows, 0..channels), out);
        }
    }

    /// The gradients of one text `x` `[T, C]` for those of its results, `dy` `[T, C]`: added to the first `C` columns
    /// of `dx` `[T, stride]` and, in the shapes of [`ConvParameters`](crate::ConvParameters), to weight and bias.
    /// `taps` is a buffer.
    ///
    /// # Panics
    /// If the lengths do not fit.
    #[expect(clippy::too_many_arguments, reason = "operands and where gradients go")]
    pub fn backward(
        &self,
        ops: Ops,
        x: Rows<'_>,
        dy: &[f32],
        dx: &mut [f32],
        stride: usize,
        [weight, bias]: [&mut [f32]; 2],
        taps: &mut Vec<f32>,
    ) {
        let (channels, kernel) = (self.bias.len(), self.kernel);
        assert!(
            x.cols() == channels
                && dy.len() == x.n() * channels
                && dx.len() == x.n() * stride
                && weight.len() == channels * kernel
                && bias.len() == channels,
            "gradients of {} rows of {channels}: other sizes",
            x.n()
        );
        taps.clear();
        taps.resize(channels * kernel, 0.0);
        for (t, dy) in dy.chunks_exact(channels).enumerate() {
            ops.add_assign(bias, dy);
            // Tap j of token t reads token t - (k - 1) + j.
            for j in (kernel - 1).saturating_sub(t)..kernel {
                let from = t + j + 1 - kernel;
                let tap = j * channels..(j + 1) * channels;
                ops.mul_add_assign(x.row(from), dy, &mut taps[tap.clone()]);
                ops.mul_add_assign(&self.taps[tap], dy, &mut dx[from * stride..][..channels]);
            }
        }
        for (c, weight) in weight.chunks_exact_mut(kernel).enumerate() {
            for (j, w) in weight.iter_mut().enumerate() {
                *w += taps[j * channels + c];
            }
        }
    }
}
