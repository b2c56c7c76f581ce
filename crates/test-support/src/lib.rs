//! Helpers that the tests of several crates share.

pub mod http;
mod random;
mod tensors;

use std::path::PathBuf;

pub use random::Random;
pub use tensors::Tensors;

/// The folder of the workspace.
pub fn workspace_dir() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("crates/test-support lies two folders below the workspace").to_path_buf()
}

/// Reference vectors that are kept in the repository.
pub fn testdata(relative: &str) -> PathBuf {
    workspace_dir().join("testdata").join(relative)
}

/// The folder `shared` next to the workspace, which holds the large reference vectors and is not part of the
/// repository. `None`, with a message, if it is missing.
///
/// # Panics
/// If `CI=true` and the folder is missing: there a skipped comparison is a failure.
pub fn shared_dir() -> Option<PathBuf> {
    let dir = workspace_dir().parent()?.join("shared");
    if dir.is_dir() {
        return Some(dir);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is absent, and CI needs it", dir.display());
    eprintln!("skipped: {} is absent (reference vectors that are not part of the repository)", dir.display());
    None
}

/// That each file of `folder`, the tests of a crate, is a part of the program `it` or a program named in `manifest`
/// (the texts of `it.rs` and `Cargo.toml`): a file that is named in neither would never run.
///
/// # Panics
/// If one is named in neither.
pub fn every_test_is_named(folder: &str, it: &str, manifest: &str) {
    for entry in std::fs::read_dir(folder).expect("the folder of the tests") {
        let file = entry.expect("an entry of the folder").file_name().into_string().expect("a name in UTF-8");
        let Some(name) = file.strip_suffix(".rs") else { continue };
        let here = it.contains(&format!("#[path = \"{file}\"]"));
        assert!(here || manifest.contains(&format!("name = \"{name}\"")), "{folder}/{file} is named nowhere");
    }
}
