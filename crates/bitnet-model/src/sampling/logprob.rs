//! The probability of a token according to the model, before anything changes its logits.

use crate::{Candidate, ModelError};

/// The logarithm of the softmax over one position's logits, computed in f64.
///
/// ```
/// use bitnet_model::sampling::LogProbs;
/// let p = LogProbs::new(&[0.0, 1.0, 0.0], 7)?;
/// let sum: f64 = (0..3).map(|token| p.of(token).exp()).sum();
/// assert!((sum - 1.0).abs() < 1e-12);
/// assert_eq!(p.best(1), [(1, p.of(1))]);
/// # Ok::<(), bitnet_model::ModelError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LogProbs<'a> {
    logits: &'a [f32],
    /// Logarithm of the sum of all exponentials.
    total: f64,
}

impl<'a> LogProbs<'a> {
    /// Log-probabilities from `logits`, `[vocab]` f32, of the token at `position`.
    ///
    /// # Errors
    /// [`ModelError::Diverged`] if a logit is NaN or plus infinity, or if all are minus infinity.
    pub fn new(logits: &'a [f32], position: usize) -> Result<Self, ModelError> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&l| f64::from(l - max).exp()).sum();
        let total = sum.ln() + f64::from(max);
        match total.is_finite() {
            true => Ok(Self { logits, total }),
            false => Err(ModelError::Diverged { what: "the logits", position }),
        }
    }

    /// The natural logarithm of the probability of `token`; minus infinity outside the vocabulary.
    pub fn of(&self, token: u32) -> f64 {
        self.logits.get(token as usize).map_or(f64::NEG_INFINITY, |&l| f64::from(l) - self.total)
    }

    /// The `n` most probable tokens and the logarithms of their probabilities, the most probable first; of equal ones
    /// the lower id first.
    pub fn best(&self, n: usize) -> Vec<(u32, f64)> {
        let mut all: Vec<Candidate> =
            self.logits.iter().zip(0..).map(|(&logit, token)| Candidate { logit, token }).collect();
        let order = |a: &Candidate, b: &Candidate| b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token));
        let n = n.min(all.len());
        if 0 < n && n < all.len() {
            all.select_nth_unstable_by(n - 1, order);
        }
        all.truncate(n);
        all.sort_unstable_by(order);
        all.into_iter().map(|c| (c.token, f64::from(c.logit) - self.total)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_in_order_and_what_is_no_number_is_refused() {
        let logits = [0.5, 2.0, -1.0, 2.0, f32::NEG_INFINITY];
        let p = LogProbs::new(&logits, 3).unwrap();
        let ids = |n| p.best(n).into_iter().map(|(token, _)| token).collect::<Vec<_>>();
        assert_eq!(ids(3), [1, 3, 0]);
        assert_eq!(ids(9), [1, 3, 0, 2, 4]);
        assert!(ids(0).is_empty());
        assert_eq!((p.of(4), p.of(99)), (f64::NEG_INFINITY, f64::NEG_INFINITY));
        for bad in [[f32::NAN, 0.0], [f32::INFINITY, 0.0], [f32::NEG_INFINITY; 2]] {
            let refused = matches!(LogProbs::new(&bad, 3), Err(ModelError::Diverged { position: 3, .. }));
            assert!(refused, "{bad:?}");
        }
    }
}
