//! TriLM: ternary weights stored as floats, with a scale for each shard that a device had in training.

mod common;

use bitnet_model::{Architecture, WeightSource};
use loader::{Checkpoint, LoadOptions};
use serde_json::json;

fn open(path: &std::path::Path) -> Result<Checkpoint, String> {
    Checkpoint::open(path, &LoadOptions::default()).map_err(|e| e.to_string())
}

/// TriLM as published: `llama` in F16, ternary with one scale for each shard that a device had in training. The first matrices of a block were cut
/// by rows, the last ones by columns.
fn trilm(scale: impl Fn(usize) -> f32) -> tempfile::TempDir {
    let (vocab, hidden, ffn) = (40usize, 256usize, 640usize);
    let half = |v: f32| half::f16::from_f32(v).to_le_bytes();
    let mut tensors: Vec<common::checkpoints::Tensor> = Vec::new();
    let mut put = |name: &str, shape: [usize; 2], value: &dyn Fn(usize, usize) -> f32| {
        let values =
            (0..shape[0]).flat_map(|r| (0..shape[1]).map(move |c| (r, c))).flat_map(|(r, c)| half(value(r, c)));
        let shape = if shape[0] == 1 { vec![shape[1]] } else { shape.to_vec() };
        tensors.push((name.to_owned(), loader::safetensors::Dtype::F16, shape, values.collect()));
    };
    let trit = |r: usize, c: usize| ((r * 7 + c * 5 + r * c) % 3) as f32 - 1.0;
    put("model.embed_tokens.weight", [vocab, hidden], &|r, c| (r as f32 - c as f32) / 512.0);
    put("lm_head.weight", [vocab, hidden], &|r, c| (c as f32 - 2.0 * r as f32) / 512.0);
    put("model.norm.weight", [1, hidden], &|_, _| 1.0);
    let l = "model.layers.0.";
    for name in ["input_layernorm", "post_attention_layernorm"] {
        put(&format!("{l}{name}.weight"), [1, hidden], &|_, _| 1.0);
    }
    for name in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"] {
        put(&format!("{l}{name}.weight"), [hidden, hidden], &|r, c| trit(r, c) * scale(2 * r / hidden));
    }
    for name in ["mlp.gate_proj", "mlp.up_proj"] {
        put(&format!("{l}{name}.weight"), [ffn, hidden], &|r, c| trit(r, c) * scale(2 * r / ffn));
    }
    put(&format!("{l}self_attn.o_proj.weight"), [hidden, hidden], &|r, c| trit(r, c) * scale(2 * c / hidden));
    put(&format!("{l}mlp.down_proj.weight"), [hidden, ffn], &|r, c| trit(r, c) * scale(2 * c / ffn));
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float16", "hidden_act": "silu",
        "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "rope_scaling": null, "attention_bias": false, "tie_word_embeddings": false,
        "bos_token_id": 0, "eos_token_id": 0,
    });
    let dir = tempfile::tempdir().unwrap();
    common::checkpoints::folder(dir.path(), &config, &tensors);
    dir
}

#[test]
fn trilm_keeps_the_scale_of_every_shard() {
    use bitnet_model::{ActivationBits, ModelWeights, Projection};
    let scales = [0.0625, half::f16::from_f32(0.05).to_f32()];
    let dir = trilm(|shard| scales[shard]);
    let checkpoint = open(dir.path()).unwrap();
    assert_eq!(checkpoint.family(), Architecture::Llama);
    assert!(!checkpoint.config().sub_norms && checkpoint.config().head_dim == 64);
    for (p, by_rows) in
        [(Projection::Q, true), (Projection::Gate, true), (Projection::O, false), (Projection::Down, false)]
    {
        let w = checkpoint.projection(0, p).unwrap();
        let mut row = vec![0i8; w.cols()];
        for r in 0..w.rows() {
            w.decode_row(r, &mut row);
            for (c, t) in row.iter().enumerate() {
                let shard = if by_rows { 2 * r / w.rows() } else { 2 * c / w.cols() };
                assert_eq!(*t, ((r * 7 + c * 5 + r * c) % 3) as i8 - 1);
                // Rows of zeros have a scale of their own.
                let value = f32::from(*t) * scales[shard];
                assert_eq!(f32::from(*t) * w.scales().at(r, c), value, "{p:?} {r} {c}");
            }
        }
    }
    // Scales within rows imply a model that was trained with half-precision activations.
    let weights = ModelWeights::from_source(&checkpoint).unwrap();
    assert_eq!(weights.config.inputs.all().map(|form| form.bits), [ActivationBits::Sixteen; 4]);
    assert!(checkpoint.notes().iter().any(|n| n.contains("one scale per group")), "{:?}", checkpoint.notes());
    // With a single shard it cannot be distinguished from a BitNet model, and a note states what is computed.
    let one = trilm(|_| 0.0625);
    let checkpoint = open(one.path()).unwrap();
    let weights = ModelWeights::from_source(&checkpoint).unwrap();
    assert_eq!(weights.config.inputs.all().map(|form| form.bits), [ActivationBits::Eight; 4]);
    assert!(checkpoint.notes().iter().any(|n| n.contains("--activations 16")), "{:?}", checkpoint.notes());
}

/// The published shapes of TriLM: each is a configuration of `llama` with about as many weights as its name says.
#[test]
fn published_shapes_of_trilm_are_configurations() {
    for (name, [hidden, ffn, layers, heads, vocab]) in [
        (0.099, [512, 1280, 16, 8, 50_304]),
        (0.19, [768, 2048, 16, 12, 50_304]),
        (0.39, [1024, 2560, 24, 16, 50_304]),
        (0.56, [1280, 3072, 24, 20, 50_304]),
        (0.83, [1536, 4096, 24, 24, 50_304]),
        (1.1, [1792, 5120, 24, 28, 50_432]),
        (1.5, [2048, 6144, 24, 32, 50_432]),
        (2.4, [2304, 7680, 30, 36, 50_304]),
        (3.9, [3072, 9216, 30, 24, 50_688]),
    ] {
        let json = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab, "hidden_size": hidden,
            "intermediate_size": ffn, "num_hidden_layers": layers, "num_attention_heads": heads, "rms_norm_eps": 1e-5,
            "num_key_value_heads": heads, "max_position_embeddings": 2048, "hidden_act": "silu", "rope_theta": 10000.0,
        });
        let facts = bitnet_model::config_json::JsonFacts { has_head: true, ..Default::default() };
        let c = bitnet_model::config_json::read(json.as_object().unwrap(), Architecture::Llama, &facts).unwrap();
        c.validate().unwrap();
        assert_eq!(Architecture::of(&c), Some(Architecture::Llama));
        let share = c.parameters() as f64 / 1e9 / name;
        assert!((0.9..1.1).contains(&share), "{name}: {}", c.parameters());
    }
}
