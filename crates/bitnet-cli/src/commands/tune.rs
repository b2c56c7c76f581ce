//! `bitnet tune`: which kernels are the fastest for a model on this machine.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use bitnet::{Isa, KernelError, ModelConfig, ModelError, TuneOptions, TuneReport};
use clap::Args;
use serde_json::{Value, json};
use ternary_kernels::tune::{Measurement, Phase, Shape};

use crate::args::{ModelArgs, parse_isa};
use crate::error::CliError;
use crate::interrupt::Graceful;
use crate::process;
use crate::progress;
use crate::source;
use crate::ui::{self, Style, Ui};

const AFTER_HELP: &str = "\
Measures every kernel that this CPU supports on the model's matrix shapes, with one token (decode) and with many \
(prefill). Weights come from memory or from the CPU cache, as in real use. Since weights are packed once, for one \
kernel, both phases are weighted. The fastest kernels are stored in the cache folder and used whenever a model of \
these shapes is loaded with the same number of threads. The output does not depend on it: only exact kernels are \
chosen.

Examples:
  bitnet tune -m model.gguf
  bitnet tune -m synthetic:2b4t -t 1 --dry-run    measure only
  bitnet tune -m model.gguf --prompt-per-token 20 for long prompts and short answers
  bitnet run -m model.gguf --kernel default       ignore the stored result";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct TuneArgs {
    /// Time budget in seconds; at least three rounds are always measured
    #[arg(long, value_name = "S", default_value_t = 4.0, value_parser = parse_seconds)]
    budget: f64,
    /// Number of prompt tokens
    #[arg(short, long, value_name = "P", default_value_t = 128, value_parser = clap::value_parser!(u16).range(2..=4096))]
    prompt: u16,
    /// Prompt tokens per generated token: the weight of prefill against decode
    #[arg(long, value_name = "R", default_value_t = 1.0, value_parser = parse_ratio)]
    prompt_per_token: f64,
    /// Also measure rounding kernels; they are never chosen, only --kernel NAME uses them
    #[arg(long)]
    inexact: bool,
    /// Do not store the result
    #[arg(long)]
    dry_run: bool,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
    /// Number of threads [default: one per core available to this process]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Measure only kernels of this instruction set, for models loaded with it
    #[arg(long, value_name = "NAME", value_parser = parse_isa)]
    isa: Option<Isa>,
    #[command(flatten)]
    model: ModelArgs,
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|s| (0.0..=3600.0).contains(s));
    seconds.ok_or_else(|| format!("{text:?} is not a number of seconds from 0 to 3600"))
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse::<f64>().ok().filter(|r| (0.0..=1e6).contains(r));
    ratio.ok_or_else(|| format!("{text:?} is not a number from 0 to 1000000"))
}

pub(crate) fn execute(args: &TuneArgs, ui: &Ui) -> Result<(), CliError> {
    let (name, config) = source::shape(&args.model, ui)?;
    let threads = args.threads.and_then(|n| NonZeroUsize::new(usize::from(n))).unwrap_or_else(process::threads);
    let mut options = TuneOptions::new(threads);
    options.isa = args.isa;
    options.budget = Duration::from_secs_f64(args.budget);
    options.prefill_tokens = usize::from(args.prompt);
    options.prompt_per_token = args.prompt_per_token;
    options.inexact = args.inexact;

    let graceful = Graceful::begin();
    let bar = progress::of_steps(ui, "measuring", 100);
    let report = bitnet::tune(&config, &options, &mut |done| {
        bar.set_position((done * 100.0) as u64);
        if graceful.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    drop(graceful);
    let report = match report {
        Err(bitnet::Error::Model(ModelError::Kernel(KernelError::Cancelled { .. }))) => {
            return Err(CliError::Interrupted);
        }
        other => other?,
    };
    let stored = match args.dry_run {
        true => None,
        false => Some(bitnet::store_tuning(&config, &options, &report, None)?),
    };
    let result = Tuned { name, config, options, report, stored };
    if args.json { ui::print_json(&result.as_json()) } else { ui::print(&result.as_text(ui)) }
}

struct Tuned {
    name: String,
    config: ModelConfig,
    options: TuneOptions,
    report: TuneReport,
    stored: Option<PathBuf>,
}

impl Tuned {
    /// Kinds of layers that use this kernel for matrices of this shape.
    fn used_by(&self, m: &Measurement) -> Vec<&'static str> {
        let has_shape = |group: &bitnet::ProjectionGroup| {
            let same = |s: &Shape| (s.rows, s.cols, s.int4) == (m.rows, m.cols, m.int4);
            group.tune_group(&self.config).shapes.iter().any(same)
        };
        let chosen = |name: &str| self.report.choices.iter().any(|c| c.group == name && c.kernel == m.kernel);
        let kinds = bitnet::ProjectionGroup::ALL.into_iter().filter(has_shape).map(bitnet::ProjectionGroup::name);
        kinds.filter(|name| chosen(name)).collect()
    }

    fn as_json(&self) -> Value {
        let r = &self.report;
        let measurements = r.measurements.iter().map(|m| {
            json!({
                "rows": m.rows, "cols": m.cols, "bits": if m.int4 { 4 } else { 8 }, "phase": m.phase.name(),
                "kernel": m.kernel, "seconds": m.seconds,
                "bytes": m.bytes, "gb_s": m.gb_s(), "gop_s": m.gop_s(), "used_by": self.used_by(m),
            })
        });
        let choices = r
            .choices
            .iter()
            .map(|c| json!({ "kind": c.group, "kernel": c.kernel, "of_default": c.of_default, "why": c.why }));
        json!({
            "model": self.name,
            "ternary_weights": self.config.ternary_weights(),
            "threads": r.threads,
            "isa": self.options.isa.map(Isa::name),
            "default": r.default,
            "from_memory": r.from_memory,
            "prefill_tokens": self.options.prefill_tokens,
            "prompt_per_token": self.options.prompt_per_token,
            "rounds": r.rounds,
            "seconds": r.elapsed.as_secs_f64(),
            "measurements": measurements.collect::<Vec<_>>(),
            "left_out": r.dropped.iter().map(|d| json!({ "kernel": d.kernel, "times": d.times })).collect::<Vec<_>>(),
            "choices": choices.collect::<Vec<_>>(),
            "stored": self.stored.as_ref().map(|p| p.display().to_string()),
        })
    }

    fn as_text(&self, ui: &Ui) -> String {
        let r = &self.report;
        let plural = if r.threads == 1 { "thread" } else { "threads" };
        let mut text = format!(
            "{}\n  {} ternary weights from {}, {} {plural}, {} rounds in {:.1} s\n",
            ui.out(Style::Bold, &self.name),
            ui::count(self.config.ternary_weights()),
            if r.from_memory { "memory" } else { "the cache" },
            r.threads,
            r.rounds,
            r.elapsed.as_secs_f64(),
        );
        let width = r.measurements.iter().map(|m| m.kernel.len()).max().unwrap_or(0);
        let head =
            format!("  {:<12} {:<8} {:<width$} {:>11} {:>12}  used by", "shape", "phase", "kernel", "time", "rate");
        text.push_str(&format!("{}\n", ui.out(Style::Dim, head)));
        let mut before = (0, 0, false, None);
        for m in &r.measurements {
            let shape = match (m.rows, m.cols, m.int4) == (before.0, before.1, before.2) {
                true => String::new(),
                false => format!("{}x{}{}", m.rows, m.cols, if m.int4 { " a4" } else { "" }),
            };
            let phase = if shape.is_empty() && before.3 == Some(m.phase) { "" } else { m.phase.name() };
            let rate = match m.phase {
                Phase::Decode => format!("{} GB/s", ui::rate(m.gb_s())),
                Phase::Prefill => format!("{} GOP/s", ui::rate(m.gop_s())),
            };
            let used = self.used_by(m).join(", ");
            text.push_str(&format!(
                "  {shape:<12} {phase:<8} {:<width$} {:>8} µs {rate:>12}  {}\n",
                m.kernel,
                ui::rate(m.seconds * 1e6),
                ui.out(Style::Green, used),
            ));
            before = (m.rows, m.cols, m.int4, Some(m.phase));
        }
        let mut line = |label: &str, value: String| {
            text.push_str(&format!("  {} {value}\n", ui.out(Style::Dim, format_args!("{label:<12}"))));
        };
        if !r.dropped.is_empty() {
            let each = r.dropped.iter().map(|d| format!("{} ({:.1} times as long)", d.kernel, d.times));
            line("left out", each.collect::<Vec<_>>().join(", "));
        }
        for c in &r.choices {
            line(&c.group, format!("{} {}", ui.out(Style::Bold, format_args!("{:<width$}", c.kernel)), c.why));
        }
        match &self.stored {
            Some(path) => line("stored", path.display().to_string()),
            None => line("stored", "nothing".to_owned()),
        }
        text
    }
}
