//! The forward pass: tokens in, logits out, top to bottom as in the paper.
//!
//! ```text
//! residual = embedding(tokens)
//! for each layer:
//!     residual += mixer(norm(residual))            attention, test-time training, or the gated delta rule
//!     residual += feed_forward(norm(residual))
//! logits = head(norm(residual))
//! ```

use ternary_kernels::Team;

use super::blocks::lm_head::{HeadRequest, StepOutput};
use super::blocks::ttt::TttScratch;
use super::context::Context;
use super::layer_states::LayerStates;
use super::limits::NonFinite;
use super::network::{Layer, Mixer, Network};
use super::segment::{Segment, Texts};
use super::workspace::{BlockScratch, Buffers};
use crate::ModelError;

impl Network {
    /// One pass over the weights for the tokens of `segments`, `rows` in total; their predictions are appended to
    /// `out`. If `losses` are given, there is one text, and the inner losses of each test-time-training layer are
    /// appended to its entry.
    pub(super) fn forward(
        &self,
        team: &Team,
        buffers: &mut Buffers,
        segments: &mut [Segment<'_>],
        rows: usize,
        losses: Option<&mut [Vec<f32>]>,
        out: &mut StepOutput,
    ) -> Result<(), ModelError> {
        if rows == 0 {
            return Ok(());
        }
        let hidden = self.config.hidden_size;
        segments.iter_mut().for_each(|segment| self.complete(segment.state, buffers.blocks.ttt.as_mut()));
        buffers.reserve(&self.config, rows);
        if let Some(attention) = &mut buffers.blocks.attention {
            attention.begin(&self.config, segments, team.threads());
        }
        for segment in segments.iter() {
            self.embed(segment.tokens, &mut buffers.residual[segment.first_row * hidden..]);
        }
        let mut texts = match losses {
            Some(losses) => Texts::Watched(segments, losses),
            None => Texts::Own(segments),
        };
        if let Err((what, row)) = self.layers(team, buffers, &mut texts, rows) {
            return Err(ModelError::Diverged { what, position: position_of(segments, row) });
        }
        let wanted = segments.iter().flat_map(|segment| segment.wanted.clone().map(|row| (row, segment.head)));
        self.logits(team, buffers, wanted, out);
        let residual = &buffers.residual[..rows * hidden];
        out.add_hidden(residual);
        for segment in segments.iter_mut().filter(|segment| !segment.tokens.is_empty()) {
            let last = segment.rows().end - 1;
            segment.state.advance(segment.tokens.len(), &residual[last * hidden..][..hidden]);
        }
        Ok(())
    }

    /// Writes the embeddings of `tokens` to the first rows of the residual stream, `[.., hidden]`.
    pub(super) fn embed(&self, tokens: &[u32], residual: &mut [f32]) {
        let scale = self.config.embedding_scale;
        for (&token, row) in tokens.iter().zip(residual.chunks_exact_mut(self.config.hidden_size)) {
            self.embedding.row_into(token as usize, row);
            if let Some(fold) = self.fold.as_ref().filter(|fold| fold.embedding) {
                fold.turn_back(self.ops, row);
            }
            if scale != 1.0 {
                self.ops.scale(scale, row);
            }
        }
        if let Some(floats) = self.embedding.as_float() {
            floats.touched(tokens.len());
        }
    }

    /// Passes the first `rows` rows of the residual stream through all layers.
    pub(super) fn layers(
        &self,
        team: &Team,
        buffers: &mut Buffers,
        texts: &mut Texts<'_, '_>,
        rows: usize,
    ) -> Result<(), NonFinite> {
        let Buffers { residual, projections, blocks, .. } = buffers;
        let residual = &mut residual[..rows * self.config.hidden_size];
        let fold = self.fold.as_ref();
        let mut context = Context { config: &self.config, ops: self.ops, fold, team, projections };
        self.layers.iter().try_for_each(|layer| layer.forward(&mut context, blocks, texts, residual))
    }

    /// Appends the predictions of the head for rows of the residual stream to `out`.
    pub(super) fn logits(
        &self,
        team: &Team,
        buffers: &mut Buffers,
        wanted: impl Iterator<Item = (usize, HeadRequest)>,
        out: &mut StepOutput,
    ) {
        let Buffers { residual, projections, head, .. } = buffers;
        let fold = self.fold.as_ref();
        let mut context = Context { config: &self.config, ops: self.ops, fold, team, projections };
        self.head.forward(&mut context, head, residual, wanted, out);
    }

    /// Applies the inner updates of mini-batches of `state` that ended with its last token.
    pub(super) fn complete(&self, state: &mut LayerStates, scratch: Option<&mut TttScratch>) {
        let Some(scratch) = scratch else { return };
        let layers = self.ttt_layers().zip(&mut state.ttt);
        layers.for_each(|(layer, state)| layer.complete(state, &mut scratch.threads[0]));
    }
}

impl Layer {
    /// Passes the residual stream, `[rows, hidden]`, through this layer.
    fn forward(
        &self,
        context: &mut Context<'_>,
        scratch: &mut BlockScratch,
        texts: &mut Texts<'_, '_>,
        residual: &mut [f32],
    ) -> Result<(), NonFinite> {
        const HAS_BUFFERS: &str = "a model with such layers has their buffers";
        let BlockScratch { attention, ttt, delta, feed_forward } = scratch;
        match &self.mixer {
            Mixer::Attention(mixer) => {
                mixer.forward(context, attention.as_mut().expect(HAS_BUFFERS), texts.segments(), residual)?;
            }
            Mixer::Ttt(mixer) => mixer.forward(context, ttt.as_mut().expect(HAS_BUFFERS), texts, residual)?,
            Mixer::Delta(mixer) => {
                mixer.forward(context, delta.as_mut().expect(HAS_BUFFERS), texts.segments(), residual)?;
            }
        }
        self.feed_forward.forward(context, feed_forward, residual)
    }
}

/// The position, in its text, of the token in `row`.
fn position_of(segments: &[Segment<'_>], row: usize) -> usize {
    let segment = segments.iter().find(|segment| segment.rows().contains(&row));
    segment.map_or(0, |segment| segment.state.len() + row - segment.first_row)
}
