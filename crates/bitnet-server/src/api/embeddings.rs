//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::completions::texts;
use super::pieces::json_in_pieces;
use super::{ApiError, Fields, read, take_model};
use crate::engine::{Embed, Job};
use crate::state::{App, Site};

/// Most texts of a request; OpenAI's limit.
const MAX_TEXTS: usize = 2048;

/// Texts to turn into vectors, and whether the vectors are requested as text.
pub(super) struct EmbeddingPlan {
    embedding: bitnet::Embedding,
    base64: bool,
}

/// Makes vectors of texts.
pub(crate) async fn embeddings(State(site): State<Arc<Site>>, request: Request) -> Result<Response, ApiError> {
    let body = site.read_body(request).await?;
    let (app, planned) = read(&site, body, |app, fields, _| plan(app, fields)).await?;
    let EmbeddingPlan { embedding, base64 } = planned;
    let tokens = embedding.tokens_left();
    let vectors = vectors(&app, embedding).await?;
    let name = app.name.clone();
    Ok(json_in_pieces(parts(vectors, base64, &name, tokens)))
}

/// The vectors of texts, from the engine.
pub(super) async fn vectors(app: &App, embedding: bitnet::Embedding) -> Result<Vec<Vec<f32>>, ApiError> {
    let (answer, vectors) = oneshot::channel();
    app.engine.queue.push(Job::Embed(Box::new(Embed { embedding, answer })))?;
    Ok(vectors.await.map_err(|_| ApiError::dead())??)
}

/// The text of an answer, in parts.
fn parts(
    vectors: Vec<Vec<f32>>,
    base64: bool,
    model: &str,
    tokens: usize,
) -> impl Iterator<Item = String> + Send + use<> {
    let usage = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
    let end = format!("],\"model\":{},\"usage\":{usage}}}", json!(model));
    let entries = vectors.into_iter().enumerate().map(move |(index, vector)| {
        let before = if index == 0 { "" } else { "," };
        let embedding = match base64 {
            true => json!(encode(&vector)),
            false => json!(vector),
        };
        let entry = json!({ "object": "embedding", "index": index, "embedding": embedding });
        format!("{before}{entry}")
    });
    std::iter::once("{\"object\":\"list\",\"data\":[".to_owned()).chain(entries).chain(std::iter::once(end))
}

pub(super) fn plan(app: &App, mut fields: Fields) -> Result<EmbeddingPlan, ApiError> {
    take_model(&mut fields, app)?;
    fields.ignore(&["user"]);
    let base64 = match fields.text("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(fields.wrong("encoding_format", "it must be float or base64")),
    };
    dimensions(&mut fields, app)?;
    let Some(input) = fields.take("input") else { return Err(fields.wrong("input", "it is missing")) };
    fields.finish()?;
    Ok(EmbeddingPlan { embedding: embedding(app, input, "input", false)?, base64 })
}

/// `dimensions`: the numbers of a vector, which are as many as the model has.
pub(super) fn dimensions(fields: &mut Fields, app: &App) -> Result<(), ApiError> {
    let hidden = app.model.config().hidden_size;
    match fields.integer("dimensions", 1..=usize::MAX)? {
        Some(other) if other != hidden => {
            let message = format!("vectors of this model have {hidden} numbers and cannot be shortened");
            Err(ApiError::unsupported("dimensions", message))
        }
        _ => Ok(()),
    }
}

/// Texts that are to become vectors, from `field`. With `cut`, long ones are cut off at the end; else they are an error.
pub(super) fn embedding(app: &App, input: Value, field: &str, cut: bool) -> Result<bitnet::Embedding, ApiError> {
    let empty = |v: &Value| v.as_str() == Some("");
    if empty(&input) || input.as_array().is_some_and(|all| all.iter().any(empty)) {
        return Err(ApiError::field(field, "a text is empty"));
    }
    let mut texts = texts(app, input, field, MAX_TEXTS, |text| app.model.encode_for_embedding(text))?;
    if texts.iter().any(Vec::is_empty) {
        return Err(ApiError::field(field, "a text has no tokens"));
    }
    let limit = app.max_embed_tokens;
    if cut {
        for text in texts.iter_mut().filter(|text| text.len() > limit) {
            // The token that ends a text stays.
            let end = text.last().copied().filter(|last| app.model.is_eos(*last));
            text.truncate(limit - end.iter().count().min(limit));
            text.extend(end);
        }
    }
    if let Some((at, long)) = texts.iter().enumerate().find(|(_, text)| text.len() > limit) {
        let message = format!(
            "text {at} has {} tokens and at most {limit} are allowed; shorten it, or start the server with a larger limit \
             (--max-embed-tokens) and context",
            long.len()
        );
        return Err(ApiError::field(field, message).code("context_length_exceeded"));
    }
    Ok(app.model.embedding(texts, bitnet::EmbedOptions::default())?)
}

/// The bytes of the numbers, least significant first, in base64 with padding.
fn encode(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|v| v.to_le_bytes()).collect();
    BASE64_STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `base64.b64encode(struct.pack("<2f", 1.0, -2.5))` and so on, by Python.
    #[test]
    fn base64_is_that_of_others() {
        assert_eq!(encode(&[]), "");
        assert_eq!(encode(&[1.0]), "AACAPw==");
        assert_eq!(encode(&[1.0, -2.5]), "AACAPwAAIMA=");
        assert_eq!(encode(&[0.1, 0.2, 0.3]), "zczMPc3MTD6amZk+");
    }

    #[test]
    fn the_parts_of_an_answer_are_json_together() {
        for (count, numbers) in [(1, 3), (5, 100), (40, 1)] {
            let vectors: Vec<Vec<f32>> = (0..count).map(|i| vec![i as f32 + 0.25; numbers]).collect();
            let answer = |base64| {
                let text: String = parts(vectors.clone(), base64, "a \"model\"", 7).collect();
                serde_json::from_str::<Value>(&text).unwrap()
            };
            let (numbers, texts) = (answer(false), answer(true));
            assert_eq!((&numbers["model"], &numbers["usage"]["total_tokens"]), (&json!("a \"model\""), &json!(7)));
            assert_eq!(numbers["data"].as_array().unwrap().len(), count);
            for (index, vector) in vectors.iter().enumerate() {
                let (entry, text) = (&numbers["data"][index], &texts["data"][index]);
                assert_eq!((&entry["index"], &entry["embedding"]), (&json!(index), &json!(vector)));
                assert_eq!((&text["object"], &text["embedding"]), (&json!("embedding"), &json!(encode(vector))));
            }
        }
    }
}
