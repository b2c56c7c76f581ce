//! Damage done on purpose: a comparison that cannot fail proves nothing.

use bitnet_model::{ModelConfig, ModelError, ModelWeights, Norm, Projection, Table, WeightSource};
use ternary_kernels::{GroupScales, KernelError, Scales, TernaryMatrix};

/// One damage to a model's weights.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Sabotage {
    /// One weight of one projection of layer 0, at this column of row 0, becomes its successor: -1 to 0, 0 to +1, +1 to
    /// -1.
    FlipTrit(Projection, usize),
    /// The scale of one projection of layer 0 grows by 1/128, one step of the bf16 numbers that files store.
    Scale(Projection),
    /// Rows of q and k in all layers are turned by one within each head, so that every pair of the rotary embedding
    /// turns with its neighbour's frequency. Without rotary embedding this would change nothing.
    Rope,
    /// The inner learning rate of TTT layers is a tenth too large; other models stay as they are.
    InnerRate,
    /// TTT layers forget what they learnt about a token's position in its mini-batch (`learnable_token_idx` becomes 0);
    /// other models stay as they are.
    TokenIndex,
    /// The Hadamard transform before quantisation is left out; models without one stay as they are.
    Hadamard,
}

impl Sabotage {
    /// The names that the command line knows.
    pub const NAMES: &str = "flip-trit, scale, rope, inner-rate, token-index, hadamard";

    /// One of [`Sabotage::NAMES`].
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "flip-trit" => Some(Sabotage::FlipTrit(Projection::O, 0)),
            "scale" => Some(Sabotage::Scale(Projection::Down)),
            "rope" => Some(Sabotage::Rope),
            "inner-rate" => Some(Sabotage::InnerRate),
            "token-index" => Some(Sabotage::TokenIndex),
            "hadamard" => Some(Sabotage::Hadamard),
            _ => None,
        }
    }

    /// The damaged model.
    pub(crate) fn apply(self, weights: &ModelWeights) -> Result<ModelWeights, ModelError> {
        ModelWeights::from_source(&Damaged { weights, sabotage: self })
    }
}

struct Damaged<'a> {
    weights: &'a ModelWeights,
    sabotage: Sabotage,
}

impl WeightSource for Damaged<'_> {
    type Error = ModelError;

    fn config(&self) -> &ModelConfig {
        &self.weights.config
    }

    fn projection(&self, layer: usize, which: Projection) -> Result<TernaryMatrix, ModelError> {
        let w = self.weights.layers[layer].projection(which);
        let damaged = match self.sabotage {
            Sabotage::FlipTrit(p, col) if p == which && layer == 0 => flip(w, col)?,
            Sabotage::Scale(p) if p == which && layer == 0 => rescale(w)?,
            Sabotage::Rope if matches!(which, Projection::Q | Projection::K) => turn(w, self.weights.config.head_dim)?,
            _ => w.clone(),
        };
        Ok(damaged)
    }

    fn norm(&self, which: Norm) -> Result<Vec<f32>, ModelError> {
        Ok(self.weights.norm(which).unwrap_or_default().to_vec())
    }

    fn embedding(&self) -> Result<Table, ModelError> {
        Ok(self.weights.embedding.clone())
    }

    fn head(&self) -> Result<Table, ModelError> {
        Ok(self.weights.head.clone().unwrap_or_else(|| self.weights.embedding.clone()))
    }
}

fn flip(w: &TernaryMatrix, col: usize) -> Result<TernaryMatrix, KernelError> {
    let mut trits = w.to_trits();
    if let Some(t) = trits.get_mut(col) {
        *t = if *t == 1 { -1 } else { *t + 1 };
    }
    TernaryMatrix::from_trits(w.rows(), w.cols(), &trits, w.scales().clone())
}

fn rescale(w: &TernaryMatrix) -> Result<TernaryMatrix, KernelError> {
    let grow = |s: f32| s * (1.0 + 1.0 / 128.0);
    let scales = match w.scales() {
        Scales::Tensor(s) => Scales::Tensor(grow(*s)),
        Scales::Rows(s) => Scales::Rows(s.iter().map(|s| grow(*s)).collect()),
        Scales::Groups(g) => {
            // Rounded to the next f16: a larger step than the others.
            let grown = (0..g.rows()).flat_map(|r| g.row(r)).map(|d| half::f16::from_f32(grow(d.to_f32())));
            Scales::Groups(GroupScales::new(g.group_len(), w.rows(), w.cols(), grown.collect())?)
        }
    };
    TernaryMatrix::from_trits(w.rows(), w.cols(), &w.to_trits(), scales)
}

fn turn(w: &TernaryMatrix, head_dim: usize) -> Result<TernaryMatrix, KernelError> {
    let order: Vec<u32> =
        (0..w.rows()).map(|r| (r / head_dim * head_dim + (r % head_dim + 1) % head_dim) as u32).collect();
    w.with_row_order(&order)
}
