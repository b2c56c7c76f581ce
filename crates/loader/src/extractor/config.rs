//! The configuration of an extractor as JSON, the same text in both containers.

use bitnet_model::Activation;
use bitnet_model::encoder::{Directions, EncoderMixer, ExtractorConfig, OosRule, OosScore, TaskConfig};
use serde::{Deserialize, Serialize};

use super::{ARCHITECTURE, FORMAT};
use crate::LoadError;

/// A file's configuration. Unknown fields are refused: their effect would not be computed.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    model_type: String,
    format: u32,
    buckets: usize,
    runs: bool,
    reach: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mixer: Option<Mixers>,
    /// `both` where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    directions: Option<String>,
    intermediate_size: usize,
    hidden_act: String,
    rope_theta: f32,
    rms_norm_eps: f32,
    tasks: Vec<Task>,
}

/// The mixers of layers: one for all, or one for each. All are attention where nothing is said.
#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum Mixers {
    All(String),
    Each(Vec<String>),
}

impl Mixers {
    fn new(mixers: &[EncoderMixer]) -> Option<Self> {
        let first = mixers.first()?;
        let name = |mixer: &EncoderMixer| mixer.name().to_owned();
        Some(match mixers.iter().all(|mixer| mixer == first) {
            true => Self::All(name(first)),
            false => Self::Each(mixers.iter().map(name).collect()),
        })
    }

    fn read(self, layers: usize) -> Result<Vec<EncoderMixer>, LoadError> {
        let mixer = |name: &String| {
            EncoderMixer::from_name(name).ok_or_else(|| LoadError::KeyValue {
                key: "mixer".to_owned(),
                value: format!("{name:.40?}"),
                reason: "it must be attention, ttt_linear or gated_delta".to_owned(),
            })
        };
        match self {
            // More layers than can be are refused with the rest of the configuration.
            Self::All(name) => Ok(vec![mixer(&name)?; layers.min(1 << 10)]),
            Self::Each(names) if names.is_empty() => mixer(&String::new()).map(|_| Vec::new()),
            Self::Each(names) => names.iter().map(mixer).collect(),
        }
    }
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Task {
    name: String,
    intents: Vec<String>,
    slots: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    intent_slots: Option<Vec<Vec<usize>>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    once: Vec<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oos: Option<Oos>,
    temperature: f32,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Oos {
    score: String,
    threshold: f32,
}

/// The `model_type` of a configuration, if it is one.
pub(super) fn model_type(json: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Type {
        model_type: String,
    }
    Some(serde_json::from_slice::<Type>(json).ok()?.model_type)
}

/// The form that a configuration names, if it does.
fn format_of(json: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Format {
        format: u64,
    }
    Some(serde_json::from_slice::<Format>(json).ok()?.format)
}

/// Reads a configuration and checks it.
///
/// # Errors
/// [`LoadError::Json`]; [`LoadError::ExtractorFormat`] for another form; [`LoadError::KeyValue`] for a value that is not
/// read; [`LoadError::Model`] for one that
/// cannot be; [`LoadError::NotAnExtractor`] for the configuration of another model.
pub fn config_from_json(json: &[u8]) -> Result<ExtractorConfig, LoadError> {
    if let Some(other) = model_type(json).filter(|name| name != ARCHITECTURE) {
        return Err(LoadError::NotAnExtractor { architecture: other });
    }
    let what = "the configuration of an extractor";
    // The form comes first: what another one says may not even have these fields.
    if let Some(format) = format_of(json) {
        super::check_format("format", format)?;
    }
    let file: File = serde_json::from_slice(json).map_err(|source| LoadError::Json { what, source })?;
    let unknown = |key: &str, value: String, reason: &str| LoadError::KeyValue {
        key: key.to_owned(),
        value: format!("{value:.40?}"),
        reason: reason.to_owned(),
    };
    let activation = match file.hidden_act.as_str() {
        "silu" => Activation::Silu,
        "relu2" => Activation::Relu2,
        _ => return Err(unknown("hidden_act", file.hidden_act, "it must be silu or relu2")),
    };
    let directions = match file.directions {
        None => Directions::Both,
        Some(name) => {
            Directions::from_name(&name).ok_or_else(|| unknown("directions", name, "it must be both or forward"))?
        }
    };
    let task = |task: Task| -> Result<TaskConfig, LoadError> {
        let oos = match task.oos {
            None => None,
            Some(Oos { score, threshold }) => {
                let reason = "it must be energy, max_logit or max_probability";
                let score = OosScore::from_name(&score).ok_or_else(|| unknown("tasks.oos.score", score, reason))?;
                Some(OosRule { score, threshold })
            }
        };
        let Task { name, intents, slots, intent_slots, once, temperature, .. } = task;
        Ok(TaskConfig { name, intents, slots, intent_slots, once, oos, temperature })
    };
    let config = ExtractorConfig {
        buckets: file.buckets,
        runs: file.runs,
        reach: file.reach,
        hidden_size: file.hidden_size,
        num_layers: file.num_hidden_layers,
        num_heads: file.num_attention_heads,
        mixers: file.mixer.map_or(Ok(Vec::new()), |m| m.read(file.num_hidden_layers))?,
        directions,
        intermediate_size: file.intermediate_size,
        activation,
        rope_theta: file.rope_theta,
        norm_eps: file.rms_norm_eps,
        tasks: file.tasks.into_iter().map(task).collect::<Result<_, _>>()?,
    };
    config.validate()?;
    Ok(config)
}

/// The configuration as JSON; [`config_from_json`] reads the same from it.
///
/// # Errors
/// [`LoadError::Model`] for a configuration that cannot be.
pub fn config_to_json(config: &ExtractorConfig) -> Result<String, LoadError> {
    config.validate()?;
    let task = |t: &TaskConfig| Task {
        name: t.name.clone(),
        intents: t.intents.clone(),
        slots: t.slots.clone(),
        intent_slots: t.intent_slots.clone(),
        once: t.once.clone(),
        oos: t.oos.map(|rule| Oos { score: rule.score.name().to_owned(), threshold: rule.threshold }),
        temperature: t.temperature,
    };
    let file = File {
        model_type: ARCHITECTURE.to_owned(),
        format: FORMAT,
        buckets: config.buckets,
        runs: config.runs,
        reach: config.reach,
        hidden_size: config.hidden_size,
        num_hidden_layers: config.num_layers,
        num_attention_heads: config.num_heads,
        mixer: Mixers::new(&config.mixers),
        directions: Some(config.directions).filter(|d| *d != Directions::Both).map(|d| d.name().to_owned()),
        intermediate_size: config.intermediate_size,
        hidden_act: config.activation.name().to_owned(),
        rope_theta: config.rope_theta,
        rms_norm_eps: config.norm_eps,
        tasks: config.tasks.iter().map(task).collect(),
    };
    let what = "the configuration of an extractor";
    serde_json::to_string(&file).map_err(|source| LoadError::Json { what, source })
}
