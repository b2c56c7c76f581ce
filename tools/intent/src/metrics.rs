//! Figures by which answers are judged.

/// A share: a count, and the total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// The count.
    pub yes: usize,
    /// The total.
    pub of: usize,
}

impl Share {
    /// Counts one more.
    pub fn add(&mut self, yes: bool) {
        self.yes += usize::from(yes);
        self.of += 1;
    }

    /// In percent; 0 if the total is 0.
    pub fn percent(self) -> f64 {
        100.0 * self.yes as f64 / self.of.max(1) as f64
    }
}

/// Slots found, micro-averaged: a slot is right if its name and its whole value are those of a slot of the utterance,
/// which each slot of the utterance can be for one found slot only. Upper and lower case count; where a value stands in
/// the text does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// Slots that are right.
    pub right: usize,
    /// Slots that were found.
    pub found: usize,
    /// Slots that there are.
    pub there: usize,
}

impl Slots {
    /// Counts the slots of an utterance; returns whether they are all right and none is missing.
    pub fn add(&mut self, found: &[(String, String)], there: &[(String, String)]) -> bool {
        let mut left: Vec<&(String, String)> = there.iter().collect();
        let mut right = 0;
        for slot in found {
            if let Some(at) = left.iter().position(|s| *s == slot) {
                left.swap_remove(at);
                right += 1;
            }
        }
        self.right += right;
        self.found += found.len();
        self.there += there.len();
        right == found.len() && right == there.len()
    }

    /// The share of the found that is right, in percent.
    pub fn precision(self) -> f64 {
        100.0 * self.right as f64 / self.found.max(1) as f64
    }
    /// The share of those there are that was found, in percent.
    pub fn recall(self) -> f64 {
        100.0 * self.right as f64 / self.there.max(1) as f64
    }
    /// The harmonic mean of both, in percent.
    pub fn f1(self) -> f64 {
        200.0 * self.right as f64 / (self.found + self.there).max(1) as f64
    }
}

/// Prediction for an utterance that may be out of scope.
#[derive(Clone, Debug, PartialEq)]
pub struct Guess {
    /// Whether the intent is the right one, as answered.
    pub right: bool,
    /// Whether the answer is "out of scope".
    pub says_out: bool,
    /// How sure the answer is, 0 to 1.
    pub sure: f64,
    /// Whether the utterance is out of scope.
    pub is_out: bool,
}

/// The official figures of CLINC150.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Utterances in scope whose intent is right.
    pub in_scope: Share,
    /// Utterances out of scope that are called so.
    pub recall: Share,
    /// Utterances called out of scope that are so.
    pub precision: Share,
}

impl Scope {
    /// Judges guesses; one that is less sure than `threshold` counts as "out of scope".
    pub fn of(guesses: &[Guess], threshold: f64) -> Self {
        let mut scope = Self::default();
        for g in guesses {
            let out = g.says_out || g.sure < threshold;
            if g.is_out {
                scope.recall.add(out)
            } else {
                scope.in_scope.add(g.right && !out)
            }
            if out {
                scope.precision.add(g.is_out);
            }
        }
        scope
    }

    /// The mean of both shares, which a threshold is chosen by: there is no right price of one error in the other.
    pub fn balance(self) -> f64 {
        (self.in_scope.percent() + self.recall.percent()) / 2.0
    }
}

/// The threshold with the best balance on these guesses.
pub fn best_threshold(guesses: &[Guess]) -> f64 {
    let candidates = (0..100).map(|i| f64::from(i) / 100.0);
    candidates
        .fold((0.0, f64::MIN), |best, t| {
            let balance = Scope::of(guesses, t).balance();
            if balance > best.1 { (t, balance) } else { best }
        })
        .0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn slots_are_counted_by_name_and_value() {
        let mut s = Slots::default();
        let there = slots(&[("artist", "Miles"), ("track", "So What")]);
        assert!(s.add(&there, &there));
        assert_eq!((s.right, s.found, s.there, s.f1()), (2, 2, 2, 100.0));
        // A wrong value, a right slot; the same slot twice is right once.
        let mut s = Slots::default();
        assert!(!s.add(&slots(&[("artist", "miles"), ("track", "So What"), ("track", "So What")]), &there));
        assert_eq!((s.right, s.found, s.there), (1, 3, 2));
        assert!((s.precision() - 100.0 / 3.0).abs() < 1e-9 && s.recall() == 50.0 && s.f1() == 40.0);
        // Nothing found; nothing there.
        let mut s = Slots::default();
        assert!(!s.add(&[], &there));
        assert_eq!((s.f1(), s.precision(), s.recall()), (0.0, 0.0, 0.0));
        assert!(s.add(&[], &[]));
        assert!(!s.add(&there, &[]));
    }

    #[test]
    fn a_threshold_trades_scope_for_recall() {
        let guess = |right, says_out, sure, is_out| Guess { right, says_out, sure, is_out };
        let all = [
            guess(true, false, 0.9, false),
            guess(true, false, 0.4, false),
            guess(false, false, 0.3, false),
            guess(false, true, 0.8, true),
            guess(false, false, 0.5, true),
            guess(false, true, 0.9, false),
        ];
        let s = Scope::of(&all, 0.0);
        assert_eq!(
            (s.in_scope, s.recall, s.precision),
            (Share { yes: 2, of: 4 }, Share { yes: 1, of: 2 }, Share { yes: 1, of: 2 })
        );
        let s = Scope::of(&all, 0.6);
        assert_eq!((s.in_scope.yes, s.recall.yes, s.precision), (1, 2, Share { yes: 2, of: 5 }));
        let t = best_threshold(&all);
        assert!(t > 0.5 && t <= 0.9, "{t}");
    }
}
