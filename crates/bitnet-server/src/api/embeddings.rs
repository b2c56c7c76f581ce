//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::completions::texts;
use super::{ApiError, Fields, blocking, json_response, take_model};
use crate::app::App;
use crate::engine::{Embed, Job};

/// Most texts of a request; OpenAI's limit.
const MAX_TEXTS: usize = 2048;

/// Texts, and whether their vectors are wanted as text.
struct Plan {
    texts: Vec<Vec<u32>>,
    base64: bool,
}

/// Makes vectors of texts.
pub(crate) async fn embeddings(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let body = app.read_body(request).await?;
    let shared = app.clone();
    let Plan { texts, base64 } = blocking(move || plan(&shared, &body)).await?;
    let tokens: usize = texts.iter().map(Vec::len).sum();
    let (answer, vectors) = oneshot::channel();
    let embed = Embed { texts: texts.into(), vectors: Vec::new(), answer };
    app.engine.queue.push(Job::Embed(embed))?;
    let vectors = vectors.await.map_err(|_| ApiError::dead())??;
    let data: Vec<Value> = vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| {
            let embedding = if base64 { json!(encode(vector)) } else { json!(vector) };
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        })
        .collect();
    let answer = json!({
        "object": "list",
        "data": data,
        "model": app.name,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    });
    Ok(json_response(StatusCode::OK, &answer))
}

fn plan(app: &App, body: &[u8]) -> Result<Plan, ApiError> {
    let mut fields = Fields::of_body(body)?;
    take_model(&mut fields, app)?;
    fields.ignore(&["user"]);
    let base64 = match fields.text("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(fields.wrong("encoding_format", "it must be float or base64")),
    };
    let hidden = app.model.config().hidden_size;
    if fields.integer("dimensions", 1..=usize::MAX)?.is_some_and(|d| d != hidden) {
        let message = format!("vectors of this model have {hidden} numbers and cannot be shortened");
        return Err(ApiError::unsupported("dimensions", message));
    }
    let Some(input) = fields.take("input") else { return Err(fields.wrong("input", "it is missing")) };
    fields.finish()?;
    let empty = |v: &Value| v.as_str() == Some("");
    if empty(&input) || input.as_array().is_some_and(|all| all.iter().any(empty)) {
        return Err(ApiError::field("input", "a text is empty"));
    }
    let texts = texts(app, input, "input", MAX_TEXTS)?;
    if texts.iter().any(Vec::is_empty) {
        return Err(ApiError::field("input", "a text has no tokens"));
    }
    let limit = app.model.context();
    match texts.iter().find(|t| t.len() > limit) {
        Some(long) => Err(ApiError::too_long("input", limit, long.len())),
        None => Ok(Plan { texts, base64 }),
    }
}

/// The bytes of the numbers, least significant first, in base64 with padding.
fn encode(vector: &[f32]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::encode;

    /// `base64.b64encode(struct.pack("<2f", 1.0, -2.5))` and so on, by Python.
    #[test]
    fn base64_is_that_of_others() {
        assert_eq!(encode(&[]), "");
        assert_eq!(encode(&[1.0]), "AACAPw==");
        assert_eq!(encode(&[1.0, -2.5]), "AACAPwAAIMA=");
        assert_eq!(encode(&[0.1, 0.2, 0.3]), "zczMPc3MTD6amZk+");
    }
}
