//! Results of a learner: snapshots, the state that a checkpoint holds, and the weights for inference.

use half::f16;
use ternary_kernels::quantize::absmean_quantize;
use ternary_kernels::{Scales, TernaryMatrix};

use super::learner::{Learner, Snapshot};
use super::recurrent::exported;
use super::saved::ExtractCheckpoint;
use crate::Projection;
use crate::encoder::{EncoderLayer, ExtractorWeights, FeatureTable, TaskWeights};
use crate::train::TrainError;

impl Learner {
    /// The parameters now.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot { dense: self.params.values.clone(), table: self.table.values.clone() }
    }

    /// Goes back to earlier parameters; the optimizer stays.
    pub(super) fn restore(&mut self, snapshot: Snapshot) {
        self.params.values = snapshot.dense;
        self.table.values = snapshot.table;
    }

    /// All that a run needs to go on, by name; `best` is the snapshot of the best validation.
    pub(super) fn state<'a>(&'a self, best: Option<&'a Snapshot>) -> Vec<(&'static str, &'a [f32])> {
        let (adam, table) = (&self.adam, &self.table);
        let mut all: Vec<(&'static str, &[f32])> = vec![
            ("dense", &self.params.values),
            ("dense.m", &adam.m),
            ("dense.v", &adam.v),
            ("table", &table.values),
            ("table.m", &table.m),
            ("table.v", &table.v),
        ];
        if let Some(s) = &self.average {
            all.extend([("average.dense", s.dense.as_slice()), ("average.table", &s.table)]);
        }
        if let Some(s) = best {
            all.extend([("best.dense", s.dense.as_slice()), ("best.table", &s.table)]);
        }
        all
    }

    /// Continues from the result of [`Learner::state`] after `step` steps; returns the snapshot of the best validation.
    ///
    /// # Errors
    /// A tensor that is missing or of another size.
    pub(super) fn resume(&mut self, saved: &mut ExtractCheckpoint, step: u64) -> Result<Option<Snapshot>, TrainError> {
        let (dense, table) = (self.params.values.len(), self.table.values.len());
        self.params.values = saved.take("dense", dense)?;
        (self.adam.m, self.adam.v, self.adam.step) =
            (saved.take("dense.m", dense)?, saved.take("dense.v", dense)?, step);
        self.table.values = saved.take("table", table)?;
        (self.table.m, self.table.v) = (saved.take("table.m", table)?, saved.take("table.v", table)?);
        let mut snapshot = |names: [&str; 2]| -> Result<Option<Snapshot>, TrainError> {
            match saved.tensors.contains_key(names[0]) {
                false => Ok(None),
                true => Ok(Some(Snapshot { dense: saved.take(names[0], dense)?, table: saved.take(names[1], table)? })),
            }
        };
        self.average = snapshot(["average.dense", "average.table"])?;
        snapshot(["best.dense", "best.table"])
    }

    /// The weights for inference: projections ternary, the table int8.
    ///
    /// # Errors
    /// Weights that are not finite.
    pub(super) fn export(&self) -> Result<ExtractorWeights, TrainError> {
        let (c, values) = (&self.config, &self.params.values);
        let floats = |r: &std::ops::Range<usize>| values[r.clone()].to_vec();
        let matrices =
            |place: &std::ops::Range<usize>, rows: usize, cols: usize| -> Result<Vec<TernaryMatrix>, TrainError> {
                let all = values[place.clone()].chunks_exact(rows * cols).map(|w| {
                    let (trits, scale) = absmean_quantize(w, rows, cols)?;
                    TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(scale))
                });
                Ok(all.collect::<Result<_, _>>()?)
            };
        let (h, f) = (c.hidden_size, c.intermediate_size);
        let lost = || TrainError::NoTensor { tensor: "a projection of a layer".to_owned() };
        let layers = self.places.layers.iter().enumerate().map(|(l, place)| {
            let [qkv, o, gate_up, down] = &place.groups;
            let mut mixer = matrices(qkv, h, h)?.into_iter();
            let mut of = |which: Projection, l: usize| {
                let has = c.mixer(l).projections().any(|(p, _)| p == which);
                has.then(|| mixer.next().ok_or_else(lost)).transpose()
            };
            let q = of(Projection::Q, l)?.ok_or_else(lost)?;
            let (k, v) = (of(Projection::K, l)?, of(Projection::V, l)?.ok_or_else(lost)?);
            let out_gate = of(Projection::OutGate, l)?;
            let directions = [0, 1].map(|d| exported(c, l, d, &values[place.directions[d].clone()]));
            let [o] = <[TernaryMatrix; 1]>::try_from(matrices(o, h, h)?).map_err(|_| lost())?;
            let [gate, up] = <[TernaryMatrix; 2]>::try_from(matrices(gate_up, f, h)?).map_err(|_| lost())?;
            let [down] = <[TernaryMatrix; 1]>::try_from(matrices(down, h, f)?).map_err(|_| lost())?;
            let [attn_norm, attn_sub_norm, ffn_norm, ffn_sub_norm] = place.norms.each_ref().map(floats);
            let own = EncoderLayer {
                q,
                k,
                v,
                out_gate,
                directions,
                o,
                gate,
                up,
                down,
                attn_norm,
                attn_sub_norm,
                ffn_norm,
                ffn_sub_norm,
            };
            Ok(own)
        });
        // Files hold halves where these say the same: heads are a tenth of a file, and 11 bits are enough for answers.
        let halves = |r: &std::ops::Range<usize>| {
            let half = |v: &f32| if v.is_finite() { f16::from_f32(v.clamp(-65504.0, 65504.0)).to_f32() } else { *v };
            values[r.clone()].iter().map(half).collect::<Vec<f32>>()
        };
        let tasks = self.places.tasks.iter().map(|place| {
            let tensor = |i: usize| place.tags.as_ref().map_or_else(Vec::new, |t| halves(&t[i]));
            TaskWeights {
                intent_weight: halves(&place.intent),
                intent_bias: halves(&place.intent_bias),
                tags_weight: tensor(0),
                tags_bias: tensor(1),
                transitions: tensor(2),
            }
        });
        let weights = ExtractorWeights {
            config: c.clone(),
            features: FeatureTable::quantize(c.buckets, h, &self.table.values)?,
            layers: layers.collect::<Result<_, TrainError>>()?,
            final_norm: floats(&self.places.final_norm),
            tasks: tasks.collect(),
        };
        weights.check()?;
        Ok(weights)
    }
}
