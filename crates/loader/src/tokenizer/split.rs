//! Cuts a text into words by the split patterns of vocabularies.
//!
//! The patterns that real vocabularies share ([`super::pre`]) run in linear time on an engine that never backtracks.
//! They end in `\s+(?!\S)|\s+`: of a run of white space before a word the last character is left for the word.
//! Look-ahead needs a backtracking engine, and those give up on long runs of white space (and the `tokenizers` library
//! then goes on with the rest of the text unsplit, which gives wrong ids without an error). So the tail is taken off,
//! the rest is compiled for an engine that never backtracks, and the look-ahead is done by hand: a run of white space
//! that is followed by something else gives its last character back, unless it has only one.
//!
//! Any other pattern runs on the engine that counts its steps ([`super::backtrack`]).

use std::sync::Arc;

use regex_automata::{Input, PatternID};

use super::backtrack::Backtrack;
use super::error::TokenizerError;
use super::linear::Linear;
use super::pattern::Patterns;
use super::pre;

/// The tail with the look-ahead.
const TAIL: &str = r"|\s+(?!\S)|\s+";

/// How look-around begins.
const AROUND: [&str; 3] = ["(?=", "(?!", "(?<"];

/// Patterns of a file on the linear engine: one may take megabytes.
const LINEAR_PATTERNS: usize = 12;

/// A compiled split pattern.
#[derive(Debug)]
pub(super) enum Splitter {
    /// A known pattern without look-around, or with the usual tail.
    Linear {
        /// The pattern without its tail, and the tail.
        regex: Arc<Linear>,
        /// The alternative that stands for the tail, where the pattern has one.
        tail: Option<PatternID>,
    },
    /// Any other pattern.
    Counted(Backtrack),
    /// A literal text, never empty.
    Literal(String),
}

impl Splitter {
    /// Compiles a known pattern; one that the file has used before is shared.
    ///
    /// # Errors
    /// [`TokenizerError::Pattern`], [`TokenizerError::Limit`].
    pub(super) fn known(pattern: &str, patterns: &mut Patterns) -> Result<Self, TokenizerError> {
        let head = pattern.strip_suffix(TAIL);
        let tail = head.map(|_| PatternID::must(1));
        if let Some(regex) = patterns.linear.get(pattern) {
            return Ok(Self::Linear { regex: regex.clone(), tail });
        }
        // A known pattern with look-around elsewhere.
        let around = AROUND.iter().any(|around| head.unwrap_or(pattern).contains(around));
        if around || patterns.linear.len() >= LINEAR_PATTERNS {
            return Ok(Self::Counted(Backtrack::new(pattern, patterns)?));
        }
        let tail_too = tail.map(|_| r"\s+".to_owned());
        let alternatives = [head.unwrap_or(pattern).to_owned()].into_iter().chain(tail_too).collect();
        let regex = Arc::new(Linear::new(alternatives));
        patterns.linear.insert(pattern.to_owned(), regex.clone());
        Ok(Self::Linear { regex, tail })
    }

    /// Compiles a pattern of a file; adds its cost to `patterns`.
    ///
    /// # Errors
    /// [`TokenizerError::Pattern`], [`TokenizerError::Limit`].
    pub(super) fn new(pattern: &str, patterns: &mut Patterns) -> Result<Self, TokenizerError> {
        match pre::is_known(pattern) {
            true => Self::known(pattern, patterns),
            false => Ok(Self::Counted(Backtrack::new(pattern, patterns)?)),
        }
    }

    /// A literal text to find.
    ///
    /// # Errors
    /// The errors of [`Self::new`].
    pub(super) fn literal(text: &str, patterns: &mut Patterns) -> Result<Self, TokenizerError> {
        match text.is_empty() {
            true => Self::new("", patterns),
            false => Ok(Self::Literal(text.to_owned())),
        }
    }

    /// Calls `found` with every match in order; a match may be empty.
    ///
    /// # Errors
    /// [`TokenizerError::PatternTooCostly`], and the errors of `found`.
    fn matches(
        &self,
        text: &str,
        fuel: &mut u64,
        mut found: impl FnMut(std::ops::Range<usize>) -> Result<(), TokenizerError>,
    ) -> Result<(), TokenizerError> {
        match self {
            Self::Literal(literal) => {
                text.match_indices(literal.as_str()).try_for_each(|(start, part)| found(start..start + part.len()))
            }
            Self::Linear { regex, tail } => {
                let regex = regex.regex(text)?;
                let find = |from| {
                    let found = regex.search(&Input::new(text).range(from..))?;
                    let mut end = found.end();
                    if Some(found.pattern()) == *tail && end < text.len() {
                        let run = text.get(found.range()).unwrap_or_default();
                        let last = run.chars().next_back().map_or(0, char::len_utf8);
                        if last < run.len() {
                            end = end.saturating_sub(last);
                        }
                    }
                    Some(found.start()..end)
                };
                every(text, |from| Ok(find(from)), found)
            }
            Self::Counted(pattern) => {
                let mut searcher = pattern.searcher();
                every(text, |from| searcher.find(text, from, fuel), found)
            }
        }
    }

    /// Calls `piece` with every match (`true`) and every gap between matches (`false`), which cover the text in order.
    /// An empty match is a piece, too: it splits the text at its position.
    ///
    /// # Errors
    /// [`TokenizerError::PatternTooCostly`], and the errors of `piece`.
    pub(super) fn split(
        &self,
        text: &str,
        fuel: &mut u64,
        mut piece: impl FnMut(std::ops::Range<usize>, bool) -> Result<(), TokenizerError>,
    ) -> Result<(), TokenizerError> {
        let mut gap = 0;
        self.matches(text, fuel, |range| {
            if gap < range.start {
                piece(gap..range.start, false)?;
            }
            gap = range.end;
            piece(range, true)
        })?;
        match gap < text.len() {
            true => piece(gap..text.len(), false),
            false => Ok(()),
        }
    }
}

/// All non-overlapping matches; an empty one directly after another does not count, as in every Rust engine.
fn every(
    text: &str,
    mut find: impl FnMut(usize) -> Result<Option<std::ops::Range<usize>>, TokenizerError>,
    mut found: impl FnMut(std::ops::Range<usize>) -> Result<(), TokenizerError>,
) -> Result<(), TokenizerError> {
    let (mut from, mut last) = (0, None);
    while from <= text.len() {
        let Some(range) = find(from)? else { break };
        let end = range.end;
        if range.is_empty() {
            from = end + text.get(end..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8);
            if last == Some(end) {
                continue;
            }
        } else {
            from = end;
        }
        last = Some(end);
        found(range)?;
    }
    Ok(())
}

/// Splits by each pattern in turn, every piece (match or gap) being split on by the next one. Empty pieces are left
/// out.
///
/// # Errors
/// [`TokenizerError::PatternTooCostly`], and the errors of `piece`.
pub(super) fn split_all<'t>(
    splitters: &[Splitter],
    text: &'t str,
    fuel: &mut u64,
    piece: &mut impl FnMut(&'t str) -> Result<(), TokenizerError>,
) -> Result<(), TokenizerError> {
    let Some((first, rest)) = splitters.split_first() else {
        return if text.is_empty() { Ok(()) } else { piece(text) };
    };
    if rest.is_empty() {
        return first.split(text, fuel, |range, _| match text.get(range).filter(|part| !part.is_empty()) {
            Some(part) => piece(part),
            None => Ok(()),
        });
    }
    // The pieces of all steps but the last are kept: the steps share one account.
    let mut parts = Vec::new();
    first.split(text, fuel, |range, _| {
        parts.extend(text.get(range).filter(|part| !part.is_empty()));
        Ok(())
    })?;
    parts.into_iter().try_for_each(|part| split_all(rest, part, fuel, piece))
}

#[cfg(test)]
mod tests {
    use super::super::pre::{GPT2, LLAMA3, QWEN2};
    use super::*;
    use proptest::prelude::*;

    /// The pattern with its look-ahead, by the backtracking engine of the `tokenizers` library.
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
        let splitter = Splitter::known(pattern, &mut Patterns::default()).expect("pattern");
        assert!(matches!(splitter, Splitter::Linear { .. }));
        pieces(&splitter, text)
    }

    fn pieces(splitter: &Splitter, text: &str) -> Vec<String> {
        let (mut pieces, mut fuel) = (Vec::new(), u64::MAX);
        let mut keep = |piece: &str| {
            pieces.push(piece.to_owned());
            Ok(())
        };
        split_all(std::slice::from_ref(splitter), text, &mut fuel, &mut keep).expect("split");
        pieces
    }

    /// Splits with the engine that counts its steps.
    fn counted(pattern: &str, text: &str) -> Vec<String> {
        let pattern = Backtrack::new(pattern, &mut Patterns::default()).expect("pattern");
        pieces(&Splitter::Counted(pattern), text)
    }

    /// One pattern for each thing that the engine can do.
    const CONSTRUCTS: &[&str] = &[
        "a|b",
        "ab|a|",
        "(?:ab)*b",
        "(?:ab)+?",
        "a{2}",
        "a{1,3}?b",
        "a{,2}b",
        "(a|ab)(b|)",
        "(?i:a)b",
        "(?i)a(?-i)b",
        "a(?=b)",
        "a(?!b)",
        "(?<=a)b",
        "(?<!a)b",
        "(?<=ab|b)a",
        "(?<!aa|b)a",
        "(?>a+)b",
        "a++b",
        "a*+",
        "(?:a?)*b",
        "(?:a*)*",
        "(?:a*|b)*",
        "(?:a*?b??)+",
        r"\bA",
        r"\B[0-9]",
        "^a",
        "b$",
        "(?m)^a|b$",
        "(?s).",
        ".+",
        ".+?b",
        "[^a]+",
        "[a-b&&[^b]]+",
        r"[\p{L}&&[^b]]+",
        r"[[:digit:]x]+",
        r"\x61\u0062|\x{62}",
        r"\p{Lu}+|\PL",
        "(?x) a  b # comment\n | b",
        "(?P<n>a)b",
        "(?<n>a)b",
        r"\d{1,3}(?=(?:\d{3})*\b)",
        r"(?=(\d{3})+(?!\d))",
        r"\s+(?!\S)",
        r"\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
        r"[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+|\p{N}",
        "",
    ];

    #[test]
    fn unsupported_patterns_say_what_is_not_supported() {
        for (pattern, part) in [
            (r"(a)\1", "references"),
            ("(?<=a+)b", "look-behind of varying length"),
            ("(?R)", "(?R"),
            (r"a\K", "\\K"),
            ("(a", "not closed"),
            ("a)", "without a ("),
            ("[a", "not closed"),
            ("*", "nothing to repeat"),
            (r"\p{Nope}", "Unicode property"),
            ("a\\", "backslash"),
        ] {
            let error = Splitter::new(pattern, &mut Patterns::default()).expect_err(pattern);
            assert!(error.to_string().contains(part), "{pattern}: {error}");
        }
    }

    #[test]
    fn steps_and_sizes_are_bounded() {
        let text = "a".repeat(40);
        let pattern = Splitter::new("(?:a|aa)*(?:a*)*c", &mut Patterns::default()).expect("pattern");
        let error = pattern.split(&text, &mut 1_000_000, |_, _| Ok(())).expect_err("never ends");
        assert!(matches!(error, TokenizerError::PatternTooCostly { .. }), "{error}");
        let error = Splitter::new("(?:(?:(?:a{9}b){99}){99}){99}", &mut Patterns::default()).expect_err("too large");
        assert!(matches!(error, TokenizerError::Limit { .. }), "{error}");
        // Empty nodes are left out, and a run of one character is one step.
        Splitter::new("(?:(?:(?:){999999999}){999999999}a){999999999}", &mut Patterns::default()).expect("small");
        // A thousand patterns with large classes cost as much as one.
        let mut patterns = Patterns::default();
        for _ in 0..1000 {
            Splitter::new(r"[\p{L}\p{N}]+\p{L}|\p{N}", &mut patterns).expect("pattern");
        }
        let many: String = (0..9000).map(|i| format!(r"[\pL{}]", char::from_u32(0x4e00 + i).expect("char"))).collect();
        let error = Splitter::new(&many, &mut Patterns::default()).expect_err("too large");
        assert!(matches!(error, TokenizerError::Limit { .. }), "{error}");
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
        assert_eq!(ours("x*", "ab"), ["a", "b"], "an empty match splits the text");
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
                prop_assert_eq!(counted(pattern, &text), oracle(pattern, &text));
            }
        }

        #[test]
        fn every_construct_equals_the_backtracking_engine(text in r"([ab]{0,6}|[0-9]{0,5}|[ \n\tA-Bé]{0,3}|\PC){0,5}") {
            for pattern in CONSTRUCTS {
                prop_assert_eq!(counted(pattern, &text), oracle(pattern, &text), "{}", pattern);
            }
        }
    }
}
