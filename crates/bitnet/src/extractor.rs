//! The meaning of an utterance by one function call: intent, slots, out of scope.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bitnet_model::encoder;
use loader::extractor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

pub use bitnet_model::encoder::{
    Directions, EncoderMixer, ExtractorConfig, ExtractorWeights, Scratch as ExtractorScratch, TaskConfig,
};

mod answer;

/// A small encoder that reads an utterance in both directions. It is immutable, cheap to clone and shared between
/// threads; a call computes on the thread that calls and allocates nothing but its answer.
///
/// ```
/// # let task = bitnet::TaskConfig::new("home", vec!["light_on".into(), "light_off".into()], vec!["room".into()]);
/// # let config = bitnet::ExtractorConfig { buckets: 64, hidden_size: 32, ..bitnet::ExtractorConfig::new(vec![task]) };
/// # let extractor = bitnet::Extractor::from_weights(bitnet::ExtractorWeights::synthetic(config, 7)?)?;
/// // let extractor = bitnet::Extractor::load("home.gguf")?;
/// let text = "switch on teh light in the kitchen";
/// let found = extractor.extract(text)?;
/// println!("{} ({:.0} %)", found.intent, 100.0 * found.confidence);
/// for slot in &found.slots {
///     assert_eq!(slot.value, text[slot.range.clone()]);
/// }
/// # Ok::<(), bitnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Extractor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    model: encoder::Extractor,
    /// Buffers that no call uses at the moment; as many as there were calls at the same time.
    free: Mutex<Vec<ExtractorScratch>>,
}

/// The extraction from an utterance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Extraction {
    /// The most probable intent, even if the utterance is out of scope.
    pub intent: String,
    /// Its probability, between 0 and 1.
    pub confidence: f32,
    /// Whether none of the intents applies, by the threshold of the extractor.
    pub out_of_scope: bool,
    /// The slots in the text, from left to right. A slot may occur several times.
    pub slots: Vec<Slot>,
    /// Whether the text has more words than are read ([`encoder::MAX_WORDS`]); the rest was left out.
    pub cut: bool,
}

/// An intent with its probability.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankedIntent {
    /// The name of the intent.
    pub intent: String,
    /// Its probability, between 0 and 1.
    pub confidence: f32,
}

/// A part of an utterance that fills a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Slot {
    /// The name of the slot.
    pub name: String,
    /// The words in the text.
    pub value: String,
    /// Their position, in bytes; both ends are at character boundaries.
    pub range: Range<usize>,
}

impl Extraction {
    /// The value of the first slot of this name.
    pub fn slot(&self, name: &str) -> Option<&str> {
        self.slots.iter().find(|s| s.name == name).map(|s| s.value.as_str())
    }
}

impl Extractor {
    /// Loads a GGUF file, or a folder with `config.json` and `model.safetensors`.
    ///
    /// # Errors
    /// Any error in the files; a file of a language model.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::from_weights(extractor::read(path.as_ref())?)
    }

    /// Loads a whole GGUF file in memory, for example one that a program contains.
    ///
    /// # Errors
    /// The errors of [`Extractor::load`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error> {
        Self::from_weights(extractor::read_bytes(bytes.into())?)
    }

    /// Packs weights for this CPU.
    ///
    /// # Errors
    /// Weights that do not belong together; an instruction set that this CPU does not have.
    pub fn from_weights(weights: ExtractorWeights) -> Result<Self, Error> {
        let model = encoder::Extractor::new(weights)?;
        Ok(Self { inner: Arc::new(Inner { model, free: Mutex::default() }) })
    }

    /// Shape and tasks.
    pub fn config(&self) -> &ExtractorConfig {
        self.inner.model.config()
    }

    /// The underlying model: the lower interface, with logits and tags.
    pub fn model(&self) -> &encoder::Extractor {
        &self.inner.model
    }

    /// The task called `name`.
    ///
    /// # Errors
    /// A name that the extractor does not have; the message names those that it has.
    pub fn task(&self, name: &str) -> Result<ExtractorTask<'_>, Error> {
        Ok(ExtractorTask { extractor: self, task: self.config().task(Some(name))? })
    }

    /// The first task, that of [`Extractor::extract`].
    fn first(&self) -> ExtractorTask<'_> {
        ExtractorTask { extractor: self, task: 0 }
    }

    /// Extracts from `text` with the first task. Every text is accepted: an empty one is out of scope, and only the
    /// first words of a long one are read.
    ///
    /// # Errors
    /// Weights that make numbers that are not finite.
    pub fn extract(&self, text: &str) -> Result<Extraction, Error> {
        self.first().extract(text)
    }

    /// [`ExtractorTask::extract_as`] of the first task.
    ///
    /// # Errors
    /// The errors of [`ExtractorTask::extract_as`].
    pub fn extract_as<T: DeserializeOwned>(&self, text: &str) -> Result<Option<T>, Error> {
        self.first().extract_as(text)
    }

    /// Extracts from each of `texts` with the first task.
    ///
    /// # Errors
    /// The errors of [`Extractor::extract`].
    pub fn extract_batch<S: AsRef<str>>(&self, texts: impl IntoIterator<Item = S>) -> Result<Vec<Extraction>, Error> {
        self.first().extract_batch(texts)
    }

    /// The vector of `text`, `[3 * hidden]` f32 of length 1: the dot product of two is the cosine of their angle.
    ///
    /// # Errors
    /// The errors of [`Extractor::extract`].
    pub fn embed(&self, text: &str) -> Result<Vec<f32>, Error> {
        self.with_scratch(|scratch| Ok(self.inner.model.embed_into(text, scratch)?.to_vec()))
    }

    /// The vectors of `texts`; `normalize` gives them length 1, as [`Extractor::embed`] does.
    pub(crate) fn embed_all<S: AsRef<str>>(
        &self,
        texts: impl IntoIterator<Item = S>,
        normalize: bool,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let model = &self.inner.model;
        self.with_scratch(|scratch| {
            let of = |text: S| match normalize {
                true => Ok(model.embed_into(text.as_ref(), scratch)?.to_vec()),
                false => Ok(model.pool_into(text.as_ref(), scratch)?.to_vec()),
            };
            texts.into_iter().map(of).collect()
        })
    }

    /// Buffers for [`ExtractorTask::extract_with`].
    pub fn scratch(&self) -> ExtractorScratch {
        self.inner.model.scratch()
    }

    fn with_scratch<T>(&self, work: impl FnOnce(&mut ExtractorScratch) -> T) -> T {
        let free = || self.inner.free.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = free().pop();
        let mut scratch = kept.unwrap_or_else(|| self.scratch());
        let result = work(&mut scratch);
        free().push(scratch);
        result
    }
}

/// One task of an [`Extractor`].
#[derive(Clone, Copy, Debug)]
pub struct ExtractorTask<'a> {
    extractor: &'a Extractor,
    task: usize,
}

impl ExtractorTask<'_> {
    /// Its intents and slots.
    pub fn config(&self) -> &TaskConfig {
        &self.extractor.config().tasks[self.task]
    }

    /// Extracts from `text`.
    ///
    /// # Errors
    /// The errors of [`Extractor::extract`].
    pub fn extract(&self, text: &str) -> Result<Extraction, Error> {
        self.extractor.with_scratch(|scratch| self.extract_with(text, scratch))
    }

    /// Like [`ExtractorTask::extract`], in buffers of the caller's.
    ///
    /// # Errors
    /// The errors of [`Extractor::extract`].
    pub fn extract_with(&self, text: &str, scratch: &mut ExtractorScratch) -> Result<Extraction, Error> {
        let found = self.extractor.inner.model.extract_into(self.task, text, scratch)?;
        Ok(self.extraction(text, &found))
    }

    /// Extracts from `text`, with the `most` likeliest intents: the one of the extraction first.
    ///
    /// # Errors
    /// The errors of [`Extractor::extract`].
    pub fn extract_ranked(&self, text: &str, most: usize) -> Result<(Extraction, Vec<RankedIntent>), Error> {
        self.extractor.with_scratch(|scratch| {
            let found = self.extractor.inner.model.extract_into(self.task, text, scratch)?;
            let mut order: Vec<usize> = (0..found.probabilities.len()).collect();
            // By logits, which differ where probabilities round to the same; equal ones stay in the order of the task, as
            // the likeliest is the first of them.
            order.sort_by(|&a, &b| found.logits[b].total_cmp(&found.logits[a]));
            let ranked = |&i: &usize| RankedIntent {
                intent: self.config().intents[i].clone(),
                confidence: found.probabilities[i],
            };
            Ok((self.extraction(text, &found), order.iter().take(most).map(ranked).collect()))
        })
    }

    fn extraction(&self, text: &str, found: &encoder::Found<'_>) -> Extraction {
        let config = self.config();
        let slot = |span: &encoder::Span| Slot {
            name: config.slots[span.slot].clone(),
            value: text[span.range.clone()].to_owned(),
            range: span.range.clone(),
        };
        Extraction {
            intent: config.intents[found.intent].clone(),
            confidence: found.confidence,
            out_of_scope: found.out_of_scope,
            slots: found.spans.iter().map(slot).collect(),
            cut: found.cut,
        }
    }

    /// Extracts from `text` as a value of a type; `None` if it is out of scope. The type may be an enum of the intents
    /// or a struct with any of the fields `intent`, `confidence` and `slots`:
    ///
    /// ```
    /// #[derive(Debug, serde::Deserialize)]
    /// #[serde(tag = "intent", content = "slots", rename_all = "snake_case")]
    /// enum Command {
    ///     LightOn { room: Option<String>, percent: Option<u8> },
    ///     LightOff { room: Vec<String> },
    /// }
    /// # let slots = vec!["room".into(), "percent".into()];
    /// # let task = bitnet::TaskConfig::new("home", vec!["light_on".into(), "light_off".into()], slots);
    /// # let small = bitnet::ExtractorConfig::new(vec![task]);
    /// # let config = bitnet::ExtractorConfig { buckets: 64, hidden_size: 32, ..small };
    /// # let extractor = bitnet::Extractor::from_weights(bitnet::ExtractorWeights::synthetic(config, 7)?)?;
    /// if let Ok(Some(command)) = extractor.extract_as::<Command>("kitchen light to 40") {
    ///     println!("{command:?}");
    /// }
    /// # Ok::<(), bitnet::Error>(())
    /// ```
    ///
    /// A slot becomes a string, a number or a `bool` that its words spell, a variant of that name, an `Option`, or a
    /// list of all its values. An intent without slots is the variant `Name {}`, with braces.
    ///
    /// # Errors
    /// The errors of [`Extractor::extract`]; [`Error::Answer`] for an answer that does not fit the type: an unknown
    /// intent, a required slot that the text does not have, two values for a single one, words that are not a number.
    pub fn extract_as<T: DeserializeOwned>(&self, text: &str) -> Result<Option<T>, Error> {
        let found = self.extract(text)?;
        if found.out_of_scope {
            return Ok(None);
        }
        answer::as_type(&found).map(Some)
    }

    /// Extracts from each of `texts`.
    ///
    /// # Errors
    /// The errors of [`Extractor::extract`].
    pub fn extract_batch<S: AsRef<str>>(&self, texts: impl IntoIterator<Item = S>) -> Result<Vec<Extraction>, Error> {
        self.extractor.with_scratch(|s| texts.into_iter().map(|text| self.extract_with(text.as_ref(), s)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extractor() -> Extractor {
        let names = |of: &str, n: usize| (0..n).map(|i| format!("{of}{i}")).collect();
        let mut music = TaskConfig::new("music", names("intent", 4), names("slot", 3));
        music.oos = Some(encoder::OosRule { score: encoder::OosScore::MaxProbability, threshold: 0.3 });
        let tasks = vec![music, TaskConfig::new("topic", names("topic", 5), vec![])];
        let config = ExtractorConfig { buckets: 200, hidden_size: 64, ..ExtractorConfig::new(tasks) };
        Extractor::from_weights(ExtractorWeights::synthetic(config, 2).unwrap()).unwrap()
    }

    const TEXTS: [&str; 4] = ["play sme jazz by miles davis", "", "青空文庫って知ってる?", "stop it, now"];

    #[test]
    fn threads_share_an_extractor() {
        let extractor = extractor();
        let expected = extractor.extract_batch(TEXTS).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        for (text, expected) in TEXTS.iter().zip(&expected) {
                            assert_eq!(extractor.extract(text).unwrap(), *expected);
                        }
                    }
                });
            }
        });
        // No more buffers than there were simultaneous calls.
        assert!((1..=4).contains(&extractor.inner.free.lock().unwrap().len()));
    }

    #[test]
    fn every_way_of_asking_gives_the_same_answer() {
        let extractor = extractor();
        let mut scratch = extractor.scratch();
        for name in ["music", "topic"] {
            let task = extractor.task(name).unwrap();
            let all = task.extract_batch(TEXTS).unwrap();
            for (text, expected) in TEXTS.iter().zip(&all) {
                let found = task.extract(text).unwrap();
                assert_eq!((&found, &task.extract_with(text, &mut scratch).unwrap()), (expected, expected));
                assert!(found.slots.iter().all(|s| s.value == text[s.range.clone()]));
                let (same, ranked) = task.extract_ranked(text, 3).unwrap();
                assert_eq!((&same, ranked.len()), (&found, 3));
                assert_eq!((&ranked[0].intent, ranked[0].confidence), (&found.intent, found.confidence));
                assert!(ranked.is_sorted_by(|a, b| a.confidence >= b.confidence));
                let whole: f32 = task.extract_ranked(text, 99).unwrap().1.iter().map(|r| r.confidence).sum();
                assert!((whole - 1.0).abs() < 1e-6, "{whole}");
                assert_eq!(
                    found.slots.first().map(|s| s.value.as_str()),
                    found.slots.first().and_then(|s| found.slot(&s.name))
                );
                let typed = task.extract_as::<std::collections::BTreeMap<String, serde::de::IgnoredAny>>(text).unwrap();
                assert_eq!(typed.is_none(), found.out_of_scope);
            }
            assert!(all[1].out_of_scope && all[1].slots.is_empty());
        }
        assert_eq!(extractor.extract(TEXTS[0]).unwrap(), extractor.task("music").unwrap().extract(TEXTS[0]).unwrap());
        assert!(extractor.task("weather").is_err());
        let vector = extractor.embed(TEXTS[0]).unwrap();
        let length: f32 = vector.iter().map(|v| v * v).sum();
        // The sum of 192 squares in f32.
        assert!(vector.len() == 192 && (length - 1.0).abs() < 1e-5, "{length}");
    }
}
