//! What a file is, in words: formulas and scales of a model that can be run, and for all others what they are and what
//! runs them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use bitnet::bitnet_model::ModelWeights;
use bitnet::loader::files::{self, Kind};
use bitnet::loader::gguf::{Gguf, TensorType};
use bitnet::ternary_kernels::{FORMATS, Scales};
use bitnet::{Activation, ModelConfig, RopeScaling};
use serde_json::Value as Json;

/// Programs for everything that is not ternary.
const GGUF_PROGRAMS: &str = "llama.cpp and what is built on it (Ollama, LM Studio) run it";
const FOLDER_PROGRAMS: &str = "transformers, vLLM or candle run it, llama.cpp after conversion";
/// Where to go on.
const KNOWN: &str = "`bitnet list --known` shows ternary models";

/// Architectures of ternary models that are refused, and the programs that compute them.
const OTHER_PROGRAMS: [(&str, &str); 4] = [
    ("qwen35", "PrismML's fork of llama.cpp runs it"),
    ("qwen3_5", "PrismML's fork of llama.cpp runs it"),
    ("bitnet-embedding", "Microsoft's bitnet.cpp runs it"),
    ("vibevoice", "Microsoft's VibeASR.cpp runs it"),
];

/// How the rotary embedding is stretched, where it is.
pub(crate) fn rope_scaling(c: &ModelConfig) -> Option<String> {
    match &c.rope_scaling {
        RopeScaling::Linear { factor } => Some(format!("linear, factor {factor}")),
        RopeScaling::Llama3 { factor, original_context, .. } => {
            Some(format!("llama3, factor {factor} from {original_context} tokens"))
        }
        RopeScaling::Factors(factors) => Some(format!("{} factors", factors.len())),
        RopeScaling::Yarn { factor, original_context, attention_factor, .. } => {
            Some(format!("YaRN, factor {factor} from {original_context} tokens, q and k times {attention_factor:.4}"))
        }
        RopeScaling::LongRope { original_context, attention_factor, .. } => {
            Some(format!("longrope, from {original_context} tokens, q and k times {attention_factor:.4}"))
        }
        _ => None,
    }
}

/// What the layers compute beside projections and attention: what a model of another family lacks.
pub(crate) fn formulas(c: &ModelConfig) -> Vec<String> {
    let mut all = Vec::new();
    let mut add = |yes: bool, what: &str| all.extend(yes.then(|| what.to_owned()));
    add(c.sub_norms, "norms before the output and the down projection");
    add(c.head_norms && !c.head_norms_after_rope, "norms of the heads of q and k");
    add(c.head_norms_after_rope, "norms of the heads of q and k after the rotary embedding");
    add(c.projection_norms, "a norm before every projection");
    add(c.output_norms, "norms after attention and feed-forward block");
    add(c.qkv_bias, "biases of q, k and v");
    add(c.hidden_act == Activation::GeluTanh, "GELU");
    add(c.embedding_scale != 1.0, &format!("embedding times {}", c.embedding_scale));
    add(c.residual_scale != 1.0, &format!("residual branches times {}", c.residual_scale));
    add(c.logit_divisor != 1.0, &format!("logits divided by {}", c.logit_divisor));
    if let Some(scale) = c.attention_scale {
        add(true, &format!("scores times {scale}"));
    }
    all
}

/// How many weights share a scale, over all projections: `one f16 scale for each 128 weights of a row`.
pub(crate) fn scales(weights: &ModelWeights) -> String {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for (_, w) in weights.layers.iter().flat_map(|layer| layer.projections()) {
        let kind = match w.scales() {
            Scales::Tensor(_) => "one scale for each matrix".to_owned(),
            Scales::Rows(_) => "one scale for each row".to_owned(),
            Scales::Groups(groups) => format!("one f16 scale for each {} weights of a row", groups.group_len()),
        };
        *kinds.entry(kind).or_default() += 1;
    }
    match kinds.len() {
        1 => kinds.into_keys().collect(),
        _ => kinds.iter().map(|(kind, n)| format!("{kind} ({n} matrices)")).collect::<Vec<_>>().join(", "),
    }
}

/// What a GGUF file or a folder that cannot be run is, and what runs it; `None` where nothing useful can be said.
pub(crate) fn elsewhere(path: &Path) -> Option<String> {
    if let Ok(Some(file)) = bitnet::loader::gguf::locate(path) {
        return gguf(&Gguf::open(&file).ok()?);
    }
    let folder = if path.is_dir() { path } else { path.parent()? };
    let config: Json = serde_json::from_slice(&files::read(&folder.join("config.json"), Kind::CONFIG).ok()?).ok()?;
    of_config(&config)
}

fn gguf(file: &Gguf) -> Option<String> {
    let architecture = file.architecture();
    let mut types: BTreeMap<String, usize> = BTreeMap::new();
    let mut ternary = false;
    for t in file.tensors().iter().filter(|t| t.shape().len() > 1 && !t.name().starts_with("token_embd")) {
        ternary |= match t.tensor_type() {
            TensorType::Known(ty) => FORMATS.iter().any(|f| f.name == ty.name()),
            // One of its meanings is ternary.
            TensorType::Ambiguous(_) => true,
            _ => false,
        };
        *types.entry(t.tensor_type().to_string()).or_default() += 1;
    }
    if ternary {
        return of_architecture(architecture);
    }
    let mut types: Vec<(String, usize)> = types.into_iter().collect();
    types.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let names: Vec<String> = types.into_iter().take(3).map(|(ty, _)| ty).collect();
    let architecture = if architecture.is_empty() { "unnamed architecture" } else { architecture };
    match names.is_empty() {
        true => Some(format!("it holds no matrices ({architecture}): a vocabulary or an adapter, not a model")),
        false => Some(format!(
            "a model of {} that is not ternary ({architecture}): {GGUF_PROGRAMS}; {KNOWN}",
            names.join(", ")
        )),
    }
}

fn of_architecture(name: &str) -> Option<String> {
    let (_, program) = OTHER_PROGRAMS.iter().find(|(part, _)| name.contains(part))?;
    Some(format!("a ternary model of architecture {name}: {program}; {KNOWN}"))
}

fn of_config(config: &Json) -> Option<String> {
    let model_type = config["model_type"].as_str().unwrap_or("no model_type");
    let method = config["quantization_config"]["quant_method"].as_str();
    match method {
        Some("bitnet") => of_architecture(model_type),
        Some(method) => {
            Some(format!("a model quantised with {method} ({model_type}), not ternary: {FOLDER_PROGRAMS}; {KNOWN}"))
        }
        None => of_architecture(model_type)
            .or_else(|| Some(format!("perhaps a dense model ({model_type}); if so, {FOLDER_PROGRAMS}; {KNOWN}"))),
    }
}

/// What a file that is no container of ours is, by its first bytes.
pub(crate) fn foreign(path: &Path) -> Option<&'static str> {
    const MAGICS: [(&[u8], &str); 10] = [
        (
            b"PK\x03\x04",
            "a zip archive, as PyTorch writes checkpoints: convert it to safetensors with its makers' tools",
        ),
        (b"\x80\x02", "a pickle, as old PyTorch wrote checkpoints: convert it to safetensors with its makers' tools"),
        (b"ggjt", "a file of llama.cpp from before GGUF: download a newer one"),
        (b"tjgg", "a file of llama.cpp from before GGUF: download a newer one"),
        (b"lmgg", "a file of llama.cpp from before GGUF: download a newer one"),
        (b"\x89HDF", "an HDF5 file of Keras: convert it to safetensors with its makers' tools"),
        (
            b"version https://git-lfs",
            "a pointer of Git LFS, not the file itself: fetch it with `git lfs pull` or `bitnet pull`",
        ),
        (b"<!DOCTYPE", "a web page instead of the requested file: download it again, perhaps with a token"),
        (b"<html", "a web page instead of the requested file: download it again, perhaps with a token"),
        (b"Entry not found", "the hub's answer that the file does not exist"),
    ];
    if path.is_dir() || files::regular(path, "a model").is_err() {
        return None;
    }
    let mut head = Vec::new();
    std::fs::File::open(path).ok()?.take(32).read_to_end(&mut head).ok()?;
    MAGICS.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_of_others_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let named = |bytes: &[u8]| {
            let path = dir.path().join("file");
            std::fs::write(&path, bytes).unwrap();
            foreign(&path)
        };
        assert!(named(b"PK\x03\x04....").unwrap().contains("PyTorch"));
        assert!(named(b"version https://git-lfs.github.com/spec/v1\n").unwrap().contains("git lfs pull"));
        assert!(named(b"<!DOCTYPE html>").unwrap().contains("web page"));
        assert_eq!(named(b"GGUF"), None);
        assert_eq!(named(b""), None);
        assert_eq!(foreign(dir.path()), None);
    }

    #[test]
    fn folders_of_others_are_told_what_runs_them() {
        let says = |config: Json| of_config(&config).unwrap_or_default();
        assert!(
            says(json!({ "model_type": "llama", "quantization_config": { "quant_method": "gptq" } })).contains("gptq")
        );
        assert!(says(json!({ "model_type": "qwen3_5_text" })).contains("PrismML"));
        assert!(says(json!({ "model_type": "mistral" })).contains("perhaps a dense model (mistral)"));
        assert_eq!(says(json!({ "model_type": "bitnet", "quantization_config": { "quant_method": "bitnet" } })), "");
    }

    #[test]
    fn what_a_model_computes_is_told() {
        let mut c = ModelConfig::new(96, 64, 128, 2, 4, 2);
        assert_eq!(formulas(&c), ["norms before the output and the down projection"]);
        (c.sub_norms, c.head_norms, c.embedding_scale) = (false, true, 12.0);
        c.rope_scaling = RopeScaling::yarn(4.0, 8192);
        assert_eq!(formulas(&c), ["norms of the heads of q and k", "embedding times 12"]);
        assert_eq!(rope_scaling(&c).unwrap(), "YaRN, factor 4 from 8192 tokens, q and k times 1.1386");
    }
}
