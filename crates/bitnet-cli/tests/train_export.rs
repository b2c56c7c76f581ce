//! Master weights that a run leaves are, to the bit, the ternary model that it computed with.
#![cfg(feature = "train")]

use bitnet::bitnet_model::{ModelConfig, ModelWeights, Projection};
use bitnet::loader::{Checkpoint, LoadOptions};
use bitnet::train::{MasterWeights, Params, write_master};

#[test]
fn what_training_computes_with_is_what_loading_gives() {
    let mut model = ModelConfig::new(64, 128, 256, 3, 2, 1);
    model.max_position_embeddings = 64;
    let mut params = Params::init(&model, 7, 0.02).unwrap();
    let tied = format!("{}.weight", model.projection_name(0, Projection::Q));
    // Magnitudes of one tensor with a mean of 3, half of them ties: trits depend on how the scale divides.
    for (i, v) in params.get_mut(&tied).unwrap().iter_mut().enumerate() {
        *v = [1.5, -1.5, 4.5, -4.5][i % 4];
    }
    let dir = tempfile::tempdir().unwrap();
    write_master(dir.path(), &model, &params).unwrap();
    let loaded = Checkpoint::open(dir.path(), &LoadOptions::default()).unwrap().weights().unwrap();
    let trained = ModelWeights::from_source(&MasterWeights { model: &model, params: &params }).unwrap();
    for (l, (a, b)) in trained.layers.iter().zip(&loaded.layers).enumerate() {
        for ((p, a), (_, b)) in a.projections().zip(b.projections()) {
            assert_eq!(a.to_trits(), b.to_trits(), "layer {l} {}", p.name());
            // Bits of the scales, which differ from matrix to matrix.
            assert_eq!(a.scales(), b.scales(), "layer {l} {}", p.name());
        }
    }
}
