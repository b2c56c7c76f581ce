//! `cargo xtask parity`: the comparison as a command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use parity::{Options, Report, Sabotage, Verdict};

#[derive(Parser)]
#[command(name = "cargo xtask parity", about = "Compare with reference vectors that independent software made")]
struct Cli {
    /// Folder with the vectors, laid out as in docs/testing.md.
    #[arg(long)]
    fixtures: PathBuf,
    /// Damage every model first (flip-trit, scale, rope, inner-rate, token-index or hadamard); then this command has to
    /// fail.
    #[arg(long)]
    sabotage: Option<String>,
    /// Only cases whose name contains this text.
    #[arg(long)]
    filter: Option<String>,
    /// Folder with large tokenizers; by default `tokenizer` next to the fixtures.
    #[arg(long)]
    tokenizers: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let sabotage = match cli.sabotage.as_deref().map(|name| (name, Sabotage::from_name(name))) {
        Some((name, None)) => {
            eprintln!("error: --sabotage {name}: it is one of {}", Sabotage::NAMES);
            return ExitCode::FAILURE;
        }
        Some((_, sabotage)) => sabotage,
        None => None,
    };
    let mut options = Options::default();
    (options.sabotage, options.filter, options.tokenizers) = (sabotage, cli.filter, cli.tokenizers);
    let mut report = Report::printing();
    if let Err(e) = parity::run(&cli.fixtures, &options, &mut report) {
        eprintln!("error: {e}");
        return ExitCode::FAILURE;
    }
    let [ok, fail, later] = [Verdict::Ok, Verdict::Fail, Verdict::Unsupported].map(|v| report.count(v));
    println!("\nparity with {}: {ok} ok, {fail} FAIL, {later} not supported yet", cli.fixtures.display());
    if ok + fail == 0 {
        eprintln!("error: nothing was compared; is {} a folder of fixtures?", cli.fixtures.display());
    }
    if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
