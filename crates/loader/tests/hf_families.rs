//! Hugging Face folders of families other than BitNet: gains minus 1, norms of outputs and of projections, biases;
//! written, read back, equal.

mod common;

use std::path::Path;

use bitnet_model::{
    Architecture, ModelConfig, ModelWeights, Norm, Pooling, SyntheticWeights, WeightSource, config_json,
};
use common::checkpoints::{Tensor, folder, load};
use loader::convert::{ConvertOptions, Target, convert};
use loader::gguf::{GgmlType, Gguf, TensorType};
use loader::safetensors::Dtype;

/// A model of the family whose rows every format holds.
fn shape(a: Architecture, embeds: bool) -> ModelConfig {
    let mut c = a.example();
    (c.hidden_size, c.intermediate_size, c.head_dim) = (128, 256, 32);
    if embeds {
        (c.projection_norms, c.headless, c.pooling) = (true, true, Some(Pooling::Last));
    }
    a.imply(&mut c);
    c.validate().unwrap();
    c
}

fn floats(name: String, shape: Vec<usize>, values: &[f32]) -> Tensor {
    (name, Dtype::F32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// Writes a folder as other programs have it: trits times one scale per matrix.
fn write(dir: &Path, a: Architecture, c: &ModelConfig) {
    let source = SyntheticWeights::new(c.clone(), 3);
    let weights = ModelWeights::from_source(&source).unwrap();
    let mut rows = vec![0.0; c.vocab_size * c.hidden_size];
    for (r, row) in rows.chunks_mut(c.hidden_size).enumerate() {
        weights.embedding.row_into(r, row);
    }
    let mut all = vec![floats("model.embed_tokens.weight".into(), vec![c.vocab_size, c.hidden_size], &rows)];
    let norms = (0..c.num_hidden_layers).flat_map(|l| c.layer_norms(l)).chain([Norm::Final]);
    all.extend(norms.map(|n| {
        // Gemma's own norms multiply by 1 + w.
        let offset = match n {
            Norm::ProjectionIn(..) => 0.0,
            _ => f32::from(u8::from(a == Architecture::Gemma3)),
        };
        let stored: Vec<f32> = source.norm(n).unwrap().iter().map(|v| v - offset).collect();
        floats(c.norm_name(n), vec![stored.len()], &stored)
    }));
    for l in 0..c.num_hidden_layers {
        for p in c.layer_projections(l) {
            let w = source.projection(l, p).unwrap();
            let values: Vec<f32> = w.to_trits().iter().map(|t| 0.25 * f32::from(*t)).collect();
            all.push(floats(format!("{}.weight", c.projection_name(l, p)), vec![w.rows(), w.cols()], &values));
        }
        all.extend(c.layer_biases(l).map(|(p, len)| {
            floats(format!("{}.bias", c.projection_name(l, p)), vec![len], &source.bias(l, p).unwrap())
        }));
    }
    folder(dir, &serde_json::Value::Object(config_json::write(c).unwrap()), &all);
    if c.pooling.is_some() {
        std::fs::write(dir.join("pooling_config.json"), r#"{"pooling_mode": "lasttoken"}"#).unwrap();
    }
}

fn to(input: &Path, output: &Path, target: Target) {
    let result = convert(input, output, target, &ConvertOptions::default(), &mut |_| {});
    result.unwrap_or_else(|e| panic!("{} to {}: {e}", input.display(), target.name()));
}

fn assert_equal(a: &ModelWeights, b: &ModelWeights, what: &str) {
    assert_eq!(a.config, b.config, "{what}");
    let bits = |v: Option<&[f32]>| v.map(|v| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    let c = &a.config;
    for n in (0..c.num_hidden_layers).flat_map(|l| c.layer_norms(l)).chain([Norm::Final]) {
        assert!(a.norm(n).is_some());
        assert_eq!(bits(a.norm(n)), bits(b.norm(n)), "{what} {n:?}");
    }
    for (l, (x, y)) in a.layers.iter().zip(&b.layers).enumerate() {
        for (p, _) in c.layer_biases(l) {
            assert!(x.bias(p).is_some_and(|b| b.iter().any(|v| *v != 0.0)));
            assert_eq!(bits(x.bias(p)), bits(y.bias(p)), "{what} layer {l} {}", p.name());
        }
        for ((p, x), (_, y)) in x.projections().zip(y.projections()) {
            assert_eq!(x.to_trits(), y.to_trits(), "{what} layer {l} {}", p.name());
            assert_eq!(x.scales(), y.scales(), "{what} layer {l} {}", p.name());
        }
    }
    let (mut x, mut y) = (vec![0.0; c.hidden_size], vec![0.0; c.hidden_size]);
    for r in 0..c.vocab_size {
        a.embedding.row_into(r, &mut x);
        b.embedding.row_into(r, &mut y);
        assert_eq!(x, y, "{what}: row {r} of the embedding");
    }
}

#[test]
fn families_are_read_back_from_what_is_written() {
    let cases = [
        (Architecture::Gemma3, false),
        (Architecture::Gemma3, true),
        (Architecture::Qwen2, false),
        (Architecture::Qwen3, false),
        (Architecture::Qwen3, true),
    ];
    for (a, embeds) in cases {
        let dir = tempfile::tempdir().unwrap();
        let c = shape(a, embeds);
        let (source, gguf) = (dir.path().join("source"), dir.path().join("model.gguf"));
        write(&source, a, &c);
        let reference = load(&source);
        assert_eq!(reference.config, c, "{a:?}");
        let own = ModelWeights::from_source(&SyntheticWeights::new(c.clone(), 3)).unwrap();
        for n in (0..c.num_hidden_layers).flat_map(|l| c.layer_norms(l)).chain([Norm::Final]) {
            assert_eq!(reference.norm(n), own.norm(n), "{a:?} {n:?}");
        }
        to(&source, &gguf, Target::I2S);
        assert_equal(&reference, &load(&gguf), &format!("{a:?} as I2_S"));
        for (input, name) in [(&source, "of the folder"), (&gguf, "of the GGUF file")] {
            for target in [Target::HfPacked, Target::HfUnpacked] {
                let output = dir.path().join(format!("{name} {}", target.name()));
                to(input, &output, target);
                assert_equal(&reference, &load(&output), &format!("{a:?} as {} {name}", target.name()));
            }
        }
    }
}

/// Norms of embedding models are F16 in GGUF files, and stay so; F32 ones stay, too.
#[test]
fn norms_keep_their_type_from_file_to_file() {
    let Some(shared) = test_support::shared_dir() else { return };
    let folder = shared.join("fixtures/families/bitnet_embedding_qwen3/mean_gqa");
    if !folder.is_dir() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let files = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path());
    let source = files.into_iter().find(|p| p.extension().is_some_and(|e| e == "gguf")).unwrap();
    let types = |path: &Path| -> Vec<(String, TensorType)> {
        let file = Gguf::open(path).unwrap();
        let norms = file.tensors().iter().filter(|t| t.name().contains("norm"));
        let mut all: Vec<_> = norms.map(|t| (t.name().to_owned(), t.tensor_type())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    };
    let before = types(&source);
    assert!(before.iter().any(|(_, ty)| *ty == TensorType::Known(GgmlType::F16)), "{before:?}");
    let output = dir.path().join("model.gguf");
    to(&source, &output, Target::I2S);
    assert_eq!(types(&output), before);
    assert_equal(&load(&source), &load(&output), "F16 norms");
    // A folder does not record the type in a GGUF file: it becomes F32, which every program reads.
    let (hf, again) = (dir.path().join("hf"), dir.path().join("again.gguf"));
    to(&source, &hf, Target::HfUnpacked);
    to(&hf, &again, Target::I2S);
    assert!(types(&again).iter().all(|(_, ty)| *ty == TensorType::Known(GgmlType::F32)));
}
