//! One bad file per kind of refusal: the right error, naming the right thing, and never a panic.

mod common;

use common::{RawGguf, array, text};
use loader::LoadError;
use loader::gguf::Gguf;

/// The failing operation: opening the file, or using its tensor `t`.
fn outcome(bytes: Vec<u8>) -> Result<(), LoadError> {
    let file = Gguf::from_bytes(bytes.into())?;
    match file.tensor("t") {
        Some(t) => file.data(t).map(|_| ()),
        None => Ok(()),
    }
}

struct Case {
    what: &'static str,
    bytes: Vec<u8>,
    /// The variant, as its `Debug` begins.
    variant: &'static str,
    /// The expected part of the message.
    says: &'static str,
}

fn case(what: &'static str, file: RawGguf, variant: &'static str, says: &'static str) -> Case {
    Case { what, bytes: file.bytes(), variant, says }
}

fn new() -> RawGguf {
    RawGguf::new()
}

fn cases() -> Vec<Case> {
    let mut all = vec![
        Case { what: "empty file", bytes: vec![], variant: "NotGguf", says: "not a GGUF" },
        Case { what: "short file", bytes: b"GG".to_vec(), variant: "NotGguf", says: "not a GGUF" },
        Case { what: "other magic", bytes: b"GGJT0000000000".to_vec(), variant: "NotGguf", says: "47, 47, 4a, 54" },
        Case { what: "magic only", bytes: b"GGUF".to_vec(), variant: "Truncated", says: "version" },
        case("swapped magic", RawGguf { magic: *b"FUGG", ..new() }, "BigEndianGguf", "little"),
        case("big-endian version", RawGguf { version: 3 << 24, ..new() }, "BigEndianGguf", "little"),
        case("version 1", RawGguf { version: 1, ..new() }, "GgufVersion", "version 1"),
        case("version 4", RawGguf { version: 4, ..new() }, "GgufVersion", "newer"),
        case("too many tensors", RawGguf { n_tensors: Some(1 << 40), ..new() }, "CountTooLarge", "tensors"),
        case("overflowing tensors", RawGguf { n_tensors: Some(u64::MAX), ..new() }, "CountTooLarge", "tensors"),
        case("too many entries", RawGguf { n_entries: Some(u64::MAX / 2), ..new() }, "CountTooLarge", "metadata"),
        case("key too long", new().entry(&[b'k'; 70_000], 4, &[0; 4]), "NameTooLong", "70000"),
        case("key not UTF-8", new().entry(b"k\xff", 4, &[0; 4]), "NotUtf8", "metadata key"),
        case("text not UTF-8", new().entry(b"key", 8, &text(b"\xc3\x28")), "NotUtf8", "\"key\""),
        case("array text not UTF-8", new().entry(b"key", 9, &array(8, 1, &text(b"\xff"))), "NotUtf8", "\"key\""),
        case("duplicate key", new().entry(b"key", 4, &[0; 4]).entry(b"key", 4, &[0; 4]), "DuplicateKey", "\"key\""),
        case("value type 13", new().entry(b"key", 13, &[0; 4]), "ValueType", "13"),
        case("element type 99", new().entry(b"key", 9, &array(99, 0, &[0; 8])), "ValueType", "99"),
        case("boolean 2", new().entry(b"key", 7, &[2]), "BadBool", "\"key\""),
        case("boolean 2 in array", new().entry(b"key", 9, &array(7, 2, &[1, 2])), "BadBool", "\"key\""),
        case("array too long", new().entry(b"key", 9, &array(4, 1 << 60, &[0; 8])), "CountTooLarge", "array"),
        case("array overflow", new().entry(b"key", 9, &array(10, u64::MAX, &[0; 8])), "CountTooLarge", "array"),
        case("string too long", new().entry(b"key", 8, &u64::MAX.to_le_bytes()), "Truncated", "string"),
        case("alignment 0", new().entry(b"general.alignment", 4, &[0; 4]), "BadAlignment", "is 0"),
        case("alignment 24", new().entry(b"general.alignment", 4, &[24, 0, 0, 0]), "BadAlignment", "24"),
        case("alignment 2^31", new().entry(b"general.alignment", 4, &[0, 0, 0, 128]), "BadAlignment", "2147483648"),
        case("alignment text", new().entry(b"general.alignment", 8, &text(b"32")), "BadAlignment", "\\\"32\\\""),
        case("architecture 7", new().entry(b"general.architecture", 4, &[7, 0, 0, 0]), "KeyType", "architecture"),
        case("tensor name not UTF-8", new().tensor(b"\xff", &[1], 0, 0).data(4), "NotUtf8", "tensor name"),
        case("five dimensions", new().tensor(b"t", &[1; 5], 0, 0).data(4), "TooManyDims", "\"t\""),
        case("overflowing shape", new().tensor(b"t", &[1 << 40, 1 << 40], 0, 0).data(4), "ShapeOverflow", "\"t\""),
        case("hidden overflow", new().tensor(b"t", &[0, 1 << 40, 1 << 40], 0, 0).data(4), "ShapeOverflow", "\"t\""),
        case("overflowing bytes", new().tensor(b"t", &[1 << 62], 28, 0).data(4), "ShapeOverflow", "\"t\""),
        case("part of a block", new().tensor(b"t", &[31], 8, 0).data(64), "PartialBlock", "32"),
        case("rows of 640 in TQ2_0", new().tensor(b"t", &[640, 2], 35, 0).data(4096), "PartialBlock", "256"),
        case("offset 8", new().tensor(b"t", &[1], 0, 8).data(64), "Misaligned", "\"t\""),
        case("beyond the end", new().tensor(b"t", &[9], 0, 0).data(32), "OutOfFile", "F32"),
        case("begins beyond the end", new().tensor(b"t", &[1], 0, 64).data(32), "OutOfFile", "\"t\""),
        case("offset near 2^64", new().tensor(b"t", &[8], 0, u64::MAX - 31).data(32), "OutOfFile", "\"t\""),
        case("no data at all", new().tensor(b"t", &[8], 0, 0), "OutOfFile", "\"t\""),
        case("unknown type without data", new().tensor(b"t", &[8], 777, 1 << 40), "OutOfFile", "unknown type 777"),
        case(
            "duplicate tensor",
            new().tensor(b"t", &[1], 0, 0).tensor(b"t", &[1], 0, 32).data(64),
            "DuplicateTensor",
            "\"t\"",
        ),
        case(
            "overlap",
            new().tensor(b"b", &[8], 0, 32).tensor(b"a", &[9], 0, 0).data(64),
            "Overlap",
            "\"a\" and \"b\" overlap",
        ),
        case(
            "same place",
            new().tensor(b"a", &[8], 0, 0).tensor(b"b", &[8], 0, 0).data(64),
            "Overlap",
            "overlap at offset 0",
        ),
        case("unknown type", new().tensor(b"t", &[8], 777, 0).data(32), "UnknownType", "777"),
        case("removed type", new().tensor(b"t", &[32], 4, 0).data(32), "UnsupportedType", "Q4_2"),
        case("type 37", new().architecture("bitnet").tensor(b"t", &[32], 37, 0).data(32), "UnsupportedType", "I8_S"),
        case("type 41", new().tensor(b"t", &[32], 41, 0).data(32), "NoLayoutFits", "Q1_0"),
        case("36, no architecture", new().tensor(b"t", &[128], 36, 0).data(64), "AmbiguousType", "IQ4_NL_4_4"),
        case(
            "36, other architecture",
            new().architecture("gpt2").tensor(b"t", &[128], 36, 0).data(64),
            "AmbiguousType",
            "\"gpt2\"",
        ),
        case(
            // 128 weights take 72 bytes in IQ4_NL_4_4.
            "36, llama, the other size",
            new().architecture("llama").tensor(b"t", &[128], 36, 0).data(72 + 32),
            "AmbiguousType",
            "I2_S",
        ),
        case(
            "36 of another size",
            new().architecture("bitnet").tensor(b"t", &[256], 36, 0).tensor(b"u", &[1], 0, 160).data(192),
            "TensorBytes",
            "needs 96 bytes",
        ),
        case(
            "36 too short",
            new().architecture("bitnet").tensor(b"t", &[256], 36, 0).tensor(b"u", &[1], 0, 64).data(96),
            "Overlap",
            "\"t\"",
        ),
        case(
            "36 with odd rows",
            new().architecture("bitnet-25").tensor(b"t", &[100, 3], 36, 0).data(256),
            "PartialBlock",
            "I2_S",
        ),
        case("40", new().architecture("bitnet").tensor(b"t", &[128], 40, 0).data(64), "AmbiguousType", "NVFP4"),
        case("39, no architecture", new().tensor(b"t", &[32], 39, 0).data(64), "AmbiguousType", "MXFP4"),
        case("42, llama", new().architecture("llama").tensor(b"t", &[32], 42, 0).data(64), "NoLayoutFits", "Q2_0"),
        case("38 too short", new().architecture("bitnet").tensor(b"t", &[128], 38, 0).data(32), "OutOfFile", "TL1"),
        case(
            "38 with odd rows",
            new().architecture("bitnet").tensor(b"t", &[100, 3], 38, 0).data(256),
            "PartialBlock",
            "TL1",
        ),
        case(
            "39 of another size",
            new().architecture("bitnet-25").tensor(b"t", &[96, 32], 39, 0).tensor(b"u", &[1], 0, 1056).data(1088),
            "TensorBytes",
            "TL2",
        ),
        // 17 bytes for 32 weights, as MXFP4 has them.
        case(
            "39, llama, MXFP4",
            new().architecture("llama").tensor(b"t", &[512, 64], 39, 0).data(512 * 64 / 32 * 17),
            "AmbiguousType",
            "MXFP4",
        ),
        case(
            "42 too short",
            new().architecture("bitnet-b1.58").tensor(b"t", &[96], 42, 0).data(32),
            "OutOfFile",
            "TL2",
        ),
    ];
    let deep = (0..6).fold(array(4, 0, &[]), |inner, _| array(9, 1, &inner));
    all.push(case("nested arrays", new().entry(b"key", 9, &deep), "NestedTooDeep", "\"key\""));
    // Every way to cut a valid file short is an error, too.
    let whole = new()
        .architecture("bitnet")
        .entry(b"list", 9, &array(8, 2, &[text(b"ab"), text(b"c")].concat()))
        .tensor(b"t", &[128, 1], 36, 0)
        .data(64)
        .bytes();
    assert!(outcome(whole.clone()).is_ok());
    for n in 0..whole.len() {
        all.push(Case { what: "truncated", bytes: whole[..n].to_vec(), variant: "", says: "" });
    }
    all
}

#[test]
fn every_bad_file_is_refused_with_its_reason() {
    let mut wrong = Vec::new();
    for c in cases() {
        match outcome(c.bytes) {
            Ok(()) => wrong.push(format!("{}: accepted", c.what)),
            Err(e) => {
                let (debug, message) = (format!("{e:?}"), e.to_string());
                if !debug.starts_with(c.variant) || !(message.contains(c.says) || debug.contains(c.says)) {
                    wrong.push(format!("{}: {debug} / {message}", c.what));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_unknown_is_listed_all_the_same() {
    let file = new()
        .architecture("bitnet")
        .tensor(b"known", &[8], 0, 0)
        .tensor(b"odd", &[8, 2], 777, 32)
        .tensor(b"either", &[128], 40, 64)
        .tensor(b"tl1", &[128], 38, 96)
        .data(160);
    let file = Gguf::from_bytes(file.bytes().into()).unwrap();
    let listed: Vec<String> = file.tensors().iter().map(|t| format!("{} {}", t.name(), t.tensor_type())).collect();
    assert_eq!(listed, ["known F32", "odd unknown type 777", "either ambiguous type 40", "tl1 TL1"]);
    assert_eq!(file.tensor("odd").unwrap().nbytes(), None);
    assert_eq!(file.tensor("odd").unwrap().shape(), [2, 8]);
    assert!(file.data(file.tensor("known").unwrap()).is_ok());
}

#[test]
fn the_architecture_or_the_size_settles_i2_s() {
    for arch in ["bitnet", "bitnet-25", "bitnet-b1.58", "llama"] {
        let file = new().architecture(arch).tensor(b"t", &[128, 2], 36, 0).tensor(b"u", &[1], 0, 96).data(128);
        let file = Gguf::from_bytes(file.bytes().into()).unwrap();
        let (ty, bytes) = file.data(file.tensor("t").unwrap()).unwrap();
        assert_eq!((ty.name(), bytes.len()), ("I2_S", 96), "{arch}");
    }
}

#[test]
fn version_2_and_odd_corners_are_read() {
    let raw = RawGguf { version: 2, ..new() }
        .entry(b"general.alignment", 10, &8u64.to_le_bytes())
        .entry(b"nested", 9, &array(9, 2, &[array(0, 1, &[7]), array(8, 0, &[])].concat()))
        .tensor(b"scalar", &[], 0, 0)
        .tensor(b"nothing", &[0, 4], 0, 8)
        .tensor(b"after", &[1], 24, 8);
    let raw = RawGguf { alignment: 8, ..raw }.data(9);
    let file = Gguf::from_bytes(raw.bytes().into()).unwrap();
    assert_eq!((file.version(), file.alignment()), (2, 8));
    let sizes: Vec<_> = file.tensors().iter().map(|t| (t.name(), t.elements(), t.nbytes())).collect();
    assert_eq!(sizes, [("scalar", 1, Some(4)), ("nothing", 0, Some(0)), ("after", 1, Some(1))]);
}
