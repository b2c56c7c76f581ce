//! The table of formats: the facts of each format, stated once. Readers of files, converters and the command use it.

use super::{hf_packed, i2_s, iq1_bn, iq2_bn, ptq1_0, q1_0, q2_0, stq1_0, tl1, tl2, tq1_0, tq2_0, trits};
use crate::Levels;

/// Where a format keeps the scales of its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScalePlace {
    /// In a separate tensor.
    Beside,
    /// One f32 after the weights of the whole tensor.
    Tensor,
    /// One before each row, in this many bytes: f16 or f32.
    Row(usize),
    /// One f16 in each block, at this offset.
    Block(usize),
}

/// The facts of one format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FormatInfo {
    /// The name used in messages and by GGUF programs.
    pub name: &'static str,
    /// Type ids in GGUF files; the first is the one that is written. Empty for formats of other files.
    pub ggml_ids: &'static [u32],
    /// A row holds a multiple of this many weights; 1 if every length is allowed or the tile sizes decide.
    pub weights: usize,
    /// Bytes of a block of [`FormatInfo::weights`], including a scale inside it; `None` if the bytes are not a sequence
    /// of blocks (HF packed, TL1, TL2).
    pub bytes: Option<usize>,
    /// Where the scales are.
    pub scale: ScalePlace,
    /// The weights that codes can stand for.
    pub levels: Levels,
    /// Whether this crate writes the format.
    pub writable: bool,
}

impl FormatInfo {
    /// Weights and bytes of a block, for formats that consist of blocks.
    pub(super) const fn block(&self) -> (usize, usize) {
        match self.bytes {
            Some(bytes) => (self.weights, bytes),
            None => panic!("this format does not consist of blocks"),
        }
    }
}

/// All formats, including TL1 and TL2.
pub static FORMATS: &[FormatInfo] = &[
    trits::INFO,
    i2_s::INFO,
    hf_packed::INFO,
    tq1_0::INFO,
    tq2_0::INFO,
    q2_0::Q2_0,
    q2_0::PQ2_0,
    ptq1_0::INFO,
    q1_0::INFO,
    stq1_0::INFO,
    q2_0::D_LAST,
    iq1_bn::INFO,
    iq2_bn::INFO,
    tl1::INFO,
    tl2::INFO,
];
