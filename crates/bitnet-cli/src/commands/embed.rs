//! `bitnet embed`: texts as vectors.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use bitnet::{EmbedOptions, Extractor, KvType, Pooling};
use clap::Args;
use loader::extractor;
use loader::files::{self, Kind};
use serde_json::json;

use crate::choices;
use crate::error::CliError;
use crate::model_spec::ModelSpec;
use crate::source::{LoadArgs, Loaded};
use crate::ui::{self, Ui};

const AFTER_HELP: &str = "\
Prints one line of numbers per text, or one JSON object. Embedding models are trained for comparing texts; their \
files define the pooling, and their model cards the prefix of a query. The vectors of language models are less \
useful; those of an extractor tell apart what it was trained to tell apart.

Examples:
  bitnet embed -m model.gguf \"a cat\" \"a kitten\" \"a train\"
  bitnet embed -m bitnet-embedding-0.6b.gguf --prefix \"query: \" \"What is BitNet?\"
  bitnet embed -m model.gguf --file lines.txt --json > vectors.json
  cut -f2 notes.tsv | bitnet embed -m model.gguf > vectors.txt";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct EmbedArgs {
    /// Texts to embed
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    texts: Vec<String>,
    /// File with one text per line; empty lines are skipped [default without TEXT: stdin]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Pooling of the token states [default: according to the model's file, else mean]
    #[arg(long, value_name = "HOW", value_parser = choices::pooling())]
    pooling: Option<Pooling>,
    /// Text to add before each input, for example the instruction that a model expects before a query
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    prefix: String,
    /// Do not scale the vectors to length 1
    #[arg(long)]
    no_normalize: bool,
    /// One JSON object on stdout: dimensions, pooling, embeddings
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: LoadArgs,
}

/// Standard input, unless it is a terminal.
fn stdin() -> Result<String, CliError> {
    let stdin = std::io::stdin().lock();
    let none = || CliError::usage("no text given: pass texts as arguments, with --file, or one a line on stdin");
    if stdin.is_terminal() {
        return Err(none());
    }
    let name = Path::new("stdin");
    let text = files::text(files::read_stream(stdin, name, Kind::TEXT)?, name)?;
    if text.trim().is_empty() { Err(none()) } else { Ok(text) }
}

#[cfg(test)]
impl EmbedArgs {
    pub(crate) fn texts(&self) -> &[String] {
        &self.texts
    }
}

pub(crate) fn execute(args: &EmbedArgs, ui: &Ui) -> Result<(), CliError> {
    let lines = |text: String| text.lines().filter(|l| !l.trim().is_empty()).map(str::to_owned).collect();
    let texts: Vec<String> = match &args.file {
        None if args.texts.is_empty() => lines(stdin()?),
        None => args.texts.clone(),
        Some(file) => lines(files::read_text(file, Kind::TEXT)?),
    };
    if let Some(ModelSpec::Path(path)) = args.load.model.model.as_ref()
        && extractor::is_extractor(path)
    {
        return of_extractor(args, path, &texts);
    }
    let Loaded { model, .. } = args.load.request(KvType::F16).load(ui)?;
    let pooling = args.pooling.unwrap_or(model.pooling());
    if let Some(named) = model.config().pooling.filter(|named| *named != pooling) {
        ui.note(&format!("the model's file asks for {} pooling; using {} instead", named.name(), pooling.name()));
    }
    let options = EmbedOptions::default().pooling(pooling).normalize(!args.no_normalize);
    let vectors = model.embed(texts.iter().map(|text| format!("{}{text}", args.prefix)), options)?;
    print(args, model.config().hidden_size, pooling.name(), &vectors)
}

/// Vectors of an extractor, which have one pooling and length 1.
fn of_extractor(args: &EmbedArgs, path: &Path, texts: &[String]) -> Result<(), CliError> {
    let other = [("--pooling", args.pooling.is_some()), ("--no-normalize", args.no_normalize)];
    if let Some((option, _)) = other.iter().find(|(_, given)| *given) {
        return Err(CliError::usage(format!("{option}: vectors of an extractor have one pooling and length 1")));
    }
    let extractor = Extractor::load(path)?;
    let each = texts.iter().map(|text| extractor.embed(&format!("{}{text}", args.prefix)));
    let vectors = each.collect::<Result<Vec<_>, _>>()?;
    print(args, 3 * extractor.config().hidden_size, "extractor", &vectors)
}

fn print(args: &EmbedArgs, dimensions: usize, pooling: &str, vectors: &[Vec<f32>]) -> Result<(), CliError> {
    if args.json {
        return ui::print_json(&json!({ "dimensions": dimensions, "pooling": pooling, "embeddings": vectors }));
    }
    for vector in vectors {
        let numbers: Vec<String> = vector.iter().map(f32::to_string).collect();
        ui::print_line(numbers.join(" "))?;
    }
    Ok(())
}
