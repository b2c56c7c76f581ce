//! Cuts a text into words by the split patterns of byte-level vocabularies, in linear time.
//!
//! The patterns end in `\s+(?!\S)|\s+`: of a run of white space before a word the last character is left for the
//! word. Look-ahead needs a backtracking engine, and those give up on long runs of white space (and the `tokenizers`
//! library then goes on with the rest of the text unsplit, which gives wrong ids without an error). So the tail is
//! taken off, the rest is compiled for an engine that never backtracks, and the look-ahead is done by hand: a run of
//! white space that is followed by something else gives its last character back, unless it has only one.

use regex_automata::meta::Regex;
use regex_automata::{Input, PatternID};

use super::error::TokenizerError;

/// The pattern of Llama 3, also of its relatives.
pub(super) const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The pattern of GPT-2, which `ByteLevel` pre-tokenizers use unless told otherwise.
pub(super) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// The pattern of Qwen 2: as Llama 3 with single digits.
pub(super) const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The tail with the look-ahead.
const TAIL: &str = r"|\s+(?!\S)|\s+";

/// A compiled split pattern.
#[derive(Debug)]
pub(super) struct Splitter {
    regex: Regex,
    /// The alternative that stands for the tail, where the pattern has one.
    tail: Option<PatternID>,
}

impl Splitter {
    /// Compiles a pattern; `None` where it needs features that only a backtracking engine has.
    pub(super) fn compile(pattern: &str) -> Option<Self> {
        if let Some(head) = pattern.strip_suffix(TAIL) {
            let regex = Regex::new_many(&[head, r"\s+"]).ok()?;
            return Some(Self { regex, tail: Some(PatternID::must(1)) });
        }
        Some(Self { regex: Regex::new(pattern).ok()?, tail: None })
    }

    /// Compiles a pattern that must be compilable.
    ///
    /// # Errors
    /// [`TokenizerError::Pattern`].
    pub(super) fn new(pattern: &str) -> Result<Self, TokenizerError> {
        Self::compile(pattern).ok_or_else(|| TokenizerError::Pattern {
            pattern: pattern.to_owned(),
            reason: "it needs look-around other than a final `\\s+(?!\\S)|\\s+`, or is malformed".to_owned(),
        })
    }

    /// Calls `piece` with every match (`true`) and every gap between matches (`false`), which cover the text in order.
    /// Empty pieces are left out.
    pub(super) fn split(&self, text: &str, mut piece: impl FnMut(std::ops::Range<usize>, bool)) {
        let mut gap = 0;
        let mut at = 0;
        while at < text.len() {
            let Some(found) = self.regex.search(&Input::new(text).range(at..)) else { break };
            let mut end = found.end();
            if Some(found.pattern()) == self.tail && end < text.len() {
                let run = text.get(found.range()).unwrap_or_default();
                let last = run.chars().next_back().map_or(0, char::len_utf8);
                if last < run.len() {
                    end = end.saturating_sub(last);
                }
            }
            if end == found.start() {
                // An empty match splits nothing: go on behind the next character.
                at = text.get(end..).and_then(|rest| rest.chars().next()).map_or(text.len(), |c| end + c.len_utf8());
                continue;
            }
            if gap < found.start() {
                piece(gap..found.start(), false);
            }
            piece(found.start()..end, true);
            gap = end;
            at = end;
        }
        if gap < text.len() {
            piece(gap..text.len(), false);
        }
    }
}

impl tokenizers::pattern::Pattern for &Splitter {
    fn find_matches(&self, inside: &str) -> tokenizers::Result<Vec<((usize, usize), bool)>> {
        if inside.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        let mut pieces = Vec::new();
        self.split(inside, |range, is_match| pieces.push(((range.start, range.end), is_match)));
        Ok(pieces)
    }
}

/// Splits by each pattern in turn, every piece (match or gap) being split on by the next one.
pub(super) fn split_all<'t>(splitters: &[Splitter], text: &'t str, piece: &mut impl FnMut(&'t str)) {
    match splitters.split_first() {
        None => {
            if !text.is_empty() {
                piece(text);
            }
        }
        Some((first, rest)) => first.split(text, |range, _| {
            if let Some(part) = text.get(range) {
                split_all(rest, part, piece);
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same pattern with its look-ahead, by the backtracking engine of the `tokenizers` library.
    fn oracle(pattern: &str, text: &str) -> Vec<String> {
        use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
        use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior};
        let split =
            Split::new(SplitPattern::Regex(pattern.into()), SplitDelimiterBehavior::Isolated, false).expect("pattern");
        let mut pre = PreTokenizedString::from(text);
        split.pre_tokenize(&mut pre).expect("split");
        let splits = pre.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(piece, _, _)| piece.to_owned()).filter(|piece| !piece.is_empty()).collect()
    }

    fn ours(pattern: &str, text: &str) -> Vec<String> {
        let splitter = Splitter::new(pattern).expect("pattern");
        let mut pieces = Vec::new();
        split_all(std::slice::from_ref(&splitter), text, &mut |piece| pieces.push(piece.to_owned()));
        pieces
    }

    #[test]
    fn white_space_leaves_its_last_character_to_the_word() {
        assert_eq!(ours(GPT2, "a   b  "), ["a", "  ", " b", "  "]);
        assert_eq!(ours(LLAMA3, "a\t\tb \n\n c"), ["a", "\t", "\tb", " \n\n", " c"]);
        assert_eq!(ours(LLAMA3, "x \u{3000}1"), ["x", " ", "\u{3000}", "1"]);
        assert_eq!(ours(LLAMA3, "12345"), ["123", "45"]);
        assert_eq!(ours(QWEN2, "123"), ["1", "2", "3"]);
    }

    #[test]
    fn gaps_and_empty_matches_cover_the_text() {
        assert_eq!(ours("[0-9]", "ab1c"), ["ab", "1", "c"]);
        assert_eq!(ours("x*", "axxb"), ["a", "xx", "b"]);
        assert!(Splitter::compile(r"a(?=b)").is_none());
    }

    #[test]
    fn a_million_spaces_are_one_piece() {
        let text = format!("{}a", " ".repeat(1_000_000));
        assert_eq!(ours(LLAMA3, &text).len(), 2);
    }

    proptest! {
        #[test]
        fn equals_the_backtracking_engine(
            text in r"([ \t\n\r\u{3000}]{0,4}|[a-zA-Z]{1,4}|'[sStTdD]|[0-9]{1,5}|\PC{1,3}|[あア漢é]{1,3}|[.,!?'{]{1,3}){0,12}",
        ) {
            for pattern in [LLAMA3, GPT2, QWEN2] {
                prop_assert_eq!(ours(pattern, &text), oracle(pattern, &text));
            }
        }
    }
}
