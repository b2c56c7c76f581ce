//! Penalties, which make tokens that occurred before less probable, or more.

use crate::Candidate;

use super::SamplingOptions;

/// The penalties of [`SamplingOptions`], in the order in which they apply.
///
/// Repeat: a positive logit is divided by the penalty, a negative one multiplied, once for each different token among
/// the last `last_n` (arXiv:1909.05858, section 4.1, for positive logits). Then presence and frequency, as defined by
/// OpenAI's interface.
#[derive(Debug)]
pub(super) struct Penalties {
    repeat: f32,
    last_n: usize,
    presence: f32,
    frequency: f32,
    /// The beginning of the new text: presence and frequency count from here.
    new_text: usize,
    /// How often each token of the vocabulary occurred, as `(recent, new)`; all 0 between calls.
    counts: Vec<(u32, u32)>,
}

/// A token that occurred: whether it is recent, and how often it is in the new text.
#[derive(Clone, Copy)]
struct Occurred {
    recent: bool,
    new: u32,
}

impl Penalties {
    /// `None` if the options, which are valid, have no penalty.
    pub(super) fn new(o: &SamplingOptions) -> Option<Self> {
        let repeats = o.repeat_penalty != 1.0 && o.repeat_last_n > 0;
        let occurs = o.presence_penalty != 0.0 || o.frequency_penalty != 0.0;
        (repeats || occurs).then(|| Self {
            repeat: if repeats { o.repeat_penalty } else { 1.0 },
            last_n: if repeats { o.repeat_last_n } else { 0 },
            presence: o.presence_penalty,
            frequency: o.frequency_penalty,
            new_text: 0,
            counts: Vec::new(),
        })
    }

    pub(super) fn begin_new_text(&mut self, at: usize) {
        self.new_text = at;
    }

    /// The maximum number of tokens that may change after `history` tokens; `None` if any logit may rise.
    pub(super) fn most_lowered(&self, history: usize) -> Option<usize> {
        if self.repeat < 1.0 || self.presence < 0.0 || self.frequency < 0.0 {
            return None;
        }
        let new = if self.presence != 0.0 || self.frequency != 0.0 { history.saturating_sub(self.new_text) } else { 0 };
        Some(history.min(self.last_n).saturating_add(new).min(history))
    }

    fn apply(&self, logit: &mut f32, occurred: Occurred) {
        if occurred.recent && self.repeat != 1.0 {
            *logit = if *logit > 0.0 { *logit / self.repeat } else { *logit * self.repeat };
        }
        if occurred.new > 0 {
            *logit -= self.presence + self.frequency * occurred.new as f32;
        }
    }

    fn recent<'a>(&self, tokens: &'a [u32]) -> &'a [u32] {
        &tokens[tokens.len().saturating_sub(self.last_n)..]
    }

    fn new_text<'a>(&self, tokens: &'a [u32]) -> &'a [u32] {
        match self.presence != 0.0 || self.frequency != 0.0 {
            true => &tokens[self.new_text.min(tokens.len())..],
            false => &[],
        }
    }

    /// Changes the logits `[vocab]` of the token after `tokens`.
    pub(super) fn process(&mut self, tokens: &[u32], logits: &mut [f32]) {
        let mut counts = std::mem::take(&mut self.counts);
        if counts.len() < logits.len() {
            counts.resize(logits.len(), (0, 0));
        }
        for &token in self.recent(tokens) {
            if let Some(c) = counts.get_mut(token as usize) {
                c.0 += 1;
            }
        }
        for &token in self.new_text(tokens) {
            if let Some(c) = counts.get_mut(token as usize) {
                c.1 += 1;
            }
        }
        for &token in self.recent(tokens).iter().chain(self.new_text(tokens)) {
            // A token that occurred several times comes again, with its counts at 0.
            if let (Some(logit), Some(c)) = (logits.get_mut(token as usize), counts.get_mut(token as usize)) {
                let (recent, new) = std::mem::take(c);
                self.apply(logit, Occurred { recent: recent > 0, new });
            }
        }
        self.counts = counts;
    }

    /// Like [`Penalties::process`], for some of the tokens, each of which occurs once.
    pub(super) fn process_best(&self, tokens: &[u32], candidates: &mut [Candidate]) {
        let (recent, new) = (self.recent(tokens), self.new_text(tokens));
        for c in candidates {
            let occurred = Occurred {
                recent: recent.contains(&c.token),
                new: new.iter().filter(|t| **t == c.token).count() as u32,
            };
            self.apply(&mut c.logit, occurred);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn penalties(change: impl Fn(&mut SamplingOptions), new_text: usize) -> Penalties {
        let mut o = SamplingOptions::default();
        change(&mut o);
        let mut p = Penalties::new(&o).unwrap();
        p.begin_new_text(new_text);
        p
    }

    #[test]
    fn nothing_to_do_is_nothing() {
        assert!(Penalties::new(&SamplingOptions::default()).is_none());
        assert!(Penalties::new(&SamplingOptions::default().with_repeat_penalty(1.5, 0)).is_none());
    }

    #[test]
    fn each_recent_token_is_penalised_once() {
        let repeat = |penalty, last_n| penalties(|o| (o.repeat_penalty, o.repeat_last_n) = (penalty, last_n), 0);
        let mut p = repeat(2.0, 3);
        // Token 0 is outside the window, token 1 is in it twice, token 99 is outside the vocabulary.
        let history = [0, 1, 99, 1];
        for _ in 0..2 {
            let mut logits = [4.0, 4.0, -4.0, 0.0];
            p.process(&history, &mut logits);
            assert_eq!(logits, [4.0, 2.0, -4.0, 0.0]);
        }
        let mut logits = [4.0, 4.0, -4.0, f32::NEG_INFINITY];
        p.process(&[2, 3, 3], &mut logits);
        assert_eq!(logits, [4.0, 4.0, -8.0, f32::NEG_INFINITY]);
        repeat(2.0, usize::MAX).process(&history, &mut logits);
        assert_eq!(logits, [2.0, 2.0, -8.0, f32::NEG_INFINITY]);
        assert_eq!((p.most_lowered(2), p.most_lowered(100)), (Some(2), Some(3)));
        assert_eq!(repeat(0.5, 3).most_lowered(100), None);
    }

    #[test]
    fn presence_counts_once_and_frequency_each_time_and_only_in_the_new_text() {
        let mut p = penalties(|o| (o.presence_penalty, o.frequency_penalty) = (0.5, 0.25), 2);
        // Tokens 0 and 1 are in the prompt; then 1 comes twice, 2 once, and one outside the vocabulary.
        let text = [0, 1, 1, 2, 1, 99];
        for _ in 0..2 {
            let mut logits = [1.0; 4];
            p.process(&text, &mut logits);
            assert_eq!(logits, [1.0, 0.0, 0.25, 1.0]);
        }
        assert_eq!(p.most_lowered(6), Some(4));
        assert_eq!(penalties(|o| o.presence_penalty = -0.5, 0).most_lowered(6), None);
    }

    #[test]
    fn the_best_tokens_are_changed_as_all_are() {
        let change = |o: &mut SamplingOptions| {
            (o.presence_penalty, o.frequency_penalty, o.repeat_penalty, o.repeat_last_n) = (0.3, 0.7, 1.3, 3);
        };
        let mut p = penalties(change, 1);
        let text = [3, 1, 1, 0, 2, 1];
        let logits = [0.5, -1.0, 2.0, 3.0, -0.0];
        let mut all = logits;
        p.process(&text, &mut all);
        let mut best: Vec<Candidate> =
            logits.iter().zip(0..).map(|(&logit, token)| Candidate { logit, token }).collect();
        p.process_best(&text, &mut best);
        assert!(best.iter().all(|c| c.logit.to_bits() == all[c.token as usize].to_bits()), "{best:?} {all:?}");
    }
}
