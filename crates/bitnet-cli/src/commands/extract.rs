//! `bitnet extract`: intents and slots of utterances.

use std::io::{BufRead, IsTerminal as _};

use bitnet::{Extraction, Extractor, ExtractorTask};
use clap::Args;
use loader::files::{FileError, Kind};
use serde_json::{Value, json};

use crate::error::CliError;
use crate::model_spec::ModelSpec;
use crate::source;
use crate::ui::{self, Style, Ui};

const AFTER_HELP: &str = "\
An extractor is a model that `bitnet train --task extract` makes. It names the intent of an utterance and its slots, \
or says that the utterance is out of scope. Prints a few lines per text, or with --json one object per line.

Examples:
  bitnet extract -m home.gguf \"switch on teh light in the kitchen\"
  bitnet extract -m home.gguf --task rooms --json \"kitchen and hall\"
  bitnet extract -m home.gguf --json < utterances.txt > answers.jsonl";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ExtractArgs {
    /// Texts to read [default: one a line on stdin]
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// The extractor: a GGUF file, or a folder with config.json and model.safetensors
    #[arg(short, long, value_name = "MODEL", value_parser = ModelSpec::parser())]
    model: ModelSpec,
    /// Task of the extractor [default: its first]
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// One JSON object per text: text, intent, confidence, out_of_scope, slots with byte ranges, cut
    #[arg(long)]
    json: bool,
}

/// The longest line that is read, in bytes.
const LINE: Kind = Kind::new("a line", 16 << 20);

pub(crate) fn execute(args: &ExtractArgs, ui: &Ui) -> Result<(), CliError> {
    let path = source::locate(Some(&args.model), ui)?;
    let extractor = Extractor::load(&path)?;
    let name = args.task.as_deref().unwrap_or(&extractor.config().tasks[0].name);
    let task = extractor.task(name)?;
    for text in &args.texts {
        answer(task, text, args.json, ui)?;
    }
    if !args.texts.is_empty() {
        return Ok(());
    }
    let mut stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        return Err(CliError::usage("no text given: pass texts as arguments, or one a line on stdin"));
    }
    // Line by line, so that a program may keep the command and ask it again and again.
    let mut line = Vec::new();
    let mut offset = 0;
    while next_line(&mut stdin, &mut line)? {
        let text = std::str::from_utf8(&line)
            .map_err(|e| CliError::NotUtf8 { what: "stdin".to_owned(), at: offset + e.valid_up_to() })?;
        let text = text.trim_end_matches(['\n', '\r']);
        answer(task, text, args.json, ui)?;
        offset += line.len();
    }
    Ok(())
}

/// Reads a line with its end into `line`; `false` at the end of the stream.
fn next_line(stream: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool, CliError> {
    use std::io::Read as _;
    line.clear();
    let mut bounded = stream.by_ref().take(LINE.max + 1);
    bounded.read_until(b'\n', line).map_err(CliError::io("read", "stdin"))?;
    if line.len() as u64 > LINE.max {
        let Kind { what, max } = LINE;
        return Err(FileError::TooLarge { path: "stdin".into(), what, len: line.len() as u64, max }.into());
    }
    Ok(!line.is_empty())
}

fn answer(task: ExtractorTask<'_>, text: &str, json: bool, ui: &Ui) -> Result<(), CliError> {
    let found = task.extract(text)?;
    if json {
        return ui::print_line(as_json(text, &found));
    }
    let percent = format!("({:.0} %)", 100.0 * found.confidence);
    let intent = match found.out_of_scope {
        true => format!("{}, likeliest {} {percent}", ui.out(Style::Red, "out of scope"), found.intent),
        false => format!("{} {percent}", ui.out(Style::Bold, &found.intent)),
    };
    ui::print_line(intent)?;
    for slot in &found.slots {
        ui::print_line(format_args!("  {} = {}", ui.out(Style::Cyan, &slot.name), slot.value))?;
    }
    if found.cut {
        ui.note("only the first words of a text are read; the rest was left out");
    }
    Ok(())
}

fn as_json(text: &str, found: &Extraction) -> Value {
    let slots: Vec<Value> = found
        .slots
        .iter()
        .map(|s| json!({ "name": s.name, "value": s.value, "start": s.range.start, "end": s.range.end }))
        .collect();
    json!({
        "text": text,
        "intent": found.intent,
        "confidence": found.confidence,
        "out_of_scope": found.out_of_scope,
        "slots": slots,
        "cut": found.cut,
    })
}
