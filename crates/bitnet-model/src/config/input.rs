//! How the inputs of projections become codes: transformed or not, in 16, 8 or 4 bits.
//!
//! Paper: arXiv:2504.18415 (BitNet v2).

use ternary_kernels::ops::{check_hadamard_block, largest_hadamard_block};

use super::{ModelConfig, Projection};
use crate::ModelError;

/// Bits of an activation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ActivationBits {
    /// Int8 by the largest absolute value of a token.
    #[default]
    Eight,
    /// Int4 by the mean absolute value of a token.
    Four,
    /// Int16 by the largest absolute value of a token: codes within -32639..=32639, so that each is two int8 digits.
    /// For weights with a scale per group, whose models were trained with 16-bit activations.
    Sixteen,
    /// Int8 by the largest absolute value of each group of a token, with the length of the groups of weights that have
    /// a scale. No file requests it: it is an option of the engine for weights with a scale per group, with half the
    /// products of [`ActivationBits::Sixteen`] and a hundred times its error.
    EightByGroup,
}

impl ActivationBits {
    /// The variants that files can name.
    pub const ALL: [ActivationBits; 3] = [ActivationBits::Eight, ActivationBits::Four, ActivationBits::Sixteen];

    /// Whether codes are more than one integer of at most 8 bits with one scale for each token: only group kernels
    /// multiply these.
    pub fn is_wide(self) -> bool {
        match self {
            ActivationBits::Eight | ActivationBits::Four => false,
            ActivationBits::Sixteen | ActivationBits::EightByGroup => true,
        }
    }

    /// 16, 8 or 4.
    pub fn number(self) -> u32 {
        match self {
            ActivationBits::Eight | ActivationBits::EightByGroup => 8,
            ActivationBits::Four => 4,
            ActivationBits::Sixteen => 16,
        }
    }

    /// The variant for a number of bits in files.
    pub fn from_number(bits: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|b| u64::from(b.number()) == bits)
    }
}

impl std::fmt::Display for ActivationBits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ActivationBits::Eight | ActivationBits::Four | ActivationBits::Sixteen => {
                write!(f, "{} bits", self.number())
            }
            ActivationBits::EightByGroup => f.write_str("8 bits, a scale for each group"),
        }
    }
}

/// Transformation of a row of activations before a ternary product. The default is that of BitNet b1.58: only int8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct InputForm {
    /// Block of the Hadamard transform before quantisation; `None` if there is no transform.
    pub hadamard: Option<usize>,
    /// Bits of a code.
    pub bits: ActivationBits,
}

impl std::fmt::Display for InputForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.hadamard {
            Some(block) => write!(f, "hadamard block {block}, {}", self.bits),
            None => self.bits.fmt(f),
        }
    }
}

/// The forms of the rows that a layer quantises. Projections that read the same row share its form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct InputForms {
    /// Input of the mixer's projections: q, k, v, and the gate of a test-time-training layer.
    pub mixer: InputForm,
    /// Input of the output projection.
    pub output: InputForm,
    /// Input of gate and up.
    pub feed_forward: InputForm,
    /// Input of the down projection.
    pub down: InputForm,
}

impl InputForms {
    /// The forms of BitNet v2 for models of `config`'s shape: a Hadamard transform before the output and the down
    /// projection, in the largest blocks that fit (the whole row if its length is a power of two), and `bits`
    /// everywhere. Training begins with 8 bits and ends with 4.
    ///
    /// ```
    /// use bitnet_model::{ActivationBits, InputForms, ModelConfig};
    /// let mut c = ModelConfig::new(96, 512, 1536, 2, 4, 2);
    /// c.inputs = InputForms::bitnet_v2(&c, ActivationBits::Four);
    /// assert_eq!((c.inputs.output.hadamard, c.inputs.down.hadamard), (Some(512), Some(512)));
    /// c.validate().unwrap();
    /// ```
    pub fn bitnet_v2(config: &ModelConfig, bits: ActivationBits) -> Self {
        Self::default().with_bits(bits).with_hadamard(config)
    }

    /// These forms with `bits` for every projection.
    #[must_use]
    pub fn with_bits(mut self, bits: ActivationBits) -> Self {
        for form in [&mut self.mixer, &mut self.output, &mut self.feed_forward, &mut self.down] {
            form.bits = bits;
        }
        self
    }

    /// These forms with transforms before the output and the down projection of a model of `config`'s shape, and no
    /// other transforms.
    #[must_use]
    pub fn with_hadamard(mut self, config: &ModelConfig) -> Self {
        (self.mixer.hadamard, self.feed_forward.hadamard) = (None, None);
        self.output.hadamard = Some(largest_hadamard_block(config.num_attention_heads * config.head_dim));
        self.down.hadamard = Some(largest_hadamard_block(config.intermediate_size));
        self
    }

    /// Projections whose forms files name individually.
    pub const NAMED: [Projection; 7] = Projection::OF_ATTENTION;

    /// The input of `p`.
    pub fn of(&self, p: Projection) -> InputForm {
        let mut forms = *self;
        *forms.of_mut(p)
    }

    /// The input of `p`, for changing it for all projections that read the same row.
    pub fn of_mut(&mut self, p: Projection) -> &mut InputForm {
        match p {
            Projection::O => &mut self.output,
            Projection::Gate | Projection::Up => &mut self.feed_forward,
            Projection::Down => &mut self.down,
            _ => &mut self.mixer,
        }
    }

    /// The forms that a file gives for single projections; those of one row must agree.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming the projection that differs from an earlier one.
    pub fn together(entries: &[(Projection, InputForm)]) -> Result<Self, ModelError> {
        let mut forms = Self::default();
        for (i, &(p, form)) in entries.iter().enumerate() {
            let before = entries[..i].iter().find(|(q, _)| forms.same_row(*q, p));
            if before.is_some_and(|(_, f)| *f != form) {
                let must = "the same for all projections that read the same row (q, k, v; gate, up)";
                let value = format!(
                    "{form}, and {}",
                    before.map_or_else(String::new, |(q, f)| format!("{} has {f}", q.name()))
                );
                return Err(ModelError::Config { field: p.name(), value, must });
            }
            *forms.of_mut(p) = form;
        }
        Ok(forms)
    }

    fn same_row(mut self, a: Projection, b: Projection) -> bool {
        let of_a: *const InputForm = self.of_mut(a);
        std::ptr::eq(of_a, self.of_mut(b))
    }

    /// Whether all forms are those of BitNet b1.58.
    pub fn are_plain(&self) -> bool {
        *self == Self::default()
    }

    /// All four forms.
    pub fn all(&self) -> [InputForm; 4] {
        [self.mixer, self.output, self.feed_forward, self.down]
    }
}

impl ModelConfig {
    /// How the input of `p` becomes codes.
    pub fn input_form(&self, p: Projection) -> InputForm {
        self.inputs.of(p)
    }

    /// Checks that every transform fits its row.
    pub(super) fn validate_inputs(&self) -> Result<(), ModelError> {
        let rows = [
            ("hadamard block of q_proj, k_proj and v_proj", self.inputs.mixer, self.hidden_size),
            ("hadamard block of o_proj", self.inputs.output, self.num_attention_heads * self.head_dim),
            ("hadamard block of gate_proj and up_proj", self.inputs.feed_forward, self.hidden_size),
            ("hadamard block of down_proj", self.inputs.down, self.intermediate_size),
        ];
        for (field, form, len) in rows {
            if let Some(block) = form.hadamard
                && check_hadamard_block(len, block).is_err()
            {
                let must = "a power of two from 2 on that divides the projection's input width";
                return Err(ModelError::Config { field, value: format!("{block}, for rows of {len}"), must });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_do_not_fit_are_refused_by_name() {
        let with = |change: &dyn Fn(&mut InputForms)| {
            let mut c = ModelConfig::new(96, 48, 77 * 2, 1, 4, 2);
            change(&mut c.inputs);
            c.validate().map_err(|e| e.to_string())
        };
        with(&|_| ()).unwrap();
        with(&|i| i.output.hadamard = Some(16)).unwrap();
        with(&|i| i.down.hadamard = Some(2)).unwrap();
        type Case<'a> = (&'a dyn Fn(&mut InputForms), [&'a str; 2]);
        let cases: [Case<'_>; 4] = [
            (&|i| i.output.hadamard = Some(32), ["o_proj", "rows of 48"]),
            (&|i| i.down.hadamard = Some(4), ["down_proj", "rows of 154"]),
            (&|i| i.mixer.hadamard = Some(0), ["q_proj", "is 0"]),
            (&|i| i.feed_forward.hadamard = Some(3), ["gate_proj", "is 3"]),
        ];
        for (change, words) in cases {
            let error = with(change).unwrap_err();
            assert!(words.iter().all(|w| error.contains(w)), "{error}");
        }
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let plain = InputForm::default();
        let four = InputForm { bits: ActivationBits::Four, ..plain };
        let ok =
            InputForms::together(&[(Projection::Q, plain), (Projection::O, four), (Projection::V, plain)]).unwrap();
        assert_eq!((ok.mixer, ok.output), (plain, four));
        for (a, b) in [(Projection::Q, Projection::V), (Projection::Gate, Projection::Up)] {
            let error = InputForms::together(&[(a, plain), (b, four)]).unwrap_err().to_string();
            assert!(error.contains(a.name()) && error.contains(b.name()) && error.contains("4 bits"), "{error}");
        }
    }

    #[test]
    fn projections_of_one_row_have_one_form() {
        let mut forms = InputForms::default();
        assert!(forms.are_plain());
        forms.of_mut(Projection::K).bits = ActivationBits::Four;
        assert!(!forms.are_plain() && forms.of(Projection::V) == forms.of(Projection::Q));
        assert_eq!(forms.of(Projection::V).bits, ActivationBits::Four);
        assert_eq!(forms.of(Projection::O), InputForm::default());
        assert_eq!(ActivationBits::from_number(4), Some(ActivationBits::Four));
        assert_eq!(ActivationBits::from_number(2), None);
    }
}
