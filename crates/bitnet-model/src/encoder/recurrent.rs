//! Layers whose mixer is a recurrence: it reads the words forward and, with parameters of its own and if the encoder
//! reads in both directions, backward.
//!
//! Both directions read the same projections, so a second direction costs its recurrence and its few floats. The
//! recurrences are those of language models (`ttt_layer`), which are the same on every instruction set.

use ternary_kernels::Ops;
use ttt_layer::{
    DeltaInputs, DeltaParameters, DeltaScratch, DeltaState, GatedDelta, Inputs, RowWise, Rows, Scratch as TttScratch,
    TttParameters, TttState,
};

use super::config::ExtractorConfig;
use super::forward::{Extractor, Scratch, sized};
use super::layer::{Layer, Mixing, Stack};
use super::mixer::{Directions, EncoderMixer};
use crate::ModelError;

/// A recurrence in the directions in which it reads: forward, perhaps backward.
#[derive(Debug)]
pub(super) enum Recurrence {
    Ttt(Vec<RowWise>),
    Delta(Vec<GatedDelta>),
}

impl Recurrence {
    /// The recurrence of a layer, of these parameters of its directions; `None` for attention.
    pub(super) fn new(
        config: &ExtractorConfig,
        mixer: EncoderMixer,
        directions: &[Vec<f32>; 2],
        ops: Ops,
    ) -> Result<Option<Self>, ModelError> {
        let directions = directions.iter().take(config.directions.count());
        Ok(match mixer {
            EncoderMixer::Attention => None,
            EncoderMixer::TttLinear => {
                let c = config.ttt_layer();
                let of = |values: &Vec<f32>| -> Result<RowWise, ModelError> {
                    Ok(RowWise::with_ops(&c, &TttParameters::from_flat(&c, values)?, ops)?)
                };
                Some(Self::Ttt(directions.map(of).collect::<Result<_, _>>()?))
            }
            EncoderMixer::GatedDelta => {
                let c = config.delta_layer();
                let of = |values: &Vec<f32>| -> Result<GatedDelta, ModelError> {
                    Ok(GatedDelta::with_ops(&c, &DeltaParameters::from_flat(&c, values)?, ops)?)
                };
                Some(Self::Delta(directions.map(of).collect::<Result<_, _>>()?))
            }
        })
    }

    /// Floats of all directions.
    pub(super) fn floats(&self) -> usize {
        match self {
            Self::Ttt(all) => all.iter().flat_map(RowWise::learnt).map(<[f32]>::len).sum(),
            Self::Delta(all) => all.iter().flat_map(GatedDelta::learnt).map(<[f32]>::len).sum(),
        }
    }
}

/// Buffers of recurrent layers.
#[derive(Debug, Default)]
pub(super) struct RecurrentScratch {
    /// Inputs of the layer after its norm, `[n, hidden]`.
    normed: Vec<f32>,
    /// Products with the layer's projections, side by side, `[n, columns]`.
    projected: Vec<f32>,
    /// The result of the backward direction, last word first, `[n, hidden]`.
    backward: Vec<f32>,
    ttt: Option<(TttState, TttScratch)>,
    delta: Option<(DeltaState, DeltaScratch)>,
}

impl RecurrentScratch {
    /// Buffers for the layers of an extractor.
    pub(super) fn new<'l>(layers: impl Iterator<Item = &'l Recurrence>) -> Self {
        let mut s = Self::default();
        for layer in layers {
            match layer {
                Recurrence::Ttt(rows) => {
                    ttt_buffers(&mut s.ttt, &rows[0]);
                }
                Recurrence::Delta(rules) => {
                    delta_buffers(&mut s.delta, &rules[0]);
                }
            }
        }
        s
    }

    /// One direction over the words in the order in which they lie, each time from the first state on: `out` is
    /// `[n, hidden]`.
    fn read(&mut self, recurrence: &Recurrence, direction: usize, out: Out) {
        let out = match out {
            Out::Forward(out) => out,
            Out::Backward => &mut self.backward,
        };
        match recurrence {
            Recurrence::Ttt(rows) => {
                let rows = &rows[direction];
                let (state, scratch) = ttt_buffers(&mut self.ttt, rows);
                state.reset(rows);
                let inputs = Inputs::side_by_side(rows.config(), &self.normed, &self.projected);
                rows.forward(state, &inputs, out, std::slice::from_mut(scratch), None);
            }
            Recurrence::Delta(rules) => {
                let rule = &rules[direction];
                let (state, scratch) = delta_buffers(&mut self.delta, rule);
                state.reset();
                let (channels, width) = (rule.config().channels(), rule.config().value_width());
                let of = |columns| Rows::columns(&self.projected, channels + width, columns);
                let (qkv, z) = (of(0..channels), of(channels..channels + width));
                rule.forward(state, &DeltaInputs { x: &self.normed, qkv, z }, out, scratch);
            }
        }
    }
}

/// Where a direction writes.
enum Out<'a> {
    Forward(&'a mut [f32]),
    Backward,
}

/// State and buffers for this layer, made again if the present ones are those of another extractor.
fn ttt_buffers<'a>(slot: &'a mut Option<(TttState, TttScratch)>, rows: &RowWise) -> &'a mut (TttState, TttScratch) {
    if slot.as_ref().is_some_and(|(state, _)| state.config() != rows.config()) {
        *slot = None;
    }
    slot.get_or_insert_with(|| (TttState::new(rows), TttScratch::new(rows.config())))
}

fn delta_buffers<'a>(
    slot: &'a mut Option<(DeltaState, DeltaScratch)>,
    rule: &GatedDelta,
) -> &'a mut (DeltaState, DeltaScratch) {
    if slot.as_ref().is_some_and(|(state, _)| state.config() != rule.config()) {
        *slot = None;
    }
    slot.get_or_insert_with(|| (DeltaState::new(rule), DeltaScratch::new(rule.config())))
}

/// Turns the order of rows of `width` around.
fn reverse_rows(x: &mut [f32], width: usize) {
    let mut rest = x;
    while rest.len() >= 2 * width {
        let (first, more) = rest.split_at_mut(width);
        let (middle, last) = more.split_at_mut(more.len() - width);
        first.swap_with_slice(last);
        rest = middle;
    }
}

impl Extractor {
    /// `h += o(sub_norm(forward(norm(h)) + backward(norm(h))))`; the second term where it reads in both directions.
    pub(super) fn recur(&self, layer: &Layer, n: usize, s: &mut Scratch) -> Result<(), ModelError> {
        let width = self.config.hidden_size;
        self.quantize(&s.h, &layer.attn_norm, &mut s.batch)?;
        let recurrence = match &layer.mixing {
            Mixing::Attention(_) => return Ok(()),
            Mixing::Ttt(stack, recurrence) => {
                self.project(stack, n, s);
                recurrence
            }
            Mixing::Delta(stack, recurrence) => {
                self.project(stack, n, s);
                recurrence
            }
        };
        let Scratch { recurrent: r, attention, h, .. } = s;
        for (x, out) in h.chunks_exact(width).zip(sized(&mut r.normed, n * width).chunks_exact_mut(width)) {
            self.ops.rms_norm(x, &layer.attn_norm, self.config.norm_eps, out);
        }
        let all = sized(&mut attention.all, n * width);
        r.read(recurrence, 0, Out::Forward(&mut *all));
        if self.config.directions == Directions::Both {
            reverse_rows(&mut r.normed, width);
            let columns = r.projected.len() / n.max(1);
            reverse_rows(&mut r.projected, columns);
            sized(&mut r.backward, n * width);
            r.read(recurrence, 1, Out::Backward);
            for (out, back) in all.chunks_exact_mut(width).zip(r.backward.chunks_exact(width).rev()) {
                self.ops.add_assign(out, back);
            }
        }
        self.quantize(all, &layer.attn_sub_norm, &mut s.batch)?;
        self.add_product(&layer.o, &s.batch, &mut s.acc, &mut s.h);
        Ok(())
    }

    /// The products of the words with matrices of `hidden_size` rows each, side by side in `projected`.
    fn project<const N: usize>(&self, stack: &Stack<N>, n: usize, s: &mut Scratch) {
        let width = self.config.hidden_size;
        let acc = stack.product(&*self.kernel, &s.batch, &mut s.acc);
        let projected = sized(&mut s.recurrent.projected, n * N * width);
        let rows = acc.chunks_exact(N * width).zip(projected.chunks_exact_mut(N * width));
        for ((acc, out), scale) in rows.zip(s.batch.scales()) {
            for ((acc, out), of) in acc.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(stack.scales) {
                self.ops.dequantize(acc, 1.0 / scale, of, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_turned_around() {
        for n in 0..6usize {
            let mut x: Vec<f32> = (0..2 * n).map(|i| i as f32).collect();
            let expected: Vec<f32> = x.chunks(2).rev().flatten().copied().collect();
            reverse_rows(&mut x, 2);
            assert_eq!(x, expected);
        }
    }
}
