//! ggml's block-quantised types, which files use for embeddings and heads: Q4_0 ... Q8_0 and Q2_K ... Q6_K.
//!
//! The layouts are those of ggml's `ggml-common.h`. Each value is computed in the same order as in ggml, so the bits
//! equal those of other programs.

use half::f16;

/// Values of a block of the older types.
const SMALL: usize = 32;
/// Values of a block of the types called K.
const LARGE: usize = 256;

/// A block-quantised type of ggml.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlockType {
    /// 4 bits, one scale for 32 values.
    Q4_0,
    /// 4 bits, a scale and a minimum for 32 values.
    Q4_1,
    /// 5 bits, one scale for 32 values.
    Q5_0,
    /// 5 bits, a scale and a minimum for 32 values.
    Q5_1,
    /// 8 bits, one scale for 32 values.
    Q8_0,
    /// 2 bits, 4-bit scales and minima for 16 values.
    Q2K,
    /// 3 bits, 6-bit scales for 16 values.
    Q3K,
    /// 4 bits, 6-bit scales and minima for 32 values.
    Q4K,
    /// 5 bits, 6-bit scales and minima for 32 values.
    Q5K,
    /// 6 bits, 8-bit scales for 16 values.
    Q6K,
}

impl BlockType {
    /// All types.
    pub const ALL: [BlockType; 10] = [
        BlockType::Q4_0,
        BlockType::Q4_1,
        BlockType::Q5_0,
        BlockType::Q5_1,
        BlockType::Q8_0,
        BlockType::Q2K,
        BlockType::Q3K,
        BlockType::Q4K,
        BlockType::Q5K,
        BlockType::Q6K,
    ];

    /// Values of a block.
    pub fn block_len(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => SMALL,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => LARGE,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Q4_0 => 2 + 16,
            Self::Q4_1 => 2 + 2 + 16,
            Self::Q5_0 => 2 + 4 + 16,
            Self::Q5_1 => 2 + 2 + 4 + 16,
            Self::Q8_0 => 2 + 32,
            Self::Q2K => 16 + 64 + 2 + 2,
            Self::Q3K => 32 + 64 + 12 + 2,
            Self::Q4K => 2 + 2 + 12 + 128,
            Self::Q5K => 2 + 2 + 12 + 32 + 128,
            Self::Q6K => 128 + 64 + 16 + 2,
        }
    }

    /// The name, as in `Q6K`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2K",
            Self::Q3K => "Q3K",
            Self::Q4K => "Q4K",
            Self::Q5K => "Q5K",
            Self::Q6K => "Q6K",
        }
    }

    /// Decodes whole blocks to `out`.
    ///
    /// # Panics
    /// If `bytes` is not exactly `out.len()` values of this type.
    pub(crate) fn decode(self, bytes: &[u8], out: &mut [f32]) {
        let (len, size) = (self.block_len(), self.block_bytes());
        let blocks = out.len() / len;
        assert!(out.len() == blocks * len && bytes.len() == blocks * size, "{}: bytes of whole blocks", self.name());
        let one: fn(&[u8], &mut [f32]) = match self {
            Self::Q4_0 => q4_0,
            Self::Q4_1 => q4_1,
            Self::Q5_0 => q5_0,
            Self::Q5_1 => q5_1,
            Self::Q8_0 => q8_0,
            Self::Q2K => q2_k,
            Self::Q3K => q3_k,
            Self::Q4K => q4_k,
            Self::Q5K => q5_k,
            Self::Q6K => q6_k,
        };
        for (block, out) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(len)) {
            one(block, out);
        }
    }
}

/// The half-precision number at byte `at`.
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Digit `i` of 32 digits of four bits: the low halves of sixteen bytes, then the high ones.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 }
}

/// The fifth bit of digit `i`, as 16 or 0.
fn fifth(bits: &[u8], i: usize) -> u8 {
    ((bits[i / 8] >> (i % 8)) & 1) << 4
}

fn q4_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (i, out) in out.iter_mut().enumerate() {
        *out = f32::from(i16::from(nibble(&block[2..], i)) - 8) * d;
    }
}

fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for (i, out) in out.iter_mut().enumerate() {
        *out = f32::from(nibble(&block[4..], i)) * d + m;
    }
}

fn q5_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (i, out) in out.iter_mut().enumerate() {
        let digit = nibble(&block[6..], i) | fifth(&block[2..6], i);
        *out = f32::from(i16::from(digit) - 16) * d;
    }
}

fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for (i, out) in out.iter_mut().enumerate() {
        *out = f32::from(nibble(&block[8..], i) | fifth(&block[4..8], i)) * d + m;
    }
}

fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (out, q) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(q.cast_signed()) * d;
    }
}

/// Digit of two bits of value `i`: 128 values share 32 bytes, each of which holds the values 32 apart.
fn pair_of_bits(bytes: &[u8], i: usize) -> u8 {
    (bytes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3
}

fn q2_k(block: &[u8], out: &mut [f32]) {
    let (scales, digits) = (&block[..16], &block[16..80]);
    let (d, min) = (half(block, 80), half(block, 82));
    for (group, out) in out.chunks_exact_mut(16).enumerate() {
        let scale = d * f32::from(scales[group] & 15);
        let offset = min * f32::from(scales[group] >> 4);
        for (j, out) in out.iter_mut().enumerate() {
            *out = scale * f32::from(pair_of_bits(digits, group * 16 + j)) - offset;
        }
    }
}

fn q3_k(block: &[u8], out: &mut [f32]) {
    let (high, digits, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = half(block, 108);
    for (group, out) in out.chunks_exact_mut(16).enumerate() {
        // Four bits in the first eight bytes, two more in the last four.
        let low = if group < 8 { scales[group] & 15 } else { scales[group - 8] >> 4 };
        let top = (scales[8 + group % 4] >> (group / 4 * 2)) & 3;
        let scale = d * (f32::from(low | (top << 4)) - 32.0);
        for (j, out) in out.iter_mut().enumerate() {
            let i = group * 16 + j;
            let missing = if high[i % 32] >> (i / 32) & 1 == 0 { 4 } else { 0 };
            *out = scale * f32::from(i16::from(pair_of_bits(digits, i)) - missing);
        }
    }
}

/// Scale and minimum number `i` of the eight of Q4_K and Q5_K, six bits each in twelve bytes.
fn scale_and_min(bytes: &[u8], i: usize) -> (f32, f32) {
    let (scale, min) = if i < 4 {
        (bytes[i] & 63, bytes[i + 4] & 63)
    } else {
        ((bytes[i + 4] & 15) | (bytes[i - 4] >> 6 << 4), (bytes[i + 4] >> 4) | (bytes[i] >> 6 << 4))
    };
    (f32::from(scale), f32::from(min))
}

/// Digit of four bits of value `i`: 64 values share 32 bytes, the low halves first.
fn half_of_byte(bytes: &[u8], i: usize) -> u8 {
    (bytes[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4)) & 15
}

fn q4_k(block: &[u8], out: &mut [f32]) {
    k_with_min(block, out, |i| half_of_byte(&block[16..144], i));
}

fn q5_k(block: &[u8], out: &mut [f32]) {
    let (high, low) = (&block[16..48], &block[48..176]);
    k_with_min(block, out, |i| half_of_byte(low, i) | (((high[i % 32] >> (i / 32)) & 1) << 4));
}

/// Common layout of Q4_K and Q5_K: groups of 32 with a scale and a minimum.
fn k_with_min(block: &[u8], out: &mut [f32], digit: impl Fn(usize) -> u8) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], group);
        let (scale, offset) = (d * scale, dmin * min);
        for (j, out) in out.iter_mut().enumerate() {
            *out = scale * f32::from(digit(group * 32 + j)) - offset;
        }
    }
}

fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half(block, 208);
    for (i, out) in out.iter_mut().enumerate() {
        // 128 values share 64 bytes of low digits and 32 bytes of high ones.
        let (part, j) = (i / 128, i % 128);
        let digit = (low[part * 64 + j % 64] >> (j / 64 * 4)) & 15;
        let top = (high[part * 32 + j % 32] >> (j / 32 * 2)) & 3;
        let scale = d * f32::from(scales[i / 16].cast_signed());
        *out = scale * f32::from(i16::from(digit | (top << 4)) - 32);
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use candle_core::CpuStorage;
    use candle_core::quantized::GgmlDType;
    use proptest::prelude::*;
    use ternary_kernels::AlignedBuf;

    use super::*;

    fn of_candle(ty: BlockType) -> GgmlDType {
        match ty {
            BlockType::Q4_0 => GgmlDType::Q4_0,
            BlockType::Q4_1 => GgmlDType::Q4_1,
            BlockType::Q5_0 => GgmlDType::Q5_0,
            BlockType::Q5_1 => GgmlDType::Q5_1,
            BlockType::Q8_0 => GgmlDType::Q8_0,
            BlockType::Q2K => GgmlDType::Q2K,
            BlockType::Q3K => GgmlDType::Q3K,
            BlockType::Q4K => GgmlDType::Q4K,
            BlockType::Q5K => GgmlDType::Q5K,
            BlockType::Q6K => GgmlDType::Q6K,
        }
    }

    proptest! {
        /// For any bytes, the same bits as candle's decoder, which is independent.
        #[test]
        fn blocks_are_decoded_as_others_do(seed in proptest::collection::vec(any::<u8>(), 210 * 3), blocks in 0usize..=3) {
            for ty in BlockType::ALL {
                let bytes = &seed[..blocks * ty.block_bytes()];
                let candle = of_candle(ty);
                prop_assert_eq!((ty.block_len(), ty.block_bytes()), (candle.block_size(), candle.type_size()));
                let mut out = vec![0.0; blocks * ty.block_len()];
                ty.decode(bytes, &mut out);
                let aligned = AlignedBuf::from_slice(bytes);
                let expected = match candle.from_data(Cow::Borrowed(&aligned)).dequantize(out.len()) {
                    Ok(CpuStorage::F32(values)) => values,
                    other => panic!("{ty:?}: {}", other.is_ok()),
                };
                for (i, (a, b)) in out.iter().zip(&expected).enumerate() {
                    // A scale that is NaN makes values that are NaN, with any bits.
                    prop_assert!(a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()), "{:?} {}: {} {}", ty, i, a, b);
                }
            }
        }
    }
}
