//! Shape, constants and parameters of one layer of the gated delta rule.

use crate::TttError;

/// Shape and constants of one layer of the gated delta rule (Gated DeltaNet).
///
/// Letters in the documentation: `D` hidden size, `h` key heads, `g` value heads of each key head, `d` elements of a
/// head, `k` taps, `c = (2 + g) h d` channels of queries, keys and values.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeltaConfig {
    /// Elements of an input token, `D`.
    pub hidden_size: usize,
    /// Heads of queries and keys, `h`.
    pub key_heads: usize,
    /// Heads of values, each with its own state: value head `j` reads key head `j / g`.
    pub value_heads: usize,
    /// Elements of a head, of keys and of values, `d`.
    pub head_dim: usize,
    /// Taps of the causal convolution of queries, keys and values, `k`.
    pub conv_kernel: usize,
    /// Added to the mean square in the norm of the output.
    pub norm_eps: f32,
}

/// Most heads, and most elements of a head.
const MOST: usize = 1 << 12;
/// More elements than this in a token are taken for a damaged file.
const LARGEST: usize = 1 << 20;
/// Most taps.
const MOST_TAPS: usize = 64;

impl DeltaConfig {
    /// A layer of `key_heads` and `value_heads` heads of `head_dim` elements for tokens of `hidden_size`, with four
    /// taps.
    pub fn new(hidden_size: usize, key_heads: usize, value_heads: usize, head_dim: usize) -> Self {
        Self { hidden_size, key_heads, value_heads, head_dim, conv_kernel: 4, norm_eps: 1e-6 }
    }

    /// Checks that the numbers describe a layer.
    ///
    /// # Errors
    /// [`TttError::Config`].
    pub fn validate(&self) -> Result<(), TttError> {
        let bad = |field: &'static str, value: usize, requirement: &'static str| {
            Err(TttError::Config { field, value: value.to_string(), requirement })
        };
        let sizes = [
            ("hidden_size", self.hidden_size, LARGEST),
            ("key heads", self.key_heads, MOST),
            ("value heads", self.value_heads, MOST),
            ("state size", self.head_dim, MOST),
        ];
        for (field, value, most) in sizes {
            if value == 0 || value > most {
                return bad(field, value, "at least 1 and of a sane size");
            }
        }
        if !self.value_heads.is_multiple_of(self.key_heads) {
            return bad("value heads", self.value_heads, "a multiple of the key heads");
        }
        // A state grows with the square of this; so it stays within a small multiple of the projections.
        if self.head_dim > self.hidden_size {
            return bad("state size", self.head_dim, "at most hidden_size");
        }
        if self.conv_kernel == 0 || self.conv_kernel > MOST_TAPS {
            return bad("conv_kernel", self.conv_kernel, "from 1 to 64");
        }
        if !(self.norm_eps.is_finite() && self.norm_eps > 0.0) {
            let (field, requirement) = ("norm_eps", "a positive number");
            return Err(TttError::Config { field, value: self.norm_eps.to_string(), requirement });
        }
        match self.state_floats().and_then(|n| n.checked_mul(4)) {
            Some(_) => Ok(()),
            None => bad("state size", self.head_dim, "so small that a state fits this machine's address space"),
        }
    }

    /// Value heads of each key head, `g`.
    pub fn group(&self) -> usize {
        self.value_heads / self.key_heads
    }

    /// Elements of queries (and of keys) of all heads, `h d`.
    pub fn key_width(&self) -> usize {
        self.key_heads * self.head_dim
    }

    /// Elements of values of all heads, `g h d`: the width of the gate and of the output.
    pub fn value_width(&self) -> usize {
        self.value_heads * self.head_dim
    }

    /// Channels of the convolution: queries, keys, values, `c`.
    pub fn channels(&self) -> usize {
        2 * self.key_width() + self.value_width()
    }

    /// Parameters besides the projections, of a configuration that was checked.
    pub fn parameters(&self) -> usize {
        let gates = 2 * self.value_heads * self.hidden_size;
        gates + self.channels() * self.conv_kernel + 2 * self.value_heads + self.head_dim
    }

    /// Floats of the states of one key head's value heads, and of the window of their convolutions. `None` if that
    /// overflows.
    pub(super) fn head_floats(&self) -> Option<usize> {
        let (g, d) = (self.group(), self.head_dim);
        let states = d.checked_mul(d)?.checked_mul(g)?;
        states.checked_add(d.checked_mul(g.checked_add(2)?)?.checked_mul(self.conv_kernel - 1)?)
    }

    /// Floats of a state.
    pub(super) fn state_floats(&self) -> Option<usize> {
        self.head_floats()?.checked_mul(self.key_heads)
    }

    /// Bytes of the numbers of a state: the same after every token.
    ///
    /// # Errors
    /// [`TttError::Config`].
    pub fn state_bytes(&self) -> Result<usize, TttError> {
        self.validate()?;
        Ok(self.state_floats().unwrap_or(usize::MAX / 4) * 4)
    }

    /// Numbers that a fingerprint of the configuration is made of.
    pub(super) fn identity(&self) -> [u64; 6] {
        [
            self.hidden_size as u64,
            self.key_heads as u64,
            self.value_heads as u64,
            self.head_dim as u64,
            self.conv_kernel as u64,
            u64::from(self.norm_eps.to_bits()),
        ]
    }
}

/// Parameters of a layer besides its projections. Value heads are in groups: those of key head 0 first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeltaParameters {
    /// Weights of the decays, `[g h, D]`.
    pub alpha: Vec<f32>,
    /// Weights of the rates, `[g h, D]`.
    pub beta: Vec<f32>,
    /// Taps of the causal convolution, `[c, k]`: queries, keys, values; the last tap belongs to the current token.
    pub conv: Vec<f32>,
    /// Factor of the softplus of a decay, `[g h]`, below 0: `-exp(A_log)`.
    pub decay: Vec<f32>,
    /// Added to a decay before the softplus, `[g h]`.
    pub decay_bias: Vec<f32>,
    /// Gain of the norm of each head's output, `[d]`.
    pub norm: Vec<f32>,
}

impl DeltaParameters {
    /// The parameters from one buffer, one after the other in the order of the fields.
    ///
    /// # Errors
    /// [`TttError::Config`], [`TttError::Length`].
    pub fn from_flat(c: &DeltaConfig, values: &[f32]) -> Result<Self, TttError> {
        c.validate()?;
        let gates = c.value_heads * c.hidden_size;
        let taps = c.channels() * c.conv_kernel;
        let expected = c.parameters();
        if values.len() != expected {
            let tensor = "all parameters of a layer".to_owned();
            return Err(TttError::Length { tensor, expected, got: values.len() });
        }
        let mut rest = values;
        let mut take = |n: usize| rest.split_off(..n).unwrap_or_default().to_vec();
        Ok(Self {
            alpha: take(gates),
            beta: take(gates),
            conv: take(taps),
            decay: take(c.value_heads),
            decay_bias: take(c.value_heads),
            norm: take(c.head_dim),
        })
    }

    /// Checks every length.
    ///
    /// # Errors
    /// [`TttError::Config`], [`TttError::Length`].
    pub fn validate(&self, c: &DeltaConfig) -> Result<(), TttError> {
        c.validate()?;
        let gates = c.value_heads * c.hidden_size;
        let lengths = [
            ("alpha", &self.alpha, gates),
            ("beta", &self.beta, gates),
            ("conv", &self.conv, c.channels() * c.conv_kernel),
            ("decay", &self.decay, c.value_heads),
            ("decay_bias", &self.decay_bias, c.value_heads),
            ("norm", &self.norm, c.head_dim),
        ];
        match lengths.into_iter().find(|(_, values, expected)| values.len() != *expected) {
            None => Ok(()),
            Some((tensor, values, expected)) => {
                Err(TttError::Length { tensor: tensor.to_owned(), expected, got: values.len() })
            }
        }
    }
}
