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
