//! The cache of packed weights: later loads map the file of the first one, and nothing about it keeps a model from
//! running.

mod common;

use std::path::{Path, PathBuf};

use bitnet_model::{Engine, EngineOptions, HeadMode, KvType, Packer, Sequence};
use common::edit::Edit;
use loader::convert::{ConvertOptions, Target, convert};
use loader::{LoadOptions, LoadedModel, PackedCache, load};

fn engine() -> EngineOptions {
    EngineOptions::default().threads(1).head(HeadMode::Coarse)
}

fn cached(folder: &Path) -> LoadOptions {
    let mut options = LoadOptions::default();
    options.packed_cache = Some(PackedCache::new(folder).at_least(0));
    options
}

/// A model in a folder of its own, and a folder for the cache.
fn model() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let source = test_support::testdata("bitnet/llama_256/packed");
    convert(&source, &path, Target::I2S, &ConvertOptions::default(), &mut |_| {}).unwrap();
    let folder = dir.path().join("cache");
    (dir, path, folder)
}

fn is_ready(loaded: &LoadedModel, options: &EngineOptions) -> bool {
    Packer::new(&loaded.weights, options).unwrap().is_ready(&loaded.weights)
}

fn logits(loaded: &LoadedModel, options: &EngineOptions) -> Vec<u32> {
    let engine = Engine::new(&loaded.weights, options).unwrap();
    let mut sequence = Sequence::new(&engine, KvType::F32, None);
    sequence.feed_each(&[1, 5, 9, 2]).unwrap().iter().map(|v| v.to_bits()).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Loads through the cache; whether nothing was left to pack before and after it was asked to keep the weights.
fn through(path: &Path, options: &LoadOptions, engine: &EngineOptions) -> (LoadedModel, [bool; 2]) {
    let mut loaded = load(path, options).unwrap();
    let before = is_ready(&loaded, engine);
    loaded.prepare_for(engine);
    let after = is_ready(&loaded, engine);
    (loaded, [before, after])
}

#[test]
fn the_second_load_packs_nothing_and_gives_the_same() {
    let (_dir, path, folder) = model();
    let plain = load(&path, &LoadOptions::default()).unwrap();
    let expected = logits(&plain, &engine());
    let (first, ready) = through(&path, &cached(&folder), &engine());
    assert_eq!(ready, [false, true]);
    assert_eq!(logits(&first, &engine()), expected);
    assert_eq!(names(&folder).len(), 1);
    let (second, ready) = through(&path, &cached(&folder), &engine());
    assert_eq!(ready, [true, true]);
    assert_eq!(logits(&second, &engine()), expected);
    for loaded in [&first, &second] {
        assert_eq!(loaded.weights.config, plain.weights.config);
        assert_eq!((&loaded.notes, &loaded.info.ternary_format), (&plain.notes, &plain.info.ternary_format));
    }
    // Without the cache nothing is taken from it, and a small model is not worth a file.
    assert!(!is_ready(&load(&path, &LoadOptions::default()).unwrap(), &engine()));
    let mut options = LoadOptions::default();
    options.packed_cache = Some(PackedCache::new(folder.join("other")));
    assert_eq!(through(&path, &options, &engine()).1, [false, false]);
    assert!(!folder.join("other").exists());
    let files = PackedCache::new(&folder).files();
    let name = path.canonicalize().unwrap();
    assert_eq!(files.first().and_then(|f| f.source()).as_deref(), name.to_str());
}

#[test]
fn notes_and_formats_of_the_source_stay() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["onebit_tiny/master", "merged_tiny/packed", "sharded_tiny/packed"] {
        let path = test_support::testdata("bitnet").join(name);
        let plain = load(&path, &LoadOptions::default()).unwrap();
        for expected in [[false, true], [true, true]] {
            let (loaded, ready) = through(&path, &cached(dir.path()), &engine());
            assert_eq!(ready, expected, "{name}");
            assert_eq!(
                (&loaded.notes, &loaded.info.ternary_format),
                (&plain.notes, &plain.info.ternary_format),
                "{name}"
            );
            assert_eq!(logits(&loaded, &engine()), logits(&plain, &engine()), "{name}");
        }
    }
    assert_eq!(names(dir.path()).len(), 3);
}

/// A model in parts is one model, whichever of them is named; another part makes it another.
#[test]
fn models_in_parts_have_a_place() {
    let dir = tempfile::tempdir().unwrap();
    let (parts, folder) = (dir.path().join("parts"), dir.path().join("cache"));
    std::fs::create_dir(&parts).unwrap();
    let files = Edit::stories().write_split(&parts, "m", &[20, 40]);
    let plain = logits(&load(&files[0], &LoadOptions::default()).unwrap(), &engine());
    for (path, expected) in [(&files[0], [false, true]), (&files[2], [true, true]), (&parts, [true, true])] {
        let (loaded, ready) = through(path, &cached(&folder), &engine());
        assert_eq!((ready, logits(&loaded, &engine())), (expected, plain.clone()), "{}", path.display());
    }
    assert_eq!(names(&folder).len(), 1);
    let source = PackedCache::new(&folder).files().first().and_then(|f| f.source());
    assert_eq!(source.as_deref(), files[0].canonicalize().unwrap().to_str());
    let copy = parts.join("copy");
    std::fs::copy(&files[1], &copy).unwrap();
    std::fs::rename(&copy, &files[1]).unwrap();
    assert_eq!(through(&files[0], &cached(&folder), &engine()).1, [false, true]);
}

#[test]
fn another_kernel_and_another_file_have_files_of_their_own() {
    let (dir, path, folder) = model();
    let other = engine().kernel(ternary_kernels::by_name("base3_scalar").unwrap());
    for (options, expected) in
        [(engine(), [false, true]), (other.clone(), [false, true]), (engine(), [false, true]), (engine(), [true, true])]
    {
        assert_eq!(through(&path, &cached(&folder), &options).1, expected);
    }
    assert_eq!(names(&folder).len(), 2);
    // Look-up kernels have no layout for files.
    let lookup = engine().kernel(ternary_kernels::by_name("tl2_scalar").unwrap());
    assert_eq!(through(&path, &cached(&folder), &lookup).1, [false, false]);
    assert_eq!(names(&folder).len(), 2);
    // The same bytes at another place, and other bytes at the same.
    let copy = dir.path().join("copy.gguf");
    std::fs::copy(&path, &copy).unwrap();
    assert_eq!(through(&copy, &cached(&folder), &engine()).1, [false, true]);
    std::fs::remove_file(&path).unwrap();
    std::fs::copy(&copy, &path).unwrap();
    assert_eq!(through(&path, &cached(&folder), &engine()).1, [false, true]);
    let mut layout = cached(&folder);
    layout.qk_layout = Some(loader::QkLayout::Half);
    assert_eq!(through(&path, &layout, &engine()).1, [false, true]);
}

#[test]
fn what_cannot_be_used_or_written_is_passed_over() {
    let (dir, path, folder) = model();
    let expected = logits(&load(&path, &LoadOptions::default()).unwrap(), &engine());
    through(&path, &cached(&folder), &engine());
    let [name] = names(&folder).try_into().unwrap();
    let file = folder.join(name);
    let good = std::fs::read(&file).unwrap();
    for bytes in [Vec::new(), b"GGUF".to_vec(), good[..good.len() / 2].to_vec(), vec![7; 100]] {
        // Programs replace files this way: weights in use may still be copied from the old one.
        let other = dir.path().join("other");
        std::fs::write(&other, &bytes).unwrap();
        std::fs::rename(&other, &file).unwrap();
        let (loaded, ready) = through(&path, &cached(&folder), &engine());
        assert_eq!(ready, [false, true], "{} bytes", bytes.len());
        assert_eq!(logits(&loaded, &engine()), expected);
        assert!(std::fs::read(&file).unwrap() == good);
    }
    // A file instead of a folder.
    let blocked = dir.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let (loaded, ready) = through(&path, &cached(&blocked), &engine());
    assert_eq!((ready, logits(&loaded, &engine())), ([false, false], expected));
    // A packed file needs no cache.
    let packed = dir.path().join("packed.gguf");
    convert(&path, &packed, Target::Packed, &ConvertOptions::default(), &mut |_| {}).unwrap();
    let empty = dir.path().join("empty");
    through(&packed, &cached(&empty), &engine());
    assert!(!empty.exists());
}

#[test]
fn the_cache_is_bounded_and_drops_what_was_not_used() {
    let (dir, path, folder) = model();
    through(&path, &cached(&folder), &engine());
    let [first] = names(&folder).try_into().unwrap();
    let bytes = std::fs::metadata(folder.join(&first)).unwrap().len();
    let second = dir.path().join("second.gguf");
    std::fs::copy(&path, &second).unwrap();
    let third = dir.path().join("third.gguf");
    std::fs::copy(&path, &third).unwrap();
    let mut options = cached(&folder);
    options.packed_cache = Some(PackedCache::new(&folder).at_least(0).limit(5 * bytes / 2));
    let pause = || std::thread::sleep(std::time::Duration::from_millis(20));
    pause();
    through(&second, &options, &engine());
    pause();
    // The first is used again, so the second goes.
    assert_eq!(through(&path, &options, &engine()).1, [true, true]);
    pause();
    through(&third, &options, &engine());
    assert_eq!(names(&folder).len(), 2);
    assert!(folder.join(&first).exists());
    assert_eq!(through(&second, &options, &engine()).1, [false, true]);
    options.packed_cache = Some(PackedCache::new(&folder).at_least(0).limit(bytes / 2));
    assert_eq!(through(&path, &options, &engine()).1[1], folder.join(&first).exists());
}

#[test]
fn several_may_write_at_one_time() {
    let (_dir, path, folder) = model();
    let expected = logits(&load(&path, &LoadOptions::default()).unwrap(), &engine());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (loaded, ready) = through(&path, &cached(&folder), &engine());
                assert!(ready[1]);
                assert_eq!(logits(&loaded, &engine()), expected);
            });
        }
    });
    assert_eq!(names(&folder).len(), 1, "nothing but the file remains");
}

/// Names hold a hash of the source, which another source may share; the contents of the file decide.
#[test]
fn weights_of_another_source_are_not_taken_for_their_name() {
    let (dir, path, folder) = model();
    let other = dir.path().join("other.gguf");
    std::fs::copy(&path, &other).unwrap();
    through(&path, &cached(&folder), &engine());
    let [first] = names(&folder).try_into().unwrap();
    through(&other, &cached(&folder), &engine());
    let second = names(&folder).into_iter().find(|name| *name != first).unwrap();
    let good = std::fs::read(folder.join(&second)).unwrap();
    std::fs::rename(folder.join(&first), folder.join(&second)).unwrap();
    let (_, ready) = through(&other, &cached(&folder), &engine());
    assert_eq!(ready, [false, true]);
    assert!(std::fs::read(folder.join(&second)).unwrap() == good);
}
