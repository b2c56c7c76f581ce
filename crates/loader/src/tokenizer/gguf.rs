//! Vocabularies from the metadata of a GGUF file.

use std::ops::Deref;

use super::added::{AddedToken, AddedTokens};
use super::bpe::{Alphabet, BpeOptions};
use super::bytes::{Spelling, TokenTable};
use super::error::TokenizerError;
use super::json::bpe;
use super::normalize::Normalization;
use super::note::Note;
use super::pattern::Patterns;
use super::pipeline::{Model, Pipeline};
use super::pre::{self, ASSUMED};
use super::pretok::PreTokenization;
use super::split::Splitter;
use super::spm::{PieceKind, SPACE, Spm, SpmOptions};
use super::unigram::Unigram;
use super::{Contents, Special, check_id};

/// The `tokenizer.ggml.*` keys of a GGUF file. The reader of the file fills this; lists are in the order of the ids.
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
    /// `tokenizer.ggml.add_space_prefix`; SentencePiece vocabularies add it by default.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.ggml.remove_extra_whitespaces`.
    pub remove_extra_whitespaces: Option<bool>,
    /// `tokenizer.ggml.precompiled_charsmap`: SentencePiece's normalisation rules.
    pub precompiled_charsmap: Option<Vec<u8>>,
}

impl GgufVocab {
    pub(super) fn kind(&self, id: u32) -> PieceKind {
        let listed = self.token_types.get(id as usize).copied().map(PieceKind::from_gguf);
        // Without a list of types only the named ids are known to be special.
        let named = [self.bos, self.eos, self.eot, self.eom, self.pad].contains(&Some(id));
        match listed {
            Some(kind) => kind,
            None if self.unk == Some(id) => PieceKind::Unknown,
            None if named => PieceKind::Control,
            None => PieceKind::Normal,
        }
    }

    /// How a byte-level vocabulary splits texts: split patterns, whether whole words skip the merges, whether texts are
    /// normalised to NFC. `None` for an unknown pre-tokenizer.
    pub(super) fn byte_level_stages(&self) -> Option<(&'static [&'static str], bool, bool)> {
        let name = self.pre.as_deref().unwrap_or(ASSUMED);
        let pre = super::pre::by_name(name)?;
        Some((pre.patterns, pre.ignore_merges, pre.nfc))
    }
}

/// A vocabulary that is being read, with its two long lists as slices, wherever their strings are.
struct Reading<'a> {
    vocab: &'a GgufVocab,
    tokens: &'a [&'a str],
    merges: &'a [&'a str],
}

impl Deref for Reading<'_> {
    type Target = GgufVocab;
    fn deref(&self) -> &GgufVocab {
        self.vocab
    }
}

impl Reading<'_> {
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
        let named = [("bos", self.bos), ("eos", self.eos), ("eot", self.eot), ("eom", self.eom)];
        for (name, id) in named {
            if let Some(id) = id {
                check_id(|| format!("tokenizer.ggml.{name}_token_id"), id, expected as u64)?;
            }
        }
        Ok(())
    }

    /// An optional special id: one beyond the vocabulary is ignored.
    fn optional(&self, what: &'static str, id: Option<u32>, notes: &mut Vec<Note>) -> Option<u32> {
        let id = id?;
        let size = self.tokens.len();
        if (id as usize) < size {
            return Some(id);
        }
        notes.push(Note::SpecialBeyond { what, id, size });
        None
    }

    fn ids(&self) -> impl Iterator<Item = (&str, u32)> + Clone {
        self.tokens.iter().copied().zip(0u32..)
    }

    /// Tokens found in the raw text: control tokens, and user-defined ones if the model does not find them itself, or
    /// cannot, because it writes every space as a mark.
    fn added(&self, user_defined: bool) -> Result<AddedTokens, TokenizerError> {
        let tokens = self.ids().filter_map(|(token, id)| {
            let kind = self.kind(id);
            let special = matches!(kind, PieceKind::Control | PieceKind::Unknown);
            let found_raw = user_defined || token.contains(' ');
            let taken = special || (found_raw && kind == PieceKind::UserDefined);
            taken.then(|| AddedToken { content: token.to_owned(), id, special, ..AddedToken::default() })
        });
        AddedTokens::new(tokens.collect(), |content, _| Ok(content.to_owned()))
    }

    fn byte_level(&self, notes: &mut Vec<Note>) -> Result<Pipeline, TokenizerError> {
        let name = self.pre.as_deref().unwrap_or_else(|| {
            notes.push(Note::PreTokenizerAssumed { taken: ASSUMED });
            ASSUMED
        });
        let pre = pre::by_name(name).ok_or_else(|| TokenizerError::UnknownPreTokenizer { pre: name.to_owned() })?;
        let mut patterns = Patterns::default();
        let splitters =
            pre.patterns.iter().map(|pattern| Splitter::known(pattern, &mut patterns)).collect::<Result<_, _>>()?;
        let mut merges = Vec::with_capacity(self.merges.len());
        for (index, merge) in self.merges.iter().enumerate() {
            // Byte-level spellings hold no space, so the first one is the border.
            let pair = merge.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty());
            merges.push(pair.ok_or_else(|| TokenizerError::BadMerge { index, merge: (*merge).to_owned() })?);
        }
        let options = BpeOptions {
            alphabet: Alphabet::Bytes,
            ignore_merges: pre.ignore_merges,
            unk: None,
            fuse_unk: false,
            byte_fallback: false,
        };
        let plain = |id| !matches!(self.kind(id), PieceKind::Control | PieceKind::UserDefined | PieceKind::Unknown);
        // Tokens of several bytes that nothing leads to.
        if merges.is_empty() && self.ids().any(|(token, id)| plain(id) && token.chars().nth(1).is_some()) {
            return Err(TokenizerError::NoMerges);
        }
        let special = self.ids().map(|(_, id)| id);
        let special = special.filter(|id| matches!(self.kind(*id), PieceKind::Control | PieceKind::Unknown)).collect();
        let tokens: Vec<(&str, u32)> = self.ids().collect();
        let model = bpe(&tokens, plain, &merges, options, special)?;
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

    fn sentencepiece(&self, unk: Option<u32>) -> Result<Pipeline, TokenizerError> {
        self.need_scores()?;
        let tokens = self.ids().zip(&self.scores).map(|((token, id), score)| (token, *score, self.kind(id)));
        // With plain spaces they are found in the raw text.
        let tokens = tokens.filter(|(token, _, kind)| *kind != PieceKind::UserDefined || !token.contains(' '));
        let options = SpmOptions {
            unk: unk.or_else(|| self.ids().map(|(_, id)| id).find(|id| self.kind(*id) == PieceKind::Unknown)),
            add_space_prefix: self.add_space_prefix.unwrap_or(true),
            remove_extra_whitespaces: self.remove_extra_whitespaces.unwrap_or(false),
        };
        let model = Model::Spm(Spm::new(tokens, options)?);
        let pre = PreTokenization::Slices(Vec::new());
        let normalization = Normalization::sentencepiece(self.precompiled_charsmap.as_deref(), false)?;
        Ok(Pipeline { added: self.added(false)?, normalization, pre, model })
    }

    fn unigram(&self, unk: Option<u32>) -> Result<Pipeline, TokenizerError> {
        self.need_scores()?;
        let tokens: Vec<_> =
            self.tokens.iter().map(|t| (*t).to_owned()).zip(self.scores.iter().map(|s| f64::from(*s))).collect();
        let byte_fallback = self.ids().any(|(_, id)| self.kind(id) == PieceKind::Byte);
        let hidden = |id| matches!(self.kind(id), PieceKind::Control | PieceKind::Unknown | PieceKind::Byte);
        let model = Model::Unigram(Box::new(Unigram::new(&tokens, unk, byte_fallback, hidden)?));
        let squeeze = self.remove_extra_whitespaces.unwrap_or(false);
        let normalization = Normalization::sentencepiece(self.precompiled_charsmap.as_deref(), squeeze)?;
        let pre = PreTokenization::sentencepiece(SPACE, self.add_space_prefix.unwrap_or(true));
        Ok(Pipeline { added: self.added(true)?, normalization, pre, model })
    }
}

/// Builds a tokenizer from the keys of a GGUF file. `tokens` and `merges` are read instead of those of `vocab`.
pub(super) fn read(vocab: &GgufVocab, tokens: &[&str], merges: &[&str]) -> Result<Contents, TokenizerError> {
    let vocab = Reading { vocab, tokens, merges };
    vocab.check()?;
    let mut notes = Vec::new();
    let unk = vocab.optional("unknown", vocab.unk, &mut notes);
    let pad = vocab.optional("padding", vocab.pad, &mut notes);
    let (spelling, pipeline) = match vocab.model.as_str() {
        "gpt2" => (Spelling::ByteLevel, vocab.byte_level(&mut notes)?),
        "llama" => (Spelling::SentencePiece, vocab.sentencepiece(unk)?),
        "t5" => (Spelling::SentencePiece, vocab.unigram(unk)?),
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
    let special = Special { bos: vocab.bos, eos, unk, pad, add_bos: vocab.add_bos, add_eos: vocab.add_eos, notes };
    Ok(Contents { special, strip_space, ..Contents::new(pipeline, table) })
}
