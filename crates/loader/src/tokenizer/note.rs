//! Notes on what was repaired or assumed while a vocabulary or a chat template was read.

use std::fmt;

/// Something about a file that was repaired or assumed.
///
/// A library does not print: notes are passed to the caller, who shows them to the user (`Display` is one line).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// The file names no pre-tokenizer; the one of Llama 3 was taken, as the official 2B4T file needs.
    PreTokenizerAssumed {
        /// The pre-tokenizer that was taken.
        taken: &'static str,
    },
    /// A token that ends a turn was missing among the ids that end a text, and was added.
    EndOfTurnAdded {
        /// The token as the vocabulary writes it.
        token: String,
        /// Its id.
        id: u32,
    },
    /// A special id of the file is beyond its vocabulary and was left out.
    SpecialBeyond {
        /// Which one.
        what: &'static str,
        /// The id.
        id: u32,
        /// The number of tokens.
        size: usize,
    },
    /// Added tokens have ids that the model's vocabulary gives to other tokens, which they replace.
    AddedReplaces {
        /// The first of them.
        token: String,
        /// The token that it replaces.
        replaced: String,
        /// Its id.
        id: u32,
        /// How many there are.
        count: usize,
    },
    /// The chat template of the file is known to be wrong for its model and was replaced by a built-in one.
    TemplateReplaced {
        /// The origin of the wrong template.
        source: String,
        /// The name of the built-in template that was taken.
        taken: &'static str,
        /// How the wrong template was recognised.
        why: &'static str,
    },
    /// The source has no chat template; a built-in one was taken because its special tokens are in the vocabulary.
    TemplateAssumed {
        /// The name of the built-in template that was taken.
        taken: &'static str,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PreTokenizerAssumed { taken } => {
                write!(f, "the file names no pre-tokenizer (tokenizer.ggml.pre): {taken} is assumed")
            }
            Self::EndOfTurnAdded { token, id } => {
                write!(f, "{token} (id {id}) ends a turn but was not listed as an end of text: added")
            }
            Self::SpecialBeyond { what, id, size } => {
                write!(f, "the {what} token is id {id}, beyond the vocabulary of {size} tokens: there is none")
            }
            Self::AddedReplaces { token, replaced, id, count } => {
                let others = count.saturating_sub(1);
                write!(f, "the added token {token:?} replaces {replaced:?} (id {id})")?;
                if others > 0 { write!(f, "; {others} others replace tokens as well") } else { Ok(()) }
            }
            Self::TemplateReplaced { source, taken, why } => {
                write!(
                    f,
                    "the chat template of {source} is wrong ({why}): the built-in template {taken} is used instead"
                )
            }
            Self::TemplateAssumed { taken } => {
                write!(f, "there is no chat template: the built-in template {taken} fits the vocabulary and is used")
            }
        }
    }
}
