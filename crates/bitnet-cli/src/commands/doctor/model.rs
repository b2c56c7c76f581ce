//! `bitnet doctor --model`: a file explained, and computed in several ways that must agree.

use bitnet::{EmbedOptions, KvType, Model, Pooling};
use serde_json::json;

use super::super::show;
use crate::args::{EngineArgs, ModelArgs};
use crate::error::CliError;
use crate::explain;
use crate::source::{self, LoadRequest, Loaded};
use crate::ui::{self, Style, Ui};

/// Tokens of the checks.
const TOKENS: usize = 24;
/// The text of the vector on the card of BitNet-embedding 0.6B, and its first numbers.
const CARD: (&str, [f32; 7]) =
    ("query: What is BitNet?", [0.0239517, 0.6826404, 0.0, -0.0644535, 0.0613754, 0.0473094, 0.011433]);
/// An int8 code that flips with the last bit of a sum moves a vector of length 1 by up to this (measured on small
/// models of the same form: 0.003); without the activations' rounding it would be 0.04.
const CARD_TOLERANCE: f32 = 5e-3;

/// One check and its result; `Err` if it failed.
type Finding = (&'static str, Result<String, String>);

pub(super) fn execute(args: &ModelArgs, engine: &EngineArgs, as_json: bool, ui: &Ui) -> Result<(), CliError> {
    let path = source::locate(args.model.as_ref(), ui)?;
    if !as_json {
        ui::print(&show::brief(&path, &args.files, ui)?)?;
    }
    let Loaded { model, .. } = LoadRequest::new(args, engine, KvType::F32).load(ui)?;
    let spinner = crate::progress::spinner(ui, "computing in several ways");
    let findings = check(&model)?;
    spinner.finish_and_clear();
    let wrong = findings.iter().find_map(|(name, found)| found.as_ref().err().map(|e| format!("{name}: {e}")));
    if as_json {
        let each = findings.iter().map(|(name, found)| {
            let detail = found.as_ref().unwrap_or_else(|e| e);
            json!({ "check": name, "ok": found.is_ok(), "detail": detail })
        });
        ui::print_json(&json!({
            "path": path.display().to_string(), "architecture": show::architecture(&path)?,
            "formulas": explain::formulas(model.config()), "rope": explain::rope_scaling(model.config()),
            "pooling": model.config().pooling.map(Pooling::name), "notes": model.notes(),
            "checks": each.collect::<Vec<_>>(), "ok": wrong.is_none(),
        }))?;
    } else {
        for (name, found) in &findings {
            let (mark, detail) = match found {
                Ok(detail) => (ui.out(Style::Green, "ok   "), detail),
                Err(detail) => (ui.out(Style::Red, "WRONG"), detail),
            };
            ui::print_line(format_args!("  {:<10} {mark} {detail}", ui.out(Style::Dim, name)))?;
        }
    }
    match wrong {
        Some(problem) => Err(CliError::WrongModel { path, problem }),
        None => Ok(()),
    }
}

/// Every check that the model allows.
fn check(model: &Model) -> Result<Vec<Finding>, CliError> {
    let vocab = model.config().vocab_size;
    // Spread over the vocabulary, without avoiding special ones.
    let tokens = TOKENS.min(model.context());
    let ids: Vec<u32> = (0..tokens).map(|i| ((i * 7919 + 17) % vocab) as u32).collect();
    let mut findings = vec![("states", hidden(model, &ids)?)];
    if !model.config().headless {
        findings.push(("logits", logits(model, &ids)?));
    }
    if is_embedding_0_6b(model) {
        findings.push(("card", card(model)?));
    }
    Ok(findings)
}

/// Hidden states of a text alone and among others are equal, and all are finite.
fn hidden(model: &Model, ids: &[u32]) -> Result<Result<String, String>, CliError> {
    let options = EmbedOptions::default().pooling(Pooling::Last).normalize(false);
    let alone = model.embed_ids(&[ids.to_vec()], options)?;
    let beginnings: Vec<Vec<u32>> = (1..=ids.len()).map(|n| ids[..n].to_vec()).collect();
    let together = model.embed_ids(&beginnings, options)?;
    let (alone, last) = (alone.concat(), together.last().cloned().unwrap_or_default());
    if together.iter().flatten().any(|v| !v.is_finite()) {
        return Ok(Err(
            "hidden states are not all numbers: weights are damaged, or their format was taken for another".into(),
        ));
    }
    if bits(&alone) != bits(&last) {
        return Ok(Err("a text alone and among others gives different numbers".into()));
    }
    let largest = last.iter().fold(0f32, |a, v| a.max(v.abs()));
    Ok(Ok(format!("a text alone and among others gives the same, to the bit; largest value {largest:.1}")))
}

/// Logits at once and token by token are equal, and they differ between tokens.
fn logits(model: &Model, ids: &[u32]) -> Result<Result<String, String>, CliError> {
    let vocab = model.config().vocab_size;
    let all = model.logits(ids)?;
    for (n, at_once) in all.chunks_exact(vocab).enumerate() {
        let alone = model.logits(&ids[..=n])?;
        if bits(&alone[n * vocab..]) != bits(at_once) {
            return Ok(Err(format!("the logits of token {n} depend on how the text is cut")));
        }
    }
    let spread =
        all.iter().fold(f32::NEG_INFINITY, |a, v| a.max(*v)) - all.iter().fold(f32::INFINITY, |a, v| a.min(*v));
    match spread.is_finite() && spread > 0.0 {
        true => Ok(Ok(format!(
            "{} tokens at once and one by one give the same, to the bit; they span {spread:.1}",
            ids.len()
        ))),
        false => Ok(Err("logits are not numbers, or all the same".into())),
    }
}

/// Whether this has the shape of the published model.
fn is_embedding_0_6b(model: &Model) -> bool {
    let c = model.config();
    c.headless
        && c.projection_norms
        && (c.hidden_size, c.num_hidden_layers) == (1024, 28)
        && model.tokenizer().is_some()
}

/// The vector on the model's card; always with mean pooling, since the card used that.
fn card(model: &Model) -> Result<Result<String, String>, CliError> {
    let (text, expected) = CARD;
    let vector = model.embed([text], EmbedOptions::default().pooling(Pooling::Mean))?.concat();
    let off = vector.iter().zip(&expected).map(|(v, e)| (v - e).abs()).fold(0f32, f32::max);
    Ok(match off <= CARD_TOLERANCE {
        true => Ok(format!("the vector of {text:?} is that of the model's card within {off:.0e}")),
        false => Err(format!(
            "the vector of {text:?} begins with {:?}, the model's card has {expected:?}",
            &vector[..expected.len().min(vector.len())]
        )),
    })
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}
