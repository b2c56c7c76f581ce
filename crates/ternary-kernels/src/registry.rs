//! The one table of kernels; dispatch, tests, benchmarks and `doctor` all read it.

use std::sync::Arc;

use crate::base3::Base3;
use crate::i2s::I2s;
use crate::isa::{Cpu, Isa, Portable};
use crate::panel_kernel::PanelKernel;
use crate::{Elut, Kernel, KernelError};

/// A kernel of this crate.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Entry {
    /// The format's name: `i2s`, `base3`, `tl1`, `tl2`, and `tl1_0`, `tl2_0` with rounded tables.
    pub format_name: &'static str,
    /// The instruction set of the kernel. A kernel may need more: `base3_avx512vbmi` also needs VBMI.
    pub isa: Isa,
    /// The kernel's name, [`Kernel::name`].
    pub name: &'static str,
    /// Whether its results equal the reference, [`Kernel::exact`].
    pub exact: bool,
    /// Makes the kernel; returns `None` if, and only if, this CPU cannot run it.
    pub make: fn(&Cpu) -> Option<Arc<dyn Kernel>>,
}

impl Entry {
    /// The kernel, if this CPU can run it.
    pub fn kernel(&self) -> Option<Arc<dyn Kernel>> {
        (self.make)(Cpu::get())
    }
}

/// Declares the table: the architecture of a kernel, its format, instruction set, name and exactness, and its
/// constructor: a layout of panels and a back end, or look-up tables of groups of a number of trits.
macro_rules! kernels {
    ($([$($on:tt)*] $format:literal $isa:ident $name:literal $exact:ident $how:ident($($make:tt)+);)+) => {
        static REGISTRY: &[Entry] = &[$(
            #[cfg(all($($on)*))]
            Entry {
                format_name: $format,
                isa: Isa::$isa,
                name: $name,
                exact: kernels!(@$exact),
                make: kernels!(@$how $isa $name $exact $($make)+),
            },
        )+];
        /// The entries of all architectures.
        #[cfg(test)]
        const EVERYWHERE: &[(&str, Isa)] = &[$(($format, Isa::$isa)),+];
    };
    (@exact) => { true };
    (@rounded) => { false };
    (@panels $isa:ident $name:literal $exact:ident $layout:ident, |$cpu:pat_param| $backend:expr) => {
        |$cpu| Some(Arc::new(PanelKernel::<$layout, _>::new($name, $backend)))
    };
    (@tables $isa:ident $name:literal $exact:ident $group:literal) => {
        |cpu| Some(Arc::new(Elut::ternary($name, $group, kernels!(@$exact), Isa::$isa, cpu)?))
    };
}

// Best instruction set first; within one, the best format for weights in the cache first.
kernels! {
    [target_arch = "x86_64"] "i2s" Avx512Vnni "i2s_avx512vnni" exact panels(I2s, |cpu| cpu.avx512_vnni()?);
    [target_arch = "x86_64"] "base3" Avx512Vnni "base3_avx512vbmi" exact panels(Base3, |cpu| cpu.avx512_vbmi()?);
    [target_arch = "x86_64"] "tl1" Avx512Vnni "tl1_avx512vnni" exact tables(2);
    [target_arch = "x86_64"] "tl2" Avx512Vnni "tl2_avx512vnni" exact tables(3);
    [target_arch = "x86_64"] "tl1_0" Avx512Vnni "tl1_0_avx512vnni" rounded tables(2);
    [target_arch = "x86_64"] "tl2_0" Avx512Vnni "tl2_0_avx512vnni" rounded tables(3);

    [target_arch = "x86_64"] "i2s" AvxVnni "i2s_avxvnni" exact panels(I2s, |cpu| cpu.avx_vnni()?);
    [target_arch = "x86_64"] "base3" AvxVnni "base3_avxvnni" exact panels(Base3, |cpu| cpu.avx_vnni()?);

    [target_arch = "x86_64"] "i2s" Avx2 "i2s_avx2" exact panels(I2s, |cpu| cpu.avx2()?);
    [target_arch = "x86_64"] "base3" Avx2 "base3_avx2" exact panels(Base3, |cpu| cpu.avx2()?);
    [target_arch = "x86_64"] "tl1" Avx2 "tl1_avx2" exact tables(2);
    [target_arch = "x86_64"] "tl2" Avx2 "tl2_avx2" exact tables(3);
    [target_arch = "x86_64"] "tl1_0" Avx2 "tl1_0_avx2" rounded tables(2);
    [target_arch = "x86_64"] "tl2_0" Avx2 "tl2_0_avx2" rounded tables(3);

    [target_arch = "x86_64"] "i2s" Sse41 "i2s_sse41" exact panels(I2s, |cpu| cpu.sse41()?);
    [target_arch = "x86_64"] "base3" Sse41 "base3_sse41" exact panels(Base3, |cpu| cpu.sse41()?);
    [target_arch = "x86_64"] "tl1" Sse41 "tl1_sse41" exact tables(2);
    [target_arch = "x86_64"] "tl2" Sse41 "tl2_sse41" exact tables(3);
    [target_arch = "x86_64"] "tl1_0" Sse41 "tl1_0_sse41" rounded tables(2);
    [target_arch = "x86_64"] "tl2_0" Sse41 "tl2_0_sse41" rounded tables(3);

    [target_arch = "aarch64"] "i2s" NeonI8mm "i2s_neoni8mm" exact panels(I2s, |cpu| cpu.neon_i8mm()?);
    [target_arch = "aarch64"] "base3" NeonI8mm "base3_neoni8mm" exact panels(Base3, |cpu| cpu.neon_i8mm()?);

    [target_arch = "aarch64"] "i2s" NeonDot "i2s_neondot" exact panels(I2s, |cpu| cpu.neon_dot()?);
    [target_arch = "aarch64"] "base3" NeonDot "base3_neondot" exact panels(Base3, |cpu| cpu.neon_dot()?);

    [target_arch = "aarch64"] "i2s" Neon "i2s_neon" exact panels(I2s, |cpu| cpu.neon()?);
    [target_arch = "aarch64"] "base3" Neon "base3_neon" exact panels(Base3, |cpu| cpu.neon()?);
    [target_arch = "aarch64"] "tl1" Neon "tl1_neon" exact tables(2);
    [target_arch = "aarch64"] "tl2" Neon "tl2_neon" exact tables(3);
    [target_arch = "aarch64"] "tl1_0" Neon "tl1_0_neon" rounded tables(2);
    [target_arch = "aarch64"] "tl2_0" Neon "tl2_0_neon" rounded tables(3);

    [target_arch = "wasm32"] "i2s" Simd128 "i2s_simd128" exact panels(I2s, |cpu| cpu.simd128()?);
    [target_arch = "wasm32"] "base3" Simd128 "base3_simd128" exact panels(Base3, |cpu| cpu.simd128()?);
    [target_arch = "wasm32"] "tl1" Simd128 "tl1_simd128" exact tables(2);
    [target_arch = "wasm32"] "tl2" Simd128 "tl2_simd128" exact tables(3);
    [target_arch = "wasm32"] "tl1_0" Simd128 "tl1_0_simd128" rounded tables(2);
    [target_arch = "wasm32"] "tl2_0" Simd128 "tl2_0_simd128" rounded tables(3);

    [] "i2s" Scalar "i2s_scalar" exact panels(I2s, |_| Portable);
    [] "base3" Scalar "base3_scalar" exact panels(Base3, |_| Portable);
    [] "tl1" Scalar "tl1_scalar" exact tables(2);
    [] "tl2" Scalar "tl2_scalar" exact tables(3);
    [] "tl1_0" Scalar "tl1_0_scalar" rounded tables(2);
    [] "tl2_0" Scalar "tl2_0_scalar" rounded tables(3);
}

/// All kernels compiled into this program, best first, whether or not this CPU can run them.
pub fn registry() -> &'static [Entry] {
    REGISTRY
}

/// The exact kernels that this CPU can run, best first. Kernels that round are only found in [`registry`] and by name.
pub fn kernels_available() -> Vec<Arc<dyn Kernel>> {
    REGISTRY.iter().filter(|e| e.exact).filter_map(Entry::kernel).collect()
}

/// The kernel called `name`; for the name of a format, its best one on the instruction set in use.
///
/// # Errors
/// [`KernelError::UnknownKernel`], which lists the names that this CPU can run; the errors of [`Isa::selected`].
///
/// ```
/// assert_eq!(ternary_kernels::by_name("i2s_scalar").unwrap().name(), "i2s_scalar");
/// assert!(ternary_kernels::by_name("tl2").unwrap().name().starts_with("tl2_"));
/// assert!(ternary_kernels::by_name("i3s_scalar").is_err());
/// ```
pub fn by_name(name: &str) -> Result<Arc<dyn Kernel>, KernelError> {
    match REGISTRY.iter().find(|e| e.name == name).and_then(Entry::kernel) {
        Some(kernel) => Ok(kernel),
        None => for_format(name, Isa::selected()?),
    }
}

/// The best kernel of a format for `isa` or an instruction set that it includes.
///
/// # Errors
/// [`KernelError::UnknownKernel`] for an unknown format, [`KernelError::UnavailableIsa`] if this CPU does not have
/// `isa`.
///
/// ```
/// use ternary_kernels::{Isa, for_format};
/// assert_eq!(for_format("tl1", Isa::Scalar)?.name(), "tl1_scalar");
/// # Ok::<(), ternary_kernels::KernelError>(())
/// ```
pub fn for_format(format_name: &str, isa: Isa) -> Result<Arc<dyn Kernel>, KernelError> {
    isa.require()?;
    let fits = |e: &&Entry| e.format_name == format_name && isa.included().contains(&e.isa);
    REGISTRY.iter().filter(fits).find_map(Entry::kernel).ok_or_else(|| unknown(format_name))
}

/// The error for a name without a kernel.
pub(crate) fn unknown(name: &str) -> KernelError {
    let available: Vec<&str> = REGISTRY.iter().filter(|e| e.kernel().is_some()).map(|e| e.name).collect();
    KernelError::UnknownKernel { name: name.to_owned(), available: available.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the README: the kernels of each format. The trait ensures that every kernel has GEMV and GEMM.
    fn markdown() -> String {
        let formats = [
            ("i2s", "2"),
            ("base3", "1.6"),
            ("tl1", "2"),
            ("tl2", "1.67"),
            ("tl1_0", "2, rounded"),
            ("tl2_0", "1.67, rounded"),
        ];
        assert!(
            EVERYWHERE.iter().all(|(f, _)| formats.iter().any(|(format, _)| f == format)),
            "a format is missing in the table"
        );
        let mut text =
            format!("| format | bits per weight |{}\n", Isa::ALL.iter().map(|i| format!(" {i} |")).collect::<String>());
        text += &format!("|---|---|{}\n", "---|".repeat(Isa::ALL.len()));
        for (format, bits) in formats {
            text += &format!("| `{format}` | {bits} |");
            for &isa in Isa::ALL {
                let has = |isa: &Isa| EVERYWHERE.contains(&(format, *isa));
                text += &match (has(&isa), isa.included().iter().find(|i| **i != Isa::Scalar && has(i))) {
                    (true, _) => " GEMV, GEMM |".to_owned(),
                    (false, Some(other)) => format!(" as {other} |"),
                    (false, None) => " – |".to_owned(),
                };
            }
            text.push('\n');
        }
        text
    }

    #[test]
    fn the_readme_shows_this_table() {
        let readme = include_str!("../../../README.md");
        let expected = markdown();
        assert!(
            readme.contains(&format!("<!-- kernels -->\n{expected}<!-- /kernels -->")),
            "README.md needs\n{expected}"
        );
    }
}
