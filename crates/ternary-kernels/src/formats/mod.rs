//! File formats of ternary matrices: byte layouts that are constants of the format, whatever the CPU.
//!
//! | format | bits per weight | scale | row length |
//! |---|---|---|---|
//! | [`FileFormat::Trits`] | 8 | beside | any |
//! | [`FileFormat::I2S`] | 2 | one f32 behind the weights | multiple of 128 |
//! | [`FileFormat::HfPacked`] | 2 | beside | any |
//! | [`FileFormat::Tq1_0`] | 1.6875 | f16 per 256 weights | multiple of 256 |
//! | [`FileFormat::Tq2_0`] | 2.0625 | f16 per 256 weights | multiple of 256 |
//! | [`FileFormat::Iq1Bn`] | 1.625 and 16 per row | f16 per row | multiple of 64 |
//! | [`FileFormat::Iq2Bn`] | 2 and 32 per row | f32 per row | multiple of 64 |
//! | [`FileFormat::Tl1`] | 2 | one f32 behind the weights | by its tile sizes |
//! | [`FileFormat::Tl2`] | 1.67 to 2 | one f32 behind the weights | by its tile sizes |
//!
//! A matrix is `[rows, cols]` row-major, rows are output features. Unless stated otherwise a code is the weight
//! plus one: 0 is -1, 1 is 0, 2 is +1.

use crate::{KernelError, Scales, TernaryMatrix};

mod base3;
mod common;
mod hf_packed;
mod i2_s;
mod iq1_bn;
mod iq2_bn;
mod tl;
mod tl1;
mod tl2;
mod tq1_0;
mod tq2_0;
mod trits;

pub use tl::TlTile;

/// A byte layout of a ternary matrix in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileFormat {
    /// One `i8` per trit, row-major; no file uses it, tests and conversions do.
    Trits,
    /// GGUF type 36 of bitnet.cpp: 128 consecutive weights in 32 bytes, one f32 scale behind all of them.
    I2S,
    /// The packed uint8 tensors of Hugging Face checkpoints: four rows a quarter of the matrix apart in one byte. The
    /// scale is a tensor of its own.
    HfPacked,
    /// GGUF type 34: blocks of 256 weights in base 3, five to a byte, with an f16 scale.
    Tq1_0,
    /// GGUF type 35: blocks of 256 weights of two bits with an f16 scale.
    Tq2_0,
    /// GGUF type 134 of ik_llama.cpp: an f16 scale per row, then blocks of 64 weights in 13 bytes.
    Iq1Bn,
    /// GGUF type 135 of ik_llama.cpp: an f32 scale per row, then blocks of 64 weights in 16 bytes.
    Iq2Bn,
    /// GGUF type 38 of bitnet.cpp: two weights in four bits, in an order that depends on tile sizes which no file holds.
    Tl1(TlTile),
    /// GGUF type 39 of bitnet.cpp: three weights in five bits, in an order that depends on tile sizes which no file holds.
    Tl2(TlTile),
}

/// What to do with a scale that a format cannot store exactly. Trits are always kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ScaleRounding {
    /// Refuse, with [`KernelError::InexactScale`].
    #[default]
    Exact,
    /// Store the nearest value, ties to even. Values that would become infinite or zero are refused even so.
    Nearest,
}

impl FileFormat {
    /// All formats whose bytes follow from the shape alone: all but TL1 and TL2.
    pub const ALL: &'static [FileFormat] = &[
        FileFormat::Trits,
        FileFormat::I2S,
        FileFormat::HfPacked,
        FileFormat::Tq1_0,
        FileFormat::Tq2_0,
        FileFormat::Iq1Bn,
        FileFormat::Iq2Bn,
    ];

    /// The name used in messages.
    pub fn name(self) -> &'static str {
        match self {
            FileFormat::Trits => "trits",
            FileFormat::I2S => "I2_S",
            FileFormat::HfPacked => "HF packed",
            FileFormat::Tq1_0 => "TQ1_0",
            FileFormat::Tq2_0 => "TQ2_0",
            FileFormat::Iq1Bn => "IQ1_BN",
            FileFormat::Iq2Bn => "IQ2_BN",
            FileFormat::Tl1(_) => "TL1",
            FileFormat::Tl2(_) => "TL2",
        }
    }

    /// Whether scales are part of the bytes; elsewhere they are stored beside them.
    pub fn holds_scale(self) -> bool {
        !matches!(self, FileFormat::Trits | FileFormat::HfPacked)
    }

    /// Length in bytes of a `[rows, cols]` matrix, its scales and padding included.
    ///
    /// # Errors
    /// [`KernelError::UnsupportedShape`] for a row length that the format cannot hold, [`KernelError::UnsupportedTile`] for
    /// tile sizes that do not fit, [`KernelError::TooLarge`].
    ///
    /// ```
    /// use ternary_kernels::FileFormat;
    /// assert_eq!(FileFormat::I2S.byte_len(4, 128), Ok(160));
    /// assert!(FileFormat::I2S.byte_len(4, 100).is_err());
    /// ```
    pub fn byte_len(self, rows: usize, cols: usize) -> Result<usize, KernelError> {
        match self {
            FileFormat::Trits => trits::byte_len(rows, cols),
            FileFormat::I2S => i2_s::byte_len(rows, cols),
            FileFormat::HfPacked => hf_packed::byte_len(rows, cols),
            FileFormat::Tq1_0 => tq1_0::byte_len(rows, cols),
            FileFormat::Tq2_0 => tq2_0::byte_len(rows, cols),
            FileFormat::Iq1Bn => iq1_bn::byte_len(rows, cols),
            FileFormat::Iq2Bn => iq2_bn::byte_len(rows, cols),
            FileFormat::Tl1(tile) => tl1::byte_len(tile, rows, cols),
            FileFormat::Tl2(tile) => tl2::byte_len(tile, rows, cols),
        }
    }

    /// Checks length, codes and scales of `bytes`; returns the scales that they hold, if the format holds any.
    ///
    /// # Errors
    /// A wrong length, an invalid code, a bad scale, a shape that the format cannot hold, [`KernelError::ForeignTiles`].
    pub fn validate(self, rows: usize, cols: usize, bytes: &[u8]) -> Result<Option<Scales>, KernelError> {
        let expected = self.byte_len(rows, cols)?;
        if bytes.len() != expected {
            return Err(KernelError::ShapeMismatch { op: self.name(), what: "bytes", expected, got: bytes.len() });
        }
        match self {
            FileFormat::Trits => trits::validate(cols, bytes).map(|()| None),
            FileFormat::I2S => i2_s::validate(cols, bytes).map(Some),
            FileFormat::HfPacked => hf_packed::validate(rows, cols, bytes).map(|()| None),
            FileFormat::Tq1_0 => tq1_0::validate(rows, cols, bytes).map(Some),
            FileFormat::Tq2_0 => tq2_0::validate(rows, cols, bytes).map(Some),
            FileFormat::Iq1Bn => iq1_bn::validate(cols, bytes).map(Some),
            FileFormat::Iq2Bn => iq2_bn::validate(cols, bytes).map(Some),
            FileFormat::Tl1(tile) => tl1::validate(tile, cols, bytes).map(Some),
            FileFormat::Tl2(tile) => tl2::validate(tile, rows, cols, bytes).map(Some),
        }
    }

    /// Writes the trits of row `r` to `out`, `[cols]` i8. `bytes` have been validated for `[rows, cols]`.
    pub(crate) fn decode_row(self, bytes: &[u8], rows: usize, cols: usize, r: usize, out: &mut [i8]) {
        match self {
            FileFormat::Trits => trits::decode_row(bytes, cols, r, out),
            FileFormat::I2S => i2_s::decode_row(bytes, cols, r, out),
            FileFormat::HfPacked => hf_packed::decode_row(bytes, rows, cols, r, out),
            FileFormat::Tq1_0 => tq1_0::decode_row(bytes, cols, r, out),
            FileFormat::Tq2_0 => tq2_0::decode_row(bytes, cols, r, out),
            FileFormat::Iq1Bn => iq1_bn::decode_row(bytes, cols, r, out),
            FileFormat::Iq2Bn => iq2_bn::decode_row(bytes, cols, r, out),
            FileFormat::Tl1(tile) => tl1::decode_row(tile, bytes, cols, r, out),
            FileFormat::Tl2(tile) => tl2::decode_row(tile, bytes, (rows, cols), r, out),
        }
    }

    /// The bytes of `w` in this format. Trits are always kept, scales as `rounding` says; formats that hold no scale
    /// leave it to the caller to store [`TernaryMatrix::scales`] beside the bytes.
    ///
    /// # Errors
    /// [`KernelError::UnsupportedShape`] for a row length that the format cannot hold, [`KernelError::InexactScale`],
    /// and [`KernelError::OneScaleOnly`] where the format, or the scale tensor that goes with it, has room for one.
    ///
    /// ```
    /// use ternary_kernels::{FileFormat, ScaleRounding, Scales, TernaryMatrix};
    /// let w = TernaryMatrix::from_trits(1, 128, &[1; 128], Scales::Tensor(0.5)).unwrap();
    /// let bytes = FileFormat::I2S.encode(&w, ScaleRounding::Exact).unwrap();
    /// assert_eq!(bytes[..32], [0b10_10_10_10; 32]);
    /// assert_eq!(bytes[32..36], 0.5f32.to_le_bytes());
    /// ```
    pub fn encode(self, w: &TernaryMatrix, rounding: ScaleRounding) -> Result<Vec<u8>, KernelError> {
        let mut bytes = vec![0; self.byte_len(w.rows(), w.cols())?];
        match self {
            FileFormat::Trits => trits::encode(w, &mut bytes),
            FileFormat::I2S => i2_s::encode(w, &mut bytes)?,
            FileFormat::HfPacked => hf_packed::encode(w, &mut bytes)?,
            FileFormat::Tq1_0 => tq1_0::encode(w, rounding, &mut bytes)?,
            FileFormat::Tq2_0 => tq2_0::encode(w, rounding, &mut bytes)?,
            FileFormat::Iq1Bn => iq1_bn::encode(w, rounding, &mut bytes)?,
            FileFormat::Iq2Bn => iq2_bn::encode(w, &mut bytes),
            FileFormat::Tl1(tile) => tl1::encode(tile, w, &mut bytes)?,
            FileFormat::Tl2(tile) => tl2::encode(tile, w, &mut bytes)?,
        }
        Ok(bytes)
    }
}

impl std::fmt::Display for FileFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tl_tests;
