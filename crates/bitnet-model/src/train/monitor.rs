//! Whether the ternary weights of each layer are alive: how many are zero, how many change sides.

use ternary_kernels::Ops;

use super::params::Role;
use super::{Params, TrainError};

/// The ternary weights of one layer after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerTrits {
    /// The layer.
    pub layer: usize,
    /// Share of weights that are 0; trained models have a fifth to two fifths.
    pub zeros: f64,
    /// Share of weights that this step changed; falls towards 0 when a run ends well.
    pub flips: f64,
    /// Mean absolute value of the master weights, over all projections of the layer.
    pub alpha: f64,
}

/// The trits of all projections, in the order of the parameters.
pub(super) fn trits(params: &Params) -> Result<Vec<i8>, TrainError> {
    let ops = Ops::selected()?;
    let mut all = Vec::new();
    let mut values = Vec::new();
    for e in params.entries.iter().filter(|e| matches!(e.role, Role::Projection(_))) {
        let w = &params.values[e.range.clone()];
        let start = all.len();
        all.resize(start + w.len(), 0);
        values.resize(w.len(), 0.0);
        ops.ternarize(w, super::absmean(w), &mut all[start..], &mut values);
    }
    Ok(all)
}

/// What a step did to the trits that `before` was made of.
pub(super) fn compare(params: &Params, before: &[i8]) -> Result<Vec<LayerTrits>, TrainError> {
    let after = trits(params)?;
    let mut layers: Vec<LayerTrits> = Vec::new();
    let (mut at, mut count) = (0, 0);
    for e in &params.entries {
        let Role::Projection(layer) = e.role else { continue };
        let range = at..at + e.range.len();
        at = range.end;
        if layers.last().is_none_or(|l| l.layer != layer) {
            layers.push(LayerTrits { layer, zeros: 0.0, flips: 0.0, alpha: 0.0 });
            count = 0;
        }
        let Some(l) = layers.last_mut() else { continue };
        let (was, is) = (&before[range.clone()], &after[range.clone()]);
        let share = |n: usize| n as f64 / (count + range.len()) as f64;
        let keep = share(count);
        l.zeros = l.zeros * keep + share(is.iter().filter(|t| **t == 0).count());
        l.flips = l.flips * keep + share(was.iter().zip(is).filter(|(a, b)| a != b).count());
        l.alpha = l.alpha * keep + f64::from(super::absmean(&params.values[e.range.clone()])) * share(range.len());
        count += range.len();
    }
    Ok(layers)
}
