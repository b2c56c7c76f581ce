//! Training of byte-level BPE tokenizers. Feature `train`.

use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerBuilder, TokenizerImpl};

use super::TokenizerError;

/// Token that begins a text, id 0 of a tokenizer of ours.
pub const BEGIN_OF_TEXT: &str = "<|begin_of_text|>";
/// Token that ends a text, id 1.
pub const END_OF_TEXT: &str = "<|end_of_text|>";

/// Learns a byte-level BPE vocabulary of at most `vocab_size` tokens from `texts` and returns it as a `tokenizer.json`. It can
/// write every text; words are cut as GPT-2 cuts them, so it also fits into a GGUF file. The first ids are
/// [`BEGIN_OF_TEXT`] and [`END_OF_TEXT`], then the 256 bytes.
///
/// # Errors
/// [`TokenizerError::Library`] for fewer than 258 tokens, or what the library reports.
pub fn train_bpe(texts: &[String], vocab_size: usize) -> Result<String, TokenizerError> {
    let failed = |reason: String| TokenizerError::Library { stage: "training of the tokenizer", reason };
    if vocab_size < 258 {
        return Err(failed(format!(
            "a vocabulary of {vocab_size} tokens has no room for 256 bytes and 2 special tokens"
        )));
    }
    let special = |name: &str| AddedToken::from(name, true);
    let mut trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(vocab_size)
        .min_frequency(2)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![special(BEGIN_OF_TEXT), special(END_OF_TEXT)])
        .build();
    let bytes = || ByteLevel::new(false, true, true);
    let mut tokenizer: TokenizerImpl<BPE, NormalizerWrapper, ByteLevel, ByteLevel, ByteLevel> = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(None)
        .with_pre_tokenizer(Some(bytes()))
        .with_post_processor(None)
        .with_decoder(Some(bytes()))
        .build()
        .map_err(|e| failed(e.to_string()))?;
    tokenizer.train(&mut trainer, texts.iter()).map_err(|e| failed(e.to_string()))?;
    tokenizer.to_string(true).map_err(|e| failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Tokenizer;

    #[test]
    fn trained_tokenizers_write_every_text() {
        let texts: Vec<String> =
            (0..50).map(|i| format!("The cat number {i} sat on the mat. The cat purred.")).collect();
        let json = train_bpe(&texts, 300).unwrap();
        assert_eq!(json, train_bpe(&texts, 300).unwrap(), "the same text gives the same tokenizer");
        let tokenizer = Tokenizer::from_bytes(json.as_bytes()).unwrap();
        assert_eq!((tokenizer.id_of(BEGIN_OF_TEXT), tokenizer.id_of(END_OF_TEXT)), (Some(0), Some(1)));
        assert!(tokenizer.vocab_size() <= 300);
        for text in ["The cat sat.", "日本語 \u{0}\u{7f}", " two  spaces\n"] {
            let ids = tokenizer.encode_text(text).unwrap();
            assert_eq!(tokenizer.decode(&ids, true), text);
        }
        assert!(tokenizer.encode_text(" cat").unwrap().len() == 1);
        assert!(train_bpe(&texts, 257).is_err());
    }
}
