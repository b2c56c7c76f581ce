//! Describes files: formulas and scales of a model that can be run; for all others, their kind and the programs that
//! run them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use bitnet::{Activation, ModelConfig, RopeScaling};
use bitnet_model::ModelWeights;
use loader::files::{self, Kind};
use loader::gguf::{Gguf, TensorType};
use serde_json::Value as Json;
use ternary_kernels::{FORMATS, Scales};

/// Programs for everything that is not ternary.
const GGUF_PROGRAMS: &str = "llama.cpp and what is built on it (Ollama, LM Studio) run it";
const FOLDER_PROGRAMS: &str = "transformers, vLLM or candle run it, llama.cpp after conversion";
/// Advice at the end of messages.
const KNOWN: &str = "`bitnet list --known` shows ternary models";

/// Architectures of unsupported ternary models, and the programs that support them.
const OTHER_PROGRAMS: [(&str, &str); 2] =
    [("bitnet-embedding", "Microsoft's bitnet.cpp runs it"), ("vibevoice", "Microsoft's VibeASR.cpp runs it")];

/// The scaling of the rotary embedding, if any.
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

/// Formulas of the layers, other than projections and attention, that identify a model of another family.
pub(crate) fn formulas(c: &ModelConfig) -> Vec<String> {
    let mut all = Vec::new();
    let mut add = |yes: bool, what: &str| all.extend(yes.then(|| what.to_owned()));
    add(c.sub_norms, "norms before the output and the down projection");
    add(c.head_norms && !c.head_norms_after_rope, "norms of the heads of q and k");
    add(c.head_norms_after_rope, "norms of the heads of q and k after the rotary embedding");
    add(c.projection_norms, "a norm before every projection");
    add(c.output_norms, "norms after attention and feed-forward block");
    add(c.qkv_bias, "biases of q, k and v");
    add(c.gated_attention, "a gate of attention's output");
    if let Some(delta) = (0..c.num_hidden_layers).find_map(|l| c.delta_layer(l)) {
        let (keys, values, d) = (delta.key_heads, delta.value_heads, delta.head_dim);
        add(true, &format!("the gated delta rule with {keys} key heads and {values} value heads of {d}"));
    }
    if let Some(width) = c.rotary_dim {
        add(true, &format!("rotary embedding of {width} of {} elements of a head", c.head_dim));
    }
    if let Some(fold) = &c.fold {
        add(true, &format!("weights folded with signed Hadamard transforms of {}", fold.block));
    }
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

/// Describes a GGUF file or a folder that cannot be run, and names a program that runs it; `None` if nothing useful is
/// known.
pub(crate) fn elsewhere(path: &Path) -> Option<String> {
    if let Ok(Some(file)) = loader::gguf::locate(path) {
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

/// Kind of a file that is not a model container, by its first bytes.
pub(crate) fn foreign(path: &Path) -> Option<&'static str> {
    const PICTURE: &str = "a picture, no model";
    const MAGICS: [(&[u8], &str); 18] = [
        (
            b"PK\x03\x04",
            "a zip archive: PyTorch writes checkpoints as such, which its makers' tools convert to safetensors; unpack any other one",
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
        (b"\x89PNG", PICTURE),
        (b"\xff\xd8\xff", PICTURE),
        (b"GIF8", PICTURE),
        (b"%PDF", "a PDF document, no model"),
        (b"\x1f\x8b", "a gzip archive: unpack it first"),
        (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it first"),
        (b"7z\xbc\xaf", "a 7-Zip archive: unpack it first"),
        (b"\x7fELF", "a program, no model"),
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
        let others: [(&[u8], &str); 6] = [
            (b"\x89PNG\r\n\x1a\n", "picture"),
            (b"\xff\xd8\xff\xe0", "picture"),
            (b"%PDF-1.7", "PDF"),
            (b"\x1f\x8b\x08", "unpack"),
            (b"PK\x03\x04\x14\x00", "zip"),
            (b"\x7fELF\x02", "program"),
        ];
        for (bytes, word) in others {
            assert!(named(bytes).unwrap().contains(word), "{word}");
        }
        assert_eq!(named(b"GGUF"), None);
        assert_eq!(named(b""), None);
        assert_eq!(foreign(dir.path()), None);
    }

    /// A GGUF file of one matrix of 256 by 1 of this type.
    fn gguf_of(architecture: &str, name: &str, type_id: u32, bytes: usize) -> Vec<u8> {
        let string = |s: &str| [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat();
        let mut file = b"GGUF".to_vec();
        file.extend(3u32.to_le_bytes());
        file.extend([1u64, 1].map(u64::to_le_bytes).concat());
        file.extend(string("general.architecture"));
        file.extend(8u32.to_le_bytes());
        file.extend(string(architecture));
        file.extend(string(name));
        file.extend(2u32.to_le_bytes());
        file.extend([256u64, 1].map(u64::to_le_bytes).concat());
        file.extend(type_id.to_le_bytes());
        file.extend(0u64.to_le_bytes());
        file.resize(file.len().next_multiple_of(32) + bytes, 0);
        file
    }

    #[test]
    fn dense_and_otherwise_quantised_files_are_told_what_runs_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        let says = |architecture: &str, name: &str, type_id: u32, bytes: usize| {
            std::fs::write(&path, gguf_of(architecture, name, type_id, bytes)).unwrap();
            elsewhere(&path)
        };
        for (type_id, bytes, word) in [(1, 512, "F16"), (12, 144, "Q4_K"), (14, 210, "Q6_K"), (30, 512, "BF16")] {
            let text = says("llama", "blk.0.attn_q.weight", type_id, bytes).unwrap();
            assert!(text.contains(word) && text.contains("llama.cpp") && text.contains("not ternary"), "{text}");
        }
        assert!(says("llama", "token_embd.weight", 1, 512).unwrap().contains("no matrices"));
        // A ternary file of a family that is computed has its own message.
        assert_eq!(says("llama", "blk.0.attn_q.weight", 35, 66), None);
        let folder = dir.path().join("dense");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("config.json"), r#"{"model_type": "llama", "torch_dtype": "bfloat16"}"#).unwrap();
        let text = elsewhere(&folder).unwrap();
        assert!(text.contains("dense model (llama)") && text.contains("vLLM"), "{text}");
    }

    #[test]
    fn folders_of_others_are_told_what_runs_them() {
        let says = |config: Json| of_config(&config).unwrap_or_default();
        assert!(
            says(json!({ "model_type": "llama", "quantization_config": { "quant_method": "gptq" } })).contains("gptq")
        );
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
