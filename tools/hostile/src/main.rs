//! `cargo xtask hostile`: inputs that could end the process, hold it or fill its memory, against everything that reads
//! them.
//!
//! Each kind of input has generators. Their sizes are doubled until the library refuses the input; every step before
//! must work, and every step must stay within a stated time and memory. Each generator runs in a separate process, on a
//! thread with 256 KB of stack, so that a crash is a row of the report and does not end it. The files of a folder of
//! hostile inputs are read the same way, then through the command and the server, where another client measures how
//! long it has to wait.

#![forbid(unsafe_code)]

mod commands;
mod error;
mod kinds;
mod probe;
mod report;
mod served;
mod soak;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use error::HostileError;
use report::Report;

#[derive(Parser)]
#[command(name = "cargo xtask hostile", about = "Hostile inputs against the library, the command and the server")]
struct Cli {
    /// The `bitnet` program.
    #[arg(long, default_value = "target/debug/bitnet")]
    program: PathBuf,
    /// A folder of hostile inputs made elsewhere; skipped where absent.
    #[arg(long, default_value = "../shared/hostile")]
    inputs: PathBuf,
    /// Only what is run against this; by default all three, one after the other.
    #[arg(long)]
    against: Option<Against>,
    /// Only rows whose name contains this text.
    #[arg(long, default_value = "")]
    filter: String,
    /// Instead: a server under mixed hostile and ordinary load for so many seconds.
    #[arg(long, value_name = "SECONDS")]
    soak: Option<u64>,
    #[command(subcommand)]
    command: Option<Probe>,
}

/// The reader of the inputs.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Against {
    /// The library, in processes of its own.
    Library,
    /// The command.
    Command,
    /// The server.
    Server,
}

#[derive(Subcommand)]
enum Probe {
    /// Runs one generator, or one file, in this process.
    #[command(hide = true)]
    Probe {
        /// The kind of input.
        kind: String,
        /// The generator, or a file.
        variant: String,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Probe::Probe { kind, variant }) = &cli.command {
        return match probe::run(kind, variant) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        };
    }
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&error),
    }
}

fn failed(error: &HostileError) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

fn run(cli: &Cli) -> Result<bool, HostileError> {
    let program = std::fs::canonicalize(&cli.program).map_err(HostileError::io("find", &cli.program))?;
    if let Some(seconds) = cli.soak {
        return soak::run(&program, &cli.inputs, Duration::from_secs(seconds));
    }
    let mut report = Report::new(&cli.filter);
    for against in Against::value_variants().iter().filter(|a| cli.against.is_none_or(|only| only == **a)) {
        match against {
            Against::Library => probe::all(&mut report, &cli.inputs)?,
            Against::Command => commands::all(&mut report, &program, &cli.inputs)?,
            Against::Server => served::all(&mut report, &program, &cli.inputs)?,
        }
    }
    Ok(report.finish())
}
