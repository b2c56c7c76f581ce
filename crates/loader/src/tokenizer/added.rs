//! Tokens that are found in the text before anything else: special tokens, and those a fine-tuner added.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::backtrack::is_word;
use super::error::TokenizerError;
use super::limits::{ADDED_BYTES, Meter, at_most};

/// An added token with the options of `tokenizer.json`.
#[derive(Debug, Clone, Default)]
pub(super) struct AddedToken {
    pub(super) content: String,
    pub(super) id: u32,
    /// Steers the model; is not text.
    pub(super) special: bool,
    /// Found in the normalised text rather than in the raw one.
    pub(super) normalized: bool,
    /// Only between things that are not word characters.
    pub(super) single_word: bool,
    /// Swallows white space on its left.
    pub(super) lstrip: bool,
    /// Swallows white space on its right.
    pub(super) rstrip: bool,
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part<'t> {
    /// An added token.
    Token(u32),
    /// Text between them, never empty, with its first byte's position.
    Text(&'t str, usize),
}

/// Bytes of all tokens up to which the fastest kind of automaton is taken.
const SMALL_BYTES: usize = 8 << 10;

/// The added tokens of one stage.
#[derive(Debug, Default)]
struct Matcher {
    automaton: Option<AhoCorasick>,
    tokens: Vec<AddedToken>,
}

impl Matcher {
    fn new(tokens: Vec<AddedToken>, patterns: &[String]) -> Result<Self, TokenizerError> {
        if tokens.is_empty() {
            return Ok(Self::default());
        }
        // The fastest kind of automaton takes a kilobyte for every byte of the tokens.
        let small = patterns.iter().map(String::len).sum::<usize>() <= SMALL_BYTES;
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(if small { None } else { Some(AhoCorasickKind::ContiguousNFA) })
            .build(patterns)
            .map_err(|e| TokenizerError::Library { stage: "added tokens", reason: e.to_string() })?;
        Ok(Self { automaton: Some(automaton), tokens })
    }

    fn split<'t>(&self, text: &'t str, specials: bool, part: &mut impl FnMut(Part<'t>)) {
        let mut done = 0;
        for found in self.automaton.iter().flat_map(|automaton| automaton.find_iter(text)) {
            let Some(token) = self.tokens.get(found.pattern().as_usize()) else { continue };
            let (mut start, mut end) = (found.start(), found.end());
            if start < done || (token.special && !specials) {
                continue;
            }
            let (before, after) = (text.get(..start).unwrap_or_default(), text.get(end..).unwrap_or_default());
            if token.single_word
                && (before.chars().next_back().is_some_and(is_word) || after.chars().next().is_some_and(is_word))
            {
                continue;
            }
            if token.lstrip {
                // Only text that no token has taken yet: white space that is a token itself would be scanned
                // repeatedly.
                start = done + text.get(done..start).unwrap_or_default().trim_end().len();
            }
            if token.rstrip {
                end = text.len().saturating_sub(after.trim_start().len());
            }
            if let Some(gap) = text.get(done..start).filter(|gap| !gap.is_empty()) {
                part(Part::Text(gap, done));
            }
            part(Part::Token(token.id));
            done = end;
        }
        if let Some(rest) = text.get(done..).filter(|rest| !rest.is_empty()) {
            part(Part::Text(rest, done));
        }
    }
}

/// All added tokens of a vocabulary.
#[derive(Debug, Default)]
pub(super) struct AddedTokens {
    raw: Matcher,
    normalized: Matcher,
    by_content: HashMap<Box<str>, u32>,
}

impl AddedTokens {
    /// Builds the matchers; `normalize` normalises the content of a token.
    ///
    /// # Errors
    /// [`TokenizerError::Limit`] for too many bytes, and the errors of `normalize`.
    pub(super) fn new(
        tokens: Vec<AddedToken>,
        normalize: impl Fn(&str, &mut Meter) -> Result<String, TokenizerError>,
    ) -> Result<Self, TokenizerError> {
        let too_long = |bytes| at_most("the added tokens of the tokenizer (bytes)", bytes, ADDED_BYTES);
        let bytes = tokens.iter().map(|token| token.content.len()).sum();
        too_long(bytes)?;
        let mut meter = Meter::new(bytes);
        let mut searched = 0usize;
        let mut by_content = HashMap::with_capacity(tokens.len());
        let (mut raw, mut normalized) = (Vec::new(), Vec::new());
        let mut patterns = Vec::new();
        for token in tokens {
            if token.content.is_empty() {
                continue;
            }
            by_content.insert(token.content.as_str().into(), token.id);
            if token.normalized {
                let pattern = normalize(&token.content, &mut meter)?;
                meter.used(pattern.len());
                searched = searched.saturating_add(pattern.len());
                too_long(searched)?;
                if !pattern.is_empty() {
                    patterns.push(pattern);
                    normalized.push(token);
                }
            } else {
                raw.push(token);
            }
        }
        let raw_patterns: Vec<String> = raw.iter().map(|token| token.content.clone()).collect();
        Ok(Self {
            raw: Matcher::new(raw, &raw_patterns)?,
            normalized: Matcher::new(normalized, &patterns)?,
            by_content,
        })
    }

    /// The id of an added token.
    pub(super) fn id_of(&self, content: &str) -> Option<u32> {
        self.by_content.get(content).copied()
    }

    /// Cuts a raw text. Without `specials`, special tokens are text like any other.
    pub(super) fn split_raw<'t>(&self, text: &'t str, specials: bool, part: &mut impl FnMut(Part<'t>)) {
        self.raw.split(text, specials, part);
    }

    /// Cuts a normalised text.
    pub(super) fn split_normalized<'t>(&self, text: &'t str, specials: bool, part: &mut impl FnMut(Part<'t>)) {
        self.normalized.split(text, specials, part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(content: &str, id: u32) -> AddedToken {
        AddedToken { content: content.into(), id, ..AddedToken::default() }
    }

    fn split(tokens: Vec<AddedToken>, text: &str, specials: bool) -> Vec<(Option<u32>, String)> {
        let added = AddedTokens::new(tokens, |s, _| Ok(s.to_owned())).expect("tokens");
        let mut parts = Vec::new();
        added.split_raw(text, specials, &mut |part| match part {
            Part::Token(id) => parts.push((Some(id), String::new())),
            Part::Text(text, _) => parts.push((None, text.to_owned())),
        });
        parts
    }

    #[test]
    fn the_longest_token_at_the_leftmost_place_wins() {
        let tokens = vec![token("<a>", 1), token("<a><b>", 2)];
        assert_eq!(split(tokens, "x<a><b><a>", true), [(None, "x".into()), (Some(2), "".into()), (Some(1), "".into())]);
    }

    #[test]
    fn specials_are_text_where_the_caller_says_so() {
        let tokens = vec![AddedToken { special: true, ..token("<a>", 1) }, token("<b>", 2)];
        assert_eq!(split(tokens, "<a><b>", false), [(None, "<a>".into()), (Some(2), "".into())]);
    }

    #[test]
    fn options_of_added_tokens() {
        let strip = vec![AddedToken { lstrip: true, rstrip: true, ..token("<m>", 1) }];
        assert_eq!(split(strip, "a \t<m>  b", true), [(None, "a".into()), (Some(1), "".into()), (None, "b".into())]);
        let word = vec![AddedToken { single_word: true, ..token("cat", 1) }];
        assert_eq!(split(word.clone(), "cat concat", true), [(Some(1), "".into()), (None, " concat".into())]);
        // A mark belongs to its word, a number that is not a digit does not.
        assert_eq!(split(word.clone(), "cat\u{301}", true), [(None, "cat\u{301}".into())]);
        assert_eq!(split(word.clone(), "cat\u{93f}", true), [(None, "cat\u{93f}".into())]);
        assert_eq!(split(word.clone(), "\u{203f}cat", true), [(None, "\u{203f}cat".into())]);
        assert_eq!(split(word.clone(), "cat\u{200d}", true), [(None, "cat\u{200d}".into())]);
        assert_eq!(split(word, "cat\u{b2}", true), [(Some(1), "".into()), (None, "\u{b2}".into())]);
    }
}
