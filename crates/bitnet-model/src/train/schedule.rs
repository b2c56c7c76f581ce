//! Learning rate and weight decay by step.

use serde::{Deserialize, Serialize};

/// Rates of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Learning rate.
    pub lr: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// How the learning rate goes after its linear warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Two stages, as the authors of BitNet b1.58 train: a linear decay that would end at 0 after the last step; at
    /// [`Schedule::boundary`] of the steps an abrupt drop, from where the second peak would have to decay in the same
    /// way; weight decay ends there too.
    #[default]
    TwoStage,
    /// Half a cosine from the peak to the floor (arXiv:1608.03983, equation 5, without restarts).
    Cosine,
    /// Warmup-stable-decay: the peak, and in the last [`Schedule::cooldown`] of the steps down to the floor with one
    /// minus the root of what is done of them (arXiv:2404.06395; arXiv:2405.18392, equation 1).
    Wsd,
}

/// Learning rate and weight decay: a linear warm-up to `peak`, then [`ScheduleKind`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// The form of the schedule after the warm-up.
    pub kind: ScheduleKind,
    /// Peak learning rate, in two stages that of stage 1.
    pub peak: f64,
    /// Peak learning rate of stage 2, as seen from step 0; of two stages only.
    pub peak2: f64,
    /// Steps of warm-up.
    pub warmup: u64,
    /// Share of all steps after which stage 2 begins, 0..=1; of two stages only.
    pub boundary: f64,
    /// Share of all steps in which the learning rate falls, 0..=1; of warmup-stable-decay only.
    pub cooldown: f64,
    /// Weight decay, in two stages that of stage 1.
    pub weight_decay: f64,
    /// Weight decay of stage 2; of two stages only.
    pub weight_decay2: f64,
    /// Least learning rate as a share of the peak, in two stages of the stage's.
    pub floor: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            kind: ScheduleKind::default(),
            peak: 2.5e-3,
            peak2: 1.5e-3,
            warmup: 100,
            boundary: 0.5,
            cooldown: 0.3,
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
    /// use bitnet_model::train::{Schedule, ScheduleKind};
    /// let s = Schedule { peak: 1.0, peak2: 0.5, warmup: 10, ..Schedule::default() };
    /// assert_eq!(s.at(0, 100).lr, 0.1);
    /// assert_eq!(s.at(40, 100).lr, 0.6);
    /// assert_eq!((s.at(50, 100).lr, s.at(50, 100).weight_decay), (0.25, 0.0));
    /// let cosine = Schedule { kind: ScheduleKind::Cosine, ..s };
    /// assert!((cosine.at(55, 100).lr - 0.5).abs() < 1e-9);
    /// let wsd = Schedule { kind: ScheduleKind::Wsd, cooldown: 0.5, ..s };
    /// assert_eq!((wsd.at(49, 100).lr, wsd.at(75, 100).lr), (1.0, 1.0 - 0.5f64.sqrt()));
    /// ```
    pub fn at(&self, step: u64, steps: u64) -> Rates {
        let steps = steps.max(1);
        if step < self.warmup {
            let warm = (step + 1) as f64 / self.warmup as f64;
            let Rates { lr, weight_decay } = self.stage(step, steps);
            return Rates { lr: lr * warm, weight_decay };
        }
        let Rates { lr: peak, weight_decay } = self.stage(step, steps);
        let share = match self.kind {
            ScheduleKind::TwoStage => (1.0 - step.min(steps) as f64 / steps as f64).max(self.floor),
            ScheduleKind::Cosine => self.down(half_cosine(share(step, self.warmup as f64, steps))),
            ScheduleKind::Wsd => {
                let stable = steps as f64 * (1.0 - self.cooldown);
                self.down(1.0 - share(step, stable, steps).sqrt())
            }
        };
        Rates { lr: peak * share, weight_decay }
    }

    /// Peak and weight decay of the stage in which a step is.
    fn stage(&self, step: u64, steps: u64) -> Rates {
        let second = match self.kind {
            ScheduleKind::TwoStage => step as f64 >= self.boundary * steps as f64,
            ScheduleKind::Cosine | ScheduleKind::Wsd => false,
        };
        match second {
            true => Rates { lr: self.peak2, weight_decay: self.weight_decay2 },
            false => Rates { lr: self.peak, weight_decay: self.weight_decay },
        }
    }

    /// From 1 to the floor, as `x` goes from 1 to 0.
    fn down(&self, x: f64) -> f64 {
        self.floor + (1.0 - self.floor) * x
    }
}

/// How much is done at `step` of what begins at `from` and ends at `steps`, 0..=1.
fn share(step: u64, from: f64, steps: u64) -> f64 {
    ((step as f64 - from) / (steps as f64 - from).max(1.0)).clamp(0.0, 1.0)
}

/// `(1 + cos(pi x)) / 2` for `x` in 0..=1, without a function of the C library, which could differ between platforms:
/// the series of the sine of `pi (1/2 - x)` up to the power 15, whose error is below 1e-11.
fn half_cosine(x: f64) -> f64 {
    let a = std::f64::consts::PI * (0.5 - x);
    let (mut term, mut sine) = (a, a);
    for n in 1..=7 {
        term *= -a * a / f64::from(2 * n * (2 * n + 1));
        sine += term;
    }
    (0.5 * (1.0 + sine)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_warms_up_stays_below_its_peak_and_ends_at_its_floor() {
        for kind in [ScheduleKind::TwoStage, ScheduleKind::Cosine, ScheduleKind::Wsd] {
            for floor in [0.0, 0.1] {
                let s = Schedule { kind, floor, peak: 2.0, peak2: 1.0, warmup: 10, ..Schedule::default() };
                let lr: Vec<f64> = (0..1000).map(|step| s.at(step, 1000).lr).collect();
                assert!(lr[..10].windows(2).all(|w| w[0] < w[1]) && lr[9] == 2.0, "{kind:?}: {:?}", &lr[..10]);
                assert!(lr[10..].windows(2).all(|w| w[1] <= w[0]), "{kind:?} rises after its warm-up");
                let peak = if kind == ScheduleKind::TwoStage { 1.0 } else { 2.0 };
                // A step before the end: the root still has 6 % of the way to go where 0.3 % of the steps are left.
                assert!((lr[999] - floor * peak).abs() < 0.004, "{kind:?}: {}", lr[999]);
                assert!((s.at(1000, 1000).lr - floor * peak).abs() < 1e-9, "{kind:?}: {}", s.at(1000, 1000).lr);
                assert_eq!(s.at(5000, 1000).lr, s.at(1000, 1000).lr);
            }
        }
    }

    #[test]
    fn the_cosine_is_that_of_the_library() {
        for i in 0..=1000 {
            let x = f64::from(i) / 1000.0;
            let want = 0.5 * (1.0 + (std::f64::consts::PI * x).cos());
            assert!((half_cosine(x) - want).abs() < 1e-11, "{x}: {} and {want}", half_cosine(x));
        }
    }

    #[test]
    fn schedules_that_cannot_be_are_numbers_all_the_same() {
        let odd = [(0, 0.0), (0, 1.0), (50, 1.0), (u64::MAX, 0.5)];
        for kind in [ScheduleKind::TwoStage, ScheduleKind::Cosine, ScheduleKind::Wsd] {
            for (warmup, cooldown) in odd {
                let s = Schedule { kind, warmup, cooldown, boundary: cooldown, ..Schedule::default() };
                for (step, steps) in [(0, 0), (0, 1), (49, 50), (50, 50), (7, u64::MAX), (u64::MAX, 1)] {
                    let lr = s.at(step, steps).lr;
                    assert!((0.0..=s.peak).contains(&lr), "{s:?} at {step} of {steps}: {lr}");
                }
            }
        }
    }
}
