//! The use case: a program asks a small language model what an utterance means, in process, and reads the answer as a
//! value.
//!
//! Utterances of SNIPS and CLINC150 become examples for `bitnet train` ([`corpus`]), with typing errors
//! ([`bitnet::train::extract::typos`]); answers are kept to a [`grammar`] and judged ([`ask`], [`metrics`]) beside linear classifiers of the same sets
//! ([`baseline`]). [`templates`] make utterances for those who have none. [`japanese`] is the same for topics of questions in Japanese. `docs/intent.md` has the commands and
//! what came out.

#![forbid(unsafe_code)]
// A text with one span is the usual case.
#![allow(clippy::single_range_in_vec_init)]

pub mod answer;
pub mod ask;
pub mod baseline;
pub mod corpus;
mod error;
pub mod grammar;
pub mod http;
pub mod japanese;
pub mod linear;
pub mod metrics;
pub mod templates;
pub mod utterance;

pub use error::IntentError;

#[cfg(test)]
mod tests {
    use bitnet::{Constraint, GenerateOptions, Model};

    /// Whether a constraint allows a text, for a model that prefers exactly this text.
    pub(crate) fn accepts(constraint: &Constraint, text: &str) -> bool {
        let model = Model::tiny().expect("the model is part of the program");
        let prompt = model.encode("x", true).expect("a text");
        let (start, wanted, of) = (prompt.len(), text.to_owned(), model.clone());
        let wants = move |tokens: &[u32], logits: &mut [f32]| {
            let said = of.decode(&tokens[start..]).unwrap_or_default();
            let Some(rest) = wanted.strip_prefix(said.as_str()) else { return };
            let tokenizer = of.tokenizer().expect("there is one");
            for (id, logit) in (0u32..).zip(logits.iter_mut()) {
                let bytes = tokenizer.token_bytes(id).unwrap_or_default();
                let next = !bytes.is_empty() && !tokenizer.is_special(id) && rest.as_bytes().starts_with(bytes);
                let end = rest.is_empty() && of.is_eos(id);
                *logit = if next {
                    bytes.len() as f32
                } else if end {
                    1e3
                } else {
                    -1e3
                };
            }
        };
        let options = GenerateOptions::default().temperature(0.0).max_tokens(200).constraint(constraint.clone());
        let said = model.session().generate_ids(&prompt, options.processor(wants)).and_then(bitnet::Generation::finish);
        said.is_ok_and(|output| output.text.as_deref() == Some(text))
    }
}
