//! Models in several GGUF files, and names of tensors that training programs wrapped.

mod common;

use common::checkpoints::*;
use common::edit::{Edit, refusal, try_load};
use loader::gguf::{Gguf, Value, locate};
use loader::{LoadError, LoadOptions};

fn same(a: &std::path::Path, b: &std::path::Path) {
    let (a, b) = (try_load(a).unwrap(), try_load(b).unwrap());
    assert_same(&a.weights, &b.weights, EXACT, "split");
    assert_eq!((a.weights.config, a.notes, a.generation), (b.weights.config, b.notes, b.generation));
    let ids = |t: &loader::tokenizer::Tokenizer| t.encode("Once upon a time", true).unwrap();
    assert_eq!(a.tokenizer.as_ref().map(ids), b.tokenizer.as_ref().map(ids));
    assert_eq!(a.info.ternary_format, b.info.ternary_format);
}

#[test]
fn a_split_model_is_the_whole_one_whatever_part_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let whole = Edit::stories().write(&dir.path().join("whole.gguf"));
    // An empty first part, as --no-tensor-first-split writes, and a part of one tensor.
    for (n, cuts) in [&[40][..], &[0, 20], &[20, 21, 60]].into_iter().enumerate() {
        let folder = dir.path().join(n.to_string());
        std::fs::create_dir(&folder).unwrap();
        let parts = Edit::stories().write_split(&folder, "a model", cuts);
        for part in parts.iter().chain([&folder]) {
            same(&whole, part);
        }
        let file = Gguf::open(&parts[1]).unwrap();
        assert_eq!((file.parts(), file.tensors().len()), (cuts.len() + 1, 68));
        assert_eq!(file.file_len(), parts.iter().map(|p| p.metadata().unwrap().len()).sum::<u64>());
        assert_eq!(locate(&folder).unwrap(), Some(parts[0].clone()));
        loader::load_tokenizer(&parts[1]).unwrap();
    }
}

#[test]
fn what_is_converted_from_parts_is_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let whole = Edit::stories().write(&dir.path().join("whole.gguf"));
    let folder = dir.path().join("parts");
    std::fs::create_dir(&folder).unwrap();
    Edit::stories().write_split(&folder, "m", &[30]);
    let out = dir.path().join("out.gguf");
    let options = Default::default();
    loader::convert::convert(&folder, &out, loader::convert::Target::I2S, &options, &mut |_| {}).unwrap();
    same(&whole, &out);
    assert!(Gguf::open(&out).unwrap().metadata().iter().all(|(k, _)| !k.starts_with("split.")));
}

#[test]
fn parts_that_are_missing_or_foreign_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let fresh = |name: &str| {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let parts = Edit::stories().write_split(&folder, "m", &[20, 40]);
        (folder, parts)
    };
    let second = || Edit::stories().part(1, &[20, 40]);
    let says = |path: &std::path::Path, words: &[&str]| {
        let message = refusal(path);
        for word in words {
            assert!(message.contains(word), "{message}");
        }
    };
    let (folder, parts) = fresh("missing");
    std::fs::remove_file(&parts[1]).unwrap();
    says(&parts[0], &["m-00002-of-00003.gguf", "missing"]);
    says(&folder, &["m-00002-of-00003.gguf", "missing"]);

    let (_, parts) = fresh("renamed");
    let other = parts[0].with_file_name("other.gguf");
    std::fs::rename(&parts[0], &other).unwrap();
    says(&other, &["other.gguf", "part 1 of 3", "-00001-of-00003.gguf"]);

    let (_, parts) = fresh("exchanged");
    std::fs::copy(&parts[2], &parts[1]).unwrap();
    says(&parts[0], &["m-00002-of-00003.gguf", "part 3"]);

    let (_, parts) = fresh("whole");
    Edit::stories().write(&parts[1]);
    says(&parts[0], &["m-00002-of-00003.gguf", "whole"]);

    let (_, parts) = fresh("counts");
    let edit = second().set("split.count", Value::U16(4));
    edit.write(&parts[1]);
    says(&parts[0], &["m-00002-of-00003.gguf", "of 4"]);

    let (_, parts) = fresh("tensors");
    let mut edit = second();
    edit.tensors.pop();
    edit.write(&parts[1]);
    says(&parts[0], &["split.tensors.count", "68"]);

    let (_, parts) = fresh("twice");
    let mut edit = second();
    edit.tensors[0] = Edit::stories().tensors[0].clone();
    edit.write(&parts[1]);
    says(&parts[0], &["occurs twice"]);

    let (_, parts) = fresh("architecture");
    second().set("general.architecture", "llama").write(&parts[1]);
    says(&parts[0], &["m-00002-of-00003.gguf", "llama"]);

    // Numbers that would make endless work or leave the folder.
    for (no, count) in [(9u64, 3u64), (0, u64::MAX), (u64::MAX, 3), (0, 65_535)] {
        let edit = Edit::stories().set("split.no", Value::U64(no)).set("split.count", Value::U64(count));
        let path = edit.write(&dir.path().join("m-00001-of-00003.gguf"));
        assert!(matches!(try_load(&path).unwrap_err().root(), LoadError::Split { .. }), "{no} {count}");
    }
    let bytes = std::fs::read(&parts[0]).unwrap();
    let alone = loader::load_bytes(bytes.into(), &LoadOptions::default()).unwrap_err();
    assert!(alone.to_string().contains("part 1 of 3"), "{alone}");
    // Merging programs leave the keys of one part.
    let merged = Edit::stories().set("split.no", Value::U16(0)).set("split.count", Value::U16(0));
    try_load(&merged.write(&dir.path().join("merged.gguf"))).unwrap();
}

#[test]
fn a_folder_with_one_gguf_model_is_that_model() {
    let dir = tempfile::tempdir().unwrap();
    let one = Edit::stories().write(&dir.path().join("one.gguf"));
    std::fs::write(dir.path().join("mmproj-x.gguf"), "x").unwrap();
    std::fs::write(dir.path().join("README.md"), "x").unwrap();
    same(&one, dir.path());
    Edit::stories().write(&dir.path().join("two.gguf"));
    let message = refusal(dir.path());
    assert!(message.contains("one.gguf") && message.contains("two.gguf"), "{message}");
    assert_eq!(message.matches(&dir.path().display().to_string()).count(), 1, "{message}");
}

/// The small checkpoint with other names.
fn renamed(dir: &std::path::Path, name: impl Fn(&str) -> String) -> std::path::PathBuf {
    let tensors: Vec<Tensor> = small_tensors().into_iter().map(|(n, d, s, b)| (name(&n), d, s, b)).collect();
    folder(dir, &small_config(), &tensors)
}

#[test]
fn prefixes_of_training_programs_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let plain = load(&folder(&dir.path().join("plain"), &small_config(), &small_tensors()));
    let prefixes = ["_orig_mod.", "module.", "base_model.model.", "module._orig_mod.", "_orig_mod.module."];
    for (n, prefix) in prefixes.into_iter().enumerate() {
        let path = renamed(&dir.path().join(n.to_string()), |name| format!("{prefix}{name}"));
        assert_same(&plain, &load(&path), EXACT, prefix);
        assert!(open(&path).notes().iter().any(|n| n.contains("left out")), "{:?}", open(&path).notes());
    }
    // Layers that were compiled one by one.
    let path = renamed(&dir.path().join("within"), |name| name.replace("layers.0.", "layers.0._orig_mod."));
    assert_same(&plain, &load(&path), EXACT, "within");
    // A base model without `model.`.
    let path = renamed(&dir.path().join("base"), |name| format!("_orig_mod.{}", name.trim_start_matches("model.")));
    assert_same(&plain, &load(&path), EXACT, "base");
}

#[test]
fn shards_with_wrapped_names_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let plain = load(&folder(&dir.path().join("plain"), &small_config(), &small_tensors()));
    let path = renamed(&dir.path().join("shards"), |name| format!("module.{name}"));
    std::fs::remove_file(path.join("model.safetensors")).unwrap();
    let tensors: Vec<Tensor> =
        small_tensors().into_iter().map(|(n, d, s, b)| (format!("module.{n}"), d, s, b)).collect();
    let mut map = serde_json::Map::new();
    for (n, part) in tensors.chunks(9).enumerate() {
        let shard = format!("model-{n}.safetensors");
        write_tensors(&path.join(&shard), part);
        map.extend(part.iter().map(|t| (t.0.clone(), shard.clone().into())));
    }
    let index = serde_json::json!({"weight_map": map});
    std::fs::write(path.join("model.safetensors.index.json"), index.to_string()).unwrap();
    assert_same(&plain, &load(&path), EXACT, "shards");
}

#[test]
fn prefixes_of_some_names_only_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |path: &std::path::Path, says: &str| {
        let e = fails(path).unwrap();
        assert!(matches!(e.root(), LoadError::WrappedName { .. }) && e.to_string().contains(says), "{e}");
    };
    let some =
        renamed(&dir.path().join("some"), |n| if n.contains("q_proj") { format!("module.{n}") } else { n.into() });
    refused(&some, "module.");
    // Two tensors that would become one.
    let mut tensors = small_tensors();
    let mut twin = tensors[2].clone();
    twin.0 = twin.0.replace("layers.0.", "layers.0._orig_mod.");
    tensors.push(twin);
    refused(&folder(&dir.path().join("two"), &small_config(), &tensors), "_orig_mod.");
    // Adapters are not weights of a model.
    let mut tensors = small_tensors();
    tensors.push(bf16_tensor("model.layers.0.self_attn.q_proj.lora_A.weight", &[8, HIDDEN], |_| 0.0));
    assert!(
        fails(&folder(&dir.path().join("lora"), &small_config(), &tensors)).unwrap().to_string().contains("lora_A")
    );
}
