//! `units/units.safetensors`: quantisers, exact products and packing of single layers.

use std::path::Path;

use ternary_kernels::quantize::absmean_quantize;
use ternary_kernels::{FileFormat, Ops, ScaleRounding, Scales, SharedBytes, TernaryMatrix};

use crate::compare::{differing, magnitude, max_abs};
use crate::files::Tensors;
use crate::projections::product;
use crate::report::{Measured, Report};
use crate::{Options, ParityError, hbit};

/// Largest error of values that are rounded, as a share of the largest.
const RELATIVE: f32 = 1e-5;
/// Added to the mean square by the norms of these cases.
const EPS: f32 = 1e-5;

pub(crate) fn cases(fixtures: &Path, options: &Options, report: &mut Report) {
    let path = fixtures.join("units/units.safetensors");
    if !path.is_file() {
        return;
    }
    let tensors = match Tensors::load(&path) {
        Ok(tensors) => tensors,
        Err(e) => return report.check("units", || Err(e)),
    };
    let mut names: Vec<&str> = tensors.names().filter_map(|n| n.split_once('.')).map(|(case, _)| case).collect();
    names.dedup();
    for name in names {
        let case = format!("units/{name}");
        if !options.wants(&case) {
            continue;
        }
        match name.split('_').next() {
            Some("bitlinear") => report.check(&case, || bit_linear(&tensors, name)),
            Some("edge") => report.check(&case, || edge(&tensors, name)),
            Some("pack") => report.check(&case, || pack(&tensors, name)),
            Some("hbitlinear") => report.check(&case, || hbit::layer(&tensors, name, options.sabotage)),
            Some("hadamard") => report.check(&case, || hbit::transform(&tensors, name, options.sabotage)),
            _ => report.unsupported(&case, "a case of a kind unknown here"),
        }
    }
}

/// Largest error as a share of the largest expected value.
fn relative(got: &[f32], expected: &[f32]) -> f32 {
    max_abs(got, expected) / magnitude(expected)
}

/// norm, activation quantiser, weight quantiser, exact product, epilogue.
fn bit_linear(t: &Tensors, case: &str) -> Result<Measured, ParityError> {
    let at = |part: &str| format!("{case}.{part}");
    let (m, k) = t.shape(&at("w"))?;
    let x = t.f32(&at("x"))?;
    let z = if case.contains("_rms_") { norm(&x, &t.f32(&at("gain"))?)? } else { x };
    let (trits, w_scale) = absmean_quantize(&t.f32(&at("w"))?, m, k)?;
    let w = TernaryMatrix::from_trits(m, k, &trits, Scales::Tensor(w_scale))?;
    let p = product(&w, &z)?;
    // The stored scale is the step of a code, ours its inverse.
    let steps: Vec<f32> = p.scales.iter().map(|s| 1.0 / s).collect();
    let exact = [
        ("trits", differing(&trits, &t.i8(&at("ternary"))?)),
        ("codes", differing(&p.codes, &t.i8(&at("codes"))?)),
        ("sums", differing(&p.acc, &t.i32(&at("acc_i32"))?)),
    ];
    let close = [
        ("z", relative(&z, &t.f32(&at("z"))?)),
        ("step", relative(&steps, &t.f32(&at("act_scale"))?)),
        ("w_scale", relative(&[w_scale], &t.f32(&at("w_scale"))?)),
        ("y", relative(&p.y, &t.f32(&at("y"))?)),
    ];
    let pass = exact.iter().all(|(_, off)| *off == 0) && close.iter().all(|(_, e)| *e <= RELATIVE);
    let exact = exact.map(|(name, off)| format!("{off} {name}")).join(", ");
    let close = close.map(|(name, e)| format!("{name} {e:.1e}")).join(", ");
    Ok(Measured { pass, detail: format!("{exact} differ; relative errors {close}") })
}

fn norm(x: &[f32], gain: &[f32]) -> Result<Vec<f32>, ParityError> {
    let ops = Ops::selected()?;
    let mut z = vec![0.0; x.len()];
    for (x, z) in x.chunks_exact(gain.len()).zip(z.chunks_exact_mut(gain.len())) {
        ops.rms_norm(x, gain, EPS, z);
    }
    Ok(z)
}

/// Ties, zero rows, values below the floor of the scale, huge values.
fn edge(t: &Tensors, case: &str) -> Result<Measured, ParityError> {
    let (_, k) = t.shape(&format!("{case}.x"))?;
    let one = TernaryMatrix::from_trits(1, k, &vec![1; k], Scales::Tensor(1.0))?;
    let p = product(&one, &t.f32(&format!("{case}.x"))?)?;
    let steps: Vec<f32> = p.scales.iter().map(|s| 1.0 / s).collect();
    let off = differing(&p.codes, &t.i8(&format!("{case}.codes"))?);
    // Rows differ by many orders of magnitude, so each counts by itself.
    let expected = t.f32(&format!("{case}.scale"))?;
    let worst = steps.iter().zip(&expected).map(|(s, e)| relative(&[*s], &[*e])).fold(0.0, f32::max);
    let pass = off == 0 && worst <= RELATIVE && steps.len() == expected.len();
    Ok(Measured { pass, detail: format!("{} codes differ of {}, step {worst:.1e}", off, p.codes.len()) })
}

/// Packs four rows, a quarter of the matrix apart, in one byte.
fn pack(t: &Tensors, case: &str) -> Result<Measured, ParityError> {
    let (rows, cols) = t.shape(&format!("{case}.ternary"))?;
    let (trits, packed) = (t.i8(&format!("{case}.ternary"))?, t.u8(&format!("{case}.packed"))?);
    let w = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(1.0))?;
    let encoded = FileFormat::HfPacked.encode(&w, ScaleRounding::Exact)?;
    let read = TernaryMatrix::from_bytes(FileFormat::HfPacked, rows, cols, SharedBytes::from(packed.clone()), None)?;
    let (trits_off, bytes_off) = (differing(&read.to_trits(), &trits), differing(&encoded, &packed));
    let detail = format!("[{rows}, {cols}], {bytes_off} bytes and {trits_off} trits differ");
    Ok(Measured { pass: trits_off == 0 && bytes_off == 0, detail })
}
