//! Text to ids and back.
//!
//! A [`Tokenizer`] comes from Hugging Face's `tokenizer.json` ([`Tokenizer::from_file`], [`Tokenizer::from_dir`]),
//! from the metadata of a GGUF file ([`Tokenizer::from_gguf_vocab`]) or from a SentencePiece model
//! ([`Tokenizer::from_sentencepiece`]). All give the ids that the library gives for which the file was made.
//!
//! - Byte-pair and SentencePiece merging are implemented here: `O(n log n)` in the length of any text, without locks
//!   and without a cache, so one tokenizer serves any number of threads.
//! - Known split patterns run on an engine that never backtracks; the `tokenizers` library gives up on long runs of
//!   white space and continues with wrong ids. Unknown ones run on an engine that counts its steps.
//! - The cost of a file, and of a text with it, is bounded: patterns, normalisers that grow a text, giant tokens and
//!   very many of them have limits (`limits.rs`) and are rejected by name beyond them.
//! - Every token is a string of bytes ([`Tokenizer::token_bytes`]), so a [`StreamDecoder`] returns only whole
//!   characters, even if one is spread over several tokens.
//! - [`Tokenizer::notes`] lists what had to be repaired or assumed; nothing is printed.

mod added;
mod backtrack;
mod bpe;
mod bytes;
mod charsmap;
mod class;
mod config;
mod error;
mod export;
mod gguf;
mod hash;
mod json;
mod limits;
mod linear;
mod merge;
mod normalize;
mod note;
mod pattern;
mod pipeline;
mod post;
mod pre;
mod pretok;
mod scripts;
mod sentencepiece;
mod shape;
mod split;
mod spm;
mod stop;
mod stream;
#[cfg(feature = "train")]
pub mod train;
mod unigram;

use std::path::Path;
use std::sync::Arc;

pub use config::{NamedTemplate, TokenizerConfig};
pub use error::TokenizerError;
pub use gguf::GgufVocab;
pub use note::Note;
pub use stop::{StopPiece, StopStrings};
pub use stream::StreamDecoder;

use crate::files::{self, Kind};
use bytes::TokenTable;
use pipeline::Pipeline;
use post::Affixes;

/// A vocabulary and how texts are cut into it. Immutable; a clone costs two reference counts.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    core: Arc<Core>,
    special: Arc<Special>,
}

/// The immutable part, which clones share.
#[derive(Debug)]
struct Core {
    pipeline: Pipeline,
    table: TokenTable,
    affixes: Affixes,
    strip_space: bool,
}

/// The special ids, which other files of a checkpoint may refine.
#[derive(Debug, Clone, Default)]
struct Special {
    bos: Option<u32>,
    eos: Vec<u32>,
    unk: Option<u32>,
    pad: Option<u32>,
    add_bos: Option<bool>,
    add_eos: Option<bool>,
    notes: Vec<Note>,
}

/// Contents of a tokenizer's files, as their readers hand them over.
struct Contents {
    pipeline: Pipeline,
    table: TokenTable,
    affixes: Affixes,
    strip_space: bool,
    special: Special,
}

/// Tokens that end a turn, whatever end-of-text tokens a checkpoint lists.
const END_OF_TURN: &[&str] = &["<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|end|>"];

impl Contents {
    fn new(pipeline: Pipeline, table: TokenTable) -> Self {
        Self { pipeline, table, affixes: Affixes::default(), strip_space: false, special: Special::default() }
    }

    fn finish(mut self) -> Tokenizer {
        let Affixes { prefix, suffix } = &self.affixes;
        let mut special = self.special;
        let named = [special.bos, special.unk, special.pad].into_iter().flatten();
        for id in named.chain(special.eos.iter().copied()) {
            self.table.mark_special(id);
        }
        special.bos = special.bos.or_else(|| prefix.first().copied());
        if special.eos.is_empty() {
            special.eos.extend(suffix.last().copied());
        }
        special.add_bos = special.add_bos.or((!prefix.is_empty()).then_some(true));
        special.add_eos = special.add_eos.or((!suffix.is_empty()).then_some(true));
        let core =
            Core { pipeline: self.pipeline, table: self.table, affixes: self.affixes, strip_space: self.strip_space };
        Tokenizer { core: Arc::new(core), special: Arc::new(special) }
    }
}

/// Refuses an id at or above `limit`.
fn check_id(what: impl FnOnce() -> String, id: u32, limit: u64) -> Result<(), TokenizerError> {
    let id = u64::from(id);
    match id < limit {
        true => Ok(()),
        false => Err(TokenizerError::IdOutOfRange { what: what(), id, limit }),
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError::Read`], [`TokenizerError::File`], and the errors of [`Self::from_bytes`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        Self::from_bytes(&files::read(path.as_ref(), Kind::TOKENIZER)?)
    }

    /// Reads the bytes of a `tokenizer.json`. Its `truncation`, `padding` and `dropout` are not applied.
    ///
    /// # Errors
    /// Malformed JSON, kinds of models and stages that are not implemented, ids and merges that do not fit together.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        Ok(json::read(bytes)?.finish())
    }

    /// Reads the tokenizer of a Hugging Face folder: `tokenizer.json`, or `tokenizer.model` if it is missing, refined
    /// by `tokenizer_config.json`, `special_tokens_map.json` and `generation_config.json` if they exist. A special
    /// token that ends a turn is added to the ids that end a text (see [`Self::notes`]).
    ///
    /// # Errors
    /// The errors of [`Self::from_file`] and [`Self::with_config`].
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let dir = dir.as_ref();
        let (json, model) = (dir.join("tokenizer.json"), dir.join("tokenizer.model"));
        let mut tokenizer = if !json.exists() && model.exists() {
            Self::from_sentencepiece(&files::read(&model, Kind::TOKENIZER)?)?
        } else {
            Self::from_file(json)?
        };
        if let Some(config) = TokenizerConfig::from_dir(dir)? {
            tokenizer = tokenizer.with_config(&config)?;
        }
        if let Some(eos) = config::generation_eos(dir)? {
            tokenizer = tokenizer.with_eos(eos)?;
        }
        Ok(tokenizer.with_end_of_turn())
    }

    /// Builds the tokenizer of a GGUF file from its `tokenizer.ggml.*` keys. A special token that ends a turn is added
    /// to the ids that end a text, as the official 2B4T file needs (see [`Self::notes`]).
    ///
    /// # Errors
    /// An unknown model or pre-tokenizer, lists of different lengths, ids and merges that do not fit together.
    pub fn from_gguf_vocab(vocab: &GgufVocab) -> Result<Self, TokenizerError> {
        let [tokens, merges] =
            [&vocab.tokens, &vocab.merges].map(|list| list.iter().map(String::as_str).collect::<Vec<_>>());
        Self::from_gguf_lists(vocab, &tokens, &merges)
    }

    /// Like [`Self::from_gguf_vocab`], with lists that are elsewhere: to copy them takes a quarter of the time of reading a vocabulary.
    pub(crate) fn from_gguf_lists(vocab: &GgufVocab, tokens: &[&str], merges: &[&str]) -> Result<Self, TokenizerError> {
        Ok(gguf::read(vocab, tokens, merges)?.finish().with_end_of_turn())
    }

    /// Reads a SentencePiece model (`tokenizer.model`) of the BPE or unigram kind.
    ///
    /// # Errors
    /// Malformed bytes, word and character models, and the errors of [`Self::from_gguf_vocab`].
    pub fn from_sentencepiece(bytes: &[u8]) -> Result<Self, TokenizerError> {
        Self::from_gguf_vocab(&sentencepiece::read(bytes)?)
    }

    /// The vocabulary of a SentencePiece model (`tokenizer.model`), in the terms of GGUF files.
    ///
    /// # Errors
    /// Malformed bytes.
    pub fn vocab_of_sentencepiece(bytes: &[u8]) -> Result<GgufVocab, TokenizerError> {
        sentencepiece::read(bytes)
    }

    /// Takes special tokens and whether to add them from a `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`TokenizerError::MissingToken`] if it names a BOS or EOS token that the vocabulary lacks.
    pub fn with_config(&self, config: &TokenizerConfig) -> Result<Self, TokenizerError> {
        let id = |what, token: &Option<String>| match token {
            None => Ok(None),
            Some(token) => {
                let id = self.id_of(token);
                id.map(Some).ok_or_else(|| TokenizerError::MissingToken { what, token: token.clone() })
            }
        };
        let mut special = Special::clone(&self.special);
        special.bos = id(config.said_by(true), &config.bos_token)?.or(special.bos);
        if let Some(eos) = id(config.said_by(false), &config.eos_token)? {
            special.eos = vec![eos];
        }
        // Padding and unknown tokens are often named without existing; nothing here depends on them.
        special.pad = config.pad_token.as_deref().and_then(|token| self.id_of(token)).or(special.pad);
        special.unk = config.unk_token.as_deref().and_then(|token| self.id_of(token)).or(special.unk);
        special.add_bos = config.add_bos_token.or(special.add_bos);
        special.add_eos = config.add_eos_token.or(special.add_eos);
        Ok(Self { core: self.core.clone(), special: Arc::new(special) })
    }

    /// Replaces the ids that end a text, as `generation_config.json` or `config.json` list them.
    ///
    /// # Errors
    /// [`TokenizerError::IdOutOfRange`].
    pub fn with_eos(&self, eos: impl IntoIterator<Item = u32>) -> Result<Self, TokenizerError> {
        let mut special = Special::clone(&self.special);
        special.eos.clear();
        for id in eos {
            check_id(|| "eos_token_id".to_owned(), id, self.vocab_size() as u64)?;
            if !special.eos.contains(&id) {
                special.eos.push(id);
            }
        }
        Ok(Self { core: self.core.clone(), special: Arc::new(special) })
    }

    /// Replaces the id that begins a text.
    ///
    /// # Errors
    /// [`TokenizerError::IdOutOfRange`].
    pub fn with_bos(&self, bos: Option<u32>) -> Result<Self, TokenizerError> {
        if let Some(id) = bos {
            check_id(|| "bos_token_id".to_owned(), id, self.vocab_size() as u64)?;
        }
        let special = Special { bos, ..Special::clone(&self.special) };
        Ok(Self { core: self.core.clone(), special: Arc::new(special) })
    }

    /// Adds special tokens that end a turn (`<|eot_id|>`, `<|im_end|>` ...) to the ids that end a text, with a note for
    /// each: checkpoints that list only the end of the text never stop talking.
    pub fn with_end_of_turn(&self) -> Self {
        let mut special = Special::clone(&self.special);
        for token in END_OF_TURN {
            if let Some(id) = self.id_of(token).filter(|id| self.is_special(*id) && !special.eos.contains(id)) {
                special.eos.push(id);
                special.notes.push(Note::EndOfTurnAdded { token: (*token).to_owned(), id });
            }
        }
        Self { core: self.core.clone(), special: Arc::new(special) }
    }

    /// The ids of a text. Special tokens that are written out in it (`<|eot_id|>`) become their ids; use
    /// [`Self::encode_text`] for text that others wrote.
    ///
    /// With `add_special`, BOS and EOS are added around it if the file says so ([`Self::add_bos`], [`Self::add_eos`]).
    ///
    /// # Errors
    /// [`TokenizerError::TextTooLong`] beyond 1 GiB; [`TokenizerError::Growth`], [`TokenizerError::TooMuchWork`] and
    /// [`TokenizerError::PatternTooCostly`] if the text costs too much; [`TokenizerError::NoUnknown`] if the vocabulary
    /// cannot write it.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() / 4);
        if add_special && self.special.add_bos == Some(true) {
            match self.core.affixes.prefix.as_slice() {
                [] => ids.extend(self.special.bos),
                prefix => ids.extend_from_slice(prefix),
            }
        }
        self.core.pipeline.encode(text, true, &mut ids)?;
        if add_special && self.special.add_eos == Some(true) {
            match self.core.affixes.suffix.as_slice() {
                [] => ids.extend(self.special.eos.first()),
                suffix => ids.extend_from_slice(suffix),
            }
        }
        Ok(ids)
    }

    /// The ids of a text in which special tokens are text like any other: the end of a turn cannot be forged by
    /// writing `<|eot_id|>`. Nothing is added around it.
    ///
    /// # Errors
    /// The errors of [`Self::encode`].
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() / 4);
        self.core.pipeline.encode(text, false, &mut ids)?;
        Ok(ids)
    }

    /// The text of ids. Bytes that are not UTF-8 become U+FFFD, as [`String::from_utf8_lossy`] does it; ids without a
    /// token are left out. SentencePiece's space in front of the text is dropped.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut stream = StreamDecoder::new(self);
        if !skip_special {
            stream = stream.with_special();
        }
        let mut text = String::new();
        for &id in ids {
            stream.push_into(id, &mut text);
        }
        stream.finish_into(&mut text);
        text
    }

    /// The bytes that a token stands for, which need not be whole characters; `None` for an id without a token. The
    /// bytes of a special token are its name.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.core.table.get(id)
    }

    /// One more than the largest id. A model's logits may be longer (padded).
    pub fn vocab_size(&self) -> usize {
        self.core.table.len()
    }

    /// The id of a token in the spelling of its file: `Ġthe` or `▁the` for " the".
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.core.pipeline.id_of(token)
    }

    /// Whether an id steers the model rather than being text.
    pub fn is_special(&self, id: u32) -> bool {
        self.core.table.is_special(id)
    }

    /// The id that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// The ids that end a text: a set, the file's own first.
    pub fn eos(&self) -> &[u32] {
        &self.special.eos
    }

    /// Whether an id ends a text.
    pub fn is_eos(&self, id: u32) -> bool {
        self.special.eos.contains(&id)
    }

    /// The token for text outside the vocabulary.
    pub fn unk(&self) -> Option<u32> {
        self.special.unk
    }

    /// The padding token.
    pub fn pad(&self) -> Option<u32> {
        self.special.pad
    }

    /// Whether the file says that BOS begins every text; `None` if it does not say (then the model's configuration
    /// decides: BOS if it names one).
    pub fn add_bos(&self) -> Option<bool> {
        self.special.add_bos
    }

    /// Whether the file says that EOS ends every text.
    pub fn add_eos(&self) -> Option<bool> {
        self.special.add_eos
    }

    /// Notes on what was repaired or assumed.
    pub fn notes(&self) -> &[Note] {
        &self.special.notes
    }

    /// A decoder for ids as they are generated.
    pub fn stream(&self) -> StreamDecoder {
        StreamDecoder::new(self)
    }

    fn strip_space(&self) -> bool {
        self.core.strip_space
    }
}
