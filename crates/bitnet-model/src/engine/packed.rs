//! Weights packed as in an engine, one matrix at a time: for files that need no packing when they are loaded.

use ternary_kernels::ops::Ops;
use ternary_kernels::ops::coarse::CoarsePlane;
use ternary_kernels::{Isa, KernelLayout, Team, TernaryMatrix};

use super::blocks::lm_head::{self, HeadMode};
use super::kernels::Kernels;
use super::options::EngineOptions;
use super::packed_matrix::PackedMatrix;
use crate::weights::ModelWeights;
use crate::{FloatMatrix, ModelConfig, ModelError, Projection, Table};

/// Packs matrices of a model like [`Engine::new`](super::Engine::new) with the same options.
#[derive(Debug)]
pub struct Packer {
    config: ModelConfig,
    kernels: Kernels,
    head: HeadMode,
    ops: Ops,
}

impl Packer {
    /// Chooses kernels like an engine with these options.
    ///
    /// # Errors
    /// The errors of choosing an instruction set and kernels.
    pub fn new(weights: &ModelWeights, options: &EngineOptions) -> Result<Self, ModelError> {
        let mut config = weights.config.clone();
        if let Some(bits) = options.activation_bits {
            config.inputs = config.inputs.with_bits(bits);
        }
        let isa = match options.isa {
            Some(isa) => isa.require()?,
            None => Isa::selected()?,
        };
        let kernels = Kernels::choose(&options.layer_kernels, options.kernel.as_ref(), isa, &config, weights)?;
        Ok(Self { config, kernels, head: options.head, ops: Ops::for_isa(isa)? })
    }

    /// The kernels, as in [`Engine::kernel_name`](super::Engine::kernel_name).
    pub fn kernel_name(&self) -> String {
        self.kernels.describe()
    }

    /// The layout of a projection; `None` if its kernel has a layout that files cannot hold.
    pub fn layout(&self, which: Projection, w: &TernaryMatrix) -> Option<KernelLayout> {
        self.kernels.layout(which, w)
    }

    /// The layout of a ternary embedding or head.
    pub fn table_layout(&self, w: &TernaryMatrix) -> KernelLayout {
        self.kernels.group_layout(w)
    }

    /// Packs a projection of layer `layer`.
    ///
    /// # Errors
    /// The errors of the kernel's packing.
    pub fn projection(&self, layer: usize, which: Projection, w: &TernaryMatrix) -> Result<PackedMatrix, ModelError> {
        self.kernels.pack_matrix(&self.config, layer, which, w)
    }

    /// Packs a ternary embedding or head.
    ///
    /// # Errors
    /// The errors of the kernel's packing.
    pub fn table(&self, w: &TernaryMatrix) -> Result<PackedMatrix, ModelError> {
        Ok(PackedMatrix::Groups(self.kernels.pack_groups(w)?.0))
    }

    /// The coarse plane of a head, if the engine uses one from its beginning.
    ///
    /// # Errors
    /// A shape for which there is no coarse plane.
    pub fn coarse(&self, table: &FloatMatrix, team: &Team) -> Result<Option<CoarsePlane>, ModelError> {
        match lm_head::stores_plane(self.head, table) {
            true => lm_head::plane(self.head, table, self.ops, team),
            false => Ok(None),
        }
    }

    /// Whether every matrix is already packed as the engine reads it, and the head has the plane that the engine begins
    /// with, so that nothing has to be packed.
    pub fn is_ready(&self, weights: &ModelWeights) -> bool {
        let packed = |w: &TernaryMatrix, layout: Option<KernelLayout>| {
            layout.is_some_and(|layout| w.packed_bytes(layout).is_some())
        };
        let ternary = |t: &Table| t.as_ternary().is_none_or(|w| packed(w, Some(self.table_layout(w))));
        let head = weights.head_table().and_then(Table::as_float);
        let mut projections = weights.layers.iter().flat_map(|l| l.projections());
        projections.all(|(p, w)| packed(w, self.layout(p, w)))
            && [Some(&weights.embedding), weights.head.as_ref()].into_iter().flatten().all(ternary)
            && head.is_none_or(|head| head.coarse().is_some() || !lm_head::stores_plane(self.head, head))
    }

    /// Whether files can hold every matrix as the engine reads it.
    pub fn can_be_ready(&self, weights: &ModelWeights) -> bool {
        weights.layers.iter().flat_map(|l| l.projections()).all(|(p, w)| self.layout(p, w).is_some())
    }
}
