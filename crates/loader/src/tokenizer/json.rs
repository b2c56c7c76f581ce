//! Reads Hugging Face's `tokenizer.json`.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::added::{AddedToken, AddedTokens};
use super::bpe::{Alphabet, Bpe, BpeOptions};
use super::bytes::{Spelling, TokenTable, from_byte_level};
use super::error::TokenizerError;
use super::hash::Spellings;
use super::normalize::Normalization;
use super::note::Note;
use super::pattern::Patterns;
use super::pipeline::{Model, Pipeline};
use super::post::Affixes;
use super::pretok::PreTokenization;
use super::spm::PieceKind;
use super::unigram::Unigram;
use super::{Contents, Special, check_id, shape};

#[derive(Deserialize)]
struct FileJson {
    #[serde(default)]
    added_tokens: Vec<AddedJson>,
    #[serde(default)]
    normalizer: Option<Value>,
    #[serde(default)]
    pre_tokenizer: Option<Value>,
    #[serde(default)]
    post_processor: Option<Value>,
    #[serde(default)]
    decoder: Option<Value>,
    model: ModelJson,
}

#[derive(Deserialize)]
struct AddedJson {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

#[derive(Deserialize)]
struct ModelJson {
    /// Old files leave it out; they are recognised by their merges.
    #[serde(default, rename = "type")]
    kind: Option<String>,
    vocab: VocabJson,
    #[serde(default)]
    merges: Option<Vec<MergeJson>>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    unk_id: Option<usize>,
    #[serde(default)]
    fuse_unk: Option<bool>,
    #[serde(default)]
    byte_fallback: Option<bool>,
    #[serde(default)]
    ignore_merges: Option<bool>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
}

/// `{"token": id}`, or `[["token", score]]` in the order of the ids.
enum VocabJson {
    Ids(Vec<(String, u32)>),
    Scores(Vec<(String, f64)>),
}

impl<'de> Deserialize<'de> for VocabJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct VocabVisitor;
        impl<'de> Visitor<'de> for VocabVisitor {
            type Value = VocabJson;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from tokens to ids, or a list of tokens with scores")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut tokens = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    tokens.push(entry);
                }
                Ok(VocabJson::Ids(tokens))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut tokens = Vec::new();
                while let Some(entry) = seq.next_element()? {
                    tokens.push(entry);
                }
                Ok(VocabJson::Scores(tokens))
            }
        }
        deserializer.deserialize_any(VocabVisitor)
    }
}

/// `"a b"` or `["a", "b"]`.
struct MergeJson(String, String);

impl<'de> Deserialize<'de> for MergeJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MergeVisitor;
        impl<'de> Visitor<'de> for MergeVisitor {
            type Value = MergeJson;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge: two tokens as a list, or with one space between them")
            }

            fn visit_str<E: de::Error>(self, merge: &str) -> Result<Self::Value, E> {
                match merge.split_once(' ') {
                    Some((left, right)) if !right.contains(' ') => Ok(MergeJson(left.into(), right.into())),
                    _ => Err(E::invalid_value(de::Unexpected::Str(merge), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let left = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let right = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
                match seq.next_element::<de::IgnoredAny>()? {
                    None => Ok(MergeJson(left, right)),
                    Some(_) => Err(de::Error::invalid_length(3, &self)),
                }
            }
        }
        deserializer.deserialize_any(MergeVisitor)
    }
}

fn unsupported(stage: &'static str, kind: impl Into<String>) -> TokenizerError {
    TokenizerError::UnsupportedStage { stage, kind: kind.into() }
}

/// How tokens are spelled, and whether decoding drops the space that encoding has added at the beginning.
fn decoder(value: Option<&Value>) -> Result<(Spelling, bool), TokenizerError> {
    let kind = |value: &Value| value.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Err(unsupported("decoder", "none"));
    };
    match kind(value).as_str() {
        "ByteLevel" => Ok((Spelling::ByteLevel, false)),
        "Metaspace" => {
            let never = value.get("prepend_scheme").and_then(Value::as_str) == Some("never")
                || value.get("add_prefix_space").and_then(Value::as_bool) == Some(false);
            Ok((Spelling::SentencePiece, !never))
        }
        "Sequence" => {
            let steps = value.get("decoders").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let mut strip = false;
            let mut spelling = None;
            for step in steps {
                match kind(step).as_str() {
                    "ByteLevel" => spelling = Some(Spelling::ByteLevel),
                    "Metaspace" => {
                        let (found, strips) = decoder(Some(step))?;
                        spelling = Some(found);
                        strip |= strips;
                    }
                    "Replace" => {
                        let from = step.get("pattern").and_then(|p| p.get("String")).and_then(Value::as_str);
                        let to = step.get("content").and_then(Value::as_str);
                        if (from, to) != (Some("\u{2581}"), Some(" ")) {
                            return Err(unsupported("decoder", format!("Replace {from:?} by {to:?}")));
                        }
                        spelling = Some(Spelling::SentencePiece);
                    }
                    "Strip" => {
                        let number = |name| step.get(name).and_then(Value::as_u64);
                        if (number("start"), number("stop").unwrap_or(0)) != (Some(1), 0) {
                            return Err(unsupported("decoder", "Strip other than one space at the start"));
                        }
                        strip = true;
                    }
                    "ByteFallback" | "Fuse" => {}
                    other => return Err(unsupported("decoder", other)),
                }
            }
            spelling.map(|spelling| (spelling, strip)).ok_or_else(|| unsupported("decoder", "Sequence"))
        }
        other => Err(unsupported("decoder", other)),
    }
}

/// Reads a `tokenizer.json`.
pub(super) fn read(bytes: &[u8]) -> Result<Contents, TokenizerError> {
    shape::check(bytes)?;
    let file: FileJson =
        serde_json::from_slice(bytes).map_err(|source| TokenizerError::Json { what: "tokenizer.json", source })?;
    let (spelling, strip_space) = decoder(file.decoder.as_ref())?;
    let mut patterns = Patterns::default();
    let normalization = Normalization::from_json(file.normalizer.as_ref(), &mut patterns)?;
    let parsed = PreTokenization::from_json(file.pre_tokenizer.as_ref(), &mut patterns)?;
    drop(patterns);
    let affixes = Affixes::from_json(file.post_processor.as_ref())?;

    // Ids are bounded by the number of tokens, so that one absurd id does not make an absurd table.
    let count = match &file.model.vocab {
        VocabJson::Ids(tokens) => tokens.len(),
        VocabJson::Scores(tokens) => tokens.len(),
    };
    let count = count.saturating_add(file.added_tokens.len());
    if count == 0 {
        return Err(TokenizerError::EmptyVocabulary);
    }
    let limit = count.saturating_mul(2).saturating_add(65_536) as u64;
    let mut size = 0;
    let mut see = |id: u32, token: &str| {
        size = size.max((id as usize).saturating_add(1));
        check_id(|| format!("token {token:?}"), id, limit)
    };
    match &file.model.vocab {
        VocabJson::Ids(tokens) => tokens.iter().try_for_each(|(token, id)| see(*id, token))?,
        VocabJson::Scores(tokens) => tokens.iter().zip(0u32..).try_for_each(|((token, _), id)| see(id, token))?,
    }
    file.added_tokens.iter().try_for_each(|token| see(token.id, &token.content))?;
    affixes.ids().try_for_each(|id| see(id, "of the post-processor"))?;
    let notes = same_ids(&file.model.vocab, &file.added_tokens, size)?;

    let mut table = TokenTable::new(size);
    match &file.model.vocab {
        VocabJson::Ids(tokens) => {
            tokens.iter().for_each(|(token, id)| table.set(*id, token, PieceKind::Normal, spelling));
        }
        VocabJson::Scores(tokens) => {
            tokens.iter().zip(0..).for_each(|((token, _), id)| table.set(id, token, PieceKind::Normal, spelling));
        }
    }
    let added: Vec<AddedToken> = file.added_tokens.into_iter().map(added_token).collect();
    for token in &added {
        let kind = if token.special { PieceKind::Control } else { PieceKind::UserDefined };
        table.set(token.id, &token.content, kind, spelling);
    }
    let special = added.iter().filter(|token| token.special).map(|token| token.id).collect();
    let added = AddedTokens::new(added, |content, meter| normalization.apply(content, meter).map(Cow::into_owned))?;
    let model = model(file.model, parsed.raw_bytes, special)?;
    let pipeline = Pipeline { added, normalization, pre: parsed.pre, model };
    let special = Special { notes, ..Special::default() };
    Ok(Contents { affixes, strip_space, special, ..Contents::new(pipeline, table) })
}

/// Rejects two tokens of one kind with one id; notes added tokens that take the ids of others.
fn same_ids(vocab: &VocabJson, added: &[AddedJson], size: usize) -> Result<Vec<Note>, TokenizerError> {
    let mut names: Vec<Option<&str>> = vec![None; size];
    let mut own: Vec<Option<&str>> = Vec::new();
    if let VocabJson::Ids(tokens) = vocab {
        for (token, id) in tokens {
            match names.get_mut(*id as usize).map(|slot| slot.replace(token)) {
                Some(Some(first)) if first != token => return Err(duplicate(*id, first, token)),
                _ => {}
            }
        }
        own.clone_from(&names);
    }
    let mut replaced: Option<(&str, &str, u32)> = None;
    let mut count = 0usize;
    names.fill(None);
    for token in added {
        match names.get_mut(token.id as usize).map(|slot| slot.replace(&token.content)) {
            Some(Some(first)) if first != token.content => return Err(duplicate(token.id, first, &token.content)),
            Some(Some(_)) => continue,
            _ => {}
        }
        if let Some(other) = own.get(token.id as usize).copied().flatten().filter(|other| *other != token.content) {
            replaced = replaced.or(Some((&token.content, other, token.id)));
            count += 1;
        }
    }
    Ok(replaced
        .map(|(token, other, id)| Note::AddedReplaces {
            token: token.to_owned(),
            replaced: other.to_owned(),
            id,
            count,
        })
        .into_iter()
        .collect())
}

fn duplicate(id: u32, first: &str, second: &str) -> TokenizerError {
    let name = |token: &str| token.chars().take(80).collect();
    TokenizerError::DuplicateId { id, first: name(first), second: name(second) }
}

fn added_token(token: AddedJson) -> AddedToken {
    let AddedJson { id, content, special, normalized, single_word, lstrip, rstrip } = token;
    AddedToken { content, id, special, normalized, single_word, lstrip, rstrip }
}

fn model(model: ModelJson, raw_bytes: bool, special: HashSet<u32>) -> Result<Model, TokenizerError> {
    let kind = match &model.kind {
        Some(kind) => kind.as_str(),
        None if model.merges.is_some() => "BPE",
        None => "unknown",
    };
    match (kind, model.vocab) {
        ("BPE", VocabJson::Ids(tokens)) => {
            for affix in [&model.continuing_subword_prefix, &model.end_of_word_suffix] {
                if affix.as_ref().is_some_and(|affix| !affix.is_empty()) {
                    return Err(unsupported("model", "BPE with a subword prefix or suffix"));
                }
            }
            let alphabet = if raw_bytes { Alphabet::Bytes } else { Alphabet::Chars };
            let mut unk = None;
            if let Some(token) = &model.unk_token {
                unk = tokens.iter().find(|(text, _)| text == token).map(|(_, id)| *id);
                if unk.is_none() {
                    return Err(TokenizerError::MissingToken { what: "unk_token", token: token.clone() });
                }
            }
            let options = BpeOptions {
                alphabet,
                ignore_merges: model.ignore_merges.unwrap_or(false),
                unk,
                fuse_unk: model.fuse_unk.unwrap_or(false),
                byte_fallback: model.byte_fallback.unwrap_or(false),
            };
            let merges = model.merges.unwrap_or_default();
            let tokens: Vec<(&str, u32)> = tokens.iter().map(|(token, id)| (token.as_str(), *id)).collect();
            bpe(&tokens, |_| true, &pairs(&merges), options, special)
        }
        ("Unigram", VocabJson::Scores(tokens)) => {
            let unk = model.unk_id.map(|id| u32::try_from(id).unwrap_or(u32::MAX));
            let byte_fallback = model.byte_fallback.unwrap_or(false);
            let unigram = Unigram::new(&tokens, unk, byte_fallback, |id| special.contains(&id))?;
            Ok(Model::Unigram(Box::new(unigram)))
        }
        (other, _) => Err(TokenizerError::UnsupportedModel { kind: other.to_owned(), supported: "BPE, Unigram" }),
    }
}

fn pairs(merges: &[MergeJson]) -> Vec<(&str, &str)> {
    merges.iter().map(|MergeJson(left, right)| (left.as_str(), right.as_str())).collect()
}

/// A byte-pair model from tokens and merges as files spell them. Only `plain` tokens are looked up in texts; merges may
/// name the others as well.
///
/// # Errors
/// [`TokenizerError::BadMerge`] if a merge names something that is not a token.
pub(super) fn bpe(
    tokens: &[(&str, u32)],
    plain: impl Fn(u32) -> bool,
    merges: &[(&str, &str)],
    options: BpeOptions,
    special: HashSet<u32>,
) -> Result<Model, TokenizerError> {
    let mut by_text: HashMap<&str, u32, Spellings> =
        HashMap::with_capacity_and_hasher(tokens.len(), Spellings::default());
    for wanted in [true, false] {
        for (token, id) in tokens.iter().filter(|(_, id)| plain(*id) == wanted) {
            by_text.entry(token).or_insert(*id);
        }
    }
    // Merges are looked up as they are spelled, which spares the translation of two halves each to bytes.
    let mut ids = Vec::with_capacity(merges.len());
    let mut joined = String::new();
    for (index, (left, right)) in merges.iter().enumerate() {
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        let found = (by_text.get(left), by_text.get(right), by_text.get(joined.as_str()));
        let (Some(&left), Some(&right), Some(&id)) = found else {
            let shown = |half: &str| half.chars().take(80).collect::<String>();
            return Err(TokenizerError::BadMerge { index, merge: format!("{} {}", shown(left), shown(right)) });
        };
        ids.push([left, right, id]);
    }
    // A token with a character that does not stand for a byte (for example a special token with a space) cannot occur
    // in a text of a byte-level vocabulary: it is not in the table.
    let spell = |token: &str| match options.alphabet {
        Alphabet::Bytes => from_byte_level(token),
        Alphabet::Chars => Some(token.as_bytes().to_vec()),
    };
    let tokens = tokens.iter().filter(|(_, id)| plain(*id));
    let tokens = tokens.filter_map(|(token, id)| Some((spell(token)?.into_boxed_slice(), *id)));
    Ok(Model::Bpe(Bpe::new(tokens, ids.into_iter(), options.clone(), special)))
}
