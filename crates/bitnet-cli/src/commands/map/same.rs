//! The identity of a run: rows of another input, model or option do not belong into the same table.

use std::fs::Metadata;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::UNIX_EPOCH;

use loader::files::{self, FileError};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::MapArgs;
use super::format::Format;
use crate::error::CliError;

/// Bytes at the beginning and at the end of the input that are compared.
const ENDS: u64 = 1 << 20;

/// All that the rows of the output depend on; `model` is the file or folder, `None` the model within the program.
///
/// # Errors
/// Files that cannot be read.
pub(super) fn identity(
    args: &MapArgs,
    (from, to): (Format, Format),
    task: &Value,
    model: Option<&Path>,
) -> Result<Value, CliError> {
    let engine = &args.load.engine;
    let files = &args.load.model.files;
    let tokenizer = files.tokenizer.as_deref().map(file).transpose()?;
    Ok(json!({
        "bitnet": env!("CARGO_PKG_VERSION"),
        "input": input(&args.input)?,
        "formats": [from.name(), to.name()],
        "model": model.map_or_else(|| Ok("built-in".into()), file)?,
        "options": {
            "column": args.column,
            "prefix": args.prefix,
            "on-error": args.on_error.name(),
            "infer": args.infer,
            "kv": engine.kv.map(|kv| kv.name()),
            "activations": format!("{:?}", engine.activations),
            "kernel": format!("{:?}", engine.kernel),
            "no-adapt": engine.no_adapt,
            "qk-layout": format!("{:?}", files.qk_layout),
            "tokenizer": tokenizer,
        },
        "task": task,
    }))
}

fn modified(meta: &Metadata) -> Option<String> {
    let since = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{}.{:09}", since.as_secs(), since.subsec_nanos()))
}

/// Length, time and both ends of the input.
fn input(path: &Path) -> Result<Value, CliError> {
    let (mut file, len) = files::open(path, "a table")?;
    let failed = || FileError::io("read", path);
    let mut hash = Sha256::new();
    let mut ends = Vec::new();
    (&mut file).take(ENDS).read_to_end(&mut ends).map_err(failed())?;
    file.seek(SeekFrom::Start(len.saturating_sub(ENDS))).map_err(failed())?;
    file.take(ENDS).read_to_end(&mut ends).map_err(failed())?;
    hash.update(&ends);
    let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let meta = std::fs::metadata(path).map_err(failed())?;
    Ok(json!({ "bytes": len, "modified": modified(&meta), "sha256-of-ends": digest }))
}

/// Path, length and time of a file, or those of the files of a folder.
fn file(path: &Path) -> Result<Value, CliError> {
    let failed = || FileError::io("read", path);
    let meta = std::fs::metadata(path).map_err(failed())?;
    let mut value = json!({ "path": path.display().to_string() });
    if !meta.is_dir() {
        value["bytes"] = meta.len().into();
        value["modified"] = modified(&meta).into();
        return Ok(value);
    }
    let mut all: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed())?.flatten() {
        if let Ok(meta) = std::fs::metadata(entry.path())
            && meta.is_file()
        {
            let time = modified(&meta).unwrap_or_default();
            all.push(format!("{} {} {time}", entry.file_name().to_string_lossy(), meta.len()));
        }
    }
    all.sort();
    value["files"] = all.into();
    Ok(value)
}

/// Whether two paths are one file.
pub(super) fn is_one_file(a: &Path, b: &Path) -> bool {
    let [a, b] = [a, b].map(identity_of);
    a.is_some() && a == b
}

#[cfg(unix)]
fn identity_of(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(not(unix))]
fn identity_of(path: &Path) -> Option<std::path::PathBuf> {
    std::fs::canonicalize(path).ok()
}
