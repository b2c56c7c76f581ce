//! Inputs that several benchmarks share. Run one with `cargo bench -p benches --bench gemv`.
//!
//! Throughput is labelled: bytes of packed weights for products of one token (bound by memory), operations for products
//! of many (bound by arithmetic). Quote figures with CPU, command and spread; read them against each other, because
//! machines are shared.

use bitnet_model::{ModelConfig, ModelError, ModelWeights, SyntheticWeights};
use ternary_kernels::{
    AlignedBuf, Elut, Int4Batch, Int8Batch, Isa, Kernel, KernelError, Packed, Scales, TernaryMatrix, last_level_cache,
};

/// `[out, in]` of two projections of BitNet b1.58 2B4T: one that a second-level cache holds, and the largest.
pub const SHAPES: &[(usize, usize)] = &[(2560, 2560), (6912, 2560)];

/// Level sets besides the ternary ones, each in the groups that its tables allow.
const LEVEL_SETS: &[(&[i8], usize)] = &[(&[-2, -1, 0, 1], 2), (&[-2, -1, 0, 1, 2], 2), (&[-1, 1], 4), (&[-1, 1], 5)];

/// Look-up kernels of level sets that are not ternary, on every instruction set of this CPU that has its own.
///
/// # Errors
/// The errors of [`Elut::for_isa`].
pub fn level_sets() -> Result<Vec<Elut>, KernelError> {
    let mut all: Vec<Elut> = Vec::new();
    for isa in Isa::available() {
        for (levels, group) in LEVEL_SETS {
            let kernel = Elut::for_isa(levels, *group, isa)?;
            // A set without its own shuffles has the kernel of one that it includes.
            if all.iter().all(|k| k.name() != kernel.name()) {
                all.push(kernel);
            }
        }
    }
    Ok(all)
}

/// A matrix of random levels, packed for the kernel.
///
/// # Errors
/// The errors of the kernel.
pub fn levels(kernel: &Elut, rows: usize, cols: usize) -> Result<Packed, KernelError> {
    let count = kernel.levels().len() as u64;
    let codes: Vec<u8> = (0..rows * cols).map(|i| (hash(i) % count) as u8).collect();
    kernel.pack(rows, cols, &codes)
}

/// A matrix of trits that look random, the same at every call.
///
/// # Errors
/// A size that overflows.
pub fn matrix(rows: usize, cols: usize) -> Result<TernaryMatrix, KernelError> {
    let trits: Vec<i8> = (0..rows * cols).map(|i| (hash(i) % 3) as i8 - 1).collect();
    TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(0.02))
}

/// `w` packed again and again, until the copies exceed every cache four times.
///
/// # Errors
/// The errors of the kernel.
pub fn copies(kernel: &dyn Kernel, w: &TernaryMatrix) -> Result<Vec<Packed>, KernelError> {
    let first = kernel.prepack(w)?;
    let count = (4 * last_level_cache()).div_ceil(first.byte_len().max(1));
    let view = first.all();
    (0..count)
        .map(|_| {
            let bytes = AlignedBuf::from_slice(view.bytes());
            Packed::new(first.kernel(), first.rows(), first.cols(), first.panel_rows(), view.panel_bytes(), bytes)
        })
        .collect()
}

/// `n` tokens of `k` int8 activations that look random.
///
/// # Errors
/// A size that overflows.
pub fn activations(n: usize, k: usize) -> Result<Int8Batch, KernelError> {
    let codes: Vec<i8> = (0..n * k).map(|i| (hash(i) % 255) as i8).map(|c| c.max(-127)).collect();
    Int8Batch::from_codes(n, k, &codes)
}

/// `n` tokens of `k` int4 activations that look random.
///
/// # Errors
/// A size that overflows.
pub fn activations_int4(n: usize, k: usize) -> Result<Int4Batch, KernelError> {
    let codes: Vec<i8> = (0..n * k).map(|i| (hash(i) % 16) as i8 - 8).collect();
    Int4Batch::from_codes(n, k, &codes)
}

/// `n` floats in -1..1 that look random.
pub fn floats(n: usize) -> Vec<f32> {
    (0..n).map(|i| (hash(i) % 65_536) as f32 / 32_768.0 - 1.0).collect()
}

/// A model of four layers of the given widths, small enough to make in a second and too large for the caches.
///
/// # Errors
/// Widths that do not fit together.
pub fn model(hidden: usize, ffn: usize, heads: usize, kv_heads: usize) -> Result<ModelWeights, ModelError> {
    ModelWeights::from_source(&SyntheticWeights::new(ModelConfig::new(4096, hidden, ffn, 4, heads, kv_heads), 1))
}

fn hash(i: usize) -> u64 {
    let z = (i as u64).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
