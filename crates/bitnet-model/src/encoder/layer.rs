//! The weights of a layer, packed.

use ternary_kernels::{Int8Batch, Kernel, Ops, Packed, Scales, TernaryMatrix};

use super::config::ExtractorConfig;
use super::recurrent::Recurrence;
use super::weights::{EncoderLayer, encoder_projection_shape};
use crate::{ModelError, Projection};

/// Matrices that read the same rows, one below the other, and the scale of each.
#[derive(Debug)]
pub(super) struct Stack<const N: usize> {
    pub(super) packed: Packed,
    pub(super) scales: [f32; N],
}

/// The mixer of a layer with the matrices that read its input.
#[derive(Debug)]
pub(super) enum Mixing {
    /// Queries, keys, values.
    Attention(Stack<3>),
    /// Queries (and keys), values, gate.
    Ttt(Stack<3>, Recurrence),
    /// Queries, keys, values, gate.
    Delta(Stack<4>, Recurrence),
}

#[derive(Debug)]
pub(super) struct Layer {
    pub(super) attn_norm: Vec<f32>,
    pub(super) mixing: Mixing,
    pub(super) attn_sub_norm: Vec<f32>,
    pub(super) o: Stack<1>,
    pub(super) ffn_norm: Vec<f32>,
    pub(super) gate_up: Stack<2>,
    pub(super) ffn_sub_norm: Vec<f32>,
    pub(super) down: Stack<1>,
}

impl<const N: usize> Stack<N> {
    fn new(kernel: &dyn Kernel, matrices: [&TernaryMatrix; N]) -> Result<Self, ModelError> {
        let (rows, cols) = (matrices.iter().map(|w| w.rows()).sum(), matrices[0].cols());
        let trits: Vec<i8> = matrices.iter().flat_map(|w| w.to_trits()).collect();
        // `ExtractorWeights::check` has seen to one scale each.
        let scales = matrices.map(|w| w.scales().at(0, 0));
        let stacked = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(1.0))?;
        Ok(Self { packed: kernel.prepack(&stacked)?, scales })
    }

    /// `acc` becomes `[n, rows]`, the integer products of the rows of `x`.
    pub(super) fn product<'a>(&self, kernel: &dyn Kernel, x: &Int8Batch, acc: &'a mut Vec<i32>) -> &'a [i32] {
        let x = x.view();
        // Only what no earlier text needed is added here.
        acc.resize(acc.len().max(x.n() * self.packed.rows()), 0);
        let acc = &mut acc[..x.n() * self.packed.rows()];
        match x.n() {
            1 => kernel.gemv(&self.packed.all(), &x.row(0), acc),
            _ => kernel.gemm(&self.packed.all(), &x, acc),
        }
        acc
    }
}

impl Mixing {
    fn new(
        config: &ExtractorConfig,
        kernel: &dyn Kernel,
        ops: Ops,
        i: usize,
        layer: &EncoderLayer,
    ) -> Result<Self, ModelError> {
        let needed = |projection, matrix: &Option<TernaryMatrix>| match matrix {
            Some(matrix) => Ok(matrix.clone()),
            None => {
                let expected = encoder_projection_shape(config, projection);
                Err(ModelError::ProjectionShape { layer: i, projection, expected, got: (0, 0) })
            }
        };
        let (q, v) = (&layer.q, &layer.v);
        Ok(match Recurrence::new(config, config.mixer(i), &layer.directions, ops)? {
            None => Self::Attention(Stack::new(kernel, [q, &needed(Projection::K, &layer.k)?, v])?),
            Some(recurrence) => {
                let gate = needed(Projection::OutGate, &layer.out_gate)?;
                match recurrence {
                    Recurrence::Ttt(_) => Self::Ttt(Stack::new(kernel, [q, v, &gate])?, recurrence),
                    Recurrence::Delta(_) => {
                        let k = needed(Projection::K, &layer.k)?;
                        Self::Delta(Stack::new(kernel, [q, &k, v, &gate])?, recurrence)
                    }
                }
            }
        })
    }

    pub(super) fn packed(&self) -> &Packed {
        match self {
            Self::Attention(stack) | Self::Ttt(stack, _) => &stack.packed,
            Self::Delta(stack, _) => &stack.packed,
        }
    }

    pub(super) fn recurrence(&self) -> Option<&Recurrence> {
        match self {
            Self::Attention(_) => None,
            Self::Ttt(_, recurrence) | Self::Delta(_, recurrence) => Some(recurrence),
        }
    }
}

impl Layer {
    /// Packs layer `i` of an extractor.
    pub(super) fn new(
        config: &ExtractorConfig,
        kernel: &dyn Kernel,
        ops: Ops,
        i: usize,
        layer: EncoderLayer,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            mixing: Mixing::new(config, kernel, ops, i, &layer)?,
            o: Stack::new(kernel, [&layer.o])?,
            gate_up: Stack::new(kernel, [&layer.gate, &layer.up])?,
            down: Stack::new(kernel, [&layer.down])?,
            attn_norm: layer.attn_norm,
            attn_sub_norm: layer.attn_sub_norm,
            ffn_norm: layer.ffn_norm,
            ffn_sub_norm: layer.ffn_sub_norm,
        })
    }
}
