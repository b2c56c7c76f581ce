//! `bitnet train --task extract`: an extractor from utterances.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bitnet::EncoderMixer;
use bitnet::train::Finish;
use bitnet::train::extract::{
    Beginning, ExtractCheckpoint, ExtractEvent, ExtractOptions, TaskData, TaskFigures, train_from,
};
use bitnet_model::encoder::Extractor;
use clap::Args;
use loader::extractor::{read, write_gguf, write_safetensors};
use loader::files::{self, FolderLock};
use serde_json::{Value, json};

use super::TrainArgs;
use crate::error::CliError;
use crate::interrupt::Graceful;
use crate::progress;
use crate::ui::{self, Style, Ui};

mod pictures;

use pictures::History;

/// Share of the utterances that is kept for choices where nothing else is said.
const VAL_SHARE: f64 = 0.1;

/// Time between checkpoints at least.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// Options of extractors only.
#[derive(Debug, Args)]
#[command(next_help_heading = "Extractors (--task extract)")]
pub(super) struct ExtractArgs {
    /// Passes over the utterances, each time in another version [default: 30, and 2000 steps at least]
    #[arg(long, value_name = "N")]
    passes: Option<u64>,
    /// End after this time at the latest, as 40m, 90s or 2h; the learning rate falls accordingly
    #[arg(long, value_name = "TIME", value_parser = parse_time, help_heading = "Training")]
    pub(super) time: Option<Duration>,
    /// Rows of the table of features [default: 16384]
    #[arg(long, value_name = "N")]
    buckets: Option<usize>,
    /// Words on each side that a word makes pairs with, 0 to 2 [default: 1]
    #[arg(long, value_name = "N")]
    reach: Option<usize>,
    /// No runs of characters as features of words
    #[arg(long)]
    no_runs: bool,
    /// Share of utterances with typing errors [default: 0.5]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    typos: Option<f64>,
    /// Share of utterances in which slots get other values [default: 0.5]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    exchange: Option<f64>,
    /// Halves of two utterances taken as out of scope, as a share of all; for tasks with utterances out of scope [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    mixtures: Option<f64>,
    /// Share of the words outside of slots that are left out [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    left_out: Option<f64>,
    /// Share of the words in whose place stands a sign that says nothing [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    masked: Option<f64>,
    /// Share of utterances without slots whose second half is that of another one of the same intent [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    crossed: Option<f64>,
    /// Of the utterances in scope, the share that shall still get its right intent with the threshold; without it the threshold
    /// balances that share with what is noticed as out of scope
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    in_scope: Option<f64>,
    /// How often an utterance out of scope is seen in a pass [default: 5]
    #[arg(long, value_name = "N")]
    outside_repeats: Option<usize>,
    /// Share of the features of a word that is left out [default: 0.1]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    feature_dropout: Option<f64>,
    /// Share of the inputs of the heads that is left out [default: 0.2]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    dropout: Option<f64>,
    /// Share of the elements of word vectors that is left out [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    word_dropout: Option<f64>,
    /// See each utterance in two versions side by side, with this weight of how much their intents differ [default: 0]
    #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
    agreement: Option<f64>,
    /// Export the average of the weights over many steps, of which this share stays in a step; 0 is off [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    average: Option<f64>,
    /// Extractor that teaches intents, one that was trained before; repeatable
    #[arg(long, value_name = "FILE")]
    teacher: Vec<PathBuf>,
    /// How much of what is right is what teachers say [default: 0.7]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    taught: Option<f64>,
    /// Weight decay of the rows of the table [default: 0]
    #[arg(long, value_name = "DECAY", allow_negative_numbers = true)]
    table_decay: Option<f64>,
    /// Probability that is spread over all intents [default: 0.05]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    smoothing: Option<f64>,
    /// Weight of the loss of slots relative to that of intents [default: 0.5]
    #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
    tag_weight: Option<f32>,
    /// How much faster rows of the table move [default: 2]
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
    table_lr: Option<f64>,
    /// Share of the run at its beginning without quantisation [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    float_share: Option<f64>,
}

impl ExtractArgs {
    /// The first of these options that was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        let all = [
            ("--passes", self.passes.is_some()),
            ("--buckets", self.buckets.is_some()),
            ("--reach", self.reach.is_some()),
            ("--no-runs", self.no_runs),
            ("--typos", self.typos.is_some()),
            ("--left-out", self.left_out.is_some()),
            ("--masked", self.masked.is_some()),
            ("--crossed", self.crossed.is_some()),
            ("--word-dropout", self.word_dropout.is_some()),
            ("--agreement", self.agreement.is_some()),
            ("--average", self.average.is_some()),
            ("--teacher", !self.teacher.is_empty()),
            ("--taught", self.taught.is_some()),
            ("--table-decay", self.table_decay.is_some()),
            ("--exchange", self.exchange.is_some()),
            ("--mixtures", self.mixtures.is_some()),
            ("--in-scope", self.in_scope.is_some()),
            ("--outside-repeats", self.outside_repeats.is_some()),
            ("--feature-dropout", self.feature_dropout.is_some()),
            ("--dropout", self.dropout.is_some()),
            ("--smoothing", self.smoothing.is_some()),
            ("--tag-weight", self.tag_weight.is_some()),
            ("--table-lr", self.table_lr.is_some()),
            ("--float-share", self.float_share.is_some()),
        ];
        all.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }
}

/// A time as a person writes it: `90s`, `40m`, `2h`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let units = [('s', 1.0), ('m', 60.0), ('h', 3600.0)];
    let seconds = units.iter().find_map(|(unit, factor)| Some(text.strip_suffix(*unit)?.parse::<f64>().ok()? * factor));
    let time = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).filter(|t| !t.is_zero());
    time.ok_or_else(|| "expected a time like 90s, 40m or 2h".to_owned())
}

/// The first option that was given and is about language models only.
fn foreign(args: &TrainArgs) -> Option<&'static str> {
    let (s, r) = (&args.shape, &args.run);
    let all = [
        ("--config", args.config.is_some()),
        ("--previous", args.previous),
        ("--from", args.from.is_some()),
        ("--tokenizer", args.tokenizer.is_some()),
        ("--train-tokenizer", args.train_tokenizer.is_some()),
        ("--sample", args.sample.is_some()),
        ("--kv-heads", s.kv_heads.is_some()),
        ("--head-dim", s.head_dim.is_some()),
        ("--family", s.family.is_some()),
        ("--group-size", s.group_size.is_some()),
        ("--vocab", s.vocab.is_some()),
        ("--hadamard", s.hadamard),
        ("--activations", s.activations.is_some()),
        ("--share-qk", s.share_qk),
        ("--gate", s.gate),
        ("--pre-conv", s.pre_conv),
        ("--mini-batch", s.mini_batch.is_some()),
        ("--base-lr", s.base_lr.is_some()),
        ("--accumulate", r.accumulate.is_some()),
        ("--grow-from", r.grow_from.is_some()),
        ("--optimizer", r.optimizer.is_some()),
        ("--muon-lr", r.muon_lr.is_some()),
        ("--schedule", r.schedule.is_some()),
        ("--ema", r.ema.is_some()),
        ("--context", r.context.is_some()),
        ("--lr2", r.lr2.is_some()),
        ("--inner-warmup", r.inner_warmup.is_some()),
        ("--validate-every", r.validate_every.is_some()),
        ("--checkpoint-every", r.checkpoint_every.is_some()),
    ];
    all.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
}

/// The mixers of the layers.
fn mixers(names: &[String]) -> Result<Vec<EncoderMixer>, CliError> {
    let of = |name: &String| {
        EncoderMixer::from_name(&name.replace('-', "_")).ok_or_else(|| {
            let problem = "an extractor's layers are attention, ttt-linear or gated-delta";
            CliError::usage(format!("--mixer {name}: {problem}"))
        })
    };
    names.iter().map(of).collect()
}

/// The options of the run.
fn options(args: &TrainArgs) -> Result<ExtractOptions, CliError> {
    fn set<T: Copy>(to: &mut T, from: Option<T>) {
        if let Some(v) = from {
            *to = v;
        }
    }
    let (s, r, e) = (&args.shape, &args.run, &args.extract);
    let mut o = ExtractOptions::default();
    let wide = |n: Option<u32>| n.map(|n| n as usize);
    set(&mut o.hidden, wide(s.hidden));
    o.ffn = wide(s.ffn).unwrap_or(o.hidden.saturating_mul(3));
    set(&mut o.layers, wide(s.layers));
    set(&mut o.heads, wide(s.heads));
    set(&mut o.buckets, e.buckets);
    set(&mut o.reach, e.reach);
    o.runs = !e.no_runs;
    set(&mut o.augmentation.left_out, e.left_out);
    set(&mut o.augmentation.masked, e.masked);
    set(&mut o.augmentation.crossed, e.crossed);
    o.in_scope = e.in_scope;
    set(&mut o.word_dropout, e.word_dropout);
    set(&mut o.agreement, e.agreement);
    set(&mut o.average, e.average);
    set(&mut o.taught, e.taught);
    set(&mut o.table_decay, e.table_decay);
    set(&mut o.passes, e.passes);
    (o.steps, o.time) = (r.steps, e.time);
    set(&mut o.batch, r.batch);
    set(&mut o.lr, r.lr);
    set(&mut o.threads, r.threads);
    set(&mut o.warmup, r.warmup);
    set(&mut o.weight_decay, r.weight_decay);
    set(&mut o.clip, r.clip);
    set(&mut o.seed, r.seed);
    set(&mut o.patience, r.patience);
    set(&mut o.augmentation.typos, e.typos);
    set(&mut o.augmentation.exchange, e.exchange);
    set(&mut o.augmentation.mixtures, e.mixtures);
    set(&mut o.augmentation.outside_repeats, e.outside_repeats);
    set(&mut o.augmentation.feature_dropout, e.feature_dropout);
    set(&mut o.dropout, e.dropout);
    set(&mut o.smoothing, e.smoothing);
    set(&mut o.tag_weight, e.tag_weight);
    set(&mut o.table_lr, e.table_lr);
    set(&mut o.float_share, e.float_share);
    o.mixers = mixers(&s.mixer)?;
    Ok(o)
}

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
        ui.note(&format!("{export} holds what was best until step {step}; --resume goes on from there"));
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
    fn times_are_read_as_people_write_them() {
        let seconds = |text| parse_time(text).map(|t| t.as_secs());
        assert_eq!([seconds("90s"), seconds("40m"), seconds("1.5h")], [Ok(90), Ok(2400), Ok(5400)]);
        for bad in ["", "40", "m", "-1m", "0s", "nans", "1e300h", "5d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

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
