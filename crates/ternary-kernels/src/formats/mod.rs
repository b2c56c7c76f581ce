//! File formats of ternary matrices: byte layouts that are constants of the format on every CPU.
//!
//! | format | bits per weight | scale | row length |
//! |---|---|---|---|
//! | [`FileFormat::Trits`] | 8 | beside | any |
//! | [`FileFormat::I2S`] | 2 | one f32 after the weights | multiple of 128 |
//! | [`FileFormat::HfPacked`] | 2 | beside | any |
//! | [`FileFormat::Tq1_0`] | 1.6875 | f16 per 256 weights | multiple of 256 |
//! | [`FileFormat::Tq2_0`] | 2.0625 | f16 per 256 weights | multiple of 256 |
//! | [`FileFormat::Q2_0`] | 2.25 | f16 per 64 weights | multiple of 64 |
//! | [`FileFormat::Pq2_0`] | 2.125 | f16 per 128 weights | multiple of 128 |
//! | [`FileFormat::Ptq1_0`] | 1.75 | f16 per 128 weights | multiple of 128 |
//! | [`FileFormat::Q1_0`] | 1.125 | f16 per 128 weights | multiple of 128 |
//! | [`FileFormat::Stq1_0`] | 1.3125 | f16 per 256 weights | multiple of 256 |
//! | [`FileFormat::Tq2_0G128`] | 2.125 | f16 per 128 weights | multiple of 128 |
//! | [`FileFormat::Iq1Bn`] | 1.625 and 16 per row | f16 per row | multiple of 64 |
//! | [`FileFormat::Iq2Bn`] | 2 and 32 per row | f32 per row | multiple of 64 |
//! | [`FileFormat::Tl1`] | 2 | one f32 after the weights | by its tile sizes |
//! | [`FileFormat::Tl2`] | 1.67 to 2 | one f32 after the weights | by its tile sizes |
//!
//! A matrix is `[rows, cols]` row-major, rows are output features. Unless stated otherwise a code is the weight
//! plus one: 0 is -1, 1 is 0, 2 is +1. The facts of each format are in [`FORMATS`].

use crate::matrix::Twos;
use crate::{KernelError, Levels, Scales, TernaryMatrix};

mod base3;
mod blocks;
mod common;
mod hf_packed;
mod i2_s;
mod iq1_bn;
mod iq2_bn;
mod ptq1_0;
mod q1_0;
mod q2_0;
mod stq1_0;
mod table;
mod tl;
mod tl1;
mod tl2;
mod tq1_0;
mod tq2_0;
mod trits;

use ptq1_0::Ptq1_0;
use q1_0::Q1_0;
use q2_0::{G64, G128, G128Last};
use stq1_0::Stq1_0;
use tq1_0::Tq1_0;
use tq2_0::Tq2_0;

pub use table::{FORMATS, FormatInfo, ScalePlace};
pub use tl::TlTile;

/// A byte layout of a ternary matrix in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileFormat {
    /// One `i8` per trit, row-major; used by tests and conversions, not by files.
    Trits,
    /// GGUF type 36 of bitnet.cpp: 128 consecutive weights in 32 bytes, one f32 scale after all of them.
    I2S,
    /// The packed uint8 tensors of Hugging Face checkpoints: four rows a quarter of the matrix apart in one byte. The
    /// scale is a separate tensor.
    HfPacked,
    /// GGUF type 34: blocks of 256 weights in base 3, five to a byte, with an f16 scale.
    Tq1_0,
    /// GGUF type 35: blocks of 256 weights of two bits with an f16 scale.
    Tq2_0,
    /// GGUF type 42 of llama.cpp: blocks of 64 weights of two bits with an f16 scale.
    Q2_0,
    /// GGUF type 142, earlier 42, of Prism's llama.cpp: [`FileFormat::Q2_0`] in blocks of 128.
    Pq2_0,
    /// GGUF type 143 of Prism's llama.cpp: blocks of 128 weights in base 3, five to a byte, with an f16 scale.
    Ptq1_0,
    /// GGUF type 41: blocks of 128 binary weights with an f16 scale. Read only.
    Q1_0,
    /// GGUF types 42 and 43 of a fork: blocks of 256 weights, one of four of which is zero, with an f16 scale. Read
    /// only.
    Stq1_0,
    /// GGUF type 42 of oxibonsai: [`FileFormat::Pq2_0`] with the scale after the codes. Read only.
    Tq2_0G128,
    /// GGUF type 134 of ik_llama.cpp: an f16 scale per row, then blocks of 64 weights in 13 bytes.
    Iq1Bn,
    /// GGUF type 135 of ik_llama.cpp: an f32 scale per row, then blocks of 64 weights in 16 bytes.
    Iq2Bn,
    /// GGUF type 38 of bitnet.cpp: two weights in four bits, in an order that depends on tile sizes, which files do not
    /// store.
    Tl1(TlTile),
    /// GGUF type 39 of bitnet.cpp: three weights in five bits, in an order that depends on tile sizes, which files do
    /// not store.
    Tl2(TlTile),
}

/// How to handle a scale that a format cannot store exactly. Trits are always kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ScaleRounding {
    /// Refuse, with [`KernelError::InexactScale`].
    #[default]
    Exact,
    /// Store the nearest value, ties to even. Values that would become infinite or zero are still refused.
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
        FileFormat::Q2_0,
        FileFormat::Pq2_0,
        FileFormat::Ptq1_0,
        FileFormat::Q1_0,
        FileFormat::Stq1_0,
        FileFormat::Tq2_0G128,
    ];

    /// The facts of this format.
    pub const fn info(self) -> &'static FormatInfo {
        match self {
            FileFormat::Trits => &trits::INFO,
            FileFormat::I2S => &i2_s::INFO,
            FileFormat::HfPacked => &hf_packed::INFO,
            FileFormat::Tq1_0 => &tq1_0::INFO,
            FileFormat::Tq2_0 => &tq2_0::INFO,
            FileFormat::Q2_0 => &q2_0::Q2_0,
            FileFormat::Pq2_0 => &q2_0::PQ2_0,
            FileFormat::Ptq1_0 => &ptq1_0::INFO,
            FileFormat::Q1_0 => &q1_0::INFO,
            FileFormat::Stq1_0 => &stq1_0::INFO,
            FileFormat::Tq2_0G128 => &q2_0::D_LAST,
            FileFormat::Iq1Bn => &iq1_bn::INFO,
            FileFormat::Iq2Bn => &iq2_bn::INFO,
            FileFormat::Tl1(_) => &tl1::INFO,
            FileFormat::Tl2(_) => &tl2::INFO,
        }
    }

    /// The name used in messages.
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// Whether the bytes include the scales; otherwise these are stored separately.
    pub fn holds_scale(self) -> bool {
        self.info().scale != ScalePlace::Beside
    }

    /// Length in bytes of a `[rows, cols]` matrix, including its scales and padding.
    ///
    /// # Errors
    /// [`KernelError::UnsupportedShape`] for a row length that the format cannot hold, [`KernelError::UnsupportedTile`]
    /// for tile sizes that do not fit, [`KernelError::TooLarge`].
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
            FileFormat::Tq1_0 => blocks::byte_len::<Tq1_0>(rows, cols),
            FileFormat::Tq2_0 => blocks::byte_len::<Tq2_0>(rows, cols),
            FileFormat::Q2_0 => blocks::byte_len::<G64>(rows, cols),
            FileFormat::Pq2_0 => blocks::byte_len::<G128>(rows, cols),
            FileFormat::Ptq1_0 => blocks::byte_len::<Ptq1_0>(rows, cols),
            FileFormat::Q1_0 => blocks::byte_len::<Q1_0>(rows, cols),
            FileFormat::Stq1_0 => blocks::byte_len::<Stq1_0>(rows, cols),
            FileFormat::Tq2_0G128 => blocks::byte_len::<G128Last>(rows, cols),
            FileFormat::Iq1Bn => iq1_bn::byte_len(rows, cols),
            FileFormat::Iq2Bn => iq2_bn::byte_len(rows, cols),
            FileFormat::Tl1(tile) => tl1::byte_len(tile, rows, cols),
            FileFormat::Tl2(tile) => tl2::byte_len(tile, rows, cols),
        }
    }

    /// Checks length, codes and scales of `bytes`; returns the scales that they hold, if the format holds any.
    ///
    /// Formats with a scale per block yield one scale per row or tensor if the scales agree (a block of scale 0 agrees
    /// with any), otherwise [`Scales::Groups`].
    ///
    /// # Errors
    /// A wrong length, an invalid code, a bad scale, a shape that the format cannot hold,
    /// [`KernelError::ForeignTiles`].
    pub fn validate(self, rows: usize, cols: usize, bytes: &[u8]) -> Result<Option<Scales>, KernelError> {
        self.inspect(rows, cols, bytes).map(|found| found.scales)
    }

    /// Like [`FileFormat::validate`]; also finds codes of +2.
    pub(crate) fn inspect(self, rows: usize, cols: usize, bytes: &[u8]) -> Result<Inside, KernelError> {
        let expected = self.byte_len(rows, cols)?;
        if bytes.len() != expected {
            return Err(KernelError::ShapeMismatch { op: self.name(), what: "bytes", expected, got: bytes.len() });
        }
        let plain = |scales: Scales| Inside { scales: Some(scales), twos: None };
        let beside = |()| Inside { scales: None, twos: None };
        match self {
            FileFormat::Trits => trits::validate(cols, bytes).map(beside),
            FileFormat::I2S => i2_s::validate(cols, bytes).map(plain),
            FileFormat::HfPacked => hf_packed::validate(rows, cols, bytes).map(beside),
            FileFormat::Tq1_0 => blocks::validate::<Tq1_0>(rows, cols, bytes),
            FileFormat::Tq2_0 => blocks::validate::<Tq2_0>(rows, cols, bytes),
            FileFormat::Q2_0 => blocks::validate::<G64>(rows, cols, bytes),
            FileFormat::Pq2_0 => blocks::validate::<G128>(rows, cols, bytes),
            FileFormat::Ptq1_0 => blocks::validate::<Ptq1_0>(rows, cols, bytes),
            FileFormat::Q1_0 => blocks::validate::<Q1_0>(rows, cols, bytes),
            FileFormat::Stq1_0 => blocks::validate::<Stq1_0>(rows, cols, bytes),
            FileFormat::Tq2_0G128 => blocks::validate::<G128Last>(rows, cols, bytes),
            FileFormat::Iq1Bn => iq1_bn::validate(cols, bytes).map(plain),
            FileFormat::Iq2Bn => iq2_bn::validate(cols, bytes).map(plain),
            FileFormat::Tl1(tile) => tl1::validate(tile, cols, bytes).map(plain),
            FileFormat::Tl2(tile) => tl2::validate(tile, rows, cols, bytes).map(plain),
        }
    }

    /// Writes the codes of row `r`, minus one, to `out`, `[cols]` i8. `bytes` have been validated for `[rows, cols]`.
    pub(crate) fn decode_row(self, bytes: &[u8], rows: usize, cols: usize, r: usize, out: &mut [i8]) {
        match self {
            FileFormat::Trits => trits::decode_row(bytes, cols, r, out),
            FileFormat::I2S => i2_s::decode_row(bytes, cols, r, out),
            FileFormat::HfPacked => hf_packed::decode_row(bytes, rows, cols, r, out),
            FileFormat::Tq1_0 => blocks::decode_row::<Tq1_0>(bytes, cols, r, out),
            FileFormat::Tq2_0 => blocks::decode_row::<Tq2_0>(bytes, cols, r, out),
            FileFormat::Q2_0 => blocks::decode_row::<G64>(bytes, cols, r, out),
            FileFormat::Pq2_0 => blocks::decode_row::<G128>(bytes, cols, r, out),
            FileFormat::Ptq1_0 => blocks::decode_row::<Ptq1_0>(bytes, cols, r, out),
            FileFormat::Q1_0 => blocks::decode_row::<Q1_0>(bytes, cols, r, out),
            FileFormat::Stq1_0 => blocks::decode_row::<Stq1_0>(bytes, cols, r, out),
            FileFormat::Tq2_0G128 => blocks::decode_row::<G128Last>(bytes, cols, r, out),
            FileFormat::Iq1Bn => iq1_bn::decode_row(bytes, cols, r, out),
            FileFormat::Iq2Bn => iq2_bn::decode_row(bytes, cols, r, out),
            FileFormat::Tl1(tile) => tl1::decode_row(tile, bytes, cols, r, out),
            FileFormat::Tl2(tile) => tl2::decode_row(tile, bytes, (rows, cols), r, out),
        }
    }

    /// The bytes of `w` in this format. Trits are always kept; `rounding` decides about scales. If the format stores no
    /// scales, the caller stores [`TernaryMatrix::scales`] with the bytes.
    ///
    /// # Errors
    /// [`KernelError::UnsupportedShape`] for a row length that the format cannot hold, [`KernelError::InexactScale`],
    /// [`KernelError::OneScaleOnly`] and [`KernelError::NoGroupScales`] if the format, or the scale tensor that belongs
    /// to it, has room for fewer scales, [`KernelError::MixedScales`] if one of its blocks would need two,
    /// [`KernelError::Twos`] for weights of +2 if the format cannot hold them, and [`KernelError::ReadOnlyFormat`].
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
        if let (Levels::Three, Some(twos)) = (self.info().levels, w.twos()) {
            return Err(KernelError::Twos { what: self.name().to_owned(), twos });
        }
        match self {
            FileFormat::Trits => trits::encode(w, &mut bytes),
            FileFormat::I2S => i2_s::encode(w, &mut bytes)?,
            FileFormat::HfPacked => hf_packed::encode(w, &mut bytes)?,
            FileFormat::Tq1_0 => blocks::encode::<Tq1_0>(w, rounding, &mut bytes)?,
            FileFormat::Tq2_0 => blocks::encode::<Tq2_0>(w, rounding, &mut bytes)?,
            FileFormat::Q2_0 => blocks::encode::<G64>(w, rounding, &mut bytes)?,
            FileFormat::Pq2_0 => blocks::encode::<G128>(w, rounding, &mut bytes)?,
            FileFormat::Ptq1_0 => blocks::encode::<Ptq1_0>(w, rounding, &mut bytes)?,
            FileFormat::Q1_0 | FileFormat::Stq1_0 | FileFormat::Tq2_0G128 => {
                return Err(KernelError::ReadOnlyFormat { format: self });
            }
            FileFormat::Iq1Bn => iq1_bn::encode(w, rounding, &mut bytes)?,
            FileFormat::Iq2Bn => iq2_bn::encode(w, &mut bytes)?,
            FileFormat::Tl1(tile) => tl1::encode(tile, w, &mut bytes)?,
            FileFormat::Tl2(tile) => tl2::encode(tile, w, &mut bytes)?,
        }
        Ok(bytes)
    }
}

/// The contents of the bytes of a matrix, without its trits.
pub(crate) struct Inside {
    /// The scales, if the format holds any.
    pub(crate) scales: Option<Scales>,
    /// The weights of +2.
    pub(crate) twos: Option<Twos>,
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
