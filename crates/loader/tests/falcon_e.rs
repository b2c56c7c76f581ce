//! Falcon-E in the forms that its makers' tool (`onebitllms`: `quantize_to_1bit`, `convert_to_bf16`) writes: a Llama without sub-norms whose
//! packed weights name no class of layer, and the same with every ternary weight as a bf16 number.

mod common;

use std::path::Path;

use bitnet_model::{Activation, Architecture, Projection};
use common::checkpoints::{EXACT, Tensor, assert_same, folder, load, open};
use half::bf16;
use loader::safetensors::{Dtype, Safetensors};
use serde_json::{Value, json};

/// The checkpoint whose logits are compared with an independent computation by `cargo xtask parity`.
fn reference() -> std::path::PathBuf {
    test_support::testdata("bitnet/llama_tiny/packed")
}

fn config() -> Value {
    serde_json::from_slice(&std::fs::read(reference().join("config.json")).unwrap()).unwrap()
}

/// A copy with another configuration, and with tensors as `change` leaves them.
fn copy(dir: &Path, config: &Value, change: impl Fn(&str, &mut Tensor) -> bool) {
    let file = Safetensors::open(&reference().join("model.safetensors")).unwrap();
    let mut tensors = Vec::new();
    for (name, view) in file.iter() {
        let mut tensor: Tensor = (name.to_owned(), view.dtype, view.shape.clone(), view.bytes.to_vec());
        if change(name, &mut tensor) {
            tensors.push(tensor);
        }
    }
    folder(dir, config, &tensors);
}

#[test]
fn one_bit_form_divides_by_its_scales() {
    let mut config = config();
    config["quantization_config"] = json!({ "modules_to_not_convert": ["lm_head"], "quant_method": "bitnet" });
    config["is_bitnet_config"] = true.into();
    config["pretraining_tp"] = 1.into();
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path(), &config, |_, _| true);
    let found = load(dir.path());
    assert_same(&load(&reference()), &found, EXACT, "packed");
    assert!(!found.config.sub_norms && found.config.hidden_act == Activation::Silu);
    assert_eq!(open(dir.path()).family(), Architecture::Llama);
}

#[test]
fn bfloat16_form_has_the_same_weights() {
    let original = load(&reference());
    let mut config = config();
    config.as_object_mut().unwrap().remove("quantization_config");
    let dir = tempfile::tempdir().unwrap();
    let projection = |name: &str| {
        let rest = name.strip_prefix("model.layers.")?.strip_suffix(".weight")?;
        let (layer, rest) = rest.split_once('.')?;
        let p = Projection::OF_ATTENTION.into_iter().find(|p| rest.ends_with(p.name()))?;
        Some(original.layers[layer.parse::<usize>().ok()?].projection(p))
    };
    copy(dir.path(), &config, |name, tensor| {
        if name.ends_with("weight_scale") {
            return false;
        }
        if let Some(w) = projection(name) {
            // The tool divides in bf16, so a weight is the nearest bf16 number to one scale.
            let scale = bf16::from_f32(w.scales().at(0, 0)).to_f32();
            let values = w.to_trits().into_iter().flat_map(|t| bf16::from_f32(f32::from(t) * scale).to_le_bytes());
            (tensor.1, tensor.2, tensor.3) = (Dtype::BF16, vec![w.rows(), w.cols()], values.collect());
        }
        true
    });
    let found = load(dir.path());
    for (a, b) in original.layers.iter().zip(&found.layers) {
        for p in Projection::OF_ATTENTION {
            let (a, b) = (a.projection(p), b.projection(p));
            assert!(a.to_trits() == b.to_trits(), "{}", p.name());
            assert_eq!(bf16::from_f32(a.scales().at(0, 0)).to_f32(), b.scales().at(0, 0), "{}", p.name());
        }
    }
    // Models for further training ("prequantized") are not ternary, and are recognised.
    let masters = tempfile::tempdir().unwrap();
    copy(masters.path(), &config, |name, tensor| {
        if name.ends_with("weight_scale") {
            return false;
        }
        if let Some(w) = projection(name) {
            let values =
                (0..w.rows() * w.cols()).flat_map(|i| bf16::from_f32((i % 251) as f32 / 251.0 - 0.5).to_le_bytes());
            (tensor.1, tensor.2, tensor.3) = (Dtype::BF16, vec![w.rows(), w.cols()], values.collect());
        }
        true
    });
    let error = common::checkpoints::fails(masters.path()).expect("dense weights are refused").to_string();
    assert!(error.contains("not quantised"), "{error}");
}
