//! Gradients through candle's autograd: any candle model, any device.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::VarBuilder;

use super::{Batch, Learner, Params, TrainError};
use crate::ModelConfig;
use crate::nn::CandleModel;

/// A candle model that can be trained: logits of a batch, with gradients to the variables that it was built from.
pub trait CandleLoss {
    /// Logits `[b, t, vocab]` f32 of `b` sequences of `t` tokens, `ids` `[b, t]` u32.
    ///
    /// # Errors
    /// Errors of candle.
    fn logits(&self, ids: &Tensor) -> candle_core::Result<Tensor>;
}

impl CandleLoss for CandleModel {
    fn logits(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        self.forward_batch(ids)
    }
}

/// Learns through candle's autograd. Slower than [`FusedLearner`](super::FusedLearner) on a CPU, but it works for every
/// model made of candle operations and for every device that candle supports; on CUDA it has not been tested.
#[derive(Debug)]
pub struct CandleLearner<M> {
    model: M,
    vars: Vec<(String, Var)>,
    device: Device,
}

impl CandleLearner<CandleModel> {
    /// A BitNet decoder on `device`.
    ///
    /// # Errors
    /// An invalid configuration; errors of candle.
    pub fn new(config: &ModelConfig, device: &Device) -> Result<Self, TrainError> {
        let params = Params::zeros(super::params::layout(config));
        Self::with_model(&params, device, |vb| Ok(CandleModel::new(config, vb)?))
    }
}

impl<M> CandleLearner<M> {
    /// A model that `make` builds from variables with the names and shapes of `params`.
    ///
    /// # Errors
    /// Errors of candle and of `make`.
    pub fn with_model(
        params: &Params,
        device: &Device,
        make: impl FnOnce(VarBuilder) -> Result<M, TrainError>,
    ) -> Result<Self, TrainError> {
        let mut vars = Vec::new();
        let mut tensors = HashMap::new();
        for e in &params.entries {
            let values = &params.values[e.range.clone()];
            let var = Var::from_tensor(&Tensor::from_slice(values, e.shape.as_slice(), device)?)?;
            tensors.insert(e.name.clone(), var.as_tensor().clone());
            vars.push((e.name.clone(), var));
        }
        let model = make(VarBuilder::from_tensors(tensors, DType::F32, device))?;
        Ok(Self { model, vars, device: device.clone() })
    }
}

impl<M: CandleLoss> CandleLearner<M> {
    /// Logits `[b t, vocab]` for `ids` `[b, t]`, text by text where windows hold several.
    fn logits(&self, batch: &Batch, ids: &Tensor) -> Result<Tensor, TrainError> {
        let mut parts = Vec::new();
        if (0..batch.b).all(|i| batch.texts(i).len() == 1) {
            parts.push(self.model.logits(&ids.contiguous()?)?.flatten(0, 1)?);
        } else {
            for i in 0..batch.b {
                let mut begin = 0;
                for len in batch.texts(i) {
                    let text = ids.narrow(0, i, 1)?.narrow(1, begin, len)?.contiguous()?;
                    parts.push(self.model.logits(&text)?.squeeze(0)?);
                    begin += len;
                }
            }
        }
        Ok(Tensor::cat(&parts, 0)?)
    }

    fn mean_loss(&mut self, params: &Params, batch: &Batch) -> Result<Tensor, TrainError> {
        for (name, var) in &self.vars {
            let e = params.entry(name)?;
            let values = &params.values[e.range.clone()];
            var.set(&Tensor::from_slice(values, e.shape.as_slice(), &self.device)?)?;
        }
        let (b, t) = (batch.b, batch.t);
        let ids = Tensor::from_slice(&batch.ids, (b, t + 1), &self.device)?;
        let targets = ids.narrow(1, 1, t)?.flatten_all()?.unsqueeze(1)?;
        let logits = self.logits(batch, &ids.narrow(1, 0, t)?)?;
        batch.check(logits.dim(1)?)?;
        let log_p = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
        let of_targets = log_p.gather(&targets, 1)?;
        let counts: Vec<f32> =
            (0..b).flat_map(|i| batch.targets(i)).map(|t| f32::from(u8::from(t.is_some()))).collect();
        let counts = Tensor::from_vec(counts, (b * t, 1), &self.device)?;
        Ok((of_targets * counts)?.sum_all()?.affine(-1.0 / batch.predictions() as f64, 0.0)?)
    }
}

impl<M: CandleLoss> Learner for CandleLearner<M> {
    fn loss(&mut self, params: &Params, batch: &Batch) -> Result<f64, TrainError> {
        Ok(f64::from(self.mean_loss(params, batch)?.to_scalar::<f32>()?))
    }

    fn accumulate(&mut self, params: &Params, batch: &Batch, grads: &mut [f32]) -> Result<f64, TrainError> {
        let loss = self.mean_loss(params, batch)?;
        let computed = loss.backward()?;
        for (name, var) in &self.vars {
            // A variable that does not affect the loss has no gradient.
            let Some(g) = computed.get(var) else { continue };
            let g = g.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            for (sum, g) in grads[params.entry(name)?.range.clone()].iter_mut().zip(g) {
                *sum += g;
            }
        }
        Ok(f64::from(loss.to_scalar::<f32>()?))
    }
}
