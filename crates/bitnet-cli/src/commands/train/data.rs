//! From the given files to tokenizer and token files.

use std::path::{Path, PathBuf};

use bitnet::ModelConfig;
use bitnet::train::{
    Split, TextFormat, TokenFile, TokenWidth, TrainConfig, for_each_document, for_each_example, holds_examples,
};
use loader::files::{self, Kind};
use loader::tokenizer::Tokenizer;
use loader::tokenizer::train::{END_OF_TEXT, train_bpe};

use super::{TrainArgs, name};
use crate::error::CliError;
use crate::progress;
use crate::ui::{self, Ui};

/// Text that a tokenizer learns from at most, bytes.
const TOKENIZER_TEXT: usize = 256 << 20;

/// The path of the run's tokenizer.
pub(super) fn tokenizer_path(out: &Path) -> PathBuf {
    out.join("tokenizer.json")
}

/// The token that ends a document.
pub(super) fn eos_of(t: &Tokenizer) -> Option<u32> {
    let known = [END_OF_TEXT, "<|endoftext|>", "</s>"];
    t.eos().first().copied().or_else(|| known.iter().find_map(|name| t.id_of(name)))
}

/// Bytes that are tokenised at once, if a line ends thereabouts: a tokenizer needs many times the memory of its text.
const PIECE: usize = 1 << 20;

/// A document in pieces that end at line ends; one piece if it is short or has no line ends.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = match rest.as_bytes().get(PIECE..).and_then(|after| after.iter().position(|b| *b == b'\n')) {
            Some(at) => PIECE + at + 1,
            None => rest.len(),
        };
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Whether the data are examples; the first file decides.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn are_examples(args: &TrainArgs) -> Result<bool, CliError> {
    match args.data.first() {
        Some(path) if TextFormat::of_path(path) == TextFormat::JsonLines => Ok(holds_examples(path)?),
        _ => Ok(false),
    }
}

/// The tokenizer that was given, learned, or left in OUT by an earlier run; it is copied to OUT.
///
/// # Errors
/// Files that cannot be read or written; a tokenizer that cannot be learned.
pub(super) fn tokenizer(args: &TrainArgs, ui: &Ui) -> Result<Option<Tokenizer>, CliError> {
    let kept = tokenizer_path(&args.out);
    let usage = |e: loader::tokenizer::TokenizerError| CliError::usage(e.to_string());
    if !kept.is_file() || !args.resume {
        let json = if let Some(file) = &args.tokenizer {
            let json = files::read_text(file, Kind::TOKENIZER)?;
            // An invalid tokenizer is rejected before it is copied.
            Tokenizer::from_bytes(json.as_bytes()).map_err(|e| CliError::usage(format!("{}: {e}", name(file))))?;
            json
        } else if let Some(n) = args.train_tokenizer {
            let spinner = progress::spinner(ui, "learning a tokenizer");
            let json = train_bpe(&texts(args)?, n as usize).map_err(usage)?;
            spinner.finish_and_clear();
            json
        } else {
            return Ok(None);
        };
        files::write(&kept, json.as_bytes())?;
    }
    Tokenizer::from_file(&kept).map(Some).map_err(usage)
}

/// Documents for a tokenizer to learn from.
fn texts(args: &TrainArgs) -> Result<Vec<String>, CliError> {
    let (mut texts, mut bytes) = (Vec::new(), 0);
    let mut keep = |text: &str| {
        if bytes < TOKENIZER_TEXT {
            bytes += text.len();
            texts.push(text.to_owned());
        }
        Ok(())
    };
    let examples = are_examples(args)?;
    for path in args.data.iter().filter(|p| TokenWidth::of_path(p).is_none()) {
        if examples {
            for_each_example(path, &mut |e| keep(e.prompt).and_then(|()| keep(e.completion)))?;
        } else {
            for_each_document(path, TextFormat::of_path(path), &mut keep)?;
        }
    }
    match texts.is_empty() {
        true => Err(CliError::usage("--train-tokenizer needs text in --data")),
        false => Ok(texts),
    }
}

/// Tokens to learn from and tokens to validate with.
///
/// # Errors
/// No data; files that cannot be read or written; text without a tokenizer.
pub(super) fn token_files(
    args: &TrainArgs,
    config: &TrainConfig,
    model: &ModelConfig,
    tokenizer: Option<&Tokenizer>,
    ui: &Ui,
) -> Result<[Option<TokenFile>; 2], CliError> {
    // Ids of examples include whether they are given.
    let width = if config.examples { TokenWidth::U32 } else { TokenWidth::for_vocab(model.vocab_size) };
    let ending = if width == TokenWidth::U16 { "u16" } else { "u32" };
    let folder = args.out.join("data");
    let [train, valid] = ["train", "valid"].map(|n| folder.join(format!("{n}.{ending}")));
    let given = |path: &Path| TokenWidth::of_path(path).map(|w| TokenFile::open(path, w)).transpose();
    let is_text = |path: &Path| TokenWidth::of_path(path).is_none();
    let kept = args.resume && train.is_file();
    if args.data.is_empty() && !kept {
        return Err(CliError::usage("no training data: pass --data FILE"));
    }
    if args.data.len() > 1 && !args.data.iter().all(|p| is_text(p)) {
        return Err(CliError::usage("--data: a file of token ids must be the only one"));
    }
    let prepare = |texts: &[PathBuf], paths: [&Path; 2], share: f64| -> Result<(), CliError> {
        let missing = "text needs a tokenizer: pass --tokenizer FILE or --train-tokenizer N";
        let tokenizer = tokenizer.ok_or_else(|| CliError::usage(missing))?;
        let eos = model.eos_token_ids.first().copied().ok_or_else(|| {
            CliError::usage("the tokenizer has no token that ends a text; set eos_token_id in [model] of --config")
        })?;
        std::fs::create_dir_all(&folder).map_err(CliError::io("create", name(&folder)))?;
        let spinner = progress::spinner(ui, "tokenising");
        // A document begins as a prompt does.
        let mut encode = |text: &str| {
            let mut ids: Vec<u32> = model.bos_token_id.into_iter().collect();
            for piece in pieces(text) {
                ids.extend(tokenizer.encode_text(piece).map_err(|e| e.to_string())?);
            }
            Ok(ids)
        };
        let split = Split { validation: share, seed: config.seed };
        let done = match config.examples {
            false => split.prepare(texts, paths, width, eos, &mut encode)?,
            true => split.prepare_examples(texts, paths, config.context, eos, &mut |e| {
                let completion = tokenizer.encode_text(e.completion).map_err(|e| e.to_string())?;
                Ok([encode(e.prompt)?, completion])
            })?,
        };
        spinner.finish_and_clear();
        if done.too_long > 0 {
            let (n, context) = (done.too_long, config.context);
            ui.note(&format!("{n} examples are longer than a window of {context} tokens and left out; --context"));
        }
        ui.say(format_args!(
            "{} documents: {} tokens to learn from, {} to validate with",
            done.documents,
            ui::count(done.train_tokens),
            ui::count(done.validation_tokens)
        ));
        Ok(())
    };
    let text_data = args.data.iter().all(|p| is_text(p));
    if !kept {
        let own = args.val_data.as_deref();
        if text_data {
            prepare(&args.data, [&train, &valid], if own.is_some() { 0.0 } else { args.val_share.unwrap_or(0.02) })?;
        }
        if let Some(path) = own.filter(|p| is_text(p)) {
            prepare(&[path.to_path_buf()], [&folder.join(format!("none.{ending}")), &valid], 1.0)?;
        }
    }
    let open = |path: &Path| match config.examples {
        true => TokenFile::open_examples(path, config.context),
        false => TokenFile::open(path, width),
    };
    let learned = match args.data.first().filter(|_| !text_data) {
        Some(path) => given(path)?,
        None => Some(open(&train)?),
    };
    let validated = match args.val_data.as_deref().filter(|p| !is_text(p)) {
        Some(path) => given(path)?,
        None if valid.is_file() => Some(open(&valid)?),
        None => None,
    };
    // Too little to validate with is not a reason to fail.
    let validated = validated.filter(|f| f.len() > config.context as u64);
    if validated.is_none() {
        ui.note("too little text is held out for validation, so validation is off");
    }
    Ok([learned, validated])
}

/// The token that ends the documents of the data, if there are several: the first one that ends the model's texts.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn document_end(model: &ModelConfig, train: Option<&mut TokenFile>) -> Result<Option<u32>, CliError> {
    let Some((end, train)) = model.eos_token_ids.first().zip(train) else { return Ok(None) };
    Ok(train.has_document_end(*end)?.then_some(*end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_documents_are_cut_at_line_ends_and_short_ones_are_not() {
        assert_eq!(pieces("a\nb\n").collect::<Vec<_>>(), ["a\nb\n"]);
        assert_eq!(pieces("").count(), 0);
        let line = format!("{}\n", "ä".repeat(300));
        let text = line.repeat(5000);
        let all: Vec<&str> = pieces(&text).collect();
        assert!(all.len() == 3 && all.iter().all(|p| p.ends_with('\n') && p.len() < PIECE + 700));
        assert_eq!(all.concat(), text);
    }
}
