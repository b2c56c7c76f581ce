//! `bitnet run`: a prompt in, text out as it is generated.

mod choose;
#[cfg(feature = "constrain")]
mod constrain;

#[cfg(all(feature = "constrain", feature = "map"))]
pub(crate) use constrain::schema;

use std::io::IsTerminal;
use std::path::Path;

use bitnet::{ChooseBy, FinishReason, GenerateOptions, KvType, Message, Model, Output, Stats};
use clap::Args;
use loader::files::{self, Kind};
use serde_json::json;

use crate::args::{Ids, SamplingArgs};
use crate::choices;
use crate::error::CliError;
use crate::interrupt::Graceful;
use crate::source::{self, LoadArgs, Loaded};
use crate::ui::{self, Style, Ui};

const AFTER_HELP: &str = "\
The prompt is the argument, or --prompt, or stdin. The generated text goes to stdout as it is generated, everything \
else to stderr. Ctrl-C stops the generation; the text so far is kept.

Examples:
  bitnet run \"Once upon a time\"
  bitnet run -m model.gguf --temperature 0 -n 64 \"The capital of France is\"
  bitnet run -m model.gguf --chat \"What is the capital of France?\"
  echo \"Once upon a time\" | bitnet run --seed 7 > story.txt
  bitnet run --ids 0,431,442 --temperature 0 -n 8 --json";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct RunArgs {
    /// Text to continue [default: stdin]
    #[arg(value_name = "PROMPT", conflicts_with_all = ["prompt", "ids"])]
    text: Option<String>,
    /// Text to continue
    #[arg(short, long, conflicts_with = "ids", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Token ids to continue; nothing is added to them
    #[arg(long, value_name = "1,2,3")]
    ids: Option<Ids>,
    /// Treat the prompt as a message and use the model's chat template
    #[arg(long, conflicts_with = "ids")]
    chat: bool,
    /// System message, with --chat
    #[arg(long, requires = "chat", allow_hyphen_values = true)]
    system: Option<String>,
    /// Chat template, with --chat: a Jinja file, or the name of a built-in template
    #[arg(long, value_name = "FILE|NAME", requires = "chat")]
    template: Option<String>,
    /// Put the beginning-of-text token before the prompt [default: according to the model's files]
    #[arg(long, conflicts_with_all = ["no_bos", "ids", "chat"])]
    bos: bool,
    /// Do not add the beginning-of-text token before the prompt
    #[arg(long, conflicts_with_all = ["ids", "chat"])]
    no_bos: bool,
    #[cfg(feature = "constrain")]
    #[command(flatten)]
    constrain: constrain::ConstrainArgs,
    /// Generate nothing; print which of these texts is the most probable continuation
    #[arg(long, value_name = "TEXT", num_args = 1..)]
    choose: Vec<String>,
    /// Score of --choose: the total log-probability, or its mean per token or per byte
    #[arg(long, value_name = "WHAT", value_parser = choices::choose_by(), default_value = "total", requires = "choose")]
    choose_by: ChooseBy,
    /// Also print special tokens
    #[arg(long)]
    show_special: bool,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    load: LoadArgs,
}

#[cfg(test)]
impl RunArgs {
    pub(crate) fn prompt_text(&self) -> Option<&str> {
        self.text.as_deref()
    }
    pub(crate) fn choices(&self) -> &[String] {
        &self.choose
    }
}

pub(crate) fn execute(args: &RunArgs, ui: &Ui) -> Result<(), CliError> {
    let prompt = match (&args.ids, args.text.as_ref().or(args.prompt.as_ref())) {
        (Some(_), _) => None,
        (None, Some(text)) => Some(text.clone()),
        (None, None) => Some(from_stdin()?),
    };
    let template = args.template.as_deref().map(source::template).transpose()?;
    let request = args.load.request(KvType::F16);
    let Loaded { model, .. } = request.chat_template(template).load(ui)?;
    let ids = match (&args.ids, &prompt) {
        (Some(ids), _) => ids.0.clone(),
        (None, prompt) => encode(args, prompt.as_deref().unwrap_or_default(), &model)?,
    };

    if !args.choose.is_empty() {
        let after = match &prompt {
            // The default way of combining the tokens.
            Some(prompt) if !args.chat && !args.bos && !args.no_bos => choose::After::Text(prompt),
            _ => choose::After::Ids(&ids),
        };
        return choose::execute(&model, after, &args.choose, args.choose_by, args.json, ui);
    }

    let mut sampling = source::sampling(&model, &args.sampling);
    let seed = sampling.seed;
    if args.sampling.ignore_eos && args.sampling.max_tokens.is_none() {
        tracing::info!("without --max-tokens, generation continues until the context is full");
    }
    if sampling.temperature == 0.0 {
        // A greedy choice is the same with every seed: show 0 rather than a meaningless number.
        sampling.seed = args.sampling.seed.unwrap_or(0);
    }
    let graceful = Graceful::begin();
    let mut options = GenerateOptions::default().sampling(sampling).cancel(graceful.token());
    let constrained = constrain(args, &mut options, ui)?;
    options.max_tokens = args.sampling.max_tokens;
    options.stop = args.sampling.stop.clone();
    options.show_special = args.show_special;
    options.ignore_eos = args.sampling.ignore_eos;
    options.speculation = source::speculation(&args.sampling);

    // A user may watch a text that is then cut off; a program gets a whole one or none.
    let streaming = !args.json && (!constrained || ui.is_interactive());
    if let Some(prompt) = prompt.as_deref().filter(|_| streaming && !args.chat && ui.is_interactive()) {
        // A person sees one text: the prompt, and how it goes on.
        ui.echo(prompt);
    }
    let mut session = model.session();
    let mut generation = session.generate_ids(&ids, options)?;
    let mut printed = String::new();
    for chunk in generation.by_ref() {
        let chunk = chunk?;
        if streaming {
            let piece = match (model.tokenizer(), chunk.token) {
                (Some(_), _) => chunk.text,
                // Without a tokenizer the ids are the text.
                (None, Some(id)) if printed.is_empty() => id.to_string(),
                (None, Some(id)) => format!(",{id}"),
                (None, None) => String::new(),
            };
            ui::print(&piece)?;
            if !piece.is_empty() {
                printed = piece;
            }
        }
    }
    let output = generation.finish()?;
    if constrained && !streaming && !args.json {
        printed = output.text.clone().unwrap_or_default();
        ui::print(&printed)?;
    }
    finish(args, &output, &model, seed, ends_open(&printed, &prompt, ui), ui)?;
    // The process ends: the system takes its memory back faster than it is given back piece by piece.
    std::mem::forget((session, model));
    match output.finish_reason {
        FinishReason::Cancelled => Err(CliError::Interrupted),
        _ => Ok(()),
    }
}

/// Adds the requested constraint to `options`; returns whether there is one.
#[cfg(feature = "constrain")]
fn constrain(args: &RunArgs, options: &mut GenerateOptions, ui: &Ui) -> Result<bool, CliError> {
    options.constraint = args.constrain.constraint()?;
    let notes = options.constraint.as_ref().map(|c| c.notes()).transpose().map_err(bitnet::Error::from)?;
    for note in notes.into_iter().flatten() {
        ui.note(&note);
    }
    Ok(options.constraint.is_some())
}

#[cfg(not(feature = "constrain"))]
fn constrain(_: &RunArgs, _: &mut GenerateOptions, _: &Ui) -> Result<bool, CliError> {
    Ok(false)
}

/// Whether the cursor of a terminal is not at the beginning of a line.
fn ends_open(printed: &str, prompt: &Option<String>, ui: &Ui) -> bool {
    match printed {
        "" => prompt.is_some() && ui.is_interactive(),
        text => !text.ends_with('\n'),
    }
}

fn finish(args: &RunArgs, output: &Output, model: &Model, seed: u64, open: bool, ui: &Ui) -> Result<(), CliError> {
    if args.json {
        let s = &output.stats;
        let mut answer = json!({
            "ids": output.ids,
            "text": output.text,
            "finish_reason": output.finish_reason.name(),
            "stats": {
                "prompt_tokens": s.prompt_tokens,
                "new_tokens": s.new_tokens,
                "prefill_tok_s": s.prefill_tok_s(),
                "decode_tok_s": s.decode_tok_s(),
                "prefill_s": s.prefill.as_secs_f64(),
                "decode_s": s.decode.as_secs_f64(),
                "coarse_tokens": s.coarse_tokens,
                "rows_rescored_mean": s.rescored_per_token(),
                "drafted": s.drafted,
                "accepted": s.accepted,
                "forced_tokens": s.forced_tokens,
                "seed": seed,
                "threads": model.engine().threads(),
                "kernel": model.engine().kernel_name(),
                "kv": model.kv_type().name(),
            },
        });
        // Where the text was cut within a character.
        if !output.incomplete.is_empty() {
            answer["incomplete"] = json!(output.incomplete);
        }
        return ui::print_json(&answer);
    }
    if open {
        // The last line of a text is a line, also in a file.
        ui::print("\n")?;
    }
    if ui.is_watched() {
        ui.say(ui.err(Style::Dim, format_args!("{}, seed {seed}", stats_line(&output.stats, output.finish_reason))));
    }
    Ok(())
}

/// One line with the statistics of a generation.
pub(crate) fn stats_line(s: &Stats, reason: FinishReason) -> String {
    let reused = match s.reused_tokens {
        0 => String::new(),
        n => format!(" (+{n} cached)"),
    };
    let head = match s.coarse_tokens {
        0 => String::new(),
        _ => format!(" ({:.0} head rows each)", s.rescored_per_token()),
    };
    let drafted = match s.drafted {
        0 => String::new(),
        n => format!(", {} of {n} draft tokens accepted", s.accepted),
    };
    let why = match reason {
        FinishReason::Stop => "end of text",
        FinishReason::Length => "token limit",
        FinishReason::Cancelled => "interrupted",
        _ => "ended",
    };
    format!(
        "[prompt {} tokens{reused} at {} tok/s, generated {} tokens at {} tok/s{head}{drafted}, {why}]",
        s.prompt_tokens,
        ui::rate(s.prefill_tok_s()),
        s.new_tokens,
        ui::rate(s.decode_tok_s()),
    )
}

fn encode(args: &RunArgs, prompt: &str, model: &Model) -> Result<Vec<u32>, CliError> {
    if args.chat {
        let system = args.system.iter().map(|s| Message::system(s.as_str()));
        let messages: Vec<Message> = system.chain([Message::user(prompt)]).collect();
        return Ok(model.encode_chat(&messages)?);
    }
    let bos = args.bos || (!args.no_bos && model.adds_bos());
    if args.bos && model.config().bos_token_id.is_none() {
        return Err(CliError::usage("--bos: this model has no beginning-of-text token"));
    }
    Ok(model.encode(prompt, bos)?)
}

/// The prompt from stdin, without the line end that `echo` appends.
fn from_stdin() -> Result<String, CliError> {
    let stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        return Err(CliError::usage(
            "no prompt given: pass one as in `bitnet run \"Once upon a time\"`, or try `bitnet chat`",
        ));
    }
    let name = Path::new("stdin");
    let mut text = files::text(files::read_stream(stdin, name, Kind::TEXT)?, name)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
