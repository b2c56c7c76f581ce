//! Requests of the page.

use std::sync::Arc;

use bitnet::{CancelToken, Constraint, GenerateOptions, HeadMode, Kernel, KvType, Message, SamplingOptions};
use serde::Deserialize;

use crate::Failure;

/// Options of loading.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct LoadRequest {
    /// Name for people, if the file has none.
    pub(crate) name: Option<String>,
    /// Most tokens of a session.
    pub(crate) context: Option<usize>,
    /// Type of the KV cache.
    kv: Option<String>,
    /// How the head is computed: `auto`, `plain` or `coarse`.
    head: Option<String>,
    /// The kernel of ternary products, to compare them.
    kernel: Option<String>,
}

impl LoadRequest {
    /// Tokens of a session where none are asked for and the model would hold more.
    const CONTEXT: usize = 4096;

    pub(crate) fn read(json: &str) -> Result<Self, Failure> {
        serde_json::from_str(json).map_err(|e| Failure::form(&e))
    }

    pub(crate) fn kv(&self) -> Result<KvType, Failure> {
        let Some(name) = &self.kv else { return Ok(KvType::default()) };
        let known = KvType::ALL.map(KvType::name).join(", ");
        KvType::from_name(name)
            .ok_or_else(|| Failure::request("kv", format!("{name:?} is not a type of the cache; supported: {known}")))
    }

    pub(crate) fn head(&self) -> Result<HeadMode, Failure> {
        match self.head.as_deref() {
            None | Some("auto") => Ok(HeadMode::Auto),
            Some("plain") => Ok(HeadMode::Plain),
            Some("coarse") => Ok(HeadMode::Coarse),
            Some(other) => {
                let message = format!("{other:?} is not a way to compute the head; supported: auto, plain, coarse");
                Err(Failure::request("head", message))
            }
        }
    }

    pub(crate) fn kernel(&self) -> Result<Option<Arc<dyn Kernel>>, Failure> {
        let by_name =
            |name: &String| ternary_kernels::by_name(name).map_err(|e| Failure::request("kernel", e.to_string()));
        self.kernel.as_ref().map(by_name).transpose()
    }

    pub(crate) fn context(&self) -> usize {
        self.context.unwrap_or(Self::CONTEXT)
    }
}

/// The whole text so far.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum Prompt {
    Chat { messages: Vec<Turn> },
    Text { text: String },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Turn {
    role: String,
    content: String,
}

impl Turn {
    pub(crate) fn message(&self) -> Message {
        Message::new(&self.role, &self.content)
    }
}

#[derive(Debug, Deserialize)]
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
    fn constraint(&self) -> Result<Constraint, Failure> {
        Ok(match self {
            Self::Json => Constraint::json_schema(&serde_json::json!({"type": "object"})),
            Self::Schema { schema } => {
                let schema = serde_json::from_str(schema).map_err(|e| Failure {
                    param: Some("constraint".to_owned()),
                    ..Failure::new("constraint", format!("the schema is not JSON: {e}"))
                })?;
                Constraint::json_schema(&schema)
            }
            Self::Regex { regex } => Constraint::regex(regex),
            Self::Grammar { grammar } => Constraint::lark(grammar.as_str()),
        })
    }
}

/// A generation.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GenerateRequest {
    pub(crate) prompt: Prompt,
    sampling: Option<Sampling>,
    max_tokens: Option<usize>,
    #[serde(default)]
    stop: Vec<String>,
    constraint: Option<ConstraintOf>,
}

impl GenerateRequest {
    pub(crate) fn read(json: &str) -> Result<Self, Failure> {
        serde_json::from_str(json).map_err(|e| Failure::form(&e))
    }

    /// The options, on top of what the model's files recommend.
    pub(crate) fn options(
        &self,
        recommended: SamplingOptions,
        cancel: &CancelToken,
    ) -> Result<GenerateOptions, Failure> {
        let mut sampling = recommended;
        if let Some(asked) = &self.sampling {
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
        }
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
