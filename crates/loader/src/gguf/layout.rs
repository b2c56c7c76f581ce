//! The layout of a tensor whose type id stands for several: decided by its size, and if sizes agree by its scales.
//!
//! GGUF has no registry of type ids, and forks gave the same one to different types. What they cannot share is the
//! distance to the next tensor: it is the size of the layout and less than one alignment of padding.

use super::tensor_info::TensorInfo;
use super::types::{self, Collision, GgmlType};
use ternary_kernels::ScalePlace;

/// Blocks that are looked at, in runs of neighbours spread over the tensor: of a mapped file, few pages.
const RUNS: usize = 4;
const RUN: usize = 32;
/// Scales of one tensor are within this factor of their median. Trained ones are within about ten.
const SPREAD: f32 = 64.0;

/// The one type, among those that id `collision` stands for, that the tensor can have. `bytes` are those from its
/// beginning to the next tensor or the end of the file.
pub(super) fn settle(
    info: &TensorInfo,
    collision: &Collision,
    architecture: &str,
    alignment: u64,
    bytes: &[u8],
) -> Option<GgmlType> {
    let in_bitnet = collision.in_bitnet.filter(|_| types::is_bitnet_architecture(architecture));
    let all = collision.by_size.iter().copied().chain(in_bitnet);
    let fitting: Vec<(GgmlType, u64)> = all
        .filter_map(|ty| Some((ty, ty.nbytes(info.rows(), info.cols()).ok()?)))
        .filter(|(_, need)| info.room.checked_sub(*need).is_some_and(|rest| rest < alignment))
        .collect();
    if let [(one, _)] = fitting.as_slice() {
        return Some(*one);
    }
    // With equal size, for example with a scale at either end of a block: the right end holds scales, the other noise.
    let mut likely = Vec::new();
    for &(ty, need) in &fitting {
        let bytes = bytes.get(..usize::try_from(need).ok()?)?;
        match judge(ty, bytes)? {
            Verdict::Scales => likely.push(ty),
            Verdict::Noise => {}
            Verdict::Unclear => return None,
        }
    }
    match likely.as_slice() {
        [one] => Some(*one),
        _ => None,
    }
}

/// The sizes that the tensor would have, for a message.
pub(super) fn sizes(info: &TensorInfo, collision: &Collision) -> String {
    let size = |ty: &GgmlType| match ty.nbytes(info.rows(), info.cols()) {
        Ok(n) => format!("{ty} would take {n}"),
        Err(_) => format!("{ty} cannot hold rows of {}", info.cols()),
    };
    collision.by_size.iter().map(size).collect::<Vec<_>>().join(", ")
}

enum Verdict {
    Scales,
    Noise,
    Unclear,
}

/// Whether the values at the place of the scales look like scales; `None` for types without a scale in each block.
fn judge(ty: GgmlType, bytes: &[u8]) -> Option<Verdict> {
    let info = ty.file_format()?.info();
    let (ScalePlace::Block(at), Some(size)) = (info.scale, info.bytes) else { return None };
    let blocks = bytes.len().checked_div(size)?;
    let mut scales = Vec::with_capacity(RUNS * RUN);
    for run in 0..RUNS {
        // Runs of a small tensor overlap, which does no harm.
        let first = blocks.saturating_sub(RUN).saturating_mul(run).checked_div(RUNS.saturating_sub(1))?;
        let run = bytes.get(first.checked_mul(size)?..)?.chunks_exact(size).take(RUN);
        scales.extend(run.filter_map(|block| {
            let [low, high] = *block.get(at..)?.first_chunk()?;
            Some(half::f16::from_le_bytes([low, high]).to_f32())
        }));
    }
    // A block of zeros has scale 0, which proves nothing.
    scales.retain(|d| *d != 0.0);
    let mut positive: Vec<f32> = scales.iter().copied().filter(|d| d.is_finite() && *d > 0.0).collect();
    positive.sort_by(f32::total_cmp);
    let Some(&median) = positive.get(positive.len() / 2) else { return Some(Verdict::Noise) };
    let good = positive.iter().filter(|d| (median / SPREAD..=median * SPREAD).contains(*d)).count();
    let bad = scales.len().saturating_sub(good);
    // A damaged scale or two are found later, with their place. Of noise a third has the sign of a code of +1.
    Some(if bad.saturating_mul(16) <= scales.len() {
        Verdict::Scales
    } else if bad.saturating_mul(6) >= scales.len() {
        Verdict::Noise
    } else {
        Verdict::Unclear
    })
}
