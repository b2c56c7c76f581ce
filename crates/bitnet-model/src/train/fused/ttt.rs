//! Test-time-training layers in training: everything around the inner loop, which is [`ttt_layer::RowWise`]'s.

use std::ops::Range;

use ttt_layer::{InputGradients, Inputs, Kind, Rows, Tape, TttConfig, Workspace};

use super::Shared;
use super::backward::norm_backward;
use super::forward::{rows_of, sized, zeroed};
use super::weights::{TttLayer, TttPlaces};

/// Values of one layer's forward pass that the backward pass needs.
#[derive(Debug, Default)]
pub(super) struct TttTape {
    /// Residual stream before the convolution, `[n, hidden]`, if there is one.
    before: Vec<f32>,
    /// The layer's input after its norm, `[n, hidden]`.
    x: Vec<f32>,
    inner: Tape,
}

/// Buffers of a worker.
#[derive(Debug, Default)]
pub(super) struct TttScratch {
    /// One per kind of layer.
    work: [Option<Workspace>; 2],
    normed: Vec<f32>,
    conv: Vec<f32>,
    /// Gradient of the layer's input as the learning rates read it, `[n, hidden]`.
    d_input: Vec<f32>,
    taps: Vec<f32>,
}

fn workspace<'a>(work: &'a mut [Option<Workspace>; 2], c: &TttConfig) -> &'a mut Workspace {
    let slot = match c.kind {
        Kind::Linear => 0,
        Kind::Mlp => 1,
    };
    work[slot].get_or_insert_with(|| Workspace::new(c))
}

impl TttScratch {
    /// `h += conv(norm(h))`, if the block has a convolution.
    pub(super) fn pre_conv(
        &mut self,
        s: &Shared<'_>,
        layer: &TttLayer,
        places: &TttPlaces,
        texts: &[usize],
        h: &mut [f32],
        tape: &mut TttTape,
    ) {
        let (Some(conv), Some([norm, ..])) = (&layer.pre_conv, &places.pre_conv) else { return };
        let hidden = s.config.hidden_size;
        tape.before.clear();
        tape.before.extend_from_slice(h);
        let normed = sized(&mut self.normed, h.len());
        rms_norm(s, norm, h, normed);
        let out = sized(&mut self.conv, h.len());
        conv.forward_texts(s.ops, Rows::new(normed, hidden), texts, out);
        s.ops.add_assign(h, out);
    }

    /// The layer over texts of these lengths: `h` is the residual stream before its norm, `projected` the products with
    /// its projections.
    #[expect(clippy::too_many_arguments, reason = "operands, result and tape")]
    pub(super) fn forward(
        &mut self,
        s: &Shared<'_>,
        layer: &TttLayer,
        norm: &Option<Range<usize>>,
        texts: &[usize],
        [h, projected]: [&[f32]; 2],
        out: &mut [f32],
        tape: &mut TttTape,
    ) {
        let x = sized(&mut tape.x, h.len());
        match norm {
            Some(norm) => rms_norm(s, norm, h, x),
            None => x.copy_from_slice(h),
        }
        let c = layer.rows.config();
        let inputs = Inputs::side_by_side(c, x, projected);
        layer.rows.forward_taped(&inputs, texts, out, &mut tape.inner, workspace(&mut self.work, c));
    }

    /// Gradients for `dout` `[n, w]`: written to `dprojected`, added to `grads`; the part of the layer's input is
    /// in [`TttScratch::d_input`].
    #[expect(clippy::too_many_arguments, reason = "operands, gradients and tape")]
    pub(super) fn backward(
        &mut self,
        layer: &TttLayer,
        places: &TttPlaces,
        texts: &[usize],
        [projected, dout]: [&[f32]; 2],
        dprojected: &mut [f32],
        tape: &mut TttTape,
        grads: &mut [f32],
    ) {
        let c = layer.rows.config();
        let inputs = Inputs::side_by_side(c, &tape.x, projected);
        let mut to = InputGradients { x: zeroed(&mut self.d_input, tape.x.len()), projected: dprojected };
        let grads = &mut grads[places.layer.clone()];
        let work = workspace(&mut self.work, c);
        layer.rows.backward(&inputs, texts, dout, &mut tape.inner, &mut to, grads, work);
    }

    pub(super) fn d_input(&self) -> &[f32] {
        &self.d_input
    }

    /// The gradient of [`TttScratch::pre_conv`], added to that of the residual stream, `dh`.
    #[expect(clippy::too_many_arguments, reason = "operands, gradients and tape")]
    pub(super) fn pre_conv_backward(
        &mut self,
        s: &Shared<'_>,
        layer: &TttLayer,
        places: &TttPlaces,
        texts: &[usize],
        dh: &mut [f32],
        tape: &TttTape,
        grads: &mut [f32],
    ) {
        let (Some(conv), Some([norm, weight, bias])) = (&layer.pre_conv, &places.pre_conv) else { return };
        let hidden = s.config.hidden_size;
        let normed = sized(&mut self.normed, dh.len());
        rms_norm(s, norm, &tape.before, normed);
        let d = zeroed(&mut self.conv, dh.len());
        for rows in rows_of(texts) {
            let at = rows.start * hidden..rows.end * hidden;
            let (x, dy, dx) = (Rows::new(&normed[at.clone()], hidden), &dh[at.clone()], &mut d[at]);
            let (low, high) = grads.split_at_mut(bias.start);
            let to = [&mut low[weight.clone()], &mut high[..bias.len()]];
            conv.backward(s.ops, x, dy, dx, hidden, to, &mut self.taps);
        }
        norm_backward(s, &tape.before, &Some(norm.clone()), hidden, d, dh, grads);
    }
}

fn rms_norm(s: &Shared<'_>, norm: &Range<usize>, x: &[f32], out: &mut [f32]) {
    let gain = s.param(norm);
    for (x, out) in x.chunks_exact(gain.len()).zip(out.chunks_exact_mut(gain.len())) {
        s.ops.rms_norm(x, gain, s.config.rms_norm_eps, out);
    }
}
