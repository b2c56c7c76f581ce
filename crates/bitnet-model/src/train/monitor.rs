//! Statistics of the ternary weights of each layer: how many are zero, how many change.

use ternary_kernels::Ops;
use ternary_kernels::quantize::{absmean, group_scale};

use super::params::Role;
use super::{Params, TrainError};
use crate::ModelConfig;

/// The ternary weights of one layer after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerTrits {
    /// The layer.
    pub layer: usize,
    /// Share of weights that are 0; trained models have a fifth to two fifths.
    pub zeros: f64,
    /// Share of weights that this step changed; approaches 0 when a run ends well.
    pub flips: f64,
    /// Mean absolute value of the master weights, over all projections of the layer.
    pub alpha: f64,
}

/// The trits of all projections of `model`, in parameter order.
pub(super) fn trits(model: &ModelConfig, params: &Params) -> Result<Vec<i8>, TrainError> {
    let ops = Ops::selected()?;
    let mut all = Vec::new();
    let mut values = Vec::new();
    for e in params.entries.iter().filter(|e| matches!(e.role, Role::Projection(_))) {
        let w = &params.values[e.range.clone()];
        let start = all.len();
        all.resize(start + w.len(), 0);
        values.resize(w.len(), 0.0);
        match model.weight_group {
            None => ops.ternarize(w, absmean(w), &mut all[start..], &mut values),
            Some(len) => {
                let scales: Vec<f32> = w.chunks(len).map(|group| group_scale(group).to_f32()).collect();
                ops.ternarize_groups(w, len, &scales, &mut all[start..], &mut values);
            }
        }
    }
    Ok(all)
}

/// Changes of the trits since `before` was recorded.
pub(super) fn compare(model: &ModelConfig, params: &Params, before: &[i8]) -> Result<Vec<LayerTrits>, TrainError> {
    let after = trits(model, params)?;
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
        l.alpha = l.alpha * keep + f64::from(absmean(&params.values[e.range.clone()])) * share(range.len());
        count += range.len();
    }
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_that_changes_sides_is_counted_once() {
        let config = ModelConfig::new(16, 8, 16, 2, 2, 2);
        let mut params = Params::init(&config, 1, 0.02).unwrap();
        let before = trits(&config, &params).unwrap();
        let same = compare(&config, &params, &before).unwrap();
        assert_eq!(same.iter().map(|l| (l.layer, l.flips)).collect::<Vec<_>>(), [(0, 0.0), (1, 0.0)]);
        // A normal number is within half of its mean absolute value, 0.4 deviations, with probability 0.31; 640
        // weights.
        assert!(same.iter().all(|l| (0.2..0.42).contains(&l.zeros) && (0.012..0.02).contains(&l.alpha)), "{same:?}");
        let e = params.entries.iter().find(|e| e.role == Role::Projection(1)).unwrap().clone();
        let at = e.range.start + (0..e.range.len()).find(|i| before[before.len() / 2 + i] == 1).unwrap();
        params.values[at] = -params.values[at];
        let moved = compare(&config, &params, &before).unwrap();
        let weights = before.len() as f64 / 2.0;
        assert_eq!(moved[0].flips, 0.0);
        assert!((moved[1].flips - 1.0 / weights).abs() < 1e-12, "{moved:?}");
    }
}
