//! Extractors: intent, slots and out of scope of utterances.

use std::path::PathBuf;
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::raised;
use crate::matrix::Matrix;
use crate::options;
use crate::wait::{self, LOOK};

/// A part of an utterance that fills a slot.
#[pyclass(frozen, get_all, module = "ternary_lm")]
#[derive(Clone)]
pub(crate) struct Slot {
    /// The name of the slot.
    name: String,
    /// The words.
    value: String,
    /// Where they begin in the text, in characters.
    start: usize,
    /// Where they end.
    end: usize,
}

#[pymethods]
impl Slot {
    fn __repr__(&self) -> String {
        format!("Slot(name={:?}, value={:?}, start={}, end={})", self.name, self.value, self.start, self.end)
    }
}

/// An intent with its probability.
#[pyclass(frozen, get_all, module = "ternary_lm")]
#[derive(Clone)]
pub(crate) struct RankedIntent {
    intent: String,
    confidence: f32,
}

#[pymethods]
impl RankedIntent {
    fn __repr__(&self) -> String {
        format!("RankedIntent(intent={:?}, confidence={:.4})", self.intent, self.confidence)
    }
}

/// The extraction from an utterance.
#[pyclass(frozen, get_all, module = "ternary_lm")]
pub(crate) struct Extraction {
    text: String,
    intent: String,
    confidence: f32,
    out_of_scope: bool,
    slots: Vec<Slot>,
    cut: bool,
}

impl Extraction {
    fn of(text: &str, found: bitnet::Extraction) -> Self {
        // Python counts characters.
        let characters = |byte: usize| text.get(..byte).map_or(0, |head| head.chars().count());
        let slot = |s: bitnet::Slot| Slot {
            start: characters(s.range.start),
            end: characters(s.range.end),
            name: s.name,
            value: s.value,
        };
        Self {
            intent: found.intent,
            confidence: found.confidence,
            out_of_scope: found.out_of_scope,
            slots: found.slots.into_iter().map(slot).collect(),
            cut: found.cut,
            text: text.to_owned(),
        }
    }
}

#[pymethods]
impl Extraction {
    /// The value of the first slot of this name.
    fn slot(&self, name: &str) -> Option<&str> {
        self.slots.iter().find(|s| s.name == name).map(|s| s.value.as_str())
    }

    fn __repr__(&self) -> String {
        let slots: Vec<String> = self.slots.iter().map(|s| format!("{}={:?}", s.name, s.value)).collect();
        let outside = if self.out_of_scope { ", out of scope" } else { "" };
        format!("Extraction({:?}, {:.4}, [{}]{outside})", self.intent, self.confidence, slots.join(", "))
    }
}

/// A small encoder that reads an utterance in both directions; used from any number of threads.
#[pyclass(frozen, module = "ternary_lm")]
pub(crate) struct Extractor {
    inner: bitnet::Extractor,
}

impl Extractor {
    /// The task called `name`, or the first.
    fn task(&self, name: Option<&str>) -> PyResult<bitnet::ExtractorTask<'_>> {
        let first = || self.inner.config().tasks.first().map_or("", |task| &task.name);
        self.inner.task(name.unwrap_or_else(first)).map_err(raised)
    }
}

/// A call this short is not worth letting other threads run: a text of that many bytes takes about as long.
const SHORT: usize = 64;

#[pymethods]
impl Extractor {
    /// Loads a GGUF file, or a folder with `config.json` and `model.safetensors`.
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let loaded = wait::abandonable(py, move || bitnet::Extractor::load(path))?;
        Ok(Self { inner: loaded.map_err(raised)? })
    }

    /// Intent and slots of a text.
    #[pyo3(signature = (text, *, task = None))]
    fn extract(&self, py: Python<'_>, text: &str, task: Option<&str>) -> PyResult<Extraction> {
        let task = self.task(task)?;
        let found = match text.len() <= SHORT {
            true => task.extract(text),
            false => py.detach(|| task.extract(text)),
        };
        Ok(Extraction::of(text, found.map_err(raised)?))
    }

    /// The extraction, and the likeliest intents.
    #[pyo3(signature = (text, *, most = 5, task = None))]
    fn rank(
        &self,
        py: Python<'_>,
        text: &str,
        most: usize,
        task: Option<&str>,
    ) -> PyResult<(Extraction, Vec<RankedIntent>)> {
        let task = self.task(task)?;
        let (found, ranked) = py.detach(|| task.extract_ranked(text, most)).map_err(raised)?;
        let ranked = ranked.into_iter().map(|r| RankedIntent { intent: r.intent, confidence: r.confidence });
        Ok((Extraction::of(text, found), ranked.collect()))
    }

    /// Intent and slots of each of several texts.
    #[pyo3(signature = (texts, *, task = None))]
    fn extract_many(&self, py: Python<'_>, texts: &Bound<'_, PyAny>, task: Option<&str>) -> PyResult<Vec<Extraction>> {
        let (texts, task) = (options::texts("texts", texts)?, self.task(task)?);
        let mut found = Vec::with_capacity(texts.len());
        while found.len() < texts.len() {
            py.detach(|| {
                let began = Instant::now();
                while found.len() < texts.len() && began.elapsed() < LOOK {
                    found.push(task.extract(&texts[found.len()])?);
                }
                Ok(())
            })
            .map_err(raised)?;
            py.check_signals()?;
        }
        Ok(texts.iter().zip(found).map(|(text, found)| Extraction::of(text, found)).collect())
    }

    /// The vectors of texts, a row of length 1 for each.
    fn embed(&self, py: Python<'_>, texts: &Bound<'_, PyAny>) -> PyResult<Matrix> {
        let texts = options::texts("texts", texts)?;
        let embed = || texts.iter().map(|text| self.inner.embed(text)).collect::<Result<Vec<_>, _>>();
        let vectors = py.detach(embed).map_err(raised)?;
        Ok(Matrix::of_rows(&vectors, self.inner.config().pooled_size()))
    }

    /// Its tasks: name, intents and slots of each.
    #[getter]
    fn tasks<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let of = |task: &bitnet::TaskConfig| {
            let about = PyDict::new(py);
            about.set_item("name", &task.name)?;
            about.set_item("intents", &task.intents)?;
            about.set_item("slots", &task.slots)?;
            Ok(about)
        };
        self.inner.config().tasks.iter().map(of).collect()
    }

    fn __repr__(&self) -> String {
        let names: Vec<&str> = self.inner.config().tasks.iter().map(|task| task.name.as_str()).collect();
        format!("Extractor({})", names.join(", "))
    }
}
