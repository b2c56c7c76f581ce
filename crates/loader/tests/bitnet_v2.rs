//! BitNet v2 in files: every conversion keeps the forms of activations, and a file that contradicts itself is rejected.

mod common;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;

use bitnet_model::{Activation, ActivationBits, InputForms, ModelConfig};
use common::checkpoints::*;
use loader::convert::{ConvertOptions, ScaleRounding, Target, convert};
use loader::synthetic::Spec;

/// A model of this shape as a GGUF file.
fn write(config: &ModelConfig, path: &Path) {
    let spec = Spec::new("v2", config.clone(), 3);
    assert!(spec.write(path, NonZeroUsize::MIN, &mut |_| ControlFlow::Continue(())).unwrap());
}

/// Converts; scales may round.
fn rounding(input: &Path, output: &Path, target: Target) {
    let mut options = ConvertOptions::default();
    options.rounding = ScaleRounding::Nearest;
    convert(input, output, target, &options, &mut |_| {}).unwrap();
}

/// Every file form keeps the forms of activations, under its own type; and the model computes the same.
#[test]
fn models_of_bitnet_v2_become_every_form_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = ModelConfig::new(64, 256, 768, 2, 4, 2);
    config.hidden_act = Activation::Silu;
    config.inputs = InputForms::bitnet_v2(&config, ActivationBits::Four);
    config.inputs.mixer.bits = ActivationBits::Eight;
    let input = dir.path().join("synthetic.gguf");
    write(&config, &input);
    let original = load(&input);
    assert_eq!((original.config.inputs, open(&input).architecture()), (config.inputs, "bitnet-v2"));
    for target in Target::ALL {
        let out = dir.path().join(target.name());
        rounding(&input, &out, target);
        let read = load(&out);
        assert_eq!((read.config.inputs, open(&out).architecture()), (config.inputs, "bitnet-v2"), "{}", target.name());
        assert_eq!(read.config.hidden_act, Activation::Silu);
        // And back.
        let back = dir.path().join(format!("{}-back", target.name()));
        rounding(&out, &back, Target::I2S);
        assert_same(&read, &load(&back), EXACT, target.name());
    }
}

/// Files that contradict themselves, one per way to do so, each named.
#[test]
fn contradictions_about_activations_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = ModelConfig::new(64, 256, 768, 1, 4, 2);
    config.inputs = InputForms::bitnet_v2(&config, ActivationBits::Four);
    let gguf = dir.path().join("v2.gguf");
    write(&config, &gguf);
    let folder = dir.path().join("folder");
    rounding(&gguf, &folder, Target::HfPacked);
    let path = folder.join("config.json");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let refused = |change: &dyn Fn(&mut serde_json::Value), words: [&str; 2]| {
        let mut changed = json.clone();
        change(&mut changed);
        std::fs::write(&path, changed.to_string()).unwrap();
        let error = fails(&folder).unwrap_or_else(|| panic!("{words:?} was read")).to_string();
        assert!(words.iter().all(|w| error.contains(w)), "{words:?}: {error}");
    };
    refused(&|j| j["model_type"] = "bitnet".into(), ["input_forms", "contradicts"]);
    refused(&|j| j["input_forms"] = serde_json::Value::Null, ["input_forms", "missing"]);
    refused(&|j| drop(j["input_forms"].as_object_mut().unwrap().remove("up_proj")), ["without up_proj", "complete"]);
    refused(&|j| j["input_forms"]["k_proj"]["activation_bits"] = 8.into(), ["k_proj", "same row"]);
    refused(&|j| j["input_forms"]["o_proj"]["activation_bits"] = 2.into(), ["o_proj", "8 or 4"]);
    refused(&|j| j["input_forms"]["o_proj"]["hadamard_block"] = 512.into(), ["o_proj", "rows of 256"]);
    refused(&|j| j["input_forms"]["down_proj"]["hadamard_block"] = 3.into(), ["down_proj", "power of two"]);
    refused(&|j| j["input_forms"]["o_proj"]["hadamard_block"] = (-1).into(), ["o_proj", "unsigned"]);
    refused(&|j| j["input_forms"]["x_proj"] = json["input_forms"]["o_proj"].clone(), ["x_proj", "none has this name"]);
    refused(&|j| j["input_forms"] = 4.into(), ["input_forms", "object"]);
    refused(&|j| drop(j.as_object_mut().unwrap().remove("hidden_act")), ["hidden_act", "missing"]);

    // GGUF files, whose keys are exchanged for others of the same length.
    let bytes = std::fs::read(&gguf).unwrap();
    let exchanged = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let mut changed = bytes.clone();
        let found: Vec<usize> =
            changed.windows(from.len()).enumerate().filter(|(_, w)| *w == from.as_bytes()).map(|(i, _)| i).collect();
        assert!(!found.is_empty(), "{from}");
        found.into_iter().for_each(|at| changed[at..at + to.len()].copy_from_slice(to.as_bytes()));
        let path = dir.path().join("changed.gguf");
        std::fs::write(&path, changed).unwrap();
        fails(&path).unwrap_or_else(|| panic!("{to} was read")).to_string()
    };
    let missing = exchanged("bitnet-v2.o_proj.hadamard_block", "bitnet-v2.o_proj.hadamard_blocc");
    assert!(missing.contains("o_proj.hadamard_block"), "{missing}");
    let stray = exchanged("bitnet-v2", "bitnet-25");
    assert!(stray.contains("contradicts"), "{stray}");
}
