//! TL1 and TL2 files: read if their tile sizes are given, converted without loss, rejected otherwise.

mod common;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bitnet_model::{Activation, ModelConfig, ModelWeights, Projection};
use common::checkpoints::*;
use loader::convert::{ConvertOptions, Target, convert};
use loader::gguf::{GgmlType, Gguf, GgufWriter, TensorType};
use loader::synthetic::Spec;
use loader::{Checkpoint, LoadError, LoadOptions, TlTiles};
use ternary_kernels::{FileFormat, KernelError, ScaleRounding, Scales, TernaryMatrix, TlTile};

const TL1: FileFormat = FileFormat::Tl1(TlTile { bm: 64, bk: 128, bmm: 32 });
const TL2: FileFormat = FileFormat::Tl2(TlTile { bm: 64, bk: 96, bmm: 32 });
/// Exact in every format.
const SCALE: Scales = Scales::Tensor(0.5);

/// Shapes `[256, 256]`, `[128, 256]`, `[512, 256]`, `[256, 512]`; 96 leaves 64 and 32 of their columns.
fn config() -> ModelConfig {
    ModelConfig::new(96, 256, 512, 1, 4, 2)
}

/// An I2_S file of random weights.
fn original(dir: &Path, config: ModelConfig) -> PathBuf {
    let path = dir.join("original.gguf");
    let mut go_on = |_| ControlFlow::Continue(());
    assert!(Spec::new("tl", config, 1).write(&path, NonZeroUsize::MIN, &mut go_on).unwrap());
    path
}

/// The same file with its projections in `format` under type `id`, which only a test writes: the writer rejects these
/// types, so the tensors are announced as bytes, and their descriptions changed afterwards.
fn tiled(from: &Path, name: &str, format: FileFormat, id: u32) -> PathBuf {
    let file = Gguf::open(from).unwrap();
    let mut writer = GgufWriter::with_metadata(file.metadata().clone()).unwrap();
    let mut tensors = Vec::new();
    for t in file.tensors() {
        let (ty, bytes) = file.data(t).unwrap();
        let bytes = match ty {
            GgmlType::I2S => {
                let (rows, cols) = (t.rows() as usize, t.cols() as usize);
                let w = TernaryMatrix::from_bytes(FileFormat::I2S, rows, cols, bytes, None).unwrap();
                let w = TernaryMatrix::from_trits(rows, cols, &w.to_trits(), SCALE).unwrap();
                let bytes = format.encode(&w, ScaleRounding::Exact).unwrap();
                writer.announce(t.name(), &[1, bytes.len() as u64], GgmlType::I8).unwrap();
                bytes
            }
            ty => {
                writer.announce(t.name(), &t.shape(), ty).unwrap();
                bytes.to_vec()
            }
        };
        tensors.push((t.name(), bytes));
    }
    let mut out = Vec::new();
    let mut stream = writer.start(&mut out).unwrap();
    for (name, bytes) in &tensors {
        stream.tensor(name, |o| o.write_all(bytes)).unwrap();
    }
    stream.finish().unwrap();
    for t in file.tensors().iter().filter(|t| t.tensor_type() == TensorType::Known(GgmlType::I2S)) {
        // Length and name, number of dimensions, dimensions, type.
        let key = common::text(t.name().as_bytes());
        let at = out.windows(key.len()).position(|w| w == key).unwrap() + key.len() + 4;
        out[at..at + 8].copy_from_slice(&t.cols().to_le_bytes());
        out[at + 8..at + 16].copy_from_slice(&t.rows().to_le_bytes());
        out[at + 16..at + 20].copy_from_slice(&id.to_le_bytes());
    }
    let path = from.with_file_name(name);
    std::fs::write(&path, out).unwrap();
    path
}

fn with(tl: &str) -> LoadOptions {
    let mut options = LoadOptions::default();
    options.tl = tl.parse().unwrap();
    options
}

fn read(path: &Path, tl: &str) -> Result<ModelWeights, LoadError> {
    Checkpoint::open(path, &with(tl))?.weights()
}

fn same_trits(a: &ModelWeights, b: &ModelWeights) {
    for p in Projection::OF_ATTENTION {
        let (a, b) = (a.layers[0].projection(p), b.layers[0].projection(p));
        assert!(a.to_trits() == b.to_trits(), "{}", p.name());
    }
}

#[test]
fn files_are_read_with_named_tiles_and_become_every_form_without_loss() {
    let dir = tempfile::tempdir().unwrap();
    let original = original(dir.path(), config());
    let expected = load(&original);
    let one = tiled(&original, "tl1.gguf", TL1, 38);
    let cases = [
        (one, "bm=64,bk=128,bmm=32", "TL1"),
        (tiled(&original, "tl2.gguf", TL2, 39), "bm=64,bk=96,bmm=32", "TL2"),
        // The id that newer programs use.
        (tiled(&original, "tl2-new.gguf", TL2, 42), "bm=64,bk=96,bmm=32", "TL2"),
    ];
    for (path, tl, format) in cases {
        let checkpoint = Checkpoint::open(&path, &with(tl)).unwrap();
        let weights = checkpoint.weights().unwrap();
        assert_eq!(checkpoint.info().ternary_format, format);
        same_trits(&weights, &expected);
        assert_eq!(weights.layers[0].projection(Projection::Down).scales(), &SCALE);
        for target in Target::ALL {
            let out = dir.path().join(format!("{format}-{}", target.name()));
            let mut options = ConvertOptions::default();
            options.load = with(tl);
            let report = convert(&path, &out, target, &options, &mut |_| {}).unwrap();
            assert_eq!((report.projections, report.rounded), (7, 0));
            assert_same(&weights, &load(&out), EXACT, &format!("{format} {}", target.name()));
        }
    }
}

/// Without tiles, and with tiles for other shapes, the message names the options and the given shapes.
#[test]
fn files_are_refused_without_tiles_and_the_message_names_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let original = original(dir.path(), config());
    for (format, id, name) in [(TL1, 38, "TL1"), (TL2, 39, "TL2")] {
        let path = tiled(&original, "tiled.gguf", format, id);
        let error = fails(&path).unwrap();
        assert!(matches!(error.root(), LoadError::TilesNeeded { rows: 256, cols: 256, .. }), "{error:?}");
        let message = error.to_string();
        for part in
            [name, "--tl", "LoadOptions::tl", "Llama3-8B-1.58", "kernel_config.ini", "256x256:bm=", "I2_S", "none were"]
        {
            assert!(message.contains(part), "{part} is not in {message}");
        }
        let mut options = LoadOptions::default();
        options.tl = TlTiles::preset("bitnet_b1_58-3B").unwrap().with(256, 256, TlTile { bm: 64, bk: 32, bmm: 32 });
        let message = Checkpoint::open(&path, &options).unwrap_err().to_string();
        assert!(message.contains("128x256") && message.contains("3200x8640"), "{message}");
    }
}

#[test]
fn tiles_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let original = original(dir.path(), config());
    let path = tiled(&original, "tl2.gguf", TL2, 39);
    let kernel_error = |tl: &str| match read(&path, tl).unwrap_err().root() {
        LoadError::Ternary { source, .. } => source.clone(),
        e => panic!("{e:?}"),
    };
    // Sizes that the shapes cannot have, and such as they could but that cut the 512 columns of one elsewhere.
    assert!(matches!(kernel_error("bm=96,bk=96,bmm=32"), KernelError::UnsupportedTile { .. }));
    assert!(matches!(kernel_error("bm=64,bk=120,bmm=32"), KernelError::UnsupportedTile { .. }));
    assert!(matches!(kernel_error("bm=64,bk=192,bmm=32"), KernelError::ForeignTiles { .. }));
    // Otherwise the bytes do not show it: other sizes give other weights.
    let q = |w: &ModelWeights| w.layers[0].projection(Projection::Q).to_trits();
    let right = q(&load(&original));
    assert!(q(&read(&path, "bm=128,bk=96,bmm=32").unwrap()) != right);
    let path = tiled(&original, "tl1.gguf", TL1, 38);
    assert!(q(&read(&path, "bm=128,bk=64,bmm=64").unwrap()) != right);
}

/// In files of architecture `llama` the size distinguishes TL1 and TL2 from the types of llama.cpp with their ids.
#[test]
fn ternary_llamas_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.hidden_act = Activation::Silu;
    config.sub_norms = false;
    let original = original(dir.path(), config);
    assert_eq!(Gguf::open(&original).unwrap().architecture(), "llama");
    let expected = load(&original);
    for (format, id, tl) in [(TL1, 38, "bm=64,bk=128,bmm=32"), (TL2, 39, "bm=64,bk=96,bmm=32")] {
        let path = tiled(&original, "tiled.gguf", format, id);
        same_trits(&read(&path, tl).unwrap(), &expected);
    }
    let path = tiled(&original, "unknown.gguf", TL2, 42);
    assert!(matches!(read(&path, "bm=64,bk=96,bmm=32").unwrap_err().root(), LoadError::NoLayoutFits { .. }));
}
