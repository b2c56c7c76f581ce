//! The writer and the reader against gguf-rs, an independent reader, and against the reference files.

mod common;

use std::path::Path;

use common::RawGguf;
use loader::gguf::{Array, GgmlType, Gguf, GgufWriter, StringArray, Value};
use proptest::prelude::*;

/// The contents of a file as seen by gguf-rs, in comparable form.
struct Peer {
    metadata: Vec<(String, serde_json::Value)>,
    tensors: Vec<(String, u32, Vec<u64>, u64, u64)>,
    data_offset: u64,
}

fn peer(path: &Path) -> Peer {
    let mut container = gguf_rs::get_gguf_container_array_size(path.to_str().unwrap(), u64::MAX).unwrap();
    let model = container.decode().unwrap();
    Peer {
        metadata: model.metadata().iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        tensors: model.tensors().iter().map(|t| (t.name.clone(), t.kind, t.shape.clone(), t.offset, t.size)).collect(),
        data_offset: model.data_offset(),
    }
}

/// gguf-rs 0.1.8 computes right sizes for these types only.
fn peer_knows_size(ty: GgmlType) -> bool {
    use GgmlType::*;
    matches!(ty, F32 | F16 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | Q2K | Q3K | Q4K | Q5K | Q6K | Q8K | Tq1_0 | Tq2_0)
}

fn json(v: &Value) -> serde_json::Value {
    use serde_json::json;
    match v {
        Value::U8(x) => json!(x),
        Value::I8(x) => json!(x),
        Value::U16(x) => json!(x),
        Value::I16(x) => json!(x),
        Value::U32(x) => json!(x),
        Value::I32(x) => json!(x),
        Value::F32(x) => json!(x),
        Value::Bool(x) => json!(x),
        Value::String(x) => json!(x),
        Value::U64(x) => json!(x),
        Value::I64(x) => json!(x),
        Value::F64(x) => json!(x),
        Value::Array(a) => match a {
            Array::U8(v) => json!(v),
            Array::I8(v) => json!(v),
            Array::U16(v) => json!(v),
            Array::I16(v) => json!(v),
            Array::U32(v) => json!(v),
            Array::I32(v) => json!(v),
            Array::F32(v) => json!(v),
            Array::Bool(v) => json!(v),
            Array::String(v) => json!(v.iter().collect::<Vec<_>>()),
            Array::U64(v) => json!(v),
            Array::I64(v) => json!(v),
            Array::F64(v) => json!(v),
            Array::Array(_) => panic!("gguf-rs knows no nested arrays"),
        },
    }
}

/// Both readers see the same in the file.
fn agree(path: &Path) {
    let (ours, theirs) = (Gguf::open(path).unwrap(), peer(path));
    let mut metadata: Vec<_> = ours.metadata().iter().map(|(k, v)| (k.to_owned(), json(v))).collect();
    metadata.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(metadata, theirs.metadata);
    assert_eq!(ours.data_start(), theirs.data_offset);
    assert_eq!(ours.tensors().len(), theirs.tensors.len());
    for (t, (name, kind, shape, offset, size)) in ours.tensors().iter().zip(&theirs.tensors) {
        assert_eq!((t.name(), t.type_id(), t.dims(), t.offset()), (&name[..], *kind, &shape[..], *offset));
        let (ty, bytes) = ours.data(t).unwrap();
        if peer_knows_size(ty) {
            assert_eq!(bytes.len() as u64, *size, "{name}");
        }
    }
}

fn every_value() -> Vec<(&'static str, Value)> {
    vec![
        ("a.u8", Value::U8(255)),
        ("a.i8", Value::I8(-128)),
        ("a.u16", Value::U16(65535)),
        ("a.i16", Value::I16(-32768)),
        ("a.u32", Value::U32(u32::MAX)),
        ("a.i32", Value::I32(i32::MIN)),
        ("a.f32", Value::F32(1e-5)),
        ("a.bool", Value::Bool(true)),
        ("a.string", "Grüße \u{1F600}\0".into()),
        ("a.u64", Value::U64(u64::MAX)),
        ("a.i64", Value::I64(i64::MIN)),
        ("a.f64", Value::F64(0.1)),
        ("b.u8", Value::Array(Array::U8(vec![1, 2]))),
        ("b.i8", Value::Array(Array::I8(vec![-1, 2]))),
        ("b.u16", Value::Array(Array::U16(vec![1, 2]))),
        ("b.i16", Value::Array(Array::I16(vec![-1, 2]))),
        ("b.u32", Value::Array(Array::U32(vec![1, 2]))),
        ("b.i32", Value::Array(Array::I32(vec![-1, 2]))),
        ("b.f32", Value::Array(Array::F32(vec![-1.5, 2.0]))),
        ("b.bool", Value::Array(Array::Bool(vec![true, false, true]))),
        ("b.string", ["", "ab", "ü"].into_iter().collect::<StringArray>().into()),
        ("b.u64", Value::Array(Array::U64(vec![1, u64::MAX]))),
        ("b.i64", Value::Array(Array::I64(vec![-1, 2]))),
        ("b.f64", Value::Array(Array::F64(vec![]))),
        ("c.long", "ab".repeat(70_000).as_str().into()),
        ("general.architecture", "bitnet-b1.58".into()),
    ]
}

#[test]
fn gguf_rs_accepts_what_is_written_and_sees_the_same() {
    let dir = tempfile::tempdir().unwrap();
    for alignment in [None, Some(64u32), Some(8)] {
        let mut writer = GgufWriter::new();
        if let Some(a) = alignment {
            let mut m = loader::gguf::Metadata::default();
            m.set("general.alignment", a);
            writer = GgufWriter::with_metadata(m).unwrap();
        }
        for (k, v) in every_value() {
            writer.metadata_mut().set(k, v);
        }
        // Type 36 and above 40 are beyond gguf-rs; I2_S it lists with size 0.
        let types: Vec<GgmlType> =
            GgmlType::all().filter(|t| t.id() <= 36 && !matches!(t, GgmlType::Tl1 | GgmlType::Tl2)).collect();
        for t in &types {
            writer.announce(&format!("{t}.weight"), &[3, 256], *t).unwrap();
        }
        writer.announce("vector", &[5], GgmlType::F32).unwrap();
        writer.announce("cube", &[2, 3, 4], GgmlType::F16).unwrap();
        let path = dir.path().join("peer.gguf");
        loader::mmap::write_atomically(&path, |out| {
            let mut stream = writer.start(out)?;
            for (i, t) in types.iter().enumerate() {
                let n = if *t == GgmlType::I2S { 3 * 256 / 4 + 32 } else { size_of_768(*t) };
                // In two pieces, as a conversion would.
                stream.tensor(&format!("{t}.weight"), |w| {
                    w.write_all(&vec![i as u8; n / 2])?;
                    w.write_all(&vec![i as u8; n - n / 2])
                })?;
            }
            stream.tensor("vector", |w| w.write_all(&[7; 20]))?;
            stream.tensor("cube", |w| w.write_all(&[8; 48]))?;
            stream.finish().map(|_| ())
        })
        .unwrap();
        agree(&path);
        let ours = Gguf::open(&path).unwrap();
        for (k, v) in every_value() {
            assert_eq!(ours.metadata().get(k), Some(&v), "{k}");
        }
        assert_eq!(ours.alignment(), alignment.map_or(32, u64::from));
        for (i, t) in types.iter().enumerate() {
            let (ty, bytes) = ours.data(ours.tensor(&format!("{t}.weight")).unwrap()).unwrap();
            assert_eq!(ty, *t);
            assert!(bytes.iter().all(|&b| b == i as u8), "{t}");
        }
        assert_eq!(ours.tensor("cube").unwrap().shape(), [2, 3, 4]);
        assert_eq!(ours.tensor("cube").unwrap().dims(), [4, 3, 2]);
    }
}

/// Bytes of 3 rows of 256 weights, independent of the table under test (sizes of ggml's block structs).
fn size_of_768(t: GgmlType) -> usize {
    use GgmlType::*;
    let per_32 = |b: usize| 24 * b;
    let per_256 = |b: usize| 3 * b;
    match t {
        F32 | I32 => 768 * 4,
        F16 | BF16 | I16 => 768 * 2,
        F64 | I64 => 768 * 8,
        I8 => 768,
        Q4_0 | Iq4Nl => per_32(2 + 16),
        Q4_1 => per_32(2 + 2 + 16),
        Q5_0 => per_32(2 + 4 + 16),
        Q5_1 => per_32(2 + 2 + 4 + 16),
        Q8_0 => per_32(2 + 32),
        Q8_1 => per_32(2 + 2 + 32),
        Q2K => per_256(16 + 64 + 2 + 2),
        Q3K => per_256(32 + 64 + 12 + 2),
        Q4K => per_256(2 + 2 + 12 + 128),
        Q5K => per_256(2 + 2 + 12 + 32 + 128),
        Q6K => per_256(128 + 64 + 16 + 2),
        Q8K => per_256(4 + 256 + 32),
        Iq2Xxs => per_256(2 + 64),
        Iq2Xs => per_256(2 + 64 + 8),
        Iq3Xxs => per_256(2 + 64 + 32),
        Iq1S => per_256(2 + 32 + 16),
        Iq3S => per_256(2 + 64 + 8 + 32 + 4),
        Iq2S => per_256(2 + 64 + 8 + 8),
        Iq4Xs => per_256(2 + 2 + 4 + 128),
        Iq1M => per_256(32 + 16 + 8),
        Tq1_0 => per_256(48 + 4 + 2),
        Tq2_0 => per_256(64 + 2),
        other => panic!("{other} has no fixed block"),
    }
}

#[test]
fn reference_files_are_read_as_gguf_rs_reads_them() {
    let Some(shared) = test_support::shared_dir() else { return };
    let mut files = 0;
    for folder in ["fixtures/gguf", "models/tiny_ternary", "models/tinystories_5m"] {
        for entry in std::fs::read_dir(shared.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "gguf") {
                agree(&path);
                files += 1;
            }
        }
    }
    assert!(files >= 9, "{files}");
}

#[test]
fn the_writer_refuses_what_would_make_a_bad_file() {
    let kind = |e: loader::LoadError| format!("{e:?}").split([' ', '{', '(']).next().unwrap_or("").to_owned();
    let mut w = GgufWriter::new();
    w.announce("t", &[2, 256], GgmlType::Tq2_0).unwrap();
    assert_eq!(kind(w.announce("t", &[1], GgmlType::F32).unwrap_err()), "DuplicateTensor");
    assert_eq!(kind(w.announce("u", &[2, 640], GgmlType::Tq1_0).unwrap_err()), "PartialBlock");
    assert_eq!(kind(w.announce("u", &[2, 640], GgmlType::Tl2).unwrap_err()), "UnsupportedType");
    assert_eq!(kind(w.announce("u", &[1; 5], GgmlType::F32).unwrap_err()), "TooManyDims");
    assert_eq!(kind(w.announce("u", &[1 << 40, 1 << 40], GgmlType::F32).unwrap_err()), "ShapeOverflow");
    let started = || w.clone().start(Vec::new()).unwrap();
    assert_eq!(kind(started().finish().unwrap_err()), "WriteOrder");
    assert_eq!(kind(started().tensor("u", |_| Ok(())).unwrap_err()), "WriteOrder");
    assert_eq!(kind(started().tensor("t", |o| o.write_all(&[0; 131])).unwrap_err()), "TensorBytes");
    let full = |_: &mut dyn std::io::Write| Err(std::io::Error::other("disk full"));
    assert_eq!(kind(started().tensor("t", full).unwrap_err()), "Write");
}

#[test]
fn a_failed_write_leaves_the_old_file_and_no_litter() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, b"old").unwrap();
    let mapped = loader::mmap::map_file(&path).unwrap();
    let result: Result<(), _> = loader::mmap::write_atomically(&path, |out| {
        out.write_all(&vec![1; 3 << 20]).unwrap();
        Err(loader::LoadError::BigEndianGguf)
    });
    assert!(result.is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    loader::mmap::write_atomically(&path, |out| {
        out.write_all(b"new").unwrap();
        Ok(())
    })
    .unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    assert_eq!(&mapped[..], b"old", "a mapping of the replaced file stays what it was");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_vocabulary_of_a_real_size_is_read_quickly_and_in_little_memory() {
    let mut merges = StringArray::default();
    for i in 0..280_147 {
        merges.push(&format!("t{i} m{i}"));
    }
    let mut w = GgufWriter::new();
    w.metadata_mut().set("tokenizer.ggml.merges", merges.clone());
    let bytes = w.start(Vec::new()).unwrap().finish().unwrap();
    let start = std::time::Instant::now();
    let file = Gguf::from_bytes(bytes.into()).unwrap();
    let took = start.elapsed();
    assert_eq!(file.metadata().strings("tokenizer.ggml.merges").unwrap(), Some(&merges));
    // Milliseconds in truth; the bound only catches something quadratic.
    assert!(took.as_secs() < 5, "{took:?}");
}

fn small_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i64>().prop_map(Value::I64),
        any::<i32>().prop_map(|x| Value::F32(x as f32)),
        any::<bool>().prop_map(Value::Bool),
        ".{0,12}".prop_map(Value::String),
        proptest::collection::vec(any::<i16>(), 0..9).prop_map(|v| Value::Array(Array::I16(v))),
        proptest::collection::vec(".{0,5}", 0..9)
            .prop_map(|v| Value::Array(Array::Array(vec![Array::String(v.iter().collect()), Array::Bool(vec![true])]))),
    ]
}

fn small_type() -> impl Strategy<Value = GgmlType> {
    use GgmlType::*;
    prop_oneof![
        Just(F32),
        Just(F16),
        Just(BF16),
        Just(I2S),
        Just(Tq1_0),
        Just(Tq2_0),
        Just(Q6K),
        Just(Iq1Bn),
        Just(Iq2Bn)
    ]
}

type Tensors = Vec<(GgmlType, u64, Vec<u8>)>;

fn write(entries: &[(String, Value)], tensors: &Tensors) -> Vec<u8> {
    let mut w = GgufWriter::new();
    w.metadata_mut().set("general.architecture", "bitnet");
    for (i, (k, v)) in entries.iter().enumerate() {
        w.metadata_mut().set(&format!("{k}{i}"), v.clone());
    }
    for (i, (t, rows, _)) in tensors.iter().enumerate() {
        w.announce(&format!("t{i}"), &[*rows, 256], *t).unwrap();
    }
    let mut s = w.start(Vec::new()).unwrap();
    for (i, (_, _, bytes)) in tensors.iter().enumerate() {
        s.tensor(&format!("t{i}"), |o| o.write_all(bytes)).unwrap();
    }
    s.finish().unwrap()
}

fn some_tensors() -> impl Strategy<Value = Tensors> {
    let one = (small_type(), 1u64..4, any::<u8>()).prop_map(|(t, rows, fill)| {
        let n = match t {
            GgmlType::I2S => rows as usize * 64 + 32,
            GgmlType::Iq1Bn => rows as usize * (2 + 4 * 13),
            GgmlType::Iq2Bn => rows as usize * (4 + 4 * 16),
            t => size_of_768(t) / 3 * rows as usize,
        };
        (t, rows, vec![fill; n])
    });
    proptest::collection::vec(one, 0..5)
}

/// Opens and uses everything; only a panic fails.
fn exercise(bytes: Vec<u8>) {
    if let Ok(file) = Gguf::from_bytes(bytes.into()) {
        for t in file.tensors() {
            let _ = file.data(t).map(|(ty, b)| (ty, b.len()));
            let _ = (t.rows(), t.cols(), t.elements(), t.shape(), t.tensor_type().to_string());
        }
        for (_, v) in file.metadata().iter() {
            let _ = v.to_string();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(
        entries in proptest::collection::vec(("[a-z.]{1,8}", small_value()), 0..6),
        tensors in some_tensors(),
    ) {
        let file = Gguf::from_bytes(write(&entries, &tensors).into()).unwrap();
        prop_assert_eq!(file.metadata().len(), entries.len() + 1);
        for (i, (k, v)) in entries.iter().enumerate() {
            prop_assert_eq!(file.metadata().get(&format!("{k}{i}")), Some(v));
        }
        for (i, (t, rows, bytes)) in tensors.iter().enumerate() {
            let info = file.tensor(&format!("t{i}")).unwrap();
            prop_assert_eq!((info.rows(), info.cols()), (*rows, 256));
            let (ty, read) = file.data(info).unwrap();
            prop_assert_eq!((ty, &read[..]), (*t, &bytes[..]));
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), counts in (0u8..4, 0u8..4)) {
        exercise(bytes.clone());
        // The same after a valid header, so that more than the magic is tried.
        let mut with_head = RawGguf { n_tensors: Some(counts.0.into()), n_entries: Some(counts.1.into()), ..RawGguf::new() }.bytes();
        with_head.append(&mut bytes);
        exercise(with_head);
    }

    #[test]
    fn mutated_files_never_panic(
        entries in proptest::collection::vec(("[a-z.]{1,8}", small_value()), 0..4),
        tensors in some_tensors(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let whole = write(&entries, &tensors);
        let mut bytes = whole.clone();
        let head = bytes.len().min(600);
        for (at, value) in changes {
            let at = at.index(head);
            bytes[at] = value;
        }
        exercise(bytes.clone());
        bytes.truncate(cut.index(whole.len() + 1));
        exercise(bytes);
    }
}
