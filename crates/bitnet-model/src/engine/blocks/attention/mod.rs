//! Causal attention with grouped key/value heads over the cache.
//!
//! `x = norm(residual); q, k, v = projections of x; residual += o(norm(attention(q, k, v)))`. Two phases of the team
//! compute the middle: [`store`] rotates queries and keys by their positions and stores keys and values, [`attend`]
//! computes attention, split into parts according to the [`plan`].

mod attend;
mod plan;
mod scratch;
mod store;

use super::branch::Branch;
use crate::engine::context::{Context, ProjectionScratch};
use crate::engine::limits::NonFinite;
use crate::engine::linear::Linear;
use crate::engine::segment::Segment;
pub(in crate::engine) use scratch::AttentionScratch;
pub(in crate::engine) use store::HeadNorms;

/// The weights of the block.
#[derive(Debug)]
pub(in crate::engine) struct Attention {
    pub(in crate::engine) branch: Branch,
    pub(in crate::engine) query: Linear,
    pub(in crate::engine) key: Linear,
    pub(in crate::engine) value: Linear,
    pub(in crate::engine) head_norms: HeadNorms,
    /// The index of this layer in a sequence's keys and values.
    pub(in crate::engine) slot: usize,
}

impl Attention {
    /// Adds the block's result to the residual stream, `[rows, hidden]`.
    pub(in crate::engine) fn forward(
        &self,
        context: &mut Context<'_>,
        scratch: &mut AttentionScratch,
        segments: &mut [Segment<'_>],
        residual: &mut [f32],
    ) -> Result<(), NonFinite> {
        let Self { branch, query, key, value, head_norms, slot } = self;
        let rows = context.rows(residual);
        context
            .quantize_inputs(residual, &branch.input_norm, context.config.inputs.mixer, &[query, key, value])
            .map_err(|row| ("the input of attention", row))?;
        let AttentionScratch { queries, keys, values, .. } = &mut *scratch;
        context.project([(query, &mut queries[..]), (key, &mut keys[..]), (value, &mut values[..])]);
        store::run(context, scratch, head_norms, *slot, segments);
        attend::run(context, scratch, *slot, segments);
        self.quantize_found(context, scratch, rows).map_err(|row| ("the output of attention", row))?;
        context.add_projection(&branch.output, branch.output_norm.as_deref(), residual);
        Ok(())
    }

    /// Quantises the result of attention, after its gate if it has one; the error is the row that is not finite.
    fn quantize_found(
        &self,
        context: &mut Context<'_>,
        scratch: &mut AttentionScratch,
        rows: usize,
    ) -> Result<(), usize> {
        let (config, ops, team) = (context.config, context.ops, context.team);
        let (width, stride) = (config.num_attention_heads * config.head_dim, config.query_rows());
        let form = context.row_form(config.inputs.output, width);
        let norm = self.branch.result_norm().map(|gain| (gain, config.rms_norm_eps));
        let AttentionScratch { queries, found, plan, rows: gathered, .. } = scratch;
        let ProjectionScratch { inputs, .. } = &mut *context.projections;
        let chunk = rows.div_ceil(team.threads());
        let own = gathered.iter_mut().zip(queries[..rows * stride].chunks_mut(chunk * stride));
        inputs[0].fill(team, form, rows, width, own, |(gathered, queries), i, row| {
            let out = &mut gathered[..width];
            attend::gather_row(config, plan, found, i, out);
            if config.gated_attention {
                let gate = &mut queries[i % chunk * stride + width..][..width];
                ops.sigmoid_in_place(1.0, gate);
                out.iter_mut().zip(gate).for_each(|(out, gate)| *out *= *gate);
            }
            row.quantize(ops, out, norm)
        })
    }
}
