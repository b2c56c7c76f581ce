//! Requests of the page.

use bitnet::{CancelToken, Constraint, GenerateOptions, Message, SamplingOptions};
use serde::Deserialize;

/// A schema of a request that is not JSON.
#[derive(Debug, thiserror::Error)]
#[error("the schema is not JSON: {0}")]
pub struct SchemaError(#[from] serde_json::Error);

/// The whole text so far.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum Prompt {
    /// A conversation, which the chat template of the model makes a text of.
    Chat {
        /// Its turns, the last of which is answered.
        messages: Vec<Turn>,
    },
    /// A text that goes on.
    Text {
        /// All of it.
        text: String,
    },
}

/// A turn of a conversation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    role: String,
    content: String,
}

impl Turn {
    /// The message that a chat template takes.
    pub fn message(&self) -> Message {
        Message::new(&self.role, &self.content)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Sampling {
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<usize>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    seed: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
enum ConstraintOf {
    Json,
    Schema { schema: String },
    Regex { regex: String },
    Grammar { grammar: String },
}

impl ConstraintOf {
    fn constraint(&self) -> Result<Constraint, SchemaError> {
        Ok(match self {
            Self::Json => Constraint::json_schema(&serde_json::json!({"type": "object"})),
            Self::Schema { schema } => Constraint::json_schema(&serde_json::from_str(schema)?),
            Self::Regex { regex } => Constraint::regex(regex),
            Self::Grammar { grammar } => Constraint::lark(grammar.as_str()),
        })
    }
}

/// `GenerateRequest` of the page.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GenerateRequest {
    /// Name of the generation, for `cancel`.
    #[serde(default)]
    pub id: String,
    /// Name of the session.
    #[serde(default)]
    pub session: String,
    /// The whole text so far.
    pub prompt: Prompt,
    #[serde(default)]
    sampling: Sampling,
    max_tokens: Option<usize>,
    #[serde(default)]
    stop: Vec<String>,
    constraint: Option<ConstraintOf>,
    /// Whether inner losses are wanted; [`Info`](crate::Info) tells the page whether there are any.
    #[serde(default)]
    pub inner_loss: bool,
}

impl GenerateRequest {
    /// The options, on top of those that are `recommended`: by the model's files, with a seed if the caller has one.
    ///
    /// # Errors
    /// A schema that is not JSON.
    pub fn options(&self, recommended: SamplingOptions, cancel: &CancelToken) -> Result<GenerateOptions, SchemaError> {
        let mut sampling = recommended;
        let asked = &self.sampling;
        let floats = [
            (asked.temperature, &mut sampling.temperature),
            (asked.top_p, &mut sampling.top_p),
            (asked.min_p, &mut sampling.min_p),
            (asked.repeat_penalty, &mut sampling.repeat_penalty),
            (asked.presence_penalty, &mut sampling.presence_penalty),
            (asked.frequency_penalty, &mut sampling.frequency_penalty),
        ];
        for (value, place) in floats {
            *place = value.unwrap_or(*place);
        }
        sampling.top_k = asked.top_k.unwrap_or(sampling.top_k);
        sampling.seed = asked.seed.unwrap_or(sampling.seed);
        let mut options = GenerateOptions::default().sampling(sampling).cancel(cancel);
        if let Some(most) = self.max_tokens {
            options = options.max_tokens(most);
        }
        for stop in &self.stop {
            options = options.stop(stop);
        }
        if let Some(constraint) = &self.constraint {
            options = options.constraint(constraint.constraint()?);
        }
        Ok(options)
    }
}
