//! `bitnet ppl`: how well a model predicts a text.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use bitnet::{KvType, Perplexity};
use clap::Args;
use loader::files::{self, Kind};
use serde_json::json;

use crate::error::CliError;
use crate::interrupt::Graceful;
use crate::progress;
use crate::source::{LoadArgs, Loaded};
use crate::ui::{self, Style, Ui};

const AFTER_HELP: &str = "\
The file is tokenized as one text. Window i reads tokens iN .. iN+N-1 and predicts tokens iN+1 .. iN+N; no state is \
carried from one window to the next, and the last window may be shorter. Perplexity is exp(nats per token): lower is \
better. Results are comparable only with the same text, tokenizer and window.

Examples:
  bitnet ppl -m model.gguf --file wiki.test.txt --window 512
  bitnet ppl -m model.gguf --file story.txt --window 256 --json | jq .perplexity
  bitnet ppl -m model.gguf --file story.txt --kv f16       the cost of a smaller KV cache
  bitnet ppl -m model.gguf --file book.txt --window 2048 --by-position 256
  bitnet ppl --file story.txt --no-adapt                   without inner updates of TTT layers";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct PplArgs {
    /// Text to predict, UTF-8
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Window length in tokens [default: the model's context, at most 2048]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    window: Option<u32>,
    /// Put the beginning-of-text token before the text
    #[arg(long)]
    bos: bool,
    /// Use only the first N tokens of the text
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    limit: Option<u32>,
    /// Also report each range of N positions within the windows, to see how much context helps
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    by_position: Option<u32>,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: LoadArgs,
}

pub(crate) fn execute(args: &PplArgs, ui: &Ui) -> Result<(), CliError> {
    let name = args.file.display().to_string();
    let text = files::read_text(&args.file, Kind::TEXT)?;
    let Loaded { model, .. } = args.load.request(KvType::F32).load(ui)?;
    if args.bos && model.config().bos_token_id.is_none() {
        return Err(CliError::usage("--bos: this model has no beginning-of-text token"));
    }
    let mut tokens = model.encode(&text, args.bos)?;
    if let Some(limit) = args.limit {
        tokens.truncate(limit as usize);
    }
    if tokens.len() < 2 {
        return Err(CliError::usage(format!(
            "{name} has {} token(s); at least two are needed to predict one from the other",
            tokens.len()
        )));
    }
    let window = args.window.map_or(model.context().min(2048), |w| w as usize);
    if model.config().context_limit().is_some() && window > model.context() {
        return Err(CliError::usage(format!("--window {window}: this model's context holds {}", model.context())));
    }

    let graceful = Graceful::begin();
    let bar = progress::of_tokens(ui, "perplexity", tokens.len() as u64 - 1);
    let began = Instant::now();
    let mut progress = |done: usize, _: usize| {
        bar.set_position(done as u64);
        if graceful.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stretch = args.by_position.map_or(window, |n| n as usize);
    let stretches =
        bitnet::perplexity_by_position(model.engine(), &tokens, [window, stretch], model.kv_type(), &mut progress)?;
    let p = Perplexity::of_all(&stretches);
    bar.finish_and_clear();
    let summary =
        format!("perplexity {:.4}, {:.5} nats per token, {} tokens", p.perplexity(), p.nats_per_token, p.tokens);
    if graceful.cancelled() {
        ui.note(&format!("so far: {summary}"));
        return Err(CliError::Interrupted);
    }
    if args.json {
        let mut out = json!({ "nats_per_token": p.nats_per_token, "perplexity": p.perplexity(), "tokens": p.tokens });
        if args.by_position.is_some() {
            let one = |(i, s): (usize, &Perplexity)| json!({ "from": i * stretch, "nats_per_token": s.nats_per_token, "tokens": s.tokens });
            out["by_position"] = stretches.iter().enumerate().map(one).collect();
        }
        return ui::print_json(&out);
    }
    if args.by_position.is_some() {
        for (i, s) in stretches.iter().enumerate() {
            let (from, to) = (i * stretch, ((i + 1) * stretch).min(window));
            ui::print_line(format!(
                "{from:>8} to {to:>8}: {:.4} nats per token, {} tokens",
                s.nats_per_token, s.tokens
            ))?;
        }
    }
    let speed = p.tokens as f64 / began.elapsed().as_secs_f64();
    ui.say(
        ui.err(Style::Dim, format_args!("[window {window}, kv {}, {} tok/s]", model.kv_type().name(), ui::rate(speed))),
    );
    ui::print_line(summary)
}
