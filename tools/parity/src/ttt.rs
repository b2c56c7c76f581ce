//! `ttt/NAME`: the official TTT language model, in every form that this library computes.

mod hand;

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, VarBuilder, VarMap};
use ttt_layer::official::{Decoder, OfficialConfig, OfficialModel};
use ttt_layer::{FastWeights, Form, TttLayer, Views};

use crate::compare::{magnitude, max_abs};
use crate::files::{self, Tensors};
use crate::report::{Measured, Report};
use crate::{Options, ParityError, Sabotage};

/// Largest error of activations, logits, states and losses. The makers of the vectors measured 2e-5 between f32 and f64
/// and allow any f32 implementation ten times that.
const ABSOLUTE: f32 = 2e-4;
/// Largest error of a gradient, as a share of the tensor's largest.
const GRADIENT: f32 = 1e-3;

/// All rows of one configuration.
pub(crate) fn cases(fixtures: &Path, name: &str, options: &Options, report: &mut Report) {
    let case = format!("ttt/{name}");
    let dir = fixtures.join(&case);
    if !dir.is_dir() || !options.wants(&case) {
        return;
    }
    let model = match Reference::load(&dir, options.sabotage) {
        Ok(model) => model,
        Err(e) => return report.check(&format!("{case} load"), || Err(e)),
    };
    report.check(&format!("{case} logits, dual"), || model.logits(Form::Dual));
    report.check(&format!("{case} logits, primal"), || model.logits(Form::Primal));
    report.check(&format!("{case} inner loop, dual"), || model.inner(Form::Dual));
    report.check(&format!("{case} inner loop, primal"), || model.inner(Form::Primal));
    report.check(&format!("{case} logits, row-wise"), || model.rows());
    report.check(&format!("{case} states, row-wise"), || model.states());
    report.check(&format!("{case} gradients"), || model.gradients());
    report.check(&format!("{case} gradients by hand"), || model.gradients_by_hand());
}

/// A model and its expected results.
struct Reference {
    expected: Tensors,
    vars: VarMap,
    model: OfficialModel,
    ids: Vec<u32>,
}

/// Largest errors by name, all with the tolerance [`ABSOLUTE`].
#[derive(Default)]
struct Errors(Vec<(String, f32)>);

impl Errors {
    fn add(&mut self, what: &str, got: &[f32], expected: &[f32]) {
        let error = max_abs(got, expected);
        match self.0.iter_mut().find(|(name, _)| name == what) {
            Some((_, worst)) => *worst = worst.max(error),
            None => self.0.push((what.to_owned(), error)),
        }
    }

    fn measured(self, tolerance: f32) -> Measured {
        let pass = !self.0.is_empty() && self.0.iter().all(|(_, e)| *e <= tolerance);
        let detail = self.0.iter().map(|(name, e)| format!("{name} {e:.1e}")).collect::<Vec<_>>().join(", ");
        Measured { pass, detail: format!("{detail} (at most {tolerance:.0e})") }
    }
}

fn floats(x: &Tensor) -> Result<Vec<f32>, ParityError> {
    Ok(x.flatten_all()?.to_vec1()?)
}

impl Reference {
    fn load(dir: &Path, sabotage: Option<Sabotage>) -> Result<Self, ParityError> {
        let mut config = OfficialConfig::from_json(&files::read(&dir.join("config.json"))?)?;
        if sabotage == Some(Sabotage::InnerRate) {
            config.ttt_base_lr *= 1.1;
        }
        let vars = VarMap::new();
        let model = OfficialModel::new(&config, VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu))?;
        let weights = Tensors::load(&dir.join("model.safetensors"))?;
        // Every tensor of the file has its variable and the other way around, in the same shape.
        let lock = vars.data().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut names: Vec<&str> = lock.keys().map(String::as_str).collect();
        names.sort_unstable();
        if !names.iter().copied().eq(weights.names()) {
            return Err(files::json_error(dir, format!("tensors other than {names:?}")));
        }
        for (name, var) in lock.iter() {
            if sabotage == Some(Sabotage::TokenIndex) && name.ends_with("learnable_token_idx") {
                continue;
            }
            var.set(&Tensor::from_vec(weights.f32(name)?, weights.dims(name)?, &Device::Cpu)?)?;
        }
        drop(lock);
        let expected = Tensors::load(&dir.join("expected.safetensors"))?;
        let ids = expected.ids("input_ids")?;
        Ok(Self { expected, vars, model, ids })
    }

    fn input(&self) -> Result<Tensor, ParityError> {
        Ok(Tensor::from_slice(&self.ids, (1, self.ids.len()), &Device::Cpu)?)
    }

    fn logits(&self, form: Form) -> Result<Measured, ParityError> {
        let (logits, traces) = self.model.forward_traced(&self.input()?, form)?;
        let mut errors = Errors::default();
        errors.add("logits", &floats(&logits)?, &self.expected.f32("logits_full_f32")?);
        for (i, trace) in traces.iter().enumerate() {
            for (what, x) in [("ttt_in", &trace.ttt_in), ("ttt_out", &trace.ttt_out), ("out", &trace.out)] {
                errors.add(what, &floats(x)?, &self.expected.f32(&format!("trace.layer{i}.{what}"))?);
            }
        }
        Ok(errors.measured(ABSOLUTE))
    }

    fn layer(&self, index: usize) -> Result<&TttLayer<Linear>, ParityError> {
        let layer = self.model.ttt_layers().nth(index);
        layer.ok_or_else(|| ParityError::Missing { what: format!("layer {index}") })
    }

    /// Views, learning rates and position weights of layer 0 as computed here, and its inner loop given theirs.
    fn inner(&self, form: Form) -> Result<Measured, ParityError> {
        let layer = self.layer(0)?;
        let (_, traces) = self.model.forward_traced(&self.input()?, Form::Dual)?;
        let own = layer.views(&traces[0].ttt_in)?;
        let mut errors = Errors::default();
        let mut weights = layer.first_weights(1)?;
        let mut first = 0;
        for call in 0.. {
            let at = |what: &str| format!("inner0.call{call}.{what}");
            if !self.expected.has(&at("in.XQ")) {
                break;
            }
            let tensor = |what: &str| -> Result<Tensor, ParityError> {
                let name = at(what);
                Ok(Tensor::from_vec(self.expected.f32(&name)?, self.expected.dims(&name)?, &Device::Cpu)?)
            };
            // [h, mini-batches, n, d] to [1, h, tokens, d]
            let rows = |what: &str| -> Result<Tensor, ParityError> {
                let x = tensor(what)?;
                let (h, m, n, d) = x.dims4()?;
                Ok(x.reshape((1, h, m * n, d))?)
            };
            let lr = tensor("in.ttt_lr_eta")?;
            let (h, m, _, n) = lr.dims4()?;
            let views =
                Views { q: rows("in.XQ")?, k: rows("in.XK")?, v: rows("in.XV")?, lr: lr.reshape((1, h, m * n))? };
            for (what, ours, theirs) in
                [("q", &own.q, &views.q), ("k", &own.k, &views.k), ("v", &own.v, &views.v), ("lr", &own.lr, &views.lr)]
            {
                errors.add(what, &floats(&ours.narrow(2, first, m * n)?)?, &floats(theirs)?);
            }
            let t = layer.position_weights()?.narrow(0, 0, n)?.reshape((1, 1, n, 1))?.broadcast_as((h, m, n, 1))?;
            errors.add("t", &floats(&t)?, &self.expected.f32(&at("in.token_eta"))?);

            let (out, last) = layer.inner_loop(&views, &weights, form)?;
            let out = out.transpose(1, 2)?;
            errors.add("out", &floats(&out)?, &self.expected.f32(&at("out"))?);
            for ((name, _), w) in layer.config().inner_shapes().iter().zip(&last.0) {
                errors.add("weights", &floats(w)?, &self.expected.f32(&at(&format!("final.{name}_states")))?);
            }
            (weights, first) = (FastWeights(last.0), first + m * n);
        }
        Ok(errors.measured(ABSOLUTE))
    }

    /// Prefill of some tokens, then one at a time: close to the vectors, and the same bits in one call.
    fn rows(&self) -> Result<Measured, ParityError> {
        let decoder = Decoder::new(&self.model)?;
        let prefill = self.prefill()?;
        let mut state = decoder.start();
        let mut logits = decoder.push(&mut state, &self.ids[..prefill])?;
        for id in &self.ids[prefill..] {
            logits.extend(decoder.push(&mut state, &[*id])?);
        }
        let mut whole = decoder.start();
        let at_once = decoder.push(&mut whole, &self.ids)?;
        let same = logits.iter().zip(&at_once).all(|(a, b)| a.to_bits() == b.to_bits()) && state.layers == whole.layers;
        let mut errors = Errors::default();
        errors.add("decode", &logits, &self.expected.f32("logits_decode_f32")?);
        errors.add("at once", &at_once, &self.expected.f32("logits_full_f32")?);
        let mut measured = errors.measured(ABSOLUTE);
        measured.pass &= same;
        measured.detail += if same { "; the same bits" } else { "; decode and prefill differ" };
        Ok(measured)
    }

    fn prefill(&self) -> Result<usize, ParityError> {
        Ok(self.expected.ids("prefill_len")?[0] as usize)
    }

    /// Inner weights and pending gradients of all layers, after the prefill and at the end.
    fn states(&self) -> Result<Measured, ParityError> {
        let decoder = Decoder::new(&self.model)?;
        let mut state = decoder.start();
        let mut errors = Errors::default();
        let (prefill, decode) = self.ids.split_at(self.prefill()?);
        for (when, ids) in [("after_prefill", prefill), ("after_decode", decode)] {
            decoder.push(&mut state, ids)?;
            for (i, layer) in state.layers.iter().enumerate() {
                let shapes = layer.config().inner_shapes();
                for (part, (name, _)) in shapes.iter().enumerate() {
                    let heads = 0..layer.config().num_heads;
                    let weights: Vec<f32> = heads.clone().flat_map(|h| layer.weights(h)[part].to_vec()).collect();
                    let gradients: Vec<f32> = heads.flat_map(|h| layer.gradients(h)[part].clone()).collect();
                    let at = |kind: &str| self.expected.f32(&format!("state.{when}.layer{i}.{name}_{kind}"));
                    errors.add("weights", &weights, &at("states")?);
                    errors.add("gradients", &gradients, &at("grad")?);
                }
            }
        }
        Ok(errors.measured(ABSOLUTE))
    }

    /// Loss of the next token for logits `[1, T, V]`.
    fn loss(&self, logits: &Tensor) -> Result<Tensor, ParityError> {
        let tokens = self.ids.len();
        let targets = Tensor::from_slice(&self.ids[1..], tokens - 1, &Device::Cpu)?;
        Ok(candle_nn::loss::cross_entropy(&logits.squeeze(0)?.narrow(0, 0, tokens - 1)?, &targets)?)
    }

    /// Loss of the next token and its gradients.
    fn gradients(&self) -> Result<Measured, ParityError> {
        let loss = self.loss(&self.model.forward(&self.input()?)?)?;
        let loss_error = max_abs(&[loss.to_scalar()?], &self.expected.f32("loss")?);
        let grads = loss.backward()?;
        let lock = self.vars.data().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (mut count, mut worst) = (0, (0.0, String::new()));
        for (name, var) in lock.iter() {
            let key = format!("grad.{name}");
            if !self.expected.has(&key) {
                continue;
            }
            let want = self.expected.f32(&key)?;
            let got = grads.get(var).map_or(Ok(vec![0.0; want.len()]), floats)?;
            let error = max_abs(&got, &want) / magnitude(&want).max(f32::MIN_POSITIVE);
            count += 1;
            if error > worst.0 || error.is_nan() {
                worst = (error, name.clone());
            }
        }
        let pass = count > 0 && worst.0 <= GRADIENT && loss_error <= ABSOLUTE;
        let detail =
            format!("{count} tensors, worst {:.1e} of its largest ({}), loss {loss_error:.1e}", worst.0, worst.1);
        Ok(Measured { pass, detail })
    }
}
