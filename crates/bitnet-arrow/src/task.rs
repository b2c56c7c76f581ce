//! Tasks: the questions that a model answers for each row.

use bitnet::{ChooseBy, EmbedOptions, SamplingOptions};

use crate::Template;

/// The question that is answered for each row. Each variant's type documents its columns.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Task {
    /// Intent and slots.
    Extract(Extract),
    /// A vector.
    Embed(Embed),
    /// The likeliest of some texts.
    Choose(Choose),
    /// The probability of the text.
    Score(Score),
    /// A text that follows.
    Generate(Generate),
}

impl Task {
    /// Its name: `extract`, `embed`, `choose`, `score` or `generate`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Extract(_) => "extract",
            Self::Embed(_) => "embed",
            Self::Choose(_) => "choose",
            Self::Score(_) => "score",
            Self::Generate(_) => "generate",
        }
    }
}

/// Intent and slots of an utterance, by an extractor.
///
/// Columns: `intent` (Utf8), the likeliest even if the text is out of scope; `probability` (Float32); `out_of_scope`
/// (Boolean); `slots` (List of Struct of `name` and `value` (Utf8), `start` and `end` (UInt32), in bytes of the text);
/// `cut` (Boolean), whether the text has more words than are read.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Extract {
    /// Task of the extractor; `None` is its first.
    pub task: Option<String>,
}

/// A vector of each text, by an extractor, an embedding model or a language model.
///
/// Column: `embedding` (FixedSizeList of Float32, as long as [`bitnet::Embedder::dimensions`]).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Embed {
    /// Pooling and length of the vectors.
    pub options: EmbedOptions,
    /// The text around each row's text, for example the instruction that a model expects before a query.
    pub template: Template,
}

/// The likeliest of some texts after each row's text, by a language model ([`bitnet::Classifier`]).
///
/// Columns: `choice` (Utf8), without surrounding spaces; `probability` (Float32), its share among the choices.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Choose {
    /// The texts as they follow, a leading space included if needed.
    pub choices: Vec<String>,
    /// The text around each row's text.
    pub template: Template,
    /// The score by which texts are compared.
    pub by: ChooseBy,
}

/// The probability of each text, by a language model.
///
/// Columns: `logprob` (Float64), the natural logarithm of the probability of the whole text; `tokens` (UInt32), their
/// number. The perplexity of the text is `exp(-logprob / tokens)`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Score {
    /// The text before each row's text, which is read and not scored; `{text}` stands at its end.
    pub template: Template,
}

/// A text that follows each row's text, by a language model.
///
/// Columns: `generated` (Utf8); `finish_reason` (Utf8): `stop`, or `length` if a limit cut the text.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Generate {
    /// The text around each row's text.
    pub template: Template,
    /// Whether the text is a message, put into the model's chat template.
    pub chat: bool,
    /// An instruction before the message, with [`Generate::chat`].
    pub system: Option<String>,
    /// Sampling options; greedy by default. Each row has the same seed.
    pub sampling: SamplingOptions,
    /// Most new tokens, 256 by default.
    pub max_tokens: usize,
    /// Texts that end the generation; they are not part of the result.
    pub stop: Vec<String>,
    /// The constraint that each text must satisfy; a text that a limit cuts before that is a row that fails.
    #[cfg(feature = "constrain")]
    pub constraint: Option<bitnet::Constraint>,
}

impl Default for Generate {
    fn default() -> Self {
        Self {
            template: Template::default(),
            chat: false,
            system: None,
            sampling: SamplingOptions::greedy(),
            max_tokens: 256,
            stop: Vec::new(),
            #[cfg(feature = "constrain")]
            constraint: None,
        }
    }
}

impl Extract {
    /// The task of the extractor that is called `name`.
    pub fn task(name: impl Into<String>) -> Self {
        Self { task: Some(name.into()) }
    }
}

impl Embed {
    /// Sets the options of the vectors.
    #[must_use]
    pub fn options(mut self, options: EmbedOptions) -> Self {
        self.options = options;
        self
    }
    /// Sets the text around each row's text.
    #[must_use]
    pub fn template(mut self, template: Template) -> Self {
        self.template = template;
        self
    }
}

impl Choose {
    /// A choice among `choices`.
    pub fn new<S: Into<String>>(choices: impl IntoIterator<Item = S>) -> Self {
        let choices = choices.into_iter().map(Into::into).collect();
        Self { choices, template: Template::default(), by: ChooseBy::default() }
    }
    /// Sets the text around each row's text.
    #[must_use]
    pub fn template(mut self, template: Template) -> Self {
        self.template = template;
        self
    }
    /// Sets the score by which texts are compared.
    #[must_use]
    pub fn by(mut self, by: ChooseBy) -> Self {
        self.by = by;
        self
    }
}

impl Score {
    /// Sets the text before each row's text.
    #[must_use]
    pub fn template(mut self, template: Template) -> Self {
        self.template = template;
        self
    }
}

impl Generate {
    /// Sets the text around each row's text.
    #[must_use]
    pub fn template(mut self, template: Template) -> Self {
        self.template = template;
        self
    }
    /// Puts each text into the model's chat template, after an instruction if there is one.
    #[must_use]
    pub fn chat(mut self, system: Option<String>) -> Self {
        (self.chat, self.system) = (true, system);
        self
    }
    /// Sets the sampling options.
    #[must_use]
    pub fn sampling(mut self, sampling: SamplingOptions) -> Self {
        self.sampling = sampling;
        self
    }
    /// At most `n` new tokens.
    #[must_use]
    pub fn max_tokens(mut self, n: usize) -> Self {
        self.max_tokens = n;
        self
    }
    /// Adds a stop text.
    #[must_use]
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        self.stop.push(text.into());
        self
    }
    /// Sets the constraint.
    #[cfg(feature = "constrain")]
    #[must_use]
    pub fn constraint(mut self, constraint: bitnet::Constraint) -> Self {
        self.constraint = Some(constraint);
        self
    }
}

macro_rules! from {
    ($($task:ident),+) => {$(
        impl From<$task> for Task {
            fn from(task: $task) -> Self {
                Self::$task(task)
            }
        }
    )+};
}
from!(Extract, Embed, Choose, Score, Generate);
