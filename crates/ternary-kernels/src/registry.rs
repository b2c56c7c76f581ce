//! The one table of kernels; dispatch, tests, benchmarks and `doctor` all read it.

use std::sync::Arc;

use crate::isa::{Cpu, Isa};
use crate::{Kernel, KernelError, base3, i2s};

/// A kernel of this crate.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Entry {
    /// The layout's name: `i2s` or `base3`.
    pub format_name: &'static str,
    /// The instruction set that it belongs to. A kernel may need more: `base3_avx512vbmi` also needs VBMI.
    pub isa: Isa,
    /// The kernel's name, [`Kernel::name`].
    pub name: &'static str,
    /// Whether its results equal the definition, [`Kernel::exact`].
    pub exact: bool,
    /// Makes the kernel; `None` says that this CPU cannot run it, and nothing else does.
    pub make: fn(&Cpu) -> Option<Arc<dyn Kernel>>,
}

impl Entry {
    /// The kernel, if this CPU can run it.
    pub fn kernel(&self) -> Option<Arc<dyn Kernel>> {
        (self.make)(Cpu::get())
    }
}

/// Best instruction set first; within one, the format first that is the best for weights in the cache.
static REGISTRY: &[Entry] = &[
    #[cfg(target_arch = "x86_64")]
    Entry {
        format_name: "i2s",
        isa: i2s::avx512::I2sAvx512Vnni::ISA,
        name: i2s::avx512::NAME,
        exact: true,
        make: |cpu| Some(Arc::new(i2s::avx512::I2sAvx512Vnni::new(cpu.avx512_vnni()?))),
    },
    #[cfg(target_arch = "x86_64")]
    Entry {
        format_name: "base3",
        isa: base3::avx512::Base3Avx512Vbmi::ISA,
        name: base3::avx512::NAME,
        exact: true,
        make: |cpu| Some(Arc::new(base3::avx512::Base3Avx512Vbmi::new(cpu.avx512_vbmi()?))),
    },
    #[cfg(target_arch = "x86_64")]
    Entry {
        format_name: "i2s",
        isa: i2s::vnni256::I2sAvxVnni::ISA,
        name: i2s::vnni256::I2sAvxVnni::NAME,
        exact: true,
        make: |cpu| Some(Arc::new(i2s::vnni256::I2sAvxVnni::new(cpu.avx_vnni()?))),
    },
    #[cfg(target_arch = "x86_64")]
    Entry {
        format_name: "base3",
        isa: base3::avx2::Base3AvxVnni::ISA,
        name: base3::avx2::Base3AvxVnni::NAME,
        exact: true,
        make: |cpu| Some(Arc::new(base3::avx2::Base3AvxVnni::new(cpu.avx_vnni()?))),
    },
    #[cfg(target_arch = "x86_64")]
    Entry {
        format_name: "i2s",
        isa: i2s::avx2::I2sAvx2::ISA,
        name: i2s::avx2::NAME,
        exact: true,
        make: |cpu| Some(Arc::new(i2s::avx2::I2sAvx2::new(cpu.avx2()?))),
    },
    #[cfg(target_arch = "x86_64")]
    Entry {
        format_name: "base3",
        isa: base3::avx2::Base3Avx2::ISA,
        name: base3::avx2::Base3Avx2::NAME,
        exact: true,
        make: |cpu| Some(Arc::new(base3::avx2::Base3Avx2::new(cpu.avx2()?))),
    },
    #[cfg(target_arch = "aarch64")]
    Entry {
        format_name: "i2s",
        isa: i2s::neon::I2sNeonI8mm::ISA,
        name: i2s::neon::I2sNeonI8mm::NAME,
        exact: true,
        make: |cpu| Some(Arc::new(i2s::neon::I2sNeonI8mm::new(cpu.neon_i8mm()?))),
    },
    #[cfg(target_arch = "aarch64")]
    Entry {
        format_name: "base3",
        isa: base3::lanes128::Base3NeonI8mm::ISA,
        name: base3::lanes128::Base3NeonI8mm::NAME,
        exact: true,
        make: |cpu| Some(Arc::new(base3::lanes128::Base3NeonI8mm::new(cpu.neon_i8mm()?))),
    },
    #[cfg(target_arch = "aarch64")]
    Entry {
        format_name: "i2s",
        isa: i2s::neon::I2sNeonDot::ISA,
        name: i2s::neon::I2sNeonDot::NAME,
        exact: true,
        make: |cpu| Some(Arc::new(i2s::neon::I2sNeonDot::new(cpu.neon_dot()?))),
    },
    #[cfg(target_arch = "aarch64")]
    Entry {
        format_name: "base3",
        isa: base3::lanes128::Base3NeonDot::ISA,
        name: base3::lanes128::Base3NeonDot::NAME,
        exact: true,
        make: |cpu| Some(Arc::new(base3::lanes128::Base3NeonDot::new(cpu.neon_dot()?))),
    },
    #[cfg(target_arch = "aarch64")]
    Entry {
        format_name: "i2s",
        isa: i2s::neon::I2sNeon::ISA,
        name: i2s::neon::I2sNeon::NAME,
        exact: true,
        make: |cpu| Some(Arc::new(i2s::neon::I2sNeon::new(cpu.neon()?))),
    },
    #[cfg(target_arch = "aarch64")]
    Entry {
        format_name: "base3",
        isa: base3::lanes128::Base3Neon::ISA,
        name: base3::lanes128::Base3Neon::NAME,
        exact: true,
        make: |cpu| Some(Arc::new(base3::lanes128::Base3Neon::new(cpu.neon()?))),
    },
    #[cfg(target_arch = "wasm32")]
    Entry {
        format_name: "i2s",
        isa: i2s::wasm::I2sSimd128::ISA,
        name: i2s::wasm::I2sSimd128::NAME,
        exact: true,
        make: |cpu| Some(Arc::new(i2s::wasm::I2sSimd128::new(cpu.simd128()?))),
    },
    #[cfg(target_arch = "wasm32")]
    Entry {
        format_name: "base3",
        isa: base3::lanes128::Base3Simd128::ISA,
        name: base3::lanes128::Base3Simd128::NAME,
        exact: true,
        make: |cpu| Some(Arc::new(base3::lanes128::Base3Simd128::new(cpu.simd128()?))),
    },
    Entry {
        format_name: "i2s",
        isa: i2s::scalar::I2sScalar::ISA,
        name: i2s::scalar::NAME,
        exact: true,
        make: |_| Some(Arc::new(i2s::scalar::I2sScalar)),
    },
    Entry {
        format_name: "base3",
        isa: base3::scalar::Base3Scalar::ISA,
        name: base3::scalar::NAME,
        exact: true,
        make: |_| Some(Arc::new(base3::scalar::Base3Scalar)),
    },
];

/// Kernels that were measured to be faster than the first one of their set where weights come from memory.
static STREAMING: &[(Isa, &str)] = &[(Isa::Avx512Vnni, "base3_avx512vbmi")];

/// All kernels compiled into this program, best first, whether or not this CPU can run them.
pub fn registry() -> &'static [Entry] {
    REGISTRY
}

/// The kernels that this CPU can run, best first.
pub fn kernels_available() -> Vec<Arc<dyn Kernel>> {
    REGISTRY.iter().filter_map(Entry::kernel).collect()
}

/// The kernel called `name`.
///
/// # Errors
/// [`KernelError::UnknownKernel`], which lists the names that this CPU can run.
///
/// ```
/// assert_eq!(ternary_kernels::by_name("i2s_scalar").unwrap().name(), "i2s_scalar");
/// assert!(ternary_kernels::by_name("i3s_scalar").is_err());
/// ```
pub fn by_name(name: &str) -> Result<Arc<dyn Kernel>, KernelError> {
    REGISTRY.iter().find(|e| e.name == name).and_then(Entry::kernel).ok_or_else(|| KernelError::UnknownKernel {
        name: name.to_owned(),
        available: REGISTRY.iter().filter(|e| e.kernel().is_some()).map(|e| e.name).collect::<Vec<_>>().join(", "),
    })
}

/// The kernel to use where nothing is known of the weights: the best one of the instruction set that `BITNET_ISA` names, or else of the best that this CPU has.
///
/// # Errors
/// [`KernelError::UnknownIsa`] or [`KernelError::UnavailableIsa`] if `BITNET_ISA` names something else.
pub fn best() -> Result<Arc<dyn Kernel>, KernelError> {
    for_isa(Isa::selected()?)
}

/// The kernel of `isa` to use for a model of `weights` ternary weights, all of which every token reads.
///
/// Where two bits for each of them exceed the last-level cache, decoding is bound by memory, and `base3` reads a fifth
/// less: chosen where the CPU takes it apart faster than memory delivers, which is so with AVX-512 VBMI (on Zen 4, one
/// token takes 0.75 times as long as with two bits; products of many tokens take as long). Otherwise the choice
/// is [`for_isa`]'s.
///
/// # Errors
/// As [`for_isa`].
///
/// ```
/// use ternary_kernels::{Isa, for_isa, for_weights};
/// // A small model stays in the cache.
/// assert_eq!(for_weights(Isa::Scalar, 1 << 20)?.name(), for_isa(Isa::Scalar)?.name());
/// # Ok::<(), ternary_kernels::KernelError>(())
/// ```
pub fn for_weights(isa: Isa, weights: usize) -> Result<Arc<dyn Kernel>, KernelError> {
    let in_cache = for_isa(isa)?;
    if weights / 4 <= crate::last_level_cache() {
        return Ok(in_cache);
    }
    Ok(STREAMING.iter().filter(|(i, _)| *i == isa).find_map(|(_, name)| by_name(name).ok()).unwrap_or(in_cache))
}

/// The best kernel of one instruction set for weights in the cache.
///
/// # Errors
/// [`KernelError::UnavailableIsa`] if this CPU does not have it.
pub fn for_isa(isa: Isa) -> Result<Arc<dyn Kernel>, KernelError> {
    isa.require()?;
    REGISTRY.iter().find(|e| e.isa == isa).and_then(Entry::kernel).ok_or_else(|| KernelError::UnknownKernel {
        name: isa.name().to_owned(),
        available: REGISTRY.iter().filter(|e| e.kernel().is_some()).map(|e| e.name).collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_beyond_the_cache_are_streamed() {
        for isa in Isa::available() {
            let small = for_weights(isa, crate::last_level_cache() * 4).unwrap();
            assert_eq!(small.name(), for_isa(isa).unwrap().name());
            let large = for_weights(isa, usize::MAX).unwrap();
            match Cpu::get().avx512_vbmi() {
                Some(_) if isa == Isa::Avx512Vnni => assert_eq!(large.name(), "base3_avx512vbmi"),
                _ => assert_eq!(large.name(), small.name()),
            }
        }
    }
}
