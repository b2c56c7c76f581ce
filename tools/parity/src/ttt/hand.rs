//! Gradients of the first TTT layer, written by hand, against those of the official code.
//!
//! candle's autograd takes the gradient of the loss back to the output of the layer, as the gradient of zeros that are
//! added there; before it, [`RowWise::backward`] takes over, with products for the projections.

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::Module;
use ttt_layer::{InputGradients, Inputs, Projection, RowWise, Tape, TttParameters, Workspace};

use super::{GRADIENT, Reference, floats};
use crate::ParityError;
use crate::compare::{magnitude, max_abs};
use crate::report::Measured;

impl Reference {
    pub(super) fn gradients_by_hand(&self) -> Result<Measured, ParityError> {
        let (layer, tokens) = (self.layer(0)?, self.ids.len());
        let (c, p) = (layer.config(), layer.projections());
        let (w, hidden) = (c.width(), c.hidden_size);
        let x = self.model.forward_traced(&self.input()?, ttt_layer::Form::Dual)?.1[0].ttt_in.squeeze(0)?;
        let shift = Var::zeros((1, tokens, hidden), DType::F32, &Device::Cpu)?;
        let grads = self.loss(&self.model.forward_shifted(&self.input()?, &shift)?)?.backward()?;
        let missing = || ParityError::Missing { what: "the gradient of the layer's output".into() };
        let dy = grads.get(&shift).ok_or_else(missing)?.squeeze(0)?;

        let all = [Some(&p.q), p.k.as_ref(), Some(&p.v), p.gate.as_ref()];
        let products = all.into_iter().flatten().map(|l| l.forward(&x)).collect::<Result<Vec<_>, _>>()?;
        let projected = floats(&Tensor::cat(&products, 1)?)?;
        let dout = floats(&dy.matmul(p.o.weight())?)?;
        let parameters = layer.parameters()?;
        let rows = RowWise::new(c, &parameters)?;
        let x_rows = floats(&x)?;
        let inputs = Inputs::side_by_side(c, &x_rows, &projected);
        let (mut out, mut tape, mut work) = (vec![0.0; tokens * w], Tape::default(), Workspace::new(c));
        rows.forward_taped(&inputs, &[tokens], &mut out, &mut tape, &mut work);
        let (mut dx, mut dprojected) = (vec![0.0; tokens * hidden], vec![0.0; projected.len()]);
        let mut own = vec![0.0; numbers(&parameters)];
        let mut to = InputGradients { x: &mut dx, projected: &mut dprojected };
        rows.backward(&inputs, &[tokens], &dout, &mut tape, &mut to, &mut own, &mut work);

        let mut named: Vec<(String, Vec<f32>)> = Vec::new();
        let dprojected = Tensor::from_vec(dprojected, (tokens, products.len() * w), &Device::Cpu)?;
        for (i, q) in Projection::of(c).filter(|q| *q != Projection::O).enumerate() {
            let of_weight = dprojected.narrow(1, i * w, w)?.t()?.contiguous()?.matmul(&x)?;
            named.push((format!("{}.weight", q.name()), floats(&of_weight)?));
        }
        let out = Tensor::from_vec(out, (tokens, w), &Device::Cpu)?;
        named.push((format!("{}.weight", Projection::O.name()), floats(&dy.t()?.contiguous()?.matmul(&out)?)?));
        let g = TttParameters::from_flat(c, &own)?;
        for ((name, _), g) in c.inner_shapes().into_iter().zip(g.inner) {
            named.push((name.to_owned(), g));
        }
        for (name, g) in [
            ("learnable_ttt_lr_weight", g.lr_weight),
            ("learnable_ttt_lr_bias", g.lr_bias),
            ("learnable_token_idx", g.token_idx),
            ("ttt_norm_weight", g.norm_weight),
            ("ttt_norm_bias", g.norm_bias),
            ("post_norm.weight", g.post_norm_weight),
            ("post_norm.bias", g.post_norm_bias),
        ] {
            named.push((name.to_owned(), g));
        }
        for (conv, name) in g.convs.into_iter().flatten().zip(["conv_q", "conv_k"]) {
            named.extend([(format!("{name}.weight"), conv.weight), (format!("{name}.bias"), conv.bias)]);
        }
        let mut worst = (0.0, String::new());
        for (name, got) in &named {
            let want = self.expected.f32(&format!("grad.model.layers.0.seq_modeling_block.{name}"))?;
            let error = max_abs(got, &want) / magnitude(&want).max(f32::MIN_POSITIVE);
            if error > worst.0 || error.is_nan() {
                worst = (error, name.clone());
            }
        }
        let pass = worst.0 <= GRADIENT;
        let detail = format!("{} tensors, worst {:.1e} of its largest ({})", named.len(), worst.0, worst.1);
        Ok(Measured { pass, detail })
    }
}

/// How many numbers a layer has learnt without its projections.
fn numbers(p: &TttParameters) -> usize {
    let own =
        [&p.lr_weight, &p.lr_bias, &p.token_idx, &p.norm_weight, &p.norm_bias, &p.post_norm_weight, &p.post_norm_bias];
    let convs = p.convs.iter().flatten().map(|c| c.weight.len() + c.bias.len());
    p.inner.iter().chain(own).map(Vec::len).sum::<usize>() + convs.sum::<usize>()
}
