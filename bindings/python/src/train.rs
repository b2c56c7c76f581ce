//! Training on this computer: a language model from text, an extractor from utterances. A thin layer over
//! [`bitnet::train`]; `bitnet train` has more options.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bitnet::ModelConfig;
use bitnet::train::extract::{
    Beginning, ExtractCheckpoint, ExtractEvent, ExtractOptions, TaskData, TaskFigures, train_from,
};
use bitnet::train::{
    Checkpoint, Event, Finish, FusedLearner, Split, TextFormat, TokenFile, TokenWidth, TrainConfig, Trainer,
    for_each_document, model_from_json, write_master,
};
use loader::convert::{ConvertOptions, ScaleRounding, Target, convert};
use loader::files::{self, FolderLock, Kind};
use loader::tokenizer::Tokenizer;
use loader::tokenizer::train::{BEGIN_OF_TEXT, END_OF_TEXT, train_bpe};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Map, Value, json};

use crate::errors::{self, kinds};
use crate::options;

/// Text that a tokenizer learns from at most, bytes.
const TOKENIZER_TEXT: usize = 256 << 20;

/// An error of files, tokenizers and conversions, where they belong to a run.
fn failed(error: &dyn std::fmt::Display) -> PyErr {
    kinds::TrainingError::new_err(error.to_string())
}

fn of_training(error: bitnet::train::TrainError) -> PyErr {
    errors::of_training(&error)
}

/// The end of a run's events: a function of Python, which may end the run.
struct Listener {
    callback: Option<Py<PyAny>>,
    /// The exception of the callback, or of a handler of a signal.
    raised: Option<PyErr>,
}

impl Listener {
    /// Says what happened, and looks for signals.
    fn hear(&mut self, news: impl FnOnce() -> Value) -> ControlFlow<()> {
        let heard = Python::attach(|py| {
            py.check_signals()?;
            let Some(callback) = &self.callback else { return Ok(()) };
            callback.bind(py).call1((options::loads(py, &news().to_string())?,)).map(drop)
        });
        match heard {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.raised.get_or_insert(error);
                ControlFlow::Break(())
            }
        }
    }
}

fn name(finish: Finish) -> &'static str {
    match finish {
        Finish::Completed => "completed",
        Finish::EarlyStop => "early_stop",
        Finish::Interrupted => "interrupted",
    }
}

/// The one checkpoint of a folder, which nothing else uses meanwhile.
fn folder(out: &Path, resume: bool) -> PyResult<(PathBuf, FolderLock)> {
    std::fs::create_dir_all(out).map_err(|e| failed(&format!("cannot create {}: {e}", out.display())))?;
    let lock = FolderLock::take(out).map_err(|e| failed(&e))?;
    let saved = out.join("checkpoint.safetensors");
    match (saved.is_file(), resume) {
        (true, false) => {
            let saved = saved.display();
            Err(failed(&format!(
                "{saved} is of an earlier run: continue from it with resume=True, or give another out"
            )))
        }
        (false, true) => Err(failed(&format!("resume=True: there is no {}", saved.display()))),
        _ => Ok((saved, lock)),
    }
}

/// The section `given` as JSON.
fn section(given: Option<&Bound<'_, PyDict>>) -> PyResult<Map<String, Value>> {
    let Some(given) = given else { return Ok(Map::new()) };
    match options::json(given)? {
        Value::Object(map) => Ok(map),
        _ => Err(PyTypeError::new_err("expected a dict")),
    }
}

/// The arguments of [`train`] without Python.
struct Text {
    data: Vec<PathBuf>,
    out: PathBuf,
    tokenizer: Option<PathBuf>,
    vocabulary: Option<usize>,
    model: Map<String, Value>,
    config: TrainConfig,
    validation: f64,
    resume: bool,
}

/// Trains a language model on text files; a tokenizer, too, of `vocabulary` tokens. The dictionary that it returns says
/// how the run ended and where the model is.
#[pyfunction]
#[pyo3(signature = (data, out, *, tokenizer = None, vocabulary = None, model = None, options = None, validation = 0.02, resume = false, on_event = None))]
#[expect(clippy::too_many_arguments, reason = "arguments of Python, with names")]
pub(crate) fn train<'py>(
    py: Python<'py>,
    data: Vec<PathBuf>,
    out: PathBuf,
    tokenizer: Option<PathBuf>,
    vocabulary: Option<usize>,
    model: Option<&Bound<'py, PyDict>>,
    options: Option<&Bound<'py, PyDict>>,
    validation: f64,
    resume: bool,
    on_event: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let config = serde_json::from_value(Value::Object(section(options)?)).map_err(|e| errors::option(e.to_string()))?;
    let run = Text { data, out, tokenizer, vocabulary, model: section(model)?, config, validation, resume };
    let mut listener = Listener { callback: on_event, raised: None };
    let answer = py.detach(|| run.train(&mut listener))?;
    crate::options::loads(py, &answer.to_string())
}

impl Text {
    fn train(self, listener: &mut Listener) -> PyResult<Value> {
        let (saved, _lock) = folder(&self.out, self.resume)?;
        let begun = match self.resume {
            true => Some(Checkpoint::load(&saved).map_err(of_training)?),
            false => None,
        };
        let tokenizer = self.tokenizer()?;
        let (model, mut config) = match &begun {
            Some(checkpoint) => (checkpoint.model.clone(), checkpoint.config.clone()),
            None => (self.shape(&tokenizer)?, self.config.clone()),
        };
        config.validate().map_err(of_training)?;
        let mut tokens = self.tokens(&model, &config, &tokenizer)?;
        if begun.is_none()
            && let (Some(end), Some(learned)) = (model.eos_token_ids.first(), tokens[0].as_mut())
            && learned.has_document_end(*end).map_err(of_training)?
        {
            config.document_end.get_or_insert(*end);
            config.whole_documents = true;
        }
        let learner = FusedLearner::new(&model, config.threads).map_err(of_training)?;
        let mut trainer = match begun {
            Some(checkpoint) => Trainer::resume(checkpoint, learner, tokens, &saved),
            None => Trainer::new(&model, &config, learner, tokens, &saved),
        }
        .map_err(of_training)?;
        let finish = trainer
            .run(&mut |event| match event {
                Event::Step { step, tokens, loss, lr, tok_s, .. } => listener.hear(
                    || json!({"event": "step", "step": step, "tokens": tokens, "loss": loss, "lr": lr, "tok_s": tok_s}),
                ),
                Event::Validation { step, nats_per_token, best, .. } => listener.hear(
                    || json!({"event": "validation", "step": step, "nats_per_token": nats_per_token, "best": best}),
                ),
                _ => ControlFlow::Continue(()),
            })
            .map_err(of_training)?;
        if let Some(raised) = listener.raised.take() {
            return Err(raised);
        }
        let steps = trainer.progress().step;
        write_master(&self.out.join("master"), &config.model_after(steps, &model), trainer.trained())
            .map_err(of_training)?;
        let notes = self.export(&model)?;
        let best: Option<f64> = trainer.progress().best;
        Ok(json!({
            "finish": name(finish),
            "steps": steps,
            "best_nats_per_token": best,
            "export": self.out.join("export").display().to_string(),
            "notes": notes,
        }))
    }

    fn tokenizer_path(&self) -> PathBuf {
        self.out.join("tokenizer.json")
    }

    /// The tokenizer that was given, learned, or left by an earlier run; it is kept in the folder.
    fn tokenizer(&self) -> PyResult<Tokenizer> {
        let kept = self.tokenizer_path();
        if !self.resume {
            let json = match (&self.tokenizer, self.vocabulary) {
                (Some(path), None) => files::read_text(path, Kind::TOKENIZER).map_err(|e| failed(&e))?,
                (None, Some(n)) => train_bpe(&self.texts()?, n).map_err(|e| failed(&e))?,
                _ => {
                    return Err(errors::option(
                        "give tokenizer, a tokenizer.json, or vocabulary, how many tokens to learn",
                    ));
                }
            };
            // Damaged tokenizers are not kept.
            Tokenizer::from_bytes(json.as_bytes()).map_err(|e| failed(&e))?;
            files::write(&kept, json.as_bytes()).map_err(|e| failed(&e))?;
        }
        Tokenizer::from_file(&kept).map_err(|e| failed(&e))
    }

    fn texts(&self) -> PyResult<Vec<String>> {
        let (mut texts, mut bytes) = (Vec::new(), 0);
        for path in &self.data {
            for_each_document(path, TextFormat::of_path(path), &mut |text| {
                if bytes < TOKENIZER_TEXT {
                    bytes += text.len();
                    texts.push(text.to_owned());
                }
                Ok(())
            })
            .map_err(of_training)?;
        }
        Ok(texts)
    }

    /// The model's shape: what was asked for, and the defaults of `bitnet train`.
    fn shape(&self, tokenizer: &Tokenizer) -> PyResult<ModelConfig> {
        let mut m = self.model.clone();
        let mut default = |key: &str, value: Value| {
            m.entry(key).or_insert(value);
        };
        default("hidden_size", 256.into());
        default("num_hidden_layers", 6.into());
        default("num_attention_heads", 4.into());
        default("rope_theta", 10_000.0.into());
        default("max_position_embeddings", self.config.context.max(512).into());
        default("vocab_size", tokenizer.vocab_size().into());
        if let Some(bos) = tokenizer.bos().or_else(|| tokenizer.id_of(BEGIN_OF_TEXT)) {
            default("bos_token_id", bos.into());
        }
        let known = [END_OF_TEXT, "<|endoftext|>", "</s>"];
        if let Some(eos) = tokenizer.eos().first().copied().or_else(|| known.iter().find_map(|t| tokenizer.id_of(t))) {
            default("eos_token_id", eos.into());
        }
        let number = |m: &Map<String, Value>, key: &str| m.get(key).and_then(Value::as_u64).unwrap_or(0);
        let (hidden, heads) = (number(&m, "hidden_size"), number(&m, "num_attention_heads"));
        if let Some(width) = hidden.checked_div(heads) {
            m.entry("head_dim").or_insert(width.into());
        }
        m.entry("intermediate_size").or_insert((3 * hidden).into());
        model_from_json(&Value::Object(m)).map_err(of_training)
    }

    /// Tokens to learn from and to validate with.
    fn tokens(
        &self,
        model: &ModelConfig,
        config: &TrainConfig,
        tokenizer: &Tokenizer,
    ) -> PyResult<[Option<TokenFile>; 2]> {
        let width = TokenWidth::for_vocab(model.vocab_size);
        let ending = if width == TokenWidth::U16 { "u16" } else { "u32" };
        let folder = self.out.join("data");
        let [learn, valid] = ["train", "valid"].map(|part| folder.join(format!("{part}.{ending}")));
        if !(self.resume && learn.is_file()) {
            let eos = *model.eos_token_ids.first().ok_or_else(|| {
                errors::option("the tokenizer has no token that ends a text; set eos_token_id in model")
            })?;
            std::fs::create_dir_all(&folder)
                .map_err(|e| failed(&format!("cannot create {}: {e}", folder.display())))?;
            let split = Split { validation: self.validation, seed: config.seed };
            let mut encode = |text: &str| {
                let mut ids: Vec<u32> = model.bos_token_id.into_iter().collect();
                ids.extend(tokenizer.encode_text(text).map_err(|e| e.to_string())?);
                Ok(ids)
            };
            split.prepare(&self.data, [&learn, &valid], width, eos, &mut encode).map_err(of_training)?;
        }
        let learned = TokenFile::open(&learn, width).map_err(of_training)?;
        let validated = TokenFile::open(&valid, width).map_err(of_training)?;
        // Too little to validate with is not a reason to fail.
        Ok([Some(learned), Some(validated).filter(|file| file.len() > config.context as u64)])
    }

    /// Writes the finished model as a folder and, where its shape allows, as a GGUF file; notes on what was left out.
    fn export(&self, model: &ModelConfig) -> PyResult<Vec<String>> {
        let (master, export) = (self.out.join("master"), self.out.join("export"));
        let tokenizer = self.tokenizer_path();
        let bytes = files::read(&tokenizer, Kind::TOKENIZER).map_err(|e| failed(&e))?;
        files::write(&master.join("tokenizer.json"), &bytes).map_err(|e| failed(&e))?;
        let mut options = ConvertOptions::default();
        options.tokenizer = Some(tokenizer);
        // The packed form has bf16 scales; GGUF keeps f32.
        options.rounding = ScaleRounding::Nearest;
        let quiet = &mut |_| ();
        let (folder, file) = match model.weight_group {
            None => (Target::HfPacked, Target::I2S),
            Some(64) => (Target::HfUnpacked, Target::Q2_0),
            Some(_) => (Target::HfUnpacked, Target::Pq2_0),
        };
        let mut notes = convert(&master, &export, folder, &options, quiet).map_err(|e| failed(&e))?.notes;
        options.rounding = ScaleRounding::Exact;
        match convert(&master, &export.join("model.gguf"), file, &options, quiet) {
            Ok(report) => notes.extend(report.notes),
            Err(e) => notes.push(format!("no model.gguf: {e}")),
        }
        Ok(notes)
    }
}

/// The options of [`train_extractor`] by name, on top of the defaults.
fn extract_options(given: Option<&Bound<'_, PyDict>>) -> PyResult<ExtractOptions> {
    let mut o = ExtractOptions::default();
    let mut ffn = None;
    for (name, value) in section(given)? {
        let wrong = |must: &str| errors::option(format!("{name} is {value}; it must be {must}"));
        let whole = || value.as_u64().ok_or_else(|| wrong("a whole number"));
        let size = || whole().map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let number = || value.as_f64().ok_or_else(|| wrong("a number"));
        match name.as_str() {
            "hidden" => o.hidden = size()?,
            "layers" => o.layers = size()?,
            "heads" => o.heads = size()?,
            "ffn" => ffn = Some(size()?),
            "buckets" => o.buckets = size()?,
            "passes" => o.passes = whole()?,
            "steps" => o.steps = Some(whole()?),
            "seconds" => {
                o.time = Some(Duration::try_from_secs_f64(number()?).map_err(|_| wrong("a number of seconds"))?);
            }
            "batch" => o.batch = size()?,
            "threads" => o.threads = size()?,
            "lr" => o.lr = number()?,
            "warmup" => o.warmup = whole()?,
            "patience" => o.patience = whole()?,
            "typos" => o.augmentation.typos = number()?,
            "exchange" => o.augmentation.exchange = number()?,
            "seed" => o.seed = whole()?,
            _ => {
                return Err(PyTypeError::new_err(format!(
                    "unknown option {name:?}; options are hidden, layers, heads, ffn, buckets, passes, steps, seconds, batch, \
                     threads, lr, warmup, patience, typos, exchange, seed"
                )));
            }
        }
    }
    o.ffn = ffn.unwrap_or(o.hidden.saturating_mul(3));
    o.validate().map_err(of_training)?;
    Ok(o)
}

/// Trains an extractor on utterances, JSON lines as `bitnet train --task extract` reads them: a task for each name in
/// `data`.
#[pyfunction]
#[pyo3(signature = (data, out, *, options = None, validation = 0.1, resume = false, on_event = None))]
pub(crate) fn train_extractor<'py>(
    py: Python<'py>,
    data: BTreeMap<String, Vec<PathBuf>>,
    out: PathBuf,
    options: Option<&Bound<'py, PyDict>>,
    validation: f64,
    resume: bool,
    on_event: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let o = extract_options(options)?;
    let mut listener = Listener { callback: on_event, raised: None };
    let answer = py.detach(|| -> PyResult<Value> {
        let read = |(name, files): (&String, &Vec<PathBuf>)| TaskData::read(name, files, &[], validation, o.seed);
        let tasks = data.iter().map(read).collect::<Result<Vec<_>, _>>().map_err(of_training)?;
        let (saved, _lock) = folder(&out, resume)?;
        let checkpoint = match resume {
            true => Some(ExtractCheckpoint::load(&saved).map_err(of_training)?),
            false => None,
        };
        let beginning = Beginning { teachers: Vec::new(), checkpoint };
        let mut unsaved = None;
        let trained = train_from(&tasks, &o, beginning, &mut |event| match event {
            ExtractEvent::Step { step, done, loss, .. } => {
                listener.hear(|| json!({"event": "step", "step": step, "done": done, "loss": loss}))
            }
            ExtractEvent::Validation { step, figures, best } => {
                let all = summary(&tasks, figures);
                listener.hear(|| json!({"event": "validation", "step": step, "best": best, "tasks": all}))
            }
            ExtractEvent::State { state, last: true } => {
                unsaved = state.save(&saved).err();
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        })
        .map_err(of_training)?;
        if let Some(error) = unsaved {
            return Err(of_training(error));
        }
        let export = out.join("export");
        loader::extractor::write_safetensors(&export, &trained.weights).map_err(|e| failed(&e))?;
        loader::extractor::write_gguf(&export.join("model.gguf"), &trained.weights).map_err(|e| failed(&e))?;
        files::write(&out.join("report.md"), trained.report.as_bytes()).map_err(|e| failed(&e))?;
        if let Some(raised) = listener.raised.take() {
            return Err(raised);
        }
        Ok(json!({
            "finish": name(trained.finish),
            "steps": trained.steps,
            "best_step": trained.best_step,
            "tasks": summary(&tasks, &trained.figures),
            "export": export.display().to_string(),
        }))
    })?;
    crate::options::loads(py, &answer.to_string())
}

/// Figures of each task, without typing errors and with them.
fn summary(tasks: &[TaskData], figures: &[[TaskFigures; 2]]) -> Value {
    let of = |f: &TaskFigures| json!({"intent": f.accuracy(), "slots_f1": f.slot_counts().f1(), "all_right": f.all_right(), "auroc": f.auroc});
    let task = |(task, [clean, typos]): (&TaskData, &[TaskFigures; 2])| {
        (task.name.clone(), json!({"clean": of(clean), "typos": of(typos)}))
    };
    Value::Object(tasks.iter().zip(figures).map(task).collect())
}
