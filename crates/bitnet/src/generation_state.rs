//! State of a generation between two tokens: one type for a session alone and for one in a batch.

use bitnet_model::sampling::{CancelToken, FinishReason, LogitBias, Sampler};
use bitnet_model::sequence::Speculation;
use bitnet_model::{HeadRequest, Sequence};
use loader::tokenizer::{StopStrings, StreamDecoder};

#[cfg(feature = "constrain")]
use crate::constrain;
use crate::logprobs::Recorder;
use crate::{Chunk, Error, GenerateOptions, Model, Output, Session, Stats, TokenLogprob, WhenFull};

/// A generation without its session.
pub(crate) struct GenerationState {
    options: GenerateOptions,
    sampler: Sampler,
    decoder: Option<StreamDecoder>,
    stops: StopStrings,
    ids: Vec<u32>,
    text: String,
    incomplete: Vec<u8>,
    recorder: Option<Recorder>,
    logprobs: Vec<TokenLogprob>,
    pub(crate) stats: Stats,
    finished: Option<FinishReason>,
    #[cfg(feature = "constrain")]
    matching: Option<std::sync::Arc<std::sync::Mutex<constrain::Matching>>>,
    /// The error that makes the output invalid.
    failure: Option<Error>,
}

impl std::fmt::Debug for GenerationState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GenerationState")
            .field("ids", &self.ids)
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}

impl GenerationState {
    /// Checks the options.
    pub(crate) fn new(model: &Model, mut options: GenerateOptions) -> Result<Self, Error> {
        let mut sampler = Sampler::new(options.sampling.clone())?;
        // The model's own probabilities are recorded before they are changed.
        let recorder = options.logprobs.map(Recorder::new);
        if let Some(recorder) = &recorder {
            sampler.add(Box::new(recorder.clone()));
        }
        if !options.logit_bias.is_empty() {
            sampler.add(Box::new(LogitBias::new(options.logit_bias.iter().copied())?));
        }
        for processor in options.processors.drain(..) {
            sampler.add(processor);
        }
        // After all others, so that none can allow what it forbids.
        #[cfg(feature = "constrain")]
        let matching = begin_matching(model, &options)?;
        #[cfg(feature = "constrain")]
        if let Some(matching) = &matching {
            sampler.add(Box::new(constrain::Mask(matching.clone())));
        }
        let decoder = model.tokenizer().map(|t| match options.show_special {
            true => t.stream().with_special(),
            false => t.stream(),
        });
        // Under a constraint every byte counts, also a space that a vocabulary takes for one before the text.
        #[cfg(feature = "constrain")]
        let decoder = if matching.is_some() { decoder.map(StreamDecoder::continuing) } else { decoder };
        let stops = StopStrings::new(options.stop.iter().cloned());
        // Nothing else might ever end a text of a model that has no limit.
        let endless = options.max_tokens.is_none() && model.context() == usize::MAX;
        options.max_tokens = options.max_tokens.or(endless.then(|| model.config().max_position_embeddings));
        let finished = options.max_tokens.filter(|max| *max == 0).map(|_| FinishReason::Length);
        let mut progress = Self {
            options,
            sampler,
            decoder,
            stops,
            ids: Vec::new(),
            text: String::new(),
            incomplete: Vec::new(),
            recorder,
            logprobs: Vec::new(),
            stats: Stats::default(),
            finished,
            #[cfg(feature = "constrain")]
            matching,
            failure: None,
        };
        progress.conclude();
        Ok(progress)
    }

    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }
    pub(crate) fn finished(&self) -> Option<FinishReason> {
        self.finished
    }
    /// Ends it, if nothing else has.
    pub(crate) fn cancel(&mut self) {
        self.finished.get_or_insert(FinishReason::Cancelled);
    }
    /// Behaviour at a full context.
    pub(crate) fn when_full(&self) -> WhenFull {
        self.options.when_full
    }
    /// Whether the text continues when the context is full.
    pub(crate) fn shifts(&self) -> bool {
        self.options.when_full != WhenFull::Stop
    }
    /// Lets `sequence` read `ids`, with what the next token needs; `false` if it was cancelled on the way.
    pub(crate) fn feed(&mut self, sequence: &mut Sequence, ids: &[u32]) -> Result<bool, Error> {
        let request = self.head_request(sequence.len() + ids.len());
        Ok(sequence.feed_with(ids, request, self.options.cancel.as_ref())?)
    }

    /// The last chunk, if it was cancelled from outside.
    pub(crate) fn cancelled(&mut self) -> Option<Chunk> {
        if !self.options.cancel.as_ref().is_some_and(CancelToken::is_cancelled) {
            return None;
        }
        self.finished = Some(FinishReason::Cancelled);
        let text = self.flush(false);
        Some(Chunk { token: None, text, logprob: None })
    }

    /// The next token of `sequence` alone.
    pub(crate) fn choose(&mut self, sequence: &mut Sequence) -> Result<u32, Error> {
        if let Some(token) = self.forced() {
            sequence.force(token)?;
            self.stats.forced_tokens += 1;
            return Ok(token);
        }
        // The allowed tokens are only known for the next one.
        let speculation = if self.is_constrained() { Speculation::Off } else { self.options.speculation };
        self.begin_new_text(sequence.len());
        let token = sequence.next_token(&mut self.sampler, speculation);
        #[cfg(feature = "constrain")]
        if let Some(failure) = self.matching.as_ref().and_then(|m| constrain::lock(m).take_failure()) {
            return Err(failure.into());
        }
        let counts = sequence.take_counts();
        self.stats.drafted += counts.drafted;
        self.stats.accepted += counts.accepted;
        self.stats.coarse_tokens += counts.coarse_tokens;
        self.stats.rows_rescored += counts.rows_rescored;
        Ok(token?)
    }

    /// Whether the next token is certain before anything is computed.
    pub(crate) fn is_forced(&self) -> bool {
        self.forced().is_some()
    }

    /// Takes the error that invalidates the result; known once the generation has finished.
    pub(crate) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// Which logits the next token needs after `history` tokens: the same when the prompt is read and when the token is
    /// chosen, so that one pass through the head answers both.
    pub(crate) fn head_request(&mut self, history: usize) -> HeadRequest {
        self.begin_new_text(history);
        self.sampler.request(history)
    }

    /// Tells the sampler which of the `history` tokens are new: what was not handed out here is the prompt.
    fn begin_new_text(&mut self, history: usize) {
        self.sampler.begin_new_text(history.saturating_sub(self.ids.len()));
    }

    /// Takes a token that was chosen and stands at the end of `session`, and says which text is certain with it.
    ///
    /// # Errors
    /// The errors of a constraint that cannot go on.
    pub(crate) fn accept(&mut self, token: u32, session: &Session) -> Result<Chunk, Error> {
        self.ids.push(token);
        self.stats.new_tokens += 1;
        let logprob = self.recorder.as_ref().map(|r| r.take(session.len() - 1, token));
        self.logprobs.extend(logprob.clone());
        let finished = self.matched(token)?;
        let text = self.read(token, session, finished);
        self.conclude();
        Ok(Chunk { token: Some(token), text, logprob })
    }

    /// The text that is certain with `token`, and whether it ends the generation; it does if `finished`.
    fn read(&mut self, token: u32, session: &Session, finished: bool) -> String {
        let ends = (!self.options.ignore_eos || self.is_constrained()) && session.model().is_eos(token);
        let mut text = match &mut self.decoder {
            Some(_) if ends && !self.options.show_special => String::new(),
            Some(decoder) => decoder.push(token).unwrap_or_default(),
            None => String::new(),
        };
        if !text.is_empty() {
            let piece = self.stops.push(&text);
            text = piece.text;
            if piece.stopped {
                self.finished = Some(FinishReason::Stop);
                self.text.push_str(&text);
                return text;
            }
        }
        self.text.push_str(&text);
        let full = self.options.max_tokens.is_some_and(|max| self.ids.len() >= max)
            || (session.remaining() == 0 && !self.shifts());
        let stopped = self.options.stop_when.as_mut().is_some_and(|stop| stop(&self.ids, &self.text));
        if ends || stopped || finished {
            self.finished = Some(FinishReason::Stop);
        } else if full {
            self.finished = Some(FinishReason::Length);
        }
        if self.finished.is_some() {
            text.push_str(&self.flush(ends || finished));
        }
        text
    }

    /// Text that was held back, as an unfinished character or as the possible beginning of a stop text. `whole` if the
    /// model ended the text: an unfinished character is then part of it. Else something cut the text, which ends before
    /// that character.
    fn flush(&mut self, whole: bool) -> String {
        let tail = match &mut self.decoder {
            Some(decoder) if whole => decoder.finish().unwrap_or_default(),
            Some(decoder) => {
                self.incomplete = decoder.take_incomplete();
                String::new()
            }
            None => String::new(),
        };
        let mut piece = self.stops.push(&tail);
        if !piece.stopped {
            piece.text.push_str(&self.stops.finish().text);
        }
        let text = piece.text;
        self.text.push_str(&text);
        text
    }

    /// Everything that was generated.
    pub(crate) fn output(self) -> Output {
        Output {
            text: self.decoder.is_some().then_some(self.text),
            incomplete: self.incomplete,
            ids: self.ids,
            finish_reason: self.finished.unwrap_or(FinishReason::Cancelled),
            logprobs: self.logprobs,
            stats: self.stats,
        }
    }
}

#[cfg(feature = "constrain")]
impl GenerationState {
    fn is_constrained(&self) -> bool {
        self.matching.is_some()
    }

    /// Approximate memory of the constraint, in bytes.
    pub(crate) fn constraint_bytes(&self) -> usize {
        self.matching.as_ref().map_or(0, |matching| constrain::lock(matching).bytes())
    }

    /// The token that must come next under the constraint.
    fn forced(&self) -> Option<u32> {
        constrain::lock(self.matching.as_ref()?).forced()
    }

    /// Takes a token; whether the constraint lets nothing follow it.
    fn matched(&mut self, token: u32) -> Result<bool, Error> {
        let Some(matching) = &self.matching else { return Ok(false) };
        let mut matching = constrain::lock(matching);
        matching.accept(token)?;
        Ok(matching.is_finished())
    }

    /// A text that was cut off is not a result.
    fn conclude(&mut self) {
        let (Some(reason), Some(matching)) = (self.finished, &self.matching) else { return };
        if !constrain::lock(matching).is_complete() {
            self.failure = Some(constrain::ConstraintError::Unfinished { reason, text: self.text.clone() }.into());
        }
    }
}

/// Begins the text, with the constraint of `options`.
#[cfg(feature = "constrain")]
fn begin_matching(
    model: &Model,
    options: &GenerateOptions,
) -> Result<Option<std::sync::Arc<std::sync::Mutex<constrain::Matching>>>, Error> {
    let Some(constraint) = &options.constraint else { return Ok(None) };
    let stops = [("a stop text", !options.stop.is_empty()), ("stop_when", options.stop_when.is_some())];
    if let Some((option, _)) = stops.into_iter().find(|s| s.1) {
        return Err(constrain::ConstraintError::Stops { option }.into());
    }
    Ok(Some(constraint.begin(model)?))
}

#[cfg(not(feature = "constrain"))]
impl GenerationState {
    fn is_constrained(&self) -> bool {
        false
    }
    pub(crate) fn constraint_bytes(&self) -> usize {
        0
    }
    fn forced(&self) -> Option<u32> {
        None
    }
    fn matched(&mut self, _token: u32) -> Result<bool, Error> {
        Ok(false)
    }
    fn conclude(&mut self) {}
}
