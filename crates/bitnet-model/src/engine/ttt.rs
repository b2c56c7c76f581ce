//! Test-time-training layers on the engine: everything around the inner loop, which is
//! [`ttt_layer::RowWise`]'s.
//!
//! A block is `x = norm(h); q, k, v, g = projections of quantised x; h += o(quantised sub-norm(finish(inner loop)))`, before
//! which `h += conv(norm(h))` where the block has a convolution. Projections are ternary, everything else is f32.

use std::ops::Range;

use smallvec::SmallVec;
use ternary_kernels::{AlignedBuf, ColsMut, Team, split_cols};
use ttt_layer::{ConvRows, Inputs, RowWise, Rows, Scratch as HeadScratch, TttState};

use super::attention::Segment;
use super::lanes::Piece;
use super::linear::{Linear, Product, project};
use super::scratch::Scratch;
use super::shares::{HeadLine, take};
use super::step::{INLINE_PARTS, NonFinite, StepInput};
use super::{Inner, Layer, Workspace};
use crate::{LayerWeights, Mixer, ModelConfig, ModelError, Projection};

/// The mixer of a test-time-training layer, packed.
#[derive(Debug)]
pub(super) struct TttMixer {
    /// Gain of the norm before the convolution, and the convolution.
    pre_conv: Option<(Vec<f32>, ConvRows)>,
    q: Linear,
    /// `None` where queries and keys share a projection.
    k: Option<Linear>,
    v: Linear,
    gate: Option<Linear>,
    pub(super) rows: RowWise,
    /// Which of the states of a sequence is this layer's.
    slot: usize,
}

impl TttMixer {
    /// Packs what `w` holds; `None` if its mixer is another.
    pub(super) fn new(
        w: &LayerWeights,
        ops: ternary_kernels::Ops,
        slot: usize,
        inner_updates: bool,
        linear: impl Fn(Projection) -> Result<Linear, ModelError>,
    ) -> Result<Option<Self>, ModelError> {
        let Some(t) = &w.ttt else { return Ok(None) };
        let (c, has) = (&t.config, |p| w.projections().any(|(q, _)| q == p));
        let optional = |p| if has(p) { linear(p).map(Some) } else { Ok(None) };
        let pre_conv = match (&w.pre_conv_norm, &t.pre_conv) {
            (Some(gain), Some(conv)) => Some((gain.clone(), ConvRows::new(conv, c.hidden_size, c.conv_kernel)?)),
            _ => None,
        };
        let rows = RowWise::with_ops(c, &t.parameters, ops)?;
        Ok(Some(Self {
            pre_conv,
            q: linear(Projection::Q)?,
            k: optional(Projection::K)?,
            v: linear(Projection::V)?,
            gate: optional(Projection::OutGate)?,
            rows: if inner_updates { rows } else { rows.without_inner_updates() },
            slot,
        }))
    }

    /// What the mixer has learnt in full precision.
    pub(super) fn learnt(&self) -> impl Iterator<Item = &[f32]> {
        let conv = self.pre_conv.iter().flat_map(|(gain, conv)| conv.learnt().chain([gain.as_slice()]));
        self.rows.learnt().chain(conv)
    }

    /// The projections.
    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        [&self.q, &self.v].into_iter().chain(&self.k).chain(&self.gate)
    }
}

/// Buffers of the test-time-training layers.
#[derive(Debug)]
pub(super) struct TttScratch {
    /// Input of the layer after its norm, `[n, hidden]`; the learning rates depend on it.
    x: AlignedBuf<f32>,
    /// Output of the convolution before the layer, `[n, hidden]`.
    conv: AlignedBuf<f32>,
    /// Gates, `[n, heads * head_dim]`.
    gate: AlignedBuf<f32>,
    threads: Vec<HeadScratch>,
}

impl TttScratch {
    /// Empty buffers; `None` for a model without such layers.
    pub(super) fn new(c: &ModelConfig, threads: usize) -> Option<Self> {
        // The buffers of TTT-MLP serve both kinds.
        let layers = || (0..c.num_hidden_layers).filter(|l| c.mixer(*l).ttt_kind().is_some());
        let largest = layers().find(|l| c.mixer(*l) == Mixer::TttMlp).or(layers().next())?;
        let layer = c.ttt_layer(largest)?;
        let empty = AlignedBuf::zeroed(0);
        let threads = (0..threads).map(|_| HeadScratch::new(&layer)).collect();
        Some(Self { x: empty.clone(), conv: empty.clone(), gate: empty, threads })
    }

    /// Room for `n` tokens.
    pub(super) fn reserve(&mut self, c: &ModelConfig, n: usize) {
        self.x = AlignedBuf::zeroed(n * c.hidden_size);
        if c.ttt.pre_conv {
            self.conv = AlignedBuf::zeroed(n * c.hidden_size);
        }
        if c.ttt.use_gate {
            self.gate = AlignedBuf::zeroed(n * c.num_attention_heads * c.head_dim);
        }
    }
}

/// Whose states a block of rows reads and writes.
pub(super) enum Texts<'s, 'a> {
    /// Those of some texts, each in one piece.
    Own(&'s mut [Segment<'a>]),
    /// That of one text, of which other threads have other pieces.
    Piece(&'s Piece<'s, 'a>),
    /// As `Own`, of one text; the inner losses of each layer are appended, `[n, h]` for each.
    Watched(&'s mut [Segment<'a>], &'s mut [Vec<f32>]),
}

impl<'a> Texts<'_, 'a> {
    /// The texts for layers of attention; a piece has none, because it is cut only from models without such layers.
    pub(super) fn segments(&mut self) -> &mut [Segment<'a>] {
        match self {
            Texts::Own(segments) | Texts::Watched(segments, _) => segments,
            Texts::Piece(_) => &mut [],
        }
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

impl Inner {
    /// A layer's mixer for `n` rows, added to the residual stream.
    pub(super) fn ttt_block(
        &self,
        team: &Team,
        s: &mut Scratch,
        layer: &Layer,
        mixer: &TttMixer,
        texts: &mut Texts<'_, '_>,
        n: usize,
    ) -> Result<(), NonFinite> {
        let (c, ops) = (&self.config, self.ops);
        let (hidden, width) = (c.hidden_size, c.num_attention_heads * c.head_dim);
        let Scratch { x, q, k, v, attn, quantized, threads, ttt, .. } = s;
        let t = ttt.as_mut().expect("a model with such layers has their buffers");
        let (x, quantized) = (&mut x[..n * hidden], &mut quantized[0]);
        match texts {
            Texts::Own(segments) | Texts::Watched(segments, _) => self.pre_conv(team, x, t, mixer, segments),
            Texts::Piece(piece) if mixer.pre_conv.is_some() => piece.in_turn(mixer.slot, |state| {
                let (normed, out) = (&mut t.x[..n * hidden], &mut t.conv[..n * hidden]);
                self.convolve(mixer, x, normed, out, state.parts_mut().1);
            })?,
            Texts::Piece(_) => (),
        }

        let chunk = n.div_ceil(team.threads());
        let rows = x.chunks(chunk * hidden).zip(t.x[..n * hidden].chunks_mut(chunk * hidden));
        quantized
            .fill(team, self.row_form(c.inputs.mixer, hidden), n, hidden, rows, |(x, normed), i, row| {
                let at = i % chunk * hidden..(i % chunk + 1) * hidden;
                ops.rms_norm(&x[at.clone()], &layer.input_norm, c.rms_norm_eps, &mut normed[at.clone()]);
                row.quantize(ops, &normed[at], None)
            })
            .map_err(|row| ("the input of a test-time-training layer", row))?;

        let input = &*quantized;
        let mut products: SmallVec<[Product<'_>; 4]> = SmallVec::new();
        products.push((&mixer.q, input, &mut q[..n * width]));
        products.extend(mixer.k.as_ref().map(|w| (w, input, &mut k[..n * width])));
        products.push((&mixer.v, input, &mut v[..n * width]));
        products.extend(mixer.gate.as_ref().map(|w| (w, input, &mut t.gate[..n * width])));
        project(ops, team, products, n, threads);

        // Where queries and keys share a projection, keys are not read.
        let k = if mixer.k.is_some() { &k[..n * width] } else { &q[..n * width] };
        let inputs = |rows: Range<usize>| {
            let at = rows.start * width..rows.end * width;
            Inputs {
                x: &t.x[rows.start * hidden..rows.end * hidden],
                q: Rows::new(&q[at.clone()], width),
                k: Rows::new(&k[at.clone()], width),
                v: Rows::new(&v[at.clone()], width),
                gate: None,
            }
        };
        let out = &mut attn[..n * width];
        match texts {
            Texts::Own(segments) => inner_loop(team, mixer, segments, inputs, out, &mut t.threads),
            Texts::Watched(segments, losses) => {
                for segment in segments.iter_mut() {
                    let (rows, h) =
                        (segment.first_row..segment.first_row + segment.tokens.len(), c.num_attention_heads);
                    let out = &mut ColsMut::new(&mut out[rows.start * width..rows.end * width], rows.len(), width);
                    let state = &mut segment.state.ttt[mixer.slot];
                    let (position, losses) = (state.position(), &mut losses[mixer.slot]);
                    let known = losses.len();
                    losses.resize(known + rows.len() * h, 0.0);
                    let (own, scratch) = (&mut losses[known..], &mut t.threads[0]);
                    let inputs = inputs(rows);
                    mixer.rows.forward_heads_with_losses(state.parts_mut().0, position, &inputs, out, scratch, own);
                }
            }
            Texts::Piece(piece) => piece.pass_on(mixer.slot, |state| {
                let (heads, position, scratch) = (0..c.num_attention_heads, state.position(), &mut t.threads[0]);
                let out = &mut ColsMut::new(out, n, width);
                mixer.rows.forward_heads(heads, state.parts_mut().0, position, &inputs(0..n), out, scratch);
                state.advance(n);
                mixer.rows.complete(state, scratch);
            })?,
        }

        let gate = mixer.gate.as_ref().map(|_| Rows::new(&t.gate[..n * width], width));
        let sub_norm = layer.attn_sub_norm.as_ref().map(|g| (g, c.rms_norm_eps));
        let rows = attn[..n * width].chunks_mut(chunk * width).zip(&mut t.threads);
        quantized
            .fill(team, self.row_form(c.inputs.output, width), n, width, rows, |(rows, scratch), i, row| {
                let out = &mut rows[i % chunk * width..(i % chunk + 1) * width];
                mixer.rows.finish(gate, i, out, scratch);
                row.quantize(ops, out, sub_norm)
            })
            .map_err(|row| ("the output of a test-time-training layer", row))?;
        self.add_branch(team, s, &layer.o, layer.mixer_out_norm.as_ref(), n);
        Ok(())
    }

    /// `x += conv(norm(x))` where the block has a convolution; one thread for each sequence.
    fn pre_conv(&self, team: &Team, x: &mut [f32], t: &mut TttScratch, mixer: &TttMixer, segments: &mut [Segment<'_>]) {
        if mixer.pre_conv.is_none() {
            return;
        }
        let hidden = self.config.hidden_size;
        let (mut x, mut normed, mut out) = (x, &mut t.x[..], &mut t.conv[..]);
        let mut parts: SmallVec<[_; INLINE_PARTS]> = SmallVec::new();
        for segment in segments {
            let len = segment.tokens.len() * hidden;
            let window = segment.state.ttt[mixer.slot].parts_mut().1;
            parts.push((take(&mut x, len), take(&mut normed, len), take(&mut out, len), window));
        }
        team.run_parts(&mut parts, |_, (x, normed, out, window)| self.convolve(mixer, x, normed, out, window));
    }

    /// The same for some rows of one sequence.
    fn convolve(&self, mixer: &TttMixer, x: &mut [f32], normed: &mut [f32], out: &mut [f32], window: &mut [f32]) {
        let Some((gain, conv)) = &mixer.pre_conv else { return };
        let (ops, eps, hidden) = (self.ops, self.config.rms_norm_eps, self.config.hidden_size);
        for (x, normed) in x.chunks_exact(hidden).zip(normed.chunks_exact_mut(hidden)) {
            ops.rms_norm(x, gain, eps, normed);
        }
        conv.forward(ops, window, Rows::new(normed, hidden), out);
        ops.add_assign(x, out);
    }

    /// Lets mini-batches that ended with the last tokens of `inputs` move the inner weights: nothing can fail any more.
    pub(super) fn complete(&self, ws: &mut Workspace, inputs: &mut [StepInput<'_>]) {
        let Workspace { team, scratch, lanes } = ws;
        let Some(t) = &mut scratch.ttt else { return };
        if !inputs.iter().any(|i| i.state.ttt.iter().any(TttState::is_due)) {
            return;
        }
        let one = |first: usize, states: &mut [TttState], scratch: &mut HeadScratch| {
            let layers = self.ttt_layers().skip(first);
            layers.zip(states).for_each(|(layer, state)| layer.complete(state, scratch));
        };
        match inputs {
            // Small models run on one thread.
            [input] if !lanes.is_empty() => one(0, &mut input.state.ttt, &mut t.threads[0]),
            [input] => {
                let per = input.state.ttt.len().div_ceil(team.threads());
                let mut parts: SmallVec<[_; INLINE_PARTS]> =
                    input.state.ttt.chunks_mut(per).zip(&mut t.threads).collect();
                team.run_parts(&mut parts, |i, (states, scratch)| one(i * per, states, scratch));
            }
            inputs => {
                let per = inputs.len().div_ceil(team.threads());
                let mut parts: SmallVec<[_; INLINE_PARTS]> = inputs.chunks_mut(per).zip(&mut t.threads).collect();
                team.run_parts(&mut parts, |_, (inputs, scratch)| {
                    inputs.iter_mut().for_each(|input| one(0, &mut input.state.ttt, scratch));
                });
            }
        }
    }

    /// The same before a block that goes on where another one of the same step has ended a mini-batch.
    pub(super) fn complete_open(&self, s: &mut Scratch, segments: &mut [Segment<'_>]) {
        let Some(t) = &mut s.ttt else { return };
        for segment in segments {
            let layers = self.ttt_layers().zip(&mut segment.state.ttt);
            layers.for_each(|(layer, state)| layer.complete(state, &mut t.threads[0]));
        }
    }
}

/// The inner loop of all heads of all sequences, into `out` `[n, w]`. Threads share the heads as
/// [`HeadLine`] says.
fn inner_loop<'a>(
    team: &Team,
    mixer: &TttMixer,
    segments: &'a mut [Segment<'_>],
    inputs: impl Fn(Range<usize>) -> Inputs<'a>,
    out: &'a mut [f32],
    scratch: &mut [HeadScratch],
) {
    let c = mixer.rows.config();
    let (h, d, w) = (c.num_heads, c.head_dim, c.width());
    let tokens = segments.iter().map(|s| s.tokens.len()).sum();
    let mut line = HeadLine::new(tokens, h, team.threads());
    let mut units: SmallVec<[Unit<'a>; INLINE_PARTS]> = SmallVec::new();
    let mut rest = out;
    for segment in segments {
        let n = segment.tokens.len();
        if n == 0 {
            continue;
        }
        let ranges = line.next(n);
        let cols: SmallVec<[Range<usize>; INLINE_PARTS]> =
            ranges.iter().map(|(_, heads)| heads.start * d..heads.end * d).collect();
        let state = &mut segment.state.ttt[mixer.slot];
        let (position, head_floats) = (state.position(), state.head_floats());
        let (mut states, _) = state.parts_mut();
        let inputs = inputs(segment.first_row..segment.first_row + n);
        let out = split_cols(take(&mut rest, n * w), n, w, &cols);
        for ((thread, heads), out) in ranges.into_iter().zip(out) {
            let state = take(&mut states, heads.len() * head_floats);
            units.push(Unit { thread, heads, state, position, inputs, out });
        }
    }
    // Threads ascend within a sequence and from one to the next, so those of a thread lie side by side.
    let mut jobs: SmallVec<[(&mut [Unit<'a>], &mut HeadScratch); INLINE_PARTS]> =
        units.chunk_by_mut(|a, b| a.thread == b.thread).zip(scratch).collect();
    team.run_parts(&mut jobs, |_, (units, scratch)| {
        for u in units.iter_mut() {
            mixer.rows.forward_heads(u.heads.clone(), u.state, u.position, &u.inputs, &mut u.out, scratch);
        }
    });
}
