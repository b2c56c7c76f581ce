//! Classifies texts by the label that the model finds most probable.

use crate::{Choice, ChooseBy, Error, Model, Session};

/// Classifies texts: the text is put into a template, and the most probable label wins.
///
/// Text before each text to classify; it is read once and its state kept for all of them.
///
/// ```no_run
/// use bitnet::{Classifier, Model};
/// let model = Model::load("model.gguf")?;
/// let mut topics = Classifier::new(&model, "Question: {text}\nTopic:", [" weather", " music", " travel"])?;
/// topics.calibrate("")?;
/// let choice = topics.classify("will it rain tomorow?")?;
/// println!("{}", topics.labels()[choice.index]);
/// # Ok::<(), bitnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Classifier {
    session: Session,
    template: String,
    labels: Vec<String>,
    by: ChooseBy,
    prior: Vec<f64>,
}

/// The placeholder of the text in a template.
const TEXT: &str = "{text}";

impl Classifier {
    /// A classifier with a template, in which `{text}` stands for the text and after which a label follows, and the
    /// labels as they follow there, including a leading space if needed. Labels are compared by their probability.
    ///
    /// # Errors
    /// [`Error::Template`] if `template` does not contain `{text}` exactly once; [`Error::NothingToChoose`] without
    /// labels.
    pub fn new<S: Into<String>>(
        model: &Model,
        template: impl Into<String>,
        labels: impl IntoIterator<Item = S>,
    ) -> Result<Self, Error> {
        let (template, labels) = (template.into(), labels.into_iter().map(Into::into).collect::<Vec<String>>());
        if template.matches(TEXT).count() != 1 {
            return Err(Error::Template { template });
        }
        if labels.is_empty() {
            return Err(Error::NothingToChoose);
        }
        Ok(Self { session: model.session(), template, labels, by: ChooseBy::default(), prior: Vec::new() })
    }

    /// Sets the comparison of the labels.
    #[must_use]
    pub fn by(mut self, by: ChooseBy) -> Self {
        self.by = by;
        self
    }

    /// The labels.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// From now on, subtracts the score of each label with a text without content, such as "" or "N/A": models prefer
    /// some labels for any text.
    ///
    /// Paper: arXiv:2102.09690, section 5 (with subtraction of logarithms).
    ///
    /// # Errors
    /// The errors of [`Classifier::classify`].
    pub fn calibrate(&mut self, neutral: &str) -> Result<(), Error> {
        self.prior.clear();
        let choice = self.classify(neutral)?;
        self.prior = choice.scores.iter().map(|s| s.by(self.by)).collect();
        Ok(())
    }

    /// The class of `text`: its number among the labels, and the probabilities of all.
    ///
    /// # Errors
    /// No tokenizer, a text that does not fit.
    pub fn classify(&mut self, text: &str) -> Result<Choice, Error> {
        let prompt = self.template.replace(TEXT, text);
        Choice::of(self.session.score_after(&prompt, &self.labels)?, &self.prior, self.by)
    }

    /// The class of each of `texts`, or its own error: the answers of [`Classifier::classify`], bit for bit. All texts go
    /// through the model together, several tokens of each in one pass over the weights, and each keeps its state until all
    /// are read: give a few dozen at a time.
    pub fn classify_all<S: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = S>) -> Vec<Result<Choice, Error>> {
        let prompts: Vec<String> = texts.into_iter().map(|t| self.template.replace(TEXT, t.as_ref())).collect();
        let scores = self.session.score_after_each(&prompts, &self.labels).into_iter();
        scores.map(|scores| Choice::of(scores?, &self.prior, self.by)).collect()
    }
}
