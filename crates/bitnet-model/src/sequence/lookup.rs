//! Drafts for speculation, from an earlier occurrence of the end of the text.

use crate::Engine;

/// Speculative decoding: whether several tokens are drafted and then verified in one pass over the weights.
///
/// Drafts never change the text: a draft token is accepted only if the model, with the same seed, samples the same one.
/// Models with test-time-training layers draft nothing, because their state cannot be rewound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Speculation {
    /// Lookup with up to 7 tokens (with the token before them, one pass of 8 rows) for models for which it was measured
    /// to be faster: those whose weights come from memory. If weights are in the cache, eight tokens take eight times
    /// as long as one.
    #[default]
    Auto,
    /// One token at a time.
    Off,
    /// Drafts the tokens after an earlier part of the prompt or the text that ends in the same tokens (prompt lookup,
    /// n-gram speculation; it is faster if the output repeats its input: extraction, rewriting, code).
    PromptLookup {
        /// Maximum length of a draft.
        max_draft: usize,
    },
}

impl Speculation {
    /// Maximum length of a draft with `engine`.
    pub(super) fn max_draft(self, engine: &Engine) -> usize {
        match self {
            Speculation::Auto if engine.packed_bytes() > ternary_kernels::last_level_cache() => AUTO_DRAFT,
            Speculation::Auto | Speculation::Off => 0,
            Speculation::PromptLookup { max_draft } => max_draft,
        }
    }
}

/// Maximum length of a draft with [`Speculation::Auto`].
const AUTO_DRAFT: usize = 7;
/// Lengths of the ends of the text that are looked up.
const NGRAM: std::ops::RangeInclusive<usize> = 2..=4;
/// How far back a lookup searches: beyond this, it would take longer than a token of a small model.
const WINDOW: usize = 1 << 15;
/// After rejected drafts, lookups are skipped for at most this many tokens.
const MAX_PAUSE: u32 = 32;

/// Finds drafts and adapts their length to how many tokens were accepted.
///
/// Length and pauses depend only on earlier drafts, so runs repeat exactly; and the text does not depend on them.
#[derive(Clone, Debug)]
pub(super) struct PromptLookup {
    /// Maximum number of tokens of the next draft.
    length: usize,
    /// Consecutive drafts without an accepted token.
    misses: u32,
    /// Tokens to skip before the next lookup.
    pause: u32,
}

impl Default for PromptLookup {
    fn default() -> Self {
        Self { length: 3, misses: 0, pause: 0 }
    }
}

impl PromptLookup {
    /// Puts into `draft` at most `max` tokens that may follow `text`.
    pub(super) fn propose(&mut self, text: &[u32], max: usize, draft: &mut Vec<u32>) {
        draft.clear();
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        let max = max.min(self.length);
        if max == 0 {
            return;
        }
        if let Some(after) = follow(text) {
            draft.extend_from_slice(&text[after..(after + max).min(text.len())]);
        }
    }

    /// Notes that the first `accepted` of `drafted` tokens were accepted.
    pub(super) fn learn(&mut self, drafted: usize, accepted: usize) {
        if accepted == 0 {
            self.misses += 1;
            self.length = 2;
            self.pause = (1 << self.misses.min(6)).min(MAX_PAUSE) - 1;
            return;
        }
        self.misses = 0;
        self.length = if accepted == drafted { self.length.saturating_mul(2).min(1 << 10) } else { accepted + 1 };
    }
}

/// The end of the latest earlier occurrence of the end of `text`: of its last four tokens, else three, else two.
fn follow(text: &[u32]) -> Option<usize> {
    let text_len = text.len();
    let last = *text.last()?;
    let from = text_len.saturating_sub(WINDOW);
    let mut best: Option<(usize, usize)> = None;
    // Backwards over the positions of the last token; the first of the longest matches wins.
    for end in (from + 1..text_len).rev() {
        if text[end - 1] != last {
            continue;
        }
        let longest = (*NGRAM.end()).min(end);
        let same = (1..=longest).take_while(|&i| text[end - i] == text[text_len - i]).count();
        if same >= *NGRAM.start() && best.is_none_or(|(most, _)| same > most) {
            best = Some((same, end));
            if same == *NGRAM.end() {
                break;
            }
        }
    }
    best.map(|(_, end)| end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(text: &[u32], max: usize) -> Vec<u32> {
        let mut lookup = PromptLookup { length: 100, ..PromptLookup::default() };
        let mut draft = vec![9];
        lookup.propose(text, max, &mut draft);
        draft
    }

    #[test]
    fn proposes_what_followed_the_longest_and_latest_match() {
        assert_eq!(draft(&[1, 2, 3, 4, 1, 2], 7), [3, 4, 1, 2]);
        assert_eq!(draft(&[1, 2, 3, 4, 1, 2], 1), [3]);
        // The later of two equal matches.
        assert_eq!(draft(&[1, 2, 3, 1, 2, 4, 1, 2], 1), [4]);
        // A longer match farther away.
        assert_eq!(draft(&[5, 1, 2, 3, 7, 1, 2, 4, 5, 1, 2], 1), [3]);
        // The match may overlap the end: a text that repeats one token.
        assert_eq!(draft(&[6, 6, 6, 6], 7), [6]);
        for nothing in [&[][..], &[1], &[1, 2], &[1, 2, 3, 2]] {
            assert!(draft(nothing, 7).is_empty(), "{nothing:?}");
        }
    }

    #[test]
    fn grows_with_success_and_pauses_after_failure() {
        let text = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2];
        let (mut lookup, mut draft) = (PromptLookup::default(), Vec::new());
        lookup.propose(&text, 7, &mut draft);
        assert_eq!(draft.len(), 3);
        lookup.learn(3, 3);
        lookup.propose(&text, 7, &mut draft);
        assert_eq!(draft.len(), 6);
        lookup.learn(6, 0);
        lookup.propose(&text, 7, &mut draft);
        assert!(draft.is_empty());
        lookup.propose(&text, 7, &mut draft);
        assert_eq!(draft.len(), 2);
        for _ in 0..100 {
            lookup.learn(2, 0);
        }
        assert!(lookup.pause < MAX_PAUSE);
    }
}
