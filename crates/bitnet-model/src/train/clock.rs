//! How many steps fit a time.

use serde::{Deserialize, Serialize};

/// Steps after which their time is known well enough for a first plan.
const MEASURED: u64 = 8;
/// The share of the time that a plan uses; the rest is for steps that take longer later on.
const AIM: f64 = 0.97;
/// A plan stays as long as its end is this near to its aim, as a share of the time.
const SLACK: f64 = 0.03;

/// The time that a run with a limit has used, and the number of steps for which it is planned. A run without a limit
/// leaves it at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clock {
    /// Seconds used, validations included.
    pub seconds: f64,
    /// Steps done in them.
    pub steps: u64,
    /// Steps that the run has in all; absent until some were measured.
    pub planned: Option<u64>,
}

impl Clock {
    /// Plans so that a run of `limit` seconds, of which `step` steps are done, ends in time, if its plan no longer
    /// does; returns whether there is another plan. A plan has at least one step left.
    ///
    /// ```
    /// use bitnet_model::train::Clock;
    /// let mut clock = Clock { seconds: 10.0, steps: 10, planned: None };
    /// assert!(clock.plan(10, 100.0));
    /// assert_eq!(clock.planned, Some(97));
    /// // Twice as fast as was planned for.
    /// clock = Clock { seconds: 20.0, steps: 30, ..clock };
    /// assert!(clock.plan(30, 100.0));
    /// assert_eq!(clock.planned, Some(145));
    /// assert!(!clock.plan(30, 100.0));
    /// ```
    pub fn plan(&mut self, step: u64, limit: f64) -> bool {
        let measured = self.steps >= MEASURED || (self.steps > 0 && self.seconds >= limit / 10.0);
        if !measured || self.seconds <= 0.0 {
            return false;
        }
        let each = self.seconds / self.steps as f64;
        let left = |planned: u64| planned.saturating_sub(step) as f64 * each;
        let ends = |planned: u64| (self.seconds + left(planned) - AIM * limit).abs() <= SLACK * limit;
        if self.planned.is_some_and(|planned| planned > step && ends(planned)) {
            return false;
        }
        let fits = ((AIM * limit - self.seconds) / each).floor().max(1.0);
        let before = self.planned.replace(step.saturating_add(fits as u64));
        before != self.planned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs of machines that slow down, speed up and stutter, with validations that cost ten steps each, use nine
    /// tenths of their time and are late by one in a hundred and a step with its validation at most; a run that keeps
    /// its speed is planned once.
    #[test]
    fn runs_end_in_their_time() {
        /// Seconds of a step.
        type Speed = fn(u64) -> f64;
        let speeds: [(&str, Speed); 5] = [
            ("even", |_| 0.5),
            ("slower", |step| if step < 100 { 0.5 } else { 1.0 }),
            ("faster", |step| if step < 100 { 0.5 } else { 0.2 }),
            ("stutters", |step| if step.is_multiple_of(3) { 1.2 } else { 0.1 }),
            ("cold", |step| if step == 0 { 5.0 } else { 0.5 }),
        ];
        for (name, speed) in speeds {
            for validate in [0.0, 5.0] {
                let (limit, mut step, mut plans, mut clock) = (600.0, 0u64, 0, Clock::default());
                while clock.planned.is_none_or(|planned| step < planned) {
                    plans += u64::from(clock.plan(step, limit));
                    let extra = if step.is_multiple_of(50) && step > 0 { validate } else { 0.0 };
                    clock = Clock { seconds: clock.seconds + speed(step) + extra, steps: clock.steps + 1, ..clock };
                    step += 1;
                }
                assert!((540.0..=612.0).contains(&clock.seconds), "{name}: {clock:?} after {plans} plans");
                let most = if name == "even" && validate == 0.0 { 1 } else { 40 };
                assert!(plans <= most, "{name}: {plans} plans");
            }
        }
    }

    #[test]
    fn a_time_that_is_over_leaves_one_step() {
        let mut clock = Clock { seconds: 90.0, steps: 1, planned: None };
        assert!(clock.plan(7, 10.0));
        assert_eq!(clock.planned, Some(8));
        assert!(!Clock::default().plan(0, 10.0));
    }
}
