//! What an extractor learns: dense parameters in one buffer, and the table of features, of which a step moves few rows.

use std::ops::Range;

use ternary_kernels::Ops;
use ternary_kernels::ops::AdamWStep;

use crate::encoder::ExtractorConfig;
use crate::train::{Params, Random, Role};

/// Where the parameters of a layer lie.
#[derive(Clone, Debug)]
pub(super) struct LayerPlaces {
    /// Gains: before attention, behind it, before the feed-forward block, in it.
    pub(super) norms: [Range<usize>; 4],
    /// Projections that share an input: q, k, v; o; gate, up; down.
    pub(super) groups: [Range<usize>; 4],
}

/// Where the parameters of the heads of a task lie.
#[derive(Clone, Debug)]
pub(super) struct TaskPlaces {
    pub(super) intent: Range<usize>,
    pub(super) intent_bias: Range<usize>,
    /// Weight, bias, transitions; of a task with slots.
    pub(super) tags: Option<[Range<usize>; 3]>,
}

/// Where all dense parameters lie.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) layers: Vec<LayerPlaces>,
    pub(super) final_norm: Range<usize>,
    pub(super) tasks: Vec<TaskPlaces>,
}

/// Deviation with which rows of the table begin; small, so that features that were never seen say little.
const TABLE_STD: f64 = 0.1;
/// What the projections that add to the residual stream begin with, as a share of the others.
const RESIDUAL: f64 = 0.2;

/// The dense parameters of a configuration that was checked, drawn from `seed`, and where they lie.
pub(super) fn init(config: &ExtractorConfig, seed: u64) -> (Params, Places) {
    let (h, f) = (config.hidden_size, config.intermediate_size);
    let mut all: Vec<(String, Vec<usize>, Role)> = Vec::new();
    for l in 0..config.num_layers {
        let name = |n: &str| format!("blk.{l}.{n}.weight");
        let norms = [("attn_norm", h), ("attn_sub_norm", h), ("ffn_norm", h), ("ffn_sub_norm", f)];
        all.extend(norms.map(|(n, len)| (name(n), vec![len], Role::Norm)));
        let projections = [
            ("attn_q", h, h),
            ("attn_k", h, h),
            ("attn_v", h, h),
            ("attn_output", h, h),
            ("ffn_gate", f, h),
            ("ffn_up", f, h),
            ("ffn_down", h, f),
        ];
        all.extend(projections.map(|(n, rows, cols)| (name(n), vec![rows, cols], Role::Projection(l))));
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
    let layers = (0..config.num_layers).map(|_| {
        let norms = [next(), next(), next(), next()];
        let [q, _k, v, o, gate, up, down] = [next(), next(), next(), next(), next(), next(), next()];
        LayerPlaces { norms, groups: [join(&q, &v), o, join(&gate, &up), down] }
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

/// No gradient yet.
const NONE: u32 = u32::MAX;

/// The table of features, `[buckets, width]`, with gradients of those rows that a batch touched. The optimizer moves
/// these rows only: moments of others wait until they are touched again.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) width: usize,
    pub(super) values: Vec<f32>,
    pub(super) m: Vec<f32>,
    pub(super) v: Vec<f32>,
    /// For each bucket where its gradient lies among the touched ones.
    place: Vec<u32>,
    rows: Vec<u32>,
    grads: Vec<f32>,
}

impl Table {
    pub(super) fn new(buckets: usize, width: usize, seed: u64) -> Self {
        let mut random = Random::new(seed, "features.weight");
        let values: Vec<f32> = (0..buckets * width).map(|_| (random.normal() * TABLE_STD) as f32).collect();
        let zeros = vec![0.0; values.len()];
        let (rows, grads, place) = (Vec::new(), Vec::new(), vec![NONE; buckets]);
        Self { width, m: zeros.clone(), v: zeros, values, place, rows, grads }
    }

    /// The row of a bucket.
    pub(super) fn row(&self, bucket: u32) -> &[f32] {
        &self.values[bucket as usize * self.width..][..self.width]
    }

    /// The gradient of a row, zeros where it was not touched yet.
    pub(super) fn grad(&mut self, bucket: u32) -> &mut [f32] {
        let place = &mut self.place[bucket as usize];
        if *place == NONE {
            *place = self.rows.len() as u32;
            self.rows.push(bucket);
            self.grads.resize(self.rows.len() * self.width, 0.0);
        }
        &mut self.grads[*place as usize * self.width..][..self.width]
    }

    /// Gradients of the touched rows, side by side.
    pub(super) fn grads(&self) -> &[f32] {
        &self.grads
    }

    /// The gradient of a row, if a batch touched it.
    #[cfg(test)]
    pub(super) fn grad_of(&self, bucket: u32) -> Option<&[f32]> {
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

    /// A step of AdamW on the rows that were touched.
    pub(super) fn step(&mut self, ops: Ops, step: AdamWStep) {
        let w = self.width;
        for (row, grad) in self.rows.iter().zip(self.grads.chunks_exact(w)) {
            let r = *row as usize * w..(*row as usize + 1) * w;
            ops.adamw(step, grad, &mut self.values[r.clone()], &mut self.m[r.clone()], &mut self.v[r]);
        }
    }
}
