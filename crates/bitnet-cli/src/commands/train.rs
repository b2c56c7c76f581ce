//! `bitnet train`: a model of one's own, from text to a file that `bitnet run` takes.

mod args;
mod begin;
mod data;
mod extract;
mod journal;
mod settings;

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use bitnet::train::{
    Checkpoint, Event, Finish, FusedLearner, MasterWeights, Params, Trainer, model_from_json, write_master,
};
use bitnet::{Engine, KvType, ModelConfig, Sequence};
use loader::convert::{ConvertOptions, ScaleRounding, Target, convert};
use loader::files::{self, Kind};
use loader::tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::interrupt::Graceful;
use crate::progress;
use crate::ui::{self, Style, Ui};
use args::TaskKind;
pub(crate) use args::TrainArgs;
use journal::Journal;
use settings::Settings;

pub(crate) fn execute(args: &TrainArgs, ui: &Ui) -> Result<(), CliError> {
    if args.task == TaskKind::Extract {
        return extract::execute(args, ui);
    }
    if let Some(option) = args.extract.given() {
        return Err(CliError::usage(format!("{option} is about extractors; it goes with --task extract")));
    }
    if args.run.steps.is_some() && args.extract.time.is_some() {
        return Err(CliError::usage(
            "--steps and --time: a language model has as many steps as fit its time; omit one",
        ));
    }
    let (place, mut resumed) = begin::begin(args, ui)?;
    let saved = &place.saved;
    let mut settings = args.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
    match (&resumed, &args.from) {
        (Some(c), _) => {
            settings.agrees(args, c)?;
            settings.train = c.config.clone();
        }
        (None, Some(first)) => {
            let begun = Checkpoint::load(&first.join("checkpoint.safetensors"))?;
            let (model, config) = settings.asked(args, &begun)?;
            settings.train = config.clone();
            resumed = Some(begun.second_stage(model, config)?);
        }
        (None, None) => {
            args.run.put(&mut settings.train, args.extract.time);
            settings.train.examples |= data::are_examples(args)?;
        }
    }
    settings.train.validate()?;

    if args.data.is_empty() && !args.resume {
        return Err(CliError::usage("no training data: pass --data FILE"));
    }
    let tokenizer = data::tokenizer(args, ui)?;
    let model = match &resumed {
        Some(c) => c.model.clone(),
        None => shape(args, &settings, tokenizer.as_ref())?,
    };
    let mut files = data::token_files(args, &settings.train, &model, tokenizer.as_ref(), ui)?;
    let mut config = settings.train;
    if resumed.is_none() && !args.run.across_documents && config.document_end.is_none() {
        config.document_end = data::document_end(&model, files[0].as_mut())?;
    }
    if resumed.is_none() && !args.run.cut_documents {
        config.whole_documents |= config.document_end.is_some() && !config.examples;
    }
    if let Some(end) = config.document_end {
        let whole = if config.whole_documents { ", are whole where they fit" } else { "" };
        ui.say(format_args!("documents end with token {end}{whole}, and see nothing of each other"));
    }
    let learner = FusedLearner::new(&model, config.threads)?;
    let begun = resumed.as_ref().map_or(0, |c| c.progress.step);
    let mut trainer = match resumed {
        Some(checkpoint) => Trainer::resume(checkpoint, learner, files, saved)?,
        None => Trainer::new(&model, &config, learner, files, saved)?,
    };
    let length = match config.time {
        None => format!("{} steps", config.steps),
        Some(seconds) => format!("{:.0} minutes", seconds / 60.0),
    };
    ui.say(format_args!(
        "{} parameters, {length}, {} tokens a step, {} threads",
        ui::count(model.parameters()),
        config.tokens_per_step(),
        config.threads
    ));

    let mut journal = Journal::open(&args.out.join("log.jsonl"), args.resume.then_some(begun))?;
    let graceful = Graceful::begin();
    let bar = progress::of_training(ui, trainer.steps().unwrap_or(0));
    bar.set_position(begun);
    bar.reset_eta();
    let began = Instant::now();
    let mut failed = None;
    let finish = trainer.run(&mut |event| {
        let done = match event {
            Event::Step { step, tokens, loss, lr, grad_norm, tok_s } => {
                bar.set_position(step);
                bar.set_message(format!("loss {loss:.4}, {} tok/s", ui::rate(tok_s)));
                journal.step([step, tokens], [loss, lr, grad_norm, tok_s])
            }
            Event::Plan { step, steps } => {
                bar.set_length(steps);
                journal.plan(step, steps)
            }
            Event::Trits { step, layers } => journal.trits(step, layers),
            Event::Validation { step, nats_per_token, best, params } => {
                let text = sample(args, &config.model_after(step, &model), params, tokenizer.as_ref());
                let mark = if best { ", best so far" } else { "" };
                bar.suspend(|| {
                    ui.say(format_args!(
                        "step {step}: validation {nats_per_token:.4} nats per token, perplexity {:.3}{mark}",
                        nats_per_token.exp()
                    ));
                    match text {
                        Ok(Some(text)) => ui.say(ui.err(Style::Dim, text.escape_debug())),
                        Ok(None) => {}
                        Err(e) => ui.note(&format!("no sample: {e}")),
                    }
                });
                journal.validation(step, nats_per_token)
            }
            _ => Ok(()),
        };
        if let Err(e) = done {
            failed = Some(e);
        }
        if failed.is_some() || graceful.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    let finish = match (finish, failed) {
        (Ok(finish), None) => finish,
        (finish, failed) => {
            plot(args, &journal, ui);
            if saved.is_file() {
                ui.note(&format!("{} holds the last checkpoint; --resume continues from it", saved.display()));
            }
            return Err(finish.err().map(CliError::from).or(failed).unwrap_or(CliError::Interrupted));
        }
    };
    if finish == Finish::Interrupted {
        plot(args, &journal, ui);
        ui.note(&format!("{} holds step {}; --resume continues", saved.display(), trainer.progress().step));
        return Err(CliError::Interrupted);
    }
    let trained = config.model_after(trainer.progress().step, &model);
    let notes = export(args, &trained, trainer.trained())?;
    plot(args, &journal, ui);
    for note in &notes {
        ui.note(note);
    }
    let seconds = began.elapsed().as_secs_f64();
    let folder = args.out.join("export");
    if args.json {
        let best: Option<f64> = trainer.progress().best;
        return ui::print_json(&json!({
            "steps": trainer.progress().step,
            "finish": if finish == Finish::EarlyStop { "early_stop" } else { "completed" },
            "best_val_nats_per_token": best,
            "seconds": seconds,
            "export": folder.display().to_string(),
        }));
    }
    ui.say(format_args!("{} {} in {seconds:.0} s", ui.err(Style::Green, "trained"), folder.display()));
    Ok(())
}

/// Draws the curves. A picture that cannot be written is not a reason to lose a run.
fn plot(args: &TrainArgs, journal: &Journal, ui: &Ui) {
    if let Err(error) = journal.plot(&args.out.join("loss.svg")) {
        ui.warning(&format!("cannot write loss.svg: {error}"));
    }
}

/// The model's shape: defaults, then the configuration file, then the command line.
fn shape(args: &TrainArgs, settings: &Settings, tokenizer: Option<&Tokenizer>) -> Result<ModelConfig, CliError> {
    let mut m = settings.model.clone();
    args.shape.put(&mut m);
    let mut default = |key: &str, value: Value| {
        if !m.contains_key(key) {
            m.insert(key.to_owned(), value);
        }
    };
    default("hidden_size", Value::from(256));
    default("num_hidden_layers", Value::from(6));
    default("num_attention_heads", Value::from(4));
    default("rope_theta", Value::from(10_000.0));
    default("max_position_embeddings", Value::from(settings.train.context.max(512)));
    if let Some(t) = tokenizer {
        default("vocab_size", Value::from(t.vocab_size()));
        if let Some(bos) = t.bos().or_else(|| t.id_of(loader::tokenizer::train::BEGIN_OF_TEXT)) {
            default("bos_token_id", Value::from(bos));
        }
        if let Some(eos) = data::eos_of(t) {
            default("eos_token_id", Value::from(eos));
        }
    }
    if !m.contains_key("vocab_size") {
        return Err(CliError::usage(
            "the vocabulary is unknown: give --tokenizer FILE or --train-tokenizer N, or --vocab N for a file of token ids",
        ));
    }
    let hidden = m["hidden_size"].as_u64().unwrap_or(0);
    if let Some(heads) = m["num_attention_heads"].as_u64().filter(|heads| *heads > 0) {
        // Families have other defaults, which do not fit small models.
        m.entry("head_dim").or_insert_with(|| Value::from(hidden / heads));
    }
    m.entry("intermediate_size").or_insert_with(|| Value::from(3 * hidden));
    Ok(model_from_json(&Value::Object(m))?)
}

/// The likeliest continuation of the text of `--sample`, 48 tokens.
fn sample(
    args: &TrainArgs,
    model: &ModelConfig,
    params: &Params,
    tokenizer: Option<&Tokenizer>,
) -> Result<Option<String>, CliError> {
    let (Some(prompt), Some(tokenizer)) = (&args.sample, tokenizer) else { return Ok(None) };
    let weights = bitnet_model::ModelWeights::from_source(&MasterWeights { model, params })?;
    let engine = Engine::new(&weights, &bitnet_model::EngineOptions::default())?;
    let mut ids: Vec<u32> = model.bos_token_id.into_iter().collect();
    ids.extend(tokenizer.encode_text(prompt).map_err(|e| CliError::usage(e.to_string()))?);
    let start = ids.len();
    let mut sequence = Sequence::new(&engine, KvType::F32, None);
    let mut next = ids.clone();
    for _ in 0..48.min(model.max_position_embeddings.saturating_sub(start)) {
        let logits = sequence.feed(&next)?;
        let best = (0..logits.len()).fold(0, |b, i| if logits[i] > logits[b] { i } else { b }) as u32;
        ids.push(best);
        if model.eos_token_ids.contains(&best) {
            break;
        }
        next = vec![best];
    }
    Ok(Some(format!("{prompt}{}", tokenizer.decode(&ids[start..], true))))
}

/// Writes the finished model: a folder with packed weights (with a scale per group: floats that are ternary) and, if
/// the shape allows it, a GGUF file. Returns notes.
fn export(args: &TrainArgs, model: &ModelConfig, params: &Params) -> Result<Vec<String>, CliError> {
    let (master, export) = (args.out.join("master"), args.out.join("export"));
    write_master(&master, model, params)?;
    let tokenizer = data::tokenizer_path(&args.out);
    if tokenizer.is_file() {
        let bytes = files::read(&tokenizer, Kind::TOKENIZER)?;
        files::write(&data::tokenizer_path(&master), &bytes)?;
    }
    let mut options = ConvertOptions::default();
    options.tokenizer = tokenizer.is_file().then_some(tokenizer);
    // The packed form has bf16 scales; GGUF keeps f32.
    options.rounding = ScaleRounding::Nearest;
    let quiet = &mut |_| ();
    let (folder, file) = match model.weight_group {
        None => (Target::HfPacked, Target::I2S),
        Some(64) => (Target::HfUnpacked, Target::Q2_0),
        Some(_) => (Target::HfUnpacked, Target::Pq2_0),
    };
    let mut notes = convert(&master, &export, folder, &options, quiet)?.notes;
    options.rounding = ScaleRounding::Exact;
    let out = args.out.canonicalize().ok();
    options.name = out.as_deref().and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
    match convert(&master, &export.join("model.gguf"), file, &options, quiet) {
        Ok(report) => notes.extend(report.notes),
        Err(e) => notes.push(format!("no model.gguf: {e}")),
    }
    notes.dedup();
    Ok(notes)
}

/// The path as text, for messages.
fn name(path: &Path) -> String {
    path.display().to_string()
}
