//! `bitnet embed`: texts as vectors.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use bitnet::{EmbedOptions, Embedder, Error, Extractor, KvType, Pooling};
use clap::Args;
use loader::extractor;
use loader::files::{self, Kind};
use serde_json::json;

use crate::choices;
use crate::error::CliError;
use crate::model_spec::ModelSpec;
use crate::source::LoadArgs;
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
    let embedder: Embedder = match &args.load.model.model {
        Some(ModelSpec::Path(path)) if extractor::is_extractor(path) => Extractor::load(path)?.into(),
        _ => args.load.request(KvType::F16).load(ui)?.model.into(),
    };
    let pooling = args.pooling.or(embedder.pooling());
    let named = match &embedder {
        Embedder::Model(model) => model.config().pooling,
        Embedder::Extractor(_) => None,
    };
    if let (Some(named), Some(pooling)) = (named, pooling)
        && named != pooling
    {
        ui.note(&format!("the model's file asks for {} pooling; using {} instead", named.name(), pooling.name()));
    }
    let mut options = EmbedOptions::default().normalize(!args.no_normalize);
    options.pooling = pooling;
    let vectors = embedder.embed_all(texts.iter().map(|text| format!("{}{text}", args.prefix)), options);
    let vectors = vectors.map_err(|error| match error {
        Error::Pooling { .. } => CliError::usage(format!("--pooling: {error}")),
        error => error.into(),
    })?;
    print(args, embedder.dimensions(), pooling.map_or("extractor", Pooling::name), &vectors)
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
