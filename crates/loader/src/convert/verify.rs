//! Reads back the result and compares it with the source.

use std::path::Path;

use bitnet_model::{ModelConfig, ModelWeights, Table};
use half::{bf16, f16};
use ternary_kernels::{ScaleRounding, Scales};

use super::Target;
use super::speech::Speech;
use crate::config::rope;
use crate::loaded::LoadOptions;
use crate::{Checkpoint, LoadError};

pub(super) struct Checked {
    pub(super) projections: usize,
    pub(super) rounded: usize,
}

/// Compares the contents of `file`, which will be called `output`, with its source.
pub(super) fn read_back(
    source: &ModelWeights,
    speech: Option<&Speech>,
    (file, output): (&Path, &Path),
    target: Target,
    rounding: ScaleRounding,
) -> Result<Checked, LoadError> {
    let differs =
        |tensor: String, what: &str| LoadError::ReadBack { path: output.to_path_buf(), tensor, what: what.to_owned() };
    let written = Checkpoint::open(file, &LoadOptions::default())?;
    let result = written.weights()?;
    let spoken = match speech.filter(|s| s.tokenizer.is_some()) {
        Some(speech) => Some((speech, Speech::of(&written, &LoadOptions::default(), &result.config)?)),
        None => None,
    };
    // If both have a tokenizer, it affects the special ids: these are compared together with the prompts.
    let by_tokenizer = spoken.as_ref().is_some_and(|(_, s)| s.tokenizer.is_some());
    if let Some(what) = difference(&source.config, &result.config, !by_tokenizer) {
        return Err(differs("(configuration)".into(), &what));
    }
    if let Some(what) = spoken.and_then(|(speech, spoken)| speech.difference(&spoken)) {
        return Err(differs("(prompts)".into(), &what));
    }
    let tables = [
        ("embedding", Some(&source.embedding), Some(&result.embedding)),
        ("head", source.head.as_ref(), result.head.as_ref()),
    ];
    for (name, a, b) in tables {
        let same = match (a, b) {
            (Some(a), Some(b)) => same_values(a, b),
            (None, None) => true,
            _ => false,
        };
        if !same {
            return Err(differs(name.to_owned(), "values"));
        }
    }
    if !same_bits(&source.final_norm, &result.final_norm) {
        return Err(differs("final norm".to_owned(), "values"));
    }
    let mut checked = Checked { projections: 0, rounded: 0 };
    for (l, (a, b)) in source.layers.iter().zip(&result.layers).enumerate() {
        // Both have the same configuration, so the same tensors.
        for norm in source.config.layer_norms(l) {
            if !same_bits(a.norm(norm).unwrap_or(&[]), b.norm(norm).unwrap_or(&[])) {
                return Err(differs(format!("layer {l} {norm:?} norm"), "values"));
            }
        }
        for (p, _) in source.config.layer_biases(l) {
            if !same_bits(a.bias(p).unwrap_or(&[]), b.bias(p).unwrap_or(&[])) {
                return Err(differs(format!("layer {l} {} bias", p.name()), "values"));
            }
        }
        let (x, y) = (a.ttt.iter().flat_map(|t| t.tensors()), b.ttt.iter().flat_map(|t| t.tensors()));
        for ((tensor, _, x), (_, _, y)) in x.zip(y) {
            if !same_bits(x, y) {
                return Err(differs(format!("layer {l} {}", tensor.path()), "values"));
            }
        }
        let (x, y) = (a.delta.iter().flat_map(|t| t.tensors()), b.delta.iter().flat_map(|t| t.tensors()));
        for ((tensor, _, x), (_, _, y)) in x.zip(y) {
            if !same_bits(x, y) {
                return Err(differs(format!("layer {l} {}", tensor.path()), "values"));
            }
        }
        for ((p, x), (_, y)) in a.projections().zip(b.projections()) {
            let name = || written.projection_name(l, p);
            if (x.rows(), x.cols()) != (y.rows(), y.cols()) {
                return Err(differs(name(), "shape"));
            }
            let (mut row_x, mut row_y) = (vec![0; x.cols()], vec![0; x.cols()]);
            let mut rounded = false;
            for r in 0..x.rows() {
                x.decode_row(r, &mut row_x);
                y.decode_row(r, &mut row_y);
                if row_x != row_y {
                    return Err(differs(name(), &format!("trits of row {r}")));
                }
                for (exact, got) in scales_of_row(x.scales(), y.scales(), r, &row_x) {
                    if exact.to_bits() != got.to_bits() {
                        rounded = true;
                        if rounding == ScaleRounding::Exact || got.to_bits() != nearest(target, exact).to_bits() {
                            return Err(differs(name(), &format!("scale of row {r}: {exact} became {got}")));
                        }
                    }
                }
            }
            checked.projections = checked.projections.saturating_add(1);
            checked.rounded = checked.rounded.saturating_add(usize::from(rounded));
        }
    }
    Ok(checked)
}

/// The first field in which two configurations differ; special ids only if `ids` is set. Ids that end a text are a set,
/// and angles of the rotary embedding may be described in two ways.
fn difference(a: &ModelConfig, b: &ModelConfig, ids: bool) -> Option<String> {
    let (mut a, mut b) = (a.clone(), b.clone());
    let attention = |c: &ModelConfig| c.rope_attention_factor().to_bits();
    if rope::same(&a.rope_frequencies(), &b.rope_frequencies()) && attention(&a) == attention(&b) {
        b.rope_scaling.clone_from(&a.rope_scaling);
    }
    for c in [&mut a, &mut b] {
        c.eos_token_ids.sort_unstable();
        if !ids {
            (c.bos_token_id, c.eos_token_ids) = (None, Vec::new());
        }
    }
    if a == b {
        return None;
    }
    // One line for each field, so that no list of layers hides the difference.
    let (x, y) = (format!("{a:#?}"), format!("{b:#?}"));
    let short = |s: &str| s.trim().trim_end_matches([',', '[', '{', '(']).chars().take(120).collect::<String>();
    let mut field = "";
    for (x, y) in x.lines().zip(y.lines()) {
        if x.strip_prefix("    ").is_some_and(|x| x.starts_with(char::is_alphabetic)) {
            field = x;
        }
        if x != y {
            let place = if field == x { String::new() } else { format!("{} ", short(field)) };
            return Some(format!("{place}{} became {}", short(x), short(y)));
        }
    }
    Some("it has more or fewer entries".to_owned())
}

/// The scales of the weights of row `r` in two matrices with the trits `trits`, once for each run of weights that share
/// them in both; runs of zeros have any scale.
fn scales_of_row<'a>(a: &'a Scales, b: &'a Scales, r: usize, trits: &'a [i8]) -> impl Iterator<Item = (f32, f32)> + 'a {
    let len = |s: &Scales| match s {
        Scales::Tensor(_) | Scales::Rows(_) => 0,
        Scales::Groups(g) => g.group_len(),
    };
    // The scales of whole rows count even if all weights are 0: they are one number in the file.
    let whole = len(a) == 0 && len(b) == 0;
    let run = if whole { trits.len().max(1) } else { common_divisor(len(a), len(b)).max(1) };
    trits
        .chunks(run)
        .enumerate()
        .filter(move |(_, trits)| whole || trits.iter().any(|t| *t != 0))
        .map(move |(i, _)| i.saturating_mul(run))
        .map(move |c| (a.at(r, c), b.at(r, c)))
}

fn common_divisor(a: usize, b: usize) -> usize {
    match a.checked_rem(b) {
        None => a,
        Some(rest) => common_divisor(b, rest),
    }
}

/// The scale as the target stores it.
fn nearest(target: Target, scale: f32) -> f32 {
    match target {
        // Floats of 32 bits, or of 16 if these hold all: nothing is rounded.
        Target::I2S | Target::Packed | Target::HfUnpacked => scale,
        Target::Tq1_0 | Target::Tq2_0 | Target::Q2_0 | Target::Pq2_0 | Target::Ptq1_0 => f16::from_f32(scale).to_f32(),
        Target::HfPacked => bf16::from_f32(scale).to_f32(),
    }
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
}

fn same_values(a: &Table, b: &Table) -> bool {
    if (a.rows(), a.cols()) != (b.rows(), b.cols()) {
        return false;
    }
    if let (Some(a), Some(b)) = (a.as_float(), b.as_float())
        && a.float_type() == b.float_type()
    {
        return a.bytes()[..] == b.bytes()[..];
    }
    let (mut x, mut y) = (vec![0.0; a.cols()], vec![0.0; a.cols()]);
    (0..a.rows()).all(|r| {
        a.row_into(r, &mut x);
        b.row_into(r, &mut y);
        same_bits(&x, &y)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)] // A test may.
mod tests {
    use super::*;
    use crate::convert::{ConvertOptions, convert};
    use crate::gguf::Gguf;

    /// Converts a checkpoint, changes the result, and returns the result of the read-back.
    fn after(change: impl FnOnce(&Gguf, &mut [u8])) -> Result<Checked, LoadError> {
        let dir = tempfile::tempdir().unwrap();
        let source = test_support::testdata("bitnet/llama_256/packed");
        let output = dir.path().join("model.gguf");
        convert(&source, &output, Target::I2S, &ConvertOptions::default(), &mut |_| {}).unwrap();
        let mut bytes = std::fs::read(&output).unwrap();
        change(&Gguf::open(&output).unwrap(), &mut bytes);
        std::fs::write(&output, &bytes).unwrap();
        let source = Checkpoint::open(&source, &LoadOptions::default()).unwrap().weights().unwrap();
        read_back(&source, None, (&output, &output), Target::I2S, ScaleRounding::Exact)
    }

    fn at(file: &Gguf, tensor: &str, offset: u64) -> usize {
        usize::try_from(file.data_start() + file.tensor(tensor).unwrap().offset() + offset).unwrap()
    }

    fn says(result: Result<Checked, LoadError>, tensor: &str, what: &str) {
        let message = result.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message.contains(tensor) && message.contains(what), "{message}");
    }

    #[test]
    fn every_kind_of_damage_is_found() {
        assert_eq!(after(|_, _| {}).unwrap().projections, 7);
        // Codes 0 and 2 become 1 and 1 becomes 0, in the last weight of byte 40.
        let flip = |f: &Gguf, b: &mut [u8]| {
            let i = at(f, "blk.0.ffn_down.weight", 40);
            b[i] = if b[i] & 3 == 1 { b[i] & !3 } else { b[i] & !3 | 1 };
        };
        says(after(flip), "blk.0.ffn_down.weight", "trits of row 0");
        let scale = |f: &Gguf, b: &mut [u8]| b[at(f, "blk.0.attn_v.weight", 256 * 64 / 4)] ^= 1;
        says(after(scale), "blk.0.attn_v.weight", "scale");
        let norm = |f: &Gguf, b: &mut [u8]| b[at(f, "blk.0.ffn_norm.weight", 4)] ^= 1;
        says(after(norm), "PostAttention(0) norm", "values");
        let embedding = |f: &Gguf, b: &mut [u8]| b[at(f, "token_embd.weight", 77)] ^= 1;
        says(after(embedding), "embedding", "values");
        let context = |_: &Gguf, b: &mut [u8]| {
            let key = b"llama.context_length";
            let at = b.windows(key.len()).position(|w| w == key).unwrap();
            b[at + key.len() + 4] ^= 1;
        };
        says(after(context), "configuration", "max_position_embeddings");
    }
}
