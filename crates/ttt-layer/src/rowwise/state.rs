//! The state of one text in one layer.

use ternary_kernels::AlignedBuf;

use super::RowWise;
use crate::TttError;
use crate::config::{Kind, TttConfig};
use crate::saved::{EXTRA_BYTES, Form, fingerprint};

/// The state of a layer: inner weights, the open mini-batch, the windows of the convolutions, the
/// position. All numbers are f32, and their number depends on the configuration only.
///
/// A clone is a fork: both go on by themselves.
///
/// For each head in turn: `W1`, `b1` (and `W2`, `b2`) at the beginning of the open mini-batch; then for each matrix the
/// inputs `[rows, b]` and the gradients of the outputs `[b, columns]`, times their learning rates, of the tokens in the
/// mini-batch; then the window of the convolutions of queries and keys, `[k - 1, d]`. After the heads, the window of
/// the convolution before the layer, `[k - 1, D]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TttState {
    /// At a cache line: vectors of 64 bytes that begin elsewhere would each be read from two.
    pub(super) data: AlignedBuf<f32>,
    pub(super) position: u64,
    pub(super) head_floats: usize,
    /// Whether the last mini-batch is complete and its gradients have not moved the weights yet.
    due: bool,
    config: TttConfig,
}

const MARK: [u8; 8] = *b"TTTSTATE";
const VERSION: u32 = 1;

impl TttConfig {
    /// Bytes of the numbers of a state: the same after every token.
    ///
    /// # Errors
    /// [`TttError::Config`].
    pub fn state_bytes(&self) -> Result<usize, TttError> {
        self.validate()?;
        Ok(self.state_floats().unwrap_or(usize::MAX / 4) * 4)
    }

    /// Bytes of a saved state.
    ///
    /// # Errors
    /// [`TttError::Config`].
    pub fn saved_state_bytes(&self) -> Result<usize, TttError> {
        Ok(self.state_bytes()? + EXTRA_BYTES)
    }

    fn saved_form(&self) -> Form {
        Form { mark: MARK, version: VERSION, fingerprint: fingerprint(&self.identity()) }
    }
}

impl TttState {
    /// The state before the first token.
    pub fn new(layer: &RowWise) -> Self {
        let config = layer.config();
        // The layer's configuration was validated.
        let (head_floats, floats) = (config.head_floats().unwrap_or(0), config.state_floats().unwrap_or(0));
        let data = AlignedBuf::zeroed(floats);
        let mut state = Self { data, position: 0, head_floats, due: false, config: config.clone() };
        state.begin(layer);
        state
    }

    /// Forgets the text.
    ///
    /// # Panics
    /// If `layer` has another configuration than the layer that the state was made for.
    pub fn reset(&mut self, layer: &RowWise) {
        assert_eq!(self.config, *layer.config(), "a state of another configuration");
        self.data.fill(0.0);
        (self.position, self.due) = (0, false);
        self.begin(layer);
    }

    /// Writes each head's first weights into a state of zeros.
    fn begin(&mut self, layer: &RowWise) {
        for (head, first) in self.data.chunks_exact_mut(self.head_floats).zip(layer.first_weights()) {
            head[..first.len()].copy_from_slice(first);
        }
    }

    /// Tokens so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Tokens in the open mini-batch.
    pub fn pending(&self) -> usize {
        // The remainder is below the size of a mini-batch.
        (self.position % self.config.mini_batch_size as u64) as usize
    }

    /// Shape and constants of the state's layer.
    pub fn config(&self) -> &TttConfig {
        &self.config
    }

    /// Bytes of the numbers in it.
    pub fn bytes(&self) -> usize {
        self.data.len() * 4
    }

    /// Notes that every head has read `tokens` more tokens: for callers of [`RowWise::forward_heads`]. If they end a
    /// mini-batch, [`RowWise::complete`] has to follow, before the state is read or saved.
    pub fn advance(&mut self, tokens: usize) {
        self.position += tokens as u64;
        self.due = tokens > 0 && self.pending() == 0;
    }

    /// Whether [`RowWise::complete`] has to follow.
    pub fn is_due(&self) -> bool {
        self.due
    }

    pub(super) fn completed(&mut self) {
        self.due = false;
    }

    /// Appends to `undo` what the next `tokens` tokens overwrite irreversibly: the windows of the convolutions, or
    /// everything if they extend beyond the end of a mini-batch. For callers that may have to undo these tokens, which
    /// is possible until [`RowWise::complete`] is called after the last of them.
    pub fn remember(&self, tokens: usize, undo: &mut Vec<f32>) {
        if self.pending() + tokens > self.config.mini_batch_size {
            undo.extend_from_slice(&self.data);
            return;
        }
        let heads = self.head_floats * self.config.num_heads;
        let window = self.config.head_window();
        self.data[..heads].chunks_exact(self.head_floats).for_each(|h| undo.extend_from_slice(&h[h.len() - window..]));
        undo.extend_from_slice(&self.data[heads..]);
    }

    /// Goes back to `position`, where [`TttState::remember`] was called with `tokens`; since then at most as many
    /// tokens were read, by all heads or by some. `undo` begins with what was appended then; returns the rest. Data
    /// after the tokens of the open mini-batch may differ from then, but are never read.
    ///
    /// # Panics
    /// If `undo` is shorter than what was appended.
    pub fn rewind<'u>(&mut self, position: u64, tokens: usize, undo: &'u [f32]) -> &'u [f32] {
        (self.position, self.due) = (position, false);
        if self.pending() + tokens > self.config.mini_batch_size {
            let (data, rest) = undo.split_at(self.data.len());
            self.data.copy_from_slice(data);
            return rest;
        }
        let window = self.config.head_window();
        let mut rest = undo;
        let mut put = |to: &mut [f32]| {
            let (from, after) = rest.split_at(to.len());
            to.copy_from_slice(from);
            rest = after;
        };
        let (heads, before) = self.data.split_at_mut(self.head_floats * self.config.num_heads);
        for head in heads.chunks_exact_mut(self.head_floats) {
            let start = head.len() - window;
            put(&mut head[start..]);
        }
        put(before);
        rest
    }

    /// The heads' parts of the state, `[h]` times as many floats, and the window of the convolution before the layer.
    pub fn parts_mut(&mut self) -> (&mut [f32], &mut [f32]) {
        let heads = self.head_floats * self.config.num_heads;
        self.data.split_at_mut(heads)
    }

    /// Floats of one head's part.
    pub fn head_floats(&self) -> usize {
        self.head_floats
    }

    /// Inner weights of a head as of the beginning of the open mini-batch: `W1`, `b1` (and `W2`, `b2`).
    ///
    /// # Panics
    /// If there is no such head.
    pub fn weights(&self, head: usize) -> Vec<&[f32]> {
        let mut rest = self.head(head);
        let mut weights = Vec::new();
        for (_, [rows, cols]) in self.config.inner_shapes() {
            let (w, after) = rest.split_at(rows * cols);
            weights.push(w);
            rest = after;
        }
        weights
    }

    /// The gradients of a head that the open mini-batch has gathered, times their learning rates, in the shapes of
    /// [`TttState::weights`]; zeros at the beginning of a mini-batch. The state holds them as inputs and gradients of
    /// outputs; this multiplies them, to look at.
    ///
    /// # Panics
    /// If there is no such head.
    pub fn gradients(&self, head: usize) -> Vec<Vec<f32>> {
        let (b, pending) = (self.config.mini_batch_size, self.pending());
        let shapes = self.config.inner_shapes();
        let mut rest = &self.head(head)[shapes.iter().map(|(_, [r, c])| r * c).sum()..];
        let mut gradients = Vec::new();
        for (_, [rows, cols]) in shapes.into_iter().step_by(2) {
            let (inputs, after) = rest.split_at(rows * b);
            let (outputs, after) = after.split_at(b * cols);
            rest = after;
            let element = |i: usize, j: usize| (0..pending).map(|k| inputs[i * b + k] * outputs[k * cols + j]).sum();
            gradients.push((0..rows * cols).map(|at| element(at / cols, at % cols)).collect());
            gradients.push((0..cols).map(|j| (0..pending).map(|k| outputs[k * cols + j]).sum()).collect());
        }
        gradients
    }

    fn head(&self, head: usize) -> &[f32] {
        assert!(head < self.config.num_heads, "head {head} of {}", self.config.num_heads);
        &self.data[head * self.head_floats..(head + 1) * self.head_floats]
    }

    /// The state as bytes, with a mark, the configuration's fingerprint, `model` (any number that identifies the
    /// model's weights) and a checksum. Little-endian; equal states give equal bytes.
    ///
    /// # Panics
    /// If [`RowWise::complete`] is due.
    pub fn save(&self, model: u64) -> Vec<u8> {
        assert!(!self.due, "the last mini-batch has to be completed before the state is saved");
        self.config.saved_form().seal(model, self.position, &self.data)
    }

    /// Restores a state from the bytes of [`TttState::save`]. Nothing is allocated before the size has been checked.
    ///
    /// # Errors
    /// [`TttError::SavedState`] for bytes that are damaged, cut off, or from another version, configuration or model.
    pub fn restore(layer: &RowWise, model: u64, bytes: &[u8]) -> Result<Self, TttError> {
        let config = layer.config();
        let (position, numbers) = config.saved_form().open(model, config.saved_state_bytes()?, bytes)?;
        let mut state = Self::new(layer);
        state.position = position;
        state.data.iter_mut().zip(numbers).for_each(|(x, saved)| *x = saved);
        Ok(state)
    }
}

/// One head's part of a state, as slices.
pub(super) struct HeadState<'a> {
    pub(super) layers: [LayerState<'a>; 2],
    /// `[k - 1, d]`
    pub(super) window: &'a mut [f32],
}

/// One matrix of an inner model.
#[derive(Default)]
pub(super) struct LayerState<'a> {
    /// `[rows, cols]`
    pub(super) w: &'a mut [f32],
    /// `[cols]`
    pub(super) b: &'a mut [f32],
    /// Inputs of the open mini-batch's tokens, `[rows, b]`.
    pub(super) inputs: &'a mut [f32],
    /// Gradients of the outputs, times learning rates, `[b, cols]`.
    pub(super) outputs: &'a mut [f32],
}

impl<'a> HeadState<'a> {
    pub(super) fn new(config: &TttConfig, data: &'a mut [f32]) -> Self {
        let (d, m, b) = (config.head_dim, config.inner_dim(), config.mini_batch_size);
        let mut rest = data;
        let mut take = |n: usize| rest.split_off_mut(..n).unwrap_or_default();
        let layers = match config.kind {
            Kind::Linear => {
                let (w, bias) = (take(d * d), take(d));
                [LayerState { w, b: bias, inputs: take(d * b), outputs: take(b * d) }, LayerState::default()]
            }
            Kind::Mlp => {
                let (w1, b1, w2, b2) = (take(d * m), take(m), take(m * d), take(d));
                [
                    LayerState { w: w1, b: b1, inputs: take(d * b), outputs: take(b * m) },
                    LayerState { w: w2, b: b2, inputs: take(m * b), outputs: take(b * d) },
                ]
            }
        };
        Self { layers, window: rest }
    }
}
