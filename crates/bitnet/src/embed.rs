//! Texts as vectors.

pub use bitnet_model::embedding::Pooling;

use crate::{Error, Model};

/// How texts become vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbedOptions {
    /// How the hidden states of a text's tokens become one vector.
    pub pooling: Pooling,
    /// Whether vectors get length 1, so that their dot product is the cosine of their angle.
    pub normalize: bool,
}

impl Default for EmbedOptions {
    /// The mean over all tokens, at length 1.
    fn default() -> Self {
        Self { pooling: Pooling::Mean, normalize: true }
    }
}

impl EmbedOptions {
    /// With another pooling.
    #[must_use]
    pub fn pooling(mut self, pooling: Pooling) -> Self {
        self.pooling = pooling;
        self
    }
    /// With vectors of length 1, or as they come.
    #[must_use]
    pub fn normalize(mut self, normalize: bool) -> Self {
        self.normalize = normalize;
        self
    }
}

impl Model {
    /// The vector of each text, `[hidden]` f32 each: hidden states behind the last layer, pooled. A language model is no
    /// embedding model; its vectors tell texts apart, and a trained one tells it better.
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
        let ids = texts.into_iter().map(|t| self.encode(t.as_ref(), self.adds_bos())).collect::<Result<Vec<_>, _>>()?;
        self.embed_ids(&ids, options)
    }

    /// As [`Model::embed`], with tokens as they are.
    ///
    /// # Errors
    /// A text without tokens, a token outside of the vocabulary, a text that does not fit.
    pub fn embed_ids(&self, texts: &[Vec<u32>], options: EmbedOptions) -> Result<Vec<Vec<f32>>, Error> {
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let EmbedOptions { pooling, normalize } = options;
        Ok(bitnet_model::embedding::embed(self.engine(), &texts, self.kv_type(), pooling, normalize)?)
    }
}
