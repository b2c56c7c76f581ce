//! `bitnet train --task extract`: an extractor from utterances.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bitnet::train::Finish;
use bitnet::train::extract::{
    Beginning, ExtractCheckpoint, ExtractEvent, ExtractOptions, TaskData, TaskFigures, train_from,
};
use bitnet_model::encoder::Extractor;
use loader::extractor::{read, write_gguf, write_safetensors};
use loader::files::{self, FolderLock};
use serde_json::{Value, json};

use super::TrainArgs;
use crate::error::CliError;
use crate::interrupt::Graceful;
use crate::progress;
use crate::ui::{self, Style, Ui};

mod args;
mod pictures;

pub(super) use args::ExtractArgs;
use args::{foreign, options};
use pictures::History;

/// Share of the utterances that is kept for choices where nothing else is said.
const VAL_SHARE: f64 = 0.1;

/// Time between checkpoints at least.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// Files of each task, in the order in which the tasks first appear: `NAME=FILE`, or a file whose name is the task's.
fn tasks(data: &[PathBuf]) -> Result<Vec<(String, Vec<PathBuf>)>, CliError> {
    let mut all: Vec<(String, Vec<PathBuf>)> = Vec::new();
    for path in data {
        let named = path.to_str().filter(|_| !path.is_file()).and_then(|t| t.split_once('='));
        let (name, file) = match named {
            Some((name, file)) => (name.to_owned(), PathBuf::from(file)),
            None => (path.file_stem().and_then(|s| s.to_str()).unwrap_or_default().to_owned(), path.clone()),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            let file = super::name(path);
            return Err(CliError::usage(format!(
                "--data {file}: a task is called after its file, and names have 1 to 64 letters, digits, '-' or '_' of ASCII; \
                 give --data NAME=FILE"
            )));
        }
        match all.iter_mut().find(|t| t.0 == name) {
            Some(task) => task.1.push(file),
            None => all.push((name, vec![file])),
        }
    }
    Ok(all)
}

pub(super) fn execute(args: &TrainArgs, ui: &Ui) -> Result<(), CliError> {
    if let Some(option) = foreign(args) {
        return Err(CliError::usage(format!("{option} is about language models; it does not go with --task extract")));
    }
    let files = tasks(&args.data)?;
    if files.is_empty() {
        return Err(CliError::usage("no utterances: pass --data FILE, JSON lines with text, intent and slots"));
    }
    if args.val_data.is_some() && files.len() > 1 {
        let problem = "--val-data goes with one task; with several, utterances say \"part\": \"valid\" themselves";
        return Err(CliError::usage(problem));
    }
    let options = options(args)?;
    options.validate()?;
    let share = args.val_share.unwrap_or(VAL_SHARE);
    let valid: Vec<PathBuf> = args.val_data.iter().cloned().collect();
    let share = if valid.is_empty() { share } else { 0.0 };
    let mut data = Vec::new();
    for (name, files) in &files {
        let task = TaskData::read(name, files, &valid, share, options.seed)?;
        ui.say(format_args!(
            "{name}: {} utterances to learn, {} kept for choices; {} intents, {} slots{}",
            ui::count(task.train.len() as u64),
            ui::count(task.valid.len() as u64),
            task.intents.len(),
            task.slots.len(),
            if task.has_outside() { ", some out of scope" } else { "" }
        ));
        data.push(task);
    }
    std::fs::create_dir_all(&args.out).map_err(CliError::io("create", args.out.display().to_string()))?;
    let _lock = FolderLock::take(&args.out)?;
    run(args, &data, &options, ui)
}

/// The figures of a task in a few words.
fn words(name: &str, [clean, typos]: &[TaskFigures; 2]) -> String {
    let percent = |share: f64| format!("{:.2}", 100.0 * share);
    let mut out = format!("{name} intent {} ({})", percent(clean.accuracy()), percent(typos.accuracy()));
    if !clean.slots.is_empty() {
        let f1 = |f: &TaskFigures| percent(f.slot_counts().f1());
        out += &format!(" slots {} ({})", f1(clean), f1(typos));
        out += &format!(" all right {} ({})", percent(clean.all_right()), percent(typos.all_right()));
    }
    if let Some(area) = clean.auroc {
        out += &format!(" AUROC {area:.4}");
    }
    out
}

fn run(args: &TrainArgs, data: &[TaskData], options: &ExtractOptions, ui: &Ui) -> Result<(), CliError> {
    let teachers = args.extract.teacher.iter().map(|path| Ok(Extractor::new(read(path)?)?));
    let teachers = teachers.collect::<Result<Vec<_>, CliError>>()?;
    let saved = args.out.join("checkpoint.safetensors");
    let checkpoint = match (args.resume, saved.is_file()) {
        (true, _) => Some(ExtractCheckpoint::load(&saved)?),
        (false, false) => None,
        (false, true) => {
            let saved = saved.display();
            return Err(CliError::usage(format!(
                "{saved} is of an earlier run: pass --resume to go on from it, or another --out"
            )));
        }
    };
    let log = args.out.join("log.jsonl");
    let mut open = std::fs::File::options();
    // A run that goes on adds to what it has said.
    let open = if args.resume { open.append(true) } else { open.write(true).truncate(true) };
    let mut journal = open.create(true).open(&log).map_err(CliError::io("create", log.display().to_string()))?;
    let mut note =
        |value: &Value| writeln!(journal, "{value}").map_err(CliError::io("write", log.display().to_string()));
    let graceful = Graceful::begin();
    let bar = progress::of_training(ui, 1);
    let began = Instant::now();
    let (mut failed, mut mean, mut told, mut kept) = (None, None, Instant::now(), Instant::now());
    let mut history = History::default();
    let beginning = Beginning { teachers, checkpoint };
    let trained = train_from(data, options, beginning, &mut |event| {
        let done = match event {
            ExtractEvent::Begin { parameters, steps, steps_per_pass } => {
                bar.set_length(steps);
                ui.say(format_args!(
                    "{} parameters, {} steps of {} utterances, {} a pass",
                    ui::count(parameters as u64),
                    ui::count(steps),
                    options.batch,
                    ui::count(steps_per_pass)
                ));
                Ok(())
            }
            ExtractEvent::Step { step, done, loss, left } => {
                let mean = *mean.insert(mean.map_or(loss, |mean| 0.98 * mean + 0.02 * loss));
                history.step(step, loss);
                bar.set_position(step);
                bar.set_message(format!("loss {mean:.4}, {:.0} %, {} s left", 100.0 * done, left.as_secs()));
                // Without a terminal there is no bar, so a line a minute says that the work goes on.
                if !ui.is_watched() && told.elapsed() > Duration::from_secs(60) {
                    told = Instant::now();
                    let left = left.as_secs();
                    ui.say(format_args!("step {step}, loss {mean:.4}, {:.0} % done, {left} s left", 100.0 * done));
                }
                note(&json!({ "step": step, "loss": loss, "seconds": began.elapsed().as_secs_f64() }))
            }
            ExtractEvent::Validation { step, figures, best } => {
                history.validation(step, figures);
                let all: Vec<String> = data.iter().zip(figures).map(|(d, f)| words(&d.name, f)).collect();
                let mark = if best { ", best so far" } else { "" };
                bar.suspend(|| {
                    ui.say(format_args!("step {step}: {}; with typing errors in parentheses{mark}", all.join("; ")))
                });
                let shares = |f: &TaskFigures| json!([f.accuracy(), f.slot_counts().f1(), f.all_right(), f.auroc]);
                let figures: Vec<[Value; 2]> = figures.iter().map(|f| f.each_ref().map(shares)).collect();
                note(&json!({ "step": step, "intent_slots_all_auroc": figures }))
            }
            // Before anything is exported, so that a full disk costs no training.
            ExtractEvent::State { state, last } => match last || kept.elapsed() > SAVE_EVERY {
                true => {
                    kept = Instant::now();
                    state.save(&saved).map_err(CliError::from)
                }
                false => Ok(()),
            },
            _ => Ok(()),
        };
        if let Err(e) = done {
            failed = Some(e);
        }
        if failed.is_some() || graceful.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    let trained = trained?;
    if let Some(e) = failed {
        return Err(e);
    }
    let export = args.out.join("export");
    write_safetensors(&export, &trained.weights)?;
    write_gguf(&export.join("model.gguf"), &trained.weights)?;
    // A picture that cannot be drawn is not a reason to lose a run.
    let pictures = history.draw(&args.out, data, &trained.figures).unwrap_or_else(|error| {
        ui.warning(&format!("not all pictures could be written: {error}"));
        String::new()
    });
    write(&args.out.join("report.md"), &format!("{}{pictures}", trained.report))?;
    if trained.finish == Finish::Interrupted {
        let (export, step) = (export.display(), trained.steps);
        ui.note(&format!("{export} holds the best model until step {step}; --resume continues from there"));
        return Err(CliError::Interrupted);
    }
    let seconds = began.elapsed().as_secs_f64();
    if args.json {
        let figures: BTreeMap<&str, Value> =
            data.iter().zip(&trained.figures).map(|(d, f)| (d.name.as_str(), summary(f))).collect();
        return ui::print_json(&json!({
            "steps": trained.steps,
            "best_step": trained.best_step,
            "finish": if trained.finish == Finish::EarlyStop { "early_stop" } else { "completed" },
            "tasks": figures,
            "seconds": seconds,
            "export": export.display().to_string(),
        }));
    }
    for (d, f) in data.iter().zip(&trained.figures) {
        ui.say(words(&d.name, f));
    }
    let report = args.out.join("report.md");
    ui.say(format_args!(
        "{} {} in {seconds:.0} s; tables are in {}",
        ui.err(Style::Green, "trained"),
        export.display(),
        report.display()
    ));
    Ok(())
}

/// Figures without errors and with them.
fn summary(figures: &[TaskFigures; 2]) -> Value {
    let [clean, typos] = figures.each_ref().map(|f| {
        json!({ "intent": f.accuracy(), "slots_f1": f.slot_counts().f1(), "all_right": f.all_right(), "auroc": f.auroc })
    });
    json!({ "clean": clean, "typos": typos })
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    Ok(files::write(path, text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_called_after_their_files() {
        let paths: Vec<PathBuf> =
            ["x/home.jsonl", "music=a b.jsonl", "music=c.jsonl"].iter().map(PathBuf::from).collect();
        let all = tasks(&paths).unwrap();
        assert_eq!(all.iter().map(|t| (t.0.as_str(), t.1.len())).collect::<Vec<_>>(), [("home", 1), ("music", 2)]);
        for bad in ["x/青空.jsonl", "a b.jsonl", "=x", ""] {
            assert!(tasks(&[PathBuf::from(bad)]).is_err(), "{bad}");
        }
    }
}
