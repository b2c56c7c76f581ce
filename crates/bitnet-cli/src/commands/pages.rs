//! `bitnet completions` and `bitnet man`: shell completions and manual pages, generated from the command's own
//! definition.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::error::CliError;
use crate::ui;

const AFTER_HELP: &str = "\
Examples:
  bitnet completions bash > ~/.local/share/bash-completion/completions/bitnet
  bitnet completions zsh > \"${fpath[1]}/_bitnet\"
  bitnet completions fish > ~/.config/fish/completions/bitnet.fish";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the completions of a shell.
pub(crate) fn completions(args: &CompletionsArgs, command: &mut Command) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "bitnet", &mut script);
    ui::print(&ui::text(script, "the completions")?)
}

const AFTER_MAN_HELP: &str = "\
Examples:
  bitnet man > bitnet.1
  bitnet man --out ~/.local/share/man/man1      a page for the command and one for each of its commands";

#[derive(Debug, Args)]
#[command(after_help = AFTER_MAN_HELP)]
pub(crate) struct ManArgs {
    /// Write all pages into this folder, which is created if needed
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Prints the manual page, or writes all of them.
pub(crate) fn man(args: &ManArgs, command: Command) -> Result<(), CliError> {
    let Some(folder) = &args.out else {
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(command).render(&mut page);
        rendered.map_err(CliError::io("write", "the manual page"))?;
        return ui::print(&ui::text(page, "the manual page")?);
    };
    let name = folder.display().to_string();
    std::fs::create_dir_all(folder).map_err(CliError::io("make", &name))?;
    clap_mangen::generate_to(command, folder).map_err(CliError::io("write", &name))
}
