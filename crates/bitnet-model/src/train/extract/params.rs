//! The parameters of an extractor: dense ones in one buffer, and the table of features, of which a step moves few rows.

use std::ops::Range;

use ternary_kernels::Ops;
use ternary_kernels::ops::AdamWStep;

use super::recurrent::parameter_name;
use crate::encoder::{ExtractorConfig, direction_tensor_name, encoder_projection_shape};
use crate::train::{Params, Random, Role};

/// Places of the parameters of a layer.
#[derive(Clone, Debug)]
pub(super) struct LayerPlaces {
    /// Gains: before attention, after it, before the feed-forward block, in it.
    pub(super) norms: [Range<usize>; 4],
    /// Projections that share an input: those of the mixer; o; gate, up; down.
    pub(super) groups: [Range<usize>; 4],
    /// Full-precision parameters of a recurrence, forward and backward; empty with attention.
    pub(super) directions: [Range<usize>; 2],
}

/// Places of the parameters of the heads of a task.
#[derive(Clone, Debug)]
pub(super) struct TaskPlaces {
    pub(super) intent: Range<usize>,
    pub(super) intent_bias: Range<usize>,
    /// Weight, bias, transitions; of a task with slots.
    pub(super) tags: Option<[Range<usize>; 3]>,
}

/// Places of all dense parameters.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) layers: Vec<LayerPlaces>,
    pub(super) final_norm: Range<usize>,
    pub(super) tasks: Vec<TaskPlaces>,
}

/// Deviation with which rows of the table begin; small, so that features that were never seen say little.
const TABLE_STD: f64 = 0.1;
/// Initial size of the projections that add to the residual stream, as a share of the others.
const RESIDUAL: f64 = 0.2;

/// Parameters of a recurrence with these suffixes begin with a deviation of 0.02.
const DRAWN: [&str; 4] = ["ttt_w1.weight", "ttt_lr.weight", "ssm_alpha.weight", "ssm_beta.weight"];

/// The dense parameters of a configuration that was checked, drawn from `seed`, and where they lie.
pub(super) fn init(config: &ExtractorConfig, seed: u64) -> (Params, Places) {
    let (h, f) = (config.hidden_size, config.intermediate_size);
    let mut all: Vec<(String, Vec<usize>, Role)> = Vec::new();
    for l in 0..config.num_layers {
        let name = |n: &str| format!("blk.{l}.{n}.weight");
        let norms = [("attn_norm", h), ("attn_sub_norm", h), ("ffn_norm", h), ("ffn_sub_norm", f)];
        all.extend(norms.map(|(n, len)| (name(n), vec![len], Role::Norm)));
        all.extend(config.mixer(l).projections().map(|(which, n)| {
            let (rows, cols) = encoder_projection_shape(config, which);
            (name(n), vec![rows, cols], Role::Projection(l))
        }));
        for d in [0, 1] {
            let tensors = config.direction_tensors(l, d).into_iter();
            let name = |n| direction_tensor_name(l, d, parameter_name(n));
            all.extend(tensors.map(|(n, shape)| (name(n), shape, Role::Norm)));
        }
    }
    all.push(("output_norm.weight".to_owned(), vec![h], Role::Norm));
    for task in &config.tasks {
        let name = |n: &str| format!("task.{}.{n}", task.name);
        all.push((name("intent.weight"), vec![task.intents.len(), config.pooled_size()], Role::Table));
        all.push((name("intent.bias"), vec![task.intents.len()], Role::Norm));
        let tags = task.tags();
        if tags > 0 {
            all.push((name("tags.weight"), vec![tags, config.tag_input_size()], Role::Table));
            all.push((name("tags.bias"), vec![tags], Role::Norm));
            all.push((name("transitions"), vec![tags + 2, tags], Role::Norm));
        }
    }
    let mut params = Params::zeros(all);
    for e in &params.entries {
        let values = &mut params.values[e.range.clone()];
        let mut random = Random::new(seed, &e.name);
        let mut normal = |std: f64| values.iter_mut().for_each(|v| *v = (random.normal() * std) as f32);
        let fan = |i: usize| e.shape.get(i).map_or(1.0, |n| *n as f64);
        match e.role {
            Role::Projection(_) => {
                let residual = e.name.ends_with("attn_output.weight") || e.name.ends_with("ffn_down.weight");
                normal(if residual { RESIDUAL } else { 1.0 } / fan(1).sqrt());
            }
            Role::Table => normal(0.5 / fan(1).sqrt()),
            _ if e.name.ends_with("norm.weight") => values.fill(1.0),
            // Inner models and their learning rates, and convolutions, begin as in the official code of TTT layers.
            _ if DRAWN.iter().any(|n| e.name.ends_with(n)) => normal(0.02),
            // Decays as in the gated delta rule: factors of 1 to 16, times of a thousandth to a tenth.
            _ if e.name.ends_with("ssm_a_log") => {
                values.iter_mut().for_each(|v| *v = (1.0 + 15.0 * random.unit()).ln() as f32);
            }
            _ if e.name.ends_with("ssm_dt.bias") => values.iter_mut().for_each(|v| {
                let time = 1e-3 * 100f64.powf(random.unit());
                *v = (time + (-(-time).exp_m1()).ln()) as f32;
            }),
            _ if e.name.contains("_conv") && e.name.ends_with("weight") => {
                let bound = 1.0 / e.shape.last().map_or(1.0, |taps| *taps as f64).sqrt();
                values.iter_mut().for_each(|v| *v = ((2.0 * random.unit() - 1.0) * bound) as f32);
            }
            // Biases and transitions begin as 0.
            _ => {}
        }
    }
    let places = places(config, &params);
    (params, places)
}

fn places(config: &ExtractorConfig, params: &Params) -> Places {
    let mut ranges = params.entries.iter().map(|e| e.range.clone());
    // The order of `init`.
    let mut next = || ranges.next().unwrap_or(0..0);
    let join = |a: &Range<usize>, b: &Range<usize>| a.start..b.end;
    let layers = (0..config.num_layers).map(|l| {
        let norms = [next(), next(), next(), next()];
        let mut mixer = next();
        // The mixer's own projections stand before the output, gate, up and down.
        for _ in 5..config.mixer(l).projections().count() {
            mixer.end = next().end;
        }
        let [o, gate, up, down] = [next(), next(), next(), next()];
        let directions = [0, 1].map(|d| {
            let count = config.direction_tensors(l, d).len();
            let all: Vec<_> = (0..count).map(|_| next()).collect();
            all.first().zip(all.last()).map_or(0..0, |(first, last)| join(first, last))
        });
        LayerPlaces { norms, groups: [mixer, o, join(&gate, &up), down], directions }
    });
    let layers = layers.collect();
    let final_norm = next();
    let tasks = config.tasks.iter().map(|task| {
        let (intent, intent_bias) = (next(), next());
        let tags = (task.tags() > 0).then(|| [next(), next(), next()]);
        TaskPlaces { intent, intent_bias, tags }
    });
    Places { layers, final_norm, tasks: tasks.collect() }
}

/// The table of features, `[buckets, width]`. The optimizer moves those rows only that a batch touched: moments of others
/// wait until they are touched again.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) width: usize,
    pub(super) values: Vec<f32>,
    pub(super) m: Vec<f32>,
    pub(super) v: Vec<f32>,
}

impl Table {
    pub(super) fn new(buckets: usize, width: usize, seed: u64) -> Self {
        let mut random = Random::new(seed, "features.weight");
        let values: Vec<f32> = (0..buckets * width).map(|_| (random.normal() * TABLE_STD) as f32).collect();
        let zeros = vec![0.0; values.len()];
        Self { width, m: zeros.clone(), v: zeros, values }
    }

    /// The row of a bucket.
    pub(super) fn row(&self, bucket: u32) -> &[f32] {
        &self.values[bucket as usize * self.width..][..self.width]
    }

    /// A step of AdamW on the rows that have gradients.
    pub(super) fn step(&mut self, ops: Ops, step: AdamWStep, gradients: &TableGradients) {
        let w = self.width;
        for (row, grad) in gradients.rows.iter().zip(gradients.grads.chunks_exact(w)) {
            let r = *row as usize * w..(*row as usize + 1) * w;
            ops.adamw(step, grad, &mut self.values[r.clone()], &mut self.m[r.clone()], &mut self.v[r]);
        }
    }
}

/// No gradient yet.
const NONE: u32 = u32::MAX;

/// Gradients of those rows of the table that a batch touched.
#[derive(Clone, Debug)]
pub(super) struct TableGradients {
    width: usize,
    /// For each bucket where its gradient lies among the touched ones.
    place: Vec<u32>,
    rows: Vec<u32>,
    grads: Vec<f32>,
}

impl TableGradients {
    pub(super) fn new(buckets: usize, width: usize) -> Self {
        Self { width, place: vec![NONE; buckets], rows: Vec::new(), grads: Vec::new() }
    }

    /// The gradient of a row, zeros where it was not touched yet.
    pub(super) fn of(&mut self, bucket: u32) -> &mut [f32] {
        let place = &mut self.place[bucket as usize];
        if *place == NONE {
            *place = self.rows.len() as u32;
            self.rows.push(bucket);
            self.grads.resize(self.rows.len() * self.width, 0.0);
        }
        &mut self.grads[*place as usize * self.width..][..self.width]
    }

    /// Adds the gradients of another part of the batch.
    pub(super) fn add(&mut self, ops: Ops, other: &Self) {
        for (row, grad) in other.rows.iter().zip(other.grads.chunks_exact(other.width)) {
            ops.add_assign(self.of(*row), grad);
        }
    }

    /// Gradients of the touched rows, side by side.
    pub(super) fn all(&self) -> &[f32] {
        &self.grads
    }

    /// The gradient of a row, if a batch touched it.
    #[cfg(test)]
    pub(super) fn get(&self, bucket: u32) -> Option<&[f32]> {
        let place = self.place[bucket as usize];
        (place != NONE).then(|| &self.grads[place as usize * self.width..][..self.width])
    }

    /// Forgets all gradients.
    pub(super) fn clear(&mut self) {
        for row in self.rows.drain(..) {
            self.place[row as usize] = NONE;
        }
        self.grads.clear();
    }
}
