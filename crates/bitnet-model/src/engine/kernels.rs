//! The choice of kernels for projections.

use std::sync::Arc;

use ternary_kernels::select::{self, Wishes, Workload};
use ternary_kernels::tune::{Group, Shape};
use ternary_kernels::{
    GroupKernel, GroupPacked, Isa, Kernel, KernelError, KernelLayout, ROW_ALIGN, Scales, TernaryMatrix,
};

use super::linear::{Linear, Weights};
use super::packed_matrix::PackedMatrix;
use crate::weights::{LayerWeights, ModelWeights};
use crate::{ActivationBits, ModelConfig, ModelError, Projection, Table};

/// Projections that share one kernel, in all layers.
///
/// q, k and v (and the gate of a TTT layer, or of a layer of the gated delta rule) are computed in one pass, and so are gate and up,
/// because they read the same activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProjectionGroup {
    /// Queries, keys and values, and the output gate of TTT layers.
    Qkv,
    /// The output of attention.
    O,
    /// Gate and up.
    GateUp,
    /// Down.
    Down,
}

impl ProjectionGroup {
    /// All four, in the order of a layer.
    pub const ALL: [ProjectionGroup; 4] =
        [ProjectionGroup::Qkv, ProjectionGroup::O, ProjectionGroup::GateUp, ProjectionGroup::Down];

    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            ProjectionGroup::Qkv => "qkv",
            ProjectionGroup::O => "o",
            ProjectionGroup::GateUp => "gate-up",
            ProjectionGroup::Down => "down",
        }
    }

    /// The group with this name.
    ///
    /// ```
    /// use bitnet_model::ProjectionGroup;
    /// assert_eq!(ProjectionGroup::from_name("gate-up"), Some(ProjectionGroup::GateUp));
    /// assert_eq!(ProjectionGroup::from_name("gate"), None);
    /// ```
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.name() == name)
    }

    /// The group of a projection.
    pub fn of(projection: Projection) -> Self {
        match projection {
            Projection::Q | Projection::K | Projection::V | Projection::Qkv | Projection::OutGate => {
                ProjectionGroup::Qkv
            }
            Projection::O => ProjectionGroup::O,
            Projection::Gate | Projection::Up => ProjectionGroup::GateUp,
            Projection::Down => ProjectionGroup::Down,
        }
    }

    /// Its projections.
    pub fn projections(self) -> impl Iterator<Item = Projection> {
        Projection::ALL.into_iter().filter(move |p| Self::of(*p) == self)
    }

    /// The matrices of this group in a whole model of this shape, for [`ternary_kernels::tune`].
    ///
    /// ```
    /// use bitnet_model::{ProjectionGroup, ModelConfig};
    /// let group = ProjectionGroup::Qkv.tune_group(&ModelConfig::new(96, 64, 128, 2, 2, 1));
    /// let shapes: Vec<_> = group.shapes.iter().map(|s| (s.rows, s.cols, s.count)).collect();
    /// assert_eq!(shapes, [(64, 64, 2), (32, 64, 4)]);
    /// ```
    pub fn tune_group(self, config: &ModelConfig) -> Group {
        let mut shapes: Vec<Shape> = Vec::new();
        for l in 0..config.num_hidden_layers {
            for p in config.layer_projections(l).filter(|p| Self::of(*p) == self) {
                let (rows, cols) = config.projection_shape(l, p);
                let int4 = config.input_form(p).bits == ActivationBits::Four;
                match shapes.iter_mut().find(|s| (s.rows, s.cols) == (rows, cols)) {
                    Some(s) => s.count += 1,
                    None => shapes.push(Shape { rows, cols, count: 1, int4 }),
                }
            }
        }
        Group { name: self.name().to_owned(), shapes }
    }

    /// The default kernel of this group on `isa`, in a model of `weights` ternary weights.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] for an instruction set that this CPU does not have.
    ///
    /// ```
    /// use bitnet_model::{ProjectionGroup, ModelConfig};
    /// let config = ModelConfig::new(96, 64, 128, 2, 2, 1);
    /// let kernel = ProjectionGroup::Down.default_kernel(&config, ternary_kernels::Isa::Scalar, 1 << 20)?;
    /// assert_eq!(kernel.name(), "i2s_scalar");
    /// # Ok::<(), bitnet_model::ModelError>(())
    /// ```
    pub fn default_kernel(self, config: &ModelConfig, isa: Isa, weights: usize) -> Result<Arc<dyn Kernel>, ModelError> {
        Ok(select::default_kernel(self.workload(config, isa, weights))?)
    }

    /// The workload of this group's kernel, on `isa` in a model of `weights` ternary weights.
    pub fn workload(self, config: &ModelConfig, isa: Isa, weights: usize) -> Workload {
        // Projections of a group read the same row, or rows of one form.
        let bits = self.projections().map(|p| config.input_form(p).bits).next().unwrap_or_default();
        let int4 = match bits {
            // The panels that multiply two int8 digits are those of int8.
            ActivationBits::Eight | ActivationBits::Sixteen | ActivationBits::EightByGroup => false,
            ActivationBits::Four => true,
        };
        Workload { isa, weights, int4 }
    }

    fn index(self) -> usize {
        self as usize
    }
}

impl std::fmt::Display for ProjectionGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Kernels that the caller requested, by group.
#[derive(Clone, Debug, Default)]
pub(super) struct KernelOverrides([Option<Arc<dyn Kernel>>; 4]);

impl KernelOverrides {
    pub(super) fn set(&mut self, group: ProjectionGroup, kernel: Arc<dyn Kernel>) {
        self.0[group.index()] = Some(kernel);
    }
}

/// The kernel of each group.
#[derive(Debug)]
pub(super) struct Kernels {
    /// For matrices with one scale, or one for each row.
    kinds: [Arc<dyn Kernel>; 4],
    /// For matrices with a scale for each group of weights, and for all with 16-bit inputs.
    group: GroupKernel,
    /// Weights of a group, if each group of as many activations has a scale.
    activation_group: Option<usize>,
    /// The projection groups that `group` computes: all matrices of one have the same kernel, because they are divided
    /// into the same blocks of rows.
    grouped: [bool; 4],
}

impl Kernels {
    /// The kernels of `overrides` by group, else `for_all`, else the best for the instruction set and the model's size.
    pub(super) fn choose(
        overrides: &KernelOverrides,
        for_all: Option<&Arc<dyn Kernel>>,
        isa: Isa,
        config: &ModelConfig,
        weights: &ModelWeights,
    ) -> Result<Self, ModelError> {
        let all = weights.layers.iter().flat_map(|l| l.projections());
        let size = all.map(|(_, w)| w.rows() * w.cols()).sum();
        let of = |kind: ProjectionGroup| {
            let (for_group, for_model) = (overrides.0[kind.index()].clone(), for_all.cloned());
            let wishes = Wishes { for_group, for_model, tuned: None };
            select::choose(wishes, kind.workload(config, isa, size)).map(|(kernel, _)| kernel)
        };
        let [qkv, o, gate_up, down] = ProjectionGroup::ALL.map(of);
        let grouped = ProjectionGroup::ALL.map(|kind| {
            let mut matrices =
                weights.layers.iter().flat_map(|l| l.projections()).filter(|(p, _)| ProjectionGroup::of(*p) == kind);
            matrices.any(|(p, w)| select::only_by_group(w, config.input_form(p).bits.is_wide()))
        });
        let by_group = config.inputs.all().iter().any(|form| form.bits == ActivationBits::EightByGroup);
        let activation_group = if by_group { Some(common_group(weights)?) } else { None };
        let group = GroupKernel::for_isa(isa)?;
        Ok(Self { kinds: [qkv?, o?, gate_up?, down?], group, activation_group, grouped })
    }

    pub(super) fn of(&self, kind: ProjectionGroup) -> &Arc<dyn Kernel> {
        &self.kinds[kind.index()]
    }

    /// Packs `w` for the group kernel.
    pub(super) fn pack_groups(&self, w: &TernaryMatrix) -> Result<(GroupPacked, GroupKernel), ModelError> {
        let packed = match self.activation_group {
            Some(group_len) => self.group.prepack_groups(w, group_len)?,
            None => self.group.prepack(w)?,
        };
        Ok((packed, self.group.clone()))
    }

    /// Activations of a group, if each group has a scale.
    pub(super) fn activation_group(&self) -> usize {
        self.activation_group.unwrap_or(ROW_ALIGN)
    }

    /// Packs the projection `which` of layer `l` for the kernel that computes it.
    pub(super) fn pack(
        &self,
        config: &ModelConfig,
        l: usize,
        layer: &LayerWeights,
        which: Projection,
    ) -> Result<Linear, ModelError> {
        let w = layer.projection(which);
        let packed = self.pack_matrix(config, l, which, w)?;
        w.release();
        let weights = match packed {
            PackedMatrix::Groups(packed) => Weights::Groups { packed, kernel: self.group.clone() },
            PackedMatrix::Panels(packed) => {
                let kernel = self.of(ProjectionGroup::of(which)).clone();
                Weights::Trits { packed, scales: w.scales().clone(), kernel }
            }
        };
        Ok(Linear::new(layer, which, weights))
    }

    /// Packs `w`, the projection `which` of layer `l`, for the kernel that computes it.
    pub(super) fn pack_matrix(
        &self,
        config: &ModelConfig,
        l: usize,
        which: Projection,
        w: &TernaryMatrix,
    ) -> Result<PackedMatrix, ModelError> {
        let kind = ProjectionGroup::of(which);
        if !self.grouped[kind.index()] {
            return Ok(PackedMatrix::Panels(self.of(kind).prepack(w)?));
        }
        if config.input_form(which).bits == ActivationBits::Four {
            let value = format!("4, before layer {l} {}, whose weights have a scale for each group", which.name());
            return Err(ModelError::Config { field: "activation_bits", value, must: "16 or 8" });
        }
        Ok(PackedMatrix::Groups(self.pack_groups(w)?.0))
    }

    /// The layout in which a projection is packed, if files can hold it.
    pub(super) fn layout(&self, which: Projection, w: &TernaryMatrix) -> Option<KernelLayout> {
        let kind = ProjectionGroup::of(which);
        match self.grouped[kind.index()] {
            true => Some(self.group_layout(w)),
            false => KernelLayout::of_kernel(self.of(kind).name()),
        }
    }

    /// The layout that the group kernel reads.
    pub(super) fn group_layout(&self, w: &TernaryMatrix) -> KernelLayout {
        GroupKernel::layout_of(w, self.activation_group)
    }

    /// The tokens and output rows of the largest calls of each kernel.
    pub(super) fn calls(&self) -> Vec<(usize, usize)> {
        let group = (self.group.block_tokens(), self.group.block_rows());
        self.kinds.iter().map(|k| (k.block_tokens(), k.block_rows())).chain([group]).collect()
    }

    fn name(&self, kind: ProjectionGroup) -> &str {
        if self.grouped[kind.index()] { self.group.name() } else { self.of(kind).name() }
    }

    /// One name, or that of the largest projections followed by the groups with other kernels: `a; qkv, o: b`.
    pub(super) fn describe(&self) -> String {
        let main = self.name(ProjectionGroup::GateUp);
        let mut text = main.to_owned();
        let mut said = vec![main];
        for kernel in ProjectionGroup::ALL.map(|k| self.name(k)) {
            if said.contains(&kernel) {
                continue;
            }
            let kinds: Vec<&str> = ProjectionGroup::ALL
                .into_iter()
                .filter(|k| self.name(*k) == kernel)
                .map(ProjectionGroup::name)
                .collect();
            text.push_str(&format!("; {}: {kernel}", kinds.join(", ")));
            said.push(kernel);
        }
        text
    }
}

/// The longest group of activations that fits into the groups of every matrix: each must be multiplied by one scale of
/// a weight.
fn common_group(weights: &ModelWeights) -> Result<usize, ModelError> {
    let matrices = weights.layers.iter().flat_map(|l| l.projections()).map(|(_, w)| w);
    let tables =
        [Some(&weights.embedding), weights.head.as_ref()].into_iter().flatten().filter_map(|table| match table {
            Table::Ternary(w) => Some(w),
            Table::Float(_) => None,
        });
    let groups = matrices.chain(tables).filter_map(|w| match w.scales() {
        Scales::Groups(groups) => Some(groups.group_len()),
        Scales::Tensor(_) | Scales::Rows(_) => None,
    });
    match groups.reduce(gcd) {
        Some(group_len) if group_len.is_multiple_of(ROW_ALIGN) => Ok(group_len),
        Some(group_len) => Err(KernelError::GroupLength { op: "activations with a scale per group", group_len }.into()),
        None => Err(ModelError::Config {
            field: "activation_bits",
            value: ActivationBits::EightByGroup.to_string(),
            must: "used with weights that have a scale per group; this model has none",
        }),
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_projection_has_one_kind() {
        let all: Vec<Projection> = ProjectionGroup::ALL.into_iter().flat_map(ProjectionGroup::projections).collect();
        assert_eq!(all, Projection::ALL);
    }

    #[test]
    fn mixed_kernels_are_described() {
        let [a, b] = ["i2s_scalar", "base3_scalar"].map(|n| ternary_kernels::by_name(n).unwrap());
        let group = GroupKernel::for_isa(Isa::Scalar).unwrap();
        let text = |kernels: [&Arc<dyn Kernel>; 4]| {
            Kernels {
                kinds: kernels.map(Clone::clone),
                group: group.clone(),
                activation_group: None,
                grouped: [false; 4],
            }
            .describe()
        };
        assert_eq!(text([&a, &a, &a, &a]), "i2s_scalar");
        assert_eq!(text([&b, &b, &a, &a]), "i2s_scalar; qkv, o: base3_scalar");
    }
}
