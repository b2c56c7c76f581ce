//! The start of a run: from the beginning, from its checkpoint, from the previous one, or from the end of the first
//! stage.

use std::path::{Path, PathBuf};

use bitnet::train::Checkpoint;
use loader::files::{self, FolderLock};

use super::TrainArgs;
use crate::error::CliError;
use crate::ui::Ui;

/// The run's folder, which no other process works in while this lives.
pub(super) struct RunFolder {
    /// The path of the checkpoint.
    pub(super) saved: PathBuf,
    _lock: FolderLock,
}

/// Takes the folder, and reads the checkpoint from which the run continues.
///
/// # Errors
/// A folder that another process works in; a checkpoint that is missing, or that exists although it was not requested;
/// a damaged one.
pub(super) fn begin(args: &TrainArgs, ui: &Ui) -> Result<(RunFolder, Option<Checkpoint>), CliError> {
    let saved = args.out.join("checkpoint.safetensors");
    let previous = Checkpoint::previous(&saved);
    let asked = if args.previous { previous.clone() } else { saved.clone() };
    if args.resume && !asked.is_file() {
        let hint = match !args.previous && previous.is_file() {
            true => format!("; {} is there, and --resume --previous continues from it", previous.display()),
            false => String::new(),
        };
        return Err(CliError::usage(format!("--resume: there is no {}{hint}", asked.display())));
    }
    std::fs::create_dir_all(&args.out).map_err(CliError::io("create", args.out.display().to_string()))?;
    let place = RunFolder { saved, _lock: FolderLock::take(&args.out)? };
    clean(&args.out);
    if !args.resume
        && let Some(there) = [&place.saved, &previous].into_iter().find(|p| p.is_file())
    {
        let name = there.display();
        return Err(CliError::usage(format!("{name} exists; continue from it with --resume, or give another --out")));
    }
    if !args.resume {
        return Ok((place, None));
    }
    let checkpoint = Checkpoint::load(&asked)?;
    if args.previous {
        take_back(&place.saved, &previous, ui)?;
    }
    Ok((place, Some(checkpoint)))
}

/// Makes the previous checkpoint the current one; the old current one is kept, damaged or not.
fn take_back(saved: &Path, previous: &Path, ui: &Ui) -> Result<(), CliError> {
    if saved.is_file() {
        let aside = saved.with_extension("aside.safetensors");
        std::fs::rename(saved, &aside).map_err(CliError::io("rename to", aside.display().to_string()))?;
        ui.note(&format!("{} is kept as {}", saved.display(), aside.display()));
    }
    let link = |to: &Path| std::fs::hard_link(previous, to).or_else(|_| std::fs::copy(previous, to).map(drop));
    Ok(files::replace_with(saved, link)?)
}

/// Removes files that programs of earlier versions left when they died. No other program uses the folder.
fn clean(out: &Path) {
    let data = ["train", "valid", "none"].map(|name| out.join("data").join(name));
    for name in data.iter().chain([&out.join("checkpoint")]) {
        let partial = name.with_extension("partial");
        if std::fs::symlink_metadata(&partial).is_ok_and(|meta| meta.is_file()) {
            let _ = std::fs::remove_file(partial);
        }
    }
    for folder in [out.to_path_buf(), out.join("data"), out.join("master"), out.join("export")] {
        files::sweep(&folder);
    }
}
