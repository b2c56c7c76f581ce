//! Master weights that a run leaves are, to the bit, the ternary model that it computed with.
#![cfg(feature = "train")]

use std::ops::ControlFlow;
use std::path::Path;

use bitnet::train::{
    FusedLearner, MasterWeights, Params, TokenFile, TokenWidth, TokenWriter, TrainConfig, Trainer, model_from_json,
    write_master,
};
use bitnet::{Engine, KvType, Sequence};
use bitnet_model::{EngineOptions, ModelConfig, ModelWeights, Projection};
use loader::convert::{ConvertOptions, Target, convert};
use loader::{Checkpoint, LoadOptions};

#[test]
fn what_training_computes_with_is_what_loading_gives() {
    let mut model = ModelConfig::new(64, 128, 256, 3, 2, 1);
    model.max_position_embeddings = 64;
    let mut params = Params::init(&model, 7, 0.02).unwrap();
    let tied = format!("{}.weight", model.projection_name(0, Projection::Q));
    // Magnitudes of one tensor with a mean of 3, half of them ties: trits depend on how the scale divides.
    for (i, v) in params.get_mut(&tied).unwrap().iter_mut().enumerate() {
        *v = [1.5, -1.5, 4.5, -4.5][i % 4];
    }
    let dir = tempfile::tempdir().unwrap();
    write_master(dir.path(), &model, &params).unwrap();
    let loaded = Checkpoint::open(dir.path(), &LoadOptions::default()).unwrap().weights().unwrap();
    let trained = ModelWeights::from_source(&MasterWeights { model: &model, params: &params }).unwrap();
    for (l, (a, b)) in trained.layers.iter().zip(&loaded.layers).enumerate() {
        for ((p, a), (_, b)) in a.projections().zip(b.projections()) {
            assert_eq!(a.to_trits(), b.to_trits(), "layer {l} {}", p.name());
            // Bits of the scales, which differ from matrix to matrix.
            assert_eq!(a.scales(), b.scales(), "layer {l} {}", p.name());
        }
    }
}

/// Some steps of training: of a counting text.
fn trained(model: &ModelConfig, dir: &Path) -> Params {
    let path = dir.join("t.u16");
    let mut out = TokenWriter::create(&path, TokenWidth::U16).unwrap();
    out.write(&(0..2000).map(|i| i % 64).collect::<Vec<_>>()).unwrap();
    out.finish().unwrap();
    let mut config = TrainConfig { steps: 8, batch: 4, context: 20, threads: 2, ..TrainConfig::default() };
    config.schedule.warmup = 2;
    let data = TokenFile::open(&path, TokenWidth::U16).unwrap();
    let learner = FusedLearner::new(model, 2).unwrap();
    let mut run = Trainer::new(model, &config, learner, [Some(data), None], &dir.join("c.safetensors")).unwrap();
    run.run(&mut |_| ControlFlow::Continue(())).unwrap();
    run.params().clone()
}

fn weights(path: &Path) -> ModelWeights {
    Checkpoint::open(path, &LoadOptions::default()).and_then(|c| c.weights()).unwrap_or_else(|e| panic!("{e}"))
}

/// Bits of the logits after each of some tokens.
fn logits(weights: &ModelWeights) -> Vec<u32> {
    let engine = Engine::new(weights, &EngineOptions::default()).unwrap();
    let mut sequence = Sequence::new(&engine, KvType::F32, None);
    (0..12)
        .flat_map(|i| sequence.feed(&[i * 5 % 64]).unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>())
        .collect()
}

/// With a scale per group: the ternary model of training equals, to the bit, that of its masters, of a Hugging Face
/// folder and of GGUF files of all block lengths that can hold it; and so do the logits.
#[test]
fn models_with_groups_are_the_same_in_every_container() {
    for group in [64usize, 128] {
        let dir = tempfile::tempdir().unwrap();
        let shape = serde_json::json!({
            "model_type": "qwen3", "vocab_size": 64, "hidden_size": 128, "intermediate_size": 256,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
            "max_position_embeddings": 64, "weight_group_size": group,
        });
        let model = model_from_json(&shape).unwrap();
        assert!(model.head_norms && model.num_attention_heads * model.head_dim != model.hidden_size);
        let params = trained(&model, dir.path());
        let own = ModelWeights::from_source(&MasterWeights { model: &model, params: &params }).unwrap();
        let expected = logits(&own);

        let (master, hf) = (dir.path().join("master"), dir.path().join("hf"));
        write_master(&master, &model, &params).unwrap();
        let to = |input: &Path, output: &Path, target| {
            convert(input, output, target, &ConvertOptions::default(), &mut |_| {})
                .unwrap_or_else(|e| panic!("{}: {e}", target.name()));
        };
        to(&master, &hf, Target::HfUnpacked);
        let mut files = vec![master.clone(), hf.clone()];
        let targets: &[Target] = match group {
            64 => &[Target::Q2_0],
            _ => &[Target::Q2_0, Target::Pq2_0, Target::Ptq1_0],
        };
        for target in targets {
            for (input, name) in [(&master, "master"), (&hf, "hf")] {
                let file = dir.path().join(format!("{name}-{}.gguf", target.name()));
                to(input, &file, *target);
                files.push(file);
            }
        }
        for file in files {
            let (loaded, what) = (weights(&file), file.display());
            assert_eq!(loaded.config, own.config, "{what}");
            for (l, (a, b)) in own.layers.iter().zip(&loaded.layers).enumerate() {
                for ((p, a), (_, b)) in a.projections().zip(b.projections()) {
                    assert_eq!(a.to_trits(), b.to_trits(), "{what}: layer {l} {}", p.name());
                    let scales = |w: &ternary_kernels::TernaryMatrix| -> Vec<u32> {
                        let at = |r: usize| (0..w.cols()).step_by(64).map(move |c| (r, c));
                        (0..w.rows()).flat_map(at).map(|(r, c)| w.scales().at(r, c).to_bits()).collect()
                    };
                    assert_eq!(scales(a), scales(b), "{what}: layer {l} {}", p.name());
                    assert!(!matches!(a.scales(), ternary_kernels::Scales::Tensor(_)));
                }
            }
            assert!(logits(&loaded) == expected, "{what}: the logits differ");
        }
        // A packed folder has one scale per matrix, and rejects matrices with more.
        let packed = dir.path().join("packed");
        let refused = convert(&master, &packed, Target::HfPacked, &ConvertOptions::default(), &mut |_| {});
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("_proj.weight_scale"), "{error}");
    }
}
