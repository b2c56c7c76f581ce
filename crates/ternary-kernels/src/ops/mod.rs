//! The float operations of a transformer, vectorised, in one canonical arithmetic.
//!
//! Results are equal bit for bit on every instruction set, and the value of a token never depends on how many tokens
//! are computed with it. Ternary projections need this: an activation that differs by one part in a million can flip an
//! int8 code, and then logits differ visibly. So each operation is written once over vectors of 16 lanes, for any
//! register width:
//!
//! - sums keep 16 lanes, or 4 times 16 in turn, and are added up over one fixed tree;
//! - a last partial vector is padded with zeros, or with the neutral value;
//! - a product that is added to something is a fused multiply-add, rounded once, unless the documentation says
//!   otherwise; on a CPU without the instruction it is computed in software, with the same result;
//! - `exp` is a polynomial of this crate, not the C library's function.
//!
//! Only the payload of a NaN result differs between CPUs. Operations expect the default floating-point environment
//! (rounding to nearest, subnormal numbers kept), which safe Rust cannot leave.
//!
//! ```
//! use ternary_kernels::Ops;
//!
//! let ops = Ops::selected()?;
//! let (gate, up) = ([2.0, -1.0, 0.5], [1.0, 5.0, 4.0]);
//! let mut out = [0.0; 3];
//! ops.relu2_mul(&gate, &up, &mut out);
//! assert_eq!(out, [4.0, 0.0, 1.0]);
//! assert_eq!(ops.dot(&gate, &up), -1.0);
//! # Ok::<(), ternary_kernels::KernelError>(())
//! ```

use crate::{Isa, KernelError};

#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod sse41;
#[cfg(target_arch = "wasm32")]
mod wasm;
#[cfg(target_arch = "x86_64")]
mod x86;

/// Compiles generic functions for every instruction set and makes each a method of [`Ops`].
macro_rules! ops {
    ($($(#[$attr:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path;)*) => {
        impl $crate::ops::Ops {$(
            $(#[$attr])*
            $vis fn $name(self, $($arg: $ty),*) $(-> $ret)? {
                match self.backend {
                    $crate::ops::Backend::Portable => {
                        fn compiled($($arg: $ty),*) $(-> $ret)? {
                            $body($crate::ops::lanes::Portable, $($arg),*)
                        }
                        compiled($($arg),*)
                    }
                    #[cfg(target_arch = "x86_64")]
                    $crate::ops::Backend::Sse41(token) => {
                        $crate::isa::compiled!(Sse41, token => |token, $($arg: $ty),*| $(-> $ret)? {
                            $body(token, $($arg),*)
                        })
                    }
                    #[cfg(target_arch = "x86_64")]
                    $crate::ops::Backend::Avx2(token) => {
                        $crate::isa::compiled!(Avx2, token => |token, $($arg: $ty),*| $(-> $ret)? {
                            $body(token, $($arg),*)
                        })
                    }
                    #[cfg(target_arch = "x86_64")]
                    $crate::ops::Backend::Avx512(token) => {
                        $crate::isa::compiled!(Avx512Vnni, token => |token, $($arg: $ty),*| $(-> $ret)? {
                            $body(token, $($arg),*)
                        })
                    }
                    #[cfg(target_arch = "aarch64")]
                    $crate::ops::Backend::Neon(token) => {
                        $crate::isa::compiled!(Neon, token => |token, $($arg: $ty),*| $(-> $ret)? {
                            $body(token, $($arg),*)
                        })
                    }
                    #[cfg(target_arch = "wasm32")]
                    $crate::ops::Backend::Simd128(token) => {
                        // No attribute: a token exists only if the whole program is built with the feature.
                        $body(token, $($arg),*)
                    }
                }
            }
        )*}
    };
}

mod attend;
pub mod coarse;
mod convert;
mod delta;
mod elementwise;
mod exp;
mod gelu;
mod gemm;
mod hadamard;
mod layer_norm;
mod layer_norm_gradient;
mod matmul;
mod norm;
mod quantize;
mod quantize16;
mod quantize4;
mod quantize8_groups;
mod reduce;
mod rope;
#[cfg(test)]
mod tests;
mod train;

pub use attend::{AttendScratch, KV_BLOCK, KvData, KvRows, Partial, Queries};
pub use delta::DeltaToken;
pub use gemm::{GemmScratch, Strided};
pub use hadamard::{Prepare, check_hadamard_block, largest_hadamard_block};
pub use layer_norm::LayerNorm;
pub use layer_norm_gradient::{LayerNormGradient, NormGradients};
pub use rope::RopeTable;
pub use train::AdamWStep;

/// The operations, compiled for one instruction set. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Ops {
    isa: Isa,
    backend: Backend,
}

/// The proof that code compiled for an instruction set may run.
#[derive(Clone, Copy, Debug)]
enum Backend {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Sse41(crate::isa::Sse41),
    #[cfg(target_arch = "x86_64")]
    Avx2(crate::isa::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(crate::isa::Avx512Vnni),
    #[cfg(target_arch = "aarch64")]
    Neon(crate::isa::Neon),
    #[cfg(target_arch = "wasm32")]
    Simd128(crate::isa::Simd128),
}

impl Ops {
    /// Operations compiled for `isa`, or for the best instruction set that `isa` includes.
    ///
    /// # Errors
    /// [`KernelError::UnavailableIsa`] if this CPU does not have it.
    pub fn for_isa(isa: Isa) -> Result<Self, KernelError> {
        let isa = isa.require()?;
        #[allow(unused_variables, reason = "some architectures have portable operations only")]
        let cpu = crate::Cpu::get();
        let backend = match isa {
            Isa::Scalar => None,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => cpu.avx512_vnni().map(Backend::Avx512),
            #[cfg(target_arch = "x86_64")]
            Isa::Sse41 => cpu.sse41().map(Backend::Sse41),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni => cpu.avx2().map(Backend::Avx2),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Sse41 | Isa::Avx2 | Isa::AvxVnni | Isa::Avx512Vnni => None,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => cpu.neon().map(Backend::Neon),
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => None,
            #[cfg(target_arch = "wasm32")]
            Isa::Simd128 => cpu.simd128().map(Backend::Simd128),
            #[cfg(not(target_arch = "wasm32"))]
            Isa::Simd128 => None,
        };
        Ok(Self { isa, backend: backend.unwrap_or(Backend::Portable) })
    }

    /// Operations for the instruction set that [`Isa::selected`] names: the best one, or that of `BITNET_ISA`.
    ///
    /// # Errors
    /// The errors of [`Isa::selected`].
    pub fn selected() -> Result<Self, KernelError> {
        Self::for_isa(Isa::selected()?)
    }

    /// The requested instruction set.
    pub fn isa(self) -> Isa {
        self.isa
    }
}
