//! The instruction set that a product runs on.

use super::{Product, scalar};
use crate::Isa;
use crate::isa::Cpu;

/// An instruction set with the proof that this CPU has it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Path {
    Scalar,
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

impl Path {
    /// The best path that is part of `isa`, or `None` if this CPU does not have `isa`. Dot-product instructions make no
    /// difference to byte shuffles.
    pub(crate) fn of(isa: Isa, cpu: &Cpu) -> Option<Self> {
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "wasm32")))]
        let _ = cpu;
        match isa {
            Isa::Scalar => Some(Self::Scalar),
            #[cfg(target_arch = "x86_64")]
            Isa::Sse41 => cpu.sse41().map(Self::Sse41),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => cpu.avx2().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => cpu.avx_vnni().and(cpu.avx2()).map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => cpu.avx512_vnni().map(Self::Avx512),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => cpu.neon().map(Self::Neon),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => cpu.neon_dot().map(|cpu| Self::Neon(cpu.neon())),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => cpu.neon_i8mm().map(|cpu| Self::Neon(cpu.neon())),
            #[cfg(target_arch = "wasm32")]
            Isa::Simd128 => cpu.simd128().map(Self::Simd128),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Sse41 | Isa::Avx2 | Isa::AvxVnni | Isa::Avx512Vnni => None,
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => None,
            #[cfg(not(target_arch = "wasm32"))]
            Isa::Simd128 => None,
        }
    }

    /// The instruction set.
    pub(super) fn isa(self) -> Isa {
        match self {
            Self::Scalar => Isa::Scalar,
            #[cfg(target_arch = "x86_64")]
            Self::Sse41(_) => Isa::Sse41,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Isa::Avx512Vnni,
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => Isa::Neon,
            #[cfg(target_arch = "wasm32")]
            Self::Simd128(_) => Isa::Simd128,
        }
    }

    /// Computes `product`.
    pub(super) fn run(self, product: &Product<'_>, acc: &mut [i32]) {
        match self {
            Self::Scalar => scalar::run(product, acc),
            #[cfg(target_arch = "x86_64")]
            Self::Sse41(cpu) => super::lanes::run(super::lanes128::Four(cpu), product, acc),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(cpu) => super::lanes::run(cpu, product, acc),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(cpu) => super::lanes::run(cpu, product, acc),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(cpu) => super::lanes::run(super::lanes128::Four(cpu), product, acc),
            #[cfg(target_arch = "wasm32")]
            Self::Simd128(cpu) => super::lanes::run(super::lanes128::Four(cpu), product, acc),
        }
    }
}
