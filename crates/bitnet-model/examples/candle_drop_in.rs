//! Your own candle model with ternary layers: replace `candle_nn::linear_no_bias` by `bit_linear`, train as before,
//! then freeze the layers into ternary weights that compute the same.
//!
//! Run with `cargo run -p bitnet-model --example candle_drop_in`.

use bitnet_model::nn::{BitLinear, RmsNorm, bit_linear, rms_norm};
use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{AdamW, Linear, Module, Optimizer, VarBuilder, VarMap, linear};

/// Two ternary layers, each after a norm, and a float head.
struct Mlp {
    norm1: RmsNorm,
    fc1: BitLinear,
    norm2: RmsNorm,
    fc2: BitLinear,
    head: Linear,
}

impl Mlp {
    fn new(vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            norm1: rms_norm(16, 1e-5, vb.pp("norm1"))?,
            fc1: bit_linear(16, 64, vb.pp("fc1"))?, // was: linear_no_bias(16, 64, vb.pp("fc1"))?
            norm2: rms_norm(64, 1e-5, vb.pp("norm2"))?,
            fc2: bit_linear(64, 64, vb.pp("fc2"))?,
            head: linear(64, 3, vb.pp("head"))?,
        })
    }

    /// The same model with its ternary weights fixed, as it would be shipped.
    fn freeze(self, device: &Device) -> std::result::Result<Self, bitnet_model::ModelError> {
        let frozen =
            |l: &BitLinear| Ok::<_, bitnet_model::ModelError>(BitLinear::from_ternary(&l.to_ternary()?, device)?);
        Ok(Self { fc1: frozen(&self.fc1)?, fc2: frozen(&self.fc2)?, ..self })
    }
}

impl Module for Mlp {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let h = self.fc1.forward(&self.norm1.forward(x)?)?.relu()?;
        let h = self.fc2.forward(&self.norm2.forward(&h)?)?.relu()?;
        self.head.forward(&h)
    }
}

/// Points around three centres, and the centre of each.
fn data(device: &Device) -> Result<(Tensor, Tensor)> {
    let labels: Vec<u32> = (0..192).map(|i| i % 3).collect();
    let point = |(i, &label): (usize, &u32)| {
        (0..16).map(move |j| ((label * 5 + 1) as f32 * j as f32).sin() + ((i * 31 + j * 17) as f32).sin() * 0.8)
    };
    let points: Vec<f32> = labels.iter().enumerate().flat_map(point).collect();
    Ok((Tensor::from_vec(points, (192, 16), device)?, Tensor::from_vec(labels, 192, device)?))
}

fn accuracy(model: &Mlp, x: &Tensor, labels: &Tensor) -> Result<f32> {
    model.forward(x)?.argmax(D::Minus1)?.eq(labels)?.to_dtype(DType::F32)?.mean_all()?.to_scalar()
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let device = Device::Cpu;
    let vars = VarMap::new();
    let model = Mlp::new(VarBuilder::from_varmap(&vars, DType::F32, &device))?;
    let (x, labels) = data(&device)?;
    let mut optimizer = AdamW::new_lr(vars.all_vars(), 5e-3)?;
    for step in 0..=60 {
        let loss = candle_nn::loss::cross_entropy(&model.forward(&x)?, &labels)?;
        if step % 20 == 0 {
            println!(
                "step {step:2}: loss {:.3}, accuracy {:.2}",
                loss.to_scalar::<f32>()?,
                accuracy(&model, &x, &labels)?
            );
        }
        optimizer.backward_step(&loss)?;
    }
    let trained = model.forward(&x)?;
    let model = model.freeze(&device)?;
    let same = model.forward(&x)?.eq(&trained)?.to_dtype(DType::F32)?.min_all()?.to_scalar::<f32>()? == 1.0;
    println!("frozen: accuracy {:.2}, outputs identical: {same}", accuracy(&model, &x, &labels)?);
    assert!(same && accuracy(&model, &x, &labels)? > 0.95);
    Ok(())
}
