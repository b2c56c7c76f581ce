//! The weights of an extractor.

use half::f16;
use ternary_kernels::{Scales, TernaryMatrix};

use super::config::{ExtractorConfig, TaskConfig};
use super::mixer::direction_tensor_name;
use crate::{ModelError, Projection};

/// The table whose rows add up to words: int8 codes with one scale per row.
///
/// A scale is an f16 in its values (stored as f32), so that every file format holds the same numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureTable {
    buckets: usize,
    width: usize,
    codes: Vec<i8>,
    scales: Vec<f32>,
}

impl FeatureTable {
    /// A table of these codes, `[buckets, width]` row-major, and scales, `[buckets]`; an element is `scale * code`.
    ///
    /// # Errors
    /// [`ModelError::TensorSize`] for a wrong length; [`ModelError::FeatureScale`] for a scale that is negative, not
    /// finite or no f16.
    pub fn new(buckets: usize, width: usize, codes: Vec<i8>, scales: Vec<f32>) -> Result<Self, ModelError> {
        let size = |tensor: &str, expected: usize, got: usize| {
            if expected == got { Ok(()) } else { Err(ModelError::TensorSize { tensor: tensor.into(), expected, got }) }
        };
        size("features.weight", buckets.saturating_mul(width), codes.len())?;
        size("features.scale", buckets, scales.len())?;
        let valid = |s: f32| s.is_finite() && s >= 0.0 && f16::from_f32(s).to_f32() == s;
        if let Some(row) = scales.iter().position(|s| !valid(*s)) {
            return Err(ModelError::FeatureScale { row, value: scales[row] });
        }
        Ok(Self { buckets, width, codes, scales })
    }

    /// The table nearest to `values`, `[buckets, width]` f32: the scale of a row is the f16 nearest to `max|w| /
    /// 127`, a code `round(w / scale)`, ties to even, within -127..=127. Rows too small for an f16 become zeros.
    ///
    /// # Errors
    /// [`ModelError::TensorSize`]; [`ModelError::NotFinite`]; [`ModelError::FeatureScale`] for a row too large for an
    /// f16.
    pub fn quantize(buckets: usize, width: usize, values: &[f32]) -> Result<Self, ModelError> {
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(ModelError::NotFinite { tensor: "features.weight".into(), index, value: values[index] });
        }
        let mut codes = Vec::with_capacity(values.len());
        let mut scales = Vec::with_capacity(buckets);
        for row in values.chunks(width.max(1)) {
            let max = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let scale = f16::from_f32(max / 127.0).to_f32();
            let code =
                |v: &f32| if scale == 0.0 { 0 } else { (v / scale).round_ties_even().clamp(-127.0, 127.0) as i8 };
            codes.extend(row.iter().map(code));
            scales.push(scale);
        }
        Self::new(buckets, width, codes, scales)
    }

    /// Rows.
    pub fn buckets(&self) -> usize {
        self.buckets
    }
    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.width
    }
    /// All codes, `[buckets, width]` row-major.
    pub fn codes(&self) -> &[i8] {
        &self.codes
    }
    /// The scales of all rows, `[buckets]`.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Codes, `[width]`, and scale of row `r`.
    ///
    /// # Panics
    /// If `r` is not below [`FeatureTable::buckets`].
    pub fn row(&self, r: usize) -> (&[i8], f32) {
        (&self.codes[r * self.width..(r + 1) * self.width], self.scales[r])
    }
}

/// Weights of one layer. Matrices are `[out, in]` with one scale, gains f32.
#[derive(Clone, Debug)]
pub struct EncoderLayer {
    /// Gain of the norm before q, k and v, `[hidden]`.
    pub attn_norm: Vec<f32>,
    /// Queries, and keys of TTT-Linear, `[hidden, hidden]`.
    pub q: TernaryMatrix,
    /// Keys, `[hidden, hidden]`; none in TTT-Linear.
    pub k: Option<TernaryMatrix>,
    /// Values, `[hidden, hidden]`.
    pub v: TernaryMatrix,
    /// Gate of what a recurrence found, `[hidden, hidden]`; none with attention.
    pub out_gate: Option<TernaryMatrix>,
    /// The full-precision parameters of a recurrence, forward and backward: the tensors of
    /// [`ExtractorConfig::direction_tensors`] one after the other; empty with attention, and where it does not read in
    /// that direction.
    pub directions: [Vec<f32>; 2],
    /// Gain of the norm before the output projection, `[hidden]`.
    pub attn_sub_norm: Vec<f32>,
    /// The output projection, `[hidden, hidden]`.
    pub o: TernaryMatrix,
    /// Gain of the norm before gate and up, `[hidden]`.
    pub ffn_norm: Vec<f32>,
    /// Gate, `[intermediate, hidden]`.
    pub gate: TernaryMatrix,
    /// Up, `[intermediate, hidden]`.
    pub up: TernaryMatrix,
    /// Gain of the norm before the down projection, `[intermediate]`.
    pub ffn_sub_norm: Vec<f32>,
    /// Down, `[hidden, intermediate]`.
    pub down: TernaryMatrix,
}

/// A norm of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EncoderNorm {
    /// Before q, k and v.
    Attn,
    /// Before the output projection.
    AttnSub,
    /// Before gate and up.
    Ffn,
    /// Before the down projection.
    FfnSub,
}

impl EncoderNorm {
    /// All of them, in the order of a layer.
    pub const ALL: [Self; 4] = [Self::Attn, Self::AttnSub, Self::Ffn, Self::FfnSub];

    /// The name in tensors: `attn_norm` ...
    pub fn name(self) -> &'static str {
        match self {
            Self::Attn => "attn_norm",
            Self::AttnSub => "attn_sub_norm",
            Self::Ffn => "ffn_norm",
            Self::FfnSub => "ffn_sub_norm",
        }
    }

    /// Elements.
    pub fn len(self, config: &ExtractorConfig) -> usize {
        match self {
            Self::Attn | Self::AttnSub | Self::Ffn => config.hidden_size,
            Self::FfnSub => config.intermediate_size,
        }
    }
}

/// The shape `[out, in]` of one of the projections of a layer.
pub fn encoder_projection_shape(config: &ExtractorConfig, which: Projection) -> (usize, usize) {
    let (h, f) = (config.hidden_size, config.intermediate_size);
    match which {
        Projection::Gate | Projection::Up => (f, h),
        Projection::Down => (h, f),
        Projection::Q | Projection::K | Projection::V | Projection::OutGate | Projection::O => (h, h),
        Projection::Qkv => (0, 0),
    }
}

impl EncoderLayer {
    /// The projections that are there, in the order of a layer.
    pub fn projections(&self) -> impl Iterator<Item = (Projection, &TernaryMatrix)> {
        let Self { q, k, v, out_gate, o, gate, up, down, .. } = self;
        let all = [
            (Projection::Q, Some(q)),
            (Projection::K, k.as_ref()),
            (Projection::V, Some(v)),
            (Projection::OutGate, out_gate.as_ref()),
            (Projection::O, Some(o)),
            (Projection::Gate, Some(gate)),
            (Projection::Up, Some(up)),
            (Projection::Down, Some(down)),
        ];
        all.into_iter().filter_map(|(which, matrix)| Some((which, matrix?)))
    }

    /// The gain of a norm.
    pub fn norm(&self, which: EncoderNorm) -> &[f32] {
        match which {
            EncoderNorm::Attn => &self.attn_norm,
            EncoderNorm::AttnSub => &self.attn_sub_norm,
            EncoderNorm::Ffn => &self.ffn_norm,
            EncoderNorm::FfnSub => &self.ffn_sub_norm,
        }
    }
}

/// The heads of one task, all f32 and row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskWeights {
    /// `[intents, 3 * hidden]`, on mean and largest value of the last hidden states and the mean of the word vectors.
    pub intent_weight: Vec<f32>,
    /// `[intents]`
    pub intent_bias: Vec<f32>,
    /// `[tags, 2 * hidden]`, on the last hidden state and the vector of a word; empty without slots.
    pub tags_weight: Vec<f32>,
    /// `[tags]`; empty without slots.
    pub tags_bias: Vec<f32>,
    /// `[tags + 2, tags]`: from each tag to each; then the scores of beginning with a tag, then those of ending with
    /// one. Elements of impossible pairs are not read. Empty without slots.
    pub transitions: Vec<f32>,
}

/// A tensor of the heads of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeadTensor {
    /// [`TaskWeights::intent_weight`]
    IntentWeight,
    /// [`TaskWeights::intent_bias`]
    IntentBias,
    /// [`TaskWeights::tags_weight`]
    TagsWeight,
    /// [`TaskWeights::tags_bias`]
    TagsBias,
    /// [`TaskWeights::transitions`]
    Transitions,
}

impl HeadTensor {
    /// All of them, in the order of files.
    pub const ALL: [Self; 5] =
        [Self::IntentWeight, Self::IntentBias, Self::TagsWeight, Self::TagsBias, Self::Transitions];

    /// The tensors that a task has: those of tags only if it has slots.
    pub fn of(task: &TaskConfig) -> impl Iterator<Item = Self> + use<> {
        let tags = task.tags() > 0;
        Self::ALL.into_iter().filter(move |t| tags || matches!(t, Self::IntentWeight | Self::IntentBias))
    }

    /// The name in files.
    ///
    /// ```
    /// use bitnet_model::encoder::{HeadTensor, TaskConfig};
    /// let task = TaskConfig::new("home", vec!["light".into()], vec![]);
    /// assert_eq!(HeadTensor::IntentBias.name(&task), "task.home.intent.bias");
    /// ```
    pub fn name(self, task: &TaskConfig) -> String {
        let end = match self {
            Self::IntentWeight => "intent.weight",
            Self::IntentBias => "intent.bias",
            Self::TagsWeight => "tags.weight",
            Self::TagsBias => "tags.bias",
            Self::Transitions => "transitions",
        };
        format!("task.{}.{end}", task.name)
    }

    /// The shape, row-major: one or two dimensions.
    pub fn shape(self, config: &ExtractorConfig, task: &TaskConfig) -> Vec<usize> {
        let (intents, tags) = (task.intents.len(), task.tags());
        match self {
            Self::IntentWeight => vec![intents, config.pooled_size()],
            Self::IntentBias => vec![intents],
            Self::TagsWeight => vec![tags, config.tag_input_size()],
            Self::TagsBias => vec![tags],
            Self::Transitions if tags == 0 => vec![0, 0],
            Self::Transitions => vec![tags + 2, tags],
        }
    }
}

impl TaskWeights {
    /// One of the tensors.
    pub fn tensor(&self, which: HeadTensor) -> &[f32] {
        match which {
            HeadTensor::IntentWeight => &self.intent_weight,
            HeadTensor::IntentBias => &self.intent_bias,
            HeadTensor::TagsWeight => &self.tags_weight,
            HeadTensor::TagsBias => &self.tags_bias,
            HeadTensor::Transitions => &self.transitions,
        }
    }
}

/// All weights of an extractor. [`ExtractorWeights::check`] checks that they belong together.
#[derive(Clone, Debug)]
pub struct ExtractorWeights {
    /// Shape, formulas and tasks.
    pub config: ExtractorConfig,
    /// The rows that words are made of, `[buckets, hidden]`.
    pub features: FeatureTable,
    /// The layers.
    pub layers: Vec<EncoderLayer>,
    /// Gain of the norm after the last layer, `[hidden]`.
    pub final_norm: Vec<f32>,
    /// The heads, in the order of the configuration's tasks.
    pub tasks: Vec<TaskWeights>,
}

impl ExtractorWeights {
    /// Checks the configuration, all shapes, and that all floats are finite.
    ///
    /// # Errors
    /// [`ModelError::Config`], [`ModelError::ProjectionShape`], [`ModelError::TensorSize`], [`ModelError::NotFinite`],
    /// [`ModelError::EncoderScales`] for a matrix with more than one scale.
    pub fn check(&self) -> Result<(), ModelError> {
        let c = &self.config;
        c.validate()?;
        let size = |tensor: &dyn Fn() -> String, expected: usize, got: usize| {
            if expected == got { Ok(()) } else { Err(ModelError::TensorSize { tensor: tensor(), expected, got }) }
        };
        let floats = |tensor: &dyn Fn() -> String, expected: usize, values: &[f32]| {
            size(tensor, expected, values.len())?;
            match values.iter().position(|v| !v.is_finite()) {
                None => Ok(()),
                Some(index) => Err(ModelError::NotFinite { tensor: tensor(), index, value: values[index] }),
            }
        };
        size(&|| "rows of features.weight".into(), c.buckets, self.features.buckets())?;
        size(&|| "columns of features.weight".into(), c.hidden_size, self.features.width())?;
        size(&|| "layers".into(), c.num_layers, self.layers.len())?;
        size(&|| "heads of tasks".into(), c.tasks.len(), self.tasks.len())?;
        for (i, layer) in self.layers.iter().enumerate() {
            for which in EncoderNorm::ALL {
                floats(&|| format!("blk.{i}.{}.weight", which.name()), which.len(c), layer.norm(which))?;
            }
            for projection in Projection::ALL {
                // One that is missing, or that the mixer does not have, is a matrix without elements.
                let asked = c.mixer(i).projections().any(|(which, _)| which == projection);
                let expected = if asked { encoder_projection_shape(c, projection) } else { (0, 0) };
                let found = layer.projections().find(|(which, _)| *which == projection);
                let got = found.map_or((0, 0), |(_, w)| (w.rows(), w.cols()));
                if expected != got {
                    return Err(ModelError::ProjectionShape { layer: i, projection, expected, got });
                }
                if found.is_some_and(|(_, w)| !matches!(w.scales(), Scales::Tensor(_))) {
                    return Err(ModelError::EncoderScales { layer: i, projection });
                }
            }
            for (d, mut rest) in layer.directions.iter().map(Vec::as_slice).enumerate() {
                let tensors = c.direction_tensors(i, d);
                let expected = tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
                size(&|| direction_tensor_name(i, d, "*"), expected, rest.len())?;
                for (name, shape) in &tensors {
                    let (values, more) = rest.split_at(shape.iter().product());
                    floats(&|| direction_tensor_name(i, d, name), values.len(), values)?;
                    rest = more;
                }
            }
        }
        floats(&|| "output_norm.weight".into(), c.hidden_size, &self.final_norm)?;
        for (task, weights) in c.tasks.iter().zip(&self.tasks) {
            for which in HeadTensor::ALL {
                let expected = which.shape(c, task).iter().product();
                floats(&|| which.name(task), expected, weights.tensor(which))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_features_are_as_near_as_int8_is() {
        let values: Vec<f32> =
            (0..96).map(|i| if i < 64 { (i as f32 * 0.37).sin() * (1 + i / 32) as f32 } else { 0.0 }).collect();
        let table = FeatureTable::quantize(3, 32, &values).unwrap();
        for (r, row) in values.chunks(32).enumerate() {
            let (codes, scale) = table.row(r);
            // Half a step by rounding; the f16 scale is off by 2^-11, which moves codes of 127 by 0.06 steps at most.
            assert!(row.iter().zip(codes).all(|(w, c)| (w - scale * f32::from(*c)).abs() <= 0.57 * scale));
        }
        assert_eq!(table.scales()[2], 0.0);
    }

    #[test]
    fn bad_tables_are_refused() {
        let table = |len: usize, scales: Vec<f32>| FeatureTable::new(2, 32, vec![1; len], scales);
        assert!(table(64, vec![0.5, 1.0]).is_ok());
        assert!(matches!(table(63, vec![0.5, 1.0]), Err(ModelError::TensorSize { .. })));
        assert!(matches!(table(64, vec![0.5]), Err(ModelError::TensorSize { .. })));
        for bad in [f32::NAN, f32::INFINITY, -1.0, 0.1, 1e6, 1e-12] {
            assert!(matches!(table(64, vec![0.5, bad]), Err(ModelError::FeatureScale { row: 1, .. })), "{bad}");
        }
        let infinite = FeatureTable::quantize(1, 2, &[1.0, f32::INFINITY]);
        assert!(matches!(infinite, Err(ModelError::NotFinite { index: 1, .. })));
        assert!(matches!(FeatureTable::quantize(1, 1, &[1e9]), Err(ModelError::FeatureScale { row: 0, .. })));
        assert!(matches!(FeatureTable::quantize(2, 2, &[1.0; 3]), Err(ModelError::TensorSize { .. })));
    }
}
