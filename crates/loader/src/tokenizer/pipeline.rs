//! From text to ids: added tokens, normaliser, pre-tokenizer, model.

use super::added::{AddedTokens, Part};
use super::bpe::{Alphabet, Bpe};
use super::bytes::from_byte_level;
use super::error::TokenizerError;
use super::limits::{Meter, TEXT_BYTES};
use super::merge::Merger;
use super::normalize::Normalization;
use super::pretok::PreTokenization;
use super::spm::Spm;
use super::unigram::Unigram;

/// How words become ids.
#[derive(Debug)]
pub(super) enum Model {
    Bpe(Bpe),
    Spm(Spm),
    Unigram(Box<Unigram>),
}

/// Buffers that are reused from part to part of one text.
struct Run {
    meter: Meter,
    merger: Merger,
}

/// The stages in order.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) added: AddedTokens,
    pub(super) normalization: Normalization,
    pub(super) pre: PreTokenization,
    pub(super) model: Model,
}

impl Pipeline {
    /// Appends the ids of a text; without `specials`, special tokens in it are text like any other.
    pub(super) fn encode(&self, text: &str, specials: bool, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        if text.len() > TEXT_BYTES {
            return Err(TokenizerError::TextTooLong { bytes: text.len(), limit: TEXT_BYTES });
        }
        let mut run = Run { meter: Meter::new(text.len()), merger: Merger::default() };
        let mut result = Ok(());
        self.added.split_raw(text, specials, &mut |part| {
            if result.is_ok() {
                match part {
                    Part::Token(id) => out.push(id),
                    Part::Text(text, start) => {
                        result = self.encode_part(text, start == 0, specials, &mut run, out);
                    }
                }
            }
        });
        result
    }

    fn encode_part(
        &self,
        text: &str,
        at_start: bool,
        specials: bool,
        run: &mut Run,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let text = self.normalization.apply(text, &mut run.meter)?;
        let mut result = Ok(());
        self.added.split_normalized(&text, specials, &mut |part| {
            if result.is_ok() {
                match part {
                    Part::Token(id) => out.push(id),
                    Part::Text(text, start) => result = self.encode_words(text, at_start && start == 0, run, out),
                }
            }
        });
        result
    }

    fn encode_words(
        &self,
        text: &str,
        at_start: bool,
        run: &mut Run,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let Run { meter, merger } = run;
        self.pre.words(text, at_start, meter, |word| {
            match &self.model {
                Model::Bpe(bpe) => bpe.encode_word(word, merger, out),
                Model::Spm(spm) => spm.encode(word, merger, out)?,
                Model::Unigram(unigram) => unigram.encode(word, out)?,
            }
            Ok(())
        })
    }

    /// The id of a token in the spelling of its file.
    pub(super) fn id_of(&self, token: &str) -> Option<u32> {
        self.added.id_of(token).or_else(|| match &self.model {
            Model::Bpe(bpe) => match bpe.alphabet() {
                Alphabet::Bytes => bpe.id_of(&from_byte_level(token)?),
                Alphabet::Chars => bpe.id_of(token.as_bytes()),
            },
            Model::Spm(spm) => spm.id_of(token),
            Model::Unigram(unigram) => unigram.id_of(token).or_else(|| unigram.id_of_byte(token)),
        })
    }
}
