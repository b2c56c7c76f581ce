//! The model in Ollama's terms: `GET /api/tags`, `GET /api/ps`, `POST /api/show`, `GET /api/version`, and the root.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use bitnet::Container;
use serde_json::{Map, Value, json};

use super::time::timestamp;
use crate::api::tools::form;
use crate::api::{ApiError, Fields, named};
use crate::api_error::json_response;
use crate::shelf::Shown;
use crate::state::{App, Site};

/// The version of Ollama whose interface this is: clients decide by it what they may ask for.
const INTERFACE: &str = "0.12.11";
/// How far away the time is when the model leaves memory: as far as Ollama writes it for a model that stays.
const FOREVER: Duration = Duration::from_nanos(i64::MAX as u64);

/// The answer of a server without a page to those who look whether it runs.
pub(crate) async fn root() -> &'static str {
    "bitnet is running"
}

/// The version of the interface, and that of this server.
pub(crate) async fn version() -> Response {
    json_response(StatusCode::OK, &json!({ "version": INTERFACE, "bitnet": env!("CARGO_PKG_VERSION") }))
}

/// All models.
pub(crate) async fn tags(State(site): State<Arc<Site>>) -> Response {
    let entry = |model: Shown| {
        let mut entry = entry(&model, model.bytes);
        entry["modified_at"] = since(site.models.created()).into();
        entry
    };
    let all: Vec<Value> = site.models.shown().into_iter().map(entry).collect();
    json_response(StatusCode::OK, &json!({ "models": all }))
}

/// The models in memory.
pub(crate) async fn ps(State(site): State<Arc<Site>>) -> Response {
    let entry = |model: Shown| {
        let here = model.here.as_ref()?;
        let mut entry = entry(&model, here.bytes);
        entry["expires_at"] = timestamp(SystemTime::now() + here.leaves.unwrap_or(FOREVER).min(FOREVER)).into();
        entry["size_vram"] = 0.into();
        entry["context_length"] = entry["details"]["context_length"].clone();
        Some(entry)
    };
    let all: Vec<Value> = site.models.shown().into_iter().filter_map(entry).collect();
    json_response(StatusCode::OK, &json!({ "models": all }))
}

/// Everything about a model, which is loaded for that.
pub(crate) async fn show(State(site): State<Arc<Site>>, request: Request) -> Result<Response, ApiError> {
    let body = site.read_body(request).await?;
    let shared = site.clone();
    let (at, name) = site.workers.read(body.len(), move |_| asked(&shared, &body)).await?;
    let app = site.models.get(at).await?;
    let model = &app.model;
    let sampling = model.default_sampling();
    let parameters = [
        ("temperature", sampling.temperature.to_string()),
        ("top_k", sampling.top_k.to_string()),
        ("top_p", sampling.top_p.to_string()),
        ("min_p", sampling.min_p.to_string()),
        ("repeat_penalty", sampling.repeat_penalty.to_string()),
    ];
    let parameters: Vec<String> = parameters.iter().map(|(key, value)| format!("{key:<30} {value}")).collect();
    let shown = json!({
        "modelfile": format!("# A model of this server; it is called:\nFROM {name}\n"),
        "parameters": parameters.join("\n"),
        "template": model.chat_template().map_or("", |template| template.source()),
        "details": details(&app),
        "model_info": facts(&app),
        "capabilities": capabilities(&app),
        "modified_at": since(app.created),
    });
    Ok(json_response(StatusCode::OK, &shown))
}

/// The model that a request names, as `model` or by the older `name`: its number, and as the client calls it.
pub(super) fn asked(site: &Site, body: &[u8]) -> Result<(usize, String), ApiError> {
    let mut fields = Fields::of_body(body)?;
    if let Some(name) = fields.text("name")? {
        fields.fill("model", name.into());
    }
    let at = named(&mut fields, site)?;
    let name = fields.text("model")?.or_else(|| site.models.names().next().map(str::to_owned));
    fields.leave();
    Ok((at, name.unwrap_or_default()))
}

/// Facts about a model in memory, for lists after it as well.
pub(crate) fn described(app: &App) -> Value {
    details(app)
}

/// Fields that a list has for a model of `size` bytes.
fn entry(model: &Shown, size: u64) -> Value {
    // Clients write a version after each name.
    let name = if model.name.contains(':') { model.name.clone() } else { format!("{}:latest", model.name) };
    let unknown = json!({ "parent_model": "", "format": "", "family": "", "families": [], "parameter_size": "",
        "quantization_level": "" });
    let details = model.ollama.clone().unwrap_or(unknown);
    json!({ "name": name, "model": name, "size": size, "digest": digest(model), "details": details })
}

/// Since when models are served.
fn since(created: u64) -> String {
    timestamp(UNIX_EPOCH + Duration::from_secs(created))
}

/// Digits that distinguish this model from others. They are not a checksum: a large file would take long to read.
fn digest(model: &Shown) -> String {
    let part = |part: u8| {
        let mut hasher = DefaultHasher::new();
        (part, &model.name, model.bytes).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    };
    (0..4).map(part).collect()
}

/// Parameters in a short form: `4.6M`, `2.4B`.
fn size(parameters: u64) -> String {
    let units = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")];
    let parameters = parameters as f64;
    match units.iter().find(|(unit, _)| parameters >= *unit) {
        Some((unit, name)) => format!("{:.1}{name}", parameters / unit),
        None => format!("{parameters:.0}"),
    }
}

fn details(app: &App) -> Value {
    let info = app.model.info();
    let format = if info.container == Container::Gguf { "gguf" } else { "safetensors" };
    json!({
        "parent_model": "",
        "format": format,
        "family": info.architecture,
        "families": [info.architecture],
        "parameter_size": size(app.model.config().parameters()),
        "quantization_level": info.ternary_format,
        "context_length": context(app),
        "embedding_length": app.model.config().hidden_size,
    })
}

/// The tokens of the context; of a model without a limit, those for which it was made.
fn context(app: &App) -> usize {
    match app.model.context() {
        usize::MAX => app.model.config().max_position_embeddings,
        tokens => tokens,
    }
}

/// Facts with the names that they have in GGUF files.
fn facts(app: &App) -> Map<String, Value> {
    let (info, config) = (app.model.info(), app.model.config());
    let mut facts = Map::new();
    facts.insert("general.architecture".into(), info.architecture.clone().into());
    facts.insert("general.basename".into(), app.name.clone().into());
    facts.insert("general.parameter_count".into(), config.parameters().into());
    let numbers = [
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", config.num_key_value_heads),
        ("block_count", config.num_hidden_layers),
        ("context_length", context(app)),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("vocab_size", config.vocab_size),
    ];
    facts.extend(numbers.map(|(name, value)| (format!("{}.{name}", info.architecture), value.into())));
    facts
}

/// The uses of the model that clients know.
fn capabilities(app: &App) -> Vec<&'static str> {
    if app.model.config().headless {
        return vec!["embedding"];
    }
    let tools = form(app).map(|_| "tools");
    ["completion"].into_iter().chain(tools).collect()
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_short() {
        for (parameters, expected) in
            [(0, "0"), (999, "999"), (4_600_000, "4.6M"), (2_412_820_480, "2.4B"), (1_500, "1.5K")]
        {
            assert_eq!(size(parameters), expected);
        }
    }
}
