//! The answer of a task to a text: the intent with its confidence and score, and the slots.

use super::config::{ExtractorConfig, OosRule, OosScore, TaskConfig, tag_begin, tag_inside};
use super::forward::{Extractor, Scratch, sized};
use super::tags::{Span, TagScratch, Tagger};
use super::weights::TaskWeights;
use crate::ModelError;

/// The heads of a task in the layout that they are computed in.
#[derive(Debug)]
pub(super) struct Task {
    /// `[3 * hidden, intents]`
    intent_weight: Vec<f32>,
    intent_bias: Vec<f32>,
    tags: Option<Tagger>,
    /// The forbidden tags of each intent; `None` if no tag is forbidden.
    forbidden: Option<Vec<Vec<u16>>>,
    oos: Option<OosRule>,
    temperature: f32,
}

impl Task {
    pub(super) fn new(config: &ExtractorConfig, task: &TaskConfig, w: TaskWeights) -> Self {
        let forbidden = |allowed: &Vec<usize>| {
            let slots = (0..task.slots.len()).filter(|slot| allowed.binary_search(slot).is_err());
            // At most 1024 slots: `ExtractorConfig::validate`.
            slots.flat_map(|slot| [tag_begin(slot), tag_inside(slot)]).map(|tag| tag as u16).collect()
        };
        Self {
            intent_weight: transposed(&w.intent_weight, task.intents.len(), config.pooled_size()),
            tags: (task.tags() > 0).then(|| Tagger::new(config, task, &w)),
            intent_bias: w.intent_bias,
            forbidden: task.intent_slots.as_ref().map(|lists| lists.iter().map(forbidden).collect()),
            oos: task.oos,
            temperature: task.temperature,
        }
    }

    /// Number of floats.
    pub(super) fn floats(&self) -> usize {
        let tags = self.tags.as_ref().map_or(0, Tagger::floats);
        self.intent_weight.len() + self.intent_bias.len() + tags
    }
}

/// Buffers of the heads.
#[derive(Debug, Default)]
pub(super) struct HeadScratch {
    logits: Vec<f32>,
    probabilities: Vec<f32>,
    tags: TagScratch,
}

/// The answer of a task to a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found<'a> {
    /// Index of the likeliest intent.
    pub intent: usize,
    /// Its probability, at the temperature of the task.
    pub confidence: f32,
    /// The score that the task's rule compares; the [energy](OosScore::Energy) where it has no rule. More is more in
    /// scope.
    pub score: f32,
    /// Whether the score is below the threshold of the task, or the text has no words.
    pub out_of_scope: bool,
    /// The slots, from left to right.
    pub spans: &'a [Span],
    /// Logits of the intents, before the temperature, `[intents]`.
    pub logits: &'a [f32],
    /// Probabilities of the intents, at the temperature of the task, `[intents]`.
    pub probabilities: &'a [f32],
    /// Scores of the tags of each word, `[n, tags]`; minus infinity if the intent forbids a tag.
    pub emissions: &'a [f32],
    /// The tag of each word.
    pub tags: &'a [u16],
    /// Whether the text has more words than are read.
    pub cut: bool,
}

impl Extractor {
    /// Reads `text` for the task with this index.
    ///
    /// # Errors
    /// The errors of [`Extractor::encode`] and [`Extractor::decide`].
    ///
    /// # Panics
    /// If there is no such task; [`ExtractorConfig::task`] finds it by its name.
    pub fn extract_into<'s>(&self, task: usize, text: &str, s: &'s mut Scratch) -> Result<Found<'s>, ModelError> {
        self.encode(text, s)?;
        self.decide(task, s)
    }

    /// The answer of a task to the text that was [encoded](Extractor::encode) last.
    ///
    /// # Errors
    /// [`ModelError::Diverged`] if a logit is not finite.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn decide<'s>(&self, task: usize, s: &'s mut Scratch) -> Result<Found<'s>, ModelError> {
        self.intents(task, s)?;
        let (ops, task) = (self.ops, &self.tasks[task]);
        let words = s.utterance.words();
        let heads = &mut s.heads;
        let logits = &heads.logits;
        let intent = largest(logits);
        heads.probabilities.clear();
        heads.probabilities.extend(logits.iter().map(|z| z / task.temperature));
        let max = heads.probabilities[intent];
        ops.softmax_in_place(&mut heads.probabilities);
        let confidence = heads.probabilities[intent];
        let score = match task.oos.map_or(OosScore::Energy, |rule| rule.score) {
            // With the softmax `p` and the largest logit `m`, `ln sum exp(z / T)` is `m / T - ln p(m)`.
            OosScore::Energy => task.temperature * (max - (f64::from(confidence).ln() as f32)),
            OosScore::MaxLogit => logits[intent],
            OosScore::MaxProbability => confidence,
        };
        let out_of_scope = words.is_empty() || task.oos.is_some_and(|rule| score < rule.threshold);
        heads.tags.clear();
        if let Some(tagger) = &task.tags {
            let forbidden = task.forbidden.as_ref().map_or(&[][..], |lists| lists[intent].as_slice());
            tagger.tag(ops, (&s.h, &s.e), words, forbidden, &mut heads.tags)?;
        }
        Ok(Found {
            intent,
            confidence,
            score,
            out_of_scope,
            spans: &heads.tags.spans,
            logits: &heads.logits,
            probabilities: &heads.probabilities,
            emissions: &heads.tags.emissions,
            tags: &heads.tags.tags,
            cut: s.utterance.cut(),
        })
    }

    /// Logits of the intents of a task, `[intents]`, for the text that was [encoded](Extractor::encode) last; slots are
    /// not looked for.
    ///
    /// # Errors
    /// [`ModelError::Diverged`] if a logit is not finite.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn intents<'s>(&self, task: usize, s: &'s mut Scratch) -> Result<&'s [f32], ModelError> {
        let task = &self.tasks[task];
        let logits = sized(&mut s.heads.logits, task.intent_bias.len());
        self.ops.affine(&s.pooled, &task.intent_weight, &task.intent_bias, logits);
        finite(logits, "a logit of an intent")?;
        Ok(logits)
    }

    /// The vector of `text` that the intent heads read: mean and largest value of the last hidden states and mean of
    /// the word vectors, `[3 * hidden]`. Texts without words have zeros.
    ///
    /// # Errors
    /// The errors of [`Extractor::encode`].
    pub fn pool_into<'s>(&self, text: &str, s: &'s mut Scratch) -> Result<&'s [f32], ModelError> {
        self.encode(text, s)?;
        Ok(&s.pooled)
    }

    /// [`Extractor::pool_into`], scaled to length 1 (texts without words have zeros).
    ///
    /// # Errors
    /// The errors of [`Extractor::encode`].
    pub fn embed_into<'s>(&self, text: &str, s: &'s mut Scratch) -> Result<&'s [f32], ModelError> {
        self.encode(text, s)?;
        let norm = self.ops.dot(&s.pooled, &s.pooled).sqrt();
        if norm > 0.0 {
            self.ops.scale(1.0 / norm, &mut s.pooled);
        }
        finite(&s.pooled, "the vector of the text")?;
        Ok(&s.pooled)
    }
}

pub(super) fn finite(values: &[f32], what: &'static str) -> Result<(), ModelError> {
    match values.iter().all(|v| v.is_finite()) {
        true => Ok(()),
        false => Err(ModelError::Diverged { what, position: 0 }),
    }
}

/// Index of the largest value, the first of equal ones.
pub(super) fn largest(values: &[f32]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// Rows become columns: `[rows, cols]` to `[cols, rows]`.
pub(super) fn transposed(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|c| (0..rows).map(move |r| values[r * cols + c])).collect()
}
