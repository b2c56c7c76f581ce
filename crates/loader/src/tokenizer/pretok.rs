//! Normalisers and pre-tokenizers of `tokenizer.json`.
//!
//! The shapes that byte-level vocabularies really have (split patterns, then `ByteLevel`) run on our own splitter, on
//! slices of the text. Everything else is handed to the `tokenizers` library, step by step, except that split
//! patterns run on the linear splitter wherever it can do them.

use serde_json::Value;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    NormalizedString, Normalizer, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    SplitDelimiterBehavior,
};

use super::error::TokenizerError;
use super::split::{GPT2, Splitter, split_all};

/// Runs code of the `tokenizers` library on what a file says: its errors are strings, and a panic becomes an error.
pub(super) fn guarded<T>(
    stage: &'static str,
    run: impl FnOnce() -> Result<T, Box<dyn std::error::Error + Send + Sync>>,
) -> Result<T, TokenizerError> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(TokenizerError::Library { stage, reason: error.to_string() }),
        Err(_) => Err(TokenizerError::Library { stage, reason: "the tokenizers library panicked".to_owned() }),
    }
}

/// What is done to the text before it is cut.
#[derive(Debug, Default)]
pub(super) struct Normalization(Option<NormalizerWrapper>);

impl Normalization {
    /// Reads the `normalizer` of a `tokenizer.json`.
    pub(super) fn from_json(value: Option<Value>) -> Result<Self, TokenizerError> {
        let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(Self(None)) };
        let parsed = guarded("reading the normalizer", || Ok(serde_json::from_value(value)))?;
        Ok(Self(Some(
            parsed.map_err(|source| TokenizerError::Json { what: "the normalizer of tokenizer.json", source })?,
        )))
    }

    /// The normalisation of Qwen 2 vocabularies (NFC).
    pub(super) fn nfc() -> Self {
        Self(Some(NormalizerWrapper::NFC(tokenizers::normalizers::NFC)))
    }

    /// Applies it.
    pub(super) fn apply<'t>(&self, text: &'t str) -> Result<std::borrow::Cow<'t, str>, TokenizerError> {
        let Some(normalizer) = &self.0 else { return Ok(text.into()) };
        guarded("normalizing the text", || {
            let mut normalized = NormalizedString::from(text);
            normalizer.normalize(&mut normalized)?;
            Ok(normalized.get().to_owned().into())
        })
    }
}

/// One step of a pre-tokenizer.
#[derive(Debug)]
enum Step {
    Split {
        splitter: Splitter,
        behavior: SplitDelimiterBehavior,
        invert: bool,
    },
    PrefixSpace,
    /// Translate to the stand-in characters of byte-level vocabularies.
    ByteLevelMap(ByteLevel),
    /// `Metaspace`, which treats the beginning of the text in its own way.
    Metaspace {
        first: PreTokenizerWrapper,
        later: PreTokenizerWrapper,
    },
    Library(PreTokenizerWrapper),
}

/// How a text is cut into words.
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

/// What [`PreTokenization::from_json`] found.
pub(super) struct Parsed {
    pub(super) pre: PreTokenization,
    /// The words are to be looked up as raw bytes: the translation to stand-in characters was the last step and has
    /// been left out.
    pub(super) raw_bytes: bool,
}

impl PreTokenization {
    /// Reads the `pre_tokenizer` of a `tokenizer.json`.
    pub(super) fn from_json(value: Option<Value>) -> Result<Parsed, TokenizerError> {
        let mut steps = Vec::new();
        if let Some(value) = value {
            collect(value, &mut steps)?;
        }
        let raw_bytes = matches!(steps.last(), Some(Step::ByteLevelMap(_)));
        if raw_bytes {
            steps.pop();
        }
        let isolated = |step: &Step| matches!(step, Step::Split { behavior: SplitDelimiterBehavior::Isolated, .. });
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

    /// Calls `word` with every word of a text; `at_start`: the text is the beginning of what is encoded.
    pub(super) fn words(
        &self,
        text: &str,
        at_start: bool,
        mut word: impl FnMut(&str) -> Result<(), TokenizerError>,
    ) -> Result<(), TokenizerError> {
        match self {
            Self::Slices(splitters) => {
                let mut result = Ok(());
                split_all(splitters, text, &mut |piece| {
                    if result.is_ok() {
                        result = word(piece);
                    }
                });
                result
            }
            Self::Steps(steps) => {
                let pieces = guarded("splitting the text into words", || {
                    let mut pre = PreTokenizedString::from(text);
                    for step in &steps.0 {
                        step.run(&mut pre, at_start)?;
                    }
                    let splits = pre.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
                    Ok(splits.into_iter().map(|(piece, _, _)| piece.to_owned()).collect::<Vec<_>>())
                })?;
                pieces.iter().filter(|piece| !piece.is_empty()).try_for_each(|piece| word(piece))
            }
        }
    }
}

impl Step {
    fn run(&self, pre: &mut PreTokenizedString, at_start: bool) -> tokenizers::Result<()> {
        match self {
            Self::Split { splitter, behavior, invert: false } => pre.split(|_, piece| piece.split(splitter, *behavior)),
            Self::Split { splitter, behavior, invert: true } => {
                pre.split(|_, piece| piece.split(tokenizers::pattern::Invert(splitter), *behavior))
            }
            Self::PrefixSpace => pre.split(|_, mut piece| {
                if !piece.get().starts_with(' ') {
                    piece.prepend(" ");
                }
                Ok(Some(piece))
            }),
            Self::ByteLevelMap(step) => step.pre_tokenize(pre),
            Self::Metaspace { first, later } => (if at_start { first } else { later }).pre_tokenize(pre),
            Self::Library(step) => step.pre_tokenize(pre),
        }
    }
}

fn library(value: Value) -> Result<PreTokenizerWrapper, TokenizerError> {
    let parsed = guarded("reading the pre-tokenizer", || Ok(serde_json::from_value(value)))?;
    parsed.map_err(|source| TokenizerError::Json { what: "the pre_tokenizer of tokenizer.json", source })
}

fn collect(mut value: Value, steps: &mut Vec<Step>) -> Result<(), TokenizerError> {
    let kind = value.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let flag = |value: &Value, name: &str, default| value.get(name).and_then(Value::as_bool).unwrap_or(default);
    match kind.as_str() {
        "Sequence" => {
            let children = value.get_mut("pretokenizers").and_then(Value::as_array_mut).map(std::mem::take);
            for child in children.unwrap_or_default() {
                collect(child, steps)?;
            }
        }
        "ByteLevel" => {
            if flag(&value, "add_prefix_space", true) {
                steps.push(Step::PrefixSpace);
            }
            if flag(&value, "use_regex", true) {
                let splitter = Splitter::new(GPT2)?;
                steps.push(Step::Split { splitter, behavior: SplitDelimiterBehavior::Isolated, invert: false });
            }
            steps.push(Step::ByteLevelMap(ByteLevel::new(false, true, false)));
        }
        "Split" => {
            let pattern = value.get("pattern").and_then(|pattern| pattern.get("Regex")).and_then(Value::as_str);
            let behavior = value.get("behavior").cloned().and_then(|b| serde_json::from_value(b).ok());
            match (pattern.and_then(Splitter::compile), behavior) {
                (Some(splitter), Some(behavior)) => {
                    let invert = flag(&value, "invert", false);
                    steps.push(Step::Split { splitter, behavior, invert });
                }
                // A literal, or a pattern for the backtracking engine.
                _ => steps.push(Step::Library(library(value)?)),
            }
        }
        "Metaspace" => {
            let first = library(value.clone())?;
            if value.get("prepend_scheme").and_then(Value::as_str) == Some("first")
                && let Some(scheme) = value.get_mut("prepend_scheme")
            {
                *scheme = "never".into();
            }
            steps.push(Step::Metaspace { first, later: library(value)? });
        }
        _ => {
            if !value.is_null() {
                steps.push(Step::Library(library(value)?));
            }
        }
    }
    Ok(())
}
