//! How an engine computes, as the caller asks for it.

use std::num::NonZeroUsize;
use std::sync::Arc;

use ternary_kernels::{Isa, Kernel};

use super::blocks::lm_head::HeadMode;
use super::kernels::{KernelOverrides, ProjectionGroup};
use crate::ActivationBits;

/// How an [`Engine`](crate::Engine) computes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Threads to compute with, the caller's included; `None` takes the CPUs that the process may use. One thread
    /// spawns none.
    pub threads: Option<NonZeroUsize>,
    /// Instruction set; `None` takes what `BITNET_ISA` names, or the best that this CPU has.
    pub isa: Option<Isa>,
    /// A kernel of your own for the ternary products; `None` takes the best for the instruction set and the model's
    /// size. Matrices with a scale for each group of weights, and with 16-bit inputs, have a kernel of theirs in any
    /// case.
    pub kernel: Option<Arc<dyn Kernel>>,
    pub(super) layer_kernels: KernelOverrides,
    /// Whether test-time-training layers update their inner models while they read. Without it these stay what training
    /// has made of them, for ablations. On by default.
    pub inner_updates: bool,
    /// Whether the threads split the work by sequences and pieces of a sequence, rather than each product by rows;
    /// `None` decides by the size of the model. No result depends on it.
    pub sequence_parallel: Option<bool>,
    /// How the best logits are found; which they are does not depend on it.
    pub head: HeadMode,
    /// Bits of the inputs of all projections; `None` takes what the model was made for. Another number changes what a
    /// model computes: models with a scale per group of weights choose another most likely token at every tenth
    /// position or so, with 8 bits for a token ([`ActivationBits::Eight`]) as with 8 bits for a group
    /// ([`ActivationBits::EightByGroup`]), which are closer on average.
    pub activation_bits: Option<ActivationBits>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            threads: None,
            isa: None,
            kernel: None,
            layer_kernels: KernelOverrides::default(),
            inner_updates: true,
            sequence_parallel: None,
            head: HeadMode::default(),
            activation_bits: None,
        }
    }
}

impl EngineOptions {
    /// With `n` threads; 0 takes the default.
    #[must_use]
    pub fn threads(mut self, n: usize) -> Self {
        self.threads = NonZeroUsize::new(n);
        self
    }
    /// With an instruction set.
    #[must_use]
    pub fn isa(mut self, isa: Isa) -> Self {
        self.isa = Some(isa);
        self
    }
    /// With inner updates of test-time-training layers, or without.
    #[must_use]
    pub fn inner_updates(mut self, on: bool) -> Self {
        self.inner_updates = on;
        self
    }
    /// With work split by sequences, or by the rows of each product.
    #[must_use]
    pub fn sequence_parallel(mut self, on: bool) -> Self {
        self.sequence_parallel = Some(on);
        self
    }
    /// With another way to the best logits.
    #[must_use]
    pub fn head(mut self, mode: HeadMode) -> Self {
        self.head = mode;
        self
    }
    /// With inputs of other bits than those the model was made for.
    #[must_use]
    pub fn activation_bits(mut self, bits: ActivationBits) -> Self {
        self.activation_bits = Some(bits);
        self
    }
    /// With a kernel of your own.
    #[must_use]
    pub fn kernel(mut self, kernel: Arc<dyn Kernel>) -> Self {
        self.kernel = Some(kernel);
        self
    }
    /// With a kernel for one projection group, whatever the others have. Exact kernels give the same results in every
    /// mixture.
    #[must_use]
    pub fn kernel_for(mut self, group: ProjectionGroup, kernel: Arc<dyn Kernel>) -> Self {
        self.layer_kernels.set(group, kernel);
        self
    }
}
