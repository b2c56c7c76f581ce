//! Pre-tokenizers: how a text is cut into words.
//!
//! The shapes that byte-level vocabularies have in practice (split patterns, then `ByteLevel`) run on slices of the
//! text. All other kinds of `tokenizer.json` run on pieces of a text that the steps may change, within the limits of
//! the [`Meter`].

use std::ops::Range;

use serde_json::Value;
use unicode_categories::UnicodeCategories;

use super::bytes::stand_in;
use super::error::TokenizerError;
use super::limits::{Meter, STEPS, at_most};
use super::normalize::{Out, pattern};
use super::pattern::Patterns;
use super::pre::GPT2;
use super::scripts::script;
use super::split::{Splitter, split_all};

/// Treatment of the matches of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behavior {
    Removed,
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

/// When `Metaspace` puts its mark in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prepend {
    First,
    Never,
    Always,
}

/// Which characters a step looks for.
#[derive(Debug, Clone, Copy)]
enum Find {
    Space,
    Punctuation,
    Numeric,
    One(char),
}

impl Find {
    fn has(self, c: char) -> bool {
        match self {
            Self::Space => c.is_whitespace(),
            Self::Punctuation => c.is_ascii_punctuation() || c.is_punctuation(),
            Self::Numeric => c.is_numeric(),
            Self::One(one) => c == one,
        }
    }
}

/// One step of a pre-tokenizer.
#[derive(Debug)]
enum Step {
    Split {
        splitter: Splitter,
        behavior: Behavior,
        invert: bool,
    },
    Chars {
        find: Find,
        behavior: Behavior,
    },
    PrefixSpace,
    /// Translate to the stand-in characters of byte-level vocabularies.
    ByteLevelMap,
    Metaspace {
        mark: char,
        prepend: Prepend,
        split: bool,
    },
    Scripts,
    FixedLength(usize),
}

/// How a text is split into words.
#[derive(Debug)]
pub(super) enum PreTokenization {
    /// Split patterns, every match and every gap being a piece; the pieces are slices of the text.
    Slices(Vec<Splitter>),
    /// Anything else.
    Steps(Steps),
}

/// The steps of a pre-tokenizer.
#[derive(Debug)]
pub(super) struct Steps(Vec<Step>);

/// Result of [`PreTokenization::from_json`].
pub(super) struct Parsed {
    pub(super) pre: PreTokenization,
    /// The words must be looked up as raw bytes: the translation to stand-in characters was the last step and has been
    /// left out.
    pub(super) raw_bytes: bool,
}

impl PreTokenization {
    /// Reads the `pre_tokenizer` of a `tokenizer.json`.
    ///
    /// # Errors
    /// Unknown kinds and options, patterns that cannot be compiled, too many steps.
    pub(super) fn from_json(value: Option<&Value>, patterns: &mut Patterns) -> Result<Parsed, TokenizerError> {
        let mut steps = Vec::new();
        if let Some(value) = value.filter(|value| !value.is_null()) {
            collect(value, &mut steps, patterns)?;
        }
        let raw_bytes = matches!(steps.last(), Some(Step::ByteLevelMap));
        if raw_bytes {
            steps.pop();
        }
        let isolated = |step: &Step| matches!(step, Step::Split { behavior: Behavior::Isolated, .. });
        let pre = if steps.iter().all(isolated) {
            let splitter = |step| match step {
                Step::Split { splitter, .. } => Some(splitter),
                _ => None,
            };
            Self::Slices(steps.into_iter().filter_map(splitter).collect())
        } else {
            Self::Steps(Steps(steps))
        };
        Ok(Parsed { pre, raw_bytes })
    }

    /// SentencePiece's rule: spaces become marks, each of which begins a word.
    pub(super) fn sentencepiece(mark: char, prefix: bool) -> Self {
        let prepend = if prefix { Prepend::Always } else { Prepend::Never };
        Self::Steps(Steps(vec![Step::Metaspace { mark, prepend, split: true }]))
    }

    /// Calls `word` with every word of a text; `at_start`: the text is the beginning of the encoded text.
    ///
    /// # Errors
    /// [`TokenizerError::Growth`], [`TokenizerError::TooMuchWork`], [`TokenizerError::PatternTooCostly`], and the
    /// errors of `word`.
    pub(super) fn words(
        &self,
        text: &str,
        at_start: bool,
        meter: &mut Meter,
        mut word: impl FnMut(&str) -> Result<(), TokenizerError>,
    ) -> Result<(), TokenizerError> {
        match self {
            Self::Slices(splitters) => {
                meter.used(text.len());
                split_all(splitters, text, meter.fuel(), &mut word)
            }
            Self::Steps(steps) => {
                let mut pieces = Pieces { text: text.into(), ranges: vec![], at_start };
                pieces.ranges.push(0..text.len() as u32);
                for step in &steps.0 {
                    step.run(&mut pieces, meter)?;
                    meter.worked(pieces.text.len())?;
                }
                meter.used(pieces.text.len());
                pieces.ranges.iter().filter_map(|range| slice(&pieces.text, range)).try_for_each(word)
            }
        }
    }
}

/// A text, and the pieces that the steps have made of it, never empty. Texts are shorter than 4 GiB.
struct Pieces<'t> {
    text: std::borrow::Cow<'t, str>,
    ranges: Vec<Range<u32>>,
    /// Whether the first piece is at the beginning of the whole text.
    at_start: bool,
}

fn slice<'t>(text: &'t str, range: &Range<u32>) -> Option<&'t str> {
    text.get(range.start as usize..range.end as usize).filter(|piece| !piece.is_empty())
}

impl Pieces<'_> {
    /// Cuts every piece; `cut` gets a piece and appends ranges within it.
    fn cut(
        &mut self,
        mut cut: impl FnMut(&str, &mut Vec<Range<usize>>) -> Result<(), TokenizerError>,
    ) -> Result<(), TokenizerError> {
        let mut ranges = Vec::with_capacity(self.ranges.len());
        let mut parts = Vec::new();
        let mut at_start = self.at_start;
        for (index, range) in self.ranges.iter().enumerate() {
            let Some(piece) = slice(&self.text, range) else { continue };
            parts.clear();
            cut(piece, &mut parts)?;
            if index == 0 {
                at_start &= parts.iter().find(|part| !part.is_empty()).is_some_and(|part| part.start == 0);
            }
            ranges.extend(parts.iter().filter(|part| !part.is_empty()).map(|part| {
                let end = |at: usize| range.start.saturating_add(at as u32);
                end(part.start)..end(part.end)
            }));
        }
        self.at_start = at_start;
        self.ranges = ranges;
        Ok(())
    }

    /// Rewrites every piece; `write` gets a piece and whether it begins the whole text.
    fn rewrite(
        &mut self,
        meter: &Meter,
        mut write: impl FnMut(&str, bool, &mut Out<'_>) -> Result<(), TokenizerError>,
    ) -> Result<(), TokenizerError> {
        let mut out = Out::new(meter, self.text.len());
        for (index, range) in self.ranges.iter_mut().enumerate() {
            let start = out.text.len() as u32;
            if let Some(piece) = slice(&self.text, range) {
                write(piece, self.at_start && index == 0, &mut out)?;
            }
            *range = start..out.text.len() as u32;
        }
        self.text = out.text.into();
        Ok(())
    }
}

/// Applies a behavior to the matches and gaps of a piece.
fn behave(events: &[(Range<usize>, bool)], behavior: Behavior, parts: &mut Vec<Range<usize>>) {
    let first = parts.len();
    let mut previous = false;
    match behavior {
        Behavior::Isolated => parts.extend(events.iter().map(|(range, _)| range.clone())),
        Behavior::Removed => parts.extend(events.iter().filter(|(_, found)| !found).map(|(range, _)| range.clone())),
        Behavior::Contiguous | Behavior::MergedWithPrevious => {
            for (range, found) in events {
                let joined = match behavior {
                    Behavior::Contiguous => *found == previous,
                    _ => *found && !previous,
                };
                match parts.get_mut(first..).and_then(<[_]>::last_mut).filter(|_| joined) {
                    Some(last) => last.end = range.end,
                    None => parts.push(range.clone()),
                }
                previous = *found;
            }
        }
        Behavior::MergedWithNext => {
            for (range, found) in events.iter().rev() {
                match parts.get_mut(first..).and_then(<[_]>::last_mut).filter(|_| *found && !previous) {
                    Some(last) => last.start = range.start,
                    None => parts.push(range.clone()),
                }
                previous = *found;
            }
            if let Some(new) = parts.get_mut(first..) {
                new.reverse();
            }
        }
    }
}

/// The characters that a step finds, and the text between them.
fn events(piece: &str, find: Find, events: &mut Vec<(Range<usize>, bool)>) {
    events.clear();
    let mut gap = 0;
    for (at, c) in piece.char_indices().filter(|(_, c)| find.has(*c)) {
        if gap < at {
            events.push((gap..at, false));
        }
        gap = at + c.len_utf8();
        events.push((at..gap, true));
    }
    if gap < piece.len() {
        events.push((gap..piece.len(), false));
    }
}

impl Step {
    fn run(&self, pieces: &mut Pieces<'_>, meter: &mut Meter) -> Result<(), TokenizerError> {
        let mut found = Vec::new();
        match self {
            Self::Split { splitter, behavior, invert } => pieces.cut(|piece, parts| {
                found.clear();
                splitter.split(piece, meter.fuel(), |range, is_match| {
                    found.push((range, is_match != *invert));
                    Ok(())
                })?;
                behave(&found, *behavior, parts);
                Ok(())
            }),
            Self::Chars { find, behavior } => pieces.cut(|piece, parts| {
                events(piece, *find, &mut found);
                behave(&found, *behavior, parts);
                Ok(())
            }),
            Self::PrefixSpace => pieces.rewrite(meter, |piece, _, out| {
                if !piece.starts_with(' ') {
                    out.push(' ')?;
                }
                out.push_str(piece)
            }),
            Self::ByteLevelMap => {
                pieces.rewrite(meter, |piece, _, out| piece.bytes().try_for_each(|byte| out.push(stand_in(byte))))
            }
            Self::Metaspace { mark, prepend, split } => {
                pieces.rewrite(meter, |piece, first, out| {
                    let wanted = *prepend == Prepend::Always || (*prepend == Prepend::First && first);
                    if wanted && !piece.starts_with([*mark, ' ']) {
                        out.push(*mark)?;
                    }
                    piece.chars().try_for_each(|c| out.push(if c == ' ' { *mark } else { c }))
                })?;
                if !split {
                    return Ok(());
                }
                pieces.cut(|piece, parts| {
                    events(piece, Find::One(*mark), &mut found);
                    behave(&found, Behavior::MergedWithNext, parts);
                    Ok(())
                })
            }
            Self::Scripts => pieces.cut(|piece, parts| {
                // As in the library, the text before the first split is not a piece.
                let (mut last, mut start) = (None, None);
                for (at, c) in piece.char_indices() {
                    let now = script(c);
                    if now.is_some() && last != now {
                        parts.extend(start.replace(at).map(|start| start..at));
                        last = now;
                    }
                }
                parts.extend(start.map(|start| start..piece.len()));
                Ok(())
            }),
            Self::FixedLength(length) => pieces.cut(|piece, parts| {
                let mut start = 0;
                for (count, (at, _)) in piece.char_indices().enumerate() {
                    if count > 0 && count % length == 0 {
                        parts.push(start..at);
                        start = at;
                    }
                }
                parts.push(start..piece.len());
                Ok(())
            }),
        }
    }
}

fn bad(reason: impl std::fmt::Display) -> TokenizerError {
    let source = <serde_json::Error as serde::de::Error>::custom(reason);
    TokenizerError::Json { what: "the pre_tokenizer of tokenizer.json", source }
}

fn behavior(value: &Value, default: Option<Behavior>) -> Result<Behavior, TokenizerError> {
    match (value.get("behavior").and_then(Value::as_str), default) {
        (Some("Removed"), _) => Ok(Behavior::Removed),
        (Some("Isolated"), _) => Ok(Behavior::Isolated),
        (Some("MergedWithPrevious"), _) => Ok(Behavior::MergedWithPrevious),
        (Some("MergedWithNext"), _) => Ok(Behavior::MergedWithNext),
        (Some("Contiguous"), _) => Ok(Behavior::Contiguous),
        (Some(other), _) => Err(bad(format!("{other:?} is not a known behavior"))),
        (None, Some(default)) => Ok(default),
        (None, None) => Err(bad("behavior is missing")),
    }
}

fn one_char(value: &Value, name: &str) -> Result<char, TokenizerError> {
    let mut chars = value.get(name).and_then(Value::as_str).unwrap_or_default().chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => Ok(c),
        _ => Err(bad(format!("{name} is missing or not one character"))),
    }
}

fn collect(value: &Value, steps: &mut Vec<Step>, patterns: &mut Patterns) -> Result<(), TokenizerError> {
    let kind = value.get("type").and_then(Value::as_str).ok_or_else(|| bad("a step has no type"))?;
    let flag = |name: &str| value.get(name).and_then(Value::as_bool);
    match kind {
        "Sequence" => {
            let children = value.get("pretokenizers").and_then(Value::as_array);
            let children = children.ok_or_else(|| bad("pretokenizers is missing or no list"))?;
            children.iter().try_for_each(|child| collect(child, steps, patterns))?;
        }
        "ByteLevel" => {
            if flag("add_prefix_space").unwrap_or(true) {
                steps.push(Step::PrefixSpace);
            }
            if flag("use_regex").unwrap_or(true) {
                let splitter = Splitter::known(GPT2, patterns)?;
                steps.push(Step::Split { splitter, behavior: Behavior::Isolated, invert: false });
            }
            steps.push(Step::ByteLevelMap);
        }
        "Split" => {
            let behavior = behavior(value, None)?;
            let splitter = pattern(value, patterns)?.ok_or_else(|| bad("Split has no pattern"))?;
            steps.push(Step::Split { splitter, behavior, invert: flag("invert").unwrap_or(false) });
        }
        "Metaspace" => {
            let mut prepend = match value.get("prepend_scheme").map(|scheme| scheme.as_str().unwrap_or_default()) {
                None | Some("always") => Prepend::Always,
                Some("first") => Prepend::First,
                Some("never") => Prepend::Never,
                Some(other) => return Err(bad(format!("{other:?} is not a known prepend_scheme"))),
            };
            if flag("add_prefix_space") == Some(false) {
                if value.get("prepend_scheme").is_some() && prepend != Prepend::Never {
                    return Err(bad("add_prefix_space and prepend_scheme contradict each other"));
                }
                prepend = Prepend::Never;
            }
            let mark = one_char(value, "replacement")?;
            steps.push(Step::Metaspace { mark, prepend, split: flag("split").unwrap_or(true) });
        }
        "Whitespace" => {
            let splitter = Splitter::known(r"\w+|[^\w\s]+", patterns)?;
            steps.push(Step::Split { splitter, behavior: Behavior::Removed, invert: true });
        }
        "WhitespaceSplit" => steps.push(Step::Chars { find: Find::Space, behavior: Behavior::Removed }),
        "BertPreTokenizer" => {
            steps.push(Step::Chars { find: Find::Space, behavior: Behavior::Removed });
            steps.push(Step::Chars { find: Find::Punctuation, behavior: Behavior::Isolated });
        }
        "Punctuation" => {
            let behavior = behavior(value, Some(Behavior::Isolated))?;
            steps.push(Step::Chars { find: Find::Punctuation, behavior });
        }
        "Digits" => {
            let behavior = match flag("individual_digits").ok_or_else(|| bad("individual_digits is missing"))? {
                true => Behavior::Isolated,
                false => Behavior::Contiguous,
            };
            steps.push(Step::Chars { find: Find::Numeric, behavior });
        }
        "Delimiter" | "CharDelimiterSplit" => {
            steps.push(Step::Chars { find: Find::One(one_char(value, "delimiter")?), behavior: Behavior::Removed });
        }
        "UnicodeScripts" => steps.push(Step::Scripts),
        "FixedLength" => {
            let length = value.get("length").map_or(Some(5), Value::as_u64);
            match length.and_then(|length| usize::try_from(length).ok()).filter(|length| *length > 0) {
                Some(length) => steps.push(Step::FixedLength(length)),
                None => return Err(bad("length is not a positive number")),
            }
        }
        other => return Err(bad(format!("{other:?} is not a known type"))),
    }
    at_most("steps of the pre-tokenizer", steps.len(), STEPS)
}
