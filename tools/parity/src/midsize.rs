//! `midsize`: a model of real widths whose weights are rebuilt from a counter-based generator, so that only its
//! expected results are stored.

use std::collections::HashMap;
use std::path::Path;

use half::bf16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;
use sha2::{Digest, Sha256};
use ternary_kernels::{FileFormat, ScaleRounding, Scales, TernaryMatrix};

use crate::files::{json, json_error};
use crate::report::{Measured, Report};
use crate::{Options, ParityError, model};

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

pub(crate) fn cases(fixtures: &Path, options: &Options, report: &mut Report) {
    let dir = fixtures.join("midsize");
    if !dir.is_dir() || !options.wants("midsize") {
        return;
    }
    // The folder is removed when it is dropped; mappings of its files stay valid.
    let mut folder = None;
    report.check("midsize rebuilt weights", || {
        let spec = json(&dir.join("spec.json"))?;
        let bytes = build(&spec, &dir)?;
        let (expected, got) = (text(&spec["sha256_of_built_model.safetensors"]), hex(&Sha256::digest(&bytes)));
        folder = Some(write(&spec["config"], &bytes)?);
        let detail = format!("sha256 {}..., {} bytes", &got[..16], bytes.len());
        Ok(Measured { pass: got == expected, detail })
    });
    if let Some(folder) = folder {
        let expected = dir.join("expected.safetensors");
        model::compare("midsize", "midsize", &model::PACKED, &expected, options, report, || model::load(folder.path()));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The generator: a hash of the tensor's name and of the position in it.
struct Stream {
    start: u64,
}

impl Stream {
    fn new(seed: u64, name: &str) -> Self {
        // FNV-1a, 64 bits.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Self { start: hash ^ seed }
    }

    fn at(&self, i: usize) -> u64 {
        let mut z = self.start.wrapping_add((i as u64).wrapping_mul(GOLDEN)).wrapping_add(GOLDEN);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn trits(&self, n: usize) -> Vec<i8> {
        (0..n).map(|i| ((self.at(i) >> 32) % 3) as i8 - 1).collect()
    }

    fn norm(&self, n: usize) -> Vec<u8> {
        bf16_bytes((0..n).map(|i| 1.0 + ((self.at(i) >> 60) as f32 - 8.0) / 128.0))
    }

    fn embedding(&self, n: usize) -> Vec<u8> {
        bf16_bytes((0..n).map(|i| ((self.at(i) >> 56) as f32 - 128.0) / 2048.0))
    }
}

fn bf16_bytes(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect()
}

/// A tensor of the file: type, shape, bytes.
type Tensor = (Dtype, Vec<usize>, Vec<u8>);

/// The bytes of `model.safetensors`.
fn build(spec: &Value, dir: &Path) -> Result<Vec<u8>, ParityError> {
    let path = dir.join("spec.json");
    let wrong = |what: &str| json_error(&path, format!("{what} is missing or is not a number"));
    let size = |key: &'static str| spec["config"][key].as_u64().map(|v| v as usize).ok_or_else(|| wrong(key));
    let seed = text(&spec["seed_hex"]).trim_start_matches("0x");
    let seed = u64::from_str_radix(seed, 16).map_err(|_| wrong("seed_hex"))?;
    let (hidden, ffn, vocab) = (size("hidden_size")?, size("intermediate_size")?, size("vocab_size")?);
    let kv = hidden / size("num_attention_heads")? * size("num_key_value_heads")?;

    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    let norm = |name: String, n: usize| {
        let bytes = Stream::new(seed, &name).norm(n);
        (name, (Dtype::BF16, vec![n], bytes))
    };
    for l in 0..size("num_hidden_layers")? {
        let layer = format!("model.layers.{l}");
        for (name, n) in [
            ("input_layernorm", hidden),
            ("post_attention_layernorm", hidden),
            ("self_attn.attn_sub_norm", hidden),
            ("mlp.ffn_sub_norm", ffn),
        ] {
            tensors.push(norm(format!("{layer}.{name}.weight"), n));
        }
        for (name, rows, cols) in [
            ("self_attn.q_proj", hidden, hidden),
            ("self_attn.k_proj", kv, hidden),
            ("self_attn.v_proj", kv, hidden),
            ("self_attn.o_proj", hidden, hidden),
            ("mlp.gate_proj", ffn, hidden),
            ("mlp.up_proj", ffn, hidden),
            ("mlp.down_proj", hidden, ffn),
        ] {
            let name = format!("{layer}.{name}.weight");
            let scale = if name.contains("down_proj") { 15.0 } else { 25.0 } / 1024.0;
            let trits = Stream::new(seed, &name).trits(rows * cols);
            let w = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(scale))?;
            let packed = FileFormat::HfPacked.encode(&w, ScaleRounding::Exact)?;
            tensors.push((format!("{name}_scale"), (Dtype::BF16, vec![1], bf16_bytes([scale].into_iter()))));
            tensors.push((name, (Dtype::U8, vec![rows.div_ceil(4), cols], packed)));
        }
    }
    tensors.push(norm("model.norm.weight".into(), hidden));
    let name = "model.embed_tokens.weight";
    let bytes = Stream::new(seed, name).embedding(vocab * hidden);
    tensors.push((name.into(), (Dtype::BF16, vec![vocab, hidden], bytes)));

    let error = |e: safetensors::SafeTensorError| ParityError::Tensors { path: "midsize".into(), what: e.to_string() };
    let mut views = Vec::with_capacity(tensors.len());
    for (name, (dtype, shape, bytes)) in &tensors {
        views.push((name, TensorView::new(*dtype, shape.clone(), bytes).map_err(error)?));
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(metadata)).map_err(error)
}

/// A Hugging Face folder with the file in it.
fn write(config: &Value, bytes: &[u8]) -> Result<tempfile::TempDir, ParityError> {
    let folder = tempfile::tempdir().map_err(ParityError::io(Path::new("temporary folder")))?;
    for (name, bytes) in [("config.json", config.to_string().as_bytes()), ("model.safetensors", bytes)] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).map_err(ParityError::io(&path))?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First values that the specification of the generator states.
    #[test]
    fn the_generator_gives_the_published_values() {
        let seed = 0x0123_4567_89ab_cdef;
        let q = Stream::new(seed, "model.layers.0.self_attn.q_proj.weight").trits(16);
        assert_eq!(q, [1, -1, 0, 0, 1, 0, -1, 1, 0, 1, -1, 0, 1, 1, -1, -1]);
        let down = Stream::new(seed, "model.layers.1.mlp.down_proj.weight").trits(16);
        assert_eq!(down, [1, 1, 0, 1, 1, 1, 1, 0, 1, -1, 1, -1, 0, 1, 1, -1]);
        let embed = Stream::new(seed, "model.embed_tokens.weight").embedding(3);
        assert_eq!(embed, bf16_bytes([19.0 / 1024.0, -19.0 / 2048.0, -39.0 / 1024.0].into_iter()));
    }
}
