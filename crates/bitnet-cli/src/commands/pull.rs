//! `bitnet pull`: a model from the Hugging Face hub, into the cache that Hugging Face's own tools use.

use clap::Args;
#[cfg(feature = "hub")]
use serde_json::json;

use crate::error::CliError;
use crate::hub;
use crate::model_spec::HubSpec;
use crate::ui::Ui;
#[cfg(feature = "hub")]
use crate::ui::{self, Style};

const AFTER_HELP: &str = "\
Downloads into the cache that Hugging Face's own tools use, resumes interrupted downloads, and prints the path of the \
model. Respects HF_HOME, HF_TOKEN (for gated models), HF_ENDPOINT (a mirror), HF_HUB_OFFLINE and \
TRANSFORMERS_OFFLINE.

Examples:
  bitnet pull falcon3-1b                                             a short name; `bitnet list --known` shows them
  bitnet pull microsoft/bitnet-b1.58-2B-4T
  bitnet pull microsoft/bitnet-b1.58-2B-4T-gguf:ggml-model-i2_s.gguf
  bitnet chat -m \"$(bitnet pull microsoft/bitnet-b1.58-2B-4T)\"      the same as -m hf:microsoft/...";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct PullArgs {
    /// Repository, with one GGUF file of it if there are several; or a short name
    #[arg(value_name = "OWNER/REPO[:FILE]|NAME")]
    repo: HubSpec,
    /// Branch, tag or commit [default: main]
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// One JSON object on stdout: path, files, commit
    #[arg(long)]
    json: bool,
}

#[cfg(feature = "hub")]
pub(crate) fn execute(args: &PullArgs, ui: &Ui) -> Result<(), CliError> {
    let pulled = hub::pull(&args.repo, args.revision.as_deref(), ui)?;
    if args.json {
        return ui::print_json(&json!({
            "path": pulled.path.display().to_string(),
            "files": pulled.files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>(),
            "commit": pulled.commit,
        }));
    }
    let commit: String = pulled.commit.chars().take(12).collect();
    ui.say(ui.err(Style::Dim, format_args!("{} at commit {commit}, {} files", args.repo.repo, pulled.files.len())));
    ui::print_line(pulled.path.display())
}

#[cfg(not(feature = "hub"))]
pub(crate) fn execute(args: &PullArgs, ui: &Ui) -> Result<(), CliError> {
    let _ = (&args.revision, args.json);
    hub::fetch(&args.repo, ui).map(drop)
}
