//! Packed files: models loaded from them compute the same, bit for bit; damage is refused or harmless.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bitnet_model::{
    Engine, EngineOptions, FloatMatrix, FloatType, HeadMode, HeadRequest, KvType, ModelError, ModelWeights, Packer,
    Prediction, Sequence, Table,
};
use common::checkpoints::{EXACT, assert_same, load, open};
use loader::convert::{ConvertOptions, Target, convert};
use loader::gguf::Gguf;
use loader::{Checkpoint, LoadError, LoadOptions};
use ternary_kernels::{Isa, Kernel, SharedBytes, kernels_available};

/// With a coarse plane, which small models do without unless it is asked for.
fn engine() -> EngineOptions {
    EngineOptions::default().threads(1).head(HeadMode::Coarse)
}

fn pack(source: &Path, to: &Path, options: EngineOptions) {
    let mut convert_options = ConvertOptions::default();
    convert_options.engine = options;
    let mut steps = Vec::new();
    let report = convert(source, to, Target::Packed, &convert_options, &mut |p| steps.push(p));
    let report = report.unwrap_or_else(|e| panic!("{}: {e}", source.display()));
    assert_eq!(report.rounded, 0);
    assert!(steps.last().is_some_and(|p| p.done == p.total), "{steps:?}");
}

/// Logits of all positions, the best ones at the last, and the fingerprint, which is of all weights; a model without a
/// head has only that.
fn outcome(weights: &ModelWeights, options: &EngineOptions) -> (Vec<u32>, Vec<u32>, u64) {
    let engine = Engine::new(weights, options).unwrap();
    let vocab = engine.config().vocab_size as u32;
    let ids: Vec<u32> = (0..9).map(|i| i * 13 % vocab).collect();
    let mut sequence = Sequence::new(&engine, KvType::F32, None);
    if engine.config().headless {
        return (Vec::new(), Vec::new(), engine.fingerprint());
    }
    let all = sequence.feed_each(&ids).unwrap().iter().map(|v| v.to_bits()).collect();
    let best = match feed(&mut sequence, 1, HeadRequest::Top(1)).unwrap() {
        Prediction::Full(logits) => logits.iter().map(|v| v.to_bits()).collect(),
        Prediction::Best(found) => found.iter().flat_map(|c| [c.token, c.logit.to_bits()]).collect(),
    };
    (all, best, engine.fingerprint())
}

/// Feeds a token and asks for no more logits than that.
fn feed(sequence: &mut Sequence, token: u32, request: HeadRequest) -> Result<Prediction<'_>, ModelError> {
    sequence.feed_with(&[token], request, None)?;
    Ok(sequence.prediction())
}

/// Fixtures in this repository, and those next to it if there are any.
fn sources() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        ["llama_256/packed", "llama_spm/packed", "merged_tiny/packed", "merged_tiny/master", "onebit_tiny/master"]
            .map(|name| test_support::testdata("bitnet").join(name))
            .to_vec();
    if let Some(shared) = test_support::shared_dir() {
        let fixtures = shared.join("fixtures");
        let more = [
            "families/qwen3_group/g128_tied/g128_tied.PQ2_0.gguf",
            "families/qwen3_group/g64_untied",
            "families/qwen3_group/g256_tq2/g256_tq2.TQ2_0.gguf",
            "families/qwen35/g64_hd64",
            "families/qwen35/hadamard_b128/hadamard_b128.PQ2_0.gguf",
            "families/minicpm/longrope_tq2",
            "families/bitnet_embedding_qwen3/mean_gqa",
        ];
        all.extend(more.map(|name| fixtures.join(name)));
    }
    all
}

#[test]
fn packed_files_compute_the_same_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    for source in sources() {
        let name = source.display().to_string();
        let packed = dir.path().join("model.gguf");
        pack(&source, &packed, engine());
        let (a, b) = (load(&source), load(&packed));
        assert!(!open(&source).is_packed() && open(&packed).is_packed(), "{name}");
        let packer = Packer::new(&b, &engine()).unwrap();
        assert!(packer.is_ready(&b) && !Packer::new(&a, &engine()).unwrap().is_ready(&a), "{name}");
        assert_eq!(a.config.inputs, b.config.inputs, "{name}");
        assert_eq!(outcome(&a, &engine()), outcome(&b, &engine()), "{name}");
        // A packed model can be packed again, and becomes an ordinary file.
        let again = dir.path().join("again.gguf");
        pack(&packed, &again, engine());
        assert!(std::fs::read(&packed).unwrap() == std::fs::read(&again).unwrap(), "{name}");
    }
}

#[test]
fn packed_files_become_what_they_were_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let (packed, back) = (dir.path().join("packed.gguf"), dir.path().join("back.gguf"));
    let source = test_support::testdata("bitnet/llama_256/packed");
    let plain = dir.path().join("plain.gguf");
    convert(&source, &plain, Target::I2S, &ConvertOptions::default(), &mut |_| {}).unwrap();
    pack(&plain, &packed, engine());
    convert(&packed, &back, Target::I2S, &ConvertOptions::default(), &mut |_| {}).unwrap();
    assert_same(&load(&plain), &load(&back), EXACT, "I2_S, packed and back");
    assert!(std::fs::read(&plain).unwrap() == std::fs::read(&back).unwrap(), "the bytes are the same");
    let file = Gguf::open(&packed).unwrap();
    assert_eq!(file.alignment(), 4096);
    assert!(file.tensors().iter().all(|t| (file.data_start() + t.offset()).is_multiple_of(4096)));
}

/// A file for one kernel serves all others: they pack its weights again.
#[test]
fn every_kernel_computes_a_file_that_was_packed_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let source = test_support::testdata("bitnet/llama_256/packed");
    let with = |kernel: &Arc<dyn Kernel>| engine().kernel(kernel.clone());
    let kernels = kernels_available();
    let expected = outcome(&load(&source), &engine());
    for for_kernel in ["i2s_scalar", "base3_scalar", "tl2_scalar"] {
        let packed = dir.path().join(for_kernel);
        pack(&source, &packed, with(&ternary_kernels::by_name(for_kernel).unwrap()));
        let weights = load(&packed);
        for kernel in &kernels {
            assert_eq!(outcome(&weights, &with(kernel)), expected, "for {for_kernel}, with {}", kernel.name());
            let format = |name: &str| name.split('_').next().map(str::to_owned);
            let ready = Packer::new(&weights, &with(kernel)).unwrap().is_ready(&weights);
            let same = format(kernel.name()) == format(for_kernel) && for_kernel != "tl2_scalar";
            // Look-up kernels have no layout for files: theirs hold panels of I2_S.
            let fallback = for_kernel == "tl2_scalar" && kernel.name().starts_with("i2s");
            assert_eq!(ready, same || fallback, "for {for_kernel}, with {}", kernel.name());
        }
    }
}

/// Weights that move to memory are the same before and after.
#[test]
fn weights_that_move_to_huge_pages_compute_the_same() {
    let (dir, _) = small();
    let path = dir.path().join("model.gguf");
    let expected = outcome(&load(&path), &engine());
    let mut loaded = loader::load(&path, &LoadOptions::default()).unwrap();
    loaded.prepare_for(&engine());
    let weights = loaded.weights;
    assert!(Packer::new(&weights, &engine()).unwrap().is_ready(&weights));
    assert_eq!(outcome(&weights, &engine()), expected);
    // A mapping begins at a page, and so do the tensors of the file; buffers in memory begin at cache lines.
    let all_mapped = || {
        let mut matrices = weights.layers.iter().flat_map(|l| l.projections()).map(|(_, w)| w);
        matrices.all(|w| (w.packed_bytes(w.packed_layout().unwrap()).unwrap().as_ptr() as usize).is_multiple_of(4096))
    };
    let mapped = load(&path);
    let began = std::time::Instant::now();
    // Without huge pages nothing moves.
    while all_mapped() && began.elapsed().as_secs() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(outcome(&weights, &engine()), expected);
    for (a, b) in mapped.layers.iter().zip(&weights.layers) {
        assert!(a.projections().zip(b.projections()).all(|((_, a), (_, b))| a.to_trits() == b.to_trits()));
    }
}

/// Opens, reads all weights, computes a token: an error, or some numbers.
fn use_up(bytes: Vec<u8>) -> Result<(), LoadError> {
    let checkpoint = Checkpoint::from_bytes(SharedBytes::from(bytes), &LoadOptions::default())?;
    let weights = checkpoint.weights()?;
    let engine = Engine::new(&weights, &engine())?;
    let mut sequence = Sequence::new(&engine, KvType::F32, Some(8));
    sequence.feed(&[1])?;
    feed(&mut sequence, 2, HeadRequest::Top(1))?;
    Ok(())
}

fn small() -> (tempfile::TempDir, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    pack(&test_support::testdata("bitnet/llama_tiny/packed"), &path, engine());
    let bytes = std::fs::read(&path).unwrap();
    (dir, bytes)
}

#[test]
fn files_that_are_cut_short_are_refused() {
    let (_dir, bytes) = small();
    use_up(bytes.clone()).unwrap();
    let file = Gguf::from_bytes(bytes.clone().into()).unwrap();
    let last = file.tensors().iter().map(|t| file.data_start() + t.offset() + t.nbytes().unwrap()).max().unwrap();
    let start = file.data_start() as usize;
    let inside = (start..last as usize).step_by(509);
    for len in (0..start).step_by(23).chain(inside).chain([last as usize - 1]) {
        assert!(use_up(bytes[..len].to_vec()).is_err(), "{len} of {} bytes", bytes.len());
    }
    // The bytes after the last tensor are padding.
    use_up(bytes[..last as usize].to_vec()).unwrap();
}

/// Each byte that is not the data of a tensor, and some of those that are: no panic, no hang.
#[test]
fn files_with_a_wrong_bit_are_refused_or_harmless() {
    let (_dir, bytes) = small();
    let file = Gguf::from_bytes(bytes.clone().into()).unwrap();
    let keys = b"bitnet.packed.";
    let head = file.data_start() as usize;
    let first = bytes.windows(keys.len()).position(|w| w == keys).unwrap();
    let mut refused = 0;
    for at in (first..head).chain((head..bytes.len()).step_by(211)) {
        let mut damaged = bytes.clone();
        damaged[at] ^= if at % 3 == 0 { 0xff } else { 1 << (at % 8) };
        refused += usize::from(use_up(damaged).is_err());
    }
    assert!(refused > 500, "{refused}");
}

/// Other versions, layouts and shapes are named in the error, with a remedy.
#[test]
fn errors_say_what_is_wrong() {
    let (_dir, bytes) = small();
    let changed = |find: &[u8], to: &[u8]| {
        assert_eq!(find.len(), to.len());
        let mut bytes = bytes.clone();
        let at = bytes.windows(find.len()).position(|w| w == find).expect("the file holds it");
        bytes[at..at + find.len()].copy_from_slice(to);
        use_up(bytes).map_err(|e| e.to_string()).expect_err("it is refused")
    };
    let key = |name: &str, kind: u32, value: &[u8]| [name.as_bytes(), &kind.to_le_bytes(), value].concat();
    let version = |v: u64| key("bitnet.packed.version", 10, &v.to_le_bytes());
    assert!(changed(&version(1), &version(2)).contains("pack the original file again"));
    let layouts = |v: u32| key("bitnet.packed.layout_version", 4, &v.to_le_bytes());
    assert!(changed(&layouts(1), &layouts(9)).contains("layouts of version 9"));
    assert!(changed(b"bitnet.packed.shapes", b"bitnet.packed.shaped").contains("bitnet.packed.shapes"));
    assert!(changed(b"packed.blk.0.ffn_down.weight", b"packed.blk.0.ffn_dawn.weight").contains("ffn_down"));
}

/// Conversion reads parts that loading skips.
#[test]
fn codes_that_no_weight_has_are_found_by_conversion() {
    let (dir, mut bytes) = small();
    let path = dir.path().join("model.gguf");
    let file = Gguf::from_bytes(bytes.clone().into()).unwrap();
    let down = file.tensor("packed.blk.0.ffn_down.weight").unwrap();
    let at = (file.data_start() + down.offset()) as usize;
    bytes[at] = 0xff;
    use_up(bytes.clone()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let out = dir.path().join("out");
    let error = convert(&path, &out, Target::HfPacked, &ConvertOptions::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(error.root(), LoadError::Ternary { tensor, .. } if tensor == "blk.0.ffn_down.weight"), "{error}");
    assert!(!out.exists());
}

/// A plane of a head, whatever its bytes: the token found is always within the vocabulary.
#[test]
fn a_damaged_plane_finds_some_token() {
    let (_dir, bytes) = small();
    let checkpoint = Checkpoint::from_bytes(SharedBytes::from(bytes), &LoadOptions::default()).unwrap();
    let weights = checkpoint.weights().unwrap();
    let head = weights.head_table().unwrap().as_float().unwrap();
    let plane = head.coarse().expect("it was asked for");
    for fill in [0u8, 0xff, 0x7f, 0x80, 0xaa] {
        let bytes = vec![fill; plane.byte_len()];
        let damaged = ternary_kernels::ops::coarse::CoarsePlane::from_shared(head.rows(), head.cols(), bytes.into());
        let table = Table::Float(head.clone().with_coarse(damaged.unwrap()).unwrap());
        let mut weights = weights.clone();
        match &mut weights.head {
            Some(head) => *head = table,
            None => weights.embedding = table,
        }
        let engine = Engine::new(&weights, &engine()).unwrap();
        let mut sequence = Sequence::new(&engine, KvType::F32, None);
        for request in [HeadRequest::Top(1), HeadRequest::WithinMargin(0.5)] {
            match feed(&mut sequence, 3, request).unwrap() {
                Prediction::Full(logits) => assert_eq!(logits.len(), head.rows()),
                Prediction::Best(found) => assert!(!found.is_empty() && found.len() <= head.rows(), "{fill}"),
            }
        }
    }
}

/// A plane belongs to one shape.
#[test]
fn planes_of_other_shapes_are_refused() {
    let m = FloatMatrix::new(FloatType::F16, 64, 16, vec![0; 64 * 16 * 2].into()).unwrap();
    let plane = |rows, cols| {
        let len = ternary_kernels::ops::coarse::CoarsePlane::byte_len_of(rows, cols).unwrap();
        ternary_kernels::ops::coarse::CoarsePlane::from_shared(rows, cols, vec![0; len].into()).unwrap()
    };
    assert!(m.clone().with_coarse(plane(64, 16)).is_ok());
    assert!(m.clone().with_coarse(plane(128, 16)).is_err());
    assert!(m.with_coarse(plane(64, 17)).is_err());
}

#[test]
fn the_model_within_the_program_needs_no_packing() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bitnet/models/tiny-stories-ttt.gguf");
    let weights = load(&path);
    // Otherwise each start would pack it: pack the file again.
    for isa in Isa::available() {
        assert!(Packer::new(&weights, &EngineOptions::default().isa(isa)).unwrap().is_ready(&weights), "{isa:?}");
    }
}
