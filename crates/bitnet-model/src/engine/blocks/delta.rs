//! Layers of the gated delta rule on the engine: everything around the recurrence, which is in
//! [`ttt_layer::GatedDelta`].
//!
//! `x = norm(residual); u, z = projections of x; residual += o(norm(recurrence(x, u, z)))`, without the last norm where
//! the model has no sub-norms. Projections are ternary, everything else is f32.

use std::ops::Range;

use smallvec::SmallVec;
use ternary_kernels::ops::Ops;
use ternary_kernels::{AlignedBuf, ColsMut, split_cols};
use ttt_layer::{DeltaInputs, DeltaScratch as HeadScratch, GatedDelta, Rows};

use super::branch::Branch;
use super::head_line::{HeadLine, take};
use crate::engine::context::Context;
use crate::engine::limits::{INLINE_PARTS, NonFinite};
use crate::engine::linear::Linear;
use crate::engine::segment::Segment;
use crate::{LayerWeights, ModelConfig, ModelError, Projection};

/// The weights of the block.
#[derive(Debug)]
pub(in crate::engine) struct Delta {
    pub(in crate::engine) branch: Branch,
    qkv: Linear,
    gate: Linear,
    pub(in crate::engine) rule: GatedDelta,
    /// The index of this layer's state in a sequence.
    slot: usize,
}

impl Delta {
    /// Packs `weights`; `None` if their mixer is another.
    pub(in crate::engine) fn new(
        weights: &LayerWeights,
        ops: Ops,
        slot: usize,
        linear: impl Fn(Projection) -> Result<Linear, ModelError>,
    ) -> Result<Option<Self>, ModelError> {
        let Some(delta) = &weights.delta else { return Ok(None) };
        Ok(Some(Self {
            qkv: linear(Projection::Qkv)?,
            gate: linear(Projection::OutGate)?,
            branch: Branch::of_mixer(weights, &linear)?,
            rule: GatedDelta::with_ops(&delta.config, &delta.parameters, ops)?,
            slot,
        }))
    }

    /// The projections before the recurrence.
    pub(in crate::engine) fn linears(&self) -> [&Linear; 2] {
        [&self.qkv, &self.gate]
    }

    /// Adds the block's result to the residual stream, `[rows, hidden]`.
    pub(in crate::engine) fn forward(
        &self,
        context: &mut Context<'_>,
        scratch: &mut DeltaScratch,
        segments: &mut [Segment<'_>],
        residual: &mut [f32],
    ) -> Result<(), NonFinite> {
        let Self { branch, qkv, gate, rule, .. } = self;
        let (rows, forms) = (context.rows(residual), context.config.inputs);
        context
            .quantize_keeping(residual, &mut scratch.normed, &branch.input_norm, forms.mixer)
            .map_err(|row| ("the input of a layer of the gated delta rule", row))?;
        context.project_same([(qkv, &mut scratch.qkv[..]), (gate, &mut scratch.gates[..])]);
        self.recurrence(context, scratch, segments, rows);
        let width = rule.config().value_width();
        context
            .quantize_rows(&scratch.found[..rows * width], width, branch.sub_norm.as_deref(), forms.output)
            .map_err(|row| ("the output of a layer of the gated delta rule", row))?;
        context.add_projection(&branch.output, branch.output_norm.as_deref(), residual);
        Ok(())
    }

    /// The recurrence of all heads of all sequences, into `scratch.found`. Threads share the key heads as in
    /// [`HeadLine`].
    fn recurrence(&self, context: &Context<'_>, scratch: &mut DeltaScratch, segments: &mut [Segment<'_>], rows: usize) {
        let (hidden, team, config) = (context.config.hidden_size, context.team, self.rule.config());
        let (channels, width) = (config.channels(), config.value_width());
        let (heads, head_width) = (config.key_heads, config.group() * config.head_dim);
        let DeltaScratch { normed, qkv, gates, found, threads } = scratch;
        let mut line = HeadLine::new(rows, heads, team.threads());
        let mut units: SmallVec<[Unit<'_>; INLINE_PARTS]> = SmallVec::new();
        let mut rest = &mut found[..rows * width];
        for segment in segments {
            let (tokens, rows) = (segment.tokens.len(), segment.rows());
            if tokens == 0 {
                continue;
            }
            let ranges = line.next(tokens);
            let cols: SmallVec<[Range<usize>; INLINE_PARTS]> =
                ranges.iter().map(|(_, heads)| heads.start * head_width..heads.end * head_width).collect();
            let inputs = DeltaInputs {
                x: &normed[rows.start * hidden..rows.end * hidden],
                qkv: Rows::new(&qkv[rows.start * channels..rows.end * channels], channels),
                z: Rows::new(&gates[rows.start * width..rows.end * width], width),
            };
            let state = &mut segment.state.delta[self.slot];
            let head_floats = state.head_floats();
            let mut states = state.heads_mut();
            let out = split_cols(take(&mut rest, tokens * width), tokens, width, &cols);
            for ((thread, heads), out) in ranges.into_iter().zip(out) {
                let state = take(&mut states, heads.len() * head_floats);
                units.push(Unit { thread, heads, state, inputs, out });
            }
        }
        // Threads ascend within a sequence and from one to the next, so the jobs of a thread are contiguous.
        let mut jobs: SmallVec<[(&mut [Unit<'_>], &mut HeadScratch); INLINE_PARTS]> =
            units.chunk_by_mut(|a, b| a.thread == b.thread).zip(threads).collect();
        team.run_parts(&mut jobs, |_, (units, scratch)| {
            for u in units.iter_mut() {
                self.rule.forward_heads(u.heads.clone(), u.state, &u.inputs, &mut u.out, scratch);
            }
        });
    }
}

/// Buffers of the block.
#[derive(Debug)]
pub(in crate::engine) struct DeltaScratch {
    /// Input of the layer after its norm, `[rows, hidden]`; decays and rates depend on it.
    normed: AlignedBuf<f32>,
    /// Queries, keys and values, `[rows, channels]`.
    qkv: AlignedBuf<f32>,
    /// Gates of the output, `[rows, value_width]`.
    gates: AlignedBuf<f32>,
    /// The input of the output projection, `[rows, value_width]`.
    found: AlignedBuf<f32>,
    threads: Vec<HeadScratch>,
}

impl DeltaScratch {
    /// Empty buffers; `None` for a model without such layers.
    pub(in crate::engine) fn new(config: &ModelConfig, threads: usize) -> Option<Self> {
        let layer = (0..config.num_hidden_layers).find_map(|l| config.delta_layer(l))?;
        let empty = AlignedBuf::zeroed(0);
        let threads = (0..threads).map(|_| HeadScratch::new(&layer)).collect();
        Some(Self { normed: empty.clone(), qkv: empty.clone(), gates: empty.clone(), found: empty, threads })
    }

    /// Room for `rows` tokens.
    pub(in crate::engine) fn reserve(&mut self, config: &ModelConfig, rows: usize) {
        let Some(layer) = (0..config.num_hidden_layers).find_map(|l| config.delta_layer(l)) else { return };
        self.normed = AlignedBuf::zeroed(rows * config.hidden_size);
        self.qkv = AlignedBuf::zeroed(rows * layer.channels());
        self.gates = AlignedBuf::zeroed(rows * layer.value_width());
        self.found = AlignedBuf::zeroed(rows * layer.value_width());
    }

    /// Bytes of the buffers of rows.
    pub(in crate::engine) fn byte_len(&self) -> usize {
        4 * (self.normed.len() + self.qkv.len() + self.gates.len() + self.found.len())
    }
}

/// Some key heads of one sequence, for one thread.
struct Unit<'a> {
    thread: usize,
    heads: Range<usize>,
    state: &'a mut [f32],
    inputs: DeltaInputs<'a>,
    out: ColsMut<'a, f32>,
}
