//! Rows of ggml's block-quantised types, dequantised by candle.

use std::borrow::Cow;

use candle_core::CpuStorage;
use candle_core::quantized::GgmlDType;
use ternary_kernels::AlignedBuf;

/// Dequantises whole rows of blocks of type `ty` to `out`.
///
/// # Panics
/// If `bytes` is not as long as `out.len()` values of that type.
pub(crate) fn dequantize(ty: GgmlDType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() / ty.block_size() * ty.type_size(), "{ty:?}: bytes of {} values", out.len());
    // candle casts the bytes to its block type, which must be aligned; blocks in a file lie anywhere.
    let aligned = AlignedBuf::from_slice(bytes);
    match ty.from_data(Cow::Borrowed(&aligned)).dequantize(out.len()) {
        Ok(CpuStorage::F32(values)) => out.copy_from_slice(&values),
        other => panic!(
            "candle dequantises {ty:?} blocks on the CPU to f32, got {}",
            if other.is_ok() { "another type" } else { "an error" }
        ),
    }
}
