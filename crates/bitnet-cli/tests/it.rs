//! The tests of this crate, as one program: each file alone would link all that is below the crate once more.

#![allow(clippy::duplicate_mod, reason = "`common` is a part of each file, as it would be of programs of their own")]

#[path = "bitnet_v2.rs"]
mod bitnet_v2;
#[path = "contract.rs"]
mod contract;
#[path = "documents.rs"]
mod documents;
#[path = "errors.rs"]
mod errors;
#[path = "extract.rs"]
mod extract;
#[path = "files.rs"]
mod files;
#[cfg(feature = "map")]
#[path = "map.rs"]
mod map;
#[cfg(feature = "map")]
#[path = "map_hostile.rs"]
mod map_hostile;
#[path = "outputs.rs"]
mod outputs;
#[path = "serve.rs"]
mod serve;
#[path = "train.rs"]
mod train;
#[path = "train_export.rs"]
mod train_export;
#[path = "train_extract.rs"]
mod train_extract;
#[path = "train_files.rs"]
mod train_files;
#[path = "trained.rs"]
mod trained;
#[path = "ttt.rs"]
mod ttt;
#[path = "tune.rs"]
mod tune;

#[test]
fn every_file_is_named() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    test_support::every_test_is_named(folder, include_str!("it.rs"), include_str!("../Cargo.toml"));
}
