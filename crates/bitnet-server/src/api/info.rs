//! `GET /bitnet/info`: facts about the model and the server that OpenAI's interface has no place for.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use crate::api_error::{ApiError, json_response};
use crate::state::Site;

/// The first model: its layers, its memory, its limits, and where it computes.
pub(crate) async fn info(State(site): State<Arc<Site>>) -> Result<Response, ApiError> {
    let app = site.models.get(0).await?;
    let (model, config, engine) = (&app.model, app.model.config(), app.model.engine());
    let context = model.context();
    let sampling = model.default_sampling();
    let mixers: Vec<&str> = (0..config.num_hidden_layers).map(|l| config.mixer(l).name()).collect();
    // Keys and values of one token if every layer were attention, to compare with.
    let attention = 2 * config.num_hidden_layers * config.num_key_value_heads;
    let row = model.kv_type().row_bytes(config.head_dim);
    let info = json!({
        "model": app.name,
        "architecture": model.info().architecture,
        "parameters": config.parameters(),
        "mixers": mixers,
        "context": (context != usize::MAX).then_some(context),
        "max_tokens": app.max_tokens,
        "chat": model.chat_template().is_some(),
        "constrain": cfg!(feature = "constrain"),
        "inner_loss": config.has_ttt(),
        "memory": {
            "weight_bytes": engine.packed_bytes() + engine.head_bytes(),
            "bytes_per_token": model.kv_type().token_bytes(config),
            "constant_bytes": config.state_bytes().unwrap_or(0),
            "bytes_per_token_as_attention": attention * row,
        },
        "sampling": {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
        },
        "isa": engine.isa().name(),
        "threads": engine.threads(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    Ok(json_response(StatusCode::OK, &info))
}
