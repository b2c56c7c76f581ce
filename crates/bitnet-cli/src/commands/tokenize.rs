//! `bitnet tokenize`: text to token ids, and back.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use loader::files::{self, Kind};
use loader::tokenizer::Tokenizer;
use serde_json::json;

use crate::args::{Ids, ModelArgs};
use crate::error::CliError;
use crate::source;
use crate::ui::{self, Style, Ui};

const AFTER_HELP: &str = "\
The text is the argument, --file, or stdin. The ids can be passed to `run --ids` and `logits --ids`.

Examples:
  bitnet tokenize \"Once upon a time\"                    431,442,261,403
  bitnet tokenize --bos --pieces \"Once upon a time\"     one line per token
  bitnet tokenize --decode 431,442,261,403              Once upon a time
  bitnet tokenize --tokenizer tokenizer.json --file story.txt --json";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct TokenizeArgs {
    /// Text, or with --decode the ids [default: stdin]
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    text: Option<String>,
    /// File with the text
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Convert ids to text
    #[arg(short, long, conflicts_with_all = ["bos", "pieces"])]
    decode: bool,
    /// Put the beginning-of-text token in front
    #[arg(long)]
    bos: bool,
    /// Print one line per token: its id and its text
    #[arg(long, conflicts_with = "json")]
    pieces: bool,
    /// With --decode, print special tokens
    #[arg(long, requires = "decode")]
    show_special: bool,
    /// One JSON object on stdout: `ids` and `tokens`, or with --decode `ids` and `text`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

pub(crate) fn execute(args: &TokenizeArgs, ui: &Ui) -> Result<(), CliError> {
    let text = input(args)?;
    let (tokenizer, bos) = tokenizer(&args.model, ui)?;
    if args.decode {
        let ids = text.parse::<Ids>().map_err(CliError::usage)?.0;
        let unknown = |id: &&u32| tokenizer.token_bytes(**id).is_none();
        if let Some(id) = ids.iter().find(unknown) {
            return Err(CliError::usage(format!(
                "token {id} does not exist; the vocabulary has {} tokens",
                tokenizer.vocab_size()
            )));
        }
        let text = tokenizer.decode(&ids, !args.show_special);
        return if args.json { ui::print_json(&json!({ "ids": ids, "text": text })) } else { ui::print_line(text) };
    }
    let mut ids = Vec::new();
    if args.bos {
        let none = || CliError::usage("--bos: there is no beginning-of-text token");
        ids.push(bos.ok_or_else(none)?);
    }
    ids.extend(tokenizer.encode(&text, false).map_err(bitnet::Error::from)?);
    // A text may have millions of tokens: each is written as it comes, in every format.
    let mut out = BufWriter::new(std::io::stdout().lock());
    let form = if args.json {
        Form::Json
    } else if args.pieces {
        Form::Pieces
    } else {
        Form::Ids
    };
    write_ids(&mut out, &tokenizer, &ids, form, ui)
        .and_then(|()| out.flush())
        .map_err(CliError::io("write", "stdout"))?;
    if args.json {
        return Ok(());
    }
    if ui.is_watched() {
        ui.say(ui.err(Style::Dim, format_args!("[{} tokens, {} bytes]", ids.len(), text.len())));
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Form {
    Json,
    Pieces,
    Ids,
}

fn write_ids(out: &mut impl Write, tokenizer: &Tokenizer, ids: &[u32], form: Form, ui: &Ui) -> std::io::Result<()> {
    let piece = |id: u32| String::from_utf8_lossy(tokenizer.token_bytes(id).unwrap_or_default());
    let comma = |index: usize| if index == 0 { "" } else { "," };
    let numbers =
        |out: &mut dyn Write| ids.iter().enumerate().try_for_each(|(index, id)| write!(out, "{}{id}", comma(index)));
    match form {
        Form::Json => {
            out.write_all(b"{\"ids\":[")?;
            numbers(out)?;
            out.write_all(b"],\"tokens\":[")?;
            for (index, id) in ids.iter().enumerate() {
                out.write_all(comma(index).as_bytes())?;
                serde_json::to_writer(&mut *out, &piece(*id))?;
            }
            out.write_all(b"]}\n")
        }
        Form::Pieces => ids
            .iter()
            .try_for_each(|id| writeln!(out, "{id:>7} {}", ui.out(Style::Cyan, format_args!("{:?}", piece(*id))))),
        Form::Ids => {
            numbers(out)?;
            out.write_all(b"\n")
        }
    }
}

/// The tokenizer and the id that begins a text. A `tokenizer.json` is enough; no weight is looked at for it.
fn tokenizer(args: &ModelArgs, ui: &Ui) -> Result<(Tokenizer, Option<u32>), CliError> {
    if let (None, Some(file)) = (&args.model, &args.files.tokenizer) {
        let tokenizer = Tokenizer::from_file(file).map_err(bitnet::Error::from)?;
        let bos = tokenizer.bos();
        return Ok((tokenizer, bos));
    }
    let path = source::locate(args.model.as_ref(), ui)?;
    let loaded = loader::load(&path, &args.files.load_options())?;
    for note in &loaded.notes {
        ui.note(note);
    }
    let bos = loaded.weights.config.bos_token_id;
    Ok((loaded.tokenizer.ok_or(bitnet::Error::NoTokenizer)?, bos))
}

fn input(args: &TokenizeArgs) -> Result<String, CliError> {
    if let Some(text) = &args.text {
        return Ok(text.clone());
    }
    if let Some(file) = &args.file {
        return Ok(files::read_text(file, Kind::TEXT)?);
    }
    let stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        return Err(CliError::usage("no text given: pass it as an argument, with --file, or on stdin"));
    }
    let name = Path::new("stdin");
    Ok(files::text(files::read_stream(stdin, name, Kind::TEXT)?, name)?)
}
