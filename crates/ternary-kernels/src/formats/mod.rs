//! File formats of ternary matrices: byte layouts that are constants of the format, whatever the CPU.
//!
//! | format | bits per weight | scale | rows |
//! |---|---|---|---|
//! | [`FileFormat::Trits`] | 8 | beside | any |

use crate::{KernelError, Scales};

pub mod trits;

/// A byte layout of a ternary matrix in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileFormat {
    /// One `i8` per trit, row-major; no file uses it, tests and conversions do.
    Trits,
}

impl FileFormat {
    /// The name used in messages.
    pub fn name(self) -> &'static str {
        match self {
            FileFormat::Trits => "trits",
        }
    }

    /// Checks length, codes and scales of `bytes`; returns the scales that they hold, if the format holds any.
    ///
    /// # Errors
    /// A wrong length, an invalid code, a bad scale, a shape that the format cannot hold.
    pub fn validate(self, rows: usize, cols: usize, bytes: &[u8]) -> Result<Option<Scales>, KernelError> {
        match self {
            FileFormat::Trits => trits::validate(rows, cols, bytes).map(|()| None),
        }
    }

    /// Writes the trits of row `r` to `out`, `[cols]` i8. `bytes` have been validated for `[rows, cols]`.
    pub(crate) fn decode_row(self, bytes: &[u8], _rows: usize, cols: usize, r: usize, out: &mut [i8]) {
        match self {
            FileFormat::Trits => trits::decode_row(bytes, cols, r, out),
        }
    }
}

impl std::fmt::Display for FileFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
