//! Single projections: the traced input goes through our quantiser, integer kernel and epilogue, and the result is
//! compared with the traced output. An error of one layer cannot hide in the next layer's norm here.

use bitnet_model::{FloatType, Mixer, ModelWeights, Projection, Table};
use half::f16;
use ternary_kernels::{Int8Batch, Ops, TernaryMatrix};

use crate::ParityError;
use crate::compare::{differing, magnitude, max_abs};
use crate::files::Tensors;
use crate::report::Measured;

/// Largest error of a projection, as a share of its largest output.
const TOLERANCE: f32 = 1e-4;

/// Results of our pieces for activations `[n, k]`.
pub(crate) struct Product {
    /// `[n, k]` int8.
    pub(crate) codes: Vec<i8>,
    /// `s` of each row.
    pub(crate) scales: Vec<f32>,
    /// `[n, m]` i32.
    pub(crate) acc: Vec<i32>,
    /// `[n, m]` f32.
    pub(crate) y: Vec<f32>,
}

/// Quantiser, exact product and epilogue, each the one that the engine uses.
pub(crate) fn product(w: &TernaryMatrix, x: &[f32]) -> Result<Product, ParityError> {
    let (m, k) = (w.rows(), w.cols());
    let n = x.len() / k;
    let ops = Ops::selected()?;
    let mut batch = Int8Batch::with_capacity(n, k);
    batch.reset(n, k);
    for (row, x) in batch.rows_mut().zip(x.chunks_exact(k)) {
        ops.quantize_int8(x, row)?;
    }
    let kernel = ternary_kernels::best()?;
    let packed = kernel.prepack(w)?;
    let mut acc = vec![0; n * m];
    ternary_kernels::gemm(kernel.as_ref(), &packed, &batch.view(), &mut acc)?;
    // One token takes another path through a kernel, so both are used.
    let mut single = vec![0; m];
    for (t, expected) in acc.chunks_exact(m).enumerate() {
        ternary_kernels::gemv(kernel.as_ref(), &packed, &batch.view().row(t), &mut single)?;
        if single != expected {
            return Err(ternary_kernels::KernelError::ShapeMismatch {
                op: "gemv and gemm",
                what: "equal results; differing rows",
                expected: 0,
                got: differing(&single, expected),
            }
            .into());
        }
    }
    let mut y = vec![0.0; n * m];
    for ((acc, y), s) in acc.chunks_exact(m).zip(y.chunks_exact_mut(m)).zip(batch.scales()) {
        for (r, (y, acc)) in y.iter_mut().zip(acc).enumerate() {
            *y = (*acc as f32 * (1.0 / s)) * w.scales().at(r, 0);
        }
    }
    let view = batch.view();
    let codes = (0..n).flat_map(|t| view.row(t).codes()[..k].to_vec()).collect();
    Ok(Product { codes, scales: batch.scales().to_vec(), acc, y })
}

/// The definition, token by token in f32: `round_half_even(x * (127 / max|x|))`.
pub(crate) fn naive_codes(x: &[f32], k: usize) -> Vec<i8> {
    let row = |x: &[f32]| {
        let s = 127.0 / magnitude(x).max(1e-5);
        x.iter().map(|v| (v * s).round_ties_even() as i8).collect::<Vec<_>>()
    };
    x.chunks_exact(k).flat_map(row).collect()
}

/// RMSNorm of each row in f64, rounded to f32 once.
pub(crate) fn naive_norm(x: &[f32], gain: &[f32], eps: f32) -> Vec<f32> {
    let row = |x: &[f32]| {
        let mean = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / x.len() as f64;
        let inv = 1.0 / (mean + f64::from(eps)).sqrt();
        x.iter().zip(gain).map(|(v, g)| (f64::from(*v) * inv * f64::from(*g)) as f32).collect::<Vec<_>>()
    };
    x.chunks_exact(gain.len()).flat_map(row).collect()
}

/// Whether there is any trace.
pub(crate) fn traced(expected: &Tensors) -> bool {
    expected.names().any(|n| n.starts_with("trace.layer"))
}

/// All projections whose input and output were traced, and the embedding.
pub(crate) fn compare(weights: &ModelWeights, expected: &Tensors) -> Result<Measured, ParityError> {
    let (mut count, mut worst, mut worst_at, mut codes_off) = (0, 0f32, String::new(), 0);
    for (l, layer) in weights.layers.iter().enumerate() {
        for (p, w) in layer.projections() {
            let name = output_name(l, p);
            if !expected.has(&name) {
                continue;
            }
            let Some(x) = input(weights, expected, l, p)? else { continue };
            let product = product(w, &x)?;
            codes_off += differing(&product.codes, &naive_codes(&x, w.cols()));
            let y = expected.f32(&name)?;
            // `max_abs` is never NaN, and neither is its share of something positive.
            let error = max_abs(&product.y, &y) / magnitude(&y).max(f32::MIN_POSITIVE);
            if error >= worst {
                (worst, worst_at) = (error, name);
            }
            count += 1;
        }
    }
    let embedding_off = match expected.has("trace.embed") {
        true => embedding(&weights.embedding, expected)?,
        false => 0,
    };
    let detail = format!(
        "{count} projections, worst {worst:.1e} of the largest output at {worst_at}, {codes_off} codes and \
         {embedding_off} embedded values differ"
    );
    Ok(Measured { pass: worst <= TOLERANCE && codes_off == 0 && embedding_off == 0 && count > 0, detail })
}

fn output_name(layer: usize, p: Projection) -> String {
    format!("trace.layer{layer}.{}", p.path(Mixer::Attention))
}

/// The traced input: its own trace, that of the norm before it, or, in layer 0, the norm of the traced embedding.
fn input(
    weights: &ModelWeights,
    expected: &Tensors,
    layer: usize,
    p: Projection,
) -> Result<Option<Vec<f32>>, ParityError> {
    let norm = match p {
        Projection::Q | Projection::K | Projection::V | Projection::Qkv | Projection::OutGate => "input_layernorm",
        Projection::O => "self_attn.attn_sub_norm",
        Projection::Gate | Projection::Up => "post_attention_layernorm",
        Projection::Down => "mlp.ffn_sub_norm",
    };
    for name in [format!("{}.in", output_name(layer, p)), format!("trace.layer{layer}.{norm}")] {
        if expected.has(&name) {
            return Ok(Some(expected.f32(&name)?));
        }
    }
    if layer == 0 && norm == "input_layernorm" && expected.has("trace.embed") {
        let x = expected.f32("trace.embed")?;
        return Ok(Some(naive_norm(&x, &weights.layers[0].input_norm, weights.config.rms_norm_eps)));
    }
    Ok(None)
}

/// Number of values of the traced embedding that differ from ours, both as precise as the file stores them; the trace
/// ends with the last token.
fn embedding(table: &Table, expected: &Tensors) -> Result<usize, ParityError> {
    let (n, width) = expected.shape("trace.embed")?;
    let ids = expected.ids("input_ids")?;
    let mut got = vec![0.0; n * width];
    for (id, row) in ids[ids.len().saturating_sub(n)..].iter().zip(got.chunks_exact_mut(width)) {
        table.row_into(*id as usize, row);
    }
    let mut stored = expected.f32("trace.embed")?;
    if table.as_float().is_some_and(|m| m.float_type() == FloatType::F16) {
        stored.iter_mut().for_each(|v| *v = f16::from_f32(*v).to_f32());
    }
    Ok(differing(&got, &stored))
}
