//! Tokens that pass through the layers together, and their states.

use std::ops::Range;

use super::blocks::lm_head::HeadRequest;
use super::handoff::Piece;
use super::layer_states::LayerStates;

/// Tokens of one sequence within a block of rows.
#[derive(Debug)]
pub(super) struct Segment<'a> {
    pub(super) state: &'a mut LayerStates,
    pub(super) tokens: &'a [u32],
    /// Row of the first token.
    pub(super) first_row: usize,
    /// Rows whose logits are requested.
    pub(super) wanted: Range<usize>,
    /// The requested logits of these rows.
    pub(super) head: HeadRequest,
}

impl Segment<'_> {
    /// The rows of its tokens.
    pub(super) fn rows(&self) -> Range<usize> {
        self.first_row..self.first_row + self.tokens.len()
    }
}

/// The states that a block of rows reads and writes.
pub(super) enum Texts<'s, 'a> {
    /// Whole states of some texts.
    Own(&'s mut [Segment<'a>]),
    /// The state of one text, of which other threads have other pieces.
    Piece(&'s Piece<'s, 'a>),
    /// Like `Own`, for one text; the inner losses of each layer are appended, `[rows, heads]` for each.
    Watched(&'s mut [Segment<'a>], &'s mut [Vec<f32>]),
}

impl<'a> Texts<'_, 'a> {
    /// The texts for layers of attention; a piece has none, because only texts of models without such layers are split.
    pub(super) fn segments(&mut self) -> &mut [Segment<'a>] {
        match self {
            Texts::Own(segments) | Texts::Watched(segments, _) => segments,
            Texts::Piece(_) => &mut [],
        }
    }
}
