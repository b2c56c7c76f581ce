//! States: their size, saving, restoring, forking, and invalid ones.

mod common;

use candle_core::DType;
use common::{Case, Text, config};
use ternary_kernels::Ops;
use ttt_layer::{RowWise, StateDamage, TttConfig, TttError, TttState};

fn text(config: &TttConfig, tokens: usize) -> Text {
    let mut case = Case::new(config, DType::F32, 11);
    let x = case.input(1, tokens);
    Text::new(&case.layer, &x, Ops::selected().unwrap())
}

#[test]
fn the_size_is_known_before_and_never_changes() {
    for variant in 0..32 {
        let mut config = config(variant, 3, 8, 5);
        config.pre_conv = variant & 4 != 0;
        let text = text(&config, 23);
        let mut state = TttState::new(&text.rows);
        let (before, saved) = (config.state_bytes().unwrap(), config.saved_state_bytes().unwrap());
        for t in 0..23 {
            text.read(&mut state, t, t + 1, None);
            assert_eq!((state.bytes(), state.save(1).len()), (before, saved));
        }
    }
    // The 125m model of the paper: 12 heads of 64, mini-batches of 16, one layer.
    let linear = TttConfig::new(ttt_layer::Kind::Linear, 12, 64);
    assert_eq!(linear.state_bytes().unwrap(), 12 * (64 * 64 + 64 + 2 * 16 * 64) * 4);
}

#[test]
fn a_restored_or_forked_state_goes_on_as_if_nothing_happened() {
    for variant in 0..32 {
        let mut config = config(variant, 2, 6, 4);
        config.pre_conv = variant & 4 != 0;
        let text = text(&config, 21);
        let mut state = TttState::new(&text.rows);
        for cut in 0..=20 {
            let mut restored = TttState::restore(&text.rows, 77, &state.save(77)).unwrap();
            let mut fork = state.clone();
            assert_eq!(restored, state);
            let (a, b) = (text.read(&mut restored, cut, 21, None), text.read(&mut fork, cut, 21, None));
            assert_eq!(a, b, "variant {variant}, cut at {cut}");
            assert_eq!(restored.save(77), fork.save(77));
            // The forks did not touch the state.
            text.read(&mut state, cut, cut + 1, None);
        }
        state.reset(&text.rows);
        assert_eq!(state, TttState::new(&text.rows));
    }
}

#[test]
fn tokens_that_are_taken_back_leave_nothing_behind() {
    for variant in 0..32 {
        let mut config = config(variant, 2, 6, 4);
        config.pre_conv = variant & 4 != 0;
        let text = text(&config, 21);
        let mut state = TttState::new(&text.rows);
        for cut in 0..=15 {
            // Also such that no mini-batch ends, and such that several do.
            for more in 1..=6 {
                let (before, mut undo) = (state.clone(), vec![7.0]);
                state.remember(more, &mut undo);
                undo.push(8.0);
                text.read_open(&mut state, cut, cut + more);
                assert_eq!(state.is_due(), (cut + more) % 4 == 0);
                // Everything is copied only if weights have changed.
                let whole = undo.len() >= 2 + before.bytes() / 4;
                assert_eq!(whole, cut % 4 + more > 4, "variant {variant}, {more} tokens at {cut}");
                assert_eq!(state.rewind(cut as u64, more, &undo[1..]), [8.0]);
                assert_eq!(state.position(), before.position());
                let (mut a, mut b) = (state.clone(), before);
                let (a, b) = (text.read(&mut a, cut, 21, None), text.read(&mut b, cut, 21, None));
                assert_eq!(a, b, "variant {variant}, {more} tokens at {cut}");
            }
            // Token by token with a separate end of the mini-batch, as in engines.
            text.read_open(&mut state, cut, cut + 1);
            text.rows.complete(&mut state, &mut ttt_layer::Scratch::new(&config));
            assert!(!state.is_due());
        }
    }
}

fn damage(layer: &RowWise, model: u64, bytes: &[u8]) -> StateDamage {
    match TttState::restore(layer, model, bytes) {
        Err(TttError::SavedState { what }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn damaged_states_are_refused() {
    let config = config(2, 2, 6, 4);
    let text = text(&config, 9);
    let mut state = TttState::new(&text.rows);
    text.read(&mut state, 0, 9, None);
    let good = state.save(5);
    assert!(TttState::restore(&text.rows, 5, &good).is_ok());
    // Every byte matters, except the four that are reserved, which the checksum watches as well.
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        let want = match at {
            0..8 => StateDamage::Mark,
            8..12 => StateDamage::Version { got: u32::from_le_bytes(bytes[8..12].try_into().unwrap()), reads: 1 },
            16..24 => StateDamage::OtherConfig,
            24..32 => StateDamage::OtherModel,
            _ => StateDamage::Checksum,
        };
        assert_eq!(damage(&text.rows, 5, &bytes), want, "byte {at}");
    }
    for len in 0..good.len() {
        damage(&text.rows, 5, &good[..len]);
    }
    let mut long = good.clone();
    long.push(0);
    assert_eq!(damage(&text.rows, 5, &long), StateDamage::Size { expected: good.len(), got: good.len() + 1 });
    assert_eq!(damage(&text.rows, 6, &good), StateDamage::OtherModel);
    let other = Case::new(&common::config(6, 2, 6, 4), DType::F32, 11);
    let other = RowWise::new(other.layer.config(), &other.layer.parameters().unwrap()).unwrap();
    assert_eq!(damage(&other, 5, &good), StateDamage::OtherConfig);
}

#[test]
fn configurations_and_parameters_that_do_not_fit_are_refused() {
    let good = config(2, 2, 6, 4);
    let refused = |change: &dyn Fn(&mut TttConfig), want: &str| {
        let mut config = good.clone();
        change(&mut config);
        match config.validate() {
            Err(TttError::Config { field, .. }) => assert_eq!(field, want),
            other => panic!("{want}: {other:?}"),
        }
        assert!(config.state_bytes().is_err());
    };
    refused(&|c| c.num_heads = 0, "num_heads");
    refused(&|c| c.hidden_size = 0, "hidden_size");
    refused(&|c| c.head_dim = 7, "head_dim");
    refused(&|c| c.mini_batch_size = 0, "mini_batch_size");
    refused(&|c| c.conv_kernel = 0, "conv_kernel");
    refused(&|c| c.base_lr = f32::NAN, "base_lr");
    refused(&|c| c.norm_eps = 0.0, "norm_eps");
    refused(&|c| c.rope_theta = f32::INFINITY, "rope_theta");
    refused(&|c| (c.num_heads, c.head_dim) = (1 << 20, 1 << 20), "num_heads");
    refused(&|c| c.head_dim = 1 << 60, "head_dim");

    let case = Case::new(&good, DType::F32, 2);
    let parameters = case.layer.parameters().unwrap();
    assert!(RowWise::new(&good, &parameters).is_ok());
    let refused = |change: &dyn Fn(&mut ttt_layer::TttParameters), want: &str| {
        let mut p = parameters.clone();
        change(&mut p);
        match RowWise::new(&good, &p) {
            Err(TttError::Length { tensor, .. }) => assert_eq!(tensor, want),
            other => panic!("{want}: {other:?}"),
        }
    };
    refused(&|p| p.inner[0].truncate(3), "W1");
    refused(&|p| p.inner.truncate(1), "inner weights");
    refused(&|p| p.lr_weight.clear(), "learnable_ttt_lr_weight");
    refused(&|p| p.lr_bias.push(0.0), "learnable_ttt_lr_bias");
    refused(&|p| p.token_idx.push(0.0), "learnable_token_idx");
    refused(&|p| p.norm_weight.push(0.0), "ttt_norm_weight");
    refused(&|p| p.norm_bias.push(0.0), "ttt_norm_bias");
    refused(&|p| p.post_norm_weight.push(0.0), "post_norm.weight");
    refused(&|p| p.post_norm_bias.push(0.0), "post_norm.bias");
    refused(&|p| p.convs = None, "conv_q and conv_k");
    refused(&|p| p.convs.as_mut().unwrap()[1].bias.clear(), "conv_k.bias");
}
