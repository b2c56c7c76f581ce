//! Fields that several endpoints of Ollama's interface share: `options`, `format`, `think`, `keep_alive`.

use std::time::Duration;

use bitnet::SamplingOverrides;
use serde_json::{Map, Value};

use super::time::seconds;
use crate::api::params::{GenerationParams, stops};
use crate::api::{ApiError, Fields};
use crate::state::App;

/// Options that concern how a model is loaded or computed: they change no text, and the server was started with its own.
const LOADING: &[&str] =
    &["draft_num_predict", "main_gpu", "num_batch", "num_ctx", "num_gpu", "num_keep", "num_thread"];
const LOADING_SWITCHES: &[&str] =
    &["embedding_only", "f16_kv", "logits_all", "low_vram", "numa", "use_mlock", "use_mmap", "vocab_only"];
/// Kinds of sampling that this server lacks, with the values that turn them off.
const LACKING: &[(&str, &[f64])] = &[("mirostat", &[0.0]), ("tfs_z", &[1.0]), ("typical_p", &[0.0, 1.0])];

/// `stream`, `options`, `format`, `logprobs` and `top_logprobs`.
pub(super) fn params(fields: &mut Fields, app: &App) -> Result<GenerationParams, ApiError> {
    let stream = fields.boolean_or("stream", true)?;
    let mut params = options(fields, app, stream)?;
    let told = fields.boolean("logprobs")?;
    let top = fields.integer("top_logprobs", 0..=20)?.unwrap_or(0);
    params.logprobs = told.then_some(top);
    format(fields, &mut params)?;
    Ok(params)
}

/// `options`: those of sampling are the ones of OpenAI's interface, those of loading are checked only, and unknown ones
/// are ignored, as Ollama does.
pub(super) fn options(fields: &mut Fields, app: &App, stream: bool) -> Result<GenerationParams, ApiError> {
    let given = fields.take("options").unwrap_or_else(|| Map::new().into());
    let mut options = Fields::of_value(given, "options")?;
    let number = |v: Option<f64>| v.map(|v| v as f32);
    // Negative ones turn a limit off.
    let count = |v: Option<i64>, off: usize| v.map(|v| usize::try_from(v).unwrap_or(off));
    let sampling = SamplingOverrides {
        temperature: number(options.any_number("temperature")?),
        top_k: count(options.whole("top_k")?, 0),
        top_p: number(options.any_number("top_p")?),
        min_p: number(options.any_number("min_p")?),
        repeat_penalty: number(options.any_number("repeat_penalty")?),
        repeat_last_n: count(options.whole("repeat_last_n")?, usize::MAX),
        presence_penalty: number(options.any_number("presence_penalty")?),
        frequency_penalty: number(options.any_number("frequency_penalty")?),
        // -1 is chance.
        seed: options.seed("seed")?.filter(|seed| *seed != u64::MAX),
    };
    if let Err(error) = sampling.apply(app.model.default_sampling()).validate() {
        return Err(ApiError::field("options", error));
    }
    let limit = options.whole("num_predict")?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let stop = stops(&mut options)?;
    for name in LOADING {
        options.whole(name)?;
    }
    for name in LOADING_SWITCHES {
        options.boolean(name)?;
    }
    for (name, off) in LACKING {
        if options.any_number(name)?.is_some_and(|value| !off.contains(&value)) {
            return Err(ApiError::unsupported(
                options.name(name),
                "this server does not sample like this; leave it out",
            ));
        }
    }
    options.leave();
    Ok(GenerationParams::one(app, stream, &sampling, limit.unwrap_or(usize::MAX), stop))
}

/// `format`: `json`, or a schema.
#[cfg(feature = "constrain")]
fn format(fields: &mut Fields, params: &mut GenerationParams) -> Result<(), ApiError> {
    const NAME: &str = "format";
    match fields.take(NAME) {
        None => {}
        Some(Value::String(kind)) if kind.is_empty() => {}
        Some(Value::String(kind)) if kind == "json" => params.constrain(NAME, crate::api::params::any_object()),
        Some(schema @ Value::Object(_)) => params.constrain(NAME, bitnet::Constraint::json_schema(&schema)),
        Some(_) => return Err(fields.wrong(NAME, "it must be \"json\" or a JSON schema")),
    }
    Ok(())
}

/// Without the feature, text only.
#[cfg(not(feature = "constrain"))]
fn format(fields: &mut Fields, _: &mut GenerationParams) -> Result<(), ApiError> {
    fields.refuse(&[("format", &[serde_json::json!("")])])
}

/// `think`: `false` if the model is not to think. That it thinks cannot be requested: nothing here tells thoughts from
/// text.
pub(super) fn think(fields: &mut Fields) -> Result<Option<bool>, ApiError> {
    match fields.take("think") {
        None => Ok(None),
        Some(Value::Bool(false)) => Ok(Some(false)),
        Some(Value::String(level)) if level.is_empty() => Ok(None),
        Some(Value::Bool(true) | Value::String(_)) => {
            let message = "this server does not support thinking, which would be a part of the text; leave it out";
            Err(ApiError::unsupported(fields.name("think"), message))
        }
        Some(_) => Err(fields.wrong("think", "it must be true, false or a string")),
    }
}

/// `keep_alive`: how long the model stays in memory without a request, if it can be loaded again; a negative time is
/// for ever. Whether it stays after this request.
pub(super) fn keep_alive(fields: &mut Fields, app: &App) -> Result<bool, ApiError> {
    let Some(value) = fields.take("keep_alive") else { return Ok(true) };
    let seconds = match &value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => seconds(text),
        _ => None,
    };
    let must = "it must be a number of seconds or a duration like \"5m\"";
    let seconds = seconds.filter(|seconds| seconds.is_finite()).ok_or_else(|| fields.wrong("keep_alive", must))?;
    // A time beyond all times is for ever, too.
    app.set_keep(Duration::try_from_secs_f64(seconds).ok());
    Ok(seconds != 0.0 || !app.may_leave())
}
