//! Stored keys and values, and their quantisation for a cache.

use half::{bf16, f16};

use super::KV_BLOCK;
use crate::ops::Ops;
use crate::ops::lanes::{LANES, Simd, pad};
use crate::quantize::MIN_ABS;
use crate::simd;

/// Stored keys or values.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum KvData<'a> {
    /// 32 bits.
    F32(&'a [f32]),
    /// 16 bits, exact in f32.
    F16(&'a [f16]),
    /// 16 bits, exact in f32.
    Bf16(&'a [bf16]),
    /// 8 bits: element `i` of row `j` is `codes[j * stride + i] * steps[j]`. Rows are padded with zeros to whole
    /// vectors of 16, and the stride is a multiple of 16. [`Ops::quantize_kv8`] makes such rows.
    Int8 {
        /// Codes in -127..=127.
        codes: &'a [i8],
        /// One for each row.
        steps: &'a [f32],
    },
    /// 4 bits in two's complement: rows and stride as with 8, in elements; eight bytes are sixteen elements, element
    /// `2i` being nibble `i` of the first four bytes (lower halves first) and element `2i + 1` nibble `i` of the last
    /// four. [`Ops::quantize_kv4`] makes such rows.
    Int4 {
        /// Codes in -7..=7, two in a byte.
        nibbles: &'a [u8],
        /// One for each row.
        steps: &'a [f32],
        /// Row 0 in 8 bits with its step, instead of the 4-bit one: the beginning of a text, which most queries attend
        /// to.
        first: Option<(&'a [i8], f32)>,
    },
}

impl KvData<'_> {
    /// Number of elements, including padding.
    fn len(&self) -> usize {
        match self {
            KvData::F32(x) => x.len(),
            KvData::F16(x) => x.len(),
            KvData::Bf16(x) => x.len(),
            KvData::Int8 { codes, .. } => codes.len(),
            KvData::Int4 { nibbles, .. } => 2 * nibbles.len(),
        }
    }

    /// Elements of a row of `head_dim`, including padding.
    fn row_len(&self, head_dim: usize) -> usize {
        match self {
            KvData::F32(_) | KvData::F16(_) | KvData::Bf16(_) => head_dim,
            KvData::Int8 { .. } | KvData::Int4 { .. } => head_dim.next_multiple_of(LANES),
        }
    }

    /// # Panics
    /// If steps or the first row are missing, or the stride is not a multiple of a vector.
    fn check(&self, len: usize, head_dim: usize, stride: usize) {
        let (steps, first) = match self {
            KvData::F32(_) | KvData::F16(_) | KvData::Bf16(_) => return,
            KvData::Int8 { steps, .. } => (steps, None),
            KvData::Int4 { steps, first, .. } => (steps, *first),
        };
        let first = first.is_none_or(|(codes, _)| codes.len() == self.row_len(head_dim));
        assert!(
            stride.is_multiple_of(LANES) && steps.len() >= len && first,
            "{len} quantised rows of {head_dim} with stride {stride} and {} steps",
            steps.len()
        );
    }
}

/// Keys or values of one head at consecutive positions, `[len, head_dim]` with a stride.
#[derive(Clone, Copy, Debug)]
pub struct KvRows<'a> {
    pub(super) data: KvData<'a>,
    pub(super) len: usize,
    pub(super) head_dim: usize,
    pub(super) stride: usize,
}

impl<'a> KvRows<'a> {
    /// Row `j` is the `head_dim` elements from `data[j * stride]` on.
    ///
    /// # Panics
    /// If rows overlap or the last one exceeds the data; for quantised rows, if steps are missing.
    pub fn new(data: KvData<'a>, len: usize, head_dim: usize, stride: usize) -> Self {
        let width = data.row_len(head_dim);
        let end = len.checked_sub(1).map_or(Some(0), |last| last.checked_mul(stride)?.checked_add(width));
        assert!(
            stride >= width && end.is_some_and(|end| end <= data.len()),
            "{len} rows of {head_dim} with stride {stride} in {} elements",
            data.len()
        );
        data.check(len, head_dim, stride);
        Self { data, len, head_dim, stride }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The rows of block `block`, if row 0 is position 0; the last block may be short, later ones are empty.
    pub fn block(&self, block: usize) -> Self {
        let start = block.saturating_mul(KV_BLOCK).min(self.len);
        let len = KV_BLOCK.min(self.len - start);
        let from = if len == 0 { 0 } else { start * self.stride };
        let data = match self.data {
            KvData::F32(x) => KvData::F32(&x[from..]),
            KvData::F16(x) => KvData::F16(&x[from..]),
            KvData::Bf16(x) => KvData::Bf16(&x[from..]),
            KvData::Int8 { codes, steps } => KvData::Int8 { codes: &codes[from..], steps: &steps[start..] },
            KvData::Int4 { nibbles, steps, first } => KvData::Int4 {
                nibbles: &nibbles[from / 2..],
                steps: &steps[start..],
                first: first.filter(|_| start == 0),
            },
        };
        Self { data, len, ..*self }
    }

    /// The memory of the rows, without steps and without a separate first row.
    pub(super) fn bytes(&self) -> &'a [u8] {
        let elements = self.len * self.stride;
        match self.data {
            KvData::F32(x) => bytemuck::cast_slice(&x[..elements.min(x.len())]),
            KvData::F16(x) => bytemuck::cast_slice(&x[..elements.min(x.len())]),
            KvData::Bf16(x) => bytemuck::cast_slice(&x[..elements.min(x.len())]),
            KvData::Int8 { codes, .. } => bytemuck::cast_slice(&codes[..elements.min(codes.len())]),
            KvData::Int4 { nibbles, .. } => &nibbles[..(elements / 2).min(nibbles.len())],
        }
    }

    /// The memory of the steps.
    pub(super) fn step_bytes(&self) -> &'a [u8] {
        match self.data {
            KvData::F32(_) | KvData::F16(_) | KvData::Bf16(_) => &[],
            KvData::Int8 { steps, .. } | KvData::Int4 { steps, .. } => bytemuck::cast_slice(&steps[..self.len]),
        }
    }

    /// The steps of the first rows, zeros after the last one; `None` if elements are not codes.
    pub(super) fn steps(&self) -> Option<[f32; KV_BLOCK]> {
        let (all, first) = match self.data {
            KvData::F32(_) | KvData::F16(_) | KvData::Bf16(_) => return None,
            KvData::Int8 { steps, .. } => (steps, None),
            KvData::Int4 { steps, first, .. } => (steps, first),
        };
        let mut steps = [0.0; KV_BLOCK];
        let len = self.len.min(KV_BLOCK);
        steps[..len].copy_from_slice(&all[..len]);
        if let Some((_, step)) = first {
            steps[0] = step;
        }
        Some(steps)
    }
}

/// Prefetches memory that is needed soon.
///
/// Keys and values of a head come from memory in pieces of a few pages, in turn: hardware prefetchers stop at each
/// page, so the thread would wait at the start of every block.
#[inline(always)]
pub(super) fn prefetch(bytes: &[u8]) {
    if simd::PREFETCHES {
        bytes.chunks(64).for_each(|line| simd::prefetch(line.as_ptr()));
    }
}

/// The piece of `bytes` for rows `from..to` of a block, in equal shares.
#[inline(always)]
pub(super) fn share(bytes: &[u8], from: usize, to: usize) -> &[u8] {
    let at = |row: usize| bytes.len() * row.min(KV_BLOCK) / KV_BLOCK;
    &bytes[at(from)..at(to)]
}

ops! {
    fn kv8(x: &[f32], codes: &mut [i8]) -> f32 = kv8;
    fn kv4(x: &[f32], nibbles: &mut [u8]) -> f32 = kv4;
}

impl Ops {
    /// Quantises a row of keys or values to 8 bits, as [`KvData::Int8`] stores it: with `g = max(max_i |x[i]|, 1e-5)`
    /// the codes are `round(x[i] * (127 / g))`, ties to even, and the returned step is `g / 127`. `x` is `[k]` f32,
    /// `codes` is `[k]` padded to whole vectors of 16. If a value is NaN or infinite, the step is not finite and the
    /// codes are meaningless.
    ///
    /// Paper: arXiv:2504.18415, section 3.1, for each token and head.
    ///
    /// # Panics
    /// If `codes` is not `k` rounded up to a multiple of 16.
    pub fn quantize_kv8(self, x: &[f32], codes: &mut [i8]) -> f32 {
        assert_eq!(codes.len(), x.len().next_multiple_of(LANES), "quantize_kv8 of {} elements", x.len());
        self.kv8(x, codes)
    }

    /// Like [`Ops::quantize_kv8`], but to 4 bits, as [`KvData::Int4`] stores them: codes `round(x[i] * (7 / g))`, step
    /// `g / 7`.
    ///
    /// # Panics
    /// If `nibbles` is not half of `k` rounded up to a multiple of 16.
    pub fn quantize_kv4(self, x: &[f32], nibbles: &mut [u8]) -> f32 {
        assert_eq!(nibbles.len() * 2, x.len().next_multiple_of(LANES), "quantize_kv4 of {} elements", x.len());
        self.kv4(x, nibbles)
    }
}

/// Passes codes of up to `levels`, sixteen at a time, to `store`; returns the step.
#[inline(always)]
pub(super) fn quantize_row<S: Simd>(s: S, x: &[f32], levels: f32, mut store: impl FnMut(usize, &[i8; LANES])) -> f32 {
    let (vectors, tail) = x.as_chunks();
    let last = pad(tail, 0.0);
    let mut max = s.abs_bits(s.load(&last));
    for v in vectors {
        max = s.max_i(max, s.abs_bits(s.load(v)));
    }
    // As integers, infinity and NaN are above all numbers.
    let max = f32::from_bits(s.max_lane_i(max) as u32);
    let max = if max < MIN_ABS { MIN_ABS } else { max };
    let factor = s.splat(levels / max);
    let mut out = [0; LANES];
    for (i, v) in vectors.iter().chain(if tail.is_empty() { None } else { Some(&last) }).enumerate() {
        s.store_i8(s.to_i(s.mul(s.load(v), factor)), &mut out);
        store(i, &out);
    }
    max / levels
}

#[inline(always)]
fn kv8<S: Simd>(s: S, x: &[f32], out: &mut [i8]) -> f32 {
    let (out, _) = out.as_chunks_mut::<LANES>();
    quantize_row(s, x, 127.0, |i, codes| out[i] = *codes)
}

#[inline(always)]
fn kv4<S: Simd>(s: S, x: &[f32], out: &mut [u8]) -> f32 {
    let (out, _) = out.as_chunks_mut::<{ LANES / 2 }>();
    quantize_row(s, x, 7.0, |i, codes| {
        // The inverse of `Simd::load_i4`.
        out[i] = std::array::from_fn(|b| {
            let l = 4 * (b % 4) + b / 4;
            (codes[l] as u8 & 0x0f) | (codes[l + 2] as u8) << 4
        });
    })
}
