//! `bitnet bench`: tokens per second, and how much of the memory bandwidth that is.

mod disturbed;
mod steps;
mod text;

use bitnet::{KvType, Model};
use clap::Args;
use disturbed::{Beside, SlowWorker};
use serde::Serialize;
use steps::{Measured, Rescored, decode, measure, prefill, together};

use super::beside::Busy;
use crate::error::CliError;
use crate::model_spec::ModelSpec;
use crate::process;
use crate::progress;
use crate::source::{self, LoadArgs, Loaded};
use crate::ui::{self, Ui};

const AFTER_HELP: &str = "\
Prefill reads P tokens at once into an empty context; decode generates N tokens one by one from an empty context. \
Both figures are medians over the repetitions, after one warm-up run. Embedding models embed one text of P tokens \
instead. Memory bandwidth is measured before and after in a separate process with the same number of threads: decode \
has to read bytes_per_token bytes per token, so the share tells how close it runs to this machine's limit.

Examples:
  bitnet bench -m model.gguf
  bitnet bench -m synthetic:2b4t -p 128 -n 32 -t 2 --json
  bitnet bench -m model.gguf --isa scalar        compare instruction sets
  bitnet bench -m model.gguf -p 0 --context 1024 decode after 1024 tokens
  bitnet bench -p 1024 -n 64 --sessions 16       many sequences in one batch
  bitnet bench -m model.gguf --beside 2          measure beside two other busy programs
  bitnet bench -m model.gguf --slow-worker 2.5   measure with a core that is 2.5 times slower";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct BenchArgs {
    /// Number of prompt tokens; 0 skips prefill
    #[arg(short, long, value_name = "P", default_value_t = 128)]
    prompt: u32,
    /// Number of tokens to generate; 0 skips decode
    #[arg(short, long, value_name = "N", default_value_t = 32)]
    new: u32,
    /// Number of tokens already in the context of each sequence when decode starts; not measured
    #[arg(long, value_name = "C", default_value_t = 0)]
    context: u32,
    /// Fill the KV cache of the context with dummy values instead of reading tokens, which is slow for long contexts;
    /// for models with attention only
    #[arg(long, requires = "context", conflicts_with = "sessions")]
    fill: bool,
    /// Number of sequences decoded in one batch; the speed is the total of all. --context must then be a multiple of 64
    #[arg(long, value_name = "S", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1024))]
    sessions: u32,
    /// Number of repetitions; the median is reported
    #[arg(short, long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=1000))]
    repetitions: u32,
    /// Measure again next to N busy processes, and report the remaining share of the speed
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1024))]
    beside: u32,
    /// Measure again with the last thread F times slower, as on a CPU with unlike cores, and report the share of the sum of
    /// all threads' speeds; needs two threads
    #[arg(long, value_name = "F", value_parser = disturbed::times)]
    slow_worker: Option<f32>,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
    /// With --json, add an object `details`: ranges, time to first token, energy
    #[arg(long, requires = "json")]
    details: bool,
    #[command(flatten)]
    load: LoadArgs,
}

/// Tokens that a text among several reads in a step. After whole steps of a context the next one reads the token with
/// which the measurement begins.
const PROMPT_STEP: usize = bitnet::Batch::PROMPT_STEP;

/// The output of `--json`. Scripts rely on these names.
#[derive(Debug, Serialize)]
struct Report {
    /// Median over the repetitions; null if nothing was read.
    prefill_tok_s: Option<f64>,
    /// Median over the repetitions; null if nothing was generated.
    decode_tok_s: Option<f64>,
    /// Bytes that one decode step reads: packed weights, head, mean of keys and values.
    bytes_per_token: u64,
    /// Before and after, in GB/s.
    read_bandwidth_gb_s: [f64; 2],
    /// Fraction of the mean of the two.
    bandwidth_share: Option<f64>,
    rss_anonymous_mib: Option<f64>,
    peak_rss_mib: Option<f64>,
    /// Pages of mapped files, which processes share.
    #[serde(skip)]
    rss_file_mib: Option<f64>,
    load_s: f64,
    kernel: String,
    head: String,
    kv: &'static str,
    isa: &'static str,
    threads: usize,
    /// Rows of the head that were computed after the coarse pass, per token; 0 without a coarse pass.
    rows_rescored_mean: f64,
    /// Only if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    beside: Option<Beside>,
    /// Only if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    slow_worker: Option<SlowWorker>,
    /// Only where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

/// The object that `--details` adds.
#[derive(Debug, Serialize)]
struct Details {
    /// Tokens before those that were generated.
    context: u32,
    /// Texts that were generated together.
    sessions: u32,
    /// Parameters of the model, the head and full-precision parameters included.
    parameters: u64,
    vocabulary: usize,
    /// Keys, values and states of test-time training at the end of a text that was decoded alone.
    session_bytes: Option<usize>,
    /// Least and most of the repetitions.
    prefill_range: Option<[f64; 2]>,
    /// Least and most of the repetitions.
    decode_range: Option<[f64; 2]>,
    /// Loading, and the first reading of the prompt after it.
    first_token_s: Option<f64>,
    /// Energy of the whole CPU package by its own meter, idle share included; null without a meter.
    decode_joules_per_token: Option<f64>,
    prefill_joules_per_token: Option<f64>,
    /// Kernels by projection group.
    kernels: serde_json::Value,
    /// While the texts are there.
    memory: Option<Memory>,
}

/// Memory while texts are generated.
#[derive(Clone, Copy, Debug, Serialize)]
struct Memory {
    /// Anonymous memory of the process, in MiB.
    anonymous_mib: Option<f64>,
    /// Pages of mapped files in memory, which processes share, in MiB.
    mapped_mib: Option<f64>,
    /// Anonymous memory before the first text.
    anonymous_before_mib: Option<f64>,
    /// Bytes of the state of all texts, computed from their tokens.
    state_bytes: usize,
    /// Counted: codes of activations, room for the widest row and the most tokens that passed together.
    activation_bytes: usize,
    /// Counted: all other buffers of a forward step.
    working_bytes: usize,
}

pub(crate) fn execute(args: &BenchArgs, ui: &Ui) -> Result<(), CliError> {
    if args.prompt == 0 && args.new == 0 {
        return Err(CliError::usage("nothing to measure: -p and -n are both 0"));
    }
    let threads = args.load.engine.threads.map_or(process::threads().get(), usize::from);
    // A model that is missing or damaged shows before the probe takes its time.
    let path = source::locate(args.load.model.model.as_ref(), ui)?;
    let mut load = args.load.clone();
    load.model.model = Some(ModelSpec::Path(path));

    let before = probe(threads, ui)?;
    let Loaded { model, load_time } = load.request(KvType::F16).load(ui)?;
    let headless = model.config().headless;
    let (p, context) = (args.prompt as usize, args.context as usize);
    let n = if headless { 0 } else { args.new as usize };
    if p + n == 0 {
        return Err(CliError::usage("an embedding model generates no text; -p N measures how fast it reads"));
    }
    if p.max(context.saturating_add(n)) > model.context() {
        return Err(CliError::usage(format!("this model's context is limited to {} tokens", model.context())));
    }
    let rounds = args.repetitions as usize;
    if args.sessions > 1 && !context.is_multiple_of(PROMPT_STEP) {
        let says = format!("with --sessions, --context must be a multiple of {PROMPT_STEP}");
        return Err(CliError::usage(says));
    }
    if args.fill && model.config().is_recurrent() {
        return Err(CliError::usage("--fill: models with states of constant size must read the context"));
    }
    if args.slow_worker.is_some() && model.engine().threads() < 2 {
        return Err(CliError::usage("--slow-worker compares threads with one another: give it two at least (-t 2)"));
    }
    let sessions = args.sessions as usize;
    let mut session_bytes = None;
    let mut rescored = Rescored::default();
    let before_mib = process::status_mib("RssAnon");
    let mut memory = None;
    let mut note = |state_bytes: usize| {
        memory = Some(Memory {
            anonymous_mib: process::status_mib("RssAnon"),
            mapped_mib: process::status_mib("RssFile"),
            anonymous_before_mib: before_mib,
            state_bytes,
            activation_bytes: model.engine().activation_bytes(),
            working_bytes: model.engine().working_bytes(),
        });
    };
    let mut both = || -> Result<[Option<Measured>; 2], CliError> {
        let prefill = (p > 0).then(|| measure(ui, "prefill", rounds, p, || prefill(&model, p))).transpose()?;
        let decode = (n > 0).then(|| match sessions {
            1 => {
                let context = (context, args.fill);
                decode(&model, ui, rounds, n, context, &mut rescored, &mut note).map(|(measured, bytes)| {
                    session_bytes = Some(bytes);
                    measured
                })
            }
            _ => together(&model, ui, rounds, [n, context, sessions], &mut rescored, &mut note),
        });
        Ok([prefill, decode.transpose()?])
    };
    let [prefill, decode] = both()?;
    let beside = match args.beside {
        0 => None,
        busy => {
            let processes = Busy::start(busy)?;
            let [p, d] = both()?;
            drop(processes);
            Some(Beside::of(busy, model.engine().threads(), [&prefill, &decode], [&p, &d]))
        }
    };
    let slow_worker = match args.slow_worker {
        None => None,
        Some(times) => {
            let engine = model.engine();
            engine.slow_worker(f32::INFINITY);
            let [p, d] = both()?;
            engine.slow_worker(times);
            let [slow_p, slow_d] = both()?;
            engine.slow_worker(1.0);
            let speeds = [[&prefill, &p, &slow_p], [&decode, &d, &slow_d]];
            Some(SlowWorker::of(times, engine.threads(), speeds))
        }
    };
    // While the model is still in memory.
    let [rss, mapped, peak] = ["RssAnon", "RssFile", "VmHWM"].map(process::status_mib);
    let engine = model.engine();
    let decode_tok_s = decode.as_ref().map(|m| m.rates.median());
    let details = args.details.then(|| Details {
        context: args.context,
        sessions: args.sessions,
        parameters: model.config().parameters(),
        vocabulary: model.config().vocab_size,
        session_bytes,
        prefill_range: prefill.as_ref().map(|m| m.rates.range()),
        decode_range: decode.as_ref().map(|m| m.rates.range()),
        first_token_s: prefill.as_ref().map(|m| load_time.as_secs_f64() + m.first_s),
        decode_joules_per_token: decode.as_ref().and_then(|m| m.joules_per_token),
        prefill_joules_per_token: prefill.as_ref().and_then(|m| m.joules_per_token),
        kernels: ui::kernels_json(model.kernels()),
        memory,
    });
    let by = ui::chosen_by(model.kernels());
    let mut report = Report {
        prefill_tok_s: prefill.as_ref().map(|m| m.rates.median()),
        decode_tok_s,
        bytes_per_token: bytes_per_token(&model, context, n, sessions, rescored),
        read_bandwidth_gb_s: [before, before],
        bandwidth_share: None,
        rss_anonymous_mib: rss,
        peak_rss_mib: peak,
        rss_file_mib: mapped,
        load_s: load_time.as_secs_f64(),
        kernel: engine.kernel_name().to_owned(),
        head: head_name(engine),
        kv: model.kv_type().name(),
        isa: engine.isa().name(),
        threads: engine.threads(),
        rows_rescored_mean: rescored.mean(),
        beside,
        slow_worker,
        details,
    };
    let shape = format!("{} weights, {} ternary", ui::count(model.config().parameters()), model.info().ternary_format);
    // The threads of the engine must not disturb the following measurement.
    drop(model);
    report.read_bandwidth_gb_s[1] = probe(threads, ui)?;
    let mean = report.read_bandwidth_gb_s.iter().sum::<f64>() / 2.0;
    report.bandwidth_share = decode_tok_s.map(|rate| report.bytes_per_token as f64 * rate / (mean * 1e9));
    if args.json {
        ui::print_json(&report)
    } else {
        ui::print(&text::as_text(&report, [&shape, by], args, prefill, decode, ui))
    }
}

fn probe(threads: usize, ui: &Ui) -> Result<f64, CliError> {
    let spinner = progress::spinner(ui, "measuring memory bandwidth");
    let gb_s = process::bandwidth_in_child(threads);
    spinner.finish_and_clear();
    gb_s
}

/// The type of the head; `+6bit` if the best token is found by a pass over six bits of each weight first.
fn head_name(engine: &bitnet::Engine) -> String {
    let stored = engine.head_type();
    if engine.coarse_head_bytes().is_some() { format!("{stored}+6bit") } else { stored }
}

/// Bytes that a decode step reads, in the mean over `n` steps after `context` tokens: step i finds `context + i`
/// earlier positions and adds its own. Texts that step together share the weights.
fn bytes_per_token(model: &Model, context: usize, n: usize, sessions: usize, rescored: Rescored) -> u64 {
    let engine = model.engine();
    let kv_token = model.kv_type().token_bytes(model.config()) as u64;
    let kv = kv_token * (2 * context as u64 + n as u64 + 1) / 2;
    let (shared, own) = match engine.coarse_head_bytes() {
        Some(bytes) if rescored.tokens > 0 => {
            let row = engine.head_bytes() as f64 / model.config().vocab_size as f64;
            (bytes, (rescored.mean() * row) as u64)
        }
        _ => (engine.head_bytes(), 0),
    };
    // A token reads the states of constant size of its text, at any position.
    let state = model.session().state().constant_bytes() as u64;
    ((engine.packed_bytes() + shared) / sessions) as u64 + own + kv + state
}
