//! The commands, one file each.

pub(crate) mod bandwidth;
pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod convert;
pub(crate) mod doctor;
pub(crate) mod embed;
pub(crate) mod eval;
pub(crate) mod explain;
pub(crate) mod list;
pub(crate) mod logits;
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

use crate::args::Command;
use crate::error::CliError;
use crate::ui::Ui;

/// Runs a command.
///
/// # Errors
/// Whatever the command fails with.
pub(crate) fn dispatch(command: Command, ui: &Ui) -> Result<(), CliError> {
    match command {
        Command::Run(args) => run::execute(&args, ui),
        Command::Chat(args) => chat::execute(&args, ui),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::execute(&args, ui),
        Command::Embed(args) => embed::execute(&args, ui),
        Command::Logits(args) => logits::execute(&args, ui),
        Command::Tokenize(args) => tokenize::execute(&args, ui),
        Command::Show(args) => show::execute(&args, ui),
        Command::Convert(args) => convert::execute(&args, ui),
        Command::Pull(args) => pull::execute(&args, ui),
        Command::List(args) => list::list(&args, ui),
        Command::Rm(args) => list::rm(&args, ui),
        Command::Plan(args) => plan::execute(&args, ui),
        Command::Eval(args) => eval::execute(&args, ui),
        Command::Completions(args) => pages::completions(&args),
        Command::Man(args) => pages::man(&args),
        Command::Ppl(args) => ppl::execute(&args, ui),
        Command::Bench(args) => bench::execute(&args, ui),
        Command::Tune(args) => tune::execute(&args, ui),
        Command::Doctor(args) => doctor::execute(&args, ui),
        #[cfg(feature = "train")]
        Command::Train(args) => train::execute(&args, ui),
        Command::Bandwidth(args) => bandwidth::execute(&args),
    }
}
