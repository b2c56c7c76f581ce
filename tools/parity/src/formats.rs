//! `gguf/units.safetensors`: single matrices in their encodings, byte for byte.

use std::path::Path;

use ternary_kernels::{FileFormat, ScaleRounding, Scales, SharedBytes, TernaryMatrix};

use crate::compare::differing;
use crate::files::Tensors;
use crate::report::{Measured, Report};
use crate::{Options, ParityError};

pub(crate) fn cases(fixtures: &Path, options: &Options, report: &mut Report) {
    let path = fixtures.join("gguf/units.safetensors");
    if !path.is_file() {
        return;
    }
    for format in [FileFormat::I2S, FileFormat::Tq1_0, FileFormat::Tq2_0] {
        let case = format!("gguf/units {format}");
        if options.wants(&case) {
            report.check(&case, || ternary(&path, format));
        }
    }
    for format in [FileFormat::Tq1_0, FileFormat::Tq2_0] {
        let case = format!("gguf/units {format} of floats");
        if options.wants(&case) {
            report.check(&case, || floats(&path, format));
        }
    }
}

/// Our encoding of the trits equals the stored bytes, and the stored bytes decode to the trits.
fn ternary(path: &Path, format: FileFormat) -> Result<Measured, ParityError> {
    let t = Tensors::load(path)?;
    let (rows, cols) = t.shape("ternary")?;
    let (trits, scale, bytes) = (t.i8("ternary")?, t.f32("scale")?[0], t.u8(format.name())?);
    let w = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(scale))?;
    let encoded = format.encode(&w, ScaleRounding::Exact)?;
    let read = TernaryMatrix::from_bytes(format, rows, cols, SharedBytes::from(bytes.clone()), None)?;
    let (bytes_off, trits_off) = (differing(&encoded, &bytes), differing(&read.to_trits(), &trits));
    let same_scale = read.scales() == &Scales::Tensor(scale);
    let detail = format!("[{rows}, {cols}], {bytes_off} bytes and {trits_off} trits differ, scale {:?}", read.scales());
    Ok(Measured { pass: bytes_off == 0 && trits_off == 0 && same_scale, detail })
}

/// The output of a general quantiser for random floats decodes to the stored values, bit for bit: one block per row, so
/// each row has its own scale.
fn floats(path: &Path, format: FileFormat) -> Result<Measured, ParityError> {
    let t = Tensors::load(path)?;
    let name = format!("float.{}", format.name());
    let (rows, cols) = t.shape("float.x")?;
    let w = TernaryMatrix::from_bytes(format, rows, cols, SharedBytes::from(t.u8(&name)?), None)?;
    let trits = w.to_trits();
    let got: Vec<f32> =
        trits.iter().enumerate().map(|(i, t)| f32::from(*t) * w.scales().at(i / cols, i % cols)).collect();
    let off = differing(&got, &t.f32(&format!("{name}.dequant"))?);
    Ok(Measured { pass: off == 0, detail: format!("[{rows}, {cols}], {off} values differ") })
}
