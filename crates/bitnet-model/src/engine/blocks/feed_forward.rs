//! The feed-forward block: `residual += down(norm(act(gate(x)) * up(x)))` with `x = norm(residual)`.

use std::ops::Range;

use smallvec::SmallVec;
use ternary_kernels::ops::Ops;
use ternary_kernels::{AlignedBuf, ColsMut};

use super::branch::Branch;
use crate::engine::context::{Context, ProjectionScratch, input};
use crate::engine::limits::{INLINE_PARTS, NonFinite};
use crate::engine::linear::{Linear, ProductScratch};
use crate::engine::quantized::Quantized;
use crate::{Activation, ModelConfig};

/// The weights of the block.
#[derive(Debug)]
pub(in crate::engine) struct FeedForward {
    pub(in crate::engine) branch: Branch,
    pub(in crate::engine) gate: Linear,
    pub(in crate::engine) up: Linear,
}

/// Buffers of the block.
#[derive(Debug)]
pub(in crate::engine) struct FeedForwardScratch {
    /// The input of the down projection, `[rows, ffn]`.
    activated: AlignedBuf<f32>,
    threads: Vec<GateAndUp>,
}

/// Outputs of one thread for one call of a kernel each.
#[derive(Debug)]
struct GateAndUp {
    gate: AlignedBuf<f32>,
    up: AlignedBuf<f32>,
}

impl FeedForwardScratch {
    /// Empty buffers.
    pub(in crate::engine) fn new(threads: usize) -> Self {
        let empty = || GateAndUp { gate: AlignedBuf::zeroed(0), up: AlignedBuf::zeroed(0) };
        Self { activated: AlignedBuf::zeroed(0), threads: (0..threads).map(|_| empty()).collect() }
    }

    /// Makes room for `rows` tokens, and for `call` outputs of one call of a kernel.
    pub(in crate::engine) fn reserve(&mut self, config: &ModelConfig, rows: usize, call: usize) {
        self.activated = AlignedBuf::zeroed(rows * config.intermediate_size);
        for GateAndUp { gate, up } in &mut self.threads {
            *gate = AlignedBuf::zeroed(call);
            *up = AlignedBuf::zeroed(call);
        }
    }

    /// Bytes of the buffers.
    pub(in crate::engine) fn byte_len(&self) -> usize {
        let threads: usize = self.threads.iter().map(|t| t.gate.len() + t.up.len()).sum();
        4 * (self.activated.len() + threads)
    }
}

impl FeedForward {
    /// Adds the block's result to the residual stream, `[rows, hidden]`.
    pub(in crate::engine) fn forward(
        &self,
        context: &mut Context<'_>,
        scratch: &mut FeedForwardScratch,
        residual: &mut [f32],
    ) -> Result<(), NonFinite> {
        let Self { branch, gate, up } = self;
        let (forms, width) = (context.config.inputs, context.config.intermediate_size);
        let rows = context.rows(residual);
        context
            .quantize_inputs(residual, &branch.input_norm, forms.feed_forward, &[gate, up])
            .map_err(|row| ("the input of the feed-forward block", row))?;
        self.gate_and_up(context, scratch, rows);
        let activated = &scratch.activated[..rows * width];
        context
            .quantize_rows(activated, width, branch.result_norm(), forms.down)
            .map_err(|row| ("the output of the feed-forward activation", row))?;
        context.add_projection(&branch.output, branch.output_norm.as_deref(), residual);
        Ok(())
    }

    /// Gate and up in one pass, with the activation between them applied while both are in cache.
    fn gate_and_up(&self, context: &mut Context<'_>, scratch: &mut FeedForwardScratch, rows: usize) {
        let (ops, team, config) = (context.ops, context.team, context.config);
        let width = config.intermediate_size;
        let FeedForwardScratch { activated, threads } = scratch;
        let activated = ColsMut::new(&mut activated[..rows * width], rows, width);
        let ProjectionScratch { inputs, products, .. } = &mut *context.projections;
        let inputs = [input(inputs, 0), input(inputs, 1)];
        // As many pieces as for one of the two: a piece is twice the work.
        let mut outputs = [self.gate.share(team.threads(), (), activated)];
        let mut threads: SmallVec<[_; INLINE_PARTS]> = products.iter_mut().zip(threads).collect();
        team.run_columns(&mut outputs, &mut threads, |(), tokens, columns, out, scratch| {
            self.activate(ops, config.hidden_act, (tokens, columns), inputs, scratch, out);
        });
    }

    /// `act(gate) * up` for some tokens and columns.
    fn activate(
        &self,
        ops: Ops,
        act: Activation,
        (tokens, columns): (Range<usize>, Range<usize>),
        [gate_input, up_input]: [&Quantized; 2],
        (product, scratch): &mut (&mut ProductScratch, &mut GateAndUp),
        out: &mut ColsMut<'_, f32>,
    ) {
        let (rows, first) = (tokens.len(), columns.start);
        for block in self.gate.blocks(columns) {
            let len = block.len();
            let mut gate = ColsMut::new(&mut scratch.gate[..rows * len], rows, len);
            let mut up = ColsMut::new(&mut scratch.up[..rows * len], rows, len);
            self.gate.forward::<false>(ops, (tokens.clone(), block.clone()), gate_input, product, &mut gate);
            self.up.forward::<false>(ops, (tokens.clone(), block.clone()), up_input, product, &mut up);
            for row in 0..rows {
                let out = &mut out.row_mut(row)[block.start - first..block.end - first];
                match act {
                    Activation::Relu2 => ops.relu2_mul(gate.row(row), up.row(row), out),
                    Activation::Silu => ops.silu_mul(gate.row(row), up.row(row), out),
                    Activation::GeluTanh => {
                        ops.gelu_mul_assign(gate.row(row), up.row_mut(row));
                        out.copy_from_slice(up.row(row));
                    }
                }
            }
        }
    }
}
