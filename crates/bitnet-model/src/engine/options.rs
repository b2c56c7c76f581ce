//! The caller's options for an engine.

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
    /// Threads to compute with, including the caller's; `None` uses the CPUs that the process may use. With one thread,
    /// none are spawned.
    pub threads: Option<NonZeroUsize>,
    /// Instruction set; `None` uses the one that `BITNET_ISA` names, or the best that this CPU has.
    pub isa: Option<Isa>,
    /// Your own kernel for the ternary products; `None` uses the best for the instruction set and the model's size.
    /// Matrices with a scale for each group of weights, or with 16-bit inputs, always use the group kernel.
    pub kernel: Option<Arc<dyn Kernel>>,
    pub(super) layer_kernels: KernelOverrides,
    /// Whether test-time-training layers update their inner models while they read. Without updates these stay as they
    /// were trained, for ablations. On by default.
    pub inner_updates: bool,
    /// Whether the threads split the work by sequences and pieces of a sequence, rather than each product by rows;
    /// `None` decides by the size of the model. It does not affect results.
    pub sequence_parallel: Option<bool>,
    /// How the best logits are found; it does not affect which they are.
    pub head: HeadMode,
    /// Bits of the inputs of all projections; `None` uses those of the model. Another number changes what a model
    /// computes: models with a scale per group of weights choose another most likely token at about every tenth
    /// position, both with 8 bits per token ([`ActivationBits::Eight`]) and with 8 bits per group
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
    /// Sets the number of threads; 0 means the default.
    #[must_use]
    pub fn threads(mut self, n: usize) -> Self {
        self.threads = NonZeroUsize::new(n);
        self
    }
    /// Sets the instruction set.
    #[must_use]
    pub fn isa(mut self, isa: Isa) -> Self {
        self.isa = Some(isa);
        self
    }
    /// Turns inner updates of test-time-training layers on or off.
    #[must_use]
    pub fn inner_updates(mut self, on: bool) -> Self {
        self.inner_updates = on;
        self
    }
    /// Splits work by sequences, or by the rows of each product.
    #[must_use]
    pub fn sequence_parallel(mut self, on: bool) -> Self {
        self.sequence_parallel = Some(on);
        self
    }
    /// Sets how the best logits are found.
    #[must_use]
    pub fn head(mut self, mode: HeadMode) -> Self {
        self.head = mode;
        self
    }
    /// Sets the bits of the inputs.
    #[must_use]
    pub fn activation_bits(mut self, bits: ActivationBits) -> Self {
        self.activation_bits = Some(bits);
        self
    }
    /// Sets your own kernel.
    #[must_use]
    pub fn kernel(mut self, kernel: Arc<dyn Kernel>) -> Self {
        self.kernel = Some(kernel);
        self
    }
    /// Sets the kernel of one projection group. Exact kernels give the same results in every combination.
    #[must_use]
    pub fn kernel_for(mut self, group: ProjectionGroup, kernel: Arc<dyn Kernel>) -> Self {
        self.layer_kernels.set(group, kernel);
        self
    }
}
