//! Layers of the gated delta rule on the engine: everything around the recurrence, which is [`ttt_layer::GatedDelta`]'s.
//!
//! A block is `x = norm(h); u, z = projections of quantised x; h += o(quantised recurrence(x, u, z))`. Projections are ternary,
//! everything else is f32.

use std::ops::Range;

use smallvec::SmallVec;
use ternary_kernels::{AlignedBuf, ColsMut, Team, split_cols};
use ttt_layer::{DeltaInputs, DeltaScratch as HeadScratch, GatedDelta, Rows};

use super::attention::Segment;
use super::linear::{Linear, Product, project};
use super::scratch::Scratch;
use super::shares::{HeadLine, take};
use super::step::{INLINE_PARTS, NonFinite};
use super::{Inner, Layer};
use crate::{LayerWeights, ModelConfig, ModelError, Projection};

/// The mixer of a layer of the gated delta rule, packed.
#[derive(Debug)]
pub(super) struct DeltaMixer {
    qkv: Linear,
    z: Linear,
    pub(super) rule: GatedDelta,
    /// Which of the states of a sequence is this layer's.
    slot: usize,
}

impl DeltaMixer {
    /// Packs what `w` holds; `None` if its mixer is another.
    pub(super) fn new(
        w: &LayerWeights,
        ops: ternary_kernels::Ops,
        slot: usize,
        linear: impl Fn(Projection) -> Result<Linear, ModelError>,
    ) -> Result<Option<Self>, ModelError> {
        let Some(d) = &w.delta else { return Ok(None) };
        Ok(Some(Self {
            qkv: linear(Projection::Qkv)?,
            z: linear(Projection::OutGate)?,
            rule: GatedDelta::with_ops(&d.config, &d.parameters, ops)?,
            slot,
        }))
    }

    /// The projections.
    pub(super) fn linears(&self) -> [&Linear; 2] {
        [&self.qkv, &self.z]
    }
}

/// Buffers of the layers of the gated delta rule.
#[derive(Debug)]
pub(super) struct DeltaScratch {
    /// Input of the layer after its norm, `[n, hidden]`; decays and rates depend on it.
    x: AlignedBuf<f32>,
    /// Queries, keys and values, `[n, channels]`.
    qkv: AlignedBuf<f32>,
    /// Gates of the output, `[n, value_width]`.
    z: AlignedBuf<f32>,
    /// What the output projection reads, `[n, value_width]`.
    out: AlignedBuf<f32>,
    threads: Vec<HeadScratch>,
}

impl DeltaScratch {
    /// Empty buffers; `None` for a model without such layers.
    pub(super) fn new(c: &ModelConfig, threads: usize) -> Option<Self> {
        let layer = (0..c.num_hidden_layers).find_map(|l| c.delta_layer(l))?;
        let empty = AlignedBuf::zeroed(0);
        let threads = (0..threads).map(|_| HeadScratch::new(&layer)).collect();
        Some(Self { x: empty.clone(), qkv: empty.clone(), z: empty.clone(), out: empty, threads })
    }

    /// Room for `n` tokens.
    pub(super) fn reserve(&mut self, c: &ModelConfig, n: usize) {
        let Some(layer) = (0..c.num_hidden_layers).find_map(|l| c.delta_layer(l)) else { return };
        self.x = AlignedBuf::zeroed(n * c.hidden_size);
        self.qkv = AlignedBuf::zeroed(n * layer.channels());
        self.z = AlignedBuf::zeroed(n * layer.value_width());
        self.out = AlignedBuf::zeroed(n * layer.value_width());
    }

    /// Bytes of the buffers.
    pub(super) fn byte_len(&self) -> usize {
        4 * (self.x.len() + self.qkv.len() + self.z.len() + self.out.len())
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

impl Inner {
    /// A layer's mixer for `n` rows, added to the residual stream.
    pub(super) fn delta_block(
        &self,
        team: &Team,
        s: &mut Scratch,
        layer: &Layer,
        mixer: &DeltaMixer,
        segments: &mut [Segment<'_>],
        n: usize,
    ) -> Result<(), NonFinite> {
        let (c, ops, hidden) = (&self.config, self.ops, self.config.hidden_size);
        let (channels, width) = (mixer.rule.config().channels(), mixer.rule.config().value_width());
        let Scratch { x, quantized, threads, delta, .. } = s;
        let d = delta.as_mut().expect("a model with such layers has their buffers");
        let (x, quantized) = (&x[..n * hidden], &mut quantized[0]);

        let chunk = n.div_ceil(team.threads());
        let rows = x.chunks(chunk * hidden).zip(d.x[..n * hidden].chunks_mut(chunk * hidden));
        quantized
            .fill(team, self.row_form(c.inputs.mixer, hidden), n, hidden, rows, |(x, normed), i, row| {
                let at = i % chunk * hidden..(i % chunk + 1) * hidden;
                ops.rms_norm(&x[at.clone()], &layer.input_norm, c.rms_norm_eps, &mut normed[at.clone()]);
                row.quantize(ops, &normed[at], None)
            })
            .map_err(|row| ("the input of a layer of the gated delta rule", row))?;

        let input = &*quantized;
        let mut products: SmallVec<[Product<'_>; 4]> = SmallVec::new();
        products.push((&mixer.qkv, input, &mut d.qkv[..n * channels]));
        products.push((&mixer.z, input, &mut d.z[..n * width]));
        project(ops, team, products, n, threads);

        let inputs = |rows: Range<usize>| DeltaInputs {
            x: &d.x[rows.start * hidden..rows.end * hidden],
            qkv: Rows::new(&d.qkv[rows.start * channels..rows.end * channels], channels),
            z: Rows::new(&d.z[rows.start * width..rows.end * width], width),
        };
        recurrence(team, mixer, segments, inputs, &mut d.out[..n * width], &mut d.threads);

        let out = &d.out[..n * width];
        let rows = std::iter::repeat(());
        quantized
            .fill(team, self.row_form(c.inputs.output, width), n, width, rows, |(), i, row| {
                row.quantize(ops, &out[i * width..(i + 1) * width], None)
            })
            .map_err(|row| ("the output of a layer of the gated delta rule", row))?;
        self.add_branch(team, s, &layer.o, layer.mixer_out_norm.as_ref(), n);
        Ok(())
    }
}

/// The recurrence of all heads of all sequences, into `out` `[n, value_width]`. Threads share the key heads as
/// [`HeadLine`] says.
fn recurrence<'a>(
    team: &Team,
    mixer: &DeltaMixer,
    segments: &'a mut [Segment<'_>],
    inputs: impl Fn(Range<usize>) -> DeltaInputs<'a>,
    out: &'a mut [f32],
    scratch: &mut [HeadScratch],
) {
    let c = mixer.rule.config();
    let (h, d, w) = (c.key_heads, c.group() * c.head_dim, c.value_width());
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
        let state = &mut segment.state.delta[mixer.slot];
        let head_floats = state.head_floats();
        let mut states = state.heads_mut();
        let inputs = inputs(segment.first_row..segment.first_row + n);
        let out = split_cols(take(&mut rest, n * w), n, w, &cols);
        for ((thread, heads), out) in ranges.into_iter().zip(out) {
            let state = take(&mut states, heads.len() * head_floats);
            units.push(Unit { thread, heads, state, inputs, out });
        }
    }
    // Threads ascend within a sequence and from one to the next, so those of a thread lie side by side.
    let mut jobs: SmallVec<[(&mut [Unit<'a>], &mut HeadScratch); INLINE_PARTS]> =
        units.chunk_by_mut(|a, b| a.thread == b.thread).zip(scratch).collect();
    team.run_parts(&mut jobs, |_, (units, scratch)| {
        for u in units.iter_mut() {
            mixer.rule.forward_heads(u.heads.clone(), u.state, &u.inputs, &mut u.out, scratch);
        }
    });
}
