//! The Hadamard transform of the last dimension, differentiable.

use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor};
use ternary_kernels::ops::{Ops, check_hadamard_block};

/// `x H` in blocks of `block` of the last dimension, where `H` is the orthonormal matrix of [`Ops::hadamard`], its own
/// inverse and its own gradient. `x` is `[.., n]` of any float dtype, and so is the result.
///
/// On the CPU this is the fast transform of the engine, with its bits; on other devices it is a product with the
/// matrix.
///
/// Paper: arXiv:2504.18415, equations 3, 4 and 8.
///
/// ```
/// use bitnet_model::nn::hadamard;
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 2., 3., 4.]], &Device::Cpu)?;
/// assert_eq!(hadamard(&x, 4)?.to_vec2::<f32>()?, [[5., -1., -2., 0.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// A block that is not a power of two or does not divide `n`; errors of candle.
pub fn hadamard(x: &Tensor, block: usize) -> Result<Tensor> {
    check_hadamard_block(x.dim(D::Minus1)?, block).map_err(candle_core::Error::wrap)?;
    let wide = x.to_dtype(DType::F32)?;
    let turned = if x.device().is_cpu() {
        wide.contiguous()?.apply_op1(Transform { block })?
    } else {
        let rows = wide.elem_count() / block;
        wide.reshape((rows, block))?.matmul(&matrix(block, x)?)?.reshape(x.shape())?
    };
    turned.to_dtype(x.dtype())
}

/// The dense matrix, `[block, block]` f32, on the device of `x`.
fn matrix(block: usize, x: &Tensor) -> Result<Tensor> {
    let factor = (block as f64).powf(-0.5) as f32;
    let sign = |i: usize| if ((i / block) & (i % block)).count_ones().is_multiple_of(2) { factor } else { -factor };
    Tensor::from_vec((0..block * block).map(sign).collect::<Vec<f32>>(), (block, block), x.device())
}

struct Transform {
    block: usize,
}

impl CustomOp1 for Transform {
    fn name(&self) -> &'static str {
        "hadamard"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (Some((from, to)), CpuStorage::F32(x)) = (layout.contiguous_offsets(), storage) else {
            candle_core::bail!("hadamard takes contiguous f32");
        };
        let mut out = x[from..to].to_vec();
        let ops = Ops::selected().map_err(candle_core::Error::wrap)?;
        // Rows are whole blocks, so all of them are one row of blocks.
        ops.hadamard(&mut out, self.block).map_err(candle_core::Error::wrap)?;
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        hadamard(grad, self.block).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_fast_transform_is_the_product_with_the_matrix() {
        for (n, block) in [(4, 4), (64, 64), (96, 32), (48, 16)] {
            let x = Tensor::randn(0f32, 1., (3, n), &Device::Cpu).unwrap();
            let dense = x.reshape((3 * n / block, block)).unwrap().matmul(&matrix(block, &x).unwrap()).unwrap();
            let difference = (hadamard(&x, block).unwrap() - dense.reshape((3, n)).unwrap()).unwrap();
            let worst = difference.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(worst <= 1e-5, "{n} in blocks of {block}: {worst}");
        }
    }

    #[test]
    fn strided_and_narrow_tensors_are_transformed_too() {
        let x = Tensor::randn(0f32, 1., (8, 3), &Device::Cpu).unwrap();
        let strided = hadamard(&x.t().unwrap(), 8).unwrap();
        let copied = hadamard(&x.t().unwrap().contiguous().unwrap(), 8).unwrap();
        assert_eq!(strided.to_vec2::<f32>().unwrap(), copied.to_vec2::<f32>().unwrap());
        assert_eq!(hadamard(&x.t().unwrap().to_dtype(DType::BF16).unwrap(), 8).unwrap().dtype(), DType::BF16);
        assert!(hadamard(&x, 2).unwrap_err().to_string().contains("odd"));
    }
}
