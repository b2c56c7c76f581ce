//! From measurements to one kernel for each group.

use std::sync::Arc;

use super::{Choice, Group, Measurement, Phase, Shape, TuneOptions};
use crate::Kernel;
use crate::select::tunable;

/// How much another kernel must save to replace the default one: more than the noise of a median.
const CLEARLY: f64 = 0.03;

/// Seconds of a group's products.
#[derive(Clone, Copy)]
struct Cost {
    /// For one token.
    decode: f64,
    /// For one token among many.
    prefill: f64,
}

impl Cost {
    fn weighed(self, options: &TuneOptions) -> f64 {
        self.decode + options.prompt_per_token * self.prefill
    }
}

pub(super) fn all(
    groups: &[Group],
    measurements: &[Measurement],
    candidates: &[Arc<dyn Kernel>],
    defaults: &[&str],
    options: &TuneOptions,
) -> Vec<Choice> {
    groups.iter().zip(defaults).map(|(g, default)| one(g, measurements, candidates, default, options)).collect()
}

fn one(
    group: &Group,
    measurements: &[Measurement],
    candidates: &[Arc<dyn Kernel>],
    default: &str,
    options: &TuneOptions,
) -> Choice {
    let choice = |kernel: &str, of_default: f64, why: String| Choice {
        group: group.name.clone(),
        kernel: kernel.to_owned(),
        of_default,
        why,
    };
    let cost = |kernel: &str| cost(group, measurements, kernel, options.prefill_tokens);
    // Inexact kernels are in the table if they are measured; a model uses one only if it is named.
    let best = candidates
        .iter()
        .filter(|k| tunable(k.as_ref()))
        .filter_map(|k| Some((k.name(), cost(k.name())?)))
        .min_by(|(_, a), (_, b)| a.weighed(options).total_cmp(&b.weighed(options)));
    let Some((name, best)) = best else { return choice(default, 1.0, "nothing was measured".to_owned()) };
    let Some(reference) = cost(default) else {
        return choice(name, 1.0, format!("the fastest; the default {default} was not measured"));
    };
    if name == default {
        return choice(name, 1.0, "the default, and the fastest".to_owned());
    }
    let ratio = best.weighed(options) / reference.weighed(options);
    if ratio > 1.0 - CLEARLY {
        let percent = 100.0 * (1.0 - ratio);
        return choice(default, 1.0, format!("the default; {name} saves only {percent:.1} %"));
    }
    let (decode, prefill) = (best.decode / reference.decode, best.prefill / reference.prefill);
    let why = format!("{decode:.2} of the time of {default} in decode, {prefill:.2} in prefill");
    choice(name, ratio, why)
}

/// `None` unless every shape was measured in both phases.
fn cost(group: &Group, measurements: &[Measurement], kernel: &str, prefill_tokens: usize) -> Option<Cost> {
    let seconds = |s: &Shape, phase: Phase| {
        let of = |m: &&Measurement| {
            (m.rows, m.cols, m.int4, m.phase) == (s.rows, s.cols, s.int4, phase) && m.kernel == kernel
        };
        measurements.iter().find(of).map(|m| m.seconds * s.count as f64)
    };
    let sum = |phase: Phase| group.shapes.iter().map(|s| seconds(s, phase)).sum::<Option<f64>>();
    Some(Cost { decode: sum(Phase::Decode)?, prefill: sum(Phase::Prefill)? / prefill_tokens.max(1) as f64 })
}
