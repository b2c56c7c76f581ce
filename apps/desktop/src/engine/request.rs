//! Requests of the page.

use bitnet::{CancelToken, Constraint, GenerateOptions, Message, Model, SamplingOptions};
use serde::Deserialize;

use crate::Failure;

/// Tokens of a text that begins with the one of `before`: those, and then the tokens of the rest. A tokenizer might cut the
/// whole text elsewhere than the model did when it wrote a part of it, and then all of it would be read again.
fn continued(model: &Model, before: &[u32], text: &str) -> Result<Option<Vec<u32>>, Failure> {
    // An end is not a part of a text that goes on.
    let kept = before.len() - usize::from(before.last().is_some_and(|last| model.is_eos(*last)));
    let mut ids = before[..kept].to_vec();
    let Some(rest) = text.strip_prefix(model.decode(&ids)?.as_str()).filter(|_| kept > 0) else { return Ok(None) };
    ids.extend(model.encode(rest, false)?);
    // Tokenizers that put a space in front of a text would put it in the middle of this one.
    Ok((model.decode(&ids)? == text).then_some(ids))
}

/// The whole text so far.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
enum Prompt {
    Chat { messages: Vec<Turn> },
    Text { text: String },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    role: String,
    content: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Sampling {
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<usize>,
    min_p: Option<f32>,
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
    fn constraint(&self) -> Result<Constraint, Failure> {
        Ok(match self {
            Self::Json => Constraint::json_schema(&serde_json::json!({"type": "object"})),
            Self::Schema { schema } => {
                let schema = serde_json::from_str(schema).map_err(|e| Failure {
                    param: Some("constraint"),
                    ..Failure::new("constraint", format!("the schema is not JSON: {e}"))
                })?;
                Constraint::json_schema(&schema)
            }
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
    pub(crate) id: String,
    pub(crate) session: String,
    prompt: Prompt,
    #[serde(default)]
    sampling: Sampling,
    max_tokens: Option<usize>,
    #[serde(default)]
    stop: Vec<String>,
    constraint: Option<ConstraintOf>,
    /// `ModelInfo::inner_loss` tells the page that there are none here.
    #[serde(default)]
    #[expect(dead_code, reason = "read and refused nowhere: inner losses are not reported here")]
    inner_loss: bool,
}

impl GenerateRequest {
    /// Tokens of the prompt, for a session that has read `before`.
    pub(super) fn ids(&self, model: &Model, before: &[u32]) -> Result<Vec<u32>, Failure> {
        Ok(match &self.prompt {
            Prompt::Text { text } => match continued(model, before, text)? {
                Some(ids) => ids,
                None => model.encode(text, model.adds_bos())?,
            },
            Prompt::Chat { messages } => {
                let messages: Vec<Message> = messages.iter().map(|m| Message::new(&m.role, &m.content)).collect();
                model.encode_chat(&messages)?
            }
        })
    }

    /// The options, on top of what the model's files recommend; `seed` counts if the page sets none.
    pub(super) fn options(&self, model: &Model, seed: u64, cancel: &CancelToken) -> Result<GenerateOptions, Failure> {
        let mut sampling: SamplingOptions = model.default_sampling();
        let asked = &self.sampling;
        let floats = [
            (asked.temperature, &mut sampling.temperature),
            (asked.top_p, &mut sampling.top_p),
            (asked.min_p, &mut sampling.min_p),
            (asked.presence_penalty, &mut sampling.presence_penalty),
            (asked.frequency_penalty, &mut sampling.frequency_penalty),
        ];
        for (value, place) in floats {
            *place = value.unwrap_or(*place);
        }
        sampling.top_k = asked.top_k.unwrap_or(sampling.top_k);
        sampling.seed = asked.seed.unwrap_or(seed);
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
