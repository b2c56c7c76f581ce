//! Group kernels: weights of two bits with a scale for each group of a row, times activations of 16 (or 8) bits.
//!
//! # Definition
//! With levels `T` in -1..=2, group scales `d` and codes `q` of a token with scale `s`, for each row:
//!
//! ```text
//! y = 0
//! for each group g, ascending:
//!     S = sum of T * q over the group          exact in i32; |S| < 2^24, so exact in f32, too
//!     y = y + d[g] * S                         one product and one sum, each rounded to f32
//! result = y * (1 / s)
//! ```
//! As an option, activations are int8 with a step `x` for each group. Then it is `y = y + (d[g] * x[g]) * S`, both
//! products rounded, and there is no factor at the end.
//!
//! The order is fixed, so results are equal bit for bit on every instruction set, for any number of threads and of
//! tokens. A matrix with one scale, or with one for each row, is computed with `d = 1` in groups of 256, and the result
//! is multiplied by the scale.
//!
//! # Kernel layout
//! A panel of 16 rows is a sequence of lines of 64 bytes. Chunks of 16 columns are as in [`crate::i2s`], with code 3
//! for level +2: field `j` of byte `4r + c` is the code, level plus one, of row `r` and column `4j + c`. Two groups
//! share a line with their scales, which precedes their chunks:
//!
//! ```text
//! line 0                      scales of groups 0 and 1: 16 f16 of rows 0 to 15 each, little-endian
//! lines 1 ..                  chunks of group 0, group_len / 16 of them, then those of group 1
//! next line                   scales of groups 2 and 3 ...
//! ```
//! A row may end within the last group, which then has only the chunks it needs, in fours: columns are padded to a
//! multiple of 64 with level 0, rows to a multiple of 16 with level 0 and scale 0. A panel is one sequential stream of
//! whole cache lines, 2.125 bits for each weight in groups of 128 and 2.25 in groups of 64, as in files.
//!
//! # Kernels
//! The two digits of a code are two more tokens of an integer product:
//! `S = 256 * sum(code * hi) + sum(code * lo) - sum(q)`. Sums of a group stay in registers; their lanes are rows, so
//! that nothing is added across lanes and each lane keeps the order above. The loops are written once, generic over
//! [`lanes::Lanes`]; [`product::Product`] divides a product into tiles.

use std::ops::Range;

use crate::i2s::{CHUNK_BYTES, Chunk, PANEL_ROWS};
use crate::{
    FileFormat, GroupScales, Int8GroupMatrix, Int8Matrix, Int16Matrix, Isa, KernelError, KernelLayout, Levels, Scales,
    TernaryMatrix, row_block, token_tables,
};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod lanes;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "wasm32"))]
mod lanes128;
#[cfg(target_arch = "aarch64")]
mod neon;
mod packed;
mod portable;
mod product;
mod tables;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod vnni256;

pub use packed::GroupPacked;
use packed::PackScales;
use product::{Activations, Product};

/// Columns of a quad of chunks; the length of a group is a multiple of it.
const QUAD_COLS: usize = 64;
/// Chunks of a quad.
const CHUNKS_PER_QUAD: usize = 4;
/// Groups that share a line of scales.
const UNIT_GROUPS: usize = 2;
/// The longest group: `256 * 2 * 32639 < 2^24`, so that its sum is exact in f32.
const MAX_GROUP_LEN: usize = 256;
/// Chunks of the longest group.
const MAX_GROUP_CHUNKS: usize = MAX_GROUP_LEN / 16;

const _: () = assert!(MAX_GROUP_LEN as u64 * 2 * (crate::INT16_MAX as u64) < 1 << 24);
const _: () = assert!(UNIT_GROUPS * PANEL_ROWS * size_of::<half::f16>() == CHUNK_BYTES);
const _: () = assert!(QUAD_COLS == CHUNKS_PER_QUAD * crate::i2s::CHUNK_COLS && QUAD_COLS == crate::ROW_ALIGN);

/// Multiplies weights that have a scale per group, or levels up to +2, with int16 activations; there is one for each
/// instruction set. Results are f32 and equal bit for bit on all of them.
///
/// For each row, over groups `g` in ascending order and from 0, `y = y + d[g] * S[g]`, where `S[g]` is the exact sum of level times
/// code over the group; product and sum are each rounded to f32. The result is `y * (1 / s)`, `s` being the token's scale.
///
/// ```
/// use half::f16;
/// use ternary_kernels::{GroupKernel, GroupScales, Int16Batch};
/// let kernel = GroupKernel::selected()?;
/// // One row of 66 weights: 64 times +1 with scale 0.5, then +2 and -1 with scale 0.25.
/// let levels: Vec<i8> = [1; 64].into_iter().chain([2, -1]).collect();
/// let scales = GroupScales::new(64, 1, 66, [0.5, 0.25].map(f16::from_f32).into())?;
/// let w = kernel.pack_levels(1, 66, &levels, &scales)?;
/// let x = Int16Batch::from_codes(1, 66, &[100; 66])?;
/// let mut out = [0.0];
/// kernel.product(&w, 0..1, &x.view(), &mut out);
/// assert_eq!(out, [0.5 * 6400.0 + 0.25 * 100.0]);
/// # Ok::<(), ternary_kernels::KernelError>(())
/// ```
#[derive(Clone, Debug)]
pub struct GroupKernel {
    backend: Backend,
}

/// The code for an instruction set, with the proof that it may run.
#[derive(Clone, Copy, Debug)]
enum Backend {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Sse41(lanes128::Narrow<crate::isa::Sse41>),
    #[cfg(target_arch = "x86_64")]
    Avx2(crate::isa::Avx2),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(vnni256::AvxVnniLanes),
    #[cfg(target_arch = "x86_64")]
    Avx512(crate::isa::Avx512Vnni),
    #[cfg(target_arch = "aarch64")]
    Neon(lanes128::Narrow<crate::isa::Neon>),
    #[cfg(target_arch = "aarch64")]
    NeonDot(crate::isa::NeonDot),
    #[cfg(target_arch = "wasm32")]
    Simd128(lanes128::Narrow<crate::isa::Simd128>),
}

impl GroupKernel {
    /// The kernel for `isa`, or for the best instruction set that `isa` includes.
    ///
    /// # Errors
    /// [`KernelError::UnavailableIsa`] if this CPU does not have it.
    pub fn for_isa(isa: Isa) -> Result<Self, KernelError> {
        let isa = isa.require()?;
        #[allow(unused_variables, reason = "some architectures have portable code only")]
        let cpu = crate::Cpu::get();
        let backend = match isa {
            Isa::Scalar => None,
            #[cfg(target_arch = "x86_64")]
            Isa::Sse41 => cpu.sse41().map(|sse41| Backend::Sse41(lanes128::Narrow(sse41))),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => cpu.avx2().map(Backend::Avx2),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => {
                cpu.avx_vnni().zip(cpu.avx2()).map(|(vnni, avx2)| Backend::AvxVnni(vnni256::AvxVnniLanes(vnni, avx2)))
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => cpu.avx512_vnni().map(Backend::Avx512),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Sse41 | Isa::Avx2 | Isa::AvxVnni | Isa::Avx512Vnni => None,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => cpu.neon().map(|neon| Backend::Neon(lanes128::Narrow(neon))),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot | Isa::NeonI8mm => cpu.neon_dot().map(Backend::NeonDot),
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => None,
            #[cfg(target_arch = "wasm32")]
            Isa::Simd128 => cpu.simd128().map(|simd| Backend::Simd128(lanes128::Narrow(simd))),
            #[cfg(not(target_arch = "wasm32"))]
            Isa::Simd128 => None,
        };
        Ok(Self { backend: backend.unwrap_or(Backend::Portable) })
    }

    /// The kernel for the instruction set that [`Isa::selected`] names: the best one, or that of `BITNET_ISA`.
    ///
    /// # Errors
    /// The errors of [`Isa::selected`].
    pub fn selected() -> Result<Self, KernelError> {
        Self::for_isa(Isa::selected()?)
    }

    /// The kernels that this CPU can run, worst first.
    pub fn available() -> Vec<Self> {
        let mut all: Vec<Self> = Isa::available().filter_map(|isa| Self::for_isa(isa).ok()).collect();
        // A kernel that serves two instruction sets is listed once.
        all.dedup_by_key(|kernel| kernel.name());
        all
    }

    /// The kernel's name: `group_avx512vnni`.
    pub fn name(&self) -> &'static str {
        match self.backend {
            Backend::Portable => "group_scalar",
            #[cfg(target_arch = "x86_64")]
            Backend::Sse41(_) => "group_sse41",
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2(_) => "group_avx2",
            #[cfg(target_arch = "x86_64")]
            Backend::AvxVnni(_) => "group_avxvnni",
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512(_) => "group_avx512vnni",
            #[cfg(target_arch = "aarch64")]
            Backend::Neon(_) => "group_neon",
            #[cfg(target_arch = "aarch64")]
            Backend::NeonDot(_) => "group_neondot",
            #[cfg(target_arch = "wasm32")]
            Backend::Simd128(_) => "group_simd128",
        }
    }

    /// Row ranges passed to the kernel begin at multiples of this, the height of one panel of packed rows.
    pub fn panel_rows(&self) -> usize {
        PANEL_ROWS
    }

    /// Like [`crate::Kernel::block_rows`].
    pub fn block_rows(&self) -> usize {
        self.backend.last_from(2).map_or(row_block(PANEL_ROWS), |_| tables::block_rows())
    }

    /// Like [`crate::Kernel::block_tokens`].
    pub fn block_tokens(&self) -> usize {
        self.backend.last_from(2).map_or(usize::MAX, |_| token_tables::TOKENS)
    }

    /// Like [`crate::Kernel::least_rows`].
    pub fn least_rows(&self, n: usize) -> usize {
        // A token of two digits takes two lanes of a table.
        token_tables::least_rows(self.backend.last_from(2), if n == 1 { 1 } else { 2 * n })
    }

    /// The layout of [`GroupKernel::prepack`] for `w`, or that of [`GroupKernel::prepack_groups`] if `group_len` is
    /// given.
    pub fn layout_of(w: &TernaryMatrix, group_len: Option<usize>) -> KernelLayout {
        KernelLayout::Groups(group_len.unwrap_or_else(|| match w.scales() {
            Scales::Tensor(_) | Scales::Rows(_) => MAX_GROUP_LEN,
            Scales::Groups(g) => g.merged(MAX_GROUP_LEN).group_len(),
        }))
    }

    /// Packs weights with any scales. All group kernels read the same layout, so one kernel can multiply what another
    /// packed.
    ///
    /// Neighbouring groups with equal scales in every row become one group ([`GroupScales::merged`]), so that the same
    /// weights in shorter groups give the same bits.
    ///
    /// # Errors
    /// [`KernelError::GroupLength`] for groups of a length other than 64, 128, 192 or 256; a size that overflows.
    pub fn prepack(&self, w: &TernaryMatrix) -> Result<GroupPacked, KernelError> {
        let merged;
        let scales = match w.scales() {
            Scales::Tensor(d) => PackScales::Rows(vec![*d; w.rows()].into(), MAX_GROUP_LEN),
            Scales::Rows(d) => PackScales::Rows(d.clone(), MAX_GROUP_LEN),
            Scales::Groups(g) => {
                merged = g.merged(MAX_GROUP_LEN);
                PackScales::Groups(&merged)
            }
        };
        pack("group prepack", w, scales)
    }

    /// Packs weights in groups of exactly `group_len`, which must divide the groups of `w`: for activations in groups
    /// of the same length.
    ///
    /// # Errors
    /// The errors of [`GroupKernel::prepack`]; [`KernelError::GroupLength`] also for groups that do not divide those of `w`.
    pub fn prepack_groups(&self, w: &TernaryMatrix, group_len: usize) -> Result<GroupPacked, KernelError> {
        const OP: &str = "group prepack";
        let cut;
        let scales = match w.scales() {
            Scales::Tensor(d) => PackScales::Rows(vec![*d; w.rows()].into(), group_len),
            Scales::Rows(d) => PackScales::Rows(d.clone(), group_len),
            Scales::Groups(g) => {
                cut = g.cut(group_len, w.cols()).ok_or(KernelError::GroupLength { op: OP, group_len })?;
                PackScales::Groups(&cut)
            }
        };
        pack(OP, w, scales)
    }

    /// Packs `levels`, `[rows, cols]` row-major, each in -1..=2.
    ///
    /// # Errors
    /// The errors of [`GroupKernel::prepack`]; [`KernelError::ShapeMismatch`] for a wrong number of levels or scales,
    /// [`KernelError::InvalidCode`] for another level.
    pub fn pack_levels(
        &self,
        rows: usize,
        cols: usize,
        levels: &[i8],
        scales: &GroupScales,
    ) -> Result<GroupPacked, KernelError> {
        const OP: &str = "GroupKernel::pack_levels";
        let expected = rows.checked_mul(cols).ok_or(KernelError::TooLarge { op: OP, rows, cols })?;
        if levels.len() != expected {
            return Err(KernelError::ShapeMismatch { op: OP, what: "levels", expected, got: levels.len() });
        }
        if let Some(i) = levels.iter().position(|t| !(-1..=2).contains(t)) {
            let (format, code) = (FileFormat::Trits, i32::from(levels[i]));
            return Err(KernelError::InvalidCode { format, row: i / cols, col: i % cols, code });
        }
        GroupPacked::pack(OP, (rows, cols), PackScales::Groups(scales), |r, out| {
            out.copy_from_slice(&levels[r * cols..(r + 1) * cols]);
        })
    }

    /// `out[t, r] = (sum_g d[r, g] * S[t, r, g]) / s[t]` as the type's description defines it: rows `rows` of `w` times the tokens of `x`,
    /// `[n, k]` int16; `out` is `[n, rows.len()]` f32 row-major. Allocates nothing.
    ///
    /// # Panics
    /// If `rows` does not begin at a multiple of 16 and end at one or at the last row, if `x.k()` differs from the columns of `w`, or
    /// if `out` has another length.
    pub fn product(&self, w: &GroupPacked, rows: Range<usize>, x: &Int16Matrix<'_>, out: &mut [f32]) {
        if let Some(product) = Product::new(w, rows, Activations::Int16(*x), Some(x.scales()), out) {
            self.run(&product, out);
        }
    }

    /// Like [`GroupKernel::product`] with int8 activations and one quantisation scale per token in `scales`. Models
    /// with group scales lose accuracy: the most likely token changes in 7 to 15 % of the positions of small random
    /// models.
    ///
    /// # Panics
    /// Like [`GroupKernel::product`], and if `scales` does not have one scale per token.
    pub fn product_int8(
        &self,
        w: &GroupPacked,
        rows: Range<usize>,
        x: &Int8Matrix<'_>,
        scales: &[f32],
        out: &mut [f32],
    ) {
        if let Some(product) = Product::new(w, rows, Activations::Int8(*x), Some(scales), out) {
            self.run(&product, out);
        }
    }

    /// Multiplies int8 activations that have a step `x` for each group:
    /// `out[t, r] = sum_g (d[r, g] * x[t, g]) * S[t, r, g]`, groups in ascending order, each product and sum rounded.
    /// With groups of 128, the most likely token of small random models with outlier channels changes in 9 to 11 % of
    /// the positions.
    ///
    /// # Panics
    /// Like [`GroupKernel::product`], and if the groups of `x` and of `w` differ in length.
    pub fn product_int8_groups(&self, w: &GroupPacked, rows: Range<usize>, x: &Int8GroupMatrix<'_>, out: &mut [f32]) {
        assert_eq!(x.group_len(), w.group_len(), "groups of activations and of weights");
        if let Some(product) = Product::new(w, rows, Activations::Int8Groups(*x), None, out) {
            self.run(&product, out);
        }
    }

    fn run(&self, product: &Product<'_>, out: &mut [f32]) {
        let shared = self.backend.last_from(product.digits()).map_or(0, |from| product.shared_tokens(from));
        if shared == 0 {
            return self.backend.multiply(product, out);
        }
        let (first, rest) = out.split_at_mut(shared * product.rows());
        self.backend.look_up(&product.of_tokens(0..shared), first);
        if shared < product.tokens() {
            self.backend.multiply(&product.of_tokens(shared..product.tokens()), rest);
        }
    }
}

impl Backend {
    fn multiply(self, product: &Product<'_>, out: &mut [f32]) {
        match self {
            Backend::Portable => portable::product(product, out),
            #[cfg(target_arch = "x86_64")]
            Backend::Sse41(cpu) => lanes128::product(cpu, product, out),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2(cpu) => avx2::product(cpu, product, out),
            #[cfg(target_arch = "x86_64")]
            Backend::AvxVnni(cpu) => vnni256::product(cpu, product, out),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512(cpu) => avx512::product(cpu, product, out),
            #[cfg(target_arch = "aarch64")]
            Backend::Neon(cpu) => neon::product(cpu, product, out),
            #[cfg(target_arch = "aarch64")]
            Backend::NeonDot(cpu) => neon::product_dot(cpu, product, out),
            #[cfg(target_arch = "wasm32")]
            Backend::Simd128(cpu) => lanes128::product(cpu, product, out),
        }
    }
}

/// Packs `w` with these scales, or returns its packed form if it has one.
fn pack(op: &'static str, w: &TernaryMatrix, scales: PackScales<'_>) -> Result<GroupPacked, KernelError> {
    let group_len = match &scales {
        PackScales::Groups(s) => s.group_len(),
        PackScales::Rows(_, group_len) => *group_len,
    };
    let shape = (w.rows(), w.cols());
    match w.packed_bytes(KernelLayout::Groups(group_len)) {
        Some(bytes) => GroupPacked::of_packed(op, shape, scales, bytes.clone(), w.levels() == Levels::Four),
        None => GroupPacked::pack(op, shape, scales, |r, out| w.decode_row(r, out)),
    }
}
