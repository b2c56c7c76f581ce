//! A kernel from outside the kernels crate computes a whole model. The kernel is that of the example.

#[path = "../examples/own_kernel.rs"]
mod own_kernel;

use std::sync::Arc;

use bitnet_model::EngineOptions;
use own_kernel::{BitPlanes, logits};

#[test]
fn a_model_uses_the_kernel_it_is_given_and_gives_the_same_logits() {
    let ours = logits(&EngineOptions::default());
    for threads in [1, 3] {
        assert_eq!(logits(&EngineOptions::default().threads(threads).kernel(Arc::new(BitPlanes))), ours);
    }
}

#[test]
fn a_kernel_from_outside_passes_the_self_check() {
    assert_eq!(ternary_kernels::check::self_check(&BitPlanes).unwrap().mismatch, None);
}
