//! Shape and tasks of an extractor.

use std::collections::HashSet;

use super::features::{FeatureConfig, MAX_REACH};
use super::mixer::{Directions, EncoderMixer};
use crate::{Activation, ModelError};

/// Words of a text that are read; later ones are cut, see [`Utterance::cut`](super::Utterance::cut).
pub const MAX_WORDS: usize = 256;

/// How a text is recognised as out of scope. Every score is higher the more the text is in scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OosScore {
    /// `T ln sum_i exp(z_i / T)` with the logits `z` and the temperature `T` of the task (arXiv:2010.03759, negated
    /// energy).
    Energy,
    /// The largest logit.
    MaxLogit,
    /// The largest probability, which is the confidence.
    MaxProbability,
}

impl OosScore {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Energy, Self::MaxLogit, Self::MaxProbability];

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Energy => "energy",
            Self::MaxLogit => "max_logit",
            Self::MaxProbability => "max_probability",
        }
    }

    /// The score with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }
}

/// When a text is out of scope: its score is below the threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OosRule {
    /// The score that is compared.
    pub score: OosScore,
    /// The least score of a text in scope.
    pub threshold: f32,
}

/// One task of an extractor: the intents and slots that a text may have.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskConfig {
    /// The name, of letters, digits, `-` and `_`; it is part of names of tensors.
    pub name: String,
    /// The intents, one at least.
    pub intents: Vec<String>,
    /// The slots; empty in a task that only names the intent and so has no tag head.
    pub slots: Vec<String>,
    /// For each intent the slots (indices into `slots`) that a text of it may have, in ascending order; `None` if
    /// any may. Others are forbidden when tags are chosen.
    pub intent_slots: Option<Vec<Vec<usize>>>,
    /// The slots (indices into `slots`, in ascending order) that are found at most once in a text.
    pub once: Vec<usize>,
    /// When a text is out of scope; `None` for a task without such a rule.
    pub oos: Option<OosRule>,
    /// Divisor of the logits of intents before they become probabilities; 1 if nothing was calibrated.
    pub temperature: f32,
}

impl TaskConfig {
    /// A task of these intents and slots.
    pub fn new(name: &str, intents: Vec<String>, slots: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            intents,
            slots,
            intent_slots: None,
            once: Vec::new(),
            oos: None,
            temperature: 1.0,
        }
    }

    /// Tags of a word: `O`, then `B-x` and `I-x` for each slot; 0 without slots, where there is no tag head.
    pub fn tags(&self) -> usize {
        if self.slots.is_empty() { 0 } else { 1 + 2 * self.slots.len() }
    }
}

/// The tag of a word that belongs to no slot.
pub const TAG_OUTSIDE: usize = 0;

/// The tag of the first word of `slot`.
pub fn tag_begin(slot: usize) -> usize {
    1 + 2 * slot
}

/// The tag of a further word of `slot`.
pub fn tag_inside(slot: usize) -> usize {
    2 + 2 * slot
}

/// Whether tag `to` may follow `from`, the tag of the word before, `None` at the first word: `I-x` follows `B-x` and
/// `I-x` only.
///
/// ```
/// use bitnet_model::encoder::{TAG_OUTSIDE, tag_begin, tag_inside, tag_may_follow};
/// assert!(tag_may_follow(Some(tag_begin(3)), tag_inside(3)) && tag_may_follow(Some(tag_inside(3)), tag_inside(3)));
/// assert!(!tag_may_follow(Some(tag_begin(2)), tag_inside(3)) && !tag_may_follow(Some(TAG_OUTSIDE), tag_inside(3)));
/// assert!(!tag_may_follow(None, tag_inside(3)) && tag_may_follow(Some(tag_inside(2)), tag_begin(3)));
/// ```
pub fn tag_may_follow(from: Option<usize>, to: usize) -> bool {
    let inside = to != TAG_OUTSIDE && to.is_multiple_of(2);
    !inside || from == Some(to) || from == Some(to - 1)
}

/// Shape, formulas and tasks of an extractor.
#[derive(Clone, Debug, PartialEq)]
pub struct ExtractorConfig {
    /// Rows of the table of features.
    pub buckets: usize,
    /// Whether runs of characters are features, see [`FeatureConfig::runs`].
    pub runs: bool,
    /// How far pairs of words reach, see [`FeatureConfig::reach`].
    pub reach: usize,
    /// Width.
    pub hidden_size: usize,
    /// Layers.
    pub num_layers: usize,
    /// Heads of the mixers.
    pub num_heads: usize,
    /// The mixer of each layer; empty where all are attention.
    pub mixers: Vec<EncoderMixer>,
    /// Whether words know what stands behind them.
    pub directions: Directions,
    /// Width of the feed-forward blocks.
    pub intermediate_size: usize,
    /// Between gate and up: SiLU or squared ReLU.
    pub activation: Activation,
    /// Base of the rotary embedding.
    pub rope_theta: f32,
    /// Added to the mean square in norms.
    pub norm_eps: f32,
    /// The tasks, one at least; the first is used if no name is given.
    pub tasks: Vec<TaskConfig>,
}

impl ExtractorConfig {
    /// The usual shape: 16384 buckets, width 128, 2 layers of 4 heads and feed-forward blocks of 384, SiLU.
    pub fn new(tasks: Vec<TaskConfig>) -> Self {
        Self {
            buckets: 16384,
            runs: true,
            reach: 1,
            hidden_size: 128,
            num_layers: 2,
            num_heads: 4,
            mixers: Vec::new(),
            directions: Directions::Both,
            intermediate_size: 384,
            activation: Activation::Silu,
            rope_theta: 10000.0,
            norm_eps: 1e-5,
            tasks,
        }
    }

    /// Which features words have.
    pub fn features(&self) -> FeatureConfig {
        let after = self.directions == Directions::Both;
        FeatureConfig { buckets: self.buckets, runs: self.runs, reach: self.reach, after }
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads.max(1)
    }

    /// Input of the intent heads: mean and largest value of the last hidden states, mean of the word vectors.
    pub fn pooled_size(&self) -> usize {
        3 * self.hidden_size
    }

    /// Input of the tag heads: the last hidden state and the vector of a word.
    pub fn tag_input_size(&self) -> usize {
        2 * self.hidden_size
    }

    /// The index of the task called `name`; the first where no name is given.
    ///
    /// # Errors
    /// [`ModelError::UnknownTask`].
    pub fn task(&self, name: Option<&str>) -> Result<usize, ModelError> {
        let Some(name) = name else { return Ok(0) };
        self.tasks.iter().position(|t| t.name == name).ok_or_else(|| ModelError::UnknownTask {
            name: name.to_owned(),
            known: self.tasks.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ModelError::Config`] names the field, its value and what it must be.
    pub fn validate(&self) -> Result<(), ModelError> {
        let bad = |field, value: &dyn std::fmt::Display, must| {
            Err(ModelError::Config { field, value: value.to_string(), must })
        };
        if !(1..=1 << 22).contains(&self.buckets) {
            return bad("buckets", &self.buckets, "between 1 and 4194304");
        }
        if self.reach > MAX_REACH {
            return bad("reach", &self.reach, "at most 2");
        }
        let h = self.hidden_size;
        if !(32..=2048).contains(&h) || !h.is_multiple_of(32) {
            return bad("hidden_size", &h, "a multiple of 32 between 32 and 2048");
        }
        if !(1..=64).contains(&self.num_layers) {
            return bad("num_layers", &self.num_layers, "between 1 and 64");
        }
        let heads = self.num_heads;
        if heads == 0 || !h.is_multiple_of(heads) || !(h / heads).is_multiple_of(2) {
            return bad("num_heads", &heads, "a number of heads of an even width that together are hidden_size");
        }
        let f = self.intermediate_size;
        if f < 32 || f > 16 * h || !f.is_multiple_of(32) {
            return bad("intermediate_size", &f, "a multiple of 32, between 32 and 16 times hidden_size");
        }
        match self.activation {
            Activation::Silu | Activation::Relu2 => (),
            Activation::GeluTanh => return bad("activation", &"gelu_tanh", "silu or relu2"),
        }
        if !(1.0..=1e9).contains(&self.rope_theta) {
            return bad("rope_theta", &self.rope_theta, "between 1 and 1e9");
        }
        if !(1e-12..=1e-2).contains(&self.norm_eps) {
            return bad("norm_eps", &self.norm_eps, "between 1e-12 and 0.01");
        }
        self.validate_mixers()?;
        if !(1..=64).contains(&self.tasks.len()) {
            return bad("tasks", &self.tasks.len(), "between 1 and 64 tasks");
        }
        self.tasks.iter().try_for_each(TaskConfig::validate)?;
        all_differ("tasks.name", self.tasks.iter().map(|t| &t.name))
    }
}

/// Longest name of an intent or a slot, in bytes.
const MAX_NAME: usize = 256;

/// Refuses a name that occurs twice.
fn all_differ<'a>(field: &'static str, names: impl Iterator<Item = &'a String>) -> Result<(), ModelError> {
    let mut seen = HashSet::new();
    for name in names {
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            let value: String = name.chars().take(40).flat_map(char::escape_debug).collect();
            let must = "a name of 1 to 256 bytes without control characters";
            return Err(ModelError::Config { field, value: format!("'{value}'"), must });
        }
        if !seen.insert(name) {
            return Err(ModelError::Config { field, value: format!("'{name}'"), must: "there once" });
        }
    }
    Ok(())
}

impl TaskConfig {
    fn validate(&self) -> Result<(), ModelError> {
        let bad = |field, value: String, must| Err(ModelError::Config { field, value, must });
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.len() > 64 || !self.name.chars().all(plain) || self.name.is_empty() {
            let shown: String = self.name.chars().take(40).flat_map(char::escape_debug).collect();
            return bad("tasks.name", format!("'{shown}'"), "1 to 64 letters, digits, '-' or '_' of ASCII");
        }
        if !(1..=4096).contains(&self.intents.len()) {
            return bad("tasks.intents", format!("{} intents", self.intents.len()), "between 1 and 4096 intents");
        }
        if self.slots.len() > 1024 {
            return bad("tasks.slots", format!("{} slots", self.slots.len()), "at most 1024 slots");
        }
        all_differ("tasks.intents", self.intents.iter())?;
        all_differ("tasks.slots", self.slots.iter())?;
        if let Some(lists) = &self.intent_slots
            && lists.len() != self.intents.len()
        {
            return bad("tasks.intent_slots", format!("{} lists", lists.len()), "one list for each intent");
        }
        let lists = self.intent_slots.iter().flatten().map(|list| ("tasks.intent_slots", list));
        for (field, list) in lists.chain([("tasks.once", &self.once)]) {
            let ascending = list.windows(2).all(|pair| pair[0] < pair[1]);
            if !ascending || list.last().is_some_and(|last| *last >= self.slots.len()) {
                return bad(field, format!("{list:.40?}"), "ascending numbers of slots, the first slot being 0");
            }
        }
        if let Some(rule) = self.oos.filter(|rule| !rule.threshold.is_finite()) {
            return bad("tasks.oos.threshold", rule.threshold.to_string(), "a finite number");
        }
        if !(1e-3..=1e3).contains(&self.temperature) {
            return bad("tasks.temperature", self.temperature.to_string(), "between 0.001 and 1000");
        }
        Ok(())
    }
}
