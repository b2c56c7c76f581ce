//! GGUF files of one matrix: which of the layouts that share an id a file means, and files that are too short.

use std::path::Path;

use half::f16;
use loader::gguf::Gguf;
use ternary_kernels::TernaryMatrix;

use super::blocks::{check, format_named};
use super::weights;
use crate::compare::differing;
use crate::files::{self, Tensors};
use crate::report::{Measured, Report};
use crate::{Options, ParityError};

/// Contents of a file according to its name.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meant {
    /// The codes and scales of `gguf_expected.safetensors`, as this format.
    Format(&'static str),
    /// Blocks with the scale at the other end: refused, or read right.
    OtherEnd,
    /// One bit a weight: code 0 became +1.
    Binary,
    /// Its format only; its weights are not compared.
    Kind(&'static str),
    /// Too short.
    Damaged,
}

fn meant(name: &str) -> Option<Meant> {
    // The first that fits: `ptq1_0` and `stq1_0` end like `q1_0`.
    const RULES: [(&str, Meant); 9] = [
        ("truncated", Meant::Damaged),
        ("short_by", Meant::Damaged),
        ("d_last", Meant::OtherEnd),
        ("stq1_0", Meant::Kind("STQ1_0")),
        ("ptq1_0", Meant::Format("PTQ1_0")),
        ("pq2_0", Meant::Format("PQ2_0")),
        ("q2_0_g64", Meant::Format("Q2_0")),
        ("prism_g128", Meant::Format("PQ2_0")),
        ("q1_0", Meant::Binary),
    ];
    RULES.iter().find(|(part, _)| name.contains(part)).map(|(_, meant)| *meant)
}

pub(super) fn cases(dir: &Path, family: &str, options: &Options, report: &mut Report) {
    let names = files::names(dir).unwrap_or_default();
    for name in names.iter().filter(|n| n.ends_with(".gguf")) {
        let case = format!("{family}/{name}");
        match meant(name) {
            Some(meant) => check(report, options, &case, || compare(dir, name, meant)),
            None => report.unsupported(&case, "a file whose name does not say what it holds"),
        }
    }
}

/// The matrix of a file, and the name of its format.
fn read(path: &Path) -> Result<(TernaryMatrix, &'static str), ParityError> {
    let file = Gguf::open(path)?;
    let info = file.tensors().first().ok_or_else(|| ParityError::Missing { what: "tensor".to_owned() })?;
    let (ty, bytes) = file.data(info)?;
    let w =
        TernaryMatrix::from_bytes(format_named(ty.name())?, info.rows() as usize, info.cols() as usize, bytes, None)?;
    Ok((w, ty.name()))
}

fn compare(dir: &Path, name: &str, meant: Meant) -> Result<Measured, ParityError> {
    let expected = Tensors::load(&dir.join("gguf_expected.safetensors"))?;
    let (rows, cols) = expected.shape("codes")?;
    let groups = expected.dims("scale_f16")?.last().copied().unwrap_or(1);
    let scales: Vec<f32> = expected.u16("scale_f16")?.into_iter().map(|b| f16::from_bits(b).to_f32()).collect();
    let codes = expected.i8("codes")?;
    let want = |binary: bool| -> Vec<f32> {
        let value = |(i, c): (usize, &i8)| {
            let code = if binary && *c == 0 { 1 } else { *c };
            f32::from(code) * scales[i / cols * groups + i % cols / (cols / groups)]
        };
        codes.iter().enumerate().map(value).collect()
    };
    let (w, found) = match (read(&dir.join(name)), meant) {
        (Ok(_), Meant::Damaged) => return Ok(Measured { pass: false, detail: "a short file was read".to_owned() }),
        (Err(e), Meant::Damaged | Meant::OtherEnd) => {
            return Ok(Measured { pass: true, detail: format!("refused: {e}") });
        }
        (Err(e), _) => return Err(e),
        (Ok(read), _) => read,
    };
    let mut got = vec![0.0; rows * cols];
    if (w.rows(), w.cols()) != (rows, cols) {
        let detail = format!("[{}, {}], expected [{rows}, {cols}]", w.rows(), w.cols());
        return Ok(Measured { pass: false, detail });
    }
    got.chunks_exact_mut(cols).enumerate().for_each(|(r, row)| weights::values(&w, r, row));
    let (kind, off) = match meant {
        Meant::Format(kind) => (kind, differing(&got, &want(false))),
        Meant::Binary => ("Q1_0", differing(&got, &want(true))),
        Meant::Kind(kind) => (kind, 0),
        Meant::OtherEnd | Meant::Damaged => (found, differing(&got, &want(false))),
    };
    Ok(Measured {
        pass: off == 0 && kind == found,
        detail: format!("read as {found}, {off} of {} values differ", got.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_files_hold() {
        for (name, expected) in [
            ("id42_q2_0_g64.last.gguf", Meant::Format("Q2_0")),
            ("id42_prism_g128.gguf", Meant::Format("PQ2_0")),
            ("id142_pq2_0.gguf", Meant::Format("PQ2_0")),
            ("id143_ptq1_0.gguf", Meant::Format("PTQ1_0")),
            ("id41_q1_0.gguf", Meant::Binary),
            ("id42_stq1_0.gguf", Meant::Kind("STQ1_0")),
            ("id42_d_last_g128.gguf", Meant::OtherEnd),
            ("id42_truncated.gguf", Meant::Damaged),
            ("id142_short_by_one_block.gguf", Meant::Damaged),
        ] {
            assert_eq!(meant(name), Some(expected), "{name}");
        }
        assert_eq!(meant("other.gguf"), None);
    }
}
