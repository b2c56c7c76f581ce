//! Files of extractors: both containers hold the same, and other files are not read as extractors.

use bitnet_model::encoder::{
    Directions, EncoderMixer, Extractor, ExtractorConfig, ExtractorWeights, OosRule, OosScore, TaskConfig, Utterance,
};
use loader::extractor::{self, ARCHITECTURE, config_from_json, config_to_json};
use loader::gguf::{GgmlType, Gguf, GgufWriter, Metadata};
use loader::safetensors::Safetensors;
use loader::{LoadError, LoadOptions};
use test_support::Tensors;

fn weights() -> ExtractorWeights {
    let names = |of: &str, n: usize| (0..n).map(|i| format!("{of} \u{201C}{i}\u{201D}")).collect();
    let mut task = TaskConfig::new("music", names("intent", 4), names("slot", 2));
    task.intent_slots = Some(vec![vec![0, 1], vec![], vec![1], vec![0]]);
    task.oos = Some(OosRule { score: OosScore::MaxLogit, threshold: 0.1 });
    task.once = vec![1];
    task.temperature = 1.3;
    let config = ExtractorConfig {
        buckets: 40,
        hidden_size: 32,
        num_layers: 1,
        num_heads: 2,
        intermediate_size: 64,
        ..ExtractorConfig::new(vec![task, TaskConfig::new("topic", names("topic", 3), vec![])])
    };
    let mut weights = ExtractorWeights::synthetic(config, 5).unwrap();
    // A head that half precision does not hold, so that both widths are written.
    weights.tasks[0].intent_bias[1] = 0.1;
    weights
}

/// All numbers of a text, bit by bit.
fn answer(weights: ExtractorWeights, text: &str) -> Vec<u32> {
    let extractor = Extractor::new(weights).unwrap();
    let mut scratch = extractor.scratch();
    let found = extractor.extract_into(0, text, &mut scratch).unwrap();
    found.logits.iter().chain(found.emissions).map(|v| v.to_bits()).collect()
}

#[test]
fn both_containers_hold_the_same_extractor() {
    let folder = tempfile::tempdir().unwrap();
    let (file, hf) = (folder.path().join("a.gguf"), folder.path().join("hf"));
    extractor::write_gguf(&file, &weights()).unwrap();
    extractor::write_safetensors(&hf, &weights()).unwrap();
    let expected = answer(weights(), "play sme jazz");
    let read = [
        extractor::read(&file).unwrap(),
        extractor::read(&hf).unwrap(),
        extractor::read(&hf.join("model.safetensors")).unwrap(),
        extractor::read_bytes(std::fs::read(&file).unwrap().into()).unwrap(),
    ];
    for read in read {
        assert_eq!(read.config, weights().config);
        assert_eq!(answer(read, "play sme jazz"), expected);
    }
    assert!(extractor::is_extractor(&file) && extractor::is_extractor(&hf));
    let types = |name: &str| Gguf::open(&file).unwrap().tensor(name).unwrap().tensor_type().to_string();
    assert_eq!((types("features.weight"), types("blk.0.ffn_up.weight")), ("Q8_0".into(), "I2_S".into()));
    assert_eq!((types("task.music.intent.weight"), types("task.music.intent.bias")), ("F16".into(), "F32".into()));
    let names = Safetensors::open(&hf).unwrap().iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    assert!(names.contains(&"blk.0.attn_q.weight_scale".to_owned()) && names.contains(&"features.scale".to_owned()));
    assert!(!names.iter().any(|name| name.starts_with("task.topic.tags")), "{names:?}");
    // Written over, both stay whole.
    extractor::write_gguf(&file, &weights()).unwrap();
    extractor::write_safetensors(&hf, &weights()).unwrap();
}

/// An extractor whose layers have these mixers.
fn mixed(mixers: &[EncoderMixer]) -> ExtractorWeights {
    let config = ExtractorConfig { mixers: mixers.to_vec(), num_layers: mixers.len(), ..weights().config };
    ExtractorWeights::synthetic(config, 5).unwrap()
}

#[test]
fn recurrent_layers_are_in_both_containers() {
    use EncoderMixer::{Attention, GatedDelta, TttLinear};
    let folder = tempfile::tempdir().unwrap();
    let (file, hf) = (folder.path().join("a.gguf"), folder.path().join("hf"));
    for (mixers, json) in [
        (vec![TttLinear], "\"mixer\":\"ttt_linear\""),
        (vec![GatedDelta; 2], "\"mixer\":\"gated_delta\""),
        (vec![Attention], "\"mixer\":\"attention\""),
        (vec![GatedDelta, Attention, TttLinear], "\"mixer\":[\"gated_delta\",\"attention\",\"ttt_linear\"]"),
    ] {
        let written = mixed(&mixers);
        extractor::write_gguf(&file, &written).unwrap();
        extractor::write_safetensors(&hf, &written).unwrap();
        let text = std::fs::read_to_string(hf.join("config.json")).unwrap();
        assert!(text.contains(json), "{text}");
        let expected = answer(written, "play sme jazz");
        for path in [&file, &hf] {
            let read = extractor::read(path).unwrap();
            assert_eq!(read.config.mixers, mixers);
            assert_eq!(answer(read, "play sme jazz"), expected, "{mixers:?}");
        }
    }
    // Files of attention say nothing of it, as before.
    extractor::write_safetensors(&hf, &weights()).unwrap();
    assert!(!std::fs::read_to_string(hf.join("config.json")).unwrap().contains("mixer"));
}

#[test]
fn one_direction_is_in_both_containers() {
    use EncoderMixer::{Attention, GatedDelta, TttLinear};
    let folder = tempfile::tempdir().unwrap();
    let (file, hf) = (folder.path().join("a.gguf"), folder.path().join("hf"));
    for mixer in [Attention, TttLinear, GatedDelta] {
        let config = ExtractorConfig { directions: Directions::Forward, ..mixed(&[mixer; 2]).config };
        let written = ExtractorWeights::synthetic(config, 5).unwrap();
        extractor::write_gguf(&file, &written).unwrap();
        extractor::write_safetensors(&hf, &written).unwrap();
        let text = std::fs::read_to_string(hf.join("config.json")).unwrap();
        assert!(text.contains("\"directions\":\"forward\""), "{text}");
        let expected = answer(written, "play sme jazz");
        for path in [&file, &hf] {
            assert_eq!(answer(extractor::read(path).unwrap(), "play sme jazz"), expected, "{mixer:?}");
        }
        assert_ne!(answer(mixed(&[mixer; 2]), "play sme jazz"), expected);
    }
    // Files that read in both directions say nothing of it, as before; what they have for the other one is refused.
    let both = mixed(&[TttLinear]);
    let json = config_to_json(&both.config).unwrap();
    assert!(!json.contains("directions") && config_from_json(json.as_bytes()).unwrap().directions == Directions::Both);
    extractor::write_gguf(&file, &both).unwrap();
    let said = json.replacen("\"intermediate_size\"", "\"directions\":\"forward\",\"intermediate_size\"", 1);
    let file = std::fs::read(&file).unwrap();
    let forward = rewritten(&file, |m| m.set("extractor.config", said.as_str()), |_, _, _, _| true);
    let error = forward.unwrap_err().to_string();
    assert!(error.contains("blk.0.backward"), "{error}");
    let error = config_from_json(said.replacen("forward", "backward", 1).as_bytes()).unwrap_err().to_string();
    assert!(error.contains("both or forward"), "{error}");
}

#[test]
fn tensors_of_recurrences_are_asked_for_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    extractor::write_gguf(&path, &mixed(&[EncoderMixer::TttLinear])).unwrap();
    let file = std::fs::read(&path).unwrap();
    let refused = |word: &str, result: Result<ExtractorWeights, LoadError>| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    };
    for missing in ["blk.0.attn_gate.weight", "blk.0.forward.ttt_w1.weight", "blk.0.backward.ttt_conv_k.bias"] {
        refused(missing, rewritten(&file, |_| (), |name, _, _, _| name != missing));
    }
    for (mixer, word) in [(EncoderMixer::GatedDelta, "ttt_"), (EncoderMixer::Attention, "blk.0.attn_gate.weight")] {
        let other = ExtractorConfig { mixers: vec![mixer], ..mixed(&[EncoderMixer::TttLinear]).config };
        let json = config_to_json(&other).unwrap();
        refused(word, rewritten(&file, |m| m.set("extractor.config", json.as_str()), |_, _, _, _| true));
    }
    let json = config_to_json(&mixed(&[EncoderMixer::TttLinear]).config).unwrap();
    for (to, word) in [
        ("\"mixer\":\"mamba\"", "ttt_linear or gated_delta"),
        ("\"mixer\":[\"ttt_linear\",\"ttt_linear\"]", "2 names for 1 layers"),
        ("\"mixer\":[]", "mixer"),
        ("\"mixer\":7", "did not match"),
    ] {
        let changed = json.replacen("\"mixer\":\"ttt_linear\"", to, 1);
        let error = config_from_json(changed.as_bytes()).map_err(|e| e.to_string());
        assert!(error.as_ref().is_err_and(|e| e.contains(word)), "{to}: {error:?}");
    }
}

#[test]
fn models_of_other_kinds_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("extractor.gguf");
    extractor::write_gguf(&file, &weights()).unwrap();
    let hf = folder.path().join("hf");
    extractor::write_safetensors(&hf, &weights()).unwrap();
    for path in [&file, &hf] {
        let error = loader::load(path, &LoadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("Extractor::load") && error.contains("bitnet extract"), "{error}");
    }
    let mut writer = GgufWriter::new();
    writer.metadata_mut().set("general.architecture", "qwen3");
    let bytes = writer.start(Vec::new()).unwrap().finish().unwrap();
    let error = extractor::read_bytes(bytes.into()).unwrap_err();
    assert!(error.to_string().contains("qwen3") && error.to_string().contains("Model::load"), "{error}");
    let error = config_from_json(br#"{"model_type": "llama"}"#).unwrap_err();
    assert!(matches!(error, LoadError::NotAnExtractor { .. }), "{error}");
    assert!(!extractor::is_extractor(&folder.path().join("none")));
    assert!(extractor::read(&folder.path().join("none")).is_err());
}

#[test]
fn configurations_are_read_as_written_or_refused() {
    let config = weights().config;
    let json = config_to_json(&config).unwrap();
    assert_eq!(config_from_json(json.as_bytes()).unwrap(), config);
    let changed = |from: &str, to: &str| {
        assert!(json.contains(from), "{from} is not in {json}");
        config_from_json(json.replacen(from, to, 1).as_bytes()).unwrap_err().to_string()
    };
    for (from, to, word) in [
        ("\"format\":2", "\"format\":1", "train it again"),
        ("\"format\":2", "\"format\":1,\"window\":3", "train it again"),
        ("\"reach\":1", "\"reach\":3", "reach"),
        ("\"silu\"", "\"gelu\"", "hidden_act"),
        ("\"max_logit\"", "\"entropy\"", "oos.score"),
        ("\"buckets\":40", "\"buckets\":0", "buckets"),
        ("\"buckets\":40", "\"buckets\":-1", "JSON"),
        ("\"buckets\":40", "\"buckets\":40,\"dropout\":0.1", "dropout"),
        ("\"buckets\":40,", "", "buckets"),
        ("\"temperature\":1.3", "\"temperature\":1e99", "temperature"),
        ("\"name\":\"topic\"", "\"name\":\"music\"", "tasks.name"),
        ("\"once\":[1]", "\"once\":[2]", "tasks.once"),
        ("\"once\":[1]", "\"once\":true", "JSON"),
    ] {
        let error = changed(from, to);
        assert!(error.contains(word), "{to}: {error}");
    }
    for bad in ["", "null", "[]", "{", "{\"model_type\":7}", &"[".repeat(100_000)] {
        assert!(config_from_json(bad.as_bytes()).is_err());
    }
}

/// The tensors of a file with a change.
fn rewritten(
    file: &[u8],
    change: impl Fn(&mut Metadata),
    data: impl Fn(&str, &mut GgmlType, &mut Vec<u64>, &mut Vec<u8>) -> bool,
) -> Result<ExtractorWeights, LoadError> {
    let file = Gguf::from_bytes(file.to_vec().into()).unwrap();
    let mut metadata = file.metadata().clone();
    change(&mut metadata);
    let mut writer = GgufWriter::with_metadata(metadata).unwrap();
    let mut tensors = Vec::new();
    for info in file.tensors() {
        let (mut ty, bytes) = file.data(info).unwrap();
        let (mut shape, mut bytes) = (info.shape(), bytes.to_vec());
        if data(info.name(), &mut ty, &mut shape, &mut bytes) {
            writer.announce(info.name(), &shape, ty).unwrap();
            tensors.push((info.name().to_owned(), bytes));
        }
    }
    let mut stream = writer.start(Vec::new()).unwrap();
    for (name, bytes) in &tensors {
        stream.tensor(name, |out| out.write_all(bytes)).unwrap();
    }
    extractor::read_bytes(stream.finish().unwrap().into())
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    extractor::write_gguf(&path, &weights()).unwrap();
    let file = std::fs::read(&path).unwrap();
    assert!(rewritten(&file, |_| (), |_, _, _, _| true).is_ok());
    let refused = |word: &str, result: Result<ExtractorWeights, LoadError>| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    };
    for missing in ["features.weight", "blk.0.attn_norm.weight", "blk.0.ffn_gate.weight", "task.topic.intent.bias"] {
        refused(missing, rewritten(&file, |_| (), |name, _, _, _| name != missing));
    }
    refused("extractor.config", rewritten(&file, |m| m.retain(|k| k != "extractor.config"), |_, _, _, _| true));
    refused("extractor.format", rewritten(&file, |m| m.retain(|k| k != "extractor.format"), |_, _, _, _| true));
    refused("extractor.format", rewritten(&file, |m| m.set("extractor.format", 1u32), |_, _, _, _| true));
    refused("extractor.config", rewritten(&file, |m| m.set("extractor.config", 2u32), |_, _, _, _| true));
    // Fewer buckets than the table has rows.
    let shrunk = config_to_json(&ExtractorConfig { buckets: 39, ..weights().config }).unwrap();
    let set = |m: &mut Metadata| m.set("extractor.config", shrunk.as_str());
    refused("features.weight", rewritten(&file, set, |_, _, _, _| true));
    // A task that the configuration does not know.
    let one = ExtractorConfig { tasks: weights().config.tasks[..1].to_vec(), ..weights().config };
    let one = config_to_json(&one).unwrap();
    refused("task.topic", rewritten(&file, |m| m.set("extractor.config", one.as_str()), |_, _, _, _| true));
    // Numbers that are none, scales that differ in a row, another type.
    refused(
        "blk.0.attn_norm.weight",
        rewritten(
            &file,
            |_| (),
            |name, ty, _, bytes| {
                if name == "blk.0.attn_norm.weight" {
                    assert_eq!(*ty, GgmlType::F16);
                    bytes[..2].copy_from_slice(&[0, 0x7E]);
                }
                true
            },
        ),
    );
    refused(
        "ternary",
        rewritten(
            &file,
            |_| (),
            |name, ty, _, bytes| {
                if name == "blk.0.attn_k.weight" {
                    (*ty, *bytes) = (GgmlType::F16, vec![0; 32 * 32 * 2]);
                }
                true
            },
        ),
    );
    refused(
        "features.scale",
        rewritten(
            &file,
            |_| (),
            |name, _, _, bytes| {
                if name == "features.weight" {
                    bytes[34 * 7..34 * 7 + 2].copy_from_slice(&[0, 0x7C]);
                }
                true
            },
        ),
    );
}

#[test]
fn rows_of_features_have_one_scale() {
    let mut wide = weights();
    wide.config.hidden_size = 64;
    let wide = ExtractorWeights::synthetic(wide.config, 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    extractor::write_gguf(&path, &wide).unwrap();
    let file = std::fs::read(&path).unwrap();
    let result = rewritten(
        &file,
        |_| (),
        |name, _, _, bytes| {
            if name == "features.weight" {
                // The second block of row 3.
                bytes[34 * 7] ^= 1;
            }
            true
        },
    );
    assert!(matches!(result, Err(LoadError::FeatureBlocks { row: 3 })), "{:?}", result.err());
}

#[test]
fn damaged_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    extractor::write_gguf(&path, &weights()).unwrap();
    let file = std::fs::read(&path).unwrap();
    // The last tensor may be followed by padding.
    for len in (0..file.len() - 31).step_by(37) {
        assert!(extractor::read_bytes(file[..len].to_vec().into()).is_err(), "{len} bytes");
    }
    let header = Gguf::from_bytes(file.clone().into()).unwrap().data_start() as usize;
    for at in 0..header {
        for bit in [0, 4, 7] {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            // Some changes leave another extractor, in a name for example; none may have a worse effect.
            if let Ok(weights) = extractor::read_bytes(damaged.into()) {
                assert!(Extractor::new(weights).is_ok(), "byte {at}");
            }
        }
    }
    assert_eq!(Gguf::from_bytes(file.into()).unwrap().architecture(), ARCHITECTURE);
}

/// `testdata/extractor` and `testdata/extractor_recurrent` come from a float64 model in Python that shares nothing with
/// this workspace but the description; its inner models step from word to word, in no other form.
#[test]
fn numbers_are_those_of_independent_software() {
    for name in ["extractor", "extractor_recurrent"] {
        let folder = test_support::testdata(name);
        for path in [folder.clone(), folder.join("extractor.gguf")] {
            compare(&folder, Extractor::new(extractor::read(&path).unwrap()).unwrap());
        }
    }
}

fn compare(folder: &std::path::Path, extractor: Extractor) {
    let exact: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let floats = Tensors::open(folder.join("expected.safetensors"));
    let mut scratch = extractor.scratch();
    let ints = |value: &serde_json::Value| -> Vec<usize> {
        value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
    };
    for (i, expected) in exact.as_array().unwrap().iter().enumerate() {
        let text = expected["text"].as_str().unwrap();
        let mut utterance = Utterance::default();
        utterance.read(text, extractor.config().features());
        let words: Vec<Vec<usize>> = expected["words"].as_array().unwrap().iter().map(ints).collect();
        assert_eq!(
            utterance.words().iter().map(|w| vec![w.range.start, w.range.end]).collect::<Vec<_>>(),
            words,
            "{text}"
        );
        for (w, features) in expected["features"].as_array().unwrap().iter().enumerate() {
            let found: Vec<usize> = utterance.features(w).iter().map(|f| *f as usize).collect();
            assert_eq!(found, ints(features), "{text}: word {w}");
        }
        // No int8 code is near a rounding boundary, so codes and integer products are equal, and only roundings of
        // f32 differ: hidden states are of size 3 and off by some 2^-24 for each of fewer than 20 operations on them,
        // 4e-6; heads add 96 products with weights below 0.3.
        let close = |found: &[f32], name: &str| {
            let expected = floats.f32(&format!("text{i}.{name}"));
            assert_eq!(found.len(), expected.len(), "{text}: {name}");
            for (a, b) in found.iter().zip(&expected).filter(|(a, _)| a.is_finite()) {
                assert!((a - b).abs() <= 3e-5, "{text}: {name}: {a} {b}");
            }
        };
        for (task, config) in extractor.config().tasks.iter().enumerate() {
            let expected = &expected["tasks"][&config.name];
            let found = extractor.extract_into(task, text, &mut scratch).unwrap();
            assert_eq!(found.intent as u64, expected["intent"].as_u64().unwrap(), "{text}");
            close(found.logits, &format!("{}.logits", config.name));
            close(&[found.confidence], &format!("{}.confidence", config.name));
            close(&[found.score], &format!("{}.energy", config.name));
            if config.tags() > 0 {
                close(found.emissions, &format!("{}.emissions", config.name));
                let tags: Vec<usize> = found.tags.iter().map(|t| usize::from(*t)).collect();
                assert_eq!(tags, ints(&expected["tags"]), "{text}");
            }
        }
        close(extractor.embed_into(text, &mut scratch).unwrap(), "embedding");
    }
}
