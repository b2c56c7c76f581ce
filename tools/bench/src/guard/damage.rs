//! Damage on purpose: a guard that cannot fail guards nothing.

use std::sync::Arc;

use ternary_kernels::{Int8Matrix, Int8Vector, Kernel, KernelError, Packed, PackedRows, TernaryMatrix};

/// The part to damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sabotage {
    /// Kernels that do everything 64 times.
    Kernel,
    /// An engine that computes its products sixteen times: repetitions find the weights in a nearer cache, so a few of
    /// them hardly count if the first pass reads from a slow one.
    Engine,
    /// Products that depend on how rows are split over threads.
    Threads,
    /// Products that depend on how many tokens pass together.
    Batch,
    /// Phases whose halves are bound to their threads and wait for both.
    Halves,
}

/// Damage done to a product after (and besides) computing it.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// Compute it so many times in all.
    Repeat(usize),
    /// Add one to the first row of each part.
    FirstRow,
    /// Add one to the first sum if several tokens pass together.
    FirstOfMany,
}

#[derive(Debug)]
struct Damaged {
    kernel: Arc<dyn Kernel>,
    damage: Damage,
}

/// `kernel`, `times` times as slow.
pub(super) fn slow(kernel: Arc<dyn Kernel>, times: usize) -> Arc<dyn Kernel> {
    Arc::new(Damaged { kernel, damage: Damage::Repeat(times) })
}

/// `kernel` with results that depend on the split.
pub(super) fn by_part(kernel: Arc<dyn Kernel>) -> Arc<dyn Kernel> {
    Arc::new(Damaged { kernel, damage: Damage::FirstRow })
}

/// `kernel` with results that depend on the batch.
pub(super) fn by_batch(kernel: Arc<dyn Kernel>) -> Arc<dyn Kernel> {
    Arc::new(Damaged { kernel, damage: Damage::FirstOfMany })
}

impl Damaged {
    fn times(&self) -> usize {
        if let Damage::Repeat(times) = self.damage { times } else { 1 }
    }

    fn touch(&self, tokens: usize, acc: &mut [i32]) {
        let wrong = match self.damage {
            Damage::Repeat(_) => false,
            Damage::FirstRow => true,
            Damage::FirstOfMany => tokens > 1,
        };
        if let Some(first) = acc.first_mut().filter(|_| wrong) {
            // Large enough that the codes of the next layer change.
            *first += 1000;
        }
    }
}

impl Kernel for Damaged {
    fn name(&self) -> &str {
        self.kernel.name()
    }
    fn panel_rows(&self) -> usize {
        self.kernel.panel_rows()
    }
    fn least_rows(&self, n: usize) -> usize {
        self.kernel.least_rows(n)
    }
    fn prepack(&self, w: &TernaryMatrix) -> Result<Packed, KernelError> {
        self.kernel.prepack(w)
    }
    fn gemv(&self, w: &PackedRows<'_>, x: &Int8Vector<'_>, acc: &mut [i32]) {
        (0..self.times()).for_each(|_| self.kernel.gemv(w, x, acc));
        self.touch(1, acc);
    }
    fn gemm(&self, w: &PackedRows<'_>, x: &Int8Matrix<'_>, acc: &mut [i32]) {
        (0..self.times()).for_each(|_| self.kernel.gemm(w, x, acc));
        self.touch(x.n(), acc);
    }
}
