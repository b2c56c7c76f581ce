//! `bitnet logits`: token ids in, the logits after each of them out, in reference numerics.

use std::path::{Path, PathBuf};

use bitnet::KvType;
use clap::Args;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use crate::args::Ids;
use crate::error::CliError;
use crate::source::{LoadArgs, Loaded};
use crate::ui::{self, Style, Ui};

const AFTER_HELP: &str = "\
The file contains one tensor `logits`, f32 [T, vocab]: row i is the prediction after id i. Nothing is added to the \
ids. The KV cache is f32, so that the logits can be compared with those of other programs.

Examples:
  bitnet logits -m model.gguf --ids 1,2,3 --out logits.safetensors
  python -c 'import safetensors.numpy as s; print(s.load_file(\"logits.safetensors\")[\"logits\"].shape)'";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct LogitsArgs {
    /// Token ids; nothing is added to them
    #[arg(long, value_name = "1,2,3")]
    ids: Ids,
    /// Safetensors file to write
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// One JSON object on stdout: file, tokens, vocab
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: LoadArgs,
}

pub(crate) fn execute(args: &LogitsArgs, ui: &Ui) -> Result<(), CliError> {
    if !matches!(args.load.engine.kv, None | Some(KvType::F32)) {
        return Err(CliError::usage(
            "--kv: logits are always computed with an f32 KV cache, so that they can be compared",
        ));
    }
    if args.ids.0.is_empty() {
        return Err(CliError::usage("--ids: at least one token id is needed"));
    }
    let Loaded { model, .. } = args.load.request(KvType::F32).load(ui)?;
    let logits = model.logits(&args.ids.0)?;
    let (tokens, vocab) = (args.ids.0.len(), model.config().vocab_size);
    write(&args.out, tokens, vocab, &logits)?;
    if args.json {
        return ui::print_json(&json!({ "file": args.out.display().to_string(), "tokens": tokens, "vocab": vocab }));
    }
    ui.say(ui.err(Style::Dim, format_args!("{}: logits f32 [{tokens}, {vocab}]", args.out.display())));
    Ok(())
}

/// Writes the file as a whole or not at all.
fn write(path: &Path, tokens: usize, vocab: usize, logits: &[f32]) -> Result<(), CliError> {
    let what = || path.display().to_string();
    let failed = |e: std::io::Error| CliError::io("write", what())(e);
    let bytes: Vec<u8> = logits.iter().flat_map(|l| l.to_le_bytes()).collect();
    let file = TensorView::new(Dtype::F32, vec![tokens, vocab], &bytes)
        .and_then(|view| safetensors::serialize([("logits", view)], None))
        .map_err(|e| failed(std::io::Error::other(e)))?;
    Ok(loader::files::write(path, &file)?)
}
