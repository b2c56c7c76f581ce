//! The extractor: an encoder that reads a text in both directions (or, as an ablation, [in one](Directions)) and says
//! what it is about (intent), what is in it (slots) and whether it is something that it does not know (out of scope).
//!
//! A text is cut into [words](split_words); a word is the sum of rows of a table, [one for each feature](Utterance);
//! layers of attention over all words (or of a recurrence in both directions) and feed-forward blocks with ternary
//! weights read them; a float head names the intent, another one tags each word, and the best sequence of tags makes the slots.
//! Decision: `docs/adr/0034-extractor.md`.

mod config;
mod features;
mod forward;
mod heads;
mod layer;
mod mixer;
#[cfg(feature = "candle")]
pub mod nn;
pub(crate) mod once;
mod recurrent;
mod synthetic;
mod tags;
mod weights;
mod words;

pub use config::{
    ExtractorConfig, MAX_WORDS, OosRule, OosScore, TAG_OUTSIDE, TaskConfig, tag_begin, tag_inside, tag_may_follow,
};
pub use features::{FeatureConfig, MAX_FEATURES, Utterance};
pub use forward::{Extractor, Scratch};
pub use heads::Found;
pub use mixer::{DIRECTIONS, Directions, EncoderMixer, direction_tensor_name};
pub use tags::Span;
pub use weights::{
    EncoderLayer, EncoderNorm, ExtractorWeights, FeatureTable, HeadTensor, TaskWeights, encoder_projection_shape,
};
pub use words::{Word, WordKind, split_words};
