//! Extractors made from a seed, for tests and measurements.

use half::f16;
use ternary_kernels::{Scales, TernaryMatrix};

use super::config::ExtractorConfig;
use super::mixer::direction_tensor_name;
use super::weights::{
    EncoderLayer, EncoderNorm, ExtractorWeights, FeatureTable, HeadTensor, TaskWeights, encoder_projection_shape,
};
use crate::{ModelError, Projection};

/// SplitMix64, begun from a seed and a name.
struct Numbers(u64);

impl Numbers {
    fn new(seed: u64, name: &str) -> Self {
        // FNV-1a of the name keeps the streams of two tensors apart.
        let h = name.bytes().fold(0xCBF2_9CE4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
        Self(h ^ seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Between `mean - half` and `mean + half`, in steps that f16 holds where the caller's numbers are powers of two.
    fn around(&mut self, mean: f32, half: f32) -> f32 {
        mean + half * ((self.next() >> 57) as f32 / 64.0 - 1.0)
    }

    fn floats(&mut self, len: usize, mean: f32, half: f32) -> Vec<f32> {
        (0..len).map(|_| self.around(mean, half)).collect()
    }
}

/// The floats of a recurrence in one direction: norms around 1, convolutions that see most of the word itself, decays
/// that keep a part of the state.
fn direction(config: &ExtractorConfig, layer: usize, d: usize, numbers: &dyn Fn(&str) -> Numbers) -> Vec<f32> {
    let of = |(name, shape): (&'static str, Vec<usize>)| {
        let len = shape.iter().product();
        let (mean, half) = match name {
            "ssm_a" => (-0.5, 0.25),
            _ if name.ends_with("norm.weight") => (1.0, 0.25),
            _ if name.contains("conv") && name.ends_with("weight") => (0.25, 0.5),
            _ => (0.0, 0.125),
        };
        numbers(&direction_tensor_name(layer, d, name)).floats(len, mean, half)
    };
    config.direction_tensors(layer, d).into_iter().flat_map(of).collect()
}

impl ExtractorWeights {
    /// An extractor of this shape from this seed: the same everywhere, with activations of the size that trained ones
    /// have.
    ///
    /// # Errors
    /// A configuration that [`ExtractorConfig::validate`] refuses.
    pub fn synthetic(config: ExtractorConfig, seed: u64) -> Result<Self, ModelError> {
        config.validate()?;
        let numbers = |name: &str| Numbers::new(seed, name);
        let (buckets, width) = (config.buckets, config.hidden_size);
        let mut codes = numbers("features.weight");
        let codes = (0..buckets * width).map(|_| ((codes.next() >> 56) as i8).max(-127)).collect();
        let mut scales = numbers("features.scale");
        let scales = (0..buckets).map(|_| f16::from_f32(scales.around(1.0 / 64.0, 1.0 / 128.0)).to_f32()).collect();
        let features = FeatureTable::new(buckets, width, codes, scales)?;
        let layer = |i: usize| -> Result<EncoderLayer, ModelError> {
            let norm = |which: EncoderNorm| {
                numbers(&format!("blk.{i}.{}", which.name())).floats(which.len(&config), 1.0, 0.25)
            };
            let matrix = |which: Projection| -> Result<TernaryMatrix, ModelError> {
                let (rows, cols) = encoder_projection_shape(&config, which);
                let mut next = numbers(&format!("blk.{i}.{}", which.name()));
                let trits: Vec<i8> = (0..rows * cols).map(|_| ((next.next() >> 32) % 3) as i8 - 1).collect();
                // The product of a row with an input of variance 1 has variance 1.
                Ok(TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor((1.5 / cols as f32).sqrt()))?)
            };
            let has = |which: Projection| config.mixer(i).projections().any(|(p, _)| p == which);
            let optional = |which: Projection| has(which).then(|| matrix(which)).transpose();
            Ok(EncoderLayer {
                attn_norm: norm(EncoderNorm::Attn),
                q: matrix(Projection::Q)?,
                k: optional(Projection::K)?,
                v: matrix(Projection::V)?,
                out_gate: optional(Projection::OutGate)?,
                directions: [0, 1].map(|d| direction(&config, i, d, &numbers)),
                attn_sub_norm: norm(EncoderNorm::AttnSub),
                o: matrix(Projection::O)?,
                ffn_norm: norm(EncoderNorm::Ffn),
                gate: matrix(Projection::Gate)?,
                up: matrix(Projection::Up)?,
                ffn_sub_norm: norm(EncoderNorm::FfnSub),
                down: matrix(Projection::Down)?,
            })
        };
        let layers = (0..config.num_layers).map(layer).collect::<Result<_, _>>()?;
        let head = |task: usize| {
            let task = &config.tasks[task];
            let tensor = |which: HeadTensor| {
                let half = match which {
                    HeadTensor::IntentWeight | HeadTensor::TagsWeight => 0.125,
                    HeadTensor::IntentBias | HeadTensor::TagsBias => 0.25,
                    HeadTensor::Transitions => 1.0,
                };
                numbers(&which.name(task)).floats(which.shape(&config, task).iter().product(), 0.0, half)
            };
            TaskWeights {
                intent_weight: tensor(HeadTensor::IntentWeight),
                intent_bias: tensor(HeadTensor::IntentBias),
                tags_weight: tensor(HeadTensor::TagsWeight),
                tags_bias: tensor(HeadTensor::TagsBias),
                transitions: tensor(HeadTensor::Transitions),
            }
        };
        let tasks = (0..config.tasks.len()).map(head).collect();
        let final_norm = numbers("output_norm").floats(width, 1.0, 0.25);
        Ok(Self { features, layers, final_norm, tasks, config })
    }
}
