//! The list of commands, and their dispatch; one file per command.

pub(crate) mod bandwidth;
pub(crate) mod bench;
pub(crate) mod beside;
pub(crate) mod chat;
pub(crate) mod convert;
pub(crate) mod doctor;
pub(crate) mod embed;
pub(crate) mod eval;
pub(crate) mod extract;
pub(crate) mod list;
pub(crate) mod logits;
#[cfg(feature = "map")]
pub(crate) mod map;
pub(crate) mod pages;
pub(crate) mod plan;
pub(crate) mod ppl;
pub(crate) mod pull;
pub(crate) mod run;
#[cfg(feature = "serve")]
pub(crate) mod serve;
pub(crate) mod show;
pub(crate) mod tokenize;
#[cfg(feature = "train")]
pub(crate) mod train;
pub(crate) mod tune;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::error::CliError;
use crate::ui::Ui;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const AFTER_HELP: &str = "\
Examples:
  bitnet run \"Once upon a time\"                   the built-in model
  bitnet run -m model.gguf \"Once upon a time\"     a GGUF file
  bitnet chat -m hf:microsoft/bitnet-b1.58-2B-4T  from the Hugging Face hub
  bitnet serve -m model.gguf                      an OpenAI-compatible server on port 8080
  bitnet show model.gguf                          the contents of a file and the memory it needs
  bitnet bench -m synthetic:2b4t                  how fast a 2B model runs on this machine
  bitnet doctor                                   check that this machine computes correctly

Models (--model, or the environment variable BITNET_MODEL):
  FILE.gguf             a GGUF file
  FOLDER                a Hugging Face folder: config.json, *.safetensors, tokenizer.json
  2b4t, falcon3-1b ...  a known model of the Hugging Face hub; `bitnet list --known` shows all names
  hf:OWNER/REPO[:FILE]  a repository of the Hugging Face hub, downloaded once
  synthetic:2b4t        random weights in the shape of BitNet b1.58 2B4T, made once
  synthetic:2b4t-v2     in the shape of BitNet v2, with Hadamard transforms and 4-bit activations
  synthetic:NAME        other shapes: bonsai-1.7b, bonsai-4b, bonsai-8b, bitnet-embedding-0.6b
  synthetic:FILE.json   random weights in the shape that a config.json gives

Exit codes:
  0 success, 1 failure, 2 usage error, 130 interrupted, 141 output closed by its reader

Environment:
  BITNET_MODEL    model to use without --model
  BITNET_ISA      instruction set to use without --isa
  BITNET_LOG      log filter, for example debug
  NO_COLOR        no colours
  XDG_CACHE_HOME  folder for synthetic models and tunings
  HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE: as in Hugging Face's tools";

/// Run ternary (1.58-bit) language models locally.
#[derive(Debug, Parser)]
#[command(name = "bitnet", version, styles = STYLES, after_help = AFTER_HELP)]
#[command(arg_required_else_help = true, max_term_width = 110, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    /// Log to stderr; repeat for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Print only errors to stderr
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Generate text from a prompt
    Run(run::RunArgs),
    /// Chat with a model
    Chat(chat::ChatArgs),
    /// Run an OpenAI-compatible HTTP server
    #[cfg(feature = "serve")]
    Serve(Box<serve::ServeArgs>),
    /// Compute embedding vectors of texts
    Embed(embed::EmbedArgs),
    /// Name the intent and the slots of utterances with an extractor
    Extract(extract::ExtractArgs),
    /// Run a model over a table: JSONL, CSV or Parquet in, the same with new columns out
    #[cfg(feature = "map")]
    Map(Box<map::MapArgs>),
    /// Write the logits of given token ids to a safetensors file
    Logits(logits::LogitsArgs),
    /// Convert text to token ids, or ids to text
    Tokenize(tokenize::TokenizeArgs),
    /// Show the contents of a model and the memory it needs
    Show(show::ShowArgs),
    /// Convert a model to another format and verify the result
    #[command(visible_alias = "repack")]
    Convert(convert::ConvertArgs),
    /// Download a model from the Hugging Face hub
    Pull(pull::PullArgs),
    /// List the models on this disk, or with --known those that can be downloaded
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Remove models from this disk
    Rm(list::RmArgs),
    /// Estimate the memory and the speed of a model on this machine, without its weights
    Plan(plan::PlanArgs),
    /// Evaluate a model on multiple-choice questions
    Eval(eval::EvalArgs),
    /// Measure the perplexity of a text
    Ppl(ppl::PplArgs),
    /// Benchmark prefill and decode, with the share of the memory bandwidth reached
    Bench(bench::BenchArgs),
    /// Find the fastest kernels for a model on this machine and use them from then on
    Tune(tune::TuneArgs),
    /// Check this machine: instruction sets, correctness of all kernels, memory bandwidth
    Doctor(doctor::DoctorArgs),
    /// Train a ternary model on text
    #[cfg(feature = "train")]
    Train(Box<train::TrainArgs>),
    /// Print a completion script for a shell
    Completions(pages::CompletionsArgs),
    /// Print the manual page, or write all manual pages
    Man(pages::ManArgs),
    /// Measure and print the memory bandwidth
    #[command(name = "__bandwidth", hide = true)]
    Bandwidth(bandwidth::BandwidthArgs),
    /// Keep a CPU busy until stdin ends
    #[command(name = "__busy", hide = true)]
    Busy,
}

/// Runs a command.
///
/// # Errors
/// The errors of the command.
pub(crate) fn dispatch(command: Command, ui: &Ui) -> Result<(), CliError> {
    match command {
        Command::Run(args) => run::execute(&args, ui),
        Command::Chat(args) => chat::execute(&args, ui),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::execute(&args, ui),
        Command::Embed(args) => embed::execute(&args, ui),
        Command::Extract(args) => extract::execute(&args, ui),
        #[cfg(feature = "map")]
        Command::Map(args) => map::execute(&args, ui),
        Command::Logits(args) => logits::execute(&args, ui),
        Command::Tokenize(args) => tokenize::execute(&args, ui),
        Command::Show(args) => show::execute(&args, ui),
        Command::Convert(args) => convert::execute(&args, ui),
        Command::Pull(args) => pull::execute(&args, ui),
        Command::List(args) => list::list(&args, ui),
        Command::Rm(args) => list::rm(&args, ui),
        Command::Plan(args) => plan::execute(&args, ui),
        Command::Eval(args) => eval::execute(&args, ui),
        Command::Completions(args) => pages::completions(&args, &mut Cli::command()),
        Command::Man(args) => pages::man(&args, Cli::command()),
        Command::Ppl(args) => ppl::execute(&args, ui),
        Command::Bench(args) => bench::execute(&args, ui),
        Command::Tune(args) => tune::execute(&args, ui),
        Command::Doctor(args) => doctor::execute(&args, ui),
        #[cfg(feature = "train")]
        Command::Train(args) => train::execute(&args, ui),
        Command::Bandwidth(args) => bandwidth::execute(&args),
        Command::Busy => beside::execute(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_are_consistent() {
        Cli::command().debug_assert();
    }
}
