//! States of layers of the gated delta rule after some tokens, in the order of heads that checkpoints have.

use bitnet_model::{Engine, KvType, Mixer, Sequence};

use crate::ParityError;
use crate::compare::relative_l2;
use crate::files::Tensors;
use crate::report::Measured;

/// Largest relative L2 error: that of logits with activations of 16 bits. The makers' own states in f32 are off by 2.3e-6.
const L2: f64 = 1e-3;

/// Every `state.layerL.S.after_N` and `state.layerL.conv.after_N`.
pub(super) fn compare(engine: &Engine, expected: &Tensors) -> Result<Measured, ParityError> {
    let ids = expected.ids("input_ids")?;
    let (mut count, mut worst) = (0, 0f64);
    for name in expected.names().filter(|n| n.starts_with("state.layer")) {
        let missing = || ParityError::Missing { what: format!("layer or position in the name {name}") };
        let rest = name.strip_prefix("state.layer").ok_or_else(missing)?;
        let (layer, rest) = rest.split_once('.').ok_or_else(missing)?;
        let (what, tokens) = rest.split_once(".after_").ok_or_else(missing)?;
        let (layer, tokens): (usize, usize) =
            (layer.parse().map_err(|_| missing())?, tokens.parse().map_err(|_| missing())?);
        let before = (0..layer).filter(|l| engine.config().mixer(*l) == Mixer::GatedDelta).count();
        let mut sequence = Sequence::new(engine, KvType::F32, None);
        sequence.feed(ids.get(..tokens).ok_or_else(missing)?)?;
        let state = sequence.state().delta_states().get(before).ok_or_else(missing)?;
        let c = state.config();
        let got: Vec<f32> = if what == "S" {
            let all = 0..c.value_heads;
            // A file may hold the first and the last head only.
            let heads: Vec<usize> = match expected.dims(name)?.first() {
                Some(2) if c.value_heads != 2 => vec![0, c.value_heads - 1],
                _ => all.collect(),
            };
            heads.into_iter().flat_map(|j| state.matrix(j)).copied().collect()
        } else {
            let (window, channels) = (state.window(), c.channels());
            let of = |ch: usize| window.iter().skip(ch).step_by(channels).copied();
            (0..channels).flat_map(of).collect()
        };
        let want = expected.f32(name)?;
        if got.len() != want.len() {
            return Err(missing());
        }
        worst = worst.max(relative_l2(&got, &want));
        count += 1;
    }
    let detail = format!("{count} states and windows, worst relative L2 {worst:.1e}");
    Ok(Measured { pass: count > 0 && worst <= L2, detail })
}
