//! Recurrent mixers while they are trained: each text of a batch is a sequence of its own, read forward and, turned
//! around, backward with parameters of its own (if the encoder reads in both directions). Gradients are those of
//! `ttt_layer`, run on each.

use std::ops::Range;

use ternary_kernels::Ops;
use ttt_layer::{
    DeltaInputs, DeltaParameters, DeltaTape, DeltaWorkspace, GatedDelta, InputGradients, Inputs, RowWise, Tape,
    TttParameters, Workspace,
};

use crate::ModelError;
use crate::encoder::{EncoderMixer, ExtractorConfig};

/// The name in files of the factor of decays of the gated delta rule, `-exp(A_log)`. Its logarithm is learned, so that
/// it stays below 0.
const DECAY: &str = "ssm_a";

/// The name of a tensor of a direction as a parameter.
pub(super) fn parameter_name(name: &'static str) -> &'static str {
    if name == DECAY { "ssm_a_log" } else { name }
}

/// The values in files for the parameters `values` of direction `d` of layer `l`.
pub(super) fn exported(config: &ExtractorConfig, l: usize, d: usize, values: &[f32]) -> Vec<f32> {
    let mut out = values.to_vec();
    let mut at = 0;
    for (name, shape) in config.direction_tensors(l, d) {
        let len: usize = shape.iter().product();
        if name == DECAY {
            out[at..at + len].iter_mut().for_each(|log| *log = -log.exp());
        }
        at += len;
    }
    out
}

/// A recurrence with the parameters of one step: forward, perhaps backward.
#[derive(Debug)]
pub(super) enum Rule {
    Ttt(Vec<RowWise>),
    Delta(Vec<GatedDelta>),
}

/// Of one text in one direction.
#[derive(Debug, Default)]
struct DirectionTape {
    ttt: Tape,
    delta: DeltaTape,
}

/// Buffers of the recurrences.
#[derive(Debug, Default)]
struct Work {
    ttt: Option<Workspace>,
    delta: Option<DeltaWorkspace>,
}

/// One text as a direction reads it.
#[derive(Clone, Copy)]
struct Text<'a> {
    /// The layer's input after its norm, `[words, hidden]`.
    x: &'a [f32],
    /// The products with its projections, `[words, columns]`.
    projected: &'a [f32],
    words: usize,
}

impl Rule {
    /// The recurrence of layer `l`, whose parameters lie at `places`; `None` for attention.
    ///
    /// # Errors
    /// A configuration or a length that cannot be.
    pub(super) fn new(
        config: &ExtractorConfig,
        l: usize,
        values: &[f32],
        places: &[Range<usize>; 2],
        ops: Ops,
    ) -> Result<Option<Self>, ModelError> {
        let places = places.iter().enumerate().take(config.directions.count());
        let directions = places.map(|(d, place)| exported(config, l, d, &values[place.clone()]));
        Ok(match config.mixer(l) {
            EncoderMixer::Attention => None,
            EncoderMixer::TttLinear => {
                let c = config.ttt_layer();
                let of = |values: Vec<f32>| -> Result<RowWise, ModelError> {
                    Ok(RowWise::with_ops(&c, &TttParameters::from_flat(&c, &values)?, ops)?)
                };
                Some(Self::Ttt(directions.map(of).collect::<Result<_, _>>()?))
            }
            EncoderMixer::GatedDelta => {
                let c = config.delta_layer();
                let of = |values: Vec<f32>| -> Result<GatedDelta, ModelError> {
                    Ok(GatedDelta::with_ops(&c, &DeltaParameters::from_flat(&c, &values)?, ops)?)
                };
                Some(Self::Delta(directions.map(of).collect::<Result<_, _>>()?))
            }
        })
    }

    fn ops(&self) -> Ops {
        match self {
            Self::Ttt(rows) => rows[0].ops(),
            Self::Delta(rules) => rules[0].ops(),
        }
    }

    /// Whether it reads backward, too.
    fn reads_backward(&self) -> bool {
        match self {
            Self::Ttt(rows) => rows.len() > 1,
            Self::Delta(rules) => rules.len() > 1,
        }
    }

    fn hidden(&self) -> usize {
        match self {
            Self::Ttt(rows) => rows[0].config().hidden_size,
            Self::Delta(rules) => rules[0].config().hidden_size,
        }
    }

    fn forward(&self, direction: usize, text: Text<'_>, out: &mut [f32], tape: &mut DirectionTape, work: &mut Work) {
        match self {
            Self::Ttt(rows) => {
                let (rows, c) = (&rows[direction], rows[direction].config());
                let work = work.ttt.get_or_insert_with(|| Workspace::new(c));
                let inputs = Inputs::side_by_side(c, text.x, text.projected);
                rows.forward_taped(&inputs, &[text.words], out, &mut tape.ttt, work);
            }
            Self::Delta(rules) => {
                let (rule, c) = (&rules[direction], rules[direction].config());
                let work = work.delta.get_or_insert_with(|| DeltaWorkspace::new(c));
                let inputs = DeltaInputs::side_by_side(c, text.x, text.projected);
                rule.forward_taped(&inputs, &[text.words], out, &mut tape.delta, work);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "operands, gradients and tape")]
    fn backward(
        &self,
        direction: usize,
        text: Text<'_>,
        dout: &[f32],
        tape: &mut DirectionTape,
        mut to: InputGradients<'_>,
        grads: &mut [f32],
        work: &mut Work,
    ) {
        match self {
            Self::Ttt(rows) => {
                let (rows, c) = (&rows[direction], rows[direction].config());
                let work = work.ttt.get_or_insert_with(|| Workspace::new(c));
                let inputs = Inputs::side_by_side(c, text.x, text.projected);
                rows.backward(&inputs, &[text.words], dout, &mut tape.ttt, &mut to, grads, work);
            }
            Self::Delta(rules) => {
                let (rule, c) = (&rules[direction], rules[direction].config());
                let work = work.delta.get_or_insert_with(|| DeltaWorkspace::new(c));
                let inputs = DeltaInputs::side_by_side(c, text.x, text.projected);
                rule.backward(&inputs, &[text.words], dout, &tape.delta, &mut to, grads, work);
            }
        }
    }

    /// Turns the gradient of what [`exported`] gives, which began as zeros, into that of the parameters.
    fn parameters_backward(&self, places: &[Range<usize>; 2], grads: &mut [f32]) {
        let Self::Delta(rules) = self else { return };
        for (rule, place) in rules.iter().zip(places) {
            let (c, decay) = (rule.config(), rule.decay());
            // Behind it lie the biases of decays and the gain of the norm.
            let end = place.end - c.value_heads - c.head_dim;
            for (d, decay) in grads[end - c.value_heads..end].iter_mut().zip(decay) {
                *d *= decay;
            }
        }
    }
}

/// Values of a layer's forward pass that the backward pass needs.
#[derive(Debug, Default)]
pub(super) struct RecurrentTape {
    /// The layer's input after its norm, `[n, hidden]`, as the texts stand and with each of them turned around.
    x: [Vec<f32>; 2],
    /// The products with its projections, each text turned around, `[n, columns]`.
    turned: Vec<f32>,
    /// Of each text and direction.
    tapes: Vec<[DirectionTape; 2]>,
}

/// Buffers for all layers.
#[derive(Debug, Default)]
pub(super) struct RecurrentRoom {
    work: Work,
    /// `[words of a text, hidden]`
    turned: Vec<f32>,
    /// Gradients of the projections and of the input of a text that was turned around.
    d_projected: Vec<f32>,
    d_x: Vec<f32>,
    /// Gradient of the layer's input as the recurrence reads it beside its projections, `[n, hidden]`.
    pub(super) d_input: Vec<f32>,
}

/// Copies rows of `width` in the opposite order.
fn turn(from: &[f32], width: usize, to: &mut [f32]) {
    for (from, to) in from.chunks_exact(width).rev().zip(to.chunks_exact_mut(width)) {
        to.copy_from_slice(from);
    }
}

/// Adds rows of `width` in the opposite order.
fn add_turned(ops: Ops, from: &[f32], width: usize, to: &mut [f32]) {
    for (from, to) in from.chunks_exact(width).rev().zip(to.chunks_exact_mut(width)) {
        ops.add_assign(to, from);
    }
}

impl RecurrentTape {
    /// Takes the layer's input: `normed` `[n, hidden]` and the products with its projections, `[n, columns]`.
    fn take(&mut self, normed: &[f32], projected: &[f32], texts: &[Range<usize>], hidden: usize) {
        let columns = projected.len() / (normed.len() / hidden).max(1);
        let [x, back] = &mut self.x;
        x.clear();
        x.extend_from_slice(normed);
        back.resize(normed.len(), 0.0);
        self.turned.resize(projected.len(), 0.0);
        for text in texts {
            for (from, to, width) in [(normed, &mut *back, hidden), (projected, &mut self.turned, columns)] {
                let r = text.start * width..text.end * width;
                turn(&from[r.clone()], width, &mut to[r]);
            }
        }
        if self.tapes.len() < texts.len() {
            self.tapes.resize_with(texts.len(), Default::default);
        }
    }
}

impl RecurrentRoom {
    /// The results of all directions for the texts at `texts`, added, into `out` `[n, hidden]`.
    pub(super) fn forward(
        &mut self,
        rule: &Rule,
        tape: &mut RecurrentTape,
        [normed, projected]: [&[f32]; 2],
        texts: &[Range<usize>],
        out: &mut [f32],
    ) {
        let hidden = rule.hidden();
        let columns = projected.len() / (normed.len() / hidden).max(1);
        tape.take(normed, projected, texts, hidden);
        for (text, [forward, backward]) in texts.iter().zip(&mut tape.tapes) {
            let (narrow, wide) = (text.start * hidden..text.end * hidden, text.start * columns..text.end * columns);
            let (out, words) = (&mut out[narrow.clone()], text.len());
            let read = Text { x: &tape.x[0][narrow.clone()], projected: &projected[wide.clone()], words };
            rule.forward(0, read, out, forward, &mut self.work);
            if !rule.reads_backward() {
                continue;
            }
            self.turned.resize(out.len(), 0.0);
            let read = Text { x: &tape.x[1][narrow], projected: &tape.turned[wide], words };
            rule.forward(1, read, &mut self.turned, backward, &mut self.work);
            add_turned(rule.ops(), &self.turned, hidden, out);
        }
    }

    /// Its gradients for `dout` `[n, hidden]`: written to `dprojected` `[n, columns]`, added to `grads` at `places`,
    /// where zeros are; what the layer's input gets besides is in `d_input`.
    #[expect(clippy::too_many_arguments, reason = "operands, gradients and tape")]
    pub(super) fn backward(
        &mut self,
        rule: &Rule,
        tape: &mut RecurrentTape,
        projected: &[f32],
        texts: &[Range<usize>],
        dout: &[f32],
        dprojected: &mut [f32],
        places: &[Range<usize>; 2],
        grads: &mut [f32],
    ) {
        let (ops, hidden) = (rule.ops(), rule.hidden());
        let columns = projected.len() / (dout.len() / hidden).max(1);
        self.d_input.clear();
        self.d_input.resize(dout.len(), 0.0);
        for (text, [forward, backward]) in texts.iter().zip(&mut tape.tapes) {
            let (narrow, wide) = (text.start * hidden..text.end * hidden, text.start * columns..text.end * columns);
            let (dout, dprojected) = (&dout[narrow.clone()], &mut dprojected[wide.clone()]);
            let (d_input, words) = (&mut self.d_input[narrow.clone()], text.len());
            let read = Text { x: &tape.x[0][narrow.clone()], projected: &projected[wide.clone()], words };
            let to = InputGradients { x: &mut *d_input, projected: &mut *dprojected };
            rule.backward(0, read, dout, forward, to, &mut grads[places[0].clone()], &mut self.work);
            if !rule.reads_backward() {
                continue;
            }

            self.turned.resize(dout.len(), 0.0);
            turn(dout, hidden, &mut self.turned);
            self.d_x.clear();
            self.d_x.resize(dout.len(), 0.0);
            self.d_projected.resize(wide.len(), 0.0);
            let read = Text { x: &tape.x[1][narrow], projected: &tape.turned[wide], words };
            let to = InputGradients { x: &mut self.d_x, projected: &mut self.d_projected };
            rule.backward(1, read, &self.turned, backward, to, &mut grads[places[1].clone()], &mut self.work);
            add_turned(ops, &self.d_x, hidden, d_input);
            add_turned(ops, &self.d_projected, columns, dprojected);
        }
        rule.parameters_backward(places, grads);
    }
}
