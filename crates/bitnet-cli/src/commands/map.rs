//! `bitnet map`: a model over a table, row by row.

mod format;
mod read;
mod same;
mod task;
mod work;
mod write;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrow_array::{Array, RecordBatch};
use bitnet_arrow::{MapError, MapOptions, Mapper, OnError, Watch};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use indicatif::ProgressBar;
use loader::files;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::interrupt::Graceful;
use crate::source::LoadArgs;
use crate::ui::{self, Style, Ui};
use crate::{process, progress};
use format::{Format, is_stream};
use read::{Place, Source, Table};
use task::{TaskArgs, TaskName};
use work::Work;

const AFTER_HELP: &str = "\
Reads a table with a column of texts and writes it with the answers of a model in new columns:
  extract   intent, probability, out_of_scope, slots, cut
  embed     embedding
  choose    choice, probability
  score     logprob, tokens
  generate  generated, finish_reason
and with --on-error null the column error: why a row has no answer. A row without a text stays null.

Rows are kept in the folder OUT.map until the table is complete. After a kill or a Ctrl-C the same command with --resume \
continues there. Answers do not depend on --batch, --together and --threads. Columns of CSV files are texts.

Examples:
  bitnet map mails.csv intents.parquet --task extract -m home.gguf --column body
  bitnet map notes.parquet vectors.parquet --task embed -m bitnet-embedding-0.6b.gguf
  bitnet map reviews.jsonl moods.jsonl --task choose --prompt \"{text} I was\" --choices \" happy\" \" sad\"
  bitnet map reviews.jsonl facts.jsonl --task generate -m model.gguf --chat --schema facts.json --resume
  cat texts.jsonl | bitnet map - - --task score -m model.gguf --prompt \"A review: {text}\" > scores.jsonl";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct MapArgs {
    /// Table to read: .jsonl, .csv, .tsv or .parquet; - is stdin
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Table to write; - is stdout
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// The question that is answered for each row
    #[arg(long, value_name = "TASK", value_parser = TaskName::parser())]
    task: TaskName,
    /// Column of the texts
    #[arg(long, value_name = "NAME", default_value = "text")]
    column: String,
    /// Put this before the names of new columns
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    prefix: String,
    /// The effect of a row that fails
    #[arg(long, value_name = "WHAT", value_parser = on_error(), default_value = "null")]
    on_error: OnErrorArg,
    /// Continue where the same command was ended; begin if it never ran
    #[arg(long)]
    resume: bool,
    /// Replace OUT if it exists, and forget the rows of an earlier run
    #[arg(short, long)]
    force: bool,
    /// One JSON object on stdout at the end
    #[arg(long)]
    json: bool,
    /// Format of IN [default: by its ending]
    #[arg(long, value_name = "FORMAT", value_parser = Format::parser(), help_heading = "Table")]
    input_format: Option<Format>,
    /// Format of OUT [default: by its ending]
    #[arg(long, value_name = "FORMAT", value_parser = Format::parser(), help_heading = "Table")]
    output_format: Option<Format>,
    /// First rows of a JSONL table that tell the types of its columns
    #[arg(long, value_name = "N", default_value_t = 1000, help_heading = "Table", value_parser = at_least_one())]
    infer: u64,
    /// Rows that are read and written at a time [default: 1024, with language models 128]
    #[arg(long, value_name = "N", help_heading = "Table", value_parser = at_least_one())]
    batch: Option<u64>,
    /// Most seconds of work that a kill may cost, besides a batch
    #[arg(long, value_name = "SECONDS", default_value_t = 1, help_heading = "Table")]
    sync_every: u64,
    /// Rows that go through a language model together at most
    #[arg(long, value_name = "N", default_value_t = 16, help_heading = "Computing", value_parser = at_least_one())]
    together: u64,
    #[command(flatten)]
    of_task: TaskArgs,
    #[command(flatten)]
    load: LoadArgs,
}

/// [`OnError`], as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OnErrorArg(OnError);

impl OnErrorArg {
    fn name(self) -> &'static str {
        if self.0 == OnError::Stop { "stop" } else { "null" }
    }
}

fn on_error() -> impl TypedValueParser<Value = OnErrorArg> {
    let names = [
        PossibleValue::new("null").help("Its new columns are null, and the column `error` has the reason"),
        PossibleValue::new("stop").help("The command ends there; there is no column `error`"),
    ];
    PossibleValuesParser::new(names).map(|name| OnErrorArg(if name == "stop" { OnError::Stop } else { OnError::Null }))
}

fn at_least_one() -> impl TypedValueParser<Value = u64> {
    clap::value_parser!(u64).range(1..=1 << 24)
}

/// Rows of a batch for extractors, and for language models.
const ROWS: (usize, usize) = (1024, 128);

pub(crate) fn execute(args: &MapArgs, ui: &Ui) -> Result<(), CliError> {
    let began = Instant::now();
    args.of_task.check(args.task)?;
    let from = Format::of(&args.input, args.input_format, "--input-format")?;
    let to = Format::of(&args.output, args.output_format, "--output-format")?;
    check_files(args)?;
    let path = task::locate(args, ui)?;
    let is_extractor = args.task == TaskName::Extract || path.as_deref().is_some_and(loader::extractor::is_extractor);
    let default = if is_extractor { ROWS.0 } else { ROWS.1 };
    let source = Source {
        path: &args.input,
        format: from,
        column: &args.column,
        rows: count(args.batch).unwrap_or(default),
        infer: count(Some(args.infer)).unwrap_or(usize::MAX),
    };
    // The table is looked at before a large model is loaded.
    let table = source.open(Place::default())?;
    let schema = table.schema();
    if schema.column_with_name(&args.column).is_none() {
        let have = schema.fields().iter().map(|field| field.name().clone()).collect();
        return Err(MapError::NoColumn { column: args.column.clone(), have }.into());
    }
    let model = task::load(args, path.as_deref(), ui)?;
    let task = args.of_task.task(args.task, &model)?;
    let options = MapOptions::default()
        .column(&args.column)
        .prefix(&args.prefix)
        .on_error(args.on_error.0)
        .together(count(Some(args.together)).unwrap_or(1))
        .threads(args.load.engine.threads.map_or(0, usize::from));
    let mapper = Mapper::new(model, task, options)?;
    let output = mapper.output_schema(&schema)?;
    let head = write::head(&output, to)?;
    let run = Run { args, ui, mapper: &mapper, to, began, graceful: Graceful::begin() };
    if is_stream(&args.output) {
        return run.to_stdout(table, &head);
    }
    let resumable = !is_stream(&args.input);
    let of = match resumable {
        true => same::identity(args, (from, to), &args.of_task.identity(args.task), path.as_deref())?,
        false => Value::Null,
    };
    let mut work = Work::open(&args.output, of, &head, (args.resume, args.force, resumable))?;
    let before = work.journal.place.rows;
    if !work.journal.finished {
        let table = if before == 0 { table } else { source.open(work.journal.place)? };
        if let Err(error) = run.to_file(table, &mut work) {
            // There is nothing to continue with.
            if !resumable || work.journal.place.rows == 0 {
                work.remove();
            }
            return Err(error);
        }
    }
    match to {
        _ if work.is_done(&args.output) => {}
        Format::Parquet => {
            let rows = work.rows_path();
            write::to_parquet(&rows, output.clone(), &args.output, || !run.graceful.cancelled())?;
        }
        _ => work.rename_to(&args.output)?,
    }
    let journal = work.journal.clone();
    work.remove();
    run.report(&journal, before, &output)
}

/// A number of rows.
fn count(n: Option<u64>) -> Option<usize> {
    n.and_then(|n| usize::try_from(n).ok())
}

/// Checks that the files are not in each other's way.
fn check_files(args: &MapArgs) -> Result<(), CliError> {
    let stdout = is_stream(&args.output);
    if args.resume && (stdout || is_stream(&args.input)) {
        return Err(CliError::usage("--resume needs files: a stream cannot be read or written again"));
    }
    if stdout {
        return match args.json {
            true => Err(CliError::usage("--json: stdout has the rows already; name a file as OUT")),
            false => Ok(()),
        };
    }
    let exists = files::replaceable(&args.output)?;
    if is_stream(&args.input) {
        return if exists { refuse_to_replace(args) } else { Ok(()) };
    }
    files::regular(&args.input, "a table")?;
    if same::is_one_file(&args.input, &args.output) {
        let problem = format!("IN and OUT are one file, {}; give OUT another name", args.output.display());
        return Err(CliError::usage(problem));
    }
    // An earlier run may have been ended right after it gave OUT its name.
    let goes_on = args.resume && work::is_begun(&args.output);
    if exists && !goes_on { refuse_to_replace(args) } else { Ok(()) }
}

fn refuse_to_replace(args: &MapArgs) -> Result<(), CliError> {
    match args.force {
        true => Ok(()),
        false => Err(CliError::usage(format!("{} exists already; --force replaces it", args.output.display()))),
    }
}

/// A run over a table.
struct Run<'a> {
    args: &'a MapArgs,
    ui: &'a Ui,
    mapper: &'a Mapper,
    to: Format,
    began: Instant,
    graceful: Graceful,
}

/// The new rows of a batch.
struct Answered {
    bytes: Vec<u8>,
    failed: u64,
    nulls: u64,
}

impl Run<'_> {
    /// The bar, at the place of the table.
    fn bar(&self, table: &dyn Table) -> ProgressBar {
        let way = table.way();
        let bar = progress::of_rows(self.ui, way.total);
        bar.set_position(way.done);
        bar.reset_eta();
        bar
    }

    /// The rows of `batch` with their answers.
    fn answer(&self, table: &dyn Table, batch: &RecordBatch, bar: &ProgressBar) -> Result<Answered, CliError> {
        let (way, rows) = (table.way(), batch.num_rows() as u64);
        let begin = bar.position();
        let before = table.place().rows - rows;
        let watch = Watch::default().cancel(self.graceful.token()).progress(|done| {
            bar.set_message(ui::count(before + done as u64));
            bar.set_position(begin + way.done.saturating_sub(begin) * done as u64 / rows.max(1));
        });
        let answers = self.mapper.map_with(batch, watch).map_err(|error| match error {
            MapError::Row { row, source } => {
                CliError::Row { path: self.args.input.clone(), row: table.name_of(row), source }
            }
            MapError::Cancelled => CliError::Interrupted,
            error => error.into(),
        })?;
        let valid = |name: &str| {
            let column = answers.column_by_name(name);
            column.map_or(0, |column| column.len() - column.logical_null_count()) as u64
        };
        let failed = match self.args.on_error.0 {
            OnError::Null => valid(&format!("{}error", self.args.prefix)),
            _ => 0,
        };
        let nulls = rows - valid(&self.args.column);
        Ok(Answered { bytes: write::rows(&answers, self.to)?, failed, nulls })
    }

    fn to_stdout(&self, mut table: Box<dyn Table>, head: &[u8]) -> Result<(), CliError> {
        let mut stdout = std::io::stdout().lock();
        let failed = || CliError::io("write", "stdout");
        stdout.write_all(head).map_err(failed())?;
        let bar = self.bar(table.as_ref());
        while let Some(batch) = table.next_batch()? {
            let answered = self.answer(table.as_ref(), &batch, &bar)?;
            bar.suspend(|| stdout.write_all(&answered.bytes).and_then(|()| stdout.flush())).map_err(failed())?;
        }
        bar.finish_and_clear();
        stdout.flush().map_err(failed())
    }

    fn to_file(&self, mut table: Box<dyn Table>, work: &mut Work) -> Result<(), CliError> {
        let bar = self.bar(table.as_ref());
        let ended = self.all_rows(table.as_mut(), work, &bar);
        bar.finish_and_clear();
        // Rows that were answered before are kept, whatever ended the run.
        if ended.is_err() {
            work.commit()?;
            let rows = work.journal.place.rows;
            if rows > 0 && !is_stream(&self.args.input) {
                self.ui.note(&format!("{rows} rows are kept; --resume continues after them"));
            }
        }
        ended
    }

    fn all_rows(&self, table: &mut dyn Table, work: &mut Work, bar: &ProgressBar) -> Result<(), CliError> {
        let every = Duration::from_secs(self.args.sync_every);
        while let Some(batch) = table.next_batch()? {
            let answered = self.answer(table, &batch, bar)?;
            work.append(&answered.bytes)?;
            work.journal.place = table.place();
            work.journal.failed += answered.failed;
            work.journal.nulls += answered.nulls;
            if work.since_commit() >= every {
                work.commit()?;
            }
        }
        work.journal.finished = true;
        work.commit()
    }

    fn report(&self, journal: &work::Journal, before: u64, schema: &arrow_schema::Schema) -> Result<(), CliError> {
        let (rows, seconds) = (journal.place.rows, self.began.elapsed().as_secs_f64());
        let rate = (rows - before) as f64 / seconds.max(1e-9);
        let shown = |path: &Path| path.display().to_string();
        if self.args.json {
            return ui::print_json(&json!({
                "input": shown(&self.args.input),
                "output": shown(&self.args.output),
                "format": self.to.name(),
                "task": self.mapper.task(),
                "rows": rows,
                "resumed_rows": before,
                "failed": journal.failed,
                "nulls": journal.nulls,
                "columns": schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(),
                "seconds": seconds,
                "rows_per_second": rate,
                "peak_rss_mib": process::status_mib("VmHWM"),
            }));
        }
        let resumed = if before > 0 { format!(" ({before} from before)") } else { String::new() };
        let mut notes = String::new();
        for (n, what) in [(journal.failed, "failed"), (journal.nulls, "without a text")] {
            if n > 0 {
                notes.push_str(&format!(", {n} {what}"));
            }
        }
        let verb = self.ui.out(Style::Green, "wrote");
        let output = shown(&self.args.output);
        ui::print_line(format_args!(
            "{verb} {output}: {rows} rows{resumed}{notes}, {seconds:.1} s, {} rows/s",
            ui::rate(rate)
        ))
    }
}
