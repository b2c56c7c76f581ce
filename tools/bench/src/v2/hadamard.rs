//! Cost of the Hadamard transforms of a layer while one token is generated.

use std::io::Write;
use std::num::NonZeroUsize;
use std::time::Duration;

use bitnet_model::{
    ActivationBits, Engine, EngineOptions, InputForms, KvType, ModelConfig, ModelWeights, Sequence, SyntheticWeights,
};
use serde::{Deserialize, Serialize};
use ternary_kernels::ops::Prepare;
use ternary_kernels::{Int4Batch, Isa, Ops};

use crate::error::BenchError;
use crate::figure::{Figure, What};
use crate::guard::least_of;
use crate::model::shape;
use crate::plan::{Effort, Task};
use crate::programs::Programs;

/// Layers of the model that is measured. Their weights may be in a cache that those of a whole model do not fit, which
/// makes a layer look faster, and the share larger, than it is.
const LAYERS: usize = 2;
/// Rounds of which the fastest counts.
const ROUNDS: usize = 60;

/// Output of the process, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// A layer of one decode step.
    layer_us: f64,
    /// Norm, transform and quantisation of the inputs of the output and the down projection, less the same without
    /// transforms.
    transforms_us: f64,
}

/// Measures the share with one instruction set.
pub(super) fn task(isa: Isa, threads: usize, effort: Effort) -> Task {
    let name = format!("v2/hadamard/{isa}/t{threads}");
    Task::new(name.clone(), move |programs: &Programs| {
        let mut args = vec!["__hadamard".to_owned(), "--isa".to_owned(), isa.name().to_owned()];
        args.extend(["--threads".to_owned(), threads.to_string()]);
        let out = programs.bracketed(&programs.this, &args, threads, &[], Duration::from_secs(300))?;
        let answer: Answer =
            serde_json::from_str(out.stdout.trim()).map_err(|e| BenchError::unreadable("the transforms", e))?;
        Ok(vec![figure(answer, &name, isa, threads, programs, effort)])
    })
}

fn figure(answer: Answer, id: &str, isa: Isa, threads: usize, programs: &Programs, effort: Effort) -> Figure {
    let Answer { layer_us, transforms_us } = answer;
    let share = 100.0 * transforms_us / layer_us;
    Figure {
        isa: Some(isa.name().to_owned()),
        threads,
        tokens: 1,
        note: Some(format!("{transforms_us:.1} us of {layer_us:.0} us")),
        ..Figure::of(id.to_owned(), What::Hadamard, "A4", share, &programs.revision, effort)
    }
}

/// The hidden command: prints an [`Answer`].
///
/// # Errors
/// If the instruction set is not available.
pub(crate) fn measure(isa: &str, threads: NonZeroUsize) -> Result<(), BenchError> {
    let isa = Isa::from_name(isa)?.require()?;
    let like = shape();
    let mut config = ModelConfig::new(256, like.hidden_size, like.intermediate_size, LAYERS, 20, 5);
    config.inputs = InputForms::bitnet_v2(&config, ActivationBits::Four);
    let forms = config.inputs;
    let rows = [
        (config.num_attention_heads * config.head_dim, forms.output.hadamard),
        (config.intermediate_size, forms.down.hadamard),
    ];
    let weights = ModelWeights::from_source(&SyntheticWeights::new(config, 1))?;
    let engine = Engine::new(&weights, &EngineOptions::default().threads(threads.get()).isa(isa))?;
    let mut sequence = Sequence::new(&engine, KvType::F16, Some(64));
    sequence.feed(&[1, 2, 3, 4])?;
    let mut failure = None;
    let [step] = least_of(
        ROUNDS,
        [&mut || {
            let step = sequence.rewind(4).and_then(|()| sequence.feed(&[7]).map(drop));
            failure = step.err().or(failure.take());
        }],
    );
    if let Some(error) = failure {
        return Err(error.into());
    }
    let ops = Ops::for_isa(isa)?;
    let mut transforms_us = 0.0;
    for (k, block) in rows {
        let x: Vec<f32> = (0..k).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
        let gain = vec![1.0; k];
        let (mut row, mut scratch) = (Int4Batch::with_capacity(1, k), vec![0.0; k]);
        row.reset(1, k);
        let plain = Prepare { norm: Some((&gain, 1e-5)), hadamard: None };
        let turned = Prepare { hadamard: block, ..plain };
        let rows = std::cell::RefCell::new((row, &mut scratch[..]));
        let run = |prepare: Prepare<'_>| {
            let (row, scratch) = &mut *rows.borrow_mut();
            // The numbers above are finite.
            let _ = ops.prepare_int4(&x, prepare, scratch, row.row_mut(0));
        };
        let [with, without] = least_of(ROUNDS, [&mut || run(turned), &mut || run(plain)]);
        transforms_us += (with - without) * 1e6;
    }
    let answer = Answer { layer_us: step * 1e6 / LAYERS as f64, transforms_us };
    let text = serde_json::to_string(&answer).map_err(|e| BenchError::unreadable("the transforms", e))?;
    writeln!(std::io::stdout(), "{text}").map_err(BenchError::io("stdout"))
}
