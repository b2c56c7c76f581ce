//! Layers of the gated delta rule in training: everything around the recurrence, which is [`ttt_layer::GatedDelta`]'s.

use std::ops::Range;

use ttt_layer::{DeltaInputs, DeltaTape as Inner, DeltaWorkspace, GatedDelta, InputGradients};

use super::Shared;
use super::forward::{sized, zeroed};

/// Values of one layer's forward pass that the backward pass needs.
#[derive(Debug, Default)]
pub(super) struct DeltaTape {
    /// The layer's input after its norm, `[n, hidden]`.
    x: Vec<f32>,
    inner: Inner,
}

/// Buffers of a worker.
#[derive(Debug, Default)]
pub(super) struct DeltaScratch {
    work: Option<DeltaWorkspace>,
    /// Gradient of the layer's input as decays and rates read it, `[n, hidden]`.
    d_input: Vec<f32>,
    /// Gradients of the factors of decays by what came before.
    before: Vec<f32>,
}

impl DeltaScratch {
    /// The layer over texts of these lengths: `h` is the residual stream before its norm, `projected` the products with
    /// its projections.
    #[expect(clippy::too_many_arguments, reason = "operands, result and tape")]
    pub(super) fn forward(
        &mut self,
        s: &Shared<'_>,
        rule: &GatedDelta,
        norm: &Option<Range<usize>>,
        texts: &[usize],
        [h, projected]: [&[f32]; 2],
        out: &mut [f32],
        tape: &mut DeltaTape,
    ) {
        let x = sized(&mut tape.x, h.len());
        match norm {
            Some(norm) => {
                let gain = s.param(norm);
                for (h, x) in h.chunks_exact(gain.len()).zip(x.chunks_exact_mut(gain.len())) {
                    s.ops.rms_norm(h, gain, s.config.rms_norm_eps, x);
                }
            }
            None => x.copy_from_slice(h),
        }
        let inputs = DeltaInputs::side_by_side(rule.config(), x, projected);
        let work = self.work.get_or_insert_with(|| DeltaWorkspace::new(rule.config()));
        rule.forward_taped(&inputs, texts, out, &mut tape.inner, work);
    }

    /// Gradients for `dout` `[n, w]`: written to `dprojected`, added to `grads` at `place`; what the layer's input gets
    /// besides is in [`DeltaScratch::d_input`]. Of the factors of decays, `-exp(A_log)`, the logarithm is learned.
    #[expect(clippy::too_many_arguments, reason = "operands, gradients and tape")]
    pub(super) fn backward(
        &mut self,
        rule: &GatedDelta,
        place: &Range<usize>,
        texts: &[usize],
        [projected, dout]: [&[f32]; 2],
        dprojected: &mut [f32],
        tape: &DeltaTape,
        grads: &mut [f32],
    ) {
        let c = rule.config();
        let inputs = DeltaInputs::side_by_side(c, &tape.x, projected);
        let mut to = InputGradients { x: zeroed(&mut self.d_input, tape.x.len()), projected: dprojected };
        let grads = &mut grads[place.clone()];
        let work = self.work.get_or_insert_with(|| DeltaWorkspace::new(c));
        // Behind them lie the biases of decays and the gain of the norm.
        let end = grads.len() - c.value_heads - c.head_dim;
        let decays = end - c.value_heads..end;
        self.before.clear();
        self.before.extend_from_slice(&grads[decays.clone()]);
        grads[decays.clone()].fill(0.0);
        rule.backward(&inputs, texts, dout, &tape.inner, &mut to, grads, work);
        for ((d, before), decay) in grads[decays].iter_mut().zip(&self.before).zip(rule.decay()) {
            *d = before + *d * decay;
        }
    }

    pub(super) fn d_input(&self) -> &[f32] {
        &self.d_input
    }
}
