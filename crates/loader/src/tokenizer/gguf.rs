//! Vocabularies from the metadata of a GGUF file.

use serde_json::json;

use super::added::{AddedToken, AddedTokens};
use super::bpe::{Alphabet, BpeOptions};
use super::bytes::{Spelling, TokenTable};
use super::error::TokenizerError;
use super::json::{bpe, unigram};
use super::note::Note;
use super::pipeline::{Model, Pipeline};
use super::pretok::{Normalization, PreTokenization};
use super::split::{GPT2, LLAMA3, QWEN2, Splitter};
use super::spm::{PieceKind, Spm, SpmOptions};
use super::{Inner, check_id};

/// The `tokenizer.ggml.*` keys of a GGUF file. Whoever reads the file fills this; lists are in the order of the ids.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufVocab {
    /// `tokenizer.ggml.model`: `gpt2` (byte-level BPE with merges), `llama` (SentencePiece BPE with scores) or `t5`
    /// (SentencePiece unigram).
    pub model: String,
    /// `tokenizer.ggml.pre`: how byte-level vocabularies cut a text into words.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.scores`: empty or one per token.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.token_type`: empty or one per token (1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused,
    /// 6 byte).
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.merges`: two tokens with one space between them, best first.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.eot_token_id`: the end of a turn.
    pub eot: Option<u32>,
    /// `tokenizer.ggml.eom_token_id`: the end of a message.
    pub eom: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unk: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub pad: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`; SentencePiece vocabularies add it unless told otherwise.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.ggml.remove_extra_whitespaces`.
    pub remove_extra_whitespaces: Option<bool>,
    /// `tokenizer.ggml.precompiled_charsmap`: SentencePiece's normalisation rules.
    pub precompiled_charsmap: Option<Vec<u8>>,
}

/// A pre-tokenizer that GGUF files name.
struct Pre {
    names: &'static [&'static str],
    patterns: &'static [&'static str],
    ignore_merges: bool,
    nfc: bool,
}

const DIGITS_3: &str = "[0-9][0-9][0-9]";

/// What is taken where the file names none.
const ASSUMED: &str = "llama-bpe";

const PRES: &[Pre] = &[
    Pre {
        names: &[
            ASSUMED,
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon_e",
            "falcon-e",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
        ],
        patterns: &[LLAMA3],
        ignore_merges: true,
        nfc: false,
    },
    Pre { names: &["dbrx", "smaug-bpe"], patterns: &[LLAMA3], ignore_merges: false, nfc: false },
    Pre { names: &["gpt-2", "gpt2", "mpt", "olmo", "phi-2"], patterns: &[GPT2], ignore_merges: false, nfc: false },
    Pre { names: &["qwen2"], patterns: &[QWEN2], ignore_merges: false, nfc: true },
    Pre { names: &["smollm", "starcoder", "refact"], patterns: &[r"\p{N}", GPT2], ignore_merges: false, nfc: false },
    Pre { names: &["falcon"], patterns: &[r"[\p{P}$+<=>^~|`]+", GPT2, DIGITS_3], ignore_merges: false, nfc: false },
    Pre {
        names: &["default"],
        patterns: &[r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", DIGITS_3],
        ignore_merges: false,
        nfc: false,
    },
];

impl GgufVocab {
    pub(super) fn kind(&self, id: u32) -> PieceKind {
        let listed = self.token_types.get(id as usize).copied().map(PieceKind::from_gguf);
        // Without a list of types the named ids are all that is known to be special.
        let named = [self.bos, self.eos, self.eot, self.eom, self.pad].contains(&Some(id));
        match listed {
            Some(kind) => kind,
            None if self.unk == Some(id) => PieceKind::Unknown,
            None if named => PieceKind::Control,
            None => PieceKind::Normal,
        }
    }

    /// How a byte-level vocabulary cuts texts: split patterns, whether whole words skip the merges, whether texts are
    /// brought to NFC. `None` for a pre-tokenizer that is not known.
    pub(super) fn byte_level_stages(&self) -> Option<(&'static [&'static str], bool, bool)> {
        let name = self.pre.as_deref().unwrap_or(ASSUMED);
        let pre = PRES.iter().find(|pre| pre.names.contains(&name))?;
        Some((pre.patterns, pre.ignore_merges, pre.nfc))
    }

    fn check(&self) -> Result<(), TokenizerError> {
        let expected = self.tokens.len();
        if expected == 0 {
            return Err(TokenizerError::EmptyVocabulary);
        }
        let limit = u32::MAX as usize;
        if expected >= limit {
            return Err(TokenizerError::LengthMismatch {
                what: "tokenizer.ggml.tokens",
                expected: limit,
                got: expected,
            });
        }
        for (what, got) in
            [("tokenizer.ggml.scores", self.scores.len()), ("tokenizer.ggml.token_type", self.token_types.len())]
        {
            if got != 0 && got != expected {
                return Err(TokenizerError::LengthMismatch { what, expected, got });
            }
        }
        let named = [
            ("bos", self.bos),
            ("eos", self.eos),
            ("eot", self.eot),
            ("eom", self.eom),
            ("unknown", self.unk),
            ("padding", self.pad),
        ];
        for (name, id) in named {
            if let Some(id) = id {
                check_id(|| format!("tokenizer.ggml.{name}_token_id"), id, expected as u64)?;
            }
        }
        Ok(())
    }

    fn ids(&self) -> impl Iterator<Item = (&str, u32)> + Clone {
        self.tokens.iter().map(String::as_str).zip(0u32..)
    }

    /// Tokens found in the raw text: control tokens, and user-defined ones where the model does not find them itself.
    fn added(&self, user_defined: bool) -> Result<AddedTokens, TokenizerError> {
        let tokens = self.ids().filter_map(|(token, id)| {
            let kind = self.kind(id);
            let special = matches!(kind, PieceKind::Control | PieceKind::Unknown);
            let taken = special || (user_defined && kind == PieceKind::UserDefined);
            taken.then(|| AddedToken { content: token.to_owned(), id, special, ..AddedToken::default() })
        });
        AddedTokens::new(tokens.collect(), |content| Ok(content.to_owned()))
    }

    fn byte_level(&self, notes: &mut Vec<Note>) -> Result<Pipeline, TokenizerError> {
        let name = self.pre.as_deref().unwrap_or_else(|| {
            notes.push(Note::PreTokenizerAssumed { taken: ASSUMED });
            ASSUMED
        });
        let pre = PRES
            .iter()
            .find(|pre| pre.names.contains(&name))
            .ok_or_else(|| TokenizerError::UnknownPreTokenizer { pre: name.to_owned() })?;
        let splitters = pre.patterns.iter().map(|pattern| Splitter::new(pattern)).collect::<Result<_, _>>()?;
        let mut merges = Vec::with_capacity(self.merges.len());
        for (index, merge) in self.merges.iter().enumerate() {
            // Byte-level spellings hold no space, so the first one is the border.
            let pair = merge.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty());
            merges.push(pair.ok_or_else(|| TokenizerError::BadMerge { index, merge: merge.clone() })?);
        }
        let options = BpeOptions {
            alphabet: Alphabet::Bytes,
            ignore_merges: pre.ignore_merges,
            unk: None,
            fuse_unk: false,
            byte_fallback: false,
        };
        let plain = self.ids().filter(|(_, id)| {
            !matches!(self.kind(*id), PieceKind::Control | PieceKind::UserDefined | PieceKind::Unknown)
        });
        let model = bpe(plain, &merges, options)?;
        let normalization = if pre.nfc { Normalization::nfc() } else { Normalization::default() };
        Ok(Pipeline { added: self.added(true)?, normalization, pre: PreTokenization::Slices(splitters), model })
    }

    fn need_scores(&self) -> Result<(), TokenizerError> {
        match self.scores.is_empty() {
            true => Err(TokenizerError::LengthMismatch {
                what: "tokenizer.ggml.scores",
                expected: self.tokens.len(),
                got: 0,
            }),
            false => Ok(()),
        }
    }

    /// SentencePiece's normalisation rules as a normaliser of the `tokenizers` library.
    fn charsmap(&self) -> Option<serde_json::Value> {
        let map = self.precompiled_charsmap.as_ref().filter(|map| !map.is_empty())?;
        Some(json!({"type": "Precompiled", "precompiled_charsmap": base64(map)}))
    }

    fn sentencepiece(&self) -> Result<Pipeline, TokenizerError> {
        self.need_scores()?;
        let tokens = self.ids().zip(&self.scores).map(|((token, id), score)| (token, *score, self.kind(id)));
        let options = SpmOptions {
            unk: self.unk.or_else(|| self.ids().map(|(_, id)| id).find(|id| self.kind(*id) == PieceKind::Unknown)),
            add_space_prefix: self.add_space_prefix.unwrap_or(true),
            remove_extra_whitespaces: self.remove_extra_whitespaces.unwrap_or(false),
        };
        let model = Model::Spm(Spm::new(tokens, options)?);
        let pre = PreTokenization::Slices(Vec::new());
        let normalization = Normalization::from_json(self.charsmap())?;
        Ok(Pipeline { added: self.added(false)?, normalization, pre, model })
    }

    fn unigram(&self) -> Result<Pipeline, TokenizerError> {
        self.need_scores()?;
        let tokens: Vec<_> = self.tokens.iter().cloned().zip(self.scores.iter().map(|s| f64::from(*s))).collect();
        let unk = self.unk.map(|id| id as usize);
        let byte_fallback = self.ids().any(|(_, id)| self.kind(id) == PieceKind::Byte);
        let model = unigram(tokens, unk, byte_fallback)?;
        let mut normalizers: Vec<_> = self.charsmap().into_iter().collect();
        if self.remove_extra_whitespaces.unwrap_or(false) {
            normalizers.push(json!({"type": "Strip", "strip_left": true, "strip_right": true}));
            normalizers.push(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}));
        }
        let normalization = Normalization::from_json(
            (!normalizers.is_empty()).then(|| json!({"type": "Sequence", "normalizers": normalizers})),
        )?;
        let scheme = if self.add_space_prefix.unwrap_or(true) { "always" } else { "never" };
        let metaspace = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme});
        let pre = PreTokenization::from_json(Some(metaspace))?.pre;
        Ok(Pipeline { added: self.added(true)?, normalization, pre, model })
    }
}

/// The spelling in which the `tokenizers` library reads normalisation rules.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3).saturating_mul(4));
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let value = (word >> (18 - 6 * digit)) & 63;
            let c = DIGITS.get(value as usize).copied().filter(|_| digit <= chunk.len()).unwrap_or(b'=');
            out.push(char::from(c));
        }
    }
    out
}

/// Builds a tokenizer from the keys of a GGUF file.
pub(super) fn read(vocab: &GgufVocab) -> Result<Inner, TokenizerError> {
    vocab.check()?;
    let mut notes = Vec::new();
    let (spelling, pipeline) = match vocab.model.as_str() {
        "gpt2" => (Spelling::ByteLevel, vocab.byte_level(&mut notes)?),
        "llama" => (Spelling::SentencePiece, vocab.sentencepiece()?),
        "t5" => (Spelling::SentencePiece, vocab.unigram()?),
        other => {
            let supported = "gpt2, llama, t5";
            return Err(TokenizerError::UnsupportedModel { kind: other.to_owned(), supported });
        }
    };
    let mut table = TokenTable::new(vocab.tokens.len());
    for (token, id) in vocab.ids() {
        table.set(id, token, vocab.kind(id), spelling);
    }
    let mut eos: Vec<u32> = Vec::new();
    for id in [vocab.eos, vocab.eot, vocab.eom].into_iter().flatten() {
        if !eos.contains(&id) {
            eos.push(id);
        }
    }
    let strip_space = spelling == Spelling::SentencePiece && vocab.add_space_prefix.unwrap_or(true);
    Ok(Inner {
        bos: vocab.bos,
        eos,
        unk: vocab.unk,
        pad: vocab.pad,
        add_bos: vocab.add_bos,
        add_eos: vocab.add_eos,
        strip_space,
        notes,
        ..Inner::new(pipeline, table)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_every_remainder() {
        for (bytes, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(bytes.as_bytes()), expected);
        }
    }
}
