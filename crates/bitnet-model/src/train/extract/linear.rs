//! Ternary projections during training: master weights quantised again in every step, int8 inputs, and gradients
//! that pass straight through both quantisers.

use std::ops::Range;

use ternary_kernels::Ops;
use ternary_kernels::ops::{GemmScratch, Strided};
use ternary_kernels::quantize::{MIN_ABS, absmean, weight_scale};

/// Projections that share an input, side by side.
#[derive(Debug, Default)]
pub(super) struct Linear {
    /// Columns.
    pub(super) k: usize,
    /// Rows of all parts.
    pub(super) out: usize,
    /// Rows and scale of each part.
    parts: Vec<(usize, f32)>,
    /// `[out, k]`: trits, or the weights themselves while nothing is quantised.
    trits: Vec<f32>,
    /// Trits times scale.
    wide: Vec<f32>,
    codes: Vec<i8>,
}

/// Inputs of a projection, `[n, k]`: int8 codes as f32 and what they are divided by, or the inputs themselves and 1.
#[derive(Debug, Default)]
pub(super) struct Codes {
    codes: Vec<f32>,
    scales: Vec<f32>,
}

/// Buffers of products.
#[derive(Debug, Default)]
pub(super) struct Room {
    product: Vec<f32>,
    pub(super) gemm: GemmScratch,
}

/// `1.5 * 2^23`: adding it to a number below `2^22` and taking it off again rounds to the nearest integer, halves to
/// even.
const ROUNDER: f32 = 12_582_912.0;

impl Codes {
    /// RMSNorm with a gain and, if asked, int8 codes of each row of `x` `[n, k]`: `s = 127 / max(|x|, 1e-5)`,
    /// `codes = round(x s)`.
    pub(super) fn fill(&mut self, ops: Ops, x: &[f32], gain: &[f32], eps: f32, quantised: bool) {
        let k = gain.len();
        self.codes.resize(x.len(), 0.0);
        self.scales.clear();
        for (x, codes) in x.chunks_exact(k).zip(self.codes.chunks_exact_mut(k)) {
            ops.rms_norm(x, gain, eps, codes);
            if !quantised {
                self.scales.push(1.0);
                continue;
            }
            let most = codes.iter().fold(0.0f32, |m, c| m.max(c.abs())).max(MIN_ABS);
            let scale = 127.0 / most;
            codes.iter_mut().for_each(|c| *c = (*c * scale + ROUNDER) - ROUNDER);
            self.scales.push(scale);
        }
    }
}

impl Linear {
    /// Takes the master weights of `rows` each, which are stored one after the other at `place`.
    pub(super) fn prepare(&mut self, ops: Ops, values: &[f32], place: &Range<usize>, rows: &[usize], quantised: bool) {
        let w = &values[place.clone()];
        self.out = rows.iter().sum();
        self.k = w.len() / self.out;
        self.parts.clear();
        self.wide.resize(w.len(), 0.0);
        self.trits.resize(w.len(), 0.0);
        if !quantised {
            self.parts.push((self.out, 1.0));
            self.wide.copy_from_slice(w);
            self.trits.copy_from_slice(w);
            return;
        }
        self.codes.resize(w.len(), 0);
        let mut at = 0;
        for rows in rows {
            let r = at..at + rows * self.k;
            let mean = absmean(&w[r.clone()]);
            ops.ternarize(&w[r.clone()], mean, &mut self.codes[r.clone()], &mut self.wide[r.clone()]);
            self.parts.push((*rows, weight_scale(mean)));
            at = r.end;
        }
        for (t, c) in self.trits.iter_mut().zip(&self.codes) {
            *t = f32::from(*c);
        }
    }

    /// The products of `x`, `[n, out]`, written or with `ADD` added. Sums are of integers below `2^24`, so exact.
    pub(super) fn forward<const ADD: bool>(&self, ops: Ops, x: &Codes, out: &mut [f32], room: &mut Room) {
        let n = x.scales.len();
        room.product.resize(n * self.out, 0.0);
        let (a, b) = (Strided::rows(&x.codes, self.k), Strided::rows(&self.trits, self.k).t());
        ops.gemm(a, b, [n, self.out, self.k], &mut room.product, &mut room.gemm);
        for ((acc, out), s) in room.product.chunks_exact(self.out).zip(out.chunks_exact_mut(self.out)).zip(&x.scales) {
            let mut at = 0;
            for (rows, alpha) in &self.parts {
                let factor = alpha / s;
                for (o, a) in out[at..at + rows].iter_mut().zip(&acc[at..at + rows]) {
                    *o = if ADD { *o + a * factor } else { a * factor };
                }
                at += rows;
            }
        }
    }

    /// For `dy` `[n, out]`: adds `dy^T x` to `dw` and writes `dy (alpha T)` to `dx` `[n, k]`.
    pub(super) fn backward(&self, ops: Ops, x: &Codes, dy: &[f32], dw: &mut [f32], dx: &mut Vec<f32>, room: &mut Room) {
        let n = x.scales.len();
        let wide = &mut room.product;
        wide.resize(n * self.k, 0.0);
        for ((x, codes), s) in wide.chunks_exact_mut(self.k).zip(x.codes.chunks_exact(self.k)).zip(&x.scales) {
            let step = 1.0 / s;
            x.iter_mut().zip(codes).for_each(|(x, c)| *x = c * step);
        }
        let dy = Strided::rows(dy, self.out);
        ops.gemm_add(dy.t(), Strided::rows(wide, self.k), [self.out, self.k, n], dw, &mut room.gemm);
        dx.resize(n * self.k, 0.0);
        ops.gemm(dy, Strided::rows(&self.wide, self.k), [n, self.k, self.out], dx, &mut room.gemm);
    }
}
