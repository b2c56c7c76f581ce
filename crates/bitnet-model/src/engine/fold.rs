//! Signed Hadamard transforms that are folded into the weights: the transforms of rows before they become codes.

use ternary_kernels::ops::Ops;

use crate::{InputForm, InputForms, ModelConfig};

/// The signs of each width as floats.
#[derive(Debug)]
pub(super) struct FoldSigns {
    block: usize,
    signs: Vec<Vec<f32>>,
    /// Whether the head reads transformed rows.
    pub(super) head: bool,
    /// Whether rows of the embedding must be transformed back.
    pub(super) embedding: bool,
}

/// The steps of a row before a product.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowForm<'a> {
    pub(super) form: InputForm,
    /// Signs before the transform.
    pub(super) signs: Option<&'a [f32]>,
}

impl From<InputForm> for RowForm<'_> {
    fn from(form: InputForm) -> Self {
        Self { form, signs: None }
    }
}

impl FoldSigns {
    /// The signs of a folded model.
    pub(super) fn of(c: &ModelConfig) -> Option<Self> {
        let fold = c.fold.as_ref()?;
        let signs = c.input_widths().into_iter().filter_map(|width| fold.signs(width));
        let signs = signs.map(|s| s.iter().map(|s| f32::from(*s)).collect()).collect();
        Some(Self { block: fold.block, signs, head: fold.head, embedding: fold.embedding })
    }

    fn of_width(&self, width: usize) -> Option<&[f32]> {
        self.signs.iter().map(Vec::as_slice).find(|s| s.len() == width)
    }

    /// The form of a row of `width` elements that a folded matrix reads.
    pub(super) fn row(&self, form: InputForm, width: usize) -> RowForm<'_> {
        RowForm { form: InputForm { hadamard: Some(self.block), ..form }, signs: self.of_width(width) }
    }

    /// `x <- H(s * x)`: the input of a folded head.
    pub(super) fn turn(&self, ops: Ops, x: &mut [f32]) {
        self.sign(x);
        self.transform(ops, x);
    }

    /// `x <- s * H(x)`: a token of a folded embedding.
    pub(super) fn turn_back(&self, ops: Ops, x: &mut [f32]) {
        self.transform(ops, x);
        self.sign(x);
    }

    fn sign(&self, x: &mut [f32]) {
        sign(self.of_width(x.len()).unwrap_or_default(), x);
    }

    fn transform(&self, ops: Ops, x: &mut [f32]) {
        // `ModelConfig::validate` has checked that blocks divide every width.
        let done = ops.hadamard(x, self.block);
        debug_assert!(done.is_ok(), "{done:?}");
    }
}

/// A product with 1 or -1 is exact.
pub(super) fn sign(signs: &[f32], x: &mut [f32]) {
    x.iter_mut().zip(signs).for_each(|(x, s)| *x *= s);
}

/// The forms of a model's inputs with the transforms of a fold, for buffers that fit them.
pub(super) fn forms(c: &ModelConfig) -> InputForms {
    let mut forms = c.inputs;
    if let Some(fold) = &c.fold {
        for form in [&mut forms.mixer, &mut forms.output, &mut forms.feed_forward, &mut forms.down] {
            form.hadamard = Some(fold.block);
        }
    }
    forms
}
