//! Extractors of utterances: intent, slots, out of scope.

use bitnet::RankedIntent;
use serde::Serialize;
use ternary_kernels::SharedBytes;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::{Failure, Upload};

/// An extractor, from the bytes of a GGUF file.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Extractor {
    inner: bitnet::Extractor,
}

/// The answer in JSON, with positions in UTF-16 units as JavaScript counts them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    intent: &'a str,
    /// As f64, so that JavaScript has the same number; the shortest decimals of an f32 are another one there.
    confidence: f64,
    out_of_scope: bool,
    slots: Vec<SlotAnswer<'a>>,
    cut: bool,
    alternatives: Vec<Alternative<'a>>,
}

#[derive(Debug, Serialize)]
struct Alternative<'a> {
    intent: &'a str,
    confidence: f64,
}

/// Intents that an answer names, the chosen one included.
const ALTERNATIVES: usize = 5;

#[derive(Debug, Serialize)]
struct SlotAnswer<'a> {
    name: &'a str,
    value: &'a str,
    start: usize,
    end: usize,
}

#[derive(Debug, Serialize)]
struct Task<'a> {
    name: &'a str,
    intents: &'a [String],
    slots: &'a [String],
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|e| Failure::new("internal", e.to_string()))
}

#[wasm_bindgen]
impl Extractor {
    /// Takes the file and makes an extractor of it.
    ///
    /// # Errors
    /// `model` for a file that is damaged or no extractor.
    #[wasm_bindgen(constructor)]
    pub fn new(file: Upload) -> Result<Self, Failure> {
        let weights = loader::extractor::read_bytes(SharedBytes::new(file.complete()?))?;
        Ok(Self { inner: bitnet::Extractor::from_weights(weights)? })
    }

    /// Its tasks with their intents and slots, as JSON.
    pub fn tasks(&self) -> Result<String, Failure> {
        let task = |t| -> Task<'_> {
            let t: &bitnet::TaskConfig = t;
            Task { name: &t.name, intents: &t.intents, slots: &t.slots }
        };
        json(&self.inner.config().tasks.iter().map(task).collect::<Vec<_>>())
    }

    /// Intent, likeliest other intents and slots of `text`, as JSON; of the first task, or of the one that is named.
    ///
    /// # Errors
    /// `request` for a task that it does not have.
    pub fn extract(&self, text: &str, task: Option<String>) -> Result<String, Failure> {
        let first = || self.inner.config().tasks.first().map_or("", |task| &task.name);
        let task = self.inner.task(task.as_deref().unwrap_or_else(first))?;
        let (found, ranked) = task.extract_ranked(text, ALTERNATIVES)?;
        let units = |byte: usize| text.get(..byte).map_or(0, |head| head.encode_utf16().count());
        let slots = found.slots.iter().map(|s| SlotAnswer {
            name: &s.name,
            value: &s.value,
            start: units(s.range.start),
            end: units(s.range.end),
        });
        let mut alternatives = Vec::with_capacity(ranked.len());
        for RankedIntent { intent, confidence } in &ranked {
            alternatives.push(Alternative { intent, confidence: f64::from(*confidence) });
        }
        json(&Answer {
            intent: &found.intent,
            confidence: found.confidence.into(),
            out_of_scope: found.out_of_scope,
            slots: slots.collect(),
            cut: found.cut,
            alternatives,
        })
    }

    /// The vector of `text`, of length 1.
    ///
    /// # Errors
    /// `model` for weights that make numbers that are not finite.
    pub fn embed(&self, text: &str) -> Result<Vec<f32>, Failure> {
        Ok(self.inner.embed(text)?)
    }
}
