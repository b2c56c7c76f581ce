//! Checkpoints on failing disks: bits that flip, disks that are full.

use std::path::{Path, PathBuf};

use bitnet_model::ModelConfig;
use bitnet_model::files::FileError;
use bitnet_model::train::{
    AdamW, Checkpoint, FusedLearner, GIVEN, Params, Progress, Sampler, Split, TokenFile, TokenWidth, TokenWriter,
    TrainConfig, TrainError, Trainer, Validation,
};
use proptest::prelude::*;
use safetensors::SafeTensors;

/// A checkpoint that was not made by a run.
fn checkpoint(seed: u64) -> Checkpoint {
    let model = ModelConfig::new(64, 32, 64, 2, 2, 1);
    let config = TrainConfig { threads: 1, ..TrainConfig::default() };
    let params = Params::init(&model, seed, 0.02).unwrap();
    let mut adam = AdamW::new(config.adamw, params.values.len());
    adam.step = 3;
    let progress = Progress { step: 3, position: 12, best: Some(2.5), ..Progress::default() };
    Checkpoint { model, config, params, average: None, adam, progress }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Loads the file with one bit changed.
fn flipped(path: &Path, good: &[u8], bit: usize) -> Result<Checkpoint, TrainError> {
    let mut bytes = good.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    std::fs::write(path, &bytes).unwrap();
    Checkpoint::load(path)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// The bit may be anywhere: in the header, in the checksum, in a weight.
    #[test]
    fn every_flipped_bit_is_found(at in any::<prop::sample::Index>()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.safetensors");
        checkpoint(1).save(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        let result = flipped(&path, &good, at.index(good.len() * 8));
        prop_assert!(matches!(result, Err(TrainError::Damaged { .. })), "{:?}", result.map(|c| c.progress));
    }
}

/// The header decides how the rest is read: all its bytes, and those around it.
#[test]
fn every_byte_of_the_header_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.safetensors");
    checkpoint(1).save(&path).unwrap();
    assert!(Checkpoint::load(&path).unwrap() == checkpoint(1));
    let good = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(*good.first_chunk().unwrap()) as usize;
    for at in 0..header + 16 {
        assert!(flipped(&path, &good, at * 8 + at % 8).is_err(), "byte {at} of {header}");
    }
}

#[test]
fn the_checkpoint_before_stays_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint.safetensors");
    let previous = Checkpoint::previous(&path);
    assert_eq!(previous.file_name().unwrap(), "checkpoint.previous.safetensors");
    checkpoint(1).save(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    let alone = flipped(&path, &good, good.len() * 4).unwrap_err().to_string();
    assert!(alone.contains("no earlier checkpoint"), "{alone}");
    std::fs::write(&path, &good).unwrap();
    checkpoint(2).save(&path).unwrap();
    checkpoint(3).save(&path).unwrap();
    assert!(Checkpoint::load(&path).unwrap() == checkpoint(3));
    assert!(Checkpoint::load(&previous).unwrap() == checkpoint(2));
    let good = std::fs::read(&path).unwrap();
    let told = flipped(&path, &good, good.len() * 4).unwrap_err().to_string();
    assert!(told.contains("checkpoint.previous.safetensors") && told.contains("--resume --previous"), "{told}");
    assert_eq!(names(dir.path()), ["checkpoint.previous.safetensors", "checkpoint.safetensors"]);
}

/// Checkpoints of earlier programs are read; one that lost its checksum is not.
#[test]
fn checkpoints_without_a_checksum_are_those_of_format_1() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.safetensors");
    checkpoint(1).save(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&good).unwrap();
    let (_, header) = SafeTensors::read_metadata(&good).unwrap();
    let about = &header.metadata().as_ref().unwrap()["bitnet-train"];
    let with = |format: u64, sum: bool| {
        let mut about: serde_json::Value = serde_json::from_str(about).unwrap();
        about["format"] = format.into();
        if !sum {
            about.as_object_mut().unwrap().shift_remove("sha256");
        }
        let metadata = [("bitnet-train".to_owned(), about.to_string())].into();
        std::fs::write(&path, safetensors::serialize(file.tensors(), Some(metadata)).unwrap()).unwrap();
        Checkpoint::load(&path)
    };
    assert!(with(1, false).unwrap() == checkpoint(1));
    for (format, sum) in [(2, false), (1, true), (3, false), (3, true)] {
        assert!(matches!(with(format, sum), Err(TrainError::Damaged { .. })), "{format} {sum}");
    }
}

/// A small disk, if this user may mount one.
#[cfg(target_os = "linux")]
struct SmallDisk(tempfile::TempDir);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn new(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(dir.path());
        let mounted = mount.output().is_ok_and(|o| o.status.success());
        if !mounted {
            println!("skipped: mounting a small disk is not permitted here");
        }
        mounted.then_some(Self(dir))
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named_and_leaves_the_old_checkpoint() {
    let one = tempfile::tempdir().unwrap();
    checkpoint(1).save(&one.path().join("c.safetensors")).unwrap();
    let bytes = std::fs::metadata(one.path().join("c.safetensors")).unwrap().len();
    let Some(disk) = SmallDisk::new(&(bytes + bytes / 2).to_string()) else { return };
    let path = disk.0.path().join("checkpoint.safetensors");
    checkpoint(1).save(&path).unwrap();
    let error = checkpoint(2).save(&path).unwrap_err();
    let named =
        matches!(&error, TrainError::Io(FileError::Full { needed, path: at, .. }) if *needed >= bytes && *at == path);
    assert!(named && error.to_string().contains("No space left"), "{error}");
    assert_eq!(names(disk.0.path()), ["checkpoint.safetensors"]);
    assert!(Checkpoint::load(&path).unwrap() == checkpoint(1));
}

fn tokens(path: &Path, ids: &[u32]) {
    let mut out = TokenWriter::create(path, TokenWidth::U32).unwrap();
    out.write(ids).unwrap();
    out.finish().unwrap();
}

#[test]
fn data_that_teach_nothing_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.u32");
    let open = || TokenFile::open(&path, TokenWidth::U32).unwrap();
    tokens(&path, &[1 | GIVEN; 300]);
    let nothing = |e: TrainError| assert!(matches!(e, TrainError::NothingToLearn { .. }), "{e}");
    nothing(Sampler::new(open(), 10, 1).map(drop).unwrap_err());
    nothing(Validation::new(open(), 10).map(drop).unwrap_err());
    let c = Checkpoint { config: TrainConfig { context: 10, threads: 1, ..TrainConfig::default() }, ..checkpoint(1) };
    let learner = FusedLearner::new(&c.model, 1).unwrap();
    nothing(Trainer::resume(c, learner, [Some(open()), None], &dir.path().join("c")).map(drop).unwrap_err());
    // The first token of a record is never predicted.
    tokens(&path, &[[7].as_slice(), &[1 | GIVEN; 10]].concat().repeat(3));
    nothing(Sampler::new(TokenFile::open_examples(&path, 10).unwrap(), 10, 1).map(drop).unwrap_err());
    let mut ids = vec![1 | GIVEN; 100_000];
    ids[90_000] = 1;
    tokens(&path, &ids);
    Sampler::new(open(), 10, 1).unwrap();

    let examples = dir.path().join("e.jsonl");
    let prepare = |text: &str| {
        std::fs::write(&examples, text).unwrap();
        let split = Split { validation: 0.0, seed: 1 };
        let (a, b) = (dir.path().join("a.u32"), dir.path().join("b.u32"));
        let mut encode =
            |e: bitnet_model::train::Example<'_>| Ok([vec![1], e.completion.bytes().map(u32::from).collect()]);
        split.prepare_examples(&[PathBuf::from(&examples)], [&a, &b], 10, 2, &mut encode)
    };
    nothing(
        prepare("{\"prompt\": \"\", \"completion\": \"\"}\n{\"prompt\": \"x\", \"completion\": \"\"}\n").unwrap_err(),
    );
    nothing(prepare("").unwrap_err());
    prepare("{\"prompt\": \"\", \"completion\": \"\"}\n{\"prompt\": \"x\", \"completion\": \"y\"}\n").unwrap();
    for share in [-0.1, 1.1, f64::NAN] {
        let split = Split { validation: share, seed: 1 };
        let refused = split.prepare(&[], [&path, &path], TokenWidth::U32, 1, &mut |_| Ok(vec![]));
        assert!(matches!(refused, Err(TrainError::Option { .. })), "{share}");
    }
}

/// A line of 100 MiB without an end, invalid UTF-8, NULs: typed errors, and nothing remains.
#[test]
fn text_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.txt");
    let (a, b) = (dir.path().join("a.u16"), dir.path().join("b.u16"));
    let prepare = || {
        let split = Split { validation: 0.0, seed: 1 };
        split.prepare(std::slice::from_ref(&path), [&a, &b], TokenWidth::U16, 1, &mut |t| Ok(vec![t.len() as u32 % 9]))
    };
    let refused = |what: &str| {
        let e = prepare().unwrap_err();
        assert!(matches!(&e, TrainError::Io(FileError::Line { .. })) && e.to_string().contains(what), "{e}");
        assert_eq!(names(dir.path()), ["t.txt"]);
    };
    std::fs::write(&path, vec![b'x'; 100 << 20]).unwrap();
    refused("line 1: it is longer than 67108864 bytes");
    std::fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    refused("line 1: a NUL byte");
    std::fs::write(&path, b"good\n\xff\xfe\n").unwrap();
    refused("line 2: this is not UTF-8");
    std::fs::write(&path, "good\n").unwrap();
    prepare().unwrap();
}
