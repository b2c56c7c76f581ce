//! The state of one text in one layer of the gated delta rule.

use ternary_kernels::AlignedBuf;

use super::{DeltaConfig, GatedDelta};
use crate::TttError;
use crate::saved::{EXTRA_BYTES, Form, fingerprint};

/// The state of a layer: a matrix for each value head, and the last inputs of the convolution. All numbers are
/// f32, and their number depends on the configuration only.
///
/// A clone is a fork: both go on by themselves.
///
/// For each key head, one after the other: the matrices of its value heads, `[g, d, d]`, rows by key and columns by
/// value; then the windows of the convolutions of its queries `[k - 1, d]`, keys `[k - 1, d]` and values `[k - 1, g
/// d]`, oldest row first.
#[derive(Clone, Debug, PartialEq)]
pub struct DeltaState {
    data: AlignedBuf<f32>,
    position: u64,
    config: DeltaConfig,
}

const MARK: [u8; 8] = *b"GDNSTATE";
const VERSION: u32 = 1;

impl DeltaConfig {
    /// Bytes of a saved state.
    ///
    /// # Errors
    /// [`TttError::Config`].
    pub fn saved_state_bytes(&self) -> Result<usize, TttError> {
        Ok(self.state_bytes()?.saturating_add(EXTRA_BYTES))
    }

    fn saved_form(&self) -> Form {
        Form { mark: MARK, version: VERSION, fingerprint: fingerprint(&self.identity()) }
    }
}

impl DeltaState {
    /// The state before the first token: zeros.
    pub fn new(layer: &GatedDelta) -> Self {
        let config = layer.config().clone();
        // The layer's configuration was validated.
        Self { data: AlignedBuf::zeroed(config.state_floats().unwrap_or(0)), position: 0, config }
    }

    /// Forgets the text.
    pub fn reset(&mut self) {
        self.data.fill(0.0);
        self.position = 0;
    }

    /// Tokens so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Shape and constants of the state's layer.
    pub fn config(&self) -> &DeltaConfig {
        &self.config
    }

    /// Bytes of the numbers in it.
    pub fn bytes(&self) -> usize {
        self.data.len() * 4
    }

    /// Notes that every head has read `tokens` more tokens: for callers of [`GatedDelta::forward_heads`].
    pub fn advance(&mut self, tokens: usize) {
        self.position += tokens as u64;
    }

    /// Appends to `undo` what the next token overwrites irreversibly, which is everything.
    pub fn remember(&self, undo: &mut Vec<f32>) {
        undo.extend_from_slice(&self.data);
    }

    /// Goes back to `position`, where [`DeltaState::remember`] was called. `undo` begins with what was appended then;
    /// returns the rest.
    ///
    /// # Panics
    /// If `undo` is shorter than what was appended.
    pub fn rewind<'u>(&mut self, position: u64, undo: &'u [f32]) -> &'u [f32] {
        let (data, rest) = undo.split_at(self.data.len());
        self.data.copy_from_slice(data);
        self.position = position;
        rest
    }

    /// The key heads' parts of the state, [`DeltaState::head_floats`] each.
    pub fn heads_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// Floats of one key head's part.
    pub fn head_floats(&self) -> usize {
        self.config.head_floats().unwrap_or(0)
    }

    /// The matrix of a value head, `[d, d]`, rows by key and columns by value.
    ///
    /// # Panics
    /// If there is no such head.
    pub fn matrix(&self, value_head: usize) -> &[f32] {
        let (g, floats) = (self.config.group(), self.config.head_dim * self.config.head_dim);
        let start = value_head / g * self.head_floats() + value_head % g * floats;
        &self.data[start..start + floats]
    }

    /// The last inputs of the convolution, `[k - 1, c]`, oldest row first, in the order of the channels.
    pub fn window(&self) -> Vec<f32> {
        let c = &self.config;
        let (rows, channels) = (c.conv_kernel - 1, c.channels());
        let mut out = vec![0.0; rows * channels];
        for head in 0..c.key_heads {
            let part = &self.data[head * self.head_floats()..(head + 1) * self.head_floats()];
            let mut rest = &part[c.group() * c.head_dim * c.head_dim..];
            for cols in c.head_channels(head) {
                let (window, after) = rest.split_at(rows * cols.len());
                for (i, row) in window.chunks_exact(cols.len()).enumerate() {
                    out[i * channels..][cols.clone()].copy_from_slice(row);
                }
                rest = after;
            }
        }
        out
    }

    /// The state as bytes, with a mark, the configuration's fingerprint, `model` (any number that identifies the
    /// model's weights) and a checksum. Little-endian; equal states give equal bytes.
    pub fn save(&self, model: u64) -> Vec<u8> {
        self.config.saved_form().seal(model, self.position, &self.data)
    }

    /// Restores a state from the bytes of [`DeltaState::save`]. Nothing is allocated before the size has been checked.
    ///
    /// # Errors
    /// [`TttError::SavedState`] for bytes that are damaged, cut off, or from another version, configuration or model.
    pub fn restore(layer: &GatedDelta, model: u64, bytes: &[u8]) -> Result<Self, TttError> {
        let config = layer.config();
        let (position, numbers) = config.saved_form().open(model, config.saved_state_bytes()?, bytes)?;
        let mut state = Self::new(layer);
        state.position = position;
        state.data.iter_mut().zip(numbers).for_each(|(x, saved)| *x = saved);
        Ok(state)
    }
}
