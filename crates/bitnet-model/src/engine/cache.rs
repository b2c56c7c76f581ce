//! Keys and values of one sequence, in the layers that are attention.

use std::ops::Range;

use half::{bf16, f16};
use ternary_kernels::AlignedBuf;
use ternary_kernels::ops::{KvData, KvRows};

use crate::ModelConfig;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KvType {
    /// 32-bit floats: the reference mode.
    F32,
    /// IEEE half precision: the default of fast generation. Half of the memory traffic of `F32`.
    #[default]
    F16,
    /// bfloat16.
    Bf16,
    /// Int8 with a scale for each token and head; queries become int8 likewise when they meet such keys.
    Q8,
    /// Int4 with a scale for each token and head; the token at position 0, at which most others look, is kept in int8. Queries as
    /// with `Q8`.
    Q4,
}

impl KvType {
    /// All types, the most exact first.
    pub const ALL: [KvType; 5] = [KvType::F32, KvType::F16, KvType::Bf16, KvType::Q8, KvType::Q4];

    /// Bytes of the keys, or of the values, of one token and one head of `head_dim` elements.
    ///
    /// ```
    /// use bitnet_model::KvType;
    /// assert_eq!(KvType::ALL.map(|t| t.row_bytes(128)), [512, 256, 256, 132, 68]);
    /// ```
    pub fn row_bytes(self, head_dim: usize) -> usize {
        match self {
            KvType::F32 => 4 * head_dim,
            KvType::F16 | KvType::Bf16 => 2 * head_dim,
            KvType::Q8 => padded(head_dim) + size_of::<f32>(),
            KvType::Q4 => padded(head_dim) / 2 + size_of::<f32>(),
        }
    }

    /// Bytes of the keys and values of one token in all layers of a model.
    pub fn token_bytes(self, config: &ModelConfig) -> usize {
        config.kv_values_per_token() / config.head_dim * self.row_bytes(config.head_dim)
    }

    /// The name used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
            KvType::Bf16 => "bf16",
            KvType::Q8 => "q8",
            KvType::Q4 => "q4",
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }
}

/// Elements of a quantised row: whole vectors.
pub(super) fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(16)
}

/// Keys and values of one layer: for each key/value head a slab of `[capacity, head_dim]`.
#[derive(Clone, Debug)]
pub(super) enum LayerCache {
    F32(Slabs<f32>),
    F16(Slabs<f16>),
    Bf16(Slabs<bf16>),
    Q8(Quantized<i8>),
    /// Two codes in a byte.
    Q4(Quantized<u8>),
}

impl LayerCache {
    /// Keys and values of the first `len` positions of `head`, in slabs of `capacity` rows of `d` elements.
    pub(super) fn rows(&self, head: usize, capacity: usize, d: usize, len: usize) -> (KvRows<'_>, KvRows<'_>) {
        let at = |row: usize| head * capacity * row..(head + 1) * capacity * row;
        let rows = |data, stride| KvRows::new(data, len, d, stride);
        let width = padded(d);
        match self {
            LayerCache::F32(s) => (rows(KvData::F32(&s.k[at(d)]), d), rows(KvData::F32(&s.v[at(d)]), d)),
            LayerCache::F16(s) => (rows(KvData::F16(&s.k[at(d)]), d), rows(KvData::F16(&s.v[at(d)]), d)),
            LayerCache::Bf16(s) => (rows(KvData::Bf16(&s.k[at(d)]), d), rows(KvData::Bf16(&s.v[at(d)]), d)),
            LayerCache::Q8(s) => {
                let (codes, steps) = (at(width), at(1));
                let keys = KvData::Int8 { codes: &s.codes.k[codes.clone()], steps: &s.steps.k[steps.clone()] };
                let values = KvData::Int8 { codes: &s.codes.v[codes], steps: &s.steps.v[steps] };
                (rows(keys, width), rows(values, width))
            }
            LayerCache::Q4(s) => {
                let row: Range<usize> = head * width..(head + 1) * width;
                let (codes, steps) = (at(width / 2), at(1));
                (
                    int4_rows(&s.codes.k[codes.clone()], &s.steps.k[steps.clone()], &s.first.k[row.clone()], len, d),
                    int4_rows(&s.codes.v[codes], &s.steps.v[steps], &s.first.v[row], len, d),
                )
            }
        }
    }
}

/// Rows of nibbles, with that of position 0 in int8.
fn int4_rows<'a>(nibbles: &'a [u8], steps: &'a [f32], first: &'a [i8], len: usize, d: usize) -> KvRows<'a> {
    let first = steps.first().map(|step| (first, *step));
    KvRows::new(KvData::Int4 { nibbles, steps, first }, len, d, padded(d))
}

/// Codes with their steps.
#[derive(Clone, Debug)]
pub(super) struct Quantized<T: bytemuck::Pod> {
    pub(super) codes: Slabs<T>,
    /// `[capacity]` for each head.
    pub(super) steps: Slabs<f32>,
    /// The row of position 0 of each head in int8, if it is kept so.
    pub(super) first: Slabs<i8>,
}

impl<T: bytemuck::Pod> Quantized<T> {
    /// `first` elements are kept in int8.
    fn empty(first: usize) -> Self {
        let first = Slabs { k: AlignedBuf::zeroed(first), v: AlignedBuf::zeroed(first) };
        Self { codes: Slabs::empty(), steps: Slabs::empty(), first }
    }

    fn grow(&mut self, heads: usize, row: usize, used: usize, from: usize, to: usize) {
        self.codes.grow(heads, row, used, from, to);
        self.steps.grow(heads, 1, used, from, to);
    }
}

/// Keys and values as slabs per head.
#[derive(Clone, Debug)]
pub(super) struct Slabs<T: bytemuck::Pod> {
    pub(super) k: AlignedBuf<T>,
    pub(super) v: AlignedBuf<T>,
}

impl<T: bytemuck::Pod> Slabs<T> {
    fn empty() -> Self {
        Self { k: AlignedBuf::zeroed(0), v: AlignedBuf::zeroed(0) }
    }

    /// Appends the first `used` values of each head's `slab`, keys before values.
    fn save<const N: usize>(&self, [heads, used, slab]: [usize; 3], bytes: &mut Vec<u8>, write: fn(T) -> [u8; N]) {
        for all in [&self.k, &self.v] {
            for h in 0..heads {
                all[h * slab..][..used].iter().for_each(|v| bytes.extend(write(*v)));
            }
        }
    }

    /// The reverse: `used` values of each head out of `bytes`, whose rest is returned.
    fn fill<'b, const N: usize>(
        &mut self,
        [heads, used, slab]: [usize; 3],
        bytes: &'b [u8],
        read: fn([u8; N]) -> T,
    ) -> &'b [u8] {
        let mut rest = bytes;
        for all in [&mut self.k, &mut self.v] {
            for h in 0..heads {
                let (own, behind) = rest.split_at(used * N);
                for (v, b) in all[h * slab..][..used].iter_mut().zip(own.as_chunks().0) {
                    *v = read(*b);
                }
                rest = behind;
            }
        }
        rest
    }

    /// Overwrites everything with `numbers`, again and again.
    fn repeat(&mut self, numbers: &[T]) {
        for all in [&mut self.k, &mut self.v] {
            all.chunks_mut(numbers.len().max(1)).for_each(|chunk| chunk.copy_from_slice(&numbers[..chunk.len()]));
        }
    }

    /// Moves `used` rows of each head into slabs of `to` rows.
    fn grow(&mut self, heads: usize, row: usize, used: usize, from: usize, to: usize) {
        for old in [&mut self.k, &mut self.v] {
            let mut new = AlignedBuf::zeroed(heads * to * row);
            for h in 0..heads {
                new[h * to * row..][..used * row].copy_from_slice(&old[h * from * row..][..used * row]);
            }
            *old = new;
        }
    }
}

/// Keys and values of the tokens of one sequence, in all layers that are attention. It grows with the text, up to the
/// model's context.
#[derive(Clone, Debug)]
pub(super) struct KvCache {
    pub(super) layers: Vec<LayerCache>,
    ty: KvType,
    kv_heads: usize,
    head_dim: usize,
    len: usize,
    capacity: usize,
    limit: usize,
}

/// Slabs grow in multiples of this many tokens.
const GROW: usize = 256;

impl KvCache {
    /// An empty cache for a model of this shape, for at most `limit` tokens.
    pub(super) fn new(config: &ModelConfig, ty: KvType, limit: usize) -> Self {
        let layer = || match ty {
            KvType::F32 => LayerCache::F32(Slabs::empty()),
            KvType::F16 => LayerCache::F16(Slabs::empty()),
            KvType::Bf16 => LayerCache::Bf16(Slabs::empty()),
            KvType::Q8 => LayerCache::Q8(Quantized::empty(0)),
            KvType::Q4 => LayerCache::Q4(Quantized::empty(config.num_key_value_heads * padded(config.head_dim))),
        };
        Self {
            layers: (0..config.attention_layers()).map(|_| layer()).collect(),
            ty,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            len: 0,
            capacity: 0,
            limit,
        }
    }

    /// Tokens in the cache.
    pub(super) fn len(&self) -> usize {
        self.len
    }
    /// Most tokens that it may hold.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }
    /// How keys and values are stored.
    pub(super) fn kv_type(&self) -> KvType {
        self.ty
    }
    /// Bytes allocated now.
    pub(super) fn byte_len(&self) -> usize {
        let first = if self.ty == KvType::Q4 { padded(self.head_dim) } else { 0 };
        2 * self.layers.len() * self.kv_heads * (self.capacity * self.ty.row_bytes(self.head_dim) + first)
    }
    /// Rows of each head's slab.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all tokens from position `len` on.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes room for `len` tokens in all.
    pub(super) fn reserve(&mut self, len: usize) {
        if len <= self.capacity || self.layers.is_empty() {
            return;
        }
        let whole = |n: usize| n.checked_next_multiple_of(GROW).unwrap_or(usize::MAX);
        let to = whole(len.max(self.capacity * 2)).min(whole(self.limit));
        let (heads, row, used, from) = (self.kv_heads, self.head_dim, self.len, self.capacity);
        for layer in &mut self.layers {
            match layer {
                LayerCache::F32(s) => s.grow(heads, row, used, from, to),
                LayerCache::F16(s) => s.grow(heads, row, used, from, to),
                LayerCache::Bf16(s) => s.grow(heads, row, used, from, to),
                LayerCache::Q8(s) => s.grow(heads, padded(row), used, from, to),
                LayerCache::Q4(s) => s.grow(heads, padded(row) / 2, used, from, to),
            }
        }
        self.capacity = to;
    }

    /// Bytes that [`KvCache::save_into`] makes of `tokens` tokens; `None` if there is no such number.
    pub(super) fn saved_bytes(config: &ModelConfig, ty: KvType, tokens: usize) -> Option<usize> {
        let slabs = config.kv_values_per_token() / config.head_dim;
        let first = if ty == KvType::Q4 { padded(config.head_dim) } else { 0 };
        ty.token_bytes(config).checked_mul(tokens)?.checked_add(slabs.checked_mul(first)?)
    }

    /// Heads, values of the first `len` tokens in each, values of its slab, for rows of `row` values.
    fn extent(&self, len: usize, row: usize) -> [usize; 3] {
        [self.kv_heads, len * row, self.capacity * row]
    }

    /// Appends keys and values of all tokens, layer by layer and head by head, little-endian.
    pub(super) fn save_into(&self, bytes: &mut Vec<u8>) {
        let (d, width) = (self.head_dim, padded(self.head_dim));
        let of = |row| self.extent(self.len, row);
        for layer in &self.layers {
            match layer {
                LayerCache::F32(s) => s.save(of(d), bytes, f32::to_le_bytes),
                LayerCache::F16(s) => s.save(of(d), bytes, f16::to_le_bytes),
                LayerCache::Bf16(s) => s.save(of(d), bytes, bf16::to_le_bytes),
                LayerCache::Q8(s) => {
                    s.codes.save(of(width), bytes, i8::to_le_bytes);
                    s.steps.save(of(1), bytes, f32::to_le_bytes);
                }
                LayerCache::Q4(s) => {
                    s.codes.save(of(width / 2), bytes, u8::to_le_bytes);
                    s.steps.save(of(1), bytes, f32::to_le_bytes);
                    s.first.save([self.kv_heads, width, width], bytes, i8::to_le_bytes);
                }
            }
        }
    }

    /// Becomes what [`KvCache::save_into`] made `bytes` of with `len` tokens, for which there is room; the rest of `bytes` is
    /// returned.
    pub(super) fn restore_from<'b>(&mut self, len: usize, mut bytes: &'b [u8]) -> &'b [u8] {
        let (d, width) = (self.head_dim, padded(self.head_dim));
        let [of_row, of_width, of_nibbles, of_step] = [d, width, width / 2, 1].map(|row| self.extent(len, row));
        let of_first = [self.kv_heads, width, width];
        for layer in &mut self.layers {
            bytes = match layer {
                LayerCache::F32(s) => s.fill(of_row, bytes, f32::from_le_bytes),
                LayerCache::F16(s) => s.fill(of_row, bytes, f16::from_le_bytes),
                LayerCache::Bf16(s) => s.fill(of_row, bytes, bf16::from_le_bytes),
                LayerCache::Q8(s) => {
                    let rest = s.codes.fill(of_width, bytes, i8::from_le_bytes);
                    s.steps.fill(of_step, rest, f32::from_le_bytes)
                }
                LayerCache::Q4(s) => {
                    let rest = s.codes.fill(of_nibbles, bytes, u8::from_le_bytes);
                    let rest = s.steps.fill(of_step, rest, f32::from_le_bytes);
                    s.first.fill(of_first, rest, i8::from_le_bytes)
                }
            };
        }
        self.len = len;
        bytes
    }

    /// For measurements: keys and values of no meaning for `len` tokens.
    pub(super) fn fill(&mut self, len: usize) {
        self.reserve(len.saturating_add(GROW).min(self.limit).max(len));
        // The golden ratio's multiples lie all over; a prime number of them, so that rows differ.
        let codes: Vec<i8> = (0..1021u32).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 24) as i8).collect();
        let numbers: Vec<f32> = codes.iter().map(|c| f32::from(*c) / 128.0).collect();
        for layer in &mut self.layers {
            match layer {
                LayerCache::F32(s) => s.repeat(&numbers),
                LayerCache::F16(s) => s.repeat(&numbers.iter().map(|x| f16::from_f32(*x)).collect::<Vec<_>>()),
                LayerCache::Bf16(s) => s.repeat(&numbers.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>()),
                LayerCache::Q8(s) => {
                    // -128 is no code.
                    s.codes.repeat(&codes.iter().map(|c| (*c).max(-127)).collect::<Vec<_>>());
                    s.steps.repeat(&[1.0 / 128.0]);
                }
                LayerCache::Q4(s) => {
                    s.codes.repeat(&codes.iter().map(|c| *c as u8).collect::<Vec<_>>());
                    s.steps.repeat(&[1.0 / 8.0]);
                }
            }
        }
        self.len = len;
    }

    /// Counts `n` tokens whose keys and values have been written.
    pub(super) fn advance(&mut self, n: usize) {
        self.len += n;
        debug_assert!(self.len <= self.capacity || self.layers.is_empty());
    }
}
