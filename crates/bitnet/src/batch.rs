//! Batched decoding of several sessions.

use bitnet_model::sequence::{self, BatchInput};
use bitnet_model::{ModelError, StepOutput};

use crate::clock::Instant;
use crate::generation_state::GenerationState;
use crate::{Chunk, Error, GenerateOptions, Model, Output, Session};

/// Sessions of one model that are decoded together: each step takes one pass over the weights for all of them, which
/// costs little more than for one if decoding is bound by memory. Sessions join and leave between steps; the text of
/// each is the same as if it had been generated alone.
///
/// ```no_run
/// use bitnet::{Batch, GenerateOptions, Model};
/// # fn main() -> Result<(), bitnet::Error> {
/// let model = Model::load("model.gguf")?;
/// let mut batch = Batch::new(&model);
/// for name in ["Anna", "Ben"] {
///     let prompt = model.encode(&format!("Once upon a time, {name}"), true)?;
///     batch.join(model.session(), &prompt, GenerateOptions::default().max_tokens(50))?;
/// }
/// while !batch.is_finished() {
///     for (id, chunk) in batch.step() {
///         println!("{id:?}: {}", chunk?.text);
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Batch {
    model: Model,
    texts: Vec<Text>,
    next_id: u64,
    out: StepOutput,
}

/// Which session of a [`Batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(u64);

#[derive(Debug)]
struct Text {
    id: SequenceId,
    session: Session,
    progress: GenerationState,
    prompt: Vec<u32>,
    /// Tokens of the prompt that were read.
    read: usize,
    /// Tokens of the prompt that this step reads.
    share: usize,
}

/// Options that were checked for a model, for a session that is to join a [`Batch`]. To make it may take a while (a
/// grammar is compiled); that can happen on any thread, while another one steps the batch.
///
/// ```no_run
/// use bitnet::{Batch, GenerateOptions, Model, Prepared};
/// # fn main() -> Result<(), bitnet::Error> {
/// let model = Model::load("model.gguf")?;
/// let prepared = Prepared::new(&model, GenerateOptions::default().max_tokens(50))?;
/// let prompt = model.encode("Once upon a time", true)?;
/// Batch::new(&model).join_prepared(model.session(), &prompt, prepared)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Prepared {
    model: Model,
    progress: GenerationState,
}

impl Prepared {
    /// Checks `options` and makes everything of them that needs no session.
    ///
    /// # Errors
    /// An option out of range, a constraint that cannot be used.
    pub fn new(model: &Model, options: GenerateOptions) -> Result<Self, Error> {
        Ok(Self { model: model.clone(), progress: GenerationState::new(model, options)? })
    }

    /// Approximate memory of the constraint's automata, in bytes; 0 without one. They grow while the text is made, to
    /// `ConstraintLimits::automata_bytes` at most.
    pub fn constraint_bytes(&self) -> usize {
        self.progress.constraint_bytes()
    }
}

impl Text {
    fn is_finished(&self) -> bool {
        self.progress.finished().is_some()
    }
    /// Tokens of the prompt that were not read yet.
    fn rest(&self) -> usize {
        self.prompt.len() - self.read
    }
    /// Whether the model must read in this step before the next token is known.
    fn reads(&self) -> bool {
        if self.rest() > 0 { self.share > 0 } else { !self.progress.is_forced() }
    }
}

impl Batch {
    /// Prompt tokens of one session in a step, and of all sessions together while others generate: more would delay
    /// those.
    pub const PROMPT_STEP: usize = 64;

    /// An empty batch for sessions of `model`.
    pub fn new(model: &Model) -> Self {
        Self { model: model.clone(), texts: Vec::new(), next_id: 0, out: StepOutput::default() }
    }

    /// Lets `session` read `prompt` and generate, from the next step on.
    ///
    /// # Errors
    /// A session of another model, a token outside of the vocabulary, a prompt that does not fit, nothing to continue,
    /// an option out of range.
    pub fn join(&mut self, session: Session, prompt: &[u32], options: GenerateOptions) -> Result<SequenceId, Error> {
        let prepared = Prepared::new(&self.model, options)?;
        self.join_prepared(session, prompt, prepared)
    }

    /// Like [`Batch::join`], with options that were checked before.
    ///
    /// # Errors
    /// A session or options of another model, a token outside of the vocabulary, a prompt that does not fit, nothing to
    /// continue.
    pub fn join_prepared(&mut self, session: Session, prompt: &[u32], prepared: Prepared) -> Result<SequenceId, Error> {
        let Prepared { model, mut progress } = prepared;
        if [session.model(), &model].iter().any(|m| !m.engine().is(self.model.engine())) {
            return Err(ModelError::ForeignSequence.into());
        }
        if session.is_empty() && prompt.is_empty() {
            return Err(ModelError::EmptyPrompt.into());
        }
        session.check(prompt)?;
        progress.stats.prompt_tokens = prompt.len();
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.texts.push(Text { id, session, progress, prompt: prompt.to_vec(), read: 0, share: 0 });
        Ok(id)
    }

    /// Number of sessions, finished ones included.
    pub fn len(&self) -> usize {
        self.texts.len()
    }
    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
    /// Whether every session has finished.
    pub fn is_finished(&self) -> bool {
        self.texts.iter().all(Text::is_finished)
    }

    /// Approximate memory of the automata of a session's constraint, in bytes; 0 without one, or for a session that is
    /// not there.
    pub fn constraint_bytes(&self, id: SequenceId) -> usize {
        self.texts.iter().find(|t| t.id == id).map_or(0, |t| t.progress.constraint_bytes())
    }

    /// The session with this id as it is now, finished or not: for its length and the bytes of its state.
    pub fn session(&self, id: SequenceId) -> Option<&Session> {
        self.texts.iter().find(|t| t.id == id).map(|t| &t.session)
    }

    /// Removes a session, finished or not, with its output.
    pub fn leave(&mut self, id: SequenceId) -> Option<(Session, Output)> {
        let at = self.texts.iter().position(|t| t.id == id)?;
        let text = self.texts.remove(at);
        Some((text.session, text.progress.output()))
    }

    /// Removes all finished sessions, with their outputs, in the order in which they joined. One that ended with an
    /// error, which [`Batch::step`] returned, has [`FinishReason::Cancelled`](crate::FinishReason::Cancelled).
    pub fn take_finished(&mut self) -> Vec<(SequenceId, Session, Output)> {
        let finished = self.texts.extract_if(.., |t| t.is_finished());
        finished.map(|t| (t.id, t.session, t.progress.output())).collect()
    }

    /// One pass over the weights: the next token of every session that is not finished, as long as its prompt has been
    /// read.
    ///
    /// An error ends only the session that it belongs to.
    pub fn step(&mut self) -> Vec<(SequenceId, Result<Chunk, Error>)> {
        let began = Instant::now();
        let mut chunks = Vec::with_capacity(self.texts.len());
        for text in &mut self.texts {
            if !text.is_finished()
                && let Some(last) = text.progress.cancelled()
            {
                chunks.push((text.id, Ok(last)));
            }
            if !text.is_finished()
                && text.read == text.prompt.len()
                && let Err(error) = text.session.make_room(1, &mut text.progress)
            {
                text.progress.cancel();
                chunks.push((text.id, Err(error)));
            }
        }
        let mut active: Vec<&mut Text> = self.texts.iter_mut().filter(|t| !t.is_finished()).collect();
        let rests: Vec<usize> = active.iter().map(|t| t.rest()).collect();
        for (text, share) in active.iter_mut().zip(shares(&rests)) {
            text.share = share;
        }
        // Texts whose next token is certain need no pass, and prompts whose turn it is not wait for one.
        let mut reading: Vec<&mut Text> = active.iter_mut().map(|t| &mut **t).filter(|t| t.reads()).collect();
        if let Err(error) = read(&self.model, &mut reading, &mut self.out) {
            // Nothing has changed. Alone, each text shows whether the error is its own.
            match &mut reading[..] {
                [text] => {
                    text.progress.cancel();
                    chunks.push((text.id, Err(error.into())));
                }
                texts => {
                    for text in texts {
                        if let Err(error) = read(&self.model, std::slice::from_mut(text), &mut self.out) {
                            text.progress.cancel();
                            chunks.push((text.id, Err(error.into())));
                        }
                    }
                }
            }
        }
        for text in active {
            let Text { id, session, progress, prompt, read, .. } = text;
            if progress.finished().is_some() {
                continue;
            }
            if *read < prompt.len() {
                progress.stats.prefill += began.elapsed();
                continue;
            }
            let chunk = progress.choose(session.sequence()).and_then(|token| progress.accept(token, session));
            progress.stats.decode += began.elapsed();
            if chunk.is_err() {
                progress.cancel();
            }
            chunks.push((*id, chunk));
            chunks.extend(progress.take_failure().map(|failure| (*id, Err(failure))));
        }
        chunks
    }
}

/// How much of each prompt a step reads, given the number of remaining tokens of each.
///
/// While a text without remaining prompt generates, all prompts together read no more than one of them alone may. Half
/// of that is for the one that joined first, so that it finishes, and the rest for the shortest, so that none waits for
/// long ones.
fn shares(rests: &[usize]) -> Vec<usize> {
    let most = |rest: usize| rest.min(Batch::PROMPT_STEP);
    if !rests.contains(&0) {
        return rests.iter().copied().map(most).collect();
    }
    let mut shares = vec![0; rests.len()];
    let mut left = Batch::PROMPT_STEP;
    let mut give = |at: usize, limit: usize| {
        let more = rests[at].saturating_sub(shares[at]).min(limit).min(left);
        shares[at] += more;
        left -= more;
    };
    let mut order: Vec<usize> = (0..rests.len()).filter(|at| rests[*at] > 0).collect();
    let Some(&first) = order.first() else { return shares };
    give(first, Batch::PROMPT_STEP / 2);
    order.sort_by_key(|at| rests[*at]);
    for at in order {
        give(at, Batch::PROMPT_STEP);
    }
    shares
}

/// Lets every text read its share of its remaining prompt, or the token chosen last.
fn read(model: &Model, texts: &mut [&mut Text], out: &mut StepOutput) -> Result<(), ModelError> {
    if texts.is_empty() {
        return Ok(());
    }
    let mut inputs: Vec<BatchInput<'_>> = texts
        .iter_mut()
        .map(|text| {
            let rest = &text.prompt[text.read..];
            let tokens = &rest[..rest.len().min(text.share)];
            let last = tokens.len() == rest.len();
            let head = last.then(|| text.progress.head_request(text.session.len() + tokens.len()));
            BatchInput { sequence: text.session.sequence(), tokens, head }
        })
        .collect();
    sequence::step(model.engine(), &mut inputs, out)?;
    drop(inputs);
    for text in texts {
        text.read = (text.read + text.share).min(text.prompt.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn prompts_share_a_step_while_others_generate() {
        // No sequence generates: each reads as much as allowed.
        assert_eq!(shares(&[1000, 30, 500]), [64, 30, 64]);
        // The first and the shortest.
        assert_eq!(shares(&[1000, 0, 500, 10]), [32, 0, 22, 10]);
        assert_eq!(shares(&[0, 1000, 500, 400]), [0, 32, 0, 32]);
        assert_eq!(shares(&[0, 1000]), [0, 64]);
        assert_eq!(shares(&[5, 0, 7, 0]), [5, 0, 7, 0]);
        assert_eq!(shares(&[40, 0, 20, 20]), [32, 0, 20, 12]);
        assert_eq!(shares(&[0, 0]), [0, 0]);
        assert!(shares(&[]).is_empty());
    }

    #[test]
    fn every_prompt_comes_to_its_end() {
        let mut rests = vec![0, 700, 900, 300, 5000];
        let mut steps = 0;
        while rests.iter().any(|rest| *rest > 0) {
            // Short ones keep coming.
            rests.push(60);
            let shares = shares(&rests);
            assert!(shares.iter().sum::<usize>() <= 64);
            rests.iter_mut().zip(shares).for_each(|(rest, share)| *rest -= share);
            steps += 1;
            if rests[..5].iter().all(|rest| *rest == 0) {
                break;
            }
            assert!(steps < 400, "{rests:?}");
        }
    }
}
