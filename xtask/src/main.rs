//! Developer commands. The developer's command and the one that continuous integration runs are the same.
//!
//! | command | effect |
//! |---|---|
//! | `cargo xtask test` | every test that needs only a clone of the repository |
//! | `cargo xtask ci` | `test` first, then everything below and lints, docs, features, licences |
//! | `cargo xtask tidy` | rules of the repository that no compiler checks |
//! | `cargo xtask isas` | the tests of kernels and models on every instruction set, emulated ones included |
//! | `cargo xtask fuzz` | each fuzz target for some seconds |
//! | `cargo xtask parity` | comparison with reference vectors of independent software |
//! | `cargo xtask hostile` | hostile inputs against the library, the command and the server, with limits on time and memory |
//! | `cargo xtask bench` | speed, memory and energy of kernels and models, next to the machine's limits |
//! | `cargo xtask web` | the WebAssembly module, its npm package and the page, as a folder for any static server |
//! | `cargo xtask python` | the Python wheel; with `--test` its tests in a fresh environment |
//! | `cargo xtask c` | the library for C: header, libraries, files for pkg-config and CMake; with `--test` its tests in C, C++ and Go |
//! | `cargo xtask desktop` | the desktop program; with `--test` its tests in a window, with `--package` its packages |
//! | `cargo xtask intent` | utterances to JSON with small models: data, baseline, evaluation, latency |
//! | `cargo xtask tables` | writes the tables of docs/models.md, which a test compares, from those of the program |
//! | `cargo xtask page` | builds the page of the server into its crate; with `--check` checks and tests it |
//! | `cargo xtask synth` | weights of the shape of a real model, from a seed |

mod c;
mod ci;
mod desktop;
mod error;
mod foreign;
mod fuzz;
mod isas;
mod jobs;
mod page;
mod programs;
mod python;
mod shell;
mod test;
mod tidy;
mod web;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::XtaskError;
use crate::shell::Steps;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands of this workspace", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every test that needs only a clone of the repository.
    Test,
    /// Run `test`, then lints, docs, features, parity, instruction sets, licences and tidy.
    Ci {
        /// All tests of the kernels on every emulated ARM CPU, and ten minutes instead of ten seconds for every fuzz
        /// target.
        #[arg(long)]
        thorough: bool,
    },
    /// Check the rules of the repository that no compiler checks.
    Tidy,
    /// Run the tests of kernels and models on every instruction set.
    Isas {
        /// Only print the instruction sets that this CPU has, one line, worst first.
        #[arg(long)]
        list: bool,
    },
    /// Run each fuzz target for some seconds.
    Fuzz {
        /// Seconds for each target.
        #[arg(long, default_value_t = 10)]
        seconds: u32,
        /// Only this target.
        #[arg(long)]
        target: Option<String>,
    },
    /// Compare with reference vectors that independent software made; `cargo xtask parity --help` lists the options.
    #[command(disable_help_flag = true)]
    Parity {
        /// Arguments of the program `parity`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Hostile inputs against the library, the command and the server; `cargo xtask hostile --help` lists the options.
    #[command(disable_help_flag = true)]
    Hostile {
        /// Arguments of the program `hostile`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Measure speed, memory and energy and write docs/bench; `cargo xtask bench --help` lists the options.
    #[command(disable_help_flag = true)]
    Bench {
        /// Arguments of the program `bench`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Data, baseline, evaluation and latency of the use case of docs/intent.md; `cargo xtask intent --help` lists the
    /// commands.
    #[command(disable_help_flag = true)]
    Intent {
        /// Arguments of the program `intent`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build the WebAssembly module and its npm package.
    Web {
        /// Test them, too.
        #[arg(long)]
        test: bool,
    },
    /// Build the Python wheel; needs Python 3.10 with venv.
    Python {
        /// Test it, too: in a fresh environment, with the packages that it works with.
        #[arg(long)]
        test: bool,
    },
    /// Build the library for C: header, static and shared library, files for pkg-config and CMake.
    C {
        /// Test it instead: lints, and programs in C, C++ and Go, under the address sanitizer and valgrind, too.
        #[arg(long)]
        test: bool,
    },
    /// Build the desktop program; needs Node and the system's web view.
    Desktop {
        /// Test it instead: lints, unit tests, licences, and the program in a window.
        #[arg(long)]
        test: bool,
        /// Make packages of it: a `.deb` and a tarball.
        #[arg(long, conflicts_with = "test")]
        package: bool,
    },
    /// Write the tables of docs/models.md from those of the program: families, formats, known models.
    Tables,
    /// Build the page that the server embeds, from the folder `web`; needs Node.
    Page {
        /// Check its sources, that the embedded files are theirs, and use it in a browser.
        #[arg(long)]
        check: bool,
    },
    /// Make weights of the shape of BitNet b1.58 2B4T from a seed, once, and describe the file.
    Synth {
        /// Another shape: a config.json.
        #[arg(long)]
        config: Option<String>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Commands below name files relative to the workspace.
    let result = std::env::set_current_dir(shell::root()).map_err(XtaskError::io(shell::root())).and_then(|()| {
        match &cli.command {
            Command::Parity { args } => return programs::parity(args),
            Command::Bench { args } => return programs::bench(args),
            Command::Hostile { args } => return programs::hostile(args),
            Command::Intent { args } => return programs::intent(args),
            Command::Synth { config } => return programs::synth(config.as_deref()),
            Command::Isas { list: true } => return isas::print_available(),
            _ => {}
        }
        let mut steps = Steps::new();
        let result = match cli.command {
            Command::Test => test::all(&mut steps),
            Command::Ci { thorough } => ci::all(&mut steps, thorough),
            Command::Tidy => steps.run("tidy", tidy::check),
            Command::Isas { .. } => isas::forced_sets(&mut steps, false)
                .and_then(|()| ci::emulated(&mut steps, true))
                .and_then(|()| foreign::webassembly(&mut steps)),
            Command::Page { check } => page::all(&mut steps, check),
            Command::Web { test: true } => steps.run("programs", programs::build).and_then(|()| web::check(&mut steps)),
            Command::Web { test: false } => web::site(&mut steps),
            Command::Python { test: true } => {
                steps.run("program", programs::command).and_then(|()| python::check(&mut steps))
            }
            Command::Python { test: false } => python::wheel(&mut steps),
            Command::C { test: true } => steps.run("programs", programs::build).and_then(|()| c::test(&mut steps)),
            Command::C { test: false } => c::build(&mut steps),
            Command::Desktop { test: true, .. } => desktop::test(&mut steps),
            Command::Desktop { package: true, .. } => desktop::package(&mut steps),
            Command::Desktop { .. } => desktop::build(&mut steps),
            Command::Tables => steps.run("tables", programs::tables),
            Command::Fuzz { seconds, target } => fuzz::all(&mut steps, seconds, target.as_deref()),
            Command::Parity { .. }
            | Command::Bench { .. }
            | Command::Hostile { .. }
            | Command::Intent { .. }
            | Command::Synth { .. } => Ok(()),
        };
        steps.summary(result.is_ok());
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
