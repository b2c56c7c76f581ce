//! Places of parameters, and their ternary form for one step.

use std::ops::Range;

use half::f16;
use ternary_kernels::quantize::{absmean, group_scale, scales_of_groups, weight_scale};
use ternary_kernels::{GroupKernel, GroupPacked, Kernel, Ops, Packed, Scales, TernaryMatrix};
use ttt_layer::{ConvParameters, ConvRows, DeltaParameters, GatedDelta, RowWise, TttParameters};

use crate::config::{DeltaTensor, InputForm, Mixer, ModelConfig, Norm, Projection, TttTensor};
use crate::train::export::decay_factor;
use crate::train::params::{EMBEDDING, HEAD, Role};
use crate::train::{Params, TrainError};

/// The projections of a layer that share an input: those of the mixer, its output, gate and up, down.
fn groups(c: &ModelConfig, l: usize) -> [Vec<Projection>; 4] {
    let mixer = c.layer_projections(l).filter(|p| !p.in_feed_forward() && *p != Projection::O).collect();
    [mixer, vec![Projection::O], vec![Projection::Gate, Projection::Up], vec![Projection::Down]]
}

/// Places of the parameters of one layer.
#[derive(Clone, Debug)]
pub(super) struct LayerPlaces {
    /// The projections of each of the [`groups`], one after the other.
    pub(super) groups: [Range<usize>; 4],
    /// The norm before each of the [`groups`].
    pub(super) norms: [Option<Range<usize>>; 4],
    /// The norms of the heads of q and of k.
    pub(super) head_norms: Option<[Range<usize>; 2]>,
    /// Parameters of a test-time-training layer besides its projections.
    pub(super) ttt: Option<TttPlaces>,
    /// Parameters of a layer of the gated delta rule beside its projections, in the order of
    /// [`ttt_layer::DeltaParameters`].
    pub(super) delta: Option<Range<usize>>,
}

/// Places of the full-precision parameters of a test-time-training layer.
#[derive(Clone, Debug)]
pub(super) struct TttPlaces {
    /// The parameters of [`ttt_layer::TttParameters`], in their order.
    pub(super) layer: Range<usize>,
    /// Norm, weight and bias of the convolution before the layer.
    pub(super) pre_conv: Option<[Range<usize>; 3]>,
}

/// Places of all parameters.
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
        let norm = |n: Norm| place(&c.norm_name(n));
        let mut layers = Vec::with_capacity(c.num_hidden_layers);
        for l in 0..c.num_hidden_layers {
            let [a, b, d, e] = groups(c, l).map(|group| -> Result<Range<usize>, TrainError> {
                let of = |p: Projection| place(&format!("{}.weight", c.projection_name(l, p)));
                Ok(of(group[0])?.start..of(group[group.len() - 1])?.end)
            });
            let sub = |n: Norm| if c.sub_norms { norm(n).map(Some) } else { Ok(None) };
            let has_head_norms = c.layer_norms(l).any(|n| n == Norm::HeadQ(l));
            layers.push(LayerPlaces {
                groups: [a?, b?, d?, e?],
                norms: [
                    Some(norm(Norm::Input(l))?),
                    sub(Norm::AttnSub(l))?,
                    Some(norm(Norm::PostAttention(l))?),
                    sub(Norm::FfnSub(l))?,
                ],
                head_norms: match has_head_norms {
                    true => Some([norm(Norm::HeadQ(l))?, norm(Norm::HeadK(l))?]),
                    false => None,
                },
                ttt: ttt_places(c, l, &params)?,
                delta: match c.mixer(l) {
                    Mixer::GatedDelta => {
                        let of = |t: DeltaTensor| place(&c.delta_tensor_name(l, t));
                        Some(of(DeltaTensor::Alpha)?.start..of(DeltaTensor::Norm)?.end)
                    }
                    Mixer::Attention | Mixer::TttLinear | Mixer::TttMlp => None,
                },
            });
        }
        let embedding = place(EMBEDDING)?;
        let head = if c.tie_word_embeddings { embedding.clone() } else { place(HEAD)? };
        Ok(Self { embedding, head, final_norm: norm(Norm::Final)?, layers, len: params.values.len() })
    }
}

fn ttt_places(c: &ModelConfig, l: usize, params: &Params) -> Result<Option<TttPlaces>, TrainError> {
    if c.mixer(l).ttt_kind().is_none() {
        return Ok(None);
    }
    let place = |name: &str| params.entry(name).map(|e| e.range.clone());
    let of = |t: TttTensor| place(&c.ttt_tensor_name(l, t));
    let last = params.entries.iter().filter(|e| {
        matches!(e.role, Role::Ttt(t) if !matches!(t, TttTensor::PreConvWeight | TttTensor::PreConvBias)
            && e.name == c.ttt_tensor_name(l, t))
    });
    let first = of(TttTensor::W1)?.start;
    let layer = first..last.map(|e| e.range.end).max().unwrap_or(first);
    let pre_conv = if c.ttt.pre_conv {
        Some([place(&c.norm_name(Norm::PreConv(l)))?, of(TttTensor::PreConvWeight)?, of(TttTensor::PreConvBias)?])
    } else {
        None
    };
    Ok(Some(TttPlaces { layer, pre_conv }))
}

/// The weights of a projection as the forward pass multiplies with them.
#[derive(Debug)]
pub(super) enum PackedForm {
    /// One scale for all: exact integers, which a factor follows.
    Tensor { packed: Packed, alpha: f32 },
    /// A scale for each group of weights of a row.
    Groups(GroupPacked),
}

/// Projections that share an input, quantised.
#[derive(Debug)]
pub(super) struct Linear {
    /// For the forward pass: weights and output features.
    pub(super) parts: Vec<(PackedForm, usize)>,
    /// For the backward pass: `alpha T`, or `d T` if groups have scales, `[out, k]`.
    pub(super) wide: Vec<f32>,
    /// Output features of all parts.
    pub(super) out: usize,
    /// Input features.
    pub(super) k: usize,
    /// How the input becomes codes.
    pub(super) form: InputForm,
}

/// A test-time-training layer without its projections.
#[derive(Debug)]
pub(super) struct TttLayer {
    pub(super) rows: RowWise,
    pub(super) pre_conv: Option<ConvRows>,
}

/// One layer, quantised.
#[derive(Debug)]
pub(super) struct PreparedLayer {
    pub(super) groups: [Linear; 4],
    pub(super) ttt: Option<TttLayer>,
    pub(super) delta: Option<GatedDelta>,
}

/// Quantisers of all layers.
#[derive(Clone, Copy)]
pub(super) struct Maker<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) kernel: &'a dyn Kernel,
    pub(super) group: &'a GroupKernel,
    pub(super) ops: Ops,
    pub(super) places: &'a Places,
    /// Share of the inner learning rate.
    pub(super) inner_rate: f32,
}

/// All projections, quantised.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) layers: Vec<PreparedLayer>,
    of: Vec<f32>,
    inner_rate: f32,
}

impl Prepared {
    /// Quantises all projections, with `threads` threads.
    pub(super) fn new(maker: Maker<'_>, params: &Params, threads: usize) -> Result<Self, TrainError> {
        let numbers: Vec<usize> = (0..maker.places.layers.len()).collect();
        let share = numbers.len().div_ceil(threads);
        let parts: Vec<Result<Vec<PreparedLayer>, TrainError>> = std::thread::scope(|scope| {
            let handles: Vec<_> = numbers
                .chunks(share)
                .map(|layers| scope.spawn(move || layers.iter().map(|l| maker.layer(*l, params)).collect()))
                .collect();
            handles.into_iter().map(|h| h.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
        });
        let mut layers = Vec::with_capacity(numbers.len());
        for part in parts {
            layers.extend(part?);
        }
        Ok(Self { layers, of: params.values.clone(), inner_rate: maker.inner_rate })
    }

    /// Whether these are the weights of `params` at this share of the inner learning rate.
    pub(super) fn is_of(&self, params: &Params, inner_rate: f32) -> bool {
        self.inner_rate == inner_rate && self.of == params.values
    }
}

impl Maker<'_> {
    fn layer(&self, l: usize, params: &Params) -> Result<PreparedLayer, TrainError> {
        let places = &self.places.layers[l];
        let [a, b, c, d] = groups(self.config, l);
        let group = |i: usize, g: &[Projection]| self.linear(l, g, &params.values[places.groups[i].clone()]);
        let groups = [group(0, &a)?, group(1, &b)?, group(2, &c)?, group(3, &d)?];
        let ttt = match (&places.ttt, self.config.ttt_layer(l)) {
            (Some(places), Some(mut config)) => {
                config.base_lr *= self.inner_rate;
                let values = |r: &Range<usize>| params.values[r.clone()].to_vec();
                let parameters =
                    TttParameters::from_flat(&config, &values(&places.layer)).map_err(crate::ModelError::from)?;
                let pre_conv = places.pre_conv.as_ref().map(|[_, weight, bias]| {
                    let conv = ConvParameters { weight: values(weight), bias: values(bias) };
                    ConvRows::new(&conv, config.hidden_size, config.conv_kernel).map_err(crate::ModelError::from)
                });
                let rows = RowWise::with_ops(&config, &parameters, self.ops).map_err(crate::ModelError::from)?;
                Some(TttLayer { rows, pre_conv: pre_conv.transpose()? })
            }
            _ => None,
        };
        let delta = match (&places.delta, self.config.delta_layer(l)) {
            (Some(place), Some(config)) => {
                let mut parameters = DeltaParameters::from_flat(&config, &params.values[place.clone()])
                    .map_err(crate::ModelError::from)?;
                parameters.decay.iter_mut().for_each(|log| *log = decay_factor(*log));
                Some(GatedDelta::with_ops(&config, &parameters, self.ops).map_err(crate::ModelError::from)?)
            }
            _ => None,
        };
        Ok(PreparedLayer { groups, ttt, delta })
    }

    fn linear(&self, l: usize, group: &[Projection], masters: &[f32]) -> Result<Linear, TrainError> {
        let mut parts = Vec::with_capacity(group.len());
        let mut wide = vec![0.0; masters.len()];
        let (mut at, mut out, mut k) = (0, 0, 0);
        for &p in group {
            let (rows, cols) = self.config.projection_shape(l, p);
            let range = at..at + rows * cols;
            let part = self.part(p, (rows, cols), &masters[range.clone()], &mut wide[range])?;
            parts.push((part, rows));
            at += rows * cols;
            out += rows;
            k = cols;
        }
        let form = group.first().map(|p| self.config.input_form(*p)).unwrap_or_default();
        Ok(Linear { parts, wide, out, k, form })
    }

    /// Quantises one projection, `[rows, cols]`, and writes the values of its weights to `wide`.
    fn part(
        &self,
        p: Projection,
        (rows, cols): (usize, usize),
        w: &[f32],
        wide: &mut [f32],
    ) -> Result<PackedForm, TrainError> {
        let finite = |fine: bool| match w.iter().position(|v| !v.is_finite()).filter(|_| !fine) {
            Some(index) => Err(crate::ModelError::NotFinite { tensor: p.name().into(), index, value: w[index] }),
            None => Ok(()),
        };
        let mut trits = vec![0i8; rows * cols];
        let Some(len) = self.config.weight_group else {
            let mean = absmean(w);
            finite(mean.is_finite())?;
            self.ops.ternarize(w, mean, &mut trits, wide);
            let alpha = weight_scale(mean);
            let matrix = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(alpha))?;
            return Ok(PackedForm::Tensor { packed: self.kernel.prepack(&matrix)?, alpha });
        };
        // Rows are whole groups: the configuration was checked.
        let scales: Vec<f16> = w.chunks(len).map(group_scale).collect();
        finite(scales.iter().all(|d| d.is_finite()))?;
        let factors: Vec<f32> = scales.iter().map(|d| d.to_f32()).collect();
        self.ops.ternarize_groups(w, len, &factors, &mut trits, wide);
        let scales = scales_of_groups(&trits, (rows, cols), len, scales)?;
        // The way to the kernel is that of the engine, so that equal groups become one in both.
        let matrix = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Groups(scales))?;
        Ok(PackedForm::Groups(self.group.prepack(&matrix)?))
    }
}
