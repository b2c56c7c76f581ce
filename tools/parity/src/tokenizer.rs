//! `tokenizer/NAME_cases.json`: texts and their tokens.

use std::io::Read;
use std::path::{Path, PathBuf};

use loader::tokenizer::Tokenizer;
use serde_json::Value;

use crate::files::{json, json_error, read};
use crate::report::{Measured, Report};
use crate::{Options, ParityError};

pub(crate) fn case(fixtures: &Path, file: &str, options: &Options, report: &mut Report) {
    let name = file.trim_end_matches("_cases.json");
    let cases = fixtures.join("tokenizer").join(file);
    let large = options.tokenizers.clone().or_else(|| fixtures.parent().map(|p| p.join("tokenizer")));
    let candidates = candidates(fixtures, name, large.as_deref());
    let found: Vec<&PathBuf> = candidates.iter().filter(|p| p.is_file()).collect();
    if found.is_empty() && options.wants(&format!("tokenizer/{name}")) {
        report.unsupported(&format!("tokenizer/{name}"), "no tokenizer.json of that name next to the cases");
    }
    for path in found {
        let model = path.extension().is_some_and(|e| e == "model");
        let case = format!("tokenizer/{name}{}", if model { " (SentencePiece)" } else { "" });
        if options.wants(&case) {
            report.check(&case, || compare(path, &cases));
        }
    }
}

/// Possible places of the tokenizer of a set of cases.
fn candidates(fixtures: &Path, name: &str, large: Option<&Path>) -> Vec<PathBuf> {
    let own = fixtures.join("tokenizer");
    let mut all = vec![own.join(format!("{name}.tokenizer.json")), own.join(format!("{name}.model"))];
    for file in ["tokenizer.json", "tokenizer.json.zst"] {
        all.extend(large.map(|dir| dir.join(name).join(file)));
    }
    all
}

fn load(path: &Path) -> Result<Tokenizer, ParityError> {
    let mut bytes = read(path)?;
    if path.extension().is_some_and(|e| e == "zst") {
        let damaged =
            |e: String| ParityError::Io { path: path.display().to_string(), source: std::io::Error::other(e) };
        let mut text = Vec::new();
        let mut decoder =
            ruzstd::decoding::StreamingDecoder::new(bytes.as_slice()).map_err(|e| damaged(e.to_string()))?;
        decoder.read_to_end(&mut text).map_err(|e| damaged(e.to_string()))?;
        bytes = text;
    }
    match path.extension().is_some_and(|e| e == "model") {
        true => Ok(Tokenizer::from_sentencepiece(&bytes)?),
        false => Ok(Tokenizer::from_bytes(&bytes)?),
    }
}

fn compare(path: &Path, cases: &Path) -> Result<Measured, ParityError> {
    let tokenizer = load(path)?;
    let cases_json = json(cases)?;
    let list = cases_json["cases"].as_array().ok_or_else(|| json_error(cases, "cases is missing"))?;
    // SentencePiece never takes a text for a special token; a tokenizer.json does, so its maker marks where the two
    // differ.
    let sentencepiece = path.extension().is_some_and(|e| e == "model");
    let applies = |case: &&Value| sentencepiece || case["hf_equal"] != false;
    let list: Vec<&Value> = list.iter().filter(applies).collect();
    let mut wrong = Vec::new();
    for case in &list {
        let text = case["text"].as_str().ok_or_else(|| json_error(cases, "a case has no text"))?;
        let ids: Vec<u32> = numbers(&case["ids"]);
        let got = if sentencepiece { tokenizer.encode_text(text)? } else { tokenizer.encode(text, false)? };
        if got != ids {
            wrong.push(text.to_owned());
        }
    }
    let detail = match wrong.first() {
        None => format!("all {} texts equal", list.len()),
        Some(first) => format!("{} of {} texts differ, the first is {first:?}", wrong.len(), list.len()),
    };
    Ok(Measured { pass: wrong.is_empty() && !list.is_empty(), detail })
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_u64()).filter_map(|v| v.try_into().ok()).collect()
}
