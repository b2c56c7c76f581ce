//! Models of the Hugging Face hub: from the name of a repository to files in the cache.

use std::path::PathBuf;

use crate::error::CliError;
use crate::model_spec::HubSpec;
use crate::ui::Ui;

#[cfg(feature = "hub")]
pub(crate) use imp::{fetch, pull};

/// Fails: this build has no downloads.
#[cfg(not(feature = "hub"))]
pub(crate) fn fetch(spec: &HubSpec, _: &Ui) -> Result<PathBuf, CliError> {
    let _ = &spec.file;
    Err(CliError::NoHub { repo: spec.repo.clone() })
}

#[cfg(feature = "hub")]
mod imp {
    use std::ops::ControlFlow;
    use std::sync::Arc;

    use loader::hub::{self, HubError, PullOptions, Pulled, Selection};

    use super::*;
    use crate::interrupt::Graceful;
    use crate::progress;

    /// Path of the model of a repository, downloaded unless it is in the cache.
    ///
    /// # Errors
    /// The errors of a download.
    pub(crate) fn fetch(spec: &HubSpec, ui: &Ui) -> Result<PathBuf, CliError> {
        let options = options(spec);
        // Files in the cache are used without asking the network.
        if let Some(pulled) = hub::cached(&spec.repo, &options)? {
            return Ok(pulled.path);
        }
        ui.note(&format!("downloading {} from the Hugging Face hub, once", spec.repo));
        Ok(download(spec, options, ui)?.path)
    }

    /// Downloads the missing files of a revision of a repository.
    ///
    /// # Errors
    /// The errors of a download.
    pub(crate) fn pull(spec: &HubSpec, revision: Option<&str>, ui: &Ui) -> Result<Pulled, CliError> {
        let mut options = options(spec);
        options.revision = revision.map(str::to_owned);
        download(spec, options, ui)
    }

    fn options(spec: &HubSpec) -> PullOptions {
        let mut options = PullOptions::default();
        if let Some(file) = &spec.file {
            options.files = Selection::Gguf(Some(file.clone()));
        }
        options
    }

    fn download(spec: &HubSpec, mut options: PullOptions, ui: &Ui) -> Result<Pulled, CliError> {
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
