//! `units.safetensors`: single blocks of every format with a scale per group, a row of 1024 weights with its exact
//! sums, and blocks that are damaged or of a kind that no encoder writes.

use std::path::Path;

use half::f16;
use ternary_kernels::{FileFormat, KernelError, ScaleRounding, Scales, SharedBytes, TernaryMatrix};

use super::{bits, weights};
use crate::compare::differing;
use crate::files::Tensors;
use crate::report::{Measured, Report};
use crate::{Options, ParityError};

/// The format of this name in files.
pub(super) fn format_named(name: &str) -> Result<FileFormat, ParityError> {
    let found = FileFormat::ALL.iter().find(|f| f.name() == name);
    found.copied().ok_or_else(|| ParityError::Missing { what: format!("format {name}") })
}

pub(super) fn cases(dir: &Path, family: &str, options: &Options, report: &mut Report) {
    let t = match Tensors::load(&dir.join("units.safetensors")) {
        Ok(t) => t,
        Err(e) => return report.check(family, || Err(e)),
    };
    let parts =
        |suffix: &str| -> Vec<String> { t.names().filter_map(|n| n.strip_suffix(suffix)).map(str::to_owned).collect() };
    for name in parts(".scale_f16").iter().filter(|n| t.has(&format!("{n}.f32"))) {
        check(report, options, &format!("{family}/{name}"), || blocks(&t, name));
    }
    for name in parts(".row.block_dots") {
        check(report, options, &format!("{family}/{name} row"), || row(&t, &name));
    }
    for name in parts(".bytes").iter().filter(|n| n.starts_with("hostile.")) {
        check(report, options, &format!("{family}/{name}"), || hostile(&t, name));
    }
    if t.has("wrong_end.as_PQ2_0.f32") {
        check(report, options, &format!("{family}/wrong_end"), || wrong_end(&t));
    }
    if t.has("I2_S.codes") {
        check(report, options, &format!("{family}/I2_S"), || i2_s(&t));
    }
}

pub(super) fn check(
    report: &mut Report,
    options: &Options,
    case: &str,
    f: impl FnOnce() -> Result<Measured, ParityError>,
) {
    if options.wants(case) {
        report.check(case, f);
    }
}

/// A matrix of `rows` rows of whole blocks.
fn matrix(t: &Tensors, name: &str, format: FileFormat, rows: usize, cols: usize) -> Result<TernaryMatrix, ParityError> {
    Ok(TernaryMatrix::from_bytes(format, rows, cols, SharedBytes::from(t.u8(name)?), None)?)
}

fn decoded(w: &TernaryMatrix) -> Vec<f32> {
    let mut all = vec![0.0; w.rows() * w.cols()];
    all.chunks_exact_mut(w.cols()).enumerate().for_each(|(r, row)| weights::values(w, r, row));
    all
}

/// Blocks in several rows and within a row: codes, values to the bit, and the bytes again if the format is
/// written.
fn blocks(t: &Tensors, name: &str) -> Result<Measured, ParityError> {
    let format = format_named(name)?;
    let (n, len) = t.shape(&format!("{name}.codes"))?;
    let (codes, values) = (t.i8(&format!("{name}.codes"))?, t.f32(&format!("{name}.f32"))?);
    let bytes = t.u8(&format!("{name}.bytes"))?;
    let (mut codes_off, mut values_off, mut bytes_off) = (0, 0, None);
    for (rows, cols) in [(n, len), (1, n * len)] {
        let w = matrix(t, &format!("{name}.bytes"), format, rows, cols)?;
        codes_off += differing(&w.to_trits(), &codes);
        values_off += differing(&bits(&decoded(&w)), &bits(&values));
        if let Some(again) = encoded(format, &w)? {
            *bytes_off.get_or_insert(0) += differing(&again, &bytes);
        }
    }
    let written = bytes_off.map_or("not written".to_owned(), |off| format!("{off} bytes differ when written"));
    let detail = format!("{n} blocks of {len}: {codes_off} codes and {values_off} values differ, {written}");
    Ok(Measured { pass: codes_off == 0 && values_off == 0 && bytes_off.unwrap_or(0) == 0, detail })
}

/// The bytes of `w`, unless the format is read only.
fn encoded(format: FileFormat, w: &TernaryMatrix) -> Result<Option<Vec<u8>>, ParityError> {
    match format.encode(w, ScaleRounding::Exact) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(KernelError::ReadOnlyFormat { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// 1024 weights with differing scales: integer sums of each block exactly, their sum with the scales in f64.
fn row(t: &Tensors, name: &str) -> Result<Measured, ParityError> {
    let format = format_named(name)?;
    let (q, want) = (t.i8(&format!("{name}.row.q"))?, t.i32(&format!("{name}.row.block_dots"))?);
    let w = matrix(t, &format!("{name}.row.bytes"), format, 1, q.len())?;
    let block = q.len() / want.len().max(1);
    let dot = |(codes, q): (&[i8], &[i8])| codes.iter().zip(q).map(|(c, q)| i32::from(*c) * i32::from(*q)).sum();
    let sums: Vec<i32> = w.to_trits().chunks(block).zip(q.chunks(block)).map(dot).collect();
    let off = differing(&sums, &want);
    let total: f64 = decoded(&w).iter().zip(&q).map(|(v, q)| f64::from(*v) * f64::from(*q)).sum();
    let want = t.f64(&format!("{name}.row.dot_f64"))?[0];
    // Sums of 1024 exact products in f64, in another order at most.
    let error = (total - want).abs() / want.abs().max(1.0);
    Ok(Measured { pass: off == 0 && error <= 1e-12, detail: format!("{off} sums differ, total off by {error:.0e}") })
}

/// Refused by a typed error, or read as the plain formula defines; never another value. Scales that are not numbers are
/// refused.
fn hostile(t: &Tensors, name: &str) -> Result<Measured, ParityError> {
    let kind = name.split('.').nth(1).unwrap_or_default();
    let format = format_named(kind)?;
    let (n, len) = t.shape(&format!("{name}.f32"))?;
    let must_refuse = name.ends_with("nan_scale") || name.ends_with("inf_scale");
    // Both are legal blocks of four levels.
    let must_read = name.contains("code3") && !kind.starts_with("TQ");
    match TernaryMatrix::from_bytes(format, n, len, SharedBytes::from(t.u8(&format!("{name}.bytes"))?), None) {
        Err(e) => Ok(Measured { pass: !must_read, detail: format!("refused: {e}") }),
        Ok(w) => {
            // -0 and 0 are one number.
            let off = differing(&decoded(&w), &t.f32(&format!("{name}.f32"))?);
            Ok(Measured { pass: off == 0 && !must_refuse, detail: format!("read, {off} values differ") })
        }
    }
}

/// Scales after the codes, read as if they were before them: not the weights that were meant, so a loader has to look
/// at both ends. This row shows that the decoder by itself does not notice, and that the two readings differ.
fn wrong_end(t: &Tensors) -> Result<Measured, ParityError> {
    let (n, len) = t.shape("wrong_end.codes")?;
    let right = matrix(t, "right_end.bytes", format_named("PQ2_0")?, n, len)?;
    let scales: Vec<f32> = t.u16("wrong_end.scale_f16")?.into_iter().map(|b| f16::from_bits(b).to_f32()).collect();
    let codes = t.i8("wrong_end.codes")?;
    let want: Vec<f32> = codes.iter().enumerate().map(|(i, c)| f32::from(*c) * scales[i / len]).collect();
    let off = differing(&decoded(&right), &want);
    let differs = t.u8("wrong_end.bytes")? != t.u8("right_end.bytes")?;
    Ok(Measured { pass: off == 0 && differs, detail: format!("{off} values of the right end differ") })
}

fn i2_s(t: &Tensors) -> Result<Measured, ParityError> {
    let (n, len) = t.shape("I2_S.codes")?;
    let w = matrix(t, "I2_S.bytes", FileFormat::I2S, n, len)?;
    let off = differing(&w.to_trits(), &t.i8("I2_S.codes")?);
    let same = *w.scales() == Scales::Tensor(t.f32("I2_S.scale")?[0]);
    Ok(Measured { pass: off == 0 && same, detail: format!("{off} codes differ, scale {:?}", w.scales()) })
}
