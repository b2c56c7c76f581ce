//! Learning rate and weight decay in two stages.

use serde::{Deserialize, Serialize};

/// Rates of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Learning rate.
    pub lr: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// Two stages, as the authors of BitNet b1.58 train: a linear warm-up to `peak`; a linear decay that would end at 0
/// after the last step; at `boundary` of the steps an abrupt drop, from where `peak2` would have to decay in the same
/// way; weight decay ends there too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Peak learning rate of stage 1.
    pub peak: f64,
    /// Peak learning rate of stage 2, as seen from step 0.
    pub peak2: f64,
    /// Steps of warm-up.
    pub warmup: u64,
    /// Share of all steps after which stage 2 begins, 0..=1.
    pub boundary: f64,
    /// Weight decay of stage 1.
    pub weight_decay: f64,
    /// Weight decay of stage 2.
    pub weight_decay2: f64,
    /// Least learning rate as a share of the stage's peak.
    pub floor: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            peak: 2.5e-3,
            peak2: 1.5e-3,
            warmup: 100,
            boundary: 0.5,
            weight_decay: 0.1,
            weight_decay2: 0.0,
            floor: 0.0,
        }
    }
}

impl Schedule {
    /// The rates of step `step` (counted from 0) of `steps`.
    ///
    /// ```
    /// use bitnet_model::train::Schedule;
    /// let s = Schedule { peak: 1.0, peak2: 0.5, warmup: 10, ..Schedule::default() };
    /// assert_eq!(s.at(0, 100).lr, 0.1);
    /// assert_eq!(s.at(40, 100).lr, 0.6);
    /// assert_eq!((s.at(50, 100).lr, s.at(50, 100).weight_decay), (0.25, 0.0));
    /// ```
    pub fn at(&self, step: u64, steps: u64) -> Rates {
        let steps = steps.max(1);
        let second = step as f64 >= self.boundary * steps as f64;
        let (peak, weight_decay) =
            if second { (self.peak2, self.weight_decay2) } else { (self.peak, self.weight_decay) };
        let left = 1.0 - step.min(steps) as f64 / steps as f64;
        let warm = if step < self.warmup { (step + 1) as f64 / self.warmup as f64 } else { 1.0 };
        let decayed = if step < self.warmup { 1.0 } else { left.max(self.floor) };
        Rates { lr: peak * decayed * warm, weight_decay }
    }
}
