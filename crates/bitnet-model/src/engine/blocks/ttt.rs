//! Test-time-training layers on the engine: everything around the inner loop, which is in [`ttt_layer::RowWise`].
//!
//! `x = norm(residual); q, k, v, gate = projections of x; residual += o(norm(finish(inner loop)))`, before which
//! `residual += conv(norm(residual))` if the block has a convolution. Projections are ternary, everything else is
//! f32.

use std::ops::Range;

use smallvec::SmallVec;
use ternary_kernels::ops::Ops;
use ternary_kernels::{AlignedBuf, ColsMut, Team, split_cols};
use ttt_layer::{ConvRows, Inputs, RowWise, Rows, Scratch as HeadScratch};

use super::branch::Branch;
use super::head_line::{HeadLine, take};
use crate::engine::context::{Context, ProjectionScratch};
use crate::engine::limits::{INLINE_PARTS, NonFinite};
use crate::engine::linear::Linear;
use crate::engine::segment::{Segment, Texts};
use crate::{LayerWeights, Mixer, ModelConfig, ModelError, Projection};

/// The weights of the block.
#[derive(Debug)]
pub(in crate::engine) struct Ttt {
    pub(in crate::engine) branch: Branch,
    /// Gain of the norm before the convolution, and the convolution.
    pre_conv: Option<(Vec<f32>, ConvRows)>,
    query: Linear,
    /// `None` if queries and keys share a projection.
    key: Option<Linear>,
    value: Linear,
    gate: Option<Linear>,
    pub(in crate::engine) rows: RowWise,
    /// The index of this layer's state in a sequence.
    slot: usize,
}

impl Ttt {
    /// Packs `weights`; `None` if their mixer is another.
    pub(in crate::engine) fn new(
        weights: &LayerWeights,
        ops: Ops,
        slot: usize,
        inner_updates: bool,
        linear: impl Fn(Projection) -> Result<Linear, ModelError>,
    ) -> Result<Option<Self>, ModelError> {
        let Some(ttt) = &weights.ttt else { return Ok(None) };
        let (config, has) = (&ttt.config, |p| weights.projections().any(|(q, _)| q == p));
        let optional = |p| if has(p) { linear(p).map(Some) } else { Ok(None) };
        let pre_conv = match (&weights.pre_conv_norm, &ttt.pre_conv) {
            (Some(gain), Some(conv)) => {
                Some((gain.clone(), ConvRows::new(conv, config.hidden_size, config.conv_kernel)?))
            }
            _ => None,
        };
        let rows = RowWise::with_ops(config, &ttt.parameters, ops)?;
        Ok(Some(Self {
            pre_conv,
            query: linear(Projection::Q)?,
            key: optional(Projection::K)?,
            value: linear(Projection::V)?,
            gate: optional(Projection::OutGate)?,
            branch: Branch::of_mixer(weights, &linear)?,
            rows: if inner_updates { rows } else { rows.without_inner_updates() },
            slot,
        }))
    }

    /// The learned full-precision parameters of the mixer.
    pub(in crate::engine) fn learnt(&self) -> impl Iterator<Item = &[f32]> {
        let conv = self.pre_conv.iter().flat_map(|(gain, conv)| conv.learnt().chain([gain.as_slice()]));
        self.rows.learnt().chain(conv)
    }

    /// The projections before the inner loop.
    pub(in crate::engine) fn linears(&self) -> impl Iterator<Item = &Linear> {
        [&self.query, &self.value].into_iter().chain(&self.key).chain(&self.gate)
    }

    /// Adds the block's result to the residual stream, `[rows, hidden]`.
    pub(in crate::engine) fn forward(
        &self,
        context: &mut Context<'_>,
        scratch: &mut TttScratch,
        texts: &mut Texts<'_, '_>,
        residual: &mut [f32],
    ) -> Result<(), NonFinite> {
        let rows = context.rows(residual);
        self.convolve(context, scratch, texts, residual)?;
        self.quantize_input(context, scratch, residual)
            .map_err(|row| ("the input of a test-time-training layer", row))?;
        self.project(context, scratch);
        self.inner_loop(context, scratch, texts, rows)?;
        self.quantize_result(context, scratch, rows)
            .map_err(|row| ("the output of a test-time-training layer", row))?;
        context.add_projection(&self.branch.output, self.branch.output_norm.as_deref(), residual);
        Ok(())
    }

    /// `residual += conv(norm(residual))` if the block has a convolution; one thread for each sequence.
    fn convolve(
        &self,
        context: &Context<'_>,
        scratch: &mut TttScratch,
        texts: &mut Texts<'_, '_>,
        residual: &mut [f32],
    ) -> Result<(), NonFinite> {
        let Some((gain, conv)) = &self.pre_conv else { return Ok(()) };
        let (ops, eps, hidden) = (context.ops, context.config.rms_norm_eps, context.config.hidden_size);
        let convolve = |residual: &mut [f32], normed: &mut [f32], out: &mut [f32], window: &mut [f32]| {
            for (row, normed) in residual.chunks_exact(hidden).zip(normed.chunks_exact_mut(hidden)) {
                ops.rms_norm(row, gain, eps, normed);
            }
            conv.forward(ops, window, Rows::new(normed, hidden), out);
            ops.add_assign(residual, out);
        };
        let len = residual.len();
        let (mut normed, mut out) = (&mut scratch.normed[..len], &mut scratch.convolved[..len]);
        match texts {
            Texts::Own(segments) | Texts::Watched(segments, _) => {
                let mut residual = residual;
                let mut parts: SmallVec<[_; INLINE_PARTS]> = SmallVec::new();
                for segment in segments.iter_mut() {
                    let len = segment.tokens.len() * hidden;
                    let window = segment.state.ttt[self.slot].parts_mut().1;
                    parts.push((take(&mut residual, len), take(&mut normed, len), take(&mut out, len), window));
                }
                context.team.run_parts(&mut parts, |_, (residual, normed, out, window)| {
                    convolve(residual, normed, out, window);
                });
                Ok(())
            }
            Texts::Piece(piece) => {
                piece.in_turn(self.slot, |state| convolve(residual, normed, out, state.parts_mut().1))
            }
        }
    }

    /// Normalises the residual stream into `scratch.normed` and quantises it; the error is the row that is not finite.
    fn quantize_input(
        &self,
        context: &mut Context<'_>,
        scratch: &mut TttScratch,
        residual: &[f32],
    ) -> Result<(), usize> {
        let form = context.config.inputs.mixer;
        context.quantize_keeping(residual, &mut scratch.normed, &self.branch.input_norm, form)
    }

    /// Queries, keys, values and gates of the quantised rows.
    fn project(&self, context: &mut Context<'_>, scratch: &mut TttScratch) {
        let TttScratch { queries, keys, values, gates, .. } = scratch;
        let mut outputs: SmallVec<[(&Linear, &mut [f32]); 4]> = SmallVec::new();
        outputs.push((&self.query, &mut queries[..]));
        outputs.extend(self.key.as_ref().map(|weights| (weights, &mut keys[..])));
        outputs.push((&self.value, &mut values[..]));
        outputs.extend(self.gate.as_ref().map(|weights| (weights, &mut gates[..])));
        context.project_same(outputs);
    }

    /// Lets the inner models read the rows and update, into `scratch.found`.
    fn inner_loop(
        &self,
        context: &Context<'_>,
        scratch: &mut TttScratch,
        texts: &mut Texts<'_, '_>,
        rows: usize,
    ) -> Result<(), NonFinite> {
        let (hidden, heads) = (context.config.hidden_size, context.config.num_attention_heads);
        let width = heads * context.config.head_dim;
        let TttScratch { normed, queries, keys, values, found, threads, .. } = scratch;
        // If queries and keys share a projection, keys are not read.
        let keys = if self.key.is_some() { &*keys } else { &*queries };
        let inputs = |rows: Range<usize>| {
            let at = rows.start * width..rows.end * width;
            Inputs {
                x: &normed[rows.start * hidden..rows.end * hidden],
                q: Rows::new(&queries[at.clone()], width),
                k: Rows::new(&keys[at.clone()], width),
                v: Rows::new(&values[at], width),
                gate: None,
            }
        };
        let found = &mut found[..rows * width];
        match texts {
            Texts::Own(segments) => self.all_heads(context.team, segments, inputs, found, threads),
            Texts::Watched(segments, losses) => {
                for segment in segments.iter_mut() {
                    let rows = segment.rows();
                    let out = &mut ColsMut::new(&mut found[rows.start * width..rows.end * width], rows.len(), width);
                    let state = &mut segment.state.ttt[self.slot];
                    let (position, losses) = (state.position(), &mut losses[self.slot]);
                    let known = losses.len();
                    losses.resize(known + rows.len() * heads, 0.0);
                    let (own, scratch) = (&mut losses[known..], &mut threads[0]);
                    let inputs = inputs(rows);
                    self.rows.forward_heads_with_losses(state.parts_mut().0, position, &inputs, out, scratch, own);
                }
            }
            Texts::Piece(piece) => piece.pass_on(self.slot, |state| {
                let (position, scratch) = (state.position(), &mut threads[0]);
                let out = &mut ColsMut::new(found, rows, width);
                self.rows.forward_heads(0..heads, state.parts_mut().0, position, &inputs(0..rows), out, scratch);
                state.advance(rows);
                self.rows.complete(state, scratch);
            })?,
        }
        Ok(())
    }

    /// The inner loop of all heads of all sequences, into `found`, `[rows, width]`. Threads share the heads as in
    /// [`HeadLine`].
    fn all_heads<'a>(
        &self,
        team: &Team,
        segments: &'a mut [Segment<'_>],
        inputs: impl Fn(Range<usize>) -> Inputs<'a>,
        found: &'a mut [f32],
        scratch: &mut [HeadScratch],
    ) {
        let config = self.rows.config();
        let (heads, head_dim, width) = (config.num_heads, config.head_dim, config.width());
        let tokens = segments.iter().map(|s| s.tokens.len()).sum();
        let mut line = HeadLine::new(tokens, heads, team.threads());
        let mut units: SmallVec<[Unit<'a>; INLINE_PARTS]> = SmallVec::new();
        let mut rest = found;
        for segment in segments {
            let tokens = segment.tokens.len();
            if tokens == 0 {
                continue;
            }
            let ranges = line.next(tokens);
            let cols: SmallVec<[Range<usize>; INLINE_PARTS]> =
                ranges.iter().map(|(_, heads)| heads.start * head_dim..heads.end * head_dim).collect();
            let inputs = inputs(segment.rows());
            let state = &mut segment.state.ttt[self.slot];
            let (position, head_floats) = (state.position(), state.head_floats());
            let (mut states, _) = state.parts_mut();
            let out = split_cols(take(&mut rest, tokens * width), tokens, width, &cols);
            for ((thread, heads), out) in ranges.into_iter().zip(out) {
                let state = take(&mut states, heads.len() * head_floats);
                units.push(Unit { thread, heads, state, position, inputs, out });
            }
        }
        // Threads ascend within a sequence and from one to the next, so the jobs of a thread are contiguous.
        let mut jobs: SmallVec<[(&mut [Unit<'a>], &mut HeadScratch); INLINE_PARTS]> =
            units.chunk_by_mut(|a, b| a.thread == b.thread).zip(scratch).collect();
        team.run_parts(&mut jobs, |_, (units, scratch)| {
            for u in units.iter_mut() {
                self.rows.forward_heads(u.heads.clone(), u.state, u.position, &u.inputs, &mut u.out, scratch);
            }
        });
    }

    /// Finishes the results of the inner models, with the gate if there is one, and quantises them; the error is the
    /// row that is not finite.
    fn quantize_result(&self, context: &mut Context<'_>, scratch: &mut TttScratch, rows: usize) -> Result<(), usize> {
        let (config, ops, team) = (context.config, context.ops, context.team);
        let width = config.num_attention_heads * config.head_dim;
        let form = context.row_form(config.inputs.output, width);
        let sub_norm = self.branch.sub_norm.as_deref().map(|gain| (gain, config.rms_norm_eps));
        let TttScratch { gates, found, threads, .. } = scratch;
        let ProjectionScratch { inputs, .. } = &mut *context.projections;
        let gate = self.gate.as_ref().map(|_| Rows::new(&gates[..rows * width], width));
        let chunk = rows.div_ceil(team.threads());
        let own = found[..rows * width].chunks_mut(chunk * width).zip(threads);
        inputs[0].fill(team, form, rows, width, own, |(found, scratch), i, row| {
            let out = &mut found[i % chunk * width..(i % chunk + 1) * width];
            self.rows.finish(gate, i, out, scratch);
            row.quantize(ops, out, sub_norm)
        })
    }
}

/// Buffers of the block.
#[derive(Debug)]
pub(in crate::engine) struct TttScratch {
    /// Input of the layer after its norm, `[rows, hidden]`; the learning rates depend on it.
    normed: AlignedBuf<f32>,
    /// Output of the convolution before the layer, `[rows, hidden]`.
    convolved: AlignedBuf<f32>,
    /// `[rows, heads * head_dim]`, like keys, values, gates, and the results of the inner models.
    queries: AlignedBuf<f32>,
    keys: AlignedBuf<f32>,
    values: AlignedBuf<f32>,
    gates: AlignedBuf<f32>,
    found: AlignedBuf<f32>,
    /// Scratch of the inner loop, for each thread.
    pub(in crate::engine) threads: Vec<HeadScratch>,
}

impl TttScratch {
    /// Empty buffers; `None` for a model without such layers.
    pub(in crate::engine) fn new(config: &ModelConfig, threads: usize) -> Option<Self> {
        // The buffers of TTT-MLP fit both kinds.
        let layers = || (0..config.num_hidden_layers).filter(|l| config.mixer(*l).ttt_kind().is_some());
        let largest = layers().find(|l| config.mixer(*l) == Mixer::TttMlp).or(layers().next())?;
        let layer = config.ttt_layer(largest)?;
        let empty = || AlignedBuf::zeroed(0);
        Some(Self {
            normed: empty(),
            convolved: empty(),
            queries: empty(),
            keys: empty(),
            values: empty(),
            gates: empty(),
            found: empty(),
            threads: (0..threads).map(|_| HeadScratch::new(&layer)).collect(),
        })
    }

    /// Room for `rows` tokens.
    pub(in crate::engine) fn reserve(&mut self, config: &ModelConfig, rows: usize) {
        let (hidden, width) = (config.hidden_size, config.num_attention_heads * config.head_dim);
        self.normed = AlignedBuf::zeroed(rows * hidden);
        if config.ttt.pre_conv {
            self.convolved = AlignedBuf::zeroed(rows * hidden);
        }
        if config.ttt.use_gate {
            self.gates = AlignedBuf::zeroed(rows * width);
        }
        for buffer in [&mut self.queries, &mut self.keys, &mut self.values, &mut self.found] {
            *buffer = AlignedBuf::zeroed(rows * width);
        }
    }

    /// Bytes of the buffers of rows.
    pub(in crate::engine) fn byte_len(&self) -> usize {
        let Self { normed, convolved, queries, keys, values, gates, found, threads: _ } = self;
        [normed, convolved, queries, keys, values, gates, found].into_iter().map(|b| size_of_val(&b[..])).sum()
    }
}

/// Some heads of one sequence, for one thread.
struct Unit<'a> {
    thread: usize,
    heads: Range<usize>,
    state: &'a mut [f32],
    position: u64,
    inputs: Inputs<'a>,
    out: ColsMut<'a, f32>,
}
