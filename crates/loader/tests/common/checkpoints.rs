//! Checkpoints compared, and small ones made in memory.

use std::path::{Path, PathBuf};

use bitnet_model::{ModelWeights, Projection};
use half::bf16;
use loader::safetensors::{Dtype, NewTensor, write_file};
use loader::{Checkpoint, LoadError, LoadOptions};
use ternary_kernels::Scales;

pub fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path, &LoadOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn load(path: &Path) -> ModelWeights {
    open(path).weights().unwrap_or_else(|e| panic!("{e}"))
}

/// Opens and reads everything; the error, if that fails.
pub fn fails(path: &Path) -> Option<LoadError> {
    Checkpoint::open(path, &LoadOptions::default()).and_then(|c| c.weights()).err()
}

/// The allowed differences between two forms of one model.
#[derive(Clone, Copy)]
pub struct Allow {
    /// Relative difference of scales.
    pub scale: f32,
    /// Absolute difference of embedding values.
    pub embedding: f32,
}

pub const EXACT: Allow = Allow { scale: 0.0, embedding: 0.0 };

pub fn assert_same(a: &ModelWeights, b: &ModelWeights, allow: Allow, what: &str) {
    let (mut ca, mut cb) = (a.config.clone(), b.config.clone());
    // GGUF fixtures without a vocabulary name no special tokens, and give another context length.
    ca.max_position_embeddings = cb.max_position_embeddings;
    (ca.bos_token_id, cb.bos_token_id) = (None, None);
    ca.eos_token_ids.clear();
    cb.eos_token_ids.clear();
    assert_eq!(ca, cb, "{what}");
    let (mut ra, mut rb) = (vec![0.0; a.config.hidden_size], vec![0.0; a.config.hidden_size]);
    for (table_a, table_b) in [(&a.embedding, &b.embedding), (a.head_table().unwrap(), b.head_table().unwrap())] {
        for r in 0..a.config.vocab_size {
            table_a.row_into(r, &mut ra);
            table_b.row_into(r, &mut rb);
            let worst = ra.iter().zip(&rb).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
            assert!(worst <= allow.embedding, "{what}: row {r} of a table differs by {worst}");
        }
    }
    assert_eq!(a.final_norm, b.final_norm, "{what}");
    for (l, (x, y)) in a.layers.iter().zip(&b.layers).enumerate() {
        assert_eq!(x.input_norm, y.input_norm, "{what} layer {l}");
        assert_eq!(x.attn_sub_norm, y.attn_sub_norm, "{what} layer {l}");
        assert_eq!(x.post_attention_norm, y.post_attention_norm, "{what} layer {l}");
        assert_eq!(x.ffn_sub_norm, y.ffn_sub_norm, "{what} layer {l}");
        for p in Projection::OF_ATTENTION {
            let (wx, wy) = (x.projection(p), y.projection(p));
            assert!(wx.to_trits() == wy.to_trits(), "{what} layer {l} {}: trits differ", p.name());
            for r in 0..wx.rows() {
                let (sx, sy) = (wx.scales().at(r, 0), wy.scales().at(r, 0));
                let ok = (sx - sy).abs() <= allow.scale * sx.abs();
                assert!(ok, "{what} layer {l} {} row {r}: scale {sx} against {sy}", p.name());
            }
        }
    }
}

/// A tensor for [`folder`].
pub type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

pub fn bf16_tensor(name: &str, shape: &[usize], value: impl Fn(usize) -> f32) -> Tensor {
    let n: usize = shape.iter().product();
    let bytes = (0..n).flat_map(|i| bf16::from_f32(value(i)).to_le_bytes()).collect();
    (name.to_owned(), Dtype::BF16, shape.to_vec(), bytes)
}

/// hidden 64, ffn 96, 1 layer, 2/1 heads of 32, vocabulary 40; packed, `autobitlinear`.
pub const HIDDEN: usize = 64;
pub const FFN: usize = 96;
pub const VOCAB: usize = 40;

pub fn small_config() -> serde_json::Value {
    serde_json::json!({
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2",
        "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": VOCAB,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": [2, 3],
        "quantization_config": {
            "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"
        }
    })
}

pub fn trit(seed: usize, i: usize) -> i8 {
    ((i * 7 + seed * 13 + i / 5 + i * i / 11) % 3) as i8 - 1
}

/// The packed tensors of `small_config`; scale of projection `n` is `0.5 + n / 8`.
pub fn small_tensors() -> Vec<Tensor> {
    let l = "model.layers.0.";
    let mut all = vec![
        bf16_tensor("model.embed_tokens.weight", &[VOCAB, HIDDEN], |i| (i % 17) as f32 / 8.0 - 1.0),
        bf16_tensor("model.norm.weight", &[HIDDEN], |i| 1.0 + i as f32 / 64.0),
        bf16_tensor(&format!("{l}input_layernorm.weight"), &[HIDDEN], |_| 1.0),
        bf16_tensor(&format!("{l}post_attention_layernorm.weight"), &[HIDDEN], |_| 0.5),
        bf16_tensor(&format!("{l}self_attn.attn_sub_norm.weight"), &[HIDDEN], |_| 2.0),
        bf16_tensor(&format!("{l}mlp.ffn_sub_norm.weight"), &[FFN], |_| 1.5),
    ];
    for (n, p) in Projection::OF_ATTENTION.iter().enumerate() {
        let (rows, cols) = shape(*p);
        let trits: Vec<i8> = (0..rows * cols).map(|i| trit(n, i)).collect();
        let base = projection_name(*p);
        let packed = ternary_kernels::TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(1.0)).unwrap();
        let packed = ternary_kernels::FileFormat::HfPacked.encode(&packed, Default::default()).unwrap();
        all.push((format!("{base}.weight"), Dtype::U8, vec![rows / 4, cols], packed));
        all.push(bf16_tensor(&format!("{base}.weight_scale"), &[1], |_| 0.5 + n as f32 / 8.0));
    }
    all
}

pub fn projection_name(p: Projection) -> String {
    let block = if matches!(p, Projection::Gate | Projection::Up | Projection::Down) { "mlp" } else { "self_attn" };
    format!("model.layers.0.{block}.{}", p.name())
}

pub fn shape(p: Projection) -> (usize, usize) {
    bitnet_model::ModelConfig::new(VOCAB, HIDDEN, FFN, 1, 2, 1).projection_shape(0, p)
}

pub fn write_tensors(path: &Path, tensors: &[Tensor]) {
    let mut out = std::fs::File::create(path).unwrap();
    let new = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| NewTensor {
            name: name.clone(),
            dtype: *dtype,
            shape: shape.clone(),
            write: Box::new(move |o| o.write_all(bytes)),
        })
        .collect();
    write_file(&mut out, None, new).unwrap();
}

/// Writes a Hugging Face folder.
pub fn folder(dir: &Path, config: &serde_json::Value, tensors: &[Tensor]) -> PathBuf {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    write_tensors(&dir.join("model.safetensors"), tensors);
    dir.to_path_buf()
}
