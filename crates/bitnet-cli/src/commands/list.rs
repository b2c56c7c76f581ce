//! `bitnet list` and `bitnet rm`: list and remove cached models.

use std::path::{Path, PathBuf};

use bitnet::{KvType, MemoryEstimate};
use clap::Args;
use loader::PackedCache;
use loader::packed::cache;
use loader::synthetic::cache_dir;
use serde_json::json;

use crate::error::CliError;
use crate::names;
use crate::ui::{self, Style, Ui};

/// The number of tokens for which the memory of known models is shown.
const KNOWN_CONTEXT: usize = 4096;

const AFTER_HELP: &str = "\
Lists the models in the Hugging Face cache (HF_HOME) and in bitnet's own cache (XDG_CACHE_HOME), with their size on disk. Packed
weights there make models start faster; they may be removed at any time.

Examples:
  bitnet list
  bitnet list --known          ternary models with a short name for `bitnet pull` and -m, their purpose and memory
  bitnet list --json | jq '[.models[].bytes] | add'";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ListArgs {
    /// List known ternary models instead: short names, purpose, memory, and which are downloaded
    #[arg(long)]
    known: bool,
    /// One JSON object on stdout: models, bytes
    #[arg(long)]
    json: bool,
}

const AFTER_RM_HELP: &str = "\
Removes a repository with all of its files from the Hugging Face cache, which other tools share; or a model that bitnet itself
wrote, by its file name.

Examples:
  bitnet rm falcon3-1b
  bitnet rm microsoft/bitnet-b1.58-2B-4T --dry-run
  bitnet rm synthetic-2b4t-0-v1.gguf
  bitnet rm packed-48a0c1d5e2f37b96-5f0e12c4.gguf";

#[derive(Debug, Args)]
#[command(after_help = AFTER_RM_HELP)]
pub(crate) struct RmArgs {
    /// Short names, repositories or file names, as `bitnet list` shows them
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<String>,
    /// Only print what would be removed
    #[arg(long)]
    dry_run: bool,
    /// One JSON object on stdout: removed, bytes
    #[arg(long)]
    json: bool,
}

/// A model on disk.
#[derive(Debug)]
struct Entry {
    /// Name for `-m`.
    name: String,
    short: Option<&'static str>,
    path: PathBuf,
    bytes: u64,
    note: String,
    /// Whether it is in the cache of Hugging Face's tools.
    hub: bool,
}

fn entries() -> Result<Vec<Entry>, CliError> {
    let mut all = hub_entries()?;
    let own = cache_dir();
    for file in std::fs::read_dir(&own).into_iter().flatten().flatten() {
        let path = file.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()).filter(|n| n.ends_with(".gguf")) else { continue };
        let bytes = file.metadata().map_or(0, |m| m.len());
        let note = match name {
            // Listed below, with the models that they were made from.
            _ if cache::is_name(name) => continue,
            _ if name.starts_with("synthetic-") => "random weights",
            _ => "comes with the program",
        };
        all.push(Entry { name: name.to_owned(), short: None, bytes, note: note.into(), hub: false, path });
    }
    for file in PackedCache::new(&own).files() {
        let Some(name) = file.path.file_name().and_then(|n| n.to_str()) else { continue };
        let source = file.source().map_or_else(|| "unreadable".to_owned(), |source| format!("of {source}"));
        let (name, note) = (name.to_owned(), format!("packed weights {source}"));
        all.push(Entry { name, short: None, bytes: file.bytes, note, hub: false, path: file.path });
    }
    all.sort_by(|a, b| b.hub.cmp(&a.hub).then_with(|| a.name.cmp(&b.name)));
    Ok(all)
}

#[cfg(feature = "hub")]
fn hub_entries() -> Result<Vec<Entry>, CliError> {
    let repos = loader::hub::list(&Default::default())?;
    let entry = |r: loader::hub::CachedRepo| {
        let weights = |f: &&String| f.ends_with(".gguf") || f.ends_with(".safetensors");
        let files = match r.files.iter().filter(weights).count() {
            0 => "no weights".to_owned(),
            1 => "1 file of weights".to_owned(),
            n => format!("{n} files of weights"),
        };
        let note = if r.unfinished { format!("{files}, incomplete download") } else { files };
        Entry { short: names::of_repo(&r.repo), name: r.repo, path: r.path, bytes: r.bytes, note, hub: true }
    };
    Ok(repos.into_iter().map(entry).collect())
}

#[cfg(not(feature = "hub"))]
fn hub_entries() -> Result<Vec<Entry>, CliError> {
    Ok(Vec::new())
}

pub(crate) fn list(args: &ListArgs, ui: &Ui) -> Result<(), CliError> {
    let all = entries()?;
    if args.known {
        return list_known(&all, args.json, ui);
    }
    let total: u64 = all.iter().map(|e| e.bytes).sum();
    if args.json {
        let model = |e: &Entry| json!({ "name": e.name, "short": e.short, "path": e.path.display().to_string(), "bytes": e.bytes, "hub": e.hub });
        return ui::print_json(&json!({ "models": all.iter().map(model).collect::<Vec<_>>(), "bytes": total }));
    }
    if all.is_empty() {
        ui.say("no models found; `bitnet pull NAME` downloads one, `bitnet list --known` shows names");
        return Ok(());
    }
    let width = all.iter().map(|e| e.name.len()).max().unwrap_or(0);
    for e in &all {
        let short = e.short.map_or(String::new(), |s| format!("{s}: "));
        let note = ui.out(Style::Dim, format_args!("{short}{}", e.note));
        ui::print_line(format_args!("{:<width$}  {:>10}  {note}", e.name, ui::bytes(e.bytes)))?;
    }
    ui::print_line(format_args!("{:<width$}  {:>10}", "", ui.out(Style::Bold, ui::bytes(total))))
}

fn list_known(all: &[Entry], json: bool, ui: &Ui) -> Result<(), CliError> {
    let here = |name: &str| all.iter().find(|e| e.short == Some(name)).map(|e| e.bytes);
    let memory = |k: &names::Known| k.config().map(|c| MemoryEstimate::at(&c, KvType::F16, KNOWN_CONTEXT).total());
    if json {
        let known = |k: &names::Known| {
            let parameters = k.config().map(|c| c.parameters());
            json!({
                "name": k.name, "hub": k.hub, "what": k.what, "parameters": parameters, "memory_bytes": memory(k),
                "bytes_here": here(k.name),
            })
        };
        let elsewhere = names::ELSEWHERE.iter().map(|(name, why)| json!({ "name": name, "why": why }));
        return ui::print_json(&json!({
            "known": names::KNOWN.iter().map(known).collect::<Vec<_>>(), "context": KNOWN_CONTEXT,
            "elsewhere": elsewhere.collect::<Vec<_>>(),
        }));
    }
    let width = names::KNOWN.iter().map(|k| k.name.len()).max().unwrap_or(0);
    for k in names::KNOWN {
        let size = here(k.name).map_or(String::new(), |bytes| format!(" ({} here)", ui::bytes(bytes)));
        let need = memory(k).map_or("?".to_owned(), ui::bytes);
        ui::print_line(format_args!("{:<width$}  {need:>8}  {}{size}  {}", k.name, k.what, ui.out(Style::Dim, k.hub)))?;
    }
    let label = ui.out(
        Style::Dim,
        format_args!("memory with {KNOWN_CONTEXT} tokens; `bitnet show` explains a file that is here"),
    );
    ui.say(label);
    ui.say("not computed here:");
    for (name, why) in names::ELSEWHERE {
        ui.say(format_args!("  {name}: {}", ui.err(Style::Dim, why)));
    }
    Ok(())
}

pub(crate) fn rm(args: &RmArgs, ui: &Ui) -> Result<(), CliError> {
    let all = entries()?;
    // All names are looked up before anything is removed.
    let mut chosen = Vec::new();
    for name in &args.models {
        let repo = names::find(name)
            .map_or_else(|| name.trim_start_matches("hf:").to_owned(), |known| known.repo().to_owned());
        let found = all.iter().find(|e| e.name == repo || e.name == *name);
        chosen.push(found.ok_or_else(|| {
            CliError::usage(format!("{name} was not found; `bitnet list` shows the models on this disk"))
        })?);
    }
    for e in &chosen {
        if !args.dry_run {
            remove(e)?;
        }
        let done = if args.dry_run { "would free" } else { "freed" };
        ui.say(format_args!("{}: {done} {}", e.name, ui::bytes(e.bytes)));
    }
    if args.json {
        let bytes: u64 = chosen.iter().map(|e| e.bytes).sum();
        let names: Vec<&str> = chosen.iter().map(|e| e.name.as_str()).collect();
        return ui::print_json(&json!({ "removed": names, "bytes": bytes, "dry_run": args.dry_run }));
    }
    Ok(())
}

fn remove(entry: &Entry) -> Result<(), CliError> {
    if entry.hub {
        return remove_repo(&entry.name);
    }
    let path: &Path = &entry.path;
    std::fs::remove_file(path).map_err(CliError::io("remove", path.to_string_lossy()))
}

#[cfg(feature = "hub")]
fn remove_repo(repo: &str) -> Result<(), CliError> {
    loader::hub::remove(repo, &Default::default())?;
    Ok(())
}

#[cfg(not(feature = "hub"))]
fn remove_repo(repo: &str) -> Result<(), CliError> {
    Err(CliError::NoHub { repo: repo.to_owned() })
}
