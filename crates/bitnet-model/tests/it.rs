//! The tests of this crate, as one program: each file alone would link all that is below the crate once more.
//!
//! Those that count the allocations of their process are programs of their own.

#![allow(clippy::duplicate_mod, reason = "`common` is a part of each file, as it would be of programs of their own")]

#[path = "best_head.rs"]
mod best_head;
#[path = "bits.rs"]
mod bits;
#[path = "canonical.rs"]
mod canonical;
#[path = "delta_model.rs"]
mod delta_model;
#[path = "encoder.rs"]
mod encoder;
#[path = "engine_model.rs"]
mod engine_model;
#[path = "external_kernel.rs"]
mod external_kernel;
#[path = "families.rs"]
mod families;
#[path = "files.rs"]
mod files;
#[path = "forks.rs"]
mod forks;
#[path = "kv_types.rs"]
mod kv_types;
#[path = "mixed_kernels.rs"]
mod mixed_kernels;
#[path = "nn_hadamard.rs"]
mod nn_hadamard;
#[path = "nn_model.rs"]
mod nn_model;
#[path = "nn_units.rs"]
mod nn_units;
#[path = "rope.rs"]
mod rope;
#[path = "saved.rs"]
mod saved;
#[cfg(feature = "train")]
#[path = "train_documents.rs"]
mod train_documents;
#[cfg(feature = "train")]
#[path = "train_examples.rs"]
mod train_examples;
#[cfg(feature = "train")]
#[path = "train_files.rs"]
mod train_files;
#[cfg(feature = "train")]
#[path = "train_gradients.rs"]
mod train_gradients;
#[cfg(feature = "train")]
#[path = "train_run.rs"]
mod train_run;
#[path = "ttt_model.rs"]
mod ttt_model;

#[test]
fn every_file_is_named() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    test_support::every_test_is_named(folder, include_str!("it.rs"), include_str!("../Cargo.toml"));
}
