//! `bitnet bench`: tokens per second, and how much of the memory bandwidth that is.

use std::ops::ControlFlow;
use std::time::Instant;

use bitnet::{KvType, Model, Sampler, SamplingOptions, Sequence};
use clap::Args;
use serde::Serialize;

use crate::args::{EngineArgs, ModelArgs};
use crate::error::CliError;
use crate::process;
use crate::progress;
use crate::source::{self, Loaded};
use crate::ui::{self, Style, Ui};

const AFTER_HELP: &str = "\
Prefill reads P tokens into an empty context at once; decode generates N tokens one by one from an empty context. Both
are medians of the repetitions, after one that warms up. The memory bandwidth is measured by a process of its own before
and after, with as many threads: decode has to read bytes_per_token for each token, so the share says how near to this
machine's limit it runs.

Examples:
  bitnet bench -m model.gguf
  bitnet bench -m synthetic:2b4t -p 128 -n 32 -t 2 --json
  bitnet bench -m model.gguf --isa scalar        what the instruction set is worth";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct BenchArgs {
    /// Tokens to read as a prompt; 0 leaves this out
    #[arg(short, long, value_name = "P", default_value_t = 128)]
    prompt: u32,
    /// Tokens to generate; 0 leaves this out
    #[arg(short, long, value_name = "N", default_value_t = 32)]
    new: u32,
    /// Repetitions, of which the median counts
    #[arg(short, long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=1000))]
    repetitions: u32,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What `--json` prints. Scripts rely on these names.
#[derive(Debug, Serialize)]
struct Report {
    /// Median over the repetitions; null where nothing was read.
    prefill_tok_s: Option<f64>,
    /// Median over the repetitions; null where nothing was generated.
    decode_tok_s: Option<f64>,
    /// What one decode step reads: packed weights, head, mean of keys and values.
    bytes_per_token: u64,
    /// Before and after, in GB/s.
    read_bandwidth_gb_s: [f64; 2],
    /// Fraction of the mean of the two.
    bandwidth_share: Option<f64>,
    rss_anonymous_mib: Option<f64>,
    peak_rss_mib: Option<f64>,
    load_s: f64,
    kernel: String,
    head: String,
    kv: &'static str,
    isa: &'static str,
    threads: usize,
    /// Rows of the head that were computed after the coarse pass, per token; 0 without a coarse pass.
    rows_rescored_mean: f64,
}

pub(crate) fn execute(args: &BenchArgs, ui: &Ui) -> Result<(), CliError> {
    if args.prompt == 0 && args.new == 0 {
        return Err(CliError::usage("-p 0 -n 0 leaves nothing to measure"));
    }
    let threads = args.engine.threads.map_or(process::cpus().get(), usize::from);
    // A model that is missing or damaged shows before the probe takes its time.
    let path = source::locate(args.model.model.as_ref(), ui)?;
    let mut model_args = args.model.clone();
    model_args.model = Some(source::ModelSpec::Path(path));

    let before = probe(threads, ui)?;
    let Loaded { model, load_time } = source::load(&model_args, &args.engine, KvType::F16, ui)?;
    let (p, n) = (args.prompt as usize, args.new as usize);
    if p.max(n) > model.context() {
        return Err(CliError::usage(format!("this model's context holds {} tokens, no more", model.context())));
    }
    let rounds = args.repetitions as usize;
    let prefill = (p > 0).then(|| measure(ui, "prefill", rounds, p, || prefill(&model, p))).transpose()?;
    let mut rescored = Rescored::default();
    let decode = (n > 0).then(|| measure(ui, "decode", rounds, n, || decode(&model, n, &mut rescored))).transpose()?;
    // While the model is still in memory.
    let (rss, peak) = (process::status_mib("RssAnon"), process::status_mib("VmHWM"));
    let engine = model.engine();
    let decode_tok_s = decode.as_deref().map(median);
    let mut report = Report {
        prefill_tok_s: prefill.as_deref().map(median),
        decode_tok_s,
        bytes_per_token: bytes_per_token(&model, n, rescored),
        read_bandwidth_gb_s: [before, before],
        bandwidth_share: None,
        rss_anonymous_mib: rss,
        peak_rss_mib: peak,
        load_s: load_time.as_secs_f64(),
        kernel: engine.kernel_name().to_owned(),
        head: head_name(engine),
        kv: model.kv_type().name(),
        isa: engine.isa().name(),
        threads: engine.threads(),
        rows_rescored_mean: rescored.mean(),
    };
    let shape = format!("{} weights, {} ternary", ui::count(model.config().parameters()), model.info().ternary_format);
    // The threads of the engine must not take part in what follows.
    drop(model);
    report.read_bandwidth_gb_s[1] = probe(threads, ui)?;
    let mean = report.read_bandwidth_gb_s.iter().sum::<f64>() / 2.0;
    report.bandwidth_share = decode_tok_s.map(|rate| report.bytes_per_token as f64 * rate / (mean * 1e9));
    if args.json { ui::print_json(&report) } else { ui::print(&as_text(&report, &shape, args, prefill, decode, ui)) }
}

fn probe(threads: usize, ui: &Ui) -> Result<f64, CliError> {
    let spinner = progress::spinner(ui, "measuring memory bandwidth");
    let gb_s = process::bandwidth_in_child(threads);
    spinner.finish_and_clear();
    gb_s
}

/// Tokens per second of each of `rounds` repetitions of `work`, which takes `tokens` tokens; one more warms up.
fn measure(
    ui: &Ui,
    what: &str,
    rounds: usize,
    tokens: usize,
    mut work: impl FnMut() -> Result<f64, CliError>,
) -> Result<Vec<f64>, CliError> {
    let bar = progress::of_steps(ui, what, rounds as u64 + 1);
    let mut rates = Vec::with_capacity(rounds);
    for round in 0..=rounds {
        let seconds = work()?;
        bar.inc(1);
        if round > 0 {
            rates.push(tokens as f64 / seconds);
        }
    }
    bar.finish_and_clear();
    Ok(rates)
}

/// Seconds for reading `n` tokens into an empty context.
fn prefill(model: &Model, n: usize) -> Result<f64, CliError> {
    let tokens: Vec<u32> = (0..n).map(|i| token(model, i)).collect();
    let mut sequence = Sequence::new(model.engine(), model.kv_type(), Some(n));
    let began = Instant::now();
    sequence.push(&tokens)?;
    Ok(began.elapsed().as_secs_f64())
}

/// Rows of the head that were computed after a coarse pass, in all decode steps.
#[derive(Clone, Copy, Debug, Default)]
struct Rescored {
    rows: usize,
    tokens: usize,
}

impl Rescored {
    fn mean(self) -> f64 {
        self.rows as f64 / self.tokens.max(1) as f64
    }
}

/// How the head is stored; `+6bit` where the best token is found by a pass over six bits of each weight first.
fn head_name(engine: &bitnet::Engine) -> String {
    let stored = engine.head_type();
    if engine.coarse_head_bytes().is_some() { format!("{stored}+6bit") } else { stored }
}

/// Seconds for `n` steps of one token each, with the choice of the next token, from an empty context.
fn decode(model: &Model, n: usize, rescored: &mut Rescored) -> Result<f64, CliError> {
    let mut options = SamplingOptions::default();
    options.temperature = 0.0;
    let mut sampler = Sampler::new(options).map_err(bitnet::Error::from)?;
    let mut sequence = Sequence::new(model.engine(), model.kv_type(), Some(n));
    let mut next = model.config().bos_token_id.unwrap_or_else(|| token(model, 0));
    let began = Instant::now();
    for _ in 0..n {
        sequence.feed(&[next], sampler.request(sequence.len() + 1), &mut |_| ControlFlow::Continue(()))?;
        let position = sequence.len() as u64;
        next = sampler.choose(sequence.prediction(), position, sequence.tokens()).map_err(bitnet::Error::from)?;
        if let Some(rows) = sequence.rescored() {
            (rescored.rows, rescored.tokens) = (rescored.rows + rows, rescored.tokens + 1);
        }
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Tokens that lie all over the vocabulary, the same in every run.
fn token(model: &Model, i: usize) -> u32 {
    let vocab = model.config().vocab_size as u64;
    // A multiple of the golden ratio jumps evenly; below `vocab`, which is far below 2^32.
    ((i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) % vocab) as u32
}

/// Bytes that a decode step reads, in the mean over `n` steps: step i finds i earlier positions and adds its own.
fn bytes_per_token(model: &Model, n: usize, rescored: Rescored) -> u64 {
    let engine = model.engine();
    let kv_token = (model.config().kv_values_per_token() * model.kv_type().bytes()) as u64;
    let kv = kv_token * (n as u64 + 1) / 2;
    let head = match engine.coarse_head_bytes() {
        Some(bytes) if rescored.tokens > 0 => {
            let row = engine.head_bytes() as f64 / model.config().vocab_size as f64;
            bytes as u64 + (rescored.mean() * row) as u64
        }
        _ => engine.head_bytes() as u64,
    };
    engine.packed_bytes() as u64 + head + kv
}

fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

fn as_text(
    r: &Report,
    shape: &str,
    args: &BenchArgs,
    prefill: Option<Vec<f64>>,
    decode: Option<Vec<f64>>,
    ui: &Ui,
) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        text.push_str(&format!("  {} {value}\n", ui.out(Style::Dim, format_args!("{label:<10}"))));
    };
    line("model", format!("{shape}, loaded in {:.2} s", r.load_s));
    let plural = if r.threads == 1 { "thread" } else { "threads" };
    line("with", format!("{}, head {}, kv {}, {} {plural}", r.kernel, r.head, r.kv, r.threads));
    let mut speed = |label: &str, tokens: u32, rates: &Option<Vec<f64>>| {
        let Some(rates) = rates else { return };
        let low = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let high = rates.iter().copied().fold(0.0, f64::max);
        let median = ui.out(Style::Bold, format_args!("{} tokens/s", ui::rate(median(rates))));
        let spread = format!("{tokens} tokens, {} to {} in {} runs", ui::rate(low), ui::rate(high), rates.len());
        line(label, format!("{median}  {}", ui.out(Style::Dim, spread)));
    };
    speed("prefill", args.prompt, &prefill);
    speed("decode", args.new, &decode);
    if let Some(share) = r.bandwidth_share {
        let [before, after] = r.read_bandwidth_gb_s;
        line(
            "bandwidth",
            format!(
                "{:.0} % of {before:.1} GB/s before and {after:.1} GB/s after ({} per token)",
                share * 100.0,
                ui::bytes(r.bytes_per_token)
            ),
        );
    }
    if r.rows_rescored_mean > 0.0 {
        line("head", format!("{:.1} rows computed per token after the coarse pass", r.rows_rescored_mean));
    }
    if let (Some(rss), Some(peak)) = (r.rss_anonymous_mib, r.peak_rss_mib) {
        line("memory", format!("{rss:.0} MiB of our own, {peak:.0} MiB at the peak with mapped files"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
