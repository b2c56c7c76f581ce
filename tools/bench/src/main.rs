//! `cargo xtask bench`: how fast this is, compared with the limits of the machine and with the alternatives of a Rust
//! user.
//!
//! `docs/bench/README.md` explains the results.

mod answer;
mod baseline;
mod candle;
mod compare;
mod energy;
mod error;
mod families;
mod figure;
mod guard;
mod kernels;
mod limits;
mod machine;
mod model;
mod plan;
mod plots;
mod programs;
mod report;
mod run;
mod runs;
mod ttt;
mod v2;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::candle::Kind;

#[derive(Parser)]
#[command(
    name = "cargo xtask bench",
    about = "Measure speed, memory and energy, and write the report",
    max_term_width = 100
)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    other: Option<Command>,
    #[command(flatten)]
    run: run::Options,
    /// Only check ratios that no change may make worse; continuous integration runs this.
    #[arg(long, conflicts_with_all = ["quick", "only", "compare", "report", "resume"])]
    guard: bool,
    /// With --guard: damage the named part on purpose; the command then has to fail.
    #[arg(long, requires = "guard", value_name = "PART")]
    sabotage: Option<guard::Sabotage>,
}

/// Other commands: training runs, and the hidden ones that a measurement consists of.
#[derive(Subcommand)]
enum Command {
    /// Show training runs side by side: a table of their losses, and curves
    Runs {
        /// Runs with the names to show, the others are compared with the first
        #[arg(required = true, value_name = "NAME=FOLDER")]
        runs: Vec<runs::Named>,
        /// Where to draw the curves
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
    /// Runs a program between two measurements of the limits.
    #[command(name = "__bracket", hide = true)]
    Bracket {
        #[arg(long)]
        threads: NonZeroUsize,
        #[arg(long)]
        no_bandwidth: bool,
        #[arg(last = true)]
        argv: Vec<String>,
    },
    /// Measures the cost of Hadamard transforms.
    #[command(name = "__hadamard", hide = true)]
    Hadamard {
        #[arg(long)]
        isa: String,
        #[arg(long)]
        threads: NonZeroUsize,
    },
    /// Measures a model of candle-transformers.
    #[command(name = "__candle", hide = true)]
    Candle {
        #[arg(long)]
        kind: Kind,
        #[arg(long)]
        layers: Vec<usize>,
        #[arg(long)]
        prompt: usize,
        #[arg(long)]
        steps: usize,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.other {
        Some(Command::Bracket { threads, no_bandwidth, argv }) => limits::bracket(threads, !no_bandwidth, &argv),
        Some(Command::Candle { kind, layers, prompt, steps }) => candle::measure(kind, &layers, prompt, steps),
        Some(Command::Hadamard { isa, threads }) => v2::measure_hadamard(&isa, threads),
        Some(Command::Runs { runs, svg }) => runs::compare(&runs, svg.as_deref()),
        None if cli.guard => guard::run(cli.sabotage),
        None => run::run(&cli.run),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
