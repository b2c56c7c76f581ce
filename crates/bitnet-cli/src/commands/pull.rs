//! `bitnet pull`: a model from the Hugging Face hub, into the cache that Hugging Face's own tools use.

use std::path::PathBuf;

use clap::Args;

use crate::error::CliError;
use crate::source::HubSpec;
use crate::ui::Ui;

const AFTER_HELP: &str = "\
Downloads into the cache that Hugging Face's own tools use, resumes interrupted downloads, and prints the path of the model.
Respects HF_HOME, HF_TOKEN (for gated models), HF_ENDPOINT (a mirror), HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE.

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

pub(crate) fn execute(args: &PullArgs, ui: &Ui) -> Result<(), CliError> {
    imp::execute(args, ui)
}

/// Where a repository's model lies, after downloading what is not there yet.
///
/// # Errors
/// Whatever a download can fail with.
pub(crate) fn fetch(spec: &HubSpec, ui: &Ui) -> Result<PathBuf, CliError> {
    imp::fetch(spec, ui)
}

#[cfg(not(feature = "hub"))]
mod imp {
    use super::*;

    pub(super) fn execute(args: &PullArgs, ui: &Ui) -> Result<(), CliError> {
        let _ = (&args.revision, args.json);
        fetch(&args.repo, ui).map(|_| ())
    }

    pub(super) fn fetch(spec: &HubSpec, _: &Ui) -> Result<PathBuf, CliError> {
        let _ = &spec.file;
        Err(CliError::NoHub { repo: spec.repo.clone() })
    }
}

#[cfg(feature = "hub")]
mod imp {
    use std::ops::ControlFlow;
    use std::sync::Arc;

    use bitnet::loader::hub::{self, HubError, PullOptions, Pulled, Selection};
    use serde_json::json;

    use super::*;
    use crate::interrupt::Graceful;
    use crate::progress;
    use crate::ui::{self, Style};

    pub(super) fn execute(args: &PullArgs, ui: &Ui) -> Result<(), CliError> {
        let mut options = options(&args.repo);
        options.revision = args.revision.clone();
        let pulled = pull(&args.repo, options, ui)?;
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

    pub(super) fn fetch(spec: &HubSpec, ui: &Ui) -> Result<PathBuf, CliError> {
        let options = options(spec);
        // What is in the cache is used without asking the network.
        if let Some(pulled) = hub::cached(&spec.repo, &options)? {
            return Ok(pulled.path);
        }
        ui.note(&format!("downloading {} from the Hugging Face hub, once", spec.repo));
        Ok(pull(spec, options, ui)?.path)
    }

    fn options(spec: &HubSpec) -> PullOptions {
        let mut options = PullOptions::default();
        if let Some(file) = &spec.file {
            options.files = Selection::Gguf(Some(file.clone()));
        }
        options
    }

    fn pull(spec: &HubSpec, mut options: PullOptions, ui: &Ui) -> Result<Pulled, CliError> {
        let graceful = Graceful::begin();
        let token = graceful.token().clone();
        let bar = progress::of_bytes(ui, "asking", 0);
        let shown = bar.clone();
        options.progress = Some(Arc::new(move |p: &hub::Progress<'_>| {
            shown.set_length(p.bytes);
            shown.set_position(p.done);
            shown.set_message(format!("[{}/{}] {}", p.index + 1, p.files, p.file));
            if token.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }));
        let pulled = hub::pull(&spec.repo, &options);
        bar.finish_and_clear();
        match pulled {
            Err(error @ HubError::Cancelled { .. }) if graceful.cancelled() => {
                ui.note(&error.to_string());
                Err(CliError::Interrupted)
            }
            other => Ok(other?),
        }
    }
}
