//! What the logits are made of: rotary frequencies, and each matrix given the traced input of its module. An error of
//! one layer cannot hide behind the next layer's norm here.

use bitnet_model::{Mixer, ModelConfig, ModelWeights, Projection};
use ternary_kernels::{Scales, TernaryMatrix};

use crate::ParityError;
use crate::compare::{magnitude, max_abs};
use crate::files::Tensors;
use crate::report::Measured;

/// transformers' frequencies equal the formula to this share.
const FREQUENCY: f32 = 1e-5;
/// Largest error of a product in f64 from a traced input, as a share of its largest output.
const PRODUCT: f32 = 1e-4;

/// Frequencies, and cos and sin at the traced positions with the attention factor in them.
pub(super) fn rope(config: &ModelConfig, expected: &Tensors) -> Result<Measured, ParityError> {
    let (got, want) = (config.rope_frequencies(), expected.f32("rope.inv_freq")?);
    let off = got.iter().zip(&want).map(|(g, w)| (g / w - 1.0).abs()).fold(0.0, f32::max);
    let factor = config.rope_attention_factor();
    // At position 0, or wherever the slowest pair has hardly turned, cos is the factor; so the sum of squares tells it
    // everywhere.
    let (cos, sin) = (expected.f32("rope.cos")?, expected.f32("rope.sin")?);
    let length = |(c, s): (&f32, &f32)| (c.hypot(*s) - factor).abs();
    let factor_off = cos.iter().zip(&sin).map(length).fold(0.0, f32::max);
    let pass = got.len() == want.len() && off <= FREQUENCY && factor_off <= FREQUENCY;
    Ok(Measured { pass, detail: format!("frequencies off by {off:.1e}, factor {factor} by {factor_off:.1e}") })
}

/// Every projection whose input and output were traced, computed from the decoded weights in f64.
pub(super) fn traced(weights: &ModelWeights, expected: &Tensors) -> Result<Measured, ParityError> {
    let (mut count, mut worst, mut worst_at) = (0, 0f32, String::new());
    for (l, layer) in weights.layers.iter().enumerate() {
        for (p, w) in layer.projections() {
            let output = format!("trace.layer{l}.{}", p.path(Mixer::Attention));
            let input = match p {
                Projection::Q | Projection::K | Projection::V => format!("trace.layer{l}.input_layernorm"),
                Projection::Gate | Projection::Up => format!("trace.layer{l}.post_attention_layernorm"),
                Projection::O | Projection::Down | Projection::OutGate => format!("{output}.in"),
            };
            if !(expected.has(&output) && expected.has(&input)) {
                continue;
            }
            let y = expected.f32(&output)?;
            let got = product(w, &expected.f32(&input)?);
            let error = max_abs(&got, &y) / magnitude(&y).max(f32::MIN_POSITIVE);
            if error >= worst {
                (worst, worst_at) = (error, output);
            }
            count += 1;
        }
    }
    let detail = format!("{count} projections, worst {worst:.1e} of the largest output at {worst_at}");
    Ok(Measured { pass: count > 0 && worst <= PRODUCT, detail })
}

/// `[n, rows]` of `x`, `[n, cols]`, in f64.
fn product(w: &TernaryMatrix, x: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; x.len() / w.cols() * w.rows()];
    let mut row = vec![0.0; w.cols()];
    for r in 0..w.rows() {
        values(w, r, &mut row);
        for (t, x) in x.chunks_exact(w.cols()).enumerate() {
            let sum: f64 = row.iter().zip(x).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            y[t * w.rows() + r] = sum as f32;
        }
    }
    y
}

/// Row `r` of a matrix as numbers: code times scale, one rounding.
pub(super) fn values(w: &TernaryMatrix, r: usize, out: &mut [f32]) {
    let mut codes = vec![0; w.cols()];
    w.decode_row(r, &mut codes);
    for (c, (value, code)) in out.iter_mut().zip(codes).enumerate() {
        let scale = match w.scales() {
            Scales::Tensor(s) => *s,
            Scales::Rows(s) => s[r],
            Scales::Groups(s) => s.row(r)[c / s.group_len()].to_f32(),
        };
        *value = f32::from(code) * scale;
    }
}
