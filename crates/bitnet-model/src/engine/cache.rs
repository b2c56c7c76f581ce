//! Keys and values of one sequence, in the layers that are attention.

use half::{bf16, f16};
use ternary_kernels::AlignedBuf;

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
}

impl KvType {
    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        match self {
            KvType::F32 => 4,
            KvType::F16 | KvType::Bf16 => 2,
        }
    }

    /// The name used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
            KvType::Bf16 => "bf16",
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [KvType::F32, KvType::F16, KvType::Bf16].into_iter().find(|t| t.name() == name)
    }
}

/// Keys and values of one layer: for each key/value head a slab of `[capacity, head_dim]`.
#[derive(Clone, Debug)]
pub(super) enum LayerCache {
    F32(Slabs<f32>),
    F16(Slabs<f16>),
    Bf16(Slabs<bf16>),
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

    /// Calls `f` with the rows of each head's tokens, keys before values.
    fn each_head(&self, cache: &KvCache, mut f: impl FnMut(&[T])) {
        let (used, slab) = (cache.len * cache.head_dim, cache.capacity * cache.head_dim);
        for all in [&self.k, &self.v] {
            (0..cache.kv_heads).for_each(|h| f(&all[h * slab..][..used]));
        }
    }

    /// The reverse: `used` values of each head out of `bytes`, whose rest is returned.
    fn fill<'b, const N: usize>(
        &mut self,
        heads: usize,
        used: usize,
        slab: usize,
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
        2 * self.layers.len() * self.kv_heads * self.head_dim * self.capacity * self.ty.bytes()
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
            }
        }
        self.capacity = to;
    }

    /// Appends keys and values of all tokens, layer by layer and head by head, little-endian.
    pub(super) fn save_into(&self, bytes: &mut Vec<u8>) {
        for layer in &self.layers {
            match layer {
                LayerCache::F32(s) => s.each_head(self, |rows| rows.iter().for_each(|v| bytes.extend(v.to_le_bytes()))),
                LayerCache::F16(s) => s.each_head(self, |rows| rows.iter().for_each(|v| bytes.extend(v.to_le_bytes()))),
                LayerCache::Bf16(s) => {
                    s.each_head(self, |rows| rows.iter().for_each(|v| bytes.extend(v.to_le_bytes())))
                }
            }
        }
    }

    /// Becomes what [`KvCache::save_into`] made `bytes` of with `len` tokens, for which there is room; the rest of `bytes` is
    /// returned.
    pub(super) fn restore_from<'b>(&mut self, len: usize, mut bytes: &'b [u8]) -> &'b [u8] {
        let (heads, used, slab) = (self.kv_heads, len * self.head_dim, self.capacity * self.head_dim);
        for layer in &mut self.layers {
            bytes = match layer {
                LayerCache::F32(s) => s.fill(heads, used, slab, bytes, f32::from_le_bytes),
                LayerCache::F16(s) => s.fill(heads, used, slab, bytes, f16::from_le_bytes),
                LayerCache::Bf16(s) => s.fill(heads, used, slab, bytes, bf16::from_le_bytes),
            };
        }
        self.len = len;
        bytes
    }

    /// Counts `n` tokens whose keys and values have been written.
    pub(super) fn advance(&mut self, n: usize) {
        self.len += n;
        debug_assert!(self.len <= self.capacity || self.layers.is_empty());
    }
}
