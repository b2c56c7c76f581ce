//! Inner losses of test-time-training layers over a text, in pieces.

use bitnet::{Model, Sequence};
use serde::Serialize;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::Failure;

/// Tokens of a step; whole mini-batches.
const STEP: usize = 64;

/// The inner losses of a text, read once more on its own.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Losses {
    model: Model,
    ids: Vec<u32>,
    sequence: Sequence,
}

/// The mean over tokens and heads of one mini-batch, for each test-time-training layer.
#[derive(Debug, Serialize)]
struct Point {
    /// Position of its first token.
    at: usize,
    layers: Vec<f32>,
}

impl Losses {
    pub(crate) fn new(model: &Model, ids: &[u32]) -> Self {
        let sequence = Sequence::new(model.engine(), model.kv_type(), None);
        Self { model: model.clone(), ids: ids.to_vec(), sequence }
    }
}

#[wasm_bindgen]
impl Losses {
    /// Reads the next piece; its points as JSON, nothing at the end of the text.
    ///
    /// # Errors
    /// `request` for a model that cannot read the text.
    pub fn step(&mut self) -> Result<Option<String>, Failure> {
        let config = self.model.config();
        let (batch, heads) = (config.ttt.mini_batch_size.max(1), config.num_attention_heads);
        let from = self.sequence.len();
        let piece = &self.ids[from..self.ids.len().min(from + (STEP / batch).max(1) * batch)];
        if piece.is_empty() {
            return Ok(None);
        }
        let losses = self.sequence.feed_watched(piece).map_err(bitnet::Error::from)?;
        let mean = |layer: &Vec<f32>, i: usize| {
            let part = layer.chunks(batch * heads).nth(i).unwrap_or_default();
            part.iter().sum::<f32>() / part.len().max(1) as f32
        };
        let starts = (from..from + piece.len()).step_by(batch).enumerate();
        let points = starts.map(|(i, at)| Point { at, layers: losses.iter().map(|layer| mean(layer, i)).collect() });
        let points = serde_json::to_string(&points.collect::<Vec<_>>());
        points.map(Some).map_err(|e| Failure::new("internal", e.to_string()))
    }
}
