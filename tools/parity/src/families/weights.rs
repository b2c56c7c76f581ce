//! Parts of the forward pass: rotary frequencies, and each matrix given the traced input of its module. An error of
//! one layer cannot hide in the next layer's norm here.

use bitnet_model::{Fold, Mixer, ModelConfig, ModelWeights, Projection};
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
    // At position 0, or as long as the slowest pair has hardly turned, cos is the factor; the sum of squares gives it
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
            let mixer = weights.config.mixer(l);
            let output = format!("trace.layer{l}.{}", p.path(mixer));
            let input = match p {
                Projection::OutGate if mixer != Mixer::GatedDelta => format!("{output}.in"),
                Projection::Q | Projection::K | Projection::V | Projection::Qkv | Projection::OutGate => {
                    format!("trace.layer{l}.input_layernorm")
                }
                Projection::Gate | Projection::Up => format!("trace.layer{l}.post_attention_layernorm"),
                Projection::O | Projection::Down => format!("{output}.in"),
            };
            if !(expected.has(&output) && expected.has(&input)) {
                continue;
            }
            let mut y = expected.f32(&output)?;
            if p == Projection::Q && weights.config.gated_attention {
                y = gates_behind(&weights.config, &y);
            }
            let mut x = expected.f32(&input)?;
            if let Some(fold) = &weights.config.fold {
                turn(fold, w.cols(), &mut x);
            }
            let got = product(w, &x);
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

/// Rows of a projection of queries whose gates follow each head, with the gates of all heads after the queries of all.
fn gates_behind(c: &ModelConfig, y: &[f32]) -> Vec<f32> {
    let row = |row: &[f32]| {
        let part = |gate: usize| row.chunks_exact(c.head_dim).skip(gate).step_by(2).flatten().copied().collect();
        let parts: [Vec<f32>; 2] = [part(0), part(1)];
        parts.concat()
    };
    y.chunks_exact(c.query_rows()).flat_map(row).collect()
}

/// `H(s * x)` of each row, from the definition of `H`, in f64.
fn turn(fold: &Fold, width: usize, x: &mut [f32]) {
    let signs = fold.signs(width).unwrap_or_default();
    let scale = (fold.block as f64).sqrt();
    for row in x.chunks_exact_mut(width) {
        let signed: Vec<f64> = row.iter().zip(signs).map(|(x, s)| f64::from(*x) * f64::from(*s)).collect();
        for (out, x) in row.chunks_exact_mut(fold.block).zip(signed.chunks_exact(fold.block)) {
            for (i, out) in out.iter_mut().enumerate() {
                let term = |(j, x): (usize, &f64)| if (i & j).count_ones().is_multiple_of(2) { *x } else { -x };
                *out = (x.iter().enumerate().map(term).sum::<f64>() / scale) as f32;
            }
        }
    }
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
