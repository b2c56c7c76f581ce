//! Where parameters lie, and their ternary form of one step.

use std::ops::Range;

use ternary_kernels::{Kernel, Ops, Packed, Scales, TernaryMatrix};

use crate::config::{InputForm, ModelConfig, Norm, Projection};
use crate::train::params::{EMBEDDING, HEAD, projection_name};
use crate::train::{Params, TrainError};

/// Projections that share an input, in the order of the parameters.
pub(super) const GROUPS: [&[Projection]; 4] = [
    &[Projection::Q, Projection::K, Projection::V],
    &[Projection::O],
    &[Projection::Gate, Projection::Up],
    &[Projection::Down],
];

/// Where the parameters of one layer lie.
#[derive(Clone, Debug)]
pub(super) struct LayerPlaces {
    /// The projections of each of the [`GROUPS`], one after the other.
    pub(super) groups: [Range<usize>; 4],
    /// The norm before each of the [`GROUPS`].
    pub(super) norms: [Option<Range<usize>>; 4],
}

/// Where all parameters lie.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) embedding: Range<usize>,
    pub(super) head: Range<usize>,
    pub(super) final_norm: Range<usize>,
    pub(super) layers: Vec<LayerPlaces>,
    pub(super) len: usize,
}

impl Places {
    pub(super) fn new(c: &ModelConfig) -> Result<Self, TrainError> {
        let params = Params::zeros(crate::train::params::layout(c));
        let place = |name: &str| params.entry(name).map(|e| e.range.clone());
        let mut layers = Vec::with_capacity(c.num_hidden_layers);
        for l in 0..c.num_hidden_layers {
            let group = |g: &[Projection]| -> Result<Range<usize>, TrainError> {
                let (first, last) =
                    (place(&projection_name(c, l, g[0]))?, place(&projection_name(c, l, g[g.len() - 1]))?);
                Ok(first.start..last.end)
            };
            let norm = |n: Norm| place(&c.norm_name(n)).map(Some);
            let sub = |n: Norm| if c.sub_norms { norm(n) } else { Ok(None) };
            layers.push(LayerPlaces {
                groups: [group(GROUPS[0])?, group(GROUPS[1])?, group(GROUPS[2])?, group(GROUPS[3])?],
                norms: [
                    norm(Norm::Input(l))?,
                    sub(Norm::AttnSub(l))?,
                    norm(Norm::PostAttention(l))?,
                    sub(Norm::FfnSub(l))?,
                ],
            });
        }
        let embedding = place(EMBEDDING)?;
        let head = if c.tie_word_embeddings { embedding.clone() } else { place(HEAD)? };
        Ok(Self { embedding, head, final_norm: place(&c.norm_name(Norm::Final))?, layers, len: params.values.len() })
    }
}

/// Projections that share an input, quantised.
#[derive(Debug)]
pub(super) struct Linear {
    /// For the forward pass: weights, scale, output features.
    pub(super) parts: Vec<(Packed, f32, usize)>,
    /// For the backward pass: `alpha T`, `[out, k]`.
    pub(super) wide: Vec<f32>,
    /// Output features of all parts.
    pub(super) out: usize,
    /// Input features.
    pub(super) k: usize,
    /// How the input becomes codes.
    pub(super) form: InputForm,
}

/// All projections, quantised.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) layers: Vec<[Linear; 4]>,
    of: Vec<f32>,
}

impl Prepared {
    /// Quantises all projections, with `threads` threads.
    pub(super) fn new(
        config: &ModelConfig,
        kernel: &dyn Kernel,
        ops: Ops,
        places: &Places,
        params: &Params,
        threads: usize,
    ) -> Result<Self, TrainError> {
        let layer = |l: &LayerPlaces| -> Result<[Linear; 4], TrainError> {
            let group = |g: usize| linear(config, kernel, ops, GROUPS[g], &params.values[l.groups[g].clone()]);
            Ok([group(0)?, group(1)?, group(2)?, group(3)?])
        };
        let share = places.layers.len().div_ceil(threads);
        let parts: Vec<Result<Vec<[Linear; 4]>, TrainError>> = std::thread::scope(|scope| {
            let layer = &layer;
            let handles: Vec<_> = places
                .layers
                .chunks(share)
                .map(|layers| scope.spawn(move || layers.iter().map(layer).collect()))
                .collect();
            handles.into_iter().map(|h| h.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
        });
        let mut layers = Vec::with_capacity(places.layers.len());
        for part in parts {
            layers.extend(part?);
        }
        Ok(Self { layers, of: params.values.clone() })
    }

    /// Whether these are the weights of `params`.
    pub(super) fn is_of(&self, params: &Params) -> bool {
        self.of == params.values
    }
}

fn linear(
    config: &ModelConfig,
    kernel: &dyn Kernel,
    ops: Ops,
    group: &[Projection],
    masters: &[f32],
) -> Result<Linear, TrainError> {
    let mut parts = Vec::with_capacity(group.len());
    let mut wide = vec![0.0; masters.len()];
    let (mut at, mut out, mut k) = (0, 0, 0);
    for &p in group {
        let (rows, cols) = config.projection_shape(0, p);
        let range = at..at + rows * cols;
        let w = &masters[range.clone()];
        let mean = w.iter().map(|v| f64::from(v.abs())).sum::<f64>() / w.len() as f64;
        if let Some(index) = w.iter().position(|v| !v.is_finite()).filter(|_| !mean.is_finite()) {
            return Err(crate::ModelError::NotFinite { tensor: p.name().into(), index, value: w[index] }.into());
        }
        let alpha = (mean as f32).max(1e-5);
        let mut trits = vec![0i8; rows * cols];
        ops.ternarize(w, alpha, &mut trits, &mut wide[range]);
        let matrix = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(alpha))?;
        parts.push((kernel.prepack(&matrix)?, alpha, rows));
        at += rows * cols;
        out += rows;
        k = cols;
    }
    Ok(Linear { parts, wide, out, k, form: config.input_form(group[0]) })
}
