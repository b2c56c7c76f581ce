//! The checks, each with the reason for its limit.

use bitnet_model::{Engine, EngineOptions, KvType, Sequence};
use ternary_kernels::{
    GroupKernel, Int8Batch, Int16Batch, Isa, Packed, Scales, TernaryMatrix, best, for_format, for_isa,
};

use super::{Subject, Verdict, least_of};
use crate::error::BenchError;

/// Rounds of each pair of times.
const ROUNDS: usize = 40;

/// A text of `n` tokens.
fn tokens(n: u32) -> Vec<u32> {
    (0..n).map(|i| i.wrapping_mul(0x9E37_79B1) >> 24).collect()
}

/// Bits of the logits after `text`, read in pieces of `piece` tokens.
fn logits(engine: &Engine, text: &[u32], piece: usize) -> Result<Vec<u32>, BenchError> {
    let mut sequence = Sequence::new(engine, KvType::F16, Some(text.len()));
    for part in text.chunks(piece) {
        sequence.feed(part)?;
    }
    Ok(sequence.logits().iter().map(|l| l.to_bits()).collect())
}

/// Threads, batches and instruction sets must not change a bit.
pub(super) fn bits(subject: &Subject, verdict: &mut Verdict) -> Result<(), BenchError> {
    let text = tokens(19);
    let one = subject.engine(1)?;
    let expected = logits(&one, &text, text.len())?;
    for threads in [2, 3] {
        let same = logits(&subject.engine(threads)?, &text, text.len())? == expected;
        verdict.note(same, &format!("{threads} threads compute what 1 computes"), "bit for bit");
    }
    let same = logits(&one, &text, 1)? == expected;
    verdict.note(same, "token by token as all at once", "bit for bit");
    for isa in Isa::available() {
        let engine = Engine::new(&subject.weights, &EngineOptions::default().threads(1).isa(isa))?;
        let same = logits(&engine, &text, 7)? == expected;
        verdict.note(same, &format!("{isa} computes what the best set computes"), "bit for bit");
    }
    Ok(())
}

/// Bytes that a decode step may read: two bits for each weight, and a tenth for padding.
pub(super) fn bytes(subject: &Subject, verdict: &mut Verdict) {
    for isa in Isa::available() {
        let Ok(engine) = Engine::new(&subject.weights, &EngineOptions::default().threads(1).isa(isa)) else { continue };
        let ratio = engine.packed_bytes() as f64 / (engine.config().ternary_weights() as f64 / 4.0);
        verdict.at_most(&format!("{isa}: packed bytes to 2 bits a weight"), ratio, 1.1);
    }
}

/// Kernels against each other.
pub(super) fn kernels(subject: &Subject, verdict: &mut Verdict) -> Result<(), BenchError> {
    // 640 kB of packed weights: in the second-level cache of most CPUs.
    let (m, k, n) = (1024, 2560, 20);
    let trits: Vec<i8> =
        (0..m * k).map(|i: usize| (i.wrapping_mul(0x9E37_79B9) >> 7) as u8 % 3).map(|t| t as i8 - 1).collect();
    let w = TernaryMatrix::from_trits(m, k, &trits, Scales::Tensor(0.02))?;
    let codes: Vec<i8> = (0..n * k).map(|i| (i * 31 % 255) as u8 as i8).map(|c| c.max(-127)).collect();
    let x = Int8Batch::from_codes(n, k, &codes)?;
    let portable = for_isa(Isa::Scalar)?;
    let portable_w = portable.prepack(&w)?;
    let mut slower: Option<(Isa, [f64; 2])> = None;
    for isa in Isa::available().filter(|i| *i != Isa::Scalar) {
        let kernel = subject.kernel(for_isa(isa)?);
        let packed = kernel.prepack(&w)?;
        let (mut a, mut b, mut c) = (vec![0; m], vec![0; m], vec![0; m * n]);
        let [slow, one, many] = least_of(
            ROUNDS,
            [
                &mut || portable.gemv(&portable_w.all(), &x.view().row(0), &mut a),
                &mut || kernel.gemv(&packed.all(), &x.view().row(0), &mut b),
                &mut || kernel.gemm(&packed.all(), &x.view(), &mut c),
            ],
        );
        let per_token = many / n as f64;
        // A register of at least 32 codes, while portable code is compiled to registers of 16 bytes at most and widens
        // each of them to 32 bits before it multiplies: several times as many instructions.
        verdict.at_least(&format!("{isa}: one token, against portable code"), slow / one, 3.0);
        verdict.at_least(&format!("{isa}: many tokens, against portable code"), slow / per_token, 3.0);
        // Codes are extracted once for several tokens, which helps if extraction is slow and never hurts.
        verdict.at_least(&format!("{isa}: a token of many, against one"), one / per_token, 0.8);
        if let Some((narrow, [narrow_one, narrow_many])) = slower {
            // A set that is chosen before another has to be worth it; a quarter is for CPUs that halve its registers.
            verdict.at_most(&format!("{isa}: one token, against {narrow}"), one / narrow_one, 1.25);
            verdict.at_most(&format!("{isa}: many tokens, against {narrow}"), per_token / narrow_many, 1.25);
        }
        slower = Some((isa, [one, per_token]));
    }
    Ok(())
}

/// Products of two tiles of shared tables, or of as many tokens where they are multiplied, of weights in base 3 and of
/// weights with group scales, against `i2s`.
pub(super) fn many_tokens(subject: &Subject, verdict: &mut Verdict) -> Result<(), BenchError> {
    let (m, k, n) = (512, 1280, 64);
    let trits: Vec<i8> =
        (0..m * k).map(|i: usize| (i.wrapping_mul(0x9E37_79B9) >> 7) as u8 % 3).map(|t| t as i8 - 1).collect();
    let w = TernaryMatrix::from_trits(m, k, &trits, Scales::Tensor(0.02))?;
    let codes: Vec<i8> = (0..n * k).map(|i| (i * 31 % 255) as u8 as i8).map(|c| c.max(-127)).collect();
    let x = Int8Batch::from_codes(n, k, &codes)?;
    let wide: Vec<i16> = codes.iter().map(|&c| 255 * i16::from(c)).collect();
    let wide = Int16Batch::from_codes(n, k, &wide)?;
    for isa in Isa::available() {
        let (i2s, base3) = (for_format("i2s", isa)?, subject.kernel(for_format("base3", isa)?));
        let group = GroupKernel::for_isa(isa)?;
        let (i2s_w, base3_w, group_w) = (i2s.prepack(&w)?, base3.prepack(&w)?, group.prepack(&w)?);
        let (mut a, mut b, mut c) = (vec![0; m * n], vec![0; m * n], vec![0.0; m * n]);
        let [two_bits, five_trits, groups] = least_of(
            ROUNDS / 2,
            [
                &mut || i2s.gemm(&i2s_w.all(), &x.view(), &mut a),
                &mut || base3.gemm(&base3_w.all(), &x.view(), &mut b),
                &mut || group.product(&group_w, 0..m, &wide.view(), &mut c),
            ],
        );
        // Unpacking is a part of what is done for 32 tokens.
        verdict.at_most(&format!("{isa}: many tokens with base 3, against i2s"), five_trits / two_bits, 2.0);
        // Two digits of activations, and for each group of a row its scale. Without tables, portable code takes eight
        // times as long.
        verdict.at_most(&format!("{isa}: many tokens of group scales, against i2s"), groups / two_bits, 5.0);
    }
    Ok(())
}

/// The engine against the products that it consists of.
pub(super) fn engine(subject: &Subject, verdict: &mut Verdict) -> Result<(), BenchError> {
    let engine = subject.engine(1)?;
    let kernel = best()?;
    let mut parts: Vec<(Packed, Int8Batch, Vec<i32>)> = Vec::new();
    for layer in &subject.weights.layers {
        for (_, w) in layer.projections() {
            let packed = kernel.prepack(w)?;
            let k = packed.cols();
            let x = Int8Batch::from_codes(1, k, &vec![3; k])?;
            let acc = vec![0; packed.rows()];
            parts.push((packed, x, acc));
        }
    }
    let (context, many) = (8, 32);
    let mut sequence = Sequence::new(&engine, KvType::F16, Some(64));
    sequence.feed(&tokens(context))?;
    let mut other = Sequence::new(&engine, KvType::F16, Some(64));
    let text = tokens(many);
    let mut failure = None;
    let [products, step, prompt] = least_of(
        ROUNDS,
        [
            &mut || {
                for (w, x, acc) in &mut parts {
                    kernel.gemv(&w.all(), &x.view().row(0), acc);
                }
            },
            &mut || {
                let step = sequence.rewind(context as usize).and_then(|()| sequence.feed(&[7]).map(drop));
                failure = step.err().or(failure.take());
            },
            &mut || {
                // An error here would also have occurred above.
                let _ = other.rewind(0).and_then(|()| other.feed(&text).map(drop));
            },
        ],
    );
    if let Some(error) = failure {
        return Err(error.into());
    }
    // Everything but products (norms, quantisation, eight positions of attention, 256 rows of a head) is less than a
    // tenth of the operations; even computed one by one it stays below the products themselves.
    verdict.at_most("a decode step, against its products", step / products, 2.0);
    // Weights are read and unpacked once for many tokens.
    verdict.at_least("a token of a prompt, against a decode step", step / (prompt / f64::from(many)), 1.0);
    Ok(())
}
