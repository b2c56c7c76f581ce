//! Training of byte-level BPE tokenizers. Feature `train`.

use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerBuilder, TokenizerImpl};

use super::TokenizerError;
use super::pattern::Patterns;
use super::pre::GPT2;
use super::split::{Splitter, split_all};

/// Token that begins a text, id 0 of a tokenizer of ours.
pub const BEGIN_OF_TEXT: &str = "<|begin_of_text|>";
/// Token that ends a text, id 1.
pub const END_OF_TEXT: &str = "<|end_of_text|>";

/// Bytes of a word that tokenizers are learned from; longer words count as several.
///
/// The library goes through a whole word whenever one of its pairs is joined, so a word costs the square of its length.
pub const LONGEST_WORD: usize = 256;

/// Bytes of text that the library gets at once: it takes some twenty bytes for each.
const SEGMENT: usize = 64 << 10;

/// A text in segments that end where words end; words longer than [`LONGEST_WORD`] are split.
///
/// A segment is split into the same words as the text: no word of this pattern depends on the text before it, and the
/// text after it matters only between two words of white space, so a segment ends there.
fn segments<'t>(splitter: &Splitter, text: &'t str) -> Result<Vec<&'t str>, TokenizerError> {
    let (mut segments, mut start, mut end) = (Vec::new(), 0, 0);
    let mut after_space = false;
    let mut close = |from: &mut usize, to: usize| {
        segments.extend(text.get(*from..to).filter(|segment| !segment.is_empty()));
        *from = to;
    };
    // The pattern is a known one, which takes no counted steps.
    split_all(std::slice::from_ref(splitter), text, &mut 0, &mut |word| {
        let before = end;
        end += word.len();
        // White space is split before its last character if a word follows; at the end of a segment it would not be.
        let space = word.chars().all(char::is_whitespace);
        if space && after_space {
            close(&mut start, before);
        }
        after_space = space;
        if word.len() <= LONGEST_WORD {
            if end - start > SEGMENT {
                close(&mut start, before);
            }
            return Ok(());
        }
        close(&mut start, before);
        while end - start > LONGEST_WORD {
            let cut = text.floor_char_boundary(start + LONGEST_WORD);
            close(&mut start, cut);
        }
        close(&mut start, end);
        Ok(())
    })?;
    close(&mut start, end);
    Ok(segments)
}

/// Learns a byte-level BPE vocabulary of at most `vocab_size` tokens from `texts` and returns it as a `tokenizer.json`.
/// It can write every text; words are cut as GPT-2 cuts them, so it also fits into a GGUF file. The first ids are
/// [`BEGIN_OF_TEXT`] and [`END_OF_TEXT`], then the 256 bytes. Words longer than [`LONGEST_WORD`] bytes (texts without
/// spaces, runs of one sign) are cut before anything is learned from them, which keeps the time in proportion to the
/// text; no token becomes longer than that.
///
/// # Errors
/// [`TokenizerError::Library`] for fewer than 258 tokens, or an error of the library.
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
    let splitter = Splitter::known(GPT2, &mut Patterns::default())?;
    let segments = texts.iter().map(|text| segments(&splitter, text)).collect::<Result<Vec<_>, _>>()?;
    tokenizer.train(&mut trainer, segments.into_iter().flatten()).map_err(|e| failed(e.to_string()))?;
    tokenizer.to_string(true).map_err(|e| failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Tokenizer;

    /// The library's result for uncut texts.
    fn words(texts: &[&str]) -> Vec<String> {
        use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};
        let mut words = Vec::new();
        for text in texts {
            let mut pre = PreTokenizedString::from(*text);
            ByteLevel::new(false, true, true).pre_tokenize(&mut pre).unwrap();
            let splits = pre.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
            words.extend(splits.into_iter().map(|(word, _, _)| word.to_owned()));
        }
        words
    }

    #[test]
    fn segments_hold_the_words_of_the_text() {
        let splitter = Splitter::known(GPT2, &mut Patterns::default()).unwrap();
        let text = "It's  a   cat,\n\n it  isn't 日本語 \t12345!? ".repeat(5000);
        let cut = segments(&splitter, &text).unwrap();
        assert!(cut.len() > 2 && cut.iter().all(|segment| segment.len() <= SEGMENT));
        assert_eq!(cut.concat(), text);
        assert_eq!(words(&cut), words(&[&text]));
        let long = format!("a {} b", "語".repeat(1000));
        let cut = segments(&splitter, &long).unwrap();
        assert_eq!(cut.concat(), long);
        assert!(cut.iter().all(|segment| segment.len() <= LONGEST_WORD));
    }

    #[test]
    fn words_without_an_end_take_no_square_of_their_length() {
        let mut seed = 1u64;
        let mut letter = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'a' + (seed >> 33) as u8 % 26)
        };
        let random: String = (0..100_000).map(|_| letter()).collect();
        let started = std::time::Instant::now();
        for text in ["a".repeat(1_000_000), random, " ".repeat(300_000), "=-".repeat(200_000)] {
            let json = train_bpe(&[text], 600).unwrap();
            let tokenizer = Tokenizer::from_bytes(json.as_bytes()).unwrap();
            assert_eq!(tokenizer.decode(&tokenizer.encode_text("aabb  ==").unwrap(), true), "aabb  ==");
        }
        // Without splitting, the million letters alone take a thousand times as long as this limit.
        assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    }

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
