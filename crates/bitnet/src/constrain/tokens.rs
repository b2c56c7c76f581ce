//! A model's vocabulary as the grammar's engine reads it: every token as bytes.

use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::toktrie::{INVALID_TOKEN, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use loader::tokenizer::Tokenizer;

use super::ConstraintError;
use super::prepared::CompiledCaches;
use crate::exact::encode_exact;
use crate::{Error, Model};

/// The vocabulary of one model, made when it is first needed.
#[derive(Clone)]
pub(crate) struct Vocabulary {
    pub(super) factory: Arc<ParserFactory>,
    /// Constraints compiled for it; clones of the model share them.
    pub(super) kept: Arc<CompiledCaches>,
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vocabulary")
    }
}

impl Vocabulary {
    pub(crate) fn new(model: &Model) -> Result<Self, Error> {
        let tokenizer = model.tokenizer().ok_or(Error::NoTokenizer)?;
        let env: TokEnv = Arc::new(Env { trie: trie(model, tokenizer), tokenizer: tokenizer.clone() });
        let mut factory = ParserFactory::new_simple(&env).map_err(ConstraintError::engine)?;
        // Libraries never print.
        factory.quiet();
        Ok(Self { factory: Arc::new(factory), kept: Arc::default() })
    }
}

/// All tokens that can be text, by their bytes. Special ones carry a mark that no text has; ids without a token are
/// empty.
fn trie(model: &Model, tokenizer: &Tokenizer) -> TokTrie {
    let size = model.config().vocab_size as u32;
    let word = |id: u32| match tokenizer.token_bytes(id) {
        Some(name) if tokenizer.is_special(id) => [&[TokTrie::SPECIAL_TOKEN_MARKER], name].concat(),
        Some(bytes) => bytes.to_vec(),
        None => Vec::new(),
    };
    let words: Vec<Vec<u8>> = (0..size).map(word).collect();
    let eos: Vec<u32> = model.config().eos_token_ids.iter().copied().filter(|id| *id < size).collect();
    let trie = TokTrie::from(&TokRxInfo::new(size, eos.first().copied().unwrap_or(INVALID_TOKEN)), &words);
    if eos.is_empty() { trie } else { trie.with_eos_tokens(&eos) }
}

struct Env {
    trie: TokTrie,
    tokenizer: Tokenizer,
}

impl TokenizerEnv for Env {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// Splits a text into tokens like the tokenizer; if that cannot spell exactly these bytes, the longest tokens one
    /// after the other.
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let known = |ids: &Vec<u32>| ids.iter().all(|id| (*id as usize) < self.trie.vocab_size());
        let text = std::str::from_utf8(bytes).ok();
        let ids = text.and_then(|text| encode_exact(&self.tokenizer, text).ok().flatten()).filter(known);
        ids.unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }
}
