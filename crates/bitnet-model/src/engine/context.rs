//! The context of the blocks of all layers: the model's formulas, the thread team, and the buffers of projections.
//!
//! Between two blocks there is only the residual stream. Within a block, rows are normalised and quantised and
//! multiplied by ternary matrices, and the last product is added to the residual stream; [`Context`] does this for all
//! blocks.

use smallvec::SmallVec;
use ternary_kernels::ops::Ops;
use ternary_kernels::{AlignedBuf, Team};

use super::fold::{self, FoldSigns, RowForm};
use super::limits::INLINE_PARTS;
use super::linear::{self, Linear, Product, ProductScratch};
use super::quantized::Quantized;
use crate::{InputForm, ModelConfig};

/// Buffers of the projections of all blocks.
#[derive(Debug)]
pub(super) struct ProjectionScratch {
    /// Quantised inputs: one for all projections that read the same row, or one for each of up to three if they have
    /// their own norms.
    pub(super) inputs: Vec<Quantized>,
    /// Scratch of each thread.
    pub(super) products: Vec<ProductScratch>,
    /// A normalised residual row of each thread, `[hidden]`, if projections have their own norms.
    normed: Vec<AlignedBuf<f32>>,
    /// The output of a block, `[rows, hidden]`, if it is normalised or scaled before it is added to the residual
    /// stream.
    branch: AlignedBuf<f32>,
    /// The tokens and output rows of the largest calls of each kernel.
    calls: Vec<(usize, usize)>,
    /// Activations of a group, if each group has a scale.
    group_len: usize,
}

impl ProjectionScratch {
    /// Buffers without room for tokens.
    pub(super) fn new(config: &ModelConfig, threads: usize, calls: Vec<(usize, usize)>, group_len: usize) -> Self {
        let normed_len = if config.projection_norms { config.hidden_size } else { 0 };
        Self {
            inputs: inputs(config, 0, threads, group_len),
            products: (0..threads).map(|_| ProductScratch::new()).collect(),
            normed: (0..threads).map(|_| AlignedBuf::zeroed(normed_len)).collect(),
            branch: AlignedBuf::zeroed(0),
            calls,
            group_len,
        }
    }

    /// Outputs of the largest call of a kernel, if there are `rows` tokens.
    pub(super) fn call(&self, rows: usize) -> usize {
        self.calls.iter().map(|&(tokens, out)| rows.min(tokens) * out).max().unwrap_or(0)
    }

    /// Makes room for `rows` tokens.
    pub(super) fn reserve(&mut self, config: &ModelConfig, rows: usize) {
        self.inputs = inputs(config, rows, self.products.len(), self.group_len);
        let call = self.call(rows);
        self.products.iter_mut().for_each(|p| p.acc = AlignedBuf::zeroed(call));
        if !adds_plainly(config) {
            self.branch = AlignedBuf::zeroed(rows * config.hidden_size);
        }
    }

    /// Bytes of the quantised inputs.
    pub(super) fn input_bytes(&self) -> usize {
        self.inputs.iter().map(Quantized::byte_len).sum()
    }

    /// Bytes of the other buffers.
    pub(super) fn byte_len(&self) -> usize {
        let floats = self.branch.len() + self.normed.iter().map(|row| row.len()).sum::<usize>();
        4 * floats + self.products.iter().map(ProductScratch::byte_len).sum::<usize>()
    }
}

/// Whether the output of a block is added to the residual stream unchanged.
fn adds_plainly(config: &ModelConfig) -> bool {
    !config.output_norms && config.residual_scale == 1.0
}

/// Room for the inputs of `rows` tokens.
fn inputs(config: &ModelConfig, rows: usize, threads: usize, group_len: usize) -> Vec<Quantized> {
    let widest = config.input_widths().into_iter().fold(config.num_attention_heads * config.head_dim, usize::max);
    let more = if config.projection_norms { 2 } else { 0 };
    let widths = std::iter::once(widest).chain(std::iter::repeat_n(config.hidden_size, more));
    let forms = fold::forms(config);
    let room = |width| if rows == 0 { 0 } else { width };
    widths.map(|width| Quantized::with_capacity(rows, room(width), &forms, (threads, group_len))).collect()
}

/// The state that a block uses in addition to its weights and its scratch.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) ops: Ops,
    /// Signed Hadamard transforms of a folded model.
    pub(super) fold: Option<&'a FoldSigns>,
    pub(super) team: &'a Team,
    pub(super) projections: &'a mut ProjectionScratch,
}

impl<'a> Context<'a> {
    /// Rows of the residual stream, `[rows, hidden]`.
    pub(super) fn rows(&self, residual: &[f32]) -> usize {
        residual.len() / self.config.hidden_size
    }

    /// The form of rows of `width` elements for the projections of the layers, given their input form.
    pub(super) fn row_form(&self, form: InputForm, width: usize) -> RowForm<'a> {
        self.fold.map_or_else(|| form.into(), |fold| fold.row(form, width))
    }

    /// Normalises the residual stream with `gain` and quantises it for `projections`: once for all of them, or, if they
    /// have their own norms, for each after its norm. The error is a row that is not finite.
    pub(super) fn quantize_inputs(
        &mut self,
        residual: &[f32],
        gain: &[f32],
        form: InputForm,
        projections: &[&Linear],
    ) -> Result<(), usize> {
        let (config, ops) = (self.config, self.ops);
        let (hidden, eps) = (config.hidden_size, config.rms_norm_eps);
        if !config.projection_norms {
            return self.quantize_rows(residual, hidden, Some(gain), form);
        }
        let (rows, form) = (self.rows(residual), self.row_form(form, hidden));
        let ProjectionScratch { inputs, normed, .. } = &mut *self.projections;
        for (projection, input) in projections.iter().zip(inputs) {
            let own = projection.norm.as_deref().map(|gain| (gain, eps));
            input.fill(self.team, form, rows, hidden, normed.iter_mut(), |normed, i, row| {
                ops.rms_norm(&residual[i * hidden..(i + 1) * hidden], gain, eps, normed);
                row.quantize(ops, normed, own)
            })?;
        }
        Ok(())
    }

    /// Normalises (if a gain is given) and quantises rows of `width` elements; the error is the row that is not finite.
    pub(super) fn quantize_rows(
        &mut self,
        values: &[f32],
        width: usize,
        gain: Option<&[f32]>,
        form: InputForm,
    ) -> Result<(), usize> {
        let (ops, form) = (self.ops, self.row_form(form, width));
        let norm = gain.map(|gain| (gain, self.config.rms_norm_eps));
        let input = &mut self.projections.inputs[0];
        input.fill(self.team, form, values.len() / width, width, std::iter::repeat(()), |(), i, row| {
            row.quantize(ops, &values[i * width..(i + 1) * width], norm)
        })
    }

    /// Normalises the residual stream with `gain` into `normed` and quantises that; the error is the row that is not
    /// finite.
    pub(super) fn quantize_keeping(
        &mut self,
        residual: &[f32],
        normed: &mut [f32],
        gain: &[f32],
        form: InputForm,
    ) -> Result<(), usize> {
        let (ops, hidden, eps) = (self.ops, self.config.hidden_size, self.config.rms_norm_eps);
        let (rows, form) = (self.rows(residual), self.row_form(form, hidden));
        let chunk = rows.div_ceil(self.team.threads());
        let own = residual.chunks(chunk * hidden).zip(normed[..rows * hidden].chunks_mut(chunk * hidden));
        self.projections.inputs[0].fill(self.team, form, rows, hidden, own, |(residual, normed), i, row| {
            let at = i % chunk * hidden..(i % chunk + 1) * hidden;
            ops.rms_norm(&residual[at.clone()], gain, eps, &mut normed[at.clone()]);
            row.quantize(ops, &normed[at], None)
        })
    }

    /// Products of several projections with their inputs from [`Context::quantize_inputs`], in one pass, to the first
    /// rows of their outputs.
    pub(super) fn project<'p>(&mut self, outputs: impl IntoIterator<Item = (&'p Linear, &'p mut [f32])>) {
        self.project_each(input, outputs);
    }

    /// Like [`Context::project`], if all projections read the same quantised rows.
    pub(super) fn project_same<'p>(&mut self, outputs: impl IntoIterator<Item = (&'p Linear, &'p mut [f32])>) {
        self.project_each(|inputs, _| &inputs[0], outputs);
    }

    fn project_each<'p>(
        &mut self,
        input: impl for<'i> Fn(&'i [Quantized], usize) -> &'i Quantized,
        outputs: impl IntoIterator<Item = (&'p Linear, &'p mut [f32])>,
    ) {
        let ProjectionScratch { inputs, products, .. } = &mut *self.projections;
        let (inputs, rows) = (&inputs[..], inputs[0].n());
        let outputs: SmallVec<[Product<'_>; 4]> = outputs
            .into_iter()
            .enumerate()
            .map(|(i, (weights, out))| (weights, input(inputs, i), &mut out[..rows * weights.rows()]))
            .collect();
        linear::project(self.ops, self.team, outputs, rows, products);
    }

    /// Adds the projection of the quantised rows to the residual stream: unchanged, or normalised with `gain`, if there
    /// is one, and scaled.
    pub(super) fn add_projection(&mut self, weights: &Linear, gain: Option<&[f32]>, residual: &mut [f32]) {
        let (config, ops, team) = (self.config, self.ops, self.team);
        let (hidden, rows) = (config.hidden_size, self.rows(residual));
        let ProjectionScratch { branch, inputs, products, .. } = &mut *self.projections;
        if adds_plainly(config) {
            return linear::add_projection(ops, team, weights, &inputs[0], products, residual);
        }
        let branch = &mut branch[..rows * hidden];
        linear::project(ops, team, SmallVec::from_iter([(weights, &inputs[0], &mut *branch)]), rows, products);
        let chunk = rows.div_ceil(team.threads()) * hidden;
        let mut parts: SmallVec<[_; INLINE_PARTS]> = residual.chunks_mut(chunk).zip(branch.chunks_mut(chunk)).collect();
        team.run_parts(&mut parts, |_, (residual, branch)| {
            for (sum, row) in residual.chunks_exact_mut(hidden).zip(branch.chunks_exact_mut(hidden)) {
                if let Some(gain) = gain {
                    ops.rms_norm_in_place(row, gain, config.rms_norm_eps);
                }
                if config.residual_scale != 1.0 {
                    ops.scale(config.residual_scale, row);
                }
                ops.add_assign(sum, row);
            }
        });
    }
}

/// The input of projection `i` among those that read the same row.
pub(super) fn input(inputs: &[Quantized], i: usize) -> &Quantized {
    &inputs[i.min(inputs.len() - 1)]
}
