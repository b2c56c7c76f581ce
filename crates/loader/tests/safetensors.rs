//! safetensors files, single and sharded: rejected ones, and readable ones.

mod common;

use std::path::Path;

use common::checkpoints::*;
use loader::LoadError;
use loader::safetensors::{Dtype, INDEX_NAME, Safetensors, SafetensorsFile};
use proptest::prelude::*;

fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn kind(e: &LoadError) -> String {
    format!("{:?}", e.root()).split([' ', '{', '(']).next().unwrap_or("").to_owned()
}

#[test]
fn bad_files_are_refused() {
    let t = r#""dtype":"F32","shape":[2],"data_offsets""#;
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("empty", vec![], "Safetensors"),
        ("header longer than the file", (1u64 << 20).to_le_bytes().to_vec(), "Safetensors"),
        ("header of 2^63", (1u64 << 63).to_le_bytes().to_vec(), "Safetensors"),
        ("no JSON", file("{", 0), "Safetensors"),
        (
            "not UTF-8",
            {
                let mut f = file("{  }", 0);
                f[9] = 0xff;
                f
            },
            "Safetensors",
        ),
        ("beyond the end", file(&format!("{{\"a\":{{{t}:[0,8]}}}}"), 4), "Safetensors"),
        ("wrong size", file(&format!("{{\"a\":{{{t}:[0,12]}}}}"), 12), "Safetensors"),
        ("a hole", file(&format!("{{\"a\":{{{t}:[4,12]}}}}"), 12), "Safetensors"),
        ("overlap", file(&format!("{{\"a\":{{{t}:[0,8]}},\"b\":{{{t}:[4,12]}}}}"), 12), "Safetensors"),
        ("bytes left over", file(&format!("{{\"a\":{{{t}:[0,8]}}}}"), 9), "Safetensors"),
        (
            "overflow",
            file(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,16],"data_offsets":[0,8]}}"#, 8),
            "Safetensors",
        ),
        ("twice", file(&format!("{{\"a\":{{{t}:[0,8]}},\"a\":{{{t}:[0,8]}}}}"), 8), "DuplicateTensor"),
    ];
    for (what, bytes, expected) in cases {
        let e = SafetensorsFile::from_bytes(bytes.clone().into()).expect_err(what);
        assert_eq!(kind(&e), *expected, "{what}: {e}");
    }
    let good = SafetensorsFile::from_bytes(file(&format!("{{\"a\":{{{t}:[0,8]}}}}"), 8).into()).unwrap();
    assert_eq!(good.tensors().unwrap()["a"].bytes.len(), 8);
}

/// Splits the small checkpoint into two shards and an index.
fn sharded(dir: &Path, index: impl Fn(&mut serde_json::Map<String, serde_json::Value>)) {
    let all = small_tensors();
    let (first, second) = all.split_at(all.len() / 2);
    let mut map = serde_json::Map::new();
    for (name, part) in [("model-1.safetensors", first), ("model-2.safetensors", second)] {
        write_tensors(&dir.join(name), part);
        map.extend(part.iter().map(|t| (t.0.clone(), name.into())));
    }
    index(&mut map);
    let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
    std::fs::write(dir.join(INDEX_NAME), index.to_string()).unwrap();
    std::fs::write(dir.join("config.json"), small_config().to_string()).unwrap();
}

#[test]
fn shards_are_read_as_one_checkpoint() {
    let (one, many) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    folder(one.path(), &small_config(), &small_tensors());
    sharded(many.path(), |_| {});
    assert_same(&load(one.path()), &load(many.path()), EXACT, "sharded");
    assert_same(&load(one.path()), &load(&many.path().join(INDEX_NAME)), EXACT, "by its index");
}

#[test]
fn bad_indexes_are_refused() {
    type Change = fn(&mut serde_json::Map<String, serde_json::Value>);
    let cases: &[(&str, Change, &str, &str)] = &[
        ("missing shard", |m| drop(m.insert("x".into(), "model-3.safetensors".into())), "MissingShard", "model-3"),
        ("missing tensor", |m| drop(m.insert("x".into(), "model-1.safetensors".into())), "MissingTensor", "\"x\""),
        ("cyclic", |m| drop(m.insert("x".into(), INDEX_NAME.into())), "BadShard", "never end"),
        ("parent", |m| drop(m.insert("x".into(), "../model-1.safetensors".into())), "BadShard", "folder"),
        ("absolute", |m| drop(m.insert("x".into(), "/model-1.safetensors".into())), "BadShard", "folder"),
        ("folder", |m| drop(m.insert("x".into(), "sub/model-1.safetensors".into())), "BadShard", "folder"),
        ("dots", |m| drop(m.insert("x".into(), "..".into())), "BadShard", "folder"),
        ("pickle", |m| drop(m.insert("x".into(), "model.bin".into())), "BadShard", "safetensors"),
        (
            "in another shard",
            |m| drop(m.insert("model.embed_tokens.weight".into(), "model-2.safetensors".into())),
            "MissingTensor",
            "model-1",
        ),
        ("number", |m| drop(m.insert("x".into(), 7.into())), "Json", "index"),
    ];
    for (what, change, variant, says) in cases {
        let dir = tempfile::tempdir().unwrap();
        sharded(dir.path(), change);
        let e = Safetensors::open(dir.path()).expect_err(what);
        assert_eq!(kind(&e), *variant, "{what}: {e}");
        assert!(e.to_string().contains(says), "{what}: {e}");
    }
    let dir = tempfile::tempdir().unwrap();
    sharded(dir.path(), |_| {});
    write_tensors(&dir.path().join("model-2.safetensors"), &small_tensors());
    assert_eq!(kind(&Safetensors::open(dir.path()).unwrap_err()), "DuplicateTensor");
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(kind(&Safetensors::open(empty.path()).unwrap_err()), "NoModel");
    assert_eq!(kind(&Safetensors::open(&empty.path().join("no.safetensors")).unwrap_err()), "Io");
}

#[test]
fn the_writer_checks_what_is_written() {
    use loader::safetensors::{NewTensor, write_file};
    let one = |name: &str, shape: &[usize], n: usize| NewTensor {
        name: name.to_owned(),
        dtype: Dtype::F16,
        shape: shape.to_vec(),
        write: Box::new(move |o| o.write_all(&vec![1; n])),
    };
    let write = |tensors| write_file(&mut Vec::new(), None, tensors);
    assert!(write(vec![one("a", &[2], 4), one("b", &[], 2)]).is_ok());
    assert_eq!(kind(&write(vec![one("a", &[2], 3)]).unwrap_err()), "TensorBytes");
    assert_eq!(kind(&write(vec![one("a", &[2], 4), one("a", &[2], 4)]).unwrap_err()), "DuplicateTensor");
    assert_eq!(kind(&write(vec![one("a", &[usize::MAX, 2], 4)]).unwrap_err()), "ShapeOverflow");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_and_mutated_bytes_never_panic(
        random in proptest::collection::vec(any::<u8>(), 0..200),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let _ = SafetensorsFile::from_bytes(random.into());
        let mut bytes = file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"__metadata__":{"k":"v"}}"#, 8);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(f) = SafetensorsFile::from_bytes(bytes.into()) {
            let _ = f.tensors();
        }
    }
}
