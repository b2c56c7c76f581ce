//! Shapes, sizes and bytes of synthetic models.

use super::*;
use crate::{Checkpoint, LoadOptions};
use bitnet_model::Projection;
use ternary_kernels::Scales;

const SHAPE: &str = r#"{"vocab_size": 300, "hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "seed": 5}"#;

fn write(spec: &Spec, threads: usize) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new").join(spec.file_name());
    let mut last = 0;
    let done = spec.write(&path, NonZeroUsize::new(threads).unwrap(), &mut |n| {
        assert!(n > last);
        last = n;
        ControlFlow::Continue(())
    });
    assert!(done.unwrap());
    // Paddings between tensors are not counted.
    assert!(last <= spec.data_bytes().unwrap() && last * 100 > spec.data_bytes().unwrap() * 99);
    (dir, path)
}

#[test]
fn a_file_is_the_same_with_any_number_of_threads_and_loads() {
    let mut spec = Spec::from_json("shape", SHAPE.as_bytes()).unwrap();
    assert_eq!(spec.seed, 5);
    // An embedding of more than one piece per thread.
    spec.config.vocab_size = 6000;
    let (_one, a) = write(&spec, 1);
    let (_three, b) = write(&spec, 3);
    assert!(std::fs::read(&a).unwrap() == std::fs::read(&b).unwrap());

    let weights = Checkpoint::open(&a, &LoadOptions::default()).unwrap().weights().unwrap();
    assert_eq!(weights.config, spec.config);
    let w = weights.layers[1].projection(Projection::Down);
    let (mut row, mut counts) = (vec![0; 640], [0usize; 3]);
    for r in 0..w.rows() {
        w.decode_row(r, &mut row);
        row.iter().for_each(|t| counts[(t + 1) as usize] += 1);
    }
    // 163840 draws: each third has a standard deviation of 191; five of them.
    for n in counts {
        assert!(n.abs_diff(163_840 / 3) < 955, "{counts:?}");
    }
}

/// A small model with everything that a Ternary-Bonsai has: the file is the same with any number of threads, loads, and
/// its scales differ from group to group.
#[test]
fn a_model_with_a_scale_per_group_loads() {
    let mut spec = Spec::bonsai_8b();
    let c = &mut spec.config;
    // An embedding of several pieces, which are not multiples of a block.
    (c.vocab_size, c.hidden_size, c.intermediate_size, c.num_hidden_layers) = (20_000, 256, 384, 2);
    (c.num_attention_heads, c.num_key_value_heads, c.head_dim) = (4, 2, 64);
    c.eos_token_ids = vec![1];
    let (_one, a) = write(&spec, 1);
    let (_three, b) = write(&spec, 3);
    assert!(std::fs::read(&a).unwrap() == std::fs::read(&b).unwrap());
    let weights = Checkpoint::open(&a, &LoadOptions::default()).unwrap().weights().unwrap();
    assert_eq!(weights.config, spec.config);
    let down = weights.layers[1].projection(Projection::Down);
    let Scales::Groups(groups) = down.scales() else { panic!("{:?}", down.scales()) };
    assert_eq!((groups.group_len(), groups.groups(), groups.rows()), (128, 3, 256));
    let middle = (1.5f32 / 384.0).sqrt();
    let row = groups.row(7);
    assert!(row.iter().all(|d| (0.87 * middle..1.13 * middle).contains(&d.to_f32())) && row[0] != row[1], "{row:?}");
}

/// Counted by hand from the published shapes.
#[test]
fn the_published_sizes_are_met() {
    for (name, ternary, gigabytes) in [
        ("bonsai-1.7b", 1_409_286_144, 0.457),
        ("bonsai-4b", 3_633_315_840, 1.068),
        ("bonsai-8b", 6_945_767_424u64, 2.175),
        ("bonsai-27b", 24_326_963_200, 7.242),
        // 440 M weights of two bits, an embedding of 155 M in half precision.
        ("bitnet-embedding-0.6b", 440_401_920, 0.421),
    ] {
        let spec = Spec::named(name).unwrap();
        assert_eq!(spec.config.ternary_weights(), ternary, "{name}");
        let bytes = spec.data_bytes().unwrap() as f64 / 1e9;
        assert!((bytes - gigabytes).abs() < 2e-3, "{name}: {bytes}");
    }
}

#[test]
fn shapes_have_names_and_files_of_their_own() {
    let mut files = Vec::new();
    for name in Spec::NAMES {
        let spec = Spec::named(name).unwrap();
        assert_eq!(spec.name, name);
        spec.config.validate().unwrap();
        files.push(spec.file_name());
    }
    files.dedup();
    assert_eq!(files.len(), Spec::NAMES.len());
    assert_eq!(Spec::named("2b4t-v3"), None);
}

#[test]
fn seeds_and_tensors_differ() {
    let spec = Spec::from_json("shape", SHAPE.as_bytes()).unwrap();
    let other = Spec { seed: 6, ..spec.clone() };
    assert_ne!(spec.file_name(), other.file_name());
    assert_ne!(spec.seed_of("a"), other.seed_of("a"));
    assert_ne!(spec.seed_of("a"), spec.seed_of("b"));
    let longer = SHAPE.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    assert_ne!(spec.file_name(), Spec::from_json("shape", longer.as_bytes()).unwrap().file_name());
}

#[test]
fn a_cancelled_file_leaves_nothing() {
    let spec = Spec::from_json("shape", SHAPE.as_bytes()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    assert!(!spec.write(&path, NonZeroUsize::MIN, &mut |_| ControlFlow::Break(())).unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn shapes_that_cannot_be_are_refused() {
    let refused = |from: &str, to: &str| {
        let text = SHAPE.replace(from, to);
        assert_ne!(text, SHAPE);
        Spec::from_json("s", text.as_bytes()).and_then(|s| s.data_bytes()).unwrap_err()
    };
    let odd = refused("\"hidden_size\": 256", "\"hidden_size\": 192");
    assert!(matches!(odd, LoadError::PartialBlock { block: 128, cols: 192, .. }), "{odd}");
    assert!(matches!(refused("\"vocab_size\": 300, ", ""), LoadError::MissingKey { .. }));
    assert!(matches!(refused("\"seed\": 5}", ""), LoadError::Json { .. }));
}
