//! What a generation remembers between two tokens: the same for a session alone and for one in a batch.

use bitnet_model::HeadRequest;
use bitnet_model::decoder::{Decoder, head_request};
use bitnet_model::sampling::{CancelToken, FinishReason, Sampler};
use loader::tokenizer::{StopStrings, StreamDecoder};

use crate::{Chunk, Error, GenerateOptions, Model, Output, Session, Stats};

/// A generation without its session.
pub(crate) struct Progress {
    options: GenerateOptions,
    sampler: Sampler,
    decoder: Option<StreamDecoder>,
    stops: StopStrings,
    ids: Vec<u32>,
    text: String,
    pub(crate) stats: Stats,
    finished: Option<FinishReason>,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").field("ids", &self.ids).field("finished", &self.finished).finish_non_exhaustive()
    }
}

impl Progress {
    pub(crate) fn new(
        model: &Model,
        mut options: GenerateOptions,
        stats: Stats,
        cancelled: bool,
    ) -> Result<Self, Error> {
        let sampler = Sampler::new(options.sampling.clone())?;
        let decoder = model.tokenizer().map(|t| match options.show_special {
            true => t.stream().with_special(),
            false => t.stream(),
        });
        let stops = StopStrings::new(options.stop.iter().cloned());
        // Nothing else might ever end a text of a model that has no limit.
        let endless = options.max_tokens.is_none() && model.context() == usize::MAX;
        options.max_tokens = options.max_tokens.or(endless.then(|| model.config().max_position_embeddings));
        let finished = match options.max_tokens {
            _ if cancelled => Some(FinishReason::Cancelled),
            Some(0) => Some(FinishReason::Length),
            _ => None,
        };
        Ok(Self { options, sampler, decoder, stops, ids: Vec::new(), text: String::new(), stats, finished })
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

    /// The last chunk, if it was cancelled from outside.
    pub(crate) fn cancelled(&mut self) -> Option<Chunk> {
        if !self.options.cancel.as_ref().is_some_and(CancelToken::is_cancelled) {
            return None;
        }
        self.finished = Some(FinishReason::Cancelled);
        let text = self.flush();
        Some(Chunk { token: None, text })
    }

    /// The next token of `decoder`, alone.
    pub(crate) fn choose(&mut self, decoder: &mut Decoder) -> Result<u32, Error> {
        let token = decoder.next_token(&mut self.sampler, &mut self.options.processors, self.options.speculation)?;
        let counts = decoder.take_counts();
        self.stats.drafted += counts.drafted;
        self.stats.accepted += counts.accepted;
        self.stats.coarse_tokens += counts.coarse_tokens;
        self.stats.rows_rescored += counts.rows_rescored;
        Ok(token)
    }

    /// Which logits the next token needs after `history` tokens.
    pub(crate) fn head_request(&self, history: usize) -> HeadRequest {
        head_request(&self.sampler, &self.options.processors, history)
    }

    /// Takes a token that was chosen and says which text is certain with it.
    pub(crate) fn accept(&mut self, token: u32, session: &Session) -> Chunk {
        self.ids.push(token);
        self.stats.new_tokens += 1;
        let ends = !self.options.ignore_eos && session.model().is_eos(token);
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
                return Chunk { token: Some(token), text };
            }
        }
        self.text.push_str(&text);
        let full = self.options.max_tokens.is_some_and(|max| self.ids.len() >= max) || session.remaining() == 0;
        if ends {
            self.finished = Some(FinishReason::Stop);
        } else if full {
            self.finished = Some(FinishReason::Length);
        }
        if self.finished.is_some() {
            text.push_str(&self.flush());
        }
        Chunk { token: Some(token), text }
    }

    /// Text that was held back, as an unfinished character or as the possible beginning of a stop text.
    fn flush(&mut self) -> String {
        let tail = self.decoder.as_mut().and_then(StreamDecoder::finish).unwrap_or_default();
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
            ids: self.ids,
            finish_reason: self.finished.unwrap_or(FinishReason::Cancelled),
            stats: self.stats,
        }
    }
}
