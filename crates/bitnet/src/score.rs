//! Log-probabilities of continuations, and choices among them.

use bitnet_model::scoring::log_probs;
use bitnet_model::sequence::{self, BatchInput};
use bitnet_model::{HeadRequest, ModelError, StepOutput};

use crate::exact::encode_exact;
use crate::{Batch, Error, Model, Session};

/// The probability of a text as a continuation.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Score {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// The natural logarithm of the probability of each token, given all before it.
    pub logprobs: Vec<f64>,
    /// Bytes of its text; 0 if only tokens are known.
    pub bytes: usize,
}

impl Score {
    /// The logarithm of the probability of the whole text; 0 without tokens.
    pub fn total(&self) -> f64 {
        self.logprobs.iter().sum()
    }
    /// [`Score::total`] by the number of tokens.
    pub fn per_token(&self) -> f64 {
        self.total() / self.logprobs.len().max(1) as f64
    }
    /// [`Score::total`] divided by the number of bytes, so that long texts and short ones can be compared for any
    /// tokens.
    pub fn per_byte(&self) -> f64 {
        self.total() / self.bytes.max(1) as f64
    }
    /// The score that `by` compares.
    pub fn by(&self, by: ChooseBy) -> f64 {
        match by {
            ChooseBy::Total => self.total(),
            ChooseBy::PerToken => self.per_token(),
            ChooseBy::PerByte => self.per_byte(),
        }
    }
}

/// The score by which texts are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChooseBy {
    /// Its probability. If one text begins with another, the shorter one always wins: end such texts with a line feed
    /// or a full stop.
    #[default]
    Total,
    /// The mean over its tokens.
    PerToken,
    /// The mean over its bytes.
    PerByte,
}

/// The best of several texts.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Choice {
    /// Which one, counted from 0; of equally good ones the first.
    pub index: usize,
    /// All of them, in the order in which they were given.
    pub scores: Vec<Score>,
    /// The share of each: the softmax of the compared scores. The shares add up to 1.
    pub probabilities: Vec<f64>,
}

impl Choice {
    /// The best of `scores` less `prior`, one for each.
    pub(crate) fn of(scores: Vec<Score>, prior: &[f64], by: ChooseBy) -> Result<Self, Error> {
        let none = scores.iter().map(|_| 0.0);
        let prior = prior.iter().copied().chain(none.skip(prior.len()));
        let values: Vec<f64> = scores.iter().zip(prior).map(|(s, p)| s.by(by) - p).collect();
        let best = (0..values.len()).reduce(|a, b| if values[b] > values[a] { b } else { a });
        let index = best.ok_or(Error::NothingToChoose)?;
        let weights: Vec<f64> = values.iter().map(|v| (v - values[index]).exp()).collect();
        let sum: f64 = weights.iter().sum();
        Ok(Self { index, scores, probabilities: weights.into_iter().map(|w| w / sum).collect() })
    }

    /// The probability of the best.
    pub fn probability(&self) -> f64 {
        self.probabilities[self.index]
    }
}

impl Session {
    /// The probability of each text as a continuation of this session, which does not change. The common beginning of
    /// the texts is read once, and their rests together, in one pass over the weights for all.
    ///
    /// The text is split into tokens separately, so it should begin where a token can: most vocabularies expect "
    /// Paris" rather than "Paris" after a word. [`Model::score`] splits prompt and text together.
    ///
    /// # Errors
    /// No tokenizer, an empty session, texts that do not fit.
    ///
    /// ```no_run
    /// # let model = bitnet::Model::load("model.gguf")?;
    /// let mut session = model.session();
    /// session.feed("The capital of France is")?;
    /// let scores = session.score([" Paris", " Rome", " a mountain"])?;
    /// assert!(scores[0].total() > scores[1].total());
    /// # Ok::<(), bitnet::Error>(())
    /// ```
    pub fn score<S: AsRef<str>>(&mut self, continuations: impl IntoIterator<Item = S>) -> Result<Vec<Score>, Error> {
        let tokenizer = self.model().tokenizer().ok_or(Error::NoTokenizer)?.clone();
        let (mut ids, mut bytes) = (Vec::new(), Vec::new());
        for text in continuations {
            let text = text.as_ref();
            ids.push(match encode_exact(&tokenizer, text)? {
                Some(ids) => ids,
                None => tokenizer.encode_text(text)?,
            });
            bytes.push(text.len());
        }
        let mut scores = self.score_ids(&ids)?;
        scores.iter_mut().zip(bytes).for_each(|(s, bytes)| s.bytes = bytes);
        Ok(scores)
    }

    /// Like [`Session::score`], with tokens as they are.
    ///
    /// # Errors
    /// An empty session, a token outside of the vocabulary, texts that do not fit.
    pub fn score_ids(&mut self, continuations: &[Vec<u32>]) -> Result<Vec<Score>, Error> {
        let ids: Vec<&[u32]> = continuations.iter().map(Vec::as_slice).collect();
        self.sequence().require(HeadRequest::Full)?;
        let logprobs = log_probs(self.sequence(), &ids)?;
        Ok(continuations
            .iter()
            .zip(logprobs)
            .map(|(ids, logprobs)| Score { ids: ids.clone(), logprobs, bytes: 0 })
            .collect())
    }

    /// The best of several texts as a continuation of this session, which stays as it is.
    ///
    /// # Errors
    /// The errors of [`Session::score`]; [`Error::NothingToChoose`] without texts.
    pub fn choose<S: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = S>, by: ChooseBy) -> Result<Choice, Error> {
        Choice::of(self.score(texts)?, &[], by)
    }

    /// [`Model::score`] in this session, which then holds the common beginning of prompt and texts.
    pub(crate) fn score_after<S: AsRef<str>>(
        &mut self,
        prompt: &str,
        continuations: impl IntoIterator<Item = S>,
    ) -> Result<Vec<Score>, Error> {
        let asked = Asked::new(self.model(), prompt, continuations)?;
        self.replace_with(&asked.prompt)?;
        self.score_asked(&asked)
    }

    /// [`Session::score_after`] for each of `prompts`, which go through the model together. This session then holds
    /// their common beginning.
    pub(crate) fn score_after_each<S: AsRef<str>>(
        &mut self,
        prompts: &[String],
        continuations: &[S],
    ) -> Vec<Result<Vec<Score>, Error>> {
        let model = self.model().clone();
        let all: Vec<Result<Asked, Error>> = prompts.iter().map(|p| Asked::new(&model, p, continuations)).collect();
        let ids: Vec<&[u32]> = all.iter().flatten().map(|asked| &asked.prompt[..]).collect();
        match self.read_together(&ids) {
            Ok(sessions) => {
                let mut sessions = sessions.into_iter();
                // One session for each prompt that has tokens.
                let mut score = |asked: Asked| match sessions.next() {
                    Some(mut session) => session.score_asked(&asked),
                    None => Err(ModelError::EmptyPrompt.into()),
                };
                all.into_iter().map(|asked| score(asked?)).collect()
            }
            // One of them does not fit, for example: alone, each shows whether the error is its own.
            Err(_) => prompts.iter().map(|prompt| self.score_after(prompt, continuations)).collect(),
        }
    }

    /// A session for each of `prompts`, which have a token each and are read together. This one then holds their common
    /// beginning.
    fn read_together(&mut self, prompts: &[&[u32]]) -> Result<Vec<Session>, Error> {
        let Some(first) = prompts.first() else { return Ok(Vec::new()) };
        let shared = prompts.iter().skip(1).fold(first.len(), |n, ids| same(&first[..n], ids));
        match shared {
            0 => self.clear(),
            _ => self.replace_with(&first[..shared])?,
        }
        let mut sessions: Vec<Session> = prompts.iter().map(|_| self.fork()).collect();
        for (session, ids) in sessions.iter().zip(prompts) {
            session.check(&ids[shared..])?;
        }
        let longest = prompts.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let mut out = StepOutput::default();
        for from in (shared..longest).step_by(Batch::PROMPT_STEP) {
            let part = |ids: &&[u32]| from..ids.len().min(from + Batch::PROMPT_STEP);
            let reading = sessions.iter_mut().zip(prompts).filter(|(_, ids)| !part(ids).is_empty());
            let mut inputs: Vec<BatchInput<'_>> = reading
                .map(|(session, ids)| {
                    let head = (part(ids).end == ids.len()).then_some(HeadRequest::Full);
                    BatchInput { sequence: session.sequence(), tokens: &ids[part(ids)], head }
                })
                .collect();
            sequence::step(self.model().engine(), &mut inputs, &mut out)?;
        }
        Ok(sessions)
    }

    /// The probabilities of the texts of `asked`, whose prompt this session holds.
    fn score_asked(&mut self, asked: &Asked) -> Result<Vec<Score>, Error> {
        let mut scores = self.score_ids(&asked.rests)?;
        scores.iter_mut().zip(&asked.bytes).for_each(|(s, bytes)| s.bytes = *bytes);
        Ok(scores)
    }
}

/// A prompt and the texts after it, as tokens.
struct Asked {
    /// At least one token.
    prompt: Vec<u32>,
    rests: Vec<Vec<u32>>,
    /// Bytes of the texts.
    bytes: Vec<usize>,
}

impl Asked {
    /// Prompt and texts are split into tokens together.
    fn new<S: AsRef<str>>(
        model: &Model,
        prompt: &str,
        continuations: impl IntoIterator<Item = S>,
    ) -> Result<Self, Error> {
        let bos = model.adds_bos();
        let mut before = model.encode(prompt, bos)?;
        let (mut wholes, mut bytes) = (Vec::new(), Vec::new());
        for text in continuations {
            wholes.push(model.encode(&format!("{prompt}{}", text.as_ref()), bos)?);
            bytes.push(text.as_ref().len());
        }
        // A token may end within the texts; then scoring begins before it, the same for all.
        let common = wholes.iter().fold(before.len(), |n, ids: &Vec<u32>| same(&before[..n], ids));
        if common == 0 {
            return Err(ModelError::EmptyPrompt.into());
        }
        before.truncate(common);
        let rests = wholes.into_iter().map(|ids| ids[common..].to_vec()).collect();
        Ok(Self { prompt: before, rests, bytes })
    }
}

/// The length of the common beginning.
fn same(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Model {
    /// The probability of each text after `prompt`. Prompt and text are split into tokens together, as when they are
    /// read. The prompt goes through the model once.
    ///
    /// # Errors
    /// No tokenizer, an empty prompt in a model without a beginning-of-text token, texts that do not fit.
    pub fn score<S: AsRef<str>>(
        &self,
        prompt: &str,
        continuations: impl IntoIterator<Item = S>,
    ) -> Result<Vec<Score>, Error> {
        self.session().score_after(prompt, continuations)
    }

    /// The best of several texts after `prompt`.
    ///
    /// ```no_run
    /// use bitnet::{ChooseBy, Model};
    /// let model = Model::load("model.gguf")?;
    /// let choice = model.choose("The weather was fine. I felt", [" happy", " sad"], ChooseBy::Total)?;
    /// println!("{} with {:.0} %", ["happy", "sad"][choice.index], 100.0 * choice.probability());
    /// # Ok::<(), bitnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`Model::score`]; [`Error::NothingToChoose`] without texts.
    pub fn choose<S: AsRef<str>>(
        &self,
        prompt: &str,
        texts: impl IntoIterator<Item = S>,
        by: ChooseBy,
    ) -> Result<Choice, Error> {
        Choice::of(self.score(prompt, texts)?, &[], by)
    }
}
