//! `bitnet plan`: a model's memory requirements and its possible speed here, without its weights.

use std::path::{Path, PathBuf};

use bitnet::{Isa, KvType, MemoryEstimate, ModelConfig};
use clap::Args;
use loader::synthetic::Spec;
use serde_json::json;
use ternary_kernels::last_level_cache;

use crate::args::{ModelArgs, parse_isa};
use crate::choices;
use crate::error::CliError;
use crate::model_spec::ModelSpec;
use crate::process;
use crate::progress;
use crate::source;
use crate::ui::{self, Style, Ui};

const AFTER_HELP: &str = "\
The model is a local file, folder or downloaded repository, a config.json without weights, a name of `bitnet list \
--known`, or the shape 70b (as Llama 3 70B). Its weights are not read. To generate a token, all packed weights, six \
bits of each weight of the head, and the keys and values so far must be read; the measured memory bandwidth therefore \
bounds the tokens per second. `bitnet bench` measures what is actually reached.

Examples:
  bitnet plan 70b
  bitnet plan config.json --context 8192 --kv q8
  bitnet plan -m model.gguf --json";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct PlanArgs {
    /// Model, config.json, known name, or the shape 70b
    #[arg(value_name = "MODEL", conflicts_with = "model")]
    shape: Option<String>,
    /// Context length in tokens
    #[arg(long, value_name = "N", default_value = "4096")]
    context: usize,
    /// Type of the KV cache
    #[arg(long, value_name = "TYPE", value_parser = choices::kv(), default_value = "f16")]
    kv: KvType,
    /// Number of threads [default: one per core available to this process]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Instruction set [default: the best on this CPU]
    #[arg(long, value_name = "NAME", value_parser = parse_isa)]
    isa: Option<Isa>,
    /// Memory bandwidth in GB/s to assume instead of measuring it, for example of another machine
    #[arg(long, value_name = "GB/S")]
    bandwidth: Option<f64>,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

pub(crate) fn execute(args: &PlanArgs, ui: &Ui) -> Result<(), CliError> {
    let (name, config) = shape(args, ui)?;
    let isa = match args.isa {
        Some(isa) => isa.require()?,
        None => Isa::selected()?,
    };
    let kernel = ternary_kernels::for_weights(isa, config.ternary_weights() as usize)?;
    let bits = match MemoryEstimate::has_groups(&config) {
        true => MemoryEstimate::GROUP_BITS,
        false if kernel.name().starts_with("base3") => 1.6,
        false => 2.0,
    };
    let kernel = if MemoryEstimate::has_groups(&config) { "scales per group" } else { kernel.name() };
    let plan = MemoryEstimate::of(&config, bits, args.kv, args.context);
    let threads = args.threads.map_or(process::threads().get(), usize::from);
    let bandwidth = match args.bandwidth {
        Some(gb_s) if gb_s > 0.0 && gb_s.is_finite() => gb_s,
        Some(gb_s) => return Err(CliError::usage(format!("--bandwidth {gb_s}: must be above 0"))),
        None => {
            let spinner = progress::spinner(ui, "measuring memory bandwidth");
            let gb_s = process::bandwidth_in_child(threads);
            spinner.finish_and_clear();
            gb_s?
        }
    };
    let rates = plan.reads.map(|bytes| bandwidth * 1e9 / bytes as f64);
    let available = process::memory_bytes("MemAvailable");
    let fits = available.map(|free| plan.total() < free);
    let in_cache = plan.weights <= last_level_cache() as u64;
    if args.json {
        return ui::print_json(&json!({
            "model": name,
            "parameters": config.parameters(), "ternary_weights": config.ternary_weights(),
            "kernel": kernel, "bits_per_weight": bits, "kv": args.kv.name(), "context": args.context,
            "file_bytes": file_bytes(&config),
            "weight_bytes": plan.weights, "table_bytes": plan.tables, "coarse_head_bytes": plan.plane,
            "session_bytes": plan.session, "total_bytes": plan.total(),
            "memory_available_bytes": available, "fits": fits,
            "threads": threads, "read_bandwidth_gb_s": bandwidth,
            "bytes_per_token": plan.reads, "decode_tok_s_at_most": rates, "weights_fit_cache": in_cache,
        }));
    }
    let mut text = format!("{}\n", ui.out(Style::Bold, &name));
    let mut line = |label: &str, value: String| {
        text.push_str(&format!("  {} {value}\n", ui.out(Style::Dim, format_args!("{label:<10}"))));
    };
    let ternary = ui::count(config.ternary_weights());
    line("weights", format!("{}, of these {ternary} ternary", ui::count(config.parameters())));
    let form = if MemoryEstimate::has_groups(&config) { "PQ2_0 throughout" } else { "I2_S, embedding and head in f16" };
    line("file", format!("about {} as GGUF ({form})", ui::bytes(file_bytes(&config))));
    let parts = [("weights", plan.weights), ("embedding and head", plan.tables), ("coarse head", plan.plane)];
    let parts: Vec<String> = parts.iter().filter(|p| p.1 > 0).map(|(p, n)| format!("{p} {}", ui::bytes(*n))).collect();
    line("memory", format!("{}: {}", ui::bytes(plan.weights + plan.tables + plan.plane), parts.join(", ")));
    let context = config.context_limit().map_or(args.context, |limit| limit.min(args.context));
    line("session", format!("{} for {context} tokens, {}", ui::bytes(plan.session), args.kv.name()));
    let verdict = match (available, fits) {
        (Some(free), Some(true)) => format!("{} of {} available: it fits", ui::bytes(plan.total()), ui::bytes(free)),
        (Some(free), _) => {
            let no = ui.out(Style::Red, "it does not fit");
            format!("{} of {} available: {no}", ui::bytes(plan.total()), ui::bytes(free))
        }
        (None, _) => ui::bytes(plan.total()),
    };
    line("in all", verdict);
    line("bandwidth", format!("{bandwidth:.1} GB/s with {threads} thread{}", if threads == 1 { "" } else { "s" }));
    let [first, last] = rates.map(ui::rate);
    let speed = match in_cache {
        true => "the weights fit in the CPU cache, so memory is not the limit; run `bitnet bench`".to_owned(),
        false => {
            format!("at most {first} tokens/s at the beginning, {last} after {context} tokens ({kernel})")
        }
    };
    line("speed", speed);
    ui::print(&text)
}

/// Bytes of a GGUF file of I2_S matrices with tables in half precision, or of PQ2_0 throughout, but for vocabulary and
/// norms.
fn file_bytes(c: &ModelConfig) -> u64 {
    let tables = if c.tie_word_embeddings || c.headless { 1 } else { 2 };
    let table = (c.vocab_size * c.hidden_size) as u64 * tables;
    match MemoryEstimate::has_groups(c) {
        true => (c.ternary_weights() + table) / 128 * 34,
        false => c.ternary_weights() / 4 + table * 2,
    }
}

/// Name and shape of the planned model.
fn shape(args: &PlanArgs, ui: &Ui) -> Result<(String, ModelConfig), CliError> {
    let Some(text) = &args.shape else { return source::shape(&args.model, ui) };
    let path = Path::new(text);
    if !path.exists() {
        match text.as_str() {
            "70b" => return Ok(("a ternary model in the shape of Llama 3 70B".into(), llama_70b())),
            "2b4t" => return Ok(("BitNet b1.58 2B4T".into(), Spec::b2b4t().config)),
            name => {
                // A known shape needs no download.
                if let Some(config) = crate::names::find(name).and_then(|known| known.config()) {
                    return Ok((name.to_owned(), config));
                }
            }
        }
    }
    let config: Option<PathBuf> = match path.extension().is_some_and(|e| e == "json") {
        true => Some(path.to_owned()),
        // A folder with nothing but a configuration is as good.
        false => Some(path.join("config.json")).filter(|file| file.is_file() && !has_weights(path)),
    };
    if let Some(file) = config {
        if !file.exists() {
            return Err(CliError::NoSuchModel { path: file, hint: String::new() });
        }
        return Ok((text.clone(), Spec::from_config_file(&file)?.config));
    }
    let mut model = args.model.clone();
    model.model = Some(text.parse::<ModelSpec>().map_err(CliError::usage)?);
    source::shape(&model, ui)
}

fn has_weights(folder: &Path) -> bool {
    let weights = |e: std::fs::DirEntry| e.path().extension().is_some_and(|x| x == "safetensors");
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(weights)
}

/// 80 layers of 8192, feed-forward 28672, 64 heads, 8 for keys and values, a separate head.
fn llama_70b() -> ModelConfig {
    let mut config = ModelConfig::new(128_256, 8192, 28_672, 80, 64, 8);
    config.tie_word_embeddings = false;
    config.max_position_embeddings = 131_072;
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counted by hand: 2 084 044 800 weights; a table of 128 256 rows of 2560.
    #[test]
    fn the_bytes_of_2b4t_are_known() {
        let config = Spec::b2b4t().config;
        let plan = MemoryEstimate::of(&config, 2.0, KvType::F16, 4096);
        assert_eq!((plan.weights, plan.tables), (521_011_200, 656_670_720));
        assert_eq!(plan.plane, 128_256 * 2560 * 6 / 8);
        // 30 layers, 5 heads of 128, keys and values, two bytes each.
        assert_eq!(plan.session, 30 * 5 * 128 * 2 * 2 * 4096);
        assert_eq!(plan.reads, [plan.weights + plan.plane, plan.weights + plan.plane + plan.session]);
        assert_eq!(plan.total(), plan.weights + plan.tables + plan.plane + plan.session);
        // A context that is longer than the model's needs no more than that.
        assert_eq!(
            MemoryEstimate::of(&config, 2.0, KvType::F16, 1 << 30).session,
            plan.session * config.context_limit().unwrap() as u64 / 4096
        );
    }

    /// All weights of the 8B, including its head, at 2.125 bits, as in the files of its makers.
    #[test]
    fn a_model_with_a_scale_per_group_reads_its_head_packed() {
        let config = Spec::bonsai_8b().config;
        let plan = MemoryEstimate::at(&config, KvType::F16, 4096);
        let table = 151_669 * 4096 * 17 / 64;
        assert_eq!((plan.weights, plan.tables, plan.plane), (6_945_767_424 * 17 / 64, 2 * table, 0));
        assert_eq!(plan.reads[0], plan.weights + table);
        assert_eq!(file_bytes(&config), plan.weights + plan.tables);
        let embedding = Spec::bitnet_embedding_0_6b().config;
        let plan = MemoryEstimate::at(&embedding, KvType::F16, 512);
        assert_eq!((plan.tables, plan.plane, plan.reads[0]), (151_669 * 1024 * 2, 0, plan.weights));
    }

    #[test]
    fn a_model_of_70_billion_weights_has_as_many() {
        let config = llama_70b();
        config.validate().unwrap();
        assert!((70.0..71.0).contains(&(config.parameters() as f64 / 1e9)), "{}", config.parameters());
        let plan = MemoryEstimate::of(&config, 1.6, KvType::F16, 4096);
        assert!((13.5e9..14.5e9).contains(&(plan.weights as f64)), "{plan:?}");
    }
}
