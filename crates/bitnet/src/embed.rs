//! Texts as vectors.

pub use bitnet_model::embedding::Pooling;

use crate::{Error, KvType, Model};

/// Options for turning texts into vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbedOptions {
    /// The pooling of the hidden states of a text's tokens; `None` for that of the model's files ([`Model::pooling`]).
    pub pooling: Option<Pooling>,
    /// Whether vectors get length 1, so that their dot product is the cosine of their angle.
    pub normalize: bool,
}

impl Default for EmbedOptions {
    /// The pooling of the model's files, and vectors of length 1.
    fn default() -> Self {
        Self { pooling: None, normalize: true }
    }
}

impl EmbedOptions {
    /// Sets the pooling, whatever the files say.
    #[must_use]
    pub fn pooling(mut self, pooling: Pooling) -> Self {
        self.pooling = Some(pooling);
        self
    }
    /// Whether vectors are scaled to length 1.
    #[must_use]
    pub fn normalize(mut self, normalize: bool) -> Self {
        self.normalize = normalize;
        self
    }
}

impl Model {
    /// The type of keys and values while a text becomes a vector. They do not live longer, and in half precision a
    /// flipped int8 code would be visible in the vector: embedding models keep them in f32.
    fn embed_kv(&self) -> KvType {
        if self.config().headless { KvType::F32 } else { self.kv_type() }
    }

    /// The pooling of the model's files; the mean over all tokens by default.
    pub fn pooling(&self) -> Pooling {
        self.config().pooling.unwrap_or_default()
    }

    /// Tokens of `text` as [`Model::embed`] reads them: with the beginning-of-text token as for any text, and with the
    /// end-of-text token if the tokenizer says so. If it does not say, embedding models (those without a head) end a
    /// text with the first of [`ModelConfig::eos_token_ids`](crate::ModelConfig::eos_token_ids): they were trained like
    /// this, and their own GGUF files say so. A query instruction is part of the text.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], or the errors of the tokenizer.
    pub fn encode_for_embedding(&self, text: &str) -> Result<Vec<u32>, Error> {
        let tokenizer = self.tokenizer().ok_or(Error::NoTokenizer)?;
        let mut ids = tokenizer.encode(text, true)?;
        if tokenizer.add_bos().is_none() && self.adds_bos() {
            ids.splice(0..0, self.config().bos_token_id);
        }
        if tokenizer.add_eos().is_none() && self.config().headless {
            ids.extend(self.config().eos_token_ids.first());
        }
        Ok(ids)
    }

    /// The vector of each text, `[hidden]` f32 each: hidden states after the last layer, pooled. A language model is
    /// no embedding model; its vectors tell texts apart, and a trained one tells it better. Encoders of utterances are
    /// no `Model`: they have [`Extractor::embed`](crate::Extractor::embed), and an [`Embedder`](crate::Embedder) opens
    /// either kind.
    ///
    /// ```no_run
    /// let model = bitnet::Model::load("model.gguf")?;
    /// let v = model.embed(["a cat", "a kitten", "a train"], bitnet::EmbedOptions::default())?;
    /// let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    /// println!("{} {}", cosine(&v[0], &v[1]), cosine(&v[0], &v[2]));
    /// # Ok::<(), bitnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// No tokenizer, an empty text in a model without a beginning-of-text token, a text that does not fit.
    pub fn embed<S: AsRef<str>>(
        &self,
        texts: impl IntoIterator<Item = S>,
        options: EmbedOptions,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let ids = texts.into_iter().map(|t| self.encode_for_embedding(t.as_ref())).collect::<Result<Vec<_>, _>>()?;
        self.embed_ids(&ids, options)
    }

    /// Like [`Model::embed`], with tokens as they are.
    ///
    /// # Errors
    /// A text without tokens, a token outside of the vocabulary, a text that does not fit.
    pub fn embed_ids(&self, texts: &[Vec<u32>], options: EmbedOptions) -> Result<Vec<Vec<f32>>, Error> {
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let pooling = options.pooling.unwrap_or(self.pooling());
        Ok(bitnet_model::embedding::embed(self.engine(), &texts, self.embed_kv(), pooling, options.normalize)?)
    }

    /// Like [`Model::embed_ids`], one pass over the weights at a time, for callers who have something else to do in
    /// between or may give up. Nothing is computed before the first [`Embedding::step`].
    ///
    /// ```no_run
    /// # let model = bitnet::Model::load("model.gguf")?;
    /// let long = model.encode(&std::fs::read_to_string("book.txt").unwrap_or_default(), model.adds_bos())?;
    /// let mut embedding = model.embedding(vec![long], bitnet::EmbedOptions::default())?;
    /// while !embedding.is_finished() {
    ///     embedding.step(256)?;
    ///     println!("{} tokens to go", embedding.tokens_left());
    /// }
    /// let vectors = embedding.finish();
    /// # Ok::<(), bitnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// A text without tokens.
    pub fn embedding(&self, texts: Vec<Vec<u32>>, options: EmbedOptions) -> Result<Embedding, Error> {
        let pooling = options.pooling.unwrap_or(self.pooling());
        let inner = bitnet_model::embedding::Embedding::new(texts, self.embed_kv(), pooling, options.normalize)?;
        Ok(Embedding { model: self.clone(), inner })
    }
}

/// Texts on their way to vectors, see [`Model::embedding`].
#[derive(Debug)]
pub struct Embedding {
    model: Model,
    inner: bitnet_model::embedding::Embedding,
}

impl Embedding {
    /// Whether all texts were read.
    pub fn is_finished(&self) -> bool {
        self.inner.is_finished()
    }
    /// Tokens that are to be read.
    pub fn tokens_left(&self) -> usize {
        self.inner.tokens_left()
    }
    /// Whether a text was read in part, so that its state takes memory.
    pub fn is_under_way(&self) -> bool {
        self.inner.is_under_way()
    }

    /// One pass over the weights, for at most `tokens` tokens of one text or of several short ones. The vectors do not
    /// depend on how many that are.
    ///
    /// # Errors
    /// A token outside of the vocabulary, a text that does not fit. There is no way on after one.
    pub fn step(&mut self, tokens: usize) -> Result<(), Error> {
        Ok(self.inner.step(self.model.engine(), tokens)?)
    }

    /// The vectors of the texts that were read, in their order.
    pub fn finish(self) -> Vec<Vec<f32>> {
        self.inner.finish()
    }
}
