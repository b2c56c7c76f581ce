//! The table of formats: what is a fact of a format stands here once, and readers of files, converters and the command
//! take it from here.

use super::{hf_packed, i2_s, iq1_bn, iq2_bn, ptq1_0, q1_0, q2_0, stq1_0, tl1, tl2, tq1_0, tq2_0, trits};
use crate::Levels;

/// Where a format keeps the scales of its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScalePlace {
    /// In a tensor of its own.
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
    /// Type ids in GGUF files, the one that is written first; none for formats of other files.
    pub ggml_ids: &'static [u32],
    /// A row holds a multiple of this many weights; 1 where any length or the tile sizes decide.
    pub weights: usize,
    /// Bytes of a block of [`FormatInfo::weights`], the scale inside it included; `None` where the bytes are no
    /// sequence of blocks (HF packed, TL1, TL2).
    pub bytes: Option<usize>,
    /// Where the scales are.
    pub scale: ScalePlace,
    /// What the codes may stand for.
    pub levels: Levels,
    /// Whether matrices can be written in it.
    pub writable: bool,
}

impl FormatInfo {
    /// Weights and bytes of a block, of formats that are made of blocks.
    pub(super) const fn block(&self) -> (usize, usize) {
        match self.bytes {
            Some(bytes) => (self.weights, bytes),
            None => panic!("a format of blocks has blocks"),
        }
    }
}

/// All formats, TL1 and TL2 with them.
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
