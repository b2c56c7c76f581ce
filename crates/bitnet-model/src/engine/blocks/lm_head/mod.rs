//! The predictions for a position: logits of the whole vocabulary, or only of the best tokens.
//!
//! The stored head is the largest matrix of a model. [`plain`] reads all of it. [`best`] reads a coarse plane of it,
//! which is a third as large, and computes only those rows from the stored weights that can be among the best. The
//! logits are the same, bit for bit, because the function and the row are the same.

mod best;
mod output;
mod plain;
mod rows;

use std::sync::{Arc, OnceLock};

use ternary_kernels::ops::Ops;
use ternary_kernels::ops::coarse::{CoarsePlane, StoredRows};
use ternary_kernels::{AlignedBuf, Team};

use crate::engine::context::Context;
use crate::engine::quantized::Quantized;
use crate::engine::table::EngineTable;
use crate::float_matrix::FloatRows;
use crate::{FloatMatrix, InputForm, InputForms, ModelConfig, ModelError};
use best::{Best, BestScratch};
pub use output::{Candidate, HeadRequest, Prediction, StepOutput};
pub(in crate::engine) use rows::FinalNorm;

/// Rows of the residual stream that are normalised together.
const TOKENS: usize = 16;

/// How an [`Engine`](crate::Engine) computes the best logits if a [`HeadRequest`] asks for no others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadMode {
    /// With a coarse plane, if the head is large enough for it to be faster.
    #[default]
    Auto,
    /// With a coarse plane if the head is stored as plain floats.
    Coarse,
    /// Always from the whole head.
    Plain,
}

/// Weights of a head from which on a coarse plane is faster; a smaller head is in the caches of a CPU, and the
/// additional phases of a step cost as much as reading less saves.
const COARSE_MIN_WEIGHTS: usize = 1 << 19;

/// Weights of a head up to which the plane is made when the best logits are requested, which takes a millisecond or two. Programs
/// that only sample from all logits start earlier.
const MADE_LATER: usize = 1 << 22;

/// The coarse plane of `head`, if `mode` asks for one and it is possible.
pub(in crate::engine) fn plane(
    mode: HeadMode,
    head: &FloatMatrix,
    ops: Ops,
    team: &Team,
) -> Result<Option<CoarsePlane>, ModelError> {
    if !uses_plane(mode, head) {
        return Ok(None);
    }
    if let Some(plane) = head.coarse() {
        return Ok(Some(plane.clone()));
    }
    let stored = match head.plain() {
        FloatRows::F32(w) => StoredRows::F32(w),
        FloatRows::F16(w) => StoredRows::F16(w),
        FloatRows::Bf16(w) => StoredRows::Bf16(w),
        FloatRows::Blocks => return Ok(None),
    };
    // Few rows are read again for a token: the others need not stay in memory.
    let done = |rows| head.release_rows(rows);
    Ok(Some(CoarsePlane::build_watched(ops, team, (head.rows(), head.cols()), stored, &done)?))
}

/// Whether `mode` asks for a coarse plane of `head` and there can be one.
pub(in crate::engine) fn uses_plane(mode: HeadMode, head: &FloatMatrix) -> bool {
    let (rows, cols) = (head.rows(), head.cols());
    let wanted = match mode {
        HeadMode::Plain => false,
        HeadMode::Coarse => true,
        HeadMode::Auto => rows.saturating_mul(cols) >= COARSE_MIN_WEIGHTS,
    };
    let plain = match head.plain() {
        FloatRows::F32(_) | FloatRows::F16(_) | FloatRows::Bf16(_) => true,
        FloatRows::Blocks => false,
    };
    wanted && plain && cols <= ternary_kernels::ops::coarse::MAX_COLS
}

/// Whether a file of packed weights holds the plane of `head`: not where it is made later, unless `mode` asks for it.
pub(in crate::engine) fn stores_plane(mode: HeadMode, head: &FloatMatrix) -> bool {
    let later = head.rows().saturating_mul(head.cols()) <= MADE_LATER;
    uses_plane(mode, head) && !(later && matches!(mode, HeadMode::Auto))
}

/// The norm before the head, and the head.
#[derive(Debug)]
pub(in crate::engine) struct LmHead {
    pub(in crate::engine) norm: FinalNorm,
    /// The matrix of the logits, `[vocab, hidden]`; `None` in a model without a head.
    table: Option<Arc<EngineTable>>,
    /// The coarse plane of the table, if it is used to find the best logits; empty until it is made.
    plane: OnceLock<Option<CoarsePlane>>,
    mode: HeadMode,
    /// The form of the table's input, if it is ternary.
    ternary_form: Option<InputForm>,
}

impl LmHead {
    /// With a coarse plane if `mode` asks for one and it is possible; `ternary_form` is the input form of a ternary
    /// table.
    pub(in crate::engine) fn new(
        norm: FinalNorm,
        table: Option<Arc<EngineTable>>,
        mode: HeadMode,
        ternary_form: InputForm,
        ops: Ops,
        team: &Team,
    ) -> Result<Self, ModelError> {
        let floats = table.as_deref().and_then(EngineTable::as_float);
        let made = OnceLock::new();
        if let Some(floats) = floats.filter(|head| head.rows().saturating_mul(head.cols()) > MADE_LATER) {
            // It is the only one that is set.
            let _ = made.set(plane(mode, floats, ops, team)?);
        }
        let ternary_form = (table.is_some() && floats.is_none()).then_some(ternary_form);
        Ok(Self { norm, table, plane: made, mode, ternary_form })
    }

    /// The matrix of the logits.
    pub(in crate::engine) fn table(&self) -> Option<&EngineTable> {
        self.table.as_deref()
    }
    /// Bytes of the coarse plane, if it is used to find the best logits, made or not.
    pub(in crate::engine) fn plane_bytes(&self) -> Option<usize> {
        match self.plane.get() {
            Some(plane) => plane.as_ref().map(CoarsePlane::byte_len),
            None => {
                let head = self.table()?.as_float().filter(|head| uses_plane(self.mode, head))?;
                CoarsePlane::byte_len_of(head.rows(), head.cols()).ok()
            }
        }
    }

    /// The search for the best logits by the coarse plane, which is made if it is not there yet; `None` without one.
    fn best(&self, context: &Context<'_>) -> Option<Best<'_>> {
        let head = self.table()?.as_float()?;
        // Without a plane the whole head is read, which gives the same.
        let made = || plane(self.mode, head, context.ops, context.team).ok().flatten();
        let plane = self.plane.get_or_init(made).as_ref()?;
        Some(Best { plane, head, norm: &self.norm })
    }

    /// Appends the predictions for rows of the residual stream to `out`, in their order, each as requested.
    pub(in crate::engine) fn forward(
        &self,
        context: &mut Context<'_>,
        scratch: &mut HeadScratch,
        residual: &[f32],
        wanted: impl Iterator<Item = (usize, HeadRequest)>,
        out: &mut StepOutput,
    ) {
        let HeadScratch { normed, input, best: best_scratch, full, batch } = scratch;
        full.clear();
        batch.clear();
        let mut best = None;
        for (row, request) in wanted {
            let position = out.add(request);
            if best.is_none() && !matches!(request, HeadRequest::Full) {
                best = self.best(context);
            }
            match best.as_ref().filter(|best| best.serves(request)) {
                Some(best) => {
                    batch.push((row, position));
                    if batch.len() == TOKENS {
                        best.run(context, (&mut *best_scratch, &mut normed[..]), residual, batch, full, out);
                        batch.clear();
                    }
                }
                None => full.push((row, position)),
            }
        }
        if let Some(best) = best.filter(|_| !batch.is_empty()) {
            best.run(context, (&mut *best_scratch, &mut normed[..]), residual, batch, full, out);
        }
        // `Engine::step` has rejected requests to a model without a head.
        let Some(table) = self.table() else { return };
        let input = input.as_mut().zip(self.ternary_form);
        plain::run(table, &self.norm, context, (&mut normed[..], input), residual, full, out);
    }
}

/// Buffers of the head.
#[derive(Debug)]
pub(in crate::engine) struct HeadScratch {
    /// Residual rows after the final norm, `[16, hidden]`.
    normed: AlignedBuf<f32>,
    /// These rows, quantised, for a ternary head.
    input: Option<Quantized>,
    best: BestScratch,
    /// Rows of the residual stream that need all logits, and their positions in the output.
    full: Vec<(usize, usize)>,
    /// Rows that need the best logits, with their positions.
    batch: Vec<(usize, usize)>,
}

impl HeadScratch {
    /// Empty buffers, for the input form of `head` if it is ternary, with group scales if the activations have them.
    pub(in crate::engine) fn new(config: &ModelConfig, head: &LmHead, threads: usize, group_len: usize) -> Self {
        let input = head.ternary_form.map(|form| {
            let forms = InputForms::default().with_bits(form.bits);
            Quantized::with_capacity(TOKENS, config.hidden_size, &forms, (threads, group_len))
        });
        let best = BestScratch::new(config.hidden_size);
        Self { normed: AlignedBuf::zeroed(0), input, best, full: Vec::new(), batch: Vec::new() }
    }

    /// Makes room for the rows that pass together.
    pub(in crate::engine) fn reserve(&mut self, config: &ModelConfig) {
        if self.normed.is_empty() {
            self.normed = AlignedBuf::zeroed(TOKENS * config.hidden_size);
        }
    }

    /// Bytes of the rows that pass together.
    pub(in crate::engine) fn byte_len(&self) -> usize {
        size_of_val(&self.normed[..])
    }
}
