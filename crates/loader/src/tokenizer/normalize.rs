//! Normalisers: changes of a text before it is split.
//!
//! All kinds of `tokenizer.json` are written out here, on strings that are only as long as the [`Meter`] allows: a
//! chain of replacements that each make ten letters of one must not fill the memory.

use std::borrow::Cow;

use serde_json::Value;
use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::UnicodeNormalization;
use unicode_normalization_alignments::char::is_combining_mark;

use super::bytes::stand_in;
use super::charsmap::Charsmap;
use super::error::TokenizerError;
use super::limits::{Meter, STEPS, at_most};
use super::pattern::Patterns;
use super::split::Splitter;

/// A text under construction that cannot become longer than allowed.
pub(super) struct Out<'m> {
    pub(super) text: String,
    meter: &'m Meter,
}

impl<'m> Out<'m> {
    pub(super) fn new(meter: &'m Meter, len: usize) -> Self {
        Self { text: String::with_capacity(len), meter }
    }

    /// Appends a text.
    ///
    /// # Errors
    /// [`TokenizerError::Growth`].
    pub(super) fn push_str(&mut self, text: &str) -> Result<(), TokenizerError> {
        self.meter.fits(self.text.len().saturating_add(text.len()))?;
        self.text.push_str(text);
        Ok(())
    }

    /// Appends a character.
    ///
    /// # Errors
    /// [`TokenizerError::Growth`].
    pub(super) fn push(&mut self, c: char) -> Result<(), TokenizerError> {
        self.meter.fits(self.text.len().saturating_add(c.len_utf8()))?;
        self.text.push(c);
        Ok(())
    }

    fn extend(&mut self, chars: impl Iterator<Item = char>) -> Result<(), TokenizerError> {
        let mut chars = chars;
        chars.try_for_each(|c| self.push(c))
    }
}

#[derive(Debug)]
enum Step {
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
    Lowercase,
    Strip { left: bool, right: bool },
    StripAccents,
    Nmt,
    Bert { clean: bool, chinese: bool, accents: bool, lowercase: bool },
    Prepend(String),
    Replace { from: Splitter, to: String },
    ByteLevel,
    Charsmap(Charsmap),
}

/// Normalisation of the text before it is split.
#[derive(Debug, Default)]
pub(super) struct Normalization(Vec<Step>);

fn bad(reason: impl std::fmt::Display) -> TokenizerError {
    let source = <serde_json::Error as serde::de::Error>::custom(reason);
    TokenizerError::Json { what: "the normalizer of tokenizer.json", source }
}

fn text<'v>(value: &'v Value, name: &str) -> Result<&'v str, TokenizerError> {
    value.get(name).and_then(Value::as_str).ok_or_else(|| bad(format!("{name} is missing or no text")))
}

fn flag(value: &Value, name: &str) -> Result<bool, TokenizerError> {
    value.get(name).and_then(Value::as_bool).ok_or_else(|| bad(format!("{name} is missing or neither true nor false")))
}

/// The pattern of a step: a literal text or a regular expression.
pub(super) fn pattern(value: &Value, patterns: &mut Patterns) -> Result<Option<Splitter>, TokenizerError> {
    let pattern = value.get("pattern");
    let text = |name| pattern.and_then(|pattern| pattern.get(name)).and_then(Value::as_str);
    match (text("Regex"), text("String")) {
        (Some(regex), _) => Splitter::new(regex, patterns).map(Some),
        (None, Some(literal)) => Splitter::literal(literal, patterns).map(Some),
        (None, None) => Ok(None),
    }
}

impl Normalization {
    /// Reads the `normalizer` of a `tokenizer.json`.
    ///
    /// # Errors
    /// Unknown kinds and missing options, patterns that cannot be compiled, too many steps.
    pub(super) fn from_json(value: Option<&Value>, patterns: &mut Patterns) -> Result<Self, TokenizerError> {
        let mut steps = Vec::new();
        if let Some(value) = value.filter(|value| !value.is_null()) {
            collect(value, &mut steps, patterns)?;
        }
        Ok(Self(steps))
    }

    /// The normalisation of Qwen 2 vocabularies (NFC).
    pub(super) fn nfc() -> Self {
        Self(vec![Step::Nfc])
    }

    /// SentencePiece's rules, and whether its runs of spaces become one.
    ///
    /// # Errors
    /// Malformed rules.
    pub(super) fn sentencepiece(charsmap: Option<&[u8]>, squeeze: bool) -> Result<Self, TokenizerError> {
        let mut steps = Vec::new();
        if let Some(bytes) = charsmap.filter(|bytes| !bytes.is_empty()) {
            steps.push(Step::Charsmap(Charsmap::new(bytes)?));
        }
        if squeeze {
            steps.push(Step::Strip { left: true, right: true });
            steps.push(Step::Replace { from: Splitter::known(" {2,}", &mut Patterns::default())?, to: " ".to_owned() });
        }
        Ok(Self(steps))
    }

    /// Applies it.
    ///
    /// # Errors
    /// [`TokenizerError::Growth`], [`TokenizerError::TooMuchWork`], [`TokenizerError::PatternTooCostly`].
    pub(super) fn apply<'t>(&self, text: &'t str, meter: &mut Meter) -> Result<Cow<'t, str>, TokenizerError> {
        let mut text = Cow::Borrowed(text);
        for step in &self.0 {
            if let Some(changed) = step.apply(&text, meter)? {
                meter.worked(changed.len())?;
                text = Cow::Owned(changed);
            }
            meter.worked(text.len())?;
        }
        Ok(text)
    }
}

fn collect(value: &Value, steps: &mut Vec<Step>, patterns: &mut Patterns) -> Result<(), TokenizerError> {
    let kind = value.get("type").and_then(Value::as_str).ok_or_else(|| bad("a step has no type"))?;
    let step = match kind {
        "Sequence" => {
            let children = value.get("normalizers").and_then(Value::as_array);
            let children = children.ok_or_else(|| bad("normalizers is missing or no list"))?;
            return children.iter().try_for_each(|child| collect(child, steps, patterns));
        }
        "NFC" => Step::Nfc,
        "NFD" => Step::Nfd,
        "NFKC" => Step::Nfkc,
        "NFKD" => Step::Nfkd,
        "Lowercase" => Step::Lowercase,
        "Strip" => Step::Strip { left: flag(value, "strip_left")?, right: flag(value, "strip_right")? },
        "StripAccents" => Step::StripAccents,
        "Nmt" => Step::Nmt,
        "Bert" | "BertNormalizer" => {
            let lowercase = flag(value, "lowercase")?;
            Step::Bert {
                clean: flag(value, "clean_text")?,
                chinese: flag(value, "handle_chinese_chars")?,
                accents: value.get("strip_accents").and_then(Value::as_bool).unwrap_or(lowercase),
                lowercase,
            }
        }
        "Prepend" => Step::Prepend(text(value, "prepend")?.to_owned()),
        "Replace" => {
            let from = pattern(value, patterns)?.ok_or_else(|| bad("Replace has no pattern"))?;
            Step::Replace { from, to: text(value, "content")?.to_owned() }
        }
        "ByteLevel" => Step::ByteLevel,
        "Precompiled" => Step::Charsmap(Charsmap::from_base64(text(value, "precompiled_charsmap")?)?),
        other => return Err(bad(format!("{other:?} is not a known type"))),
    };
    steps.push(step);
    at_most("steps of the normalizer", steps.len(), STEPS)
}

impl Step {
    /// The changed text; `None` if it does not change.
    fn apply(&self, text: &str, meter: &mut Meter) -> Result<Option<String>, TokenizerError> {
        if text.is_empty() && !matches!(self, Self::Replace { .. }) {
            return Ok(None);
        }
        if let Self::Replace { from, to } = self {
            return replace(from, to, text, meter);
        }
        let ascii = text.is_ascii();
        let mut out = Out::new(meter, text.len());
        match self {
            // Forms of ASCII text are the text.
            Self::Nfc | Self::Nfd | Self::Nfkc | Self::Nfkd | Self::StripAccents if ascii => return Ok(None),
            Self::Nfc => out.extend(text.nfc().map(|(c, _)| c))?,
            Self::Nfd => out.extend(text.nfd().map(|(c, _)| c))?,
            Self::Nfkc => out.extend(text.nfkc().map(|(c, _)| c))?,
            Self::Nfkd => out.extend(text.nfkd().map(|(c, _)| c))?,
            Self::Lowercase => out.extend(text.chars().flat_map(char::to_lowercase))?,
            Self::Strip { left, right } => {
                let text = if *left { text.trim_start() } else { text };
                out.push_str(if *right { text.trim_end() } else { text })?;
            }
            Self::StripAccents => out.extend(text.chars().filter(|c| !is_combining_mark(*c)))?,
            Self::Nmt => out.extend(text.chars().filter(|c| !nmt_drops(*c)).map(nmt))?,
            Self::Bert { clean, chinese, accents, lowercase } => {
                let mut text = Cow::Borrowed(text);
                if *clean {
                    let kept = |c: &char| !(matches!(c, '\0' | '\u{fffd}') || is_control(*c));
                    let space = |c: char| if c.is_whitespace() { ' ' } else { c };
                    text = text.chars().filter(kept).map(space).collect::<String>().into();
                }
                if *chinese {
                    for c in text.chars() {
                        match is_chinese(c) {
                            true => out.extend([' ', c, ' '].into_iter())?,
                            false => out.push(c)?,
                        }
                    }
                    text = std::mem::take(&mut out.text).into();
                }
                if *accents {
                    out.extend(text.nfd().map(|(c, _)| c).filter(|c| !c.is_mark_nonspacing()))?;
                    text = std::mem::take(&mut out.text).into();
                }
                match lowercase {
                    true => out.extend(text.chars().flat_map(char::to_lowercase))?,
                    false => out.push_str(&text)?,
                }
            }
            Self::Prepend(prefix) => {
                out.push_str(prefix)?;
                out.push_str(text)?;
            }
            Self::ByteLevel => out.extend(text.bytes().map(stand_in))?,
            Self::Charsmap(map) => map.apply(text, &mut out)?,
            Self::Replace { .. } => return Ok(None),
        }
        Ok(Some(out.text))
    }
}

fn replace(from: &Splitter, to: &str, text: &str, meter: &mut Meter) -> Result<Option<String>, TokenizerError> {
    let mut fuel = std::mem::take(meter.fuel());
    let mut out = Out::new(meter, text.len());
    // The library looks for nothing in an empty text.
    let done = match text.is_empty() {
        true => Ok(()),
        false => from.split(text, &mut fuel, |range, found| match found {
            true => out.push_str(to),
            false => out.push_str(text.get(range).unwrap_or_default()),
        }),
    };
    let text = out.text;
    *meter.fuel() = fuel;
    done.map(|()| Some(text))
}

/// Control characters other than tab and line breaks, and unassigned characters.
fn is_control(c: char) -> bool {
    !matches!(c, '\t' | '\n' | '\r') && c.is_other()
}

/// Ideographs, as the BERT normaliser counts them.
fn is_chinese(c: char) -> bool {
    matches!(
        c,
        '\u{4E00}'..='\u{9FFF}'
            | '\u{3400}'..='\u{4DBF}'
            | '\u{20000}'..='\u{2A6DF}'
            | '\u{2A700}'..='\u{2B73F}'
            | '\u{2B740}'..='\u{2B81F}'
            | '\u{2B920}'..='\u{2CEAF}'
            | '\u{F900}'..='\u{FAFF}'
            | '\u{2F800}'..='\u{2FA1F}'
    )
}

/// Characters that the `Nmt` normaliser removes.
fn nmt_drops(c: char) -> bool {
    matches!(c, '\u{1}'..='\u{8}' | '\u{B}' | '\u{E}'..='\u{1F}' | '\u{7F}' | '\u{8F}' | '\u{9F}')
}

/// Characters that the `Nmt` normaliser replaces by a space.
fn nmt(c: char) -> char {
    match c {
        '\t'
        | '\n'
        | '\u{C}'
        | '\r'
        | '\u{1680}'
        | '\u{200B}'..='\u{200F}'
        | '\u{2028}'
        | '\u{2029}'
        | '\u{2581}'
        | '\u{FEFF}'
        | '\u{FFFD}' => ' ',
        c => c,
    }
}
