//! Language models: every file of a variant against transformers, and all files against each other.

use bitnet_model::{Engine, KvType, Sequence};

use super::{Container, bits, prepared, states, weights};
use crate::compare::{argmax, differing, max_abs, relative_l2};
use crate::files::Tensors;
use crate::report::{Measured, Report};
use crate::{Options, ParityError};

/// Largest error of a logit with activations of 16 bits per token; measured 0.008 by the makers.
const MAX_ABS: f32 = 0.05;
/// Largest mean over the positions of the relative L2 error; measured 0.0004.
const MEAN_L2: f64 = 1e-3;
/// Share of positions whose likeliest token must be equal; measured all, but for near ties.
const ARGMAX: f64 = 0.99;
/// Twice the error that the makers measured: two right runs may order logits differently whose distance is below it. In
/// `qwen35/hadamard_b128` their own run of 16 bits does so at one of 64 positions.
const NEAR_TIE: f32 = 0.016;
/// Greedy tokens count while the reference's own lead is above this.
const CLEAR_LEAD: f32 = 0.05;

pub(super) fn cases(containers: &[Container], expected: &Tensors, case: &str, options: &Options, report: &mut Report) {
    let mut first: Option<(&str, Vec<f32>)> = None;
    for container in containers {
        let name = format!("{case}/{}", container.name);
        if !options.wants(&name) {
            continue;
        }
        let (model, engine) = match prepared(container, options) {
            Ok(prepared) => prepared,
            Err(e) => {
                report.check(&format!("{name} load"), || Err(e));
                continue;
            }
        };
        let mut got = Vec::new();
        report.check(&format!("{name} logits"), || {
            let ids = expected.ids("input_ids")?;
            got = Sequence::new(&engine, KvType::F32, None).feed_each(&ids)?;
            logits(&got, &expected.f32("logits_f32")?, engine.config().vocab_size)
        });
        report.check(&format!("{name} cuts"), || cuts(&engine, &expected.ids("input_ids")?, &got));
        match &first {
            None => first = Some((&container.name, got)),
            Some((other, same)) => report.check(&format!("{name} equal"), || {
                let off = differing(&bits(&got), &bits(same));
                let detail = format!("{off} of {} logits differ from those of {other}", got.len());
                Ok(Measured { pass: off == 0 && !got.is_empty(), detail })
            }),
        }
        if expected.has("greedy_f32") {
            report.check(&format!("{name} greedy"), || greedy(&engine, expected));
        }
        if expected.has("rope.inv_freq") {
            report.check(&format!("{name} rope"), || weights::rope(&model.config, expected));
        }
        if expected.names().any(|n| n.starts_with("state.layer")) {
            report.check(&format!("{name} states"), || states::compare(&engine, expected));
        }
        if expected.has("trace.layer0.input_layernorm") {
            report.check(&format!("{name} weights"), || weights::traced(&model, expected));
        }
    }
}

fn logits(got: &[f32], want: &[f32], vocab: usize) -> Result<Measured, ParityError> {
    let error = max_abs(got, want);
    let positions = want.len() / vocab;
    let pairs = || got.chunks_exact(vocab).zip(want.chunks_exact(vocab));
    let mean = pairs().map(|(g, w)| relative_l2(g, w)).sum::<f64>() / positions as f64;
    // The likeliest token, or one that is as likely.
    let likeliest = |g: &[f32], w: &[f32]| w[argmax(w)] - w[argmax(g)] < NEAR_TIE;
    let equal = pairs().filter(|(g, w)| likeliest(g, w)).count();
    let pass = error <= MAX_ABS && mean <= MEAN_L2 && equal as f64 >= ARGMAX * positions as f64;
    let detail = format!("max abs {error:.1e}, mean relative L2 {mean:.1e}, {equal} of {positions} likeliest equal");
    Ok(Measured { pass, detail })
}

/// Token by token, and in pieces of odd lengths, the logits are the same to the bit.
fn cuts(engine: &Engine, ids: &[u32], all: &[f32]) -> Result<Measured, ParityError> {
    let mut off = 0;
    for pieces in [&[1usize][..], &[1, 7, 3, 30]] {
        let mut sequence = Sequence::new(engine, KvType::F32, None);
        let (mut got, mut at) = (Vec::new(), 0);
        for piece in pieces.iter().cycle() {
            let end = (at + piece).min(ids.len());
            got.extend(sequence.feed_each(&ids[at..end])?);
            at = end;
            if at == ids.len() {
                break;
            }
        }
        off += differing(&bits(&got), &bits(all));
    }
    Ok(Measured { pass: off == 0, detail: format!("{off} logits differ token by token and in pieces") })
}

fn greedy(engine: &Engine, expected: &Tensors) -> Result<Measured, ParityError> {
    let (ids, margins) = (expected.ids("greedy_f32")?, expected.f32("greedy_margin")?);
    let mut sequence = Sequence::new(engine, KvType::F32, None);
    let mut logits = sequence.feed(&expected.ids("prompt_ids")?)?.to_vec();
    let clear = margins.iter().position(|m| *m <= CLEAR_LEAD).unwrap_or(ids.len());
    for (step, (id, margin)) in ids.iter().zip(&margins).take(clear).enumerate() {
        let got = argmax(&logits) as u32;
        if got != *id {
            let detail = format!("step {step}: token {got}, expected {id} with a lead of {margin:.3}");
            return Ok(Measured { pass: false, detail });
        }
        logits = sequence.feed(&[got])?.to_vec();
    }
    Ok(Measured {
        pass: clear > 0,
        detail: format!("the first {clear} of {}, whose lead is clear, are equal", ids.len()),
    })
}
