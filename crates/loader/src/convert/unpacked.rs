//! Ternary projections as floats, from which their trits and scales can be found again.

use bitnet_model::ModelWeights;
use half::f16;
use ternary_kernels::{FileFormat, KernelError, Scales, TernaryMatrix};

use super::hf_out::{NAMES, projections};
use crate::LoadError;

/// Weights of the shortest groups that a reader of floats looks for.
const SHORTEST: usize = 64;

/// Whether the weights are written as f16: those of groups and rows always, since only such are looked for.
pub(super) fn fits_half(w: &TernaryMatrix) -> bool {
    match w.scales() {
        Scales::Tensor(s) => is_half(*s),
        Scales::Rows(_) | Scales::Groups(_) => true,
    }
}

fn is_half(v: f32) -> bool {
    f16::from_f32(v).to_f32().to_bits() == v.to_bits()
}

/// Refuses projections that would be read as others; tables may be floats, which give the same
/// values.
pub(super) fn check(w: &ModelWeights) -> Result<(), LoadError> {
    for (l, p, m) in projections(w) {
        let tensor = || NAMES.projection(l, p, w.config.mixer(l)) + ".weight";
        check_one(m).map_err(|source| LoadError::Ternary { tensor: tensor(), source })?;
    }
    Ok(())
}

fn check_one(w: &TernaryMatrix) -> Result<(), KernelError> {
    // Errors name the format of the target, which is not a ternary one.
    let format = FileFormat::HfPacked;
    if let Some(twos) = w.twos() {
        return Err(KernelError::Twos { what: "a folder with weights as floats".to_owned(), twos });
    }
    let (rows, cols) = (w.rows(), w.cols());
    let reason =
        "scales of rows or groups are found again in rows of multiples of 64 weights only; convert to q2_0 instead";
    let whole = cols.is_multiple_of(SHORTEST);
    match w.scales() {
        Scales::Tensor(_) => Ok(()),
        Scales::Rows(_) if !whole => Err(KernelError::UnsupportedShape { format, rows, cols, reason }),
        Scales::Rows(s) => match s.iter().position(|v| !is_half(*v)) {
            None => Ok(()),
            Some(row) => {
                let value = s.get(row).copied().unwrap_or_default();
                Err(KernelError::InexactScale { format, stored_as: "f16", row, value })
            }
        },
        Scales::Groups(g) if whole && g.group_len().is_multiple_of(SHORTEST) => Ok(()),
        Scales::Groups(_) => Err(KernelError::UnsupportedShape { format, rows, cols, reason }),
    }
}
