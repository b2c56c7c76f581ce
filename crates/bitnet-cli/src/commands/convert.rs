//! `bitnet convert`, also `bitnet repack`: a model in another format.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use loader::convert::{ConvertOptions, ScaleRounding, Target, convert};
use loader::files;
use serde_json::json;

use crate::args::FileArgs;
use crate::error::CliError;
use crate::model_spec::ModelSpec;
use crate::progress;
use crate::source;
use crate::ui::{self, Style, Ui};

/// Help text below the options: the formats come from the converter's own list.
fn after_help() -> String {
    let width = Target::ALL.iter().map(|t| t.name().len()).max().unwrap_or(0);
    let formats: String = Target::ALL.iter().map(|t| format!("  {:width$}  {}\n", t.name(), t.about())).collect();
    format!("{RULES}\n\nFormats:\n{formats}\n{EXAMPLES}")
}

const RULES: &str = "\
Ternary weights are always kept exactly. A scale that the target cannot represent exactly is an error, unless --round-scales is
given. Group scales need a format whose groups are not longer: q2_0 can hold those of pq2_0 and ptq1_0, but not the reverse.
The output is read back and compared with the source, and gets its name only when it is complete.";

const EXAMPLES: &str = "\
Examples:
  bitnet convert ./bitnet-b1.58-2B-4T model.gguf --to i2_s
  bitnet convert model.gguf smaller.gguf --to tq1_0 --round-scales
  bitnet convert ternary-bonsai-pq2_0.gguf anywhere.gguf --to q2_0
  bitnet convert my-run/export small.gguf --to i2_s --f16-tables
  bitnet convert model.gguf with-tokenizer.gguf --to i2_s --tokenizer tokenizer.json
  bitnet convert tl2.gguf model.gguf --to i2_s --tl bitnet_b1_58-3B";

/// Parses a format's name.
fn target() -> impl TypedValueParser<Value = Target> {
    let names = PossibleValuesParser::new(Target::ALL.map(Target::name));
    names.try_map(|name| Target::from_name(&name).ok_or("unknown format"))
}

#[derive(Debug, Args)]
#[command(after_help = after_help())]
pub(crate) struct ConvertArgs {
    /// Model to read: anything that --model accepts
    #[arg(value_name = "IN", value_parser = ModelSpec::parser())]
    input: ModelSpec,
    /// File to write; a folder for hf-packed and hf-unpacked
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Format to write
    #[arg(long, value_name = "FORMAT", value_parser = target())]
    to: Target,
    /// Round scales that the format cannot hold exactly instead of failing
    #[arg(long)]
    round_scales: bool,
    /// Write embedding and head as f16: half the size of f32, but rounded
    #[arg(long)]
    f16_tables: bool,
    /// Model name in the GGUF metadata [default: the name in IN, or its folder name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Replace OUT if it exists
    #[arg(short, long)]
    force: bool,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    files: FileArgs,
}

pub(crate) fn execute(args: &ConvertArgs, ui: &Ui) -> Result<(), CliError> {
    let target = args.to;
    // Anything else is not replaced, not even with --force.
    if !target.is_folder() {
        files::replaceable(&args.output)?;
    } else if args.output.exists() && !args.output.is_dir() {
        let name = args.output.display();
        let target = target.name();
        let message = format!("{name} is not a folder, but {target} writes a folder; give another name");
        return Err(CliError::usage(message));
    }
    if !args.force && occupied(&args.output) {
        return Err(CliError::usage(format!("{} exists already; --force replaces it", args.output.display())));
    }
    if args.name.is_some() && target.is_folder() {
        return Err(CliError::usage("--name is for GGUF files; a folder has no place for it"));
    }
    let input = source::locate(Some(&args.input), ui)?;
    let mut options = ConvertOptions::default();
    options.rounding = if args.round_scales { ScaleRounding::Nearest } else { ScaleRounding::Exact };
    options.f16_tables = args.f16_tables;
    options.name.clone_from(&args.name);
    options.tokenizer = args.files.tokenizer.clone();
    // The tokenizer is for the result; the source is read without one.
    options.load = args.files.load_options();
    options.load.tokenizer = None;

    let bar = progress::of_steps(ui, "converting", 0);
    let began = Instant::now();
    let report = convert(&input, &args.output, target, &options, &mut |p| {
        bar.set_length(p.total as u64);
        bar.set_position(p.done as u64);
        if p.done == p.total {
            bar.set_message("reading back");
        }
    })?;
    bar.finish_and_clear();
    for note in &report.notes {
        ui.note(note);
    }
    if args.json {
        return ui::print_json(&json!({
            "output": args.output.display().to_string(),
            "to": target.name(),
            "bytes": report.bytes,
            "projections": report.projections,
            "rounded": report.rounded,
            "notes": report.notes,
        }));
    }
    let rounded = match report.rounded {
        0 => "scales exact".to_owned(),
        n => format!("{n} scales rounded"),
    };
    ui.say(format_args!(
        "{} {} ({}, {}): {} projections read back and compared, {rounded}, {:.1} s",
        ui.err(Style::Green, "wrote"),
        args.output.display(),
        target.name(),
        ui::bytes(report.bytes),
        report.projections,
        began.elapsed().as_secs_f64(),
    ));
    Ok(())
}

/// Whether writing to `path` would replace something.
fn occupied(path: &Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => path.exists(),
    }
}
