//! Keys and values of one sequence, in the layers that are attention.

mod pages;

use std::ops::Range;

use half::{bf16, f16};
use ternary_kernels::ops::{KV_BLOCK, KvData, KvRows};

use crate::ModelConfig;
use pages::Extent;
pub(super) use pages::{PAGE, Pages, Quantized, Slabs};

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
    /// Int8 with a scale for each token and head; queries are quantised to int8 likewise for products with such keys.
    Q8,
    /// Int4 with a scale for each token and head; the token at position 0, which most others attend to, is kept in
    /// int8. Queries as with `Q8`.
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

    /// The type with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }
}

/// Elements of a quantised row: whole vectors.
pub(super) fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(16)
}

/// Keys and values of one layer.
#[derive(Clone, Debug)]
pub(super) enum LayerCache {
    F32(Pages<Slabs<f32>>),
    F16(Pages<Slabs<f16>>),
    Bf16(Pages<Slabs<bf16>>),
    Q8(Pages<Quantized<i8>>),
    /// Two codes per byte.
    Q4(Pages<Quantized<u8>>),
}

/// Evaluates an expression for the pages of any type.
macro_rules! each_type {
    ($layer:expr, $pages:ident => $result:expr) => {
        match $layer {
            LayerCache::F32($pages) => $result,
            LayerCache::F16($pages) => $result,
            LayerCache::Bf16($pages) => $result,
            LayerCache::Q8($pages) => $result,
            LayerCache::Q4($pages) => $result,
        }
    };
}

impl LayerCache {
    /// Keys and values of `head` in block `block`, of those at positions below `len`; rows of `d` elements.
    pub(super) fn block(&self, head: usize, block: usize, d: usize, len: usize) -> (KvRows<'_>, KvRows<'_>) {
        let (page, within) = (block * KV_BLOCK / PAGE, block % (PAGE / KV_BLOCK));
        let (len, width) = ((len - page * PAGE).min(PAGE), padded(d));
        let at = |row: usize| head * PAGE * row..(head + 1) * PAGE * row;
        let rows = |data, stride| KvRows::new(data, len, d, stride).block(within);
        match self {
            LayerCache::F32(p) => p.get(page).both(at(d), |x| rows(KvData::F32(x), d)),
            LayerCache::F16(p) => p.get(page).both(at(d), |x| rows(KvData::F16(x), d)),
            LayerCache::Bf16(p) => p.get(page).both(at(d), |x| rows(KvData::Bf16(x), d)),
            LayerCache::Q8(p) => {
                let s = p.get(page);
                let (codes, steps) = (at(width), at(1));
                let keys = KvData::Int8 { codes: &s.codes.k[codes.clone()], steps: &s.steps.k[steps.clone()] };
                let values = KvData::Int8 { codes: &s.codes.v[codes], steps: &s.steps.v[steps] };
                (rows(keys, width), rows(values, width))
            }
            LayerCache::Q4(p) => {
                let s = p.get(page);
                let (codes, steps) = (at(width / 2), at(1));
                let row: Range<usize> = head * width..(head + 1) * width;
                (
                    rows(int4(&s.codes.k[codes.clone()], &s.steps.k[steps.clone()], s.first.k.get(row.clone())), width),
                    rows(int4(&s.codes.v[codes], &s.steps.v[steps], s.first.v.get(row)), width),
                )
            }
        }
    }
}

/// Nibbles, with the row of position 0 in int8 in the first page.
fn int4<'a>(nibbles: &'a [u8], steps: &'a [f32], first: Option<&'a [i8]>) -> KvData<'a> {
    KvData::Int4 { nibbles, steps, first: first.map(|codes| (codes, steps[0])) }
}

/// Keys and values of the tokens of one sequence, in all layers that are attention. It grows with the text by pages, up
/// to the model's context. A clone shares the pages; each side copies a page before it writes to it.
#[derive(Clone, Debug)]
pub(super) struct KvCache {
    pub(super) layers: Vec<LayerCache>,
    ty: KvType,
    kv_heads: usize,
    head_dim: usize,
    len: usize,
    /// Pages of each layer.
    pages: usize,
    limit: usize,
}

impl KvCache {
    /// An empty cache for a model of this shape, for at most `limit` tokens.
    pub(super) fn new(config: &ModelConfig, ty: KvType, limit: usize) -> Self {
        let layer = || match ty {
            KvType::F32 => LayerCache::F32(Pages::new()),
            KvType::F16 => LayerCache::F16(Pages::new()),
            KvType::Bf16 => LayerCache::Bf16(Pages::new()),
            KvType::Q8 => LayerCache::Q8(Pages::new()),
            KvType::Q4 => LayerCache::Q4(Pages::new()),
        };
        Self {
            layers: (0..config.attention_layers()).map(|_| layer()).collect(),
            ty,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            len: 0,
            pages: 0,
            limit,
        }
    }

    /// Tokens in the cache.
    pub(super) fn len(&self) -> usize {
        self.len
    }
    /// The maximum number of tokens.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }
    /// How keys and values are stored.
    pub(super) fn kv_type(&self) -> KvType {
        self.ty
    }
    /// Bytes of a page of one layer, without the extra row of the first page.
    fn page_bytes(&self) -> usize {
        2 * self.kv_heads * PAGE * self.ty.row_bytes(self.head_dim)
    }
    /// Bytes held now, including those shared with other sequences.
    pub(super) fn byte_len(&self) -> usize {
        let first = if self.ty == KvType::Q4 { 2 * self.kv_heads * padded(self.head_dim) } else { 0 };
        self.layers.len() * (self.pages * self.page_bytes() + if self.pages > 0 { first } else { 0 })
    }
    /// Bytes of the pages, one in each layer, that the next token is written to.
    pub(super) fn writable_bytes(&self) -> usize {
        self.layers.len() * self.page_bytes()
    }
    /// Bytes shared with other sequences.
    pub(super) fn shared_bytes(&self) -> usize {
        let shared = self.layers.iter().map(|layer| each_type!(layer, p => p.shared()));
        shared.sum::<usize>() * self.page_bytes()
    }

    /// Removes all tokens from position `len` on.
    pub(super) fn rewind(&mut self, len: usize) {
        if len >= self.len {
            return;
        }
        self.len = len;
        let count = len.div_ceil(PAGE);
        for layer in &mut self.layers {
            each_type!(layer, p => p.let_go(count));
        }
        // An interrupted step may have copied pages in some layers only.
        self.pages = self.layers.iter().map(|layer| each_type!(layer, p => p.len())).min().unwrap_or(0);
    }

    /// Makes room for `len` tokens in total.
    pub(super) fn reserve(&mut self, len: usize) {
        let count = len.div_ceil(PAGE);
        if count <= self.pages || self.layers.is_empty() {
            return;
        }
        let (heads, d, width) = (self.kv_heads, self.head_dim, padded(self.head_dim));
        let slab = heads * PAGE * d;
        for layer in &mut self.layers {
            match layer {
                LayerCache::F32(p) => p.reserve(count, |_| Slabs::zeroed(slab)),
                LayerCache::F16(p) => p.reserve(count, |_| Slabs::zeroed(slab)),
                LayerCache::Bf16(p) => p.reserve(count, |_| Slabs::zeroed(slab)),
                LayerCache::Q8(p) => p.reserve(count, |_| Quantized::zeroed(heads, width, 0)),
                LayerCache::Q4(p) => p.reserve(count, |i| {
                    let first = if i == 0 { heads * width } else { 0 };
                    Quantized::zeroed(heads, width / 2, first)
                }),
            }
        }
        self.pages = count;
    }

    /// Length in bytes of [`KvCache::save_into`] with `tokens` tokens; `None` if it overflows.
    pub(super) fn saved_bytes(config: &ModelConfig, ty: KvType, tokens: usize) -> Option<usize> {
        let slabs = config.kv_values_per_token() / config.head_dim;
        let first = if ty == KvType::Q4 { padded(config.head_dim) } else { 0 };
        ty.token_bytes(config).checked_mul(tokens)?.checked_add(slabs.checked_mul(first)?)
    }

    /// The first `len` positions, in rows of `row` elements.
    fn extent(&self, len: usize, row: usize) -> Extent {
        Extent { heads: self.kv_heads, len, slab: PAGE, row }
    }

    /// The row of position 0.
    fn first_extent(&self) -> Extent {
        Extent { heads: self.kv_heads, len: 1, slab: 1, row: padded(self.head_dim) }
    }

    /// Appends keys and values of all tokens, layer by layer and head by head, little-endian.
    pub(super) fn save_into(&self, bytes: &mut Vec<u8>) {
        let (d, width) = (self.head_dim, padded(self.head_dim));
        let of = |row| self.extent(self.len, row);
        for layer in &self.layers {
            match layer {
                LayerCache::F32(p) => of(d).save(p.iter(), bytes, f32::to_le_bytes),
                LayerCache::F16(p) => of(d).save(p.iter(), bytes, f16::to_le_bytes),
                LayerCache::Bf16(p) => of(d).save(p.iter(), bytes, bf16::to_le_bytes),
                LayerCache::Q8(p) => {
                    of(width).save(p.iter().map(|q| &q.codes), bytes, i8::to_le_bytes);
                    of(1).save(p.iter().map(|q| &q.steps), bytes, f32::to_le_bytes);
                }
                LayerCache::Q4(p) => {
                    of(width / 2).save(p.iter().map(|q| &q.codes), bytes, u8::to_le_bytes);
                    of(1).save(p.iter().map(|q| &q.steps), bytes, f32::to_le_bytes);
                    match p.iter().next() {
                        Some(q) => self.first_extent().save(std::iter::once(&q.first), bytes, i8::to_le_bytes),
                        None => bytes.resize(bytes.len() + 2 * self.kv_heads * width, 0),
                    }
                }
            }
        }
    }

    /// Restores what [`KvCache::save_into`] wrote to `bytes`, with `len` tokens, for which there is room; returns the
    /// rest of `bytes`.
    pub(super) fn restore_from<'b>(&mut self, len: usize, mut bytes: &'b [u8]) -> &'b [u8] {
        fn all<P: Clone>(pages: &mut Pages<P>, len: usize) -> Vec<&mut P> {
            pages.range_mut(0..len.div_ceil(PAGE)).collect()
        }
        let (d, width) = (self.head_dim, padded(self.head_dim));
        let [of_row, of_width, of_nibbles, of_step] = [d, width, width / 2, 1].map(|row| self.extent(len, row));
        let of_first = self.first_extent();
        for layer in &mut self.layers {
            bytes = match layer {
                LayerCache::F32(p) => of_row.fill(&mut all(p, len), bytes, f32::from_le_bytes),
                LayerCache::F16(p) => of_row.fill(&mut all(p, len), bytes, f16::from_le_bytes),
                LayerCache::Bf16(p) => of_row.fill(&mut all(p, len), bytes, bf16::from_le_bytes),
                LayerCache::Q8(p) => {
                    let (mut codes, mut steps): (Vec<_>, Vec<_>) =
                        all(p, len).into_iter().map(|q| (&mut q.codes, &mut q.steps)).unzip();
                    let rest = of_width.fill(&mut codes, bytes, i8::from_le_bytes);
                    of_step.fill(&mut steps, rest, f32::from_le_bytes)
                }
                LayerCache::Q4(p) => {
                    let (mut codes, mut others): (Vec<_>, Vec<_>) =
                        all(p, len).into_iter().map(|q| (&mut q.codes, (&mut q.steps, &mut q.first))).unzip();
                    let rest = of_nibbles.fill(&mut codes, bytes, u8::from_le_bytes);
                    let (mut steps, mut first): (Vec<_>, Vec<_>) = others.drain(..).unzip();
                    let rest = of_step.fill(&mut steps, rest, f32::from_le_bytes);
                    first.truncate(1);
                    match first.is_empty() {
                        true => &rest[2 * of_first.heads * width..],
                        false => of_first.fill(&mut first, rest, i8::from_le_bytes),
                    }
                }
            };
        }
        self.len = len;
        bytes
    }

    /// For measurements: fills in meaningless keys and values for `len` tokens.
    pub(super) fn fill(&mut self, len: usize) {
        self.reserve(len.saturating_add(PAGE).min(self.limit).max(len));
        // Multiples of the golden ratio are spread evenly; a prime number of them, so that rows differ.
        let codes: Vec<i8> = (0..1021u32).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 24) as i8).collect();
        let numbers: Vec<f32> = codes.iter().map(|c| f32::from(*c) / 128.0).collect();
        let pages = 0..self.pages;
        for layer in &mut self.layers {
            match layer {
                LayerCache::F32(p) => p.range_mut(pages.clone()).for_each(|s| s.repeat(&numbers)),
                LayerCache::F16(p) => {
                    let numbers: Vec<_> = numbers.iter().map(|x| f16::from_f32(*x)).collect();
                    p.range_mut(pages.clone()).for_each(|s| s.repeat(&numbers));
                }
                LayerCache::Bf16(p) => {
                    let numbers: Vec<_> = numbers.iter().map(|x| bf16::from_f32(*x)).collect();
                    p.range_mut(pages.clone()).for_each(|s| s.repeat(&numbers));
                }
                LayerCache::Q8(p) => {
                    // -128 is not a code.
                    let codes: Vec<_> = codes.iter().map(|c| (*c).max(-127)).collect();
                    for q in p.range_mut(pages.clone()) {
                        q.codes.repeat(&codes);
                        q.steps.repeat(&[1.0 / 128.0]);
                    }
                }
                LayerCache::Q4(p) => {
                    let codes: Vec<_> = codes.iter().map(|c| *c as u8).collect();
                    for q in p.range_mut(pages.clone()) {
                        q.codes.repeat(&codes);
                        q.steps.repeat(&[1.0 / 8.0]);
                    }
                }
            }
        }
        self.len = len;
    }

    /// Counts `n` tokens whose keys and values have been written.
    pub(super) fn advance(&mut self, n: usize) {
        self.len += n;
        debug_assert!(self.len <= self.pages * PAGE || self.layers.is_empty());
    }
}
