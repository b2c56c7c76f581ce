//! `cargo xtask intent`: data, baseline, evaluation and latency of the use case; `docs/intent.md` has the results.

mod commands;
mod extract;
mod latency;
mod own;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask intent", about = "Utterances to JSON with small models", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write examples for `bitnet train`, a tokenizer, grammars and small test sets
    Prepare {
        /// Folder with snips/ and clinc150/, compressed or not
        #[arg(long)]
        data: PathBuf,
        /// Where to write
        #[arg(long)]
        out: PathBuf,
        /// How often each utterance is there in four versions, with other errors and values each time
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Tokens of the tokenizer
        #[arg(long, default_value_t = 2048)]
        vocab: usize,
        /// Seed of all random choices
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Training and test files for topics of questions in Japanese
    PrepareJa {
        /// Folder with aozora_works.tsv and databricks-dolly-15k-ja.jsonl, compressed or not
        #[arg(long)]
        data: PathBuf,
        /// Where to write
        #[arg(long)]
        out: PathBuf,
        /// Questions to learn from
        #[arg(long, default_value_t = 60_000)]
        questions: usize,
        /// Tokens of the tokenizer
        #[arg(long, default_value_t = 2048)]
        vocab: usize,
        /// Seed of all random choices
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Write utterances for `bitnet train --task extract`, and the official tests, clean and with typing errors
    PrepareExtract {
        /// Folder with snips/ and clinc150/, compressed or not
        #[arg(long)]
        data: PathBuf,
        /// Folder with aozora_works.tsv and databricks-dolly-15k-ja.jsonl: questions in Japanese as well
        #[arg(long)]
        ja: Option<PathBuf>,
        /// Where to write
        #[arg(long)]
        out: PathBuf,
        /// Questions in Japanese to learn from
        #[arg(long, default_value_t = 40_000)]
        questions: usize,
        /// Seed of all random choices
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Utterances for `bitnet train --task extract` out of a file of templates
    Templates {
        /// File of templates, such as tools/intent/workshop/workshop.txt
        #[arg(long)]
        from: PathBuf,
        /// Different utterances at most
        #[arg(long, default_value_t = 500)]
        count: usize,
        /// File of JSON lines to write
        #[arg(long)]
        out: PathBuf,
        /// Seed of all random choices
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Judge an extractor on utterances written by hand, and show what it gets wrong
    Judge {
        /// GGUF file or folder
        #[arg(long)]
        model: PathBuf,
        /// The task [default: the first of the file]
        #[arg(long)]
        task: Option<String>,
        /// Utterances in the form of templates, without choices
        #[arg(long)]
        test: PathBuf,
    },
    /// Judge an extractor on the official tests, clean and with typing errors
    EvalExtract {
        /// Folder with snips/ and clinc150/
        #[arg(long)]
        data: PathBuf,
        /// Folder with aozora_works.tsv and databricks-dolly-15k-ja.jsonl
        #[arg(long)]
        ja: Option<PathBuf>,
        /// GGUF file or folder
        #[arg(long)]
        model: PathBuf,
        /// Show this many wrong answers of each set
        #[arg(long, default_value_t = 0)]
        wrong: usize,
        /// Seed of all random choices
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Learn and judge linear classifiers of the same sets
    Baseline {
        /// Folder with snips/ and clinc150/
        #[arg(long)]
        data: PathBuf,
        /// Seed of all random choices
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Judge a model on the official tests, clean and with typing errors
    Eval {
        /// Folder with snips/ and clinc150/
        #[arg(long)]
        data: PathBuf,
        /// Only every Nth utterance
        #[arg(long, default_value_t = 1)]
        every: usize,
        #[command(flatten)]
        judged: commands::Judged,
    },
    /// Judge a model of topics in Japanese
    EvalJa {
        /// Folder with aozora_works.tsv and databricks-dolly-15k-ja.jsonl
        #[arg(long)]
        data: PathBuf,
        /// Questions of each test
        #[arg(long, default_value_t = 1000)]
        questions: usize,
        #[command(flatten)]
        judged: commands::Judged,
    },
    /// Measure how long calls take
    Latency {
        /// Folder with snips/ and clinc150/
        #[arg(long)]
        data: PathBuf,
        /// GGUF file or folder
        #[arg(long)]
        model: PathBuf,
        /// Threads of the model
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// Also ask a server of the same model, as http://127.0.0.1:8080/v1/completions
        #[arg(long)]
        url: Option<String>,
        /// Name of the model on the server
        #[arg(long, default_value = "intent")]
        served_as: String,
        /// The field in which the server takes a grammar; without it the server answers freely
        #[arg(long)]
        grammar_field: Option<String>,
        /// A new connection for each call
        #[arg(long)]
        reconnect: bool,
        /// Starts of a process that answers once
        #[arg(long, default_value_t = 20)]
        starts: usize,
        /// Calls of each task
        #[arg(long, default_value_t = 500)]
        calls: usize,
    },
    /// Answer once and end
    Answer {
        /// GGUF file or folder
        #[arg(long)]
        model: PathBuf,
        /// The utterance
        text: String,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Prepare { data, out, rounds, vocab, seed } => commands::prepare(&data, &out, rounds, vocab, seed),
        Command::PrepareJa { data, out, questions, vocab, seed } => {
            commands::prepare_ja(&data, &out, questions, vocab, seed)
        }
        Command::PrepareExtract { data, ja, out, questions, seed } => {
            extract::prepare(&data, ja.as_deref(), &out, questions, seed)
        }
        Command::EvalExtract { data, ja, model, wrong, seed } => {
            extract::eval(&data, ja.as_deref(), &model, wrong, seed)
        }
        Command::Templates { from, count, out, seed } => own::make(&from, count, &out, seed),
        Command::Judge { model, task, test } => own::judge(&model, task.as_deref(), &test),
        Command::Baseline { data, seed } => commands::baseline(&data, seed),
        Command::Eval { data, every, judged } => commands::eval(&data, &judged, every),
        Command::EvalJa { data, questions, judged } => commands::eval_ja(&data, &judged, questions),
        Command::Latency { data, model, threads, url, served_as, grammar_field, reconnect, starts, calls } => {
            let options = latency::Options {
                model: &model,
                threads,
                url: url.as_deref(),
                served_as: &served_as,
                grammar_field: grammar_field.as_deref(),
                reconnect,
                starts,
            };
            commands::latency(&data, &options, calls)
        }
        Command::Answer { model, text } => commands::answer(&model, &text),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
