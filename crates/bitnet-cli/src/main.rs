//! The `bitnet` command: run, chat with, convert, inspect and measure ternary language models.
//!
//! `commands/` has the list of commands and one file per command; it uses the other modules, and none of these uses it.
//! `args` and `choices` are shared options, `model_spec` is what `--model` accepts, `source` loads it, `ui` and
//! `progress` are the visible output, `interrupt` is Ctrl-C. Text and JSON go to stdout, everything else to stderr.

#![forbid(unsafe_code)]

mod args;
mod choices;
mod commands;
mod energy;
mod error;
mod explain;
mod hub;
mod interrupt;
mod known_files;
mod model_spec;
mod names;
mod parse;
mod process;
mod progress;
#[cfg(feature = "map")]
mod quiet;
mod source;
#[cfg(test)]
mod tables;
mod ui;

use std::process::ExitCode;

use ui::Ui;

fn main() -> ExitCode {
    let cli = parse::arguments();
    let ui = Ui::new(cli.common.quiet);
    init_logging(cli.common.verbose, &ui);
    interrupt::install();
    match commands::dispatch(cli.command, &ui) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ui.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Log lines go to stderr: those of `BITNET_LOG`, or warnings, and more with each `-v`.
fn init_logging(verbose: u8, ui: &Ui) {
    use tracing_subscriber::EnvFilter;
    let level = ["warn", "info", "debug", "trace"][usize::from(verbose.min(3))];
    let ours = format!("{level},bitnet={level}");
    let filter = match std::env::var("BITNET_LOG") {
        Ok(spec) if verbose == 0 && !spec.is_empty() => EnvFilter::try_new(&spec).unwrap_or_else(|error| {
            ui.note(&format!("ignoring invalid BITNET_LOG={spec}: {error}"));
            EnvFilter::new(&ours)
        }),
        _ => EnvFilter::new(&ours),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ui.colours_on_stderr())
        .without_time()
        .init();
}
