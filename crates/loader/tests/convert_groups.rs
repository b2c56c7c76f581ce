//! Models with a scale per group from form to form: all weights are kept, or the conversion is rejected.

mod common;

use std::path::{Path, PathBuf};

use bitnet_model::{ModelWeights, Table};
use common::checkpoints::load;
use loader::LoadError;
use loader::convert::{ConvertOptions, Target, convert};
use loader::gguf::Gguf;
use ternary_kernels::{KernelError, TernaryMatrix};

fn fixtures() -> Option<PathBuf> {
    Some(test_support::shared_dir()?.join("fixtures/families/qwen3_group"))
}

fn values(w: &TernaryMatrix) -> Vec<f32> {
    let mut all = vec![0.0; w.rows() * w.cols()];
    let mut trits = vec![0; w.cols()];
    for (r, row) in all.chunks_exact_mut(w.cols()).enumerate() {
        w.decode_row_f32(r, &mut trits, row);
    }
    all
}

fn table(t: &Table) -> Vec<f32> {
    match t {
        Table::Ternary(w) => values(w),
        Table::Float(_) => panic!("the table should be ternary"),
    }
}

fn assert_equal(a: &ModelWeights, b: &ModelWeights, what: &str) {
    assert_eq!(table(&a.embedding), table(&b.embedding), "{what}");
    assert_eq!(a.head.as_ref().map(table), b.head.as_ref().map(table), "{what}");
    assert_eq!(a.final_norm, b.final_norm, "{what}");
    for (l, (x, y)) in a.layers.iter().zip(&b.layers).enumerate() {
        for ((p, x), (_, y)) in x.projections().zip(y.projections()) {
            assert_eq!(values(x), values(y), "{what}, layer {l} {}", p.name());
        }
    }
}

fn run(input: &Path, output: &Path, target: Target) -> Result<(), LoadError> {
    convert(input, output, target, &ConvertOptions::default(), &mut |_| {}).map(|_| ())
}

/// All containers of one model hold the same weights, and so do conversions of them.
#[test]
fn groups_go_from_every_container_to_every_format_that_holds_them() {
    let Some(fixtures) = fixtures() else { return };
    let dir = tempfile::tempdir().unwrap();
    let folder = fixtures.join("g128_tied");
    let reference = load(&folder);
    let sources = ["PQ2_0", "PTQ1_0", "Q2_0_g128_id42", "Q2_0_g64"].map(|n| folder.join(format!("g128_tied.{n}.gguf")));
    for source in sources.iter().chain([&folder]) {
        assert_equal(&reference, &load(source), &source.display().to_string());
        for target in [Target::Q2_0, Target::Pq2_0, Target::Ptq1_0] {
            let output = dir.path().join(format!("{}.gguf", target.name()));
            run(source, &output, target).unwrap_or_else(|e| panic!("{} to {}: {e}", source.display(), target.name()));
            assert_equal(&reference, &load(&output), target.name());
            // The tables are written as the projections are.
            let file = Gguf::open(&output).unwrap();
            let name = target.format().name();
            assert_eq!(file.tensor("token_embd.weight").unwrap().tensor_type().to_string(), name);
        }
        let output = dir.path().join(source.file_name().unwrap()).with_extension("hf");
        run(source, &output, Target::HfUnpacked).unwrap();
        assert_equal(&reference, &load(&output), "hf-unpacked");
        assert!(loader::Checkpoint::open(&output, &Default::default()).unwrap().notes().is_empty());
    }
}

#[test]
fn formats_without_room_for_the_groups_are_refused() {
    let Some(fixtures) = fixtures() else { return };
    let dir = tempfile::tempdir().unwrap();
    let source = fixtures.join("g128_tied/g128_tied.PQ2_0.gguf");
    for target in [Target::I2S, Target::Tq1_0, Target::Tq2_0, Target::HfPacked] {
        let error = run(&source, &dir.path().join(target.name()), target).unwrap_err();
        let LoadError::Ternary { source, .. } = error.root() else { panic!("{error}") };
        match target {
            // Its widest rows have 384 weights, which are not whole blocks of 256.
            Target::Tq1_0 | Target::Tq2_0 => {
                let refused = matches!(source, KernelError::MixedScales { .. } | KernelError::UnsupportedShape { .. });
                assert!(refused, "{source}");
            }
            _ => assert!(matches!(source, KernelError::NoGroupScales { group_len: 128, .. }), "{source}"),
        }
        // Nothing is left of it.
        assert!(!dir.path().join(target.name()).exists(), "{}", target.name());
    }
    // Rows of 192 weights are not whole blocks of 128.
    let narrow = fixtures.join("g64_untied/g64_untied.Q2_0_g64.gguf");
    let error = run(&narrow, &dir.path().join("narrow"), Target::Pq2_0).unwrap_err();
    let LoadError::Ternary { source, .. } = error.root() else { panic!("{error}") };
    assert!(matches!(source, KernelError::UnsupportedShape { .. } | KernelError::MixedScales { .. }), "{source}");
}

/// Groups of 64, a head of its own, floats that were unpacked; groups of 256 in TQ2_0.
#[test]
fn other_lengths_of_groups_are_kept() {
    let Some(fixtures) = fixtures() else { return };
    let dir = tempfile::tempdir().unwrap();
    let folder = fixtures.join("g64_untied");
    let reference = load(&folder);
    assert!(reference.head.is_some());
    assert_equal(&reference, &load(&folder.join("g64_untied.Q2_0_g64.gguf")), "g64");
    let output = dir.path().join("g64.gguf");
    run(&folder, &output, Target::Q2_0).unwrap();
    assert_equal(&reference, &load(&output), "unpacked to Q2_0");

    let source = fixtures.join("g256_tq2/g256_tq2.TQ2_0.gguf");
    let reference = load(&source);
    for target in [Target::Tq1_0, Target::Tq2_0, Target::Q2_0, Target::Pq2_0, Target::Ptq1_0] {
        let output = dir.path().join(format!("g256-{}.gguf", target.name()));
        run(&source, &output, target).unwrap();
        assert_equal(&reference, &load(&output), target.name());
    }
}
