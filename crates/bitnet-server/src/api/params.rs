//! Parameters that all requests for texts share: sampling, limits, stops.

use std::hash::{BuildHasher, RandomState};

use bitnet::{GenerateOptions, SamplingOptions, SamplingOverrides, Speculation};
use serde_json::Value;

use super::{ApiError, Fields};
use crate::state::App;

/// Most texts that end a generation.
const MAX_STOPS: usize = 16;
/// Longest of them.
const MAX_STOP_BYTES: usize = 1024;
/// Most tokens with a bias: it is added for each new token.
const MAX_BIASES: usize = 4096;
/// OpenAI fields that are accepted and ignored.
const HARMLESS: &[&str] =
    &["metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier", "store", "user"];

/// Generation parameters that all requests for text share.
#[derive(Debug)]
pub(crate) struct GenerationParams {
    pub(crate) stream: bool,
    /// Whether a stream ends with the number of tokens.
    pub(crate) include_usage: bool,
    /// Whether a stream reports how far a text is and the memory of its session.
    pub(crate) include_state: bool,
    /// Texts for each prompt.
    pub(crate) n: usize,
    /// The number of most probable tokens to report, if probabilities are requested.
    pub(crate) logprobs: Option<usize>,
    sampling: SamplingOptions,
    /// Most new tokens, if the request says so.
    asked: Option<usize>,
    max_tokens: usize,
    stop: Vec<String>,
    logit_bias: Vec<(u32, f32)>,
    /// The constraint of the text, and the field that requests it.
    #[cfg(feature = "constrain")]
    constraint: Option<(&'static str, bitnet::Constraint)>,
}

impl GenerationParams {
    /// Takes the common fields of `fields`. Without a field for it, a text has at most `max_tokens` tokens; a request
    /// may limit it to `least` or more.
    pub(crate) fn take(
        fields: &mut Fields,
        app: &App,
        limit_fields: &[&str],
        least: usize,
        max_tokens: usize,
    ) -> Result<Self, ApiError> {
        fields.ignore(HARMLESS);
        let number = |v: Option<f64>| v.map(|v| v as f32);
        let sampling = SamplingOverrides {
            temperature: number(fields.number("temperature", 0.0..=2.0)?),
            top_p: number(fields.number("top_p", 0.0..=1.0)?),
            // Beyond OpenAI's interface, as many local servers have them.
            top_k: fields.integer("top_k", 0..=usize::MAX)?,
            min_p: number(fields.number("min_p", 0.0..=1.0)?),
            presence_penalty: number(fields.number("presence_penalty", -2.0..=2.0)?),
            frequency_penalty: number(fields.number("frequency_penalty", -2.0..=2.0)?),
            seed: fields.seed("seed")?,
            ..Default::default()
        };
        let mut asked = None;
        for field in limit_fields {
            asked = asked.or(fields.integer(field, least..=app.max_tokens)?);
        }
        let stream = fields.boolean("stream")?;
        let (include_usage, include_state) = match fields.take("stream_options") {
            None => (false, false),
            Some(_) if !stream => return Err(fields.wrong("stream_options", "it goes with `stream: true` only")),
            Some(value) => {
                let mut inner = Fields::of_value(value, "stream_options")?;
                let include = (inner.boolean("include_usage")?, inner.boolean("include_state")?);
                inner.ignore(&["include_obfuscation"]);
                inner.finish()?;
                include
            }
        };
        #[cfg(not(feature = "constrain"))]
        fields.refuse(&[
            ("response_format", &[serde_json::json!({"type": "text"})]),
            ("grammar", &[]),
            ("regex", &[]),
        ])?;
        Ok(Self {
            asked,
            include_usage,
            include_state,
            n: fields.integer("n", 1..=app.options.max_choices)?.unwrap_or(1),
            logit_bias: biases(fields, app)?,
            #[cfg(feature = "constrain")]
            constraint: constraint(fields)?,
            ..Self::one(app, stream, &sampling, asked.unwrap_or(max_tokens), stops(fields)?)
        })
    }

    /// One text of at most `max_tokens` tokens. Where `sampling` leaves something open, the model's files decide, and
    /// chance decides the seed.
    pub(crate) fn one(
        app: &App,
        stream: bool,
        sampling: &SamplingOverrides,
        max_tokens: usize,
        stop: Vec<String>,
    ) -> Self {
        let seed = sampling.seed.unwrap_or_else(|| RandomState::new().hash_one(0));
        Self {
            stream,
            include_usage: false,
            include_state: false,
            n: 1,
            logprobs: None,
            sampling: sampling.apply(app.model.default_sampling()).with_seed(seed),
            asked: None,
            max_tokens: max_tokens.min(app.max_tokens),
            stop,
            logit_bias: Vec::new(),
            #[cfg(feature = "constrain")]
            constraint: None,
        }
    }

    /// Constrains the text, as `field` requests.
    #[cfg(feature = "constrain")]
    pub(crate) fn constrain(&mut self, field: &'static str, constraint: bitnet::Constraint) {
        self.constraint = Some((field, constraint));
    }

    /// Options of text number `choice` of the request.
    pub(crate) fn options(&self, choice: usize) -> GenerateOptions {
        let mut sampling = self.sampling.clone();
        sampling.seed = sampling.seed.wrapping_add(choice as u64);
        let mut options = GenerateOptions::default().sampling(sampling).max_tokens(self.max_tokens);
        // A batch takes one token of each text at a time.
        options.speculation = Speculation::Off;
        options.stop.clone_from(&self.stop);
        options.logit_bias.clone_from(&self.logit_bias);
        options.logprobs = self.logprobs;
        #[cfg(feature = "constrain")]
        {
            options.constraint = self.constraint.as_ref().map(|(_, c)| c.clone());
        }
        options
    }

    /// How tokens are chosen.
    pub(crate) fn sampling(&self) -> &SamplingOptions {
        &self.sampling
    }

    /// The limit of new tokens that the request sets.
    pub(crate) fn asked_tokens(&self) -> Option<usize> {
        self.asked
    }

    /// Most new tokens of each text.
    pub(crate) fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The library's error about these options, with the field that caused it.
    pub(crate) fn map_error(&self, error: bitnet::Error) -> ApiError {
        #[cfg(feature = "constrain")]
        if let (bitnet::Error::Constraint(_), Some((field, _))) = (&error, &self.constraint) {
            return ApiError::field(*field, ApiError::from(error).message());
        }
        error.into()
    }

    /// The field with a constraint, if there is one: building it may take long.
    pub(crate) fn constrained(&self) -> Option<&'static str> {
        #[cfg(feature = "constrain")]
        {
            self.constraint.as_ref().map(|(field, _)| *field)
        }
        #[cfg(not(feature = "constrain"))]
        {
            None
        }
    }
}

/// `stop`: a text, or several.
pub(super) fn stops(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let must = format!(
        "it must be a string, or a list of at most {MAX_STOPS} strings, none of them empty or longer than {MAX_STOP_BYTES} bytes"
    );
    let stops = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) if all.len() > MAX_STOPS => return Err(fields.wrong("stop", must)),
        Some(Value::Array(all)) => {
            let texts = all.iter().map(|v| v.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
            texts.ok_or_else(|| fields.wrong("stop", &must))?
        }
        Some(_) => return Err(fields.wrong("stop", must)),
    };
    match stops.iter().all(|s| (1..=MAX_STOP_BYTES).contains(&s.len())) {
        true => Ok(stops),
        false => Err(fields.wrong("stop", must)),
    }
}

/// `logit_bias`: token ids and the biases of their logits.
fn biases(fields: &mut Fields, app: &App) -> Result<Vec<(u32, f32)>, ApiError> {
    let vocab = app.model.config().vocab_size;
    let map = match fields.take("logit_bias") {
        None => return Ok(Vec::new()),
        Some(Value::Object(map)) if map.len() > MAX_BIASES => {
            return Err(fields.wrong("logit_bias", format!("{} tokens given, at most {MAX_BIASES} allowed", map.len())));
        }
        Some(Value::Object(map)) => map,
        Some(_) => return Err(fields.wrong("logit_bias", "it must be an object of token ids and numbers")),
    };
    let read = |(id, bias): (&String, &Value)| {
        let id = id.parse::<u32>().ok().filter(|id| (*id as usize) < vocab);
        let bias = bias.as_f64().filter(|b| (-100.0..=100.0).contains(b));
        Some((id?, bias? as f32))
    };
    map.iter().map(read).collect::<Option<_>>().ok_or_else(|| {
        let must = format!("its keys must be token ids below {vocab}, its values numbers from -100 to 100");
        fields.wrong("logit_bias", must)
    })
}

/// The constraint of the text: `response_format`, or beyond OpenAI's interface a `grammar` or a `regex`; one of them.
#[cfg(feature = "constrain")]
fn constraint(fields: &mut Fields) -> Result<Option<(&'static str, bitnet::Constraint)>, ApiError> {
    type Read = fn(&str) -> bitnet::Constraint;
    let readers: [(&str, Read); 2] =
        [("grammar", |text| bitnet::Constraint::lark(text)), ("regex", bitnet::Constraint::regex)];
    let mut found = response_format(fields)?.map(|constraint| ("response_format", constraint));
    for (field, read) in readers {
        let Some(text) = fields.text(field)? else { continue };
        if found.replace((field, read(&text))).is_some() {
            return Err(fields.wrong(field, "only one of response_format, grammar and regex can be used"));
        }
    }
    Ok(found)
}

/// Any JSON object.
#[cfg(feature = "constrain")]
pub(super) fn any_object() -> bitnet::Constraint {
    bitnet::Constraint::json_schema(&serde_json::json!({"type": "object"}))
}

/// `response_format`: text, JSON, or JSON of a schema.
#[cfg(feature = "constrain")]
fn response_format(fields: &mut Fields) -> Result<Option<bitnet::Constraint>, ApiError> {
    const NAME: &str = "response_format";
    let Some(value) = fields.take(NAME) else { return Ok(None) };
    let mut format = Fields::of_value(value, NAME)?;
    let constraint = match format.text("type")?.as_deref() {
        Some("text") => None,
        Some("json_object") => Some(any_object()),
        Some("json_schema") => {
            let wrapped = format.take("json_schema").ok_or_else(|| format.wrong("json_schema", "it is missing"))?;
            let mut inner = Fields::of_value(wrapped, "response_format.json_schema")?;
            inner.ignore(&["name", "description", "strict"]);
            let schema = inner.take("schema").ok_or_else(|| inner.wrong("schema", "it is missing"))?;
            inner.finish()?;
            Some(bitnet::Constraint::json_schema(&schema))
        }
        _ => return Err(format.wrong("type", "it must be text, json_object or json_schema")),
    };
    format.finish()?;
    Ok(constraint)
}
