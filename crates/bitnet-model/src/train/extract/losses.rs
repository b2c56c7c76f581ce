//! Losses of intents: of what is right, of what teachers say, and of two versions of a text that ought to mean the same.

use super::batch::Goal;

/// `ln sum exp` of the logits, with one more of 0 for what is out of scope where `outside`.
pub(super) fn log_sum(logits: &[f32], outside: bool) -> f32 {
    let zero = if outside { 0.0 } else { f32::NEG_INFINITY };
    let most = logits.iter().copied().fold(zero, f32::max);
    let sum: f32 = logits.iter().map(|z| (z - most).exp()).sum::<f32>() + (zero - most).exp();
    most + sum.ln()
}

/// Cross entropy of the intents, with one more class of logit 0 for what is out of scope where `outside`. What is right
/// is the goal, or mixed with what teachers say, by the share beside it. Leaves `scale` times the gradient in `logits`.
pub(super) fn intent_loss(
    logits: &mut [f32],
    goal: Goal,
    taught: Option<(&[f32], f32)>,
    outside: bool,
    smoothing: f32,
    scale: f32,
) -> f32 {
    let target = match goal {
        Goal::Intent(i) => Some(i),
        Goal::Outside => None,
    };
    // A text out of scope teaches nothing in a task without that class.
    if target.is_none() && !outside {
        logits.fill(0.0);
        return 0.0;
    }
    let log_sum = log_sum(logits, outside);
    let (says, share) = taught.unwrap_or((&[], 0.0));
    let said = |i: usize| share * says.get(i).copied().unwrap_or(0.0);
    let even = if target.is_some() { smoothing / logits.len() as f32 } else { 0.0 };
    let none = if target.is_none() { 1.0 - share } else { 0.0 } + said(logits.len());
    let mut loss = none * log_sum;
    for (i, z) in logits.iter_mut().enumerate() {
        let goal = even + if target == Some(i) { 1.0 - smoothing } else { 0.0 };
        let wanted = (1.0 - share) * goal + said(i);
        let log_p = *z - log_sum;
        if wanted > 0.0 {
            loss -= wanted * log_p;
        }
        *z = scale * (log_p.exp() - wanted);
    }
    loss
}

/// Half the divergences of the intents of two versions of a text from each other, both ways; `both` are their logits,
/// one after the other. Adds `scale` times the gradient to `d`.
pub(super) fn disagreement(both: &[f32], outside: bool, scale: f32, d: &mut [f32]) -> f32 {
    let (a, b) = both.split_at(both.len() / 2);
    let (log_a, log_b) = (log_sum(a, outside), log_sum(b, outside));
    // Of out of scope the logarithms are minus the sums.
    let (mut ab, mut ba) = (0.0, 0.0);
    if outside {
        let apart = log_b - log_a;
        (ab, ba) = ((-log_a).exp() * apart, -(-log_b).exp() * apart);
    }
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - log_a, b - log_b);
        ab += a.exp() * (a - b);
        ba += b.exp() * (b - a);
    }
    let (da, db) = d.split_at_mut(both.len() / 2);
    let half = 0.5 * scale;
    for (((a, b), da), db) in a.iter().zip(b).zip(da).zip(db) {
        let (a, b) = (a - log_a, b - log_b);
        let (p, q) = (a.exp(), b.exp());
        *da += half * (p * (a - b - ab) + p - q);
        *db += half * (q * (b - a - ba) + q - p);
    }
    0.5 * (ab + ba)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intents_are_learned_and_what_is_none_of_them() {
        for (goal, outside) in [(Goal::Intent(1), false), (Goal::Intent(0), true), (Goal::Outside, true)] {
            let logits = [0.3f32, -1.2, 0.8];
            let of = |z: &[f32]| intent_loss(&mut z.to_vec(), goal, None, outside, 0.1, 1.0);
            let mut d = logits.to_vec();
            let loss = intent_loss(&mut d, goal, None, outside, 0.1, 1.0);
            let classes: f32 = logits.iter().map(|z| z.exp()).sum::<f32>() + f32::from(u8::from(outside));
            let log_p = |z: f32| z - classes.ln();
            let right = match goal {
                Goal::Intent(i) => -0.9 * log_p(logits[i]) - logits.iter().map(|z| 0.1 / 3.0 * log_p(*z)).sum::<f32>(),
                Goal::Outside => -log_p(0.0),
            };
            // A dozen roundings of numbers below 4.
            assert!((loss - right).abs() < 5e-6, "{loss} {right}");
            for i in 0..3 {
                let step = 1e-2f32;
                let at = |v: f32| {
                    let mut z = logits;
                    z[i] += v;
                    of(&z)
                };
                // Central differences are wrong by step^2 / 6 times a third derivative below 0.2, and by rounding /
                // step.
                let slope = (at(step) - at(-step)) / (2.0 * step);
                assert!((slope - d[i]).abs() < 2e-4, "{goal:?} {i}: {slope} {}", d[i]);
            }
        }
        let mut z = [1.0, 2.0];
        assert_eq!((intent_loss(&mut z, Goal::Outside, None, false, 0.1, 1.0), z), (0.0, [0.0, 0.0]));
    }
}
