//! Kernel choice: which kernel computes a product, and who chose it. The whole rule is here; the engine, the loader's
//! tunings and [`crate::tune`] call it.
//!
//! 1. Products that only [`GroupKernel`](crate::GroupKernel) knows ([`only_by_group`]) are its own, whatever else is
//!    asked for.
//! 2. What the caller asks for: for the projection group, else for the whole model.
//! 3. What was measured to be the fastest on this machine ([`crate::tune`]), for the projection group: an exact kernel
//!    only, so that no measurement changes a result ([`tunable`], [`tuned`]).
//! 4. The default ([`default_kernel`]): by instruction set, bits of the activations, and whether the weights fit the
//!    cache.
//!
//! [`choose`] applies 2 to 4.

use std::sync::Arc;

use crate::registry::unknown;
use crate::{Entry, Isa, Kernel, KernelError, Levels, Scales, TernaryMatrix, by_name, registry};

/// Kernels that were measured to be faster than the first one of their instruction set if weights come from memory.
static STREAMING: &[(Isa, &str)] = &[(Isa::Avx512Vnni, "base3_avx512vbmi")];

/// Kernels that were measured to be faster than those above if activations have four bits: sums of groups fit a byte
/// then, so look-up tables need one lookup instead of two. AVX-512 is missing: there look-up is faster with one or two
/// tokens (by 1.15 and 1.06), but takes half as long again for a prompt, so `tune` decides.
static INT4: &[(Isa, &str)] = &[(Isa::Avx2, "tl2_avx2")];

/// The product that a kernel is chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The instruction set.
    pub isa: Isa,
    /// Ternary weights of the whole model, all of which every token reads.
    pub weights: usize,
    /// Whether activations have four bits.
    pub int4: bool,
}

/// The requested kernels of one projection group; `None` if there is no request.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// By the caller, for this group.
    pub for_group: Option<Arc<dyn Kernel>>,
    /// By the caller, for the whole model.
    pub for_model: Option<Arc<dyn Kernel>>,
    /// By a tuning of this machine, for this group.
    pub tuned: Option<Arc<dyn Kernel>>,
}

/// The origin of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChosenBy {
    /// The default for the instruction set and the model's size.
    Default,
    /// A tuning of this machine.
    Tuning,
    /// The caller.
    Caller,
}

impl ChosenBy {
    /// `default`, `tuning` or `caller`.
    pub fn name(self) -> &'static str {
        match self {
            ChosenBy::Default => "default",
            ChosenBy::Tuning => "tuning",
            ChosenBy::Caller => "caller",
        }
    }
}

/// The kernel for `work`: the caller's for the group, else the caller's for the model, else the tuned one, else the
/// default.
///
/// # Errors
/// The errors of [`default_kernel`], if the default is used.
///
/// ```
/// use ternary_kernels::select::{ChosenBy, Wishes, Workload, choose};
/// use ternary_kernels::{Isa, by_name};
/// let work = Workload { isa: Isa::Scalar, weights: 1 << 20, int4: false };
/// let (kernel, by) = choose(Wishes::default(), work)?;
/// assert_eq!((kernel.name(), by), ("i2s_scalar", ChosenBy::Default));
/// let tuned = Some(by_name("base3_scalar")?);
/// let (kernel, by) = choose(Wishes { tuned, ..Wishes::default() }, work)?;
/// assert_eq!((kernel.name(), by), ("base3_scalar", ChosenBy::Tuning));
/// # Ok::<(), ternary_kernels::KernelError>(())
/// ```
pub fn choose(wishes: Wishes, work: Workload) -> Result<(Arc<dyn Kernel>, ChosenBy), KernelError> {
    let Wishes { for_group, for_model, tuned } = wishes;
    if let Some(kernel) = for_group.or(for_model) {
        return Ok((kernel, ChosenBy::Caller));
    }
    match tuned {
        Some(kernel) => Ok((kernel, ChosenBy::Tuning)),
        None => Ok((default_kernel(work)?, ChosenBy::Default)),
    }
}

/// Whether a measurement may choose `kernel`: exact ones only. One that rounds is used only where a caller names it.
pub fn tunable(kernel: &dyn Kernel) -> bool {
    kernel.exact()
}

/// The kernel that a measurement chose, by its stored name: what [`Wishes::tuned`] may hold.
///
/// # Errors
/// The errors of [`by_name`]; [`KernelError::InexactTuning`] for a kernel that rounds.
///
/// ```
/// use ternary_kernels::select::tuned;
/// assert_eq!(tuned("base3_scalar")?.name(), "base3_scalar");
/// assert!(tuned("tl1_0_scalar").is_err_and(|e| e.to_string().contains("not exact")));
/// # Ok::<(), ternary_kernels::KernelError>(())
/// ```
pub fn tuned(name: &str) -> Result<Arc<dyn Kernel>, KernelError> {
    let kernel = by_name(name)?;
    match tunable(kernel.as_ref()) {
        true => Ok(kernel),
        false => Err(KernelError::InexactTuning { kernel: name.to_owned() }),
    }
}

/// The kernel for `work` where nothing is wished: [`for_weights`], or [`for_int4_weights`].
///
/// # Errors
/// The errors of [`for_isa`].
pub fn default_kernel(work: Workload) -> Result<Arc<dyn Kernel>, KernelError> {
    match work.int4 {
        true => for_int4_weights(work.isa, work.weights),
        false => for_weights(work.isa, work.weights),
    }
}

/// Whether only [`GroupKernel`](crate::GroupKernel) can multiply `w`: a [`Kernel`] supports neither a scale for each
/// group of weights, nor weights of +2, nor activations other than one int8 with one scale for each token
/// (`wide_inputs`).
///
/// ```
/// use ternary_kernels::{Scales, TernaryMatrix, select::only_by_group};
/// let w = TernaryMatrix::from_codes(1, 2, &[1, -1], Scales::Tensor(0.5))?;
/// assert!(!only_by_group(&w, false) && only_by_group(&w, true));
/// assert!(only_by_group(&TernaryMatrix::from_codes(1, 2, &[1, 2], Scales::Tensor(0.5))?, false));
/// # Ok::<(), ternary_kernels::KernelError>(())
/// ```
pub fn only_by_group(w: &TernaryMatrix, wide_inputs: bool) -> bool {
    let groups = match w.scales() {
        Scales::Groups(_) => true,
        Scales::Tensor(_) | Scales::Rows(_) => false,
    };
    wide_inputs || groups || w.levels() == Levels::Four
}

/// The kernel to use if nothing is known about the weights: the best one of the instruction set that `BITNET_ISA`
/// names, or else of the best that this CPU has.
///
/// # Errors
/// [`KernelError::UnknownIsa`] or [`KernelError::UnavailableIsa`] if `BITNET_ISA` names something else.
pub fn best() -> Result<Arc<dyn Kernel>, KernelError> {
    for_isa(Isa::selected()?)
}

/// The kernel of `isa` to use for a model of `weights` ternary weights, all of which every token reads.
///
/// If two bits for each of them exceed the last-level cache, memory bounds decoding, and `base3` reads a fifth less. It
/// is chosen if the CPU unpacks it faster than memory delivers, which is the case with AVX-512 VBMI (on Zen 4, one
/// token takes 0.75 times as long as with two bits; products of many tokens take equally long). Otherwise [`for_isa`]
/// decides.
///
/// # Errors
/// The errors of [`for_isa`].
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

/// Like [`for_weights`] for a model, or the layers of one, whose activations have four bits (see `docs/bitnet-v2.md`).
///
/// # Errors
/// The errors of [`for_isa`].
///
/// ```
/// use ternary_kernels::{Isa, for_int4_weights, for_isa};
/// // Portable code gains nothing from tables.
/// assert_eq!(for_int4_weights(Isa::Scalar, 1 << 20)?.name(), for_isa(Isa::Scalar)?.name());
/// # Ok::<(), ternary_kernels::KernelError>(())
/// ```
pub fn for_int4_weights(isa: Isa, weights: usize) -> Result<Arc<dyn Kernel>, KernelError> {
    isa.require()?;
    match INT4.iter().filter(|(i, _)| *i == isa).find_map(|(_, name)| by_name(name).ok()) {
        Some(kernel) => Ok(kernel),
        None => for_weights(isa, weights),
    }
}

/// The best kernel of one instruction set for weights in the cache.
///
/// # Errors
/// [`KernelError::UnavailableIsa`] if this CPU does not have it.
pub fn for_isa(isa: Isa) -> Result<Arc<dyn Kernel>, KernelError> {
    isa.require()?;
    registry().iter().find(|e| e.isa == isa).and_then(Entry::kernel).ok_or_else(|| unknown(isa.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cpu;

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

    #[test]
    fn wishes_come_before_measurements_and_both_before_defaults() {
        let [a, b, c] = ["base3_scalar", "tl1_scalar", "tl2_scalar"].map(|name| by_name(name).unwrap());
        let work = Workload { isa: Isa::Scalar, weights: 0, int4: false };
        let chosen = |for_group: Option<&Arc<dyn Kernel>>, for_model, tuned| {
            let own = |kernel: Option<&Arc<dyn Kernel>>| kernel.cloned();
            let wishes = Wishes { for_group: own(for_group), for_model: own(for_model), tuned: own(tuned) };
            let (kernel, by) = choose(wishes, work).unwrap();
            (kernel.name().to_owned(), by)
        };
        assert_eq!(chosen(Some(&a), Some(&b), Some(&c)), ("base3_scalar".to_owned(), ChosenBy::Caller));
        assert_eq!(chosen(None, Some(&b), Some(&c)), ("tl1_scalar".to_owned(), ChosenBy::Caller));
        assert_eq!(chosen(None, None, Some(&c)), ("tl2_scalar".to_owned(), ChosenBy::Tuning));
        assert_eq!(chosen(None, None, None), ("i2s_scalar".to_owned(), ChosenBy::Default));
    }

    #[test]
    fn four_bits_have_a_default_of_their_own_where_tables_are_faster() {
        for isa in Isa::available() {
            let default = default_kernel(Workload { isa, weights: 1 << 20, int4: true }).unwrap();
            let expected =
                if isa == Isa::Avx2 { "tl2_avx2".to_owned() } else { for_isa(isa).unwrap().name().to_owned() };
            assert_eq!(default.name(), expected);
        }
    }
}
