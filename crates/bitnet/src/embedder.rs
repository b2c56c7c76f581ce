//! Texts as vectors, whatever kind of model makes them.

use std::path::Path;

use loader::extractor;

use crate::{EmbedOptions, Error, Extractor, Model, Pooling};

/// A model of either kind that turns texts into vectors: a language or embedding model, or an extractor. Cheap to clone
/// and shared between threads, as both are.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("model.gguf");
/// # let task = bitnet::TaskConfig::new("home", vec!["light_on".into(), "light_off".into()], vec!["room".into()]);
/// # let config = bitnet::ExtractorConfig { buckets: 64, hidden_size: 32, ..bitnet::ExtractorConfig::new(vec![task]) };
/// # loader::extractor::write_gguf(&path, &bitnet::ExtractorWeights::synthetic(config, 7)?)?;
/// let embedder = bitnet::Embedder::load(&path)?;
/// let [a, b] = [embedder.embed("switch on the light")?, embedder.embed("swich on teh light")?];
/// let cosine: f32 = a.iter().zip(&b).map(|(x, y)| x * y).sum();
/// assert!(a.len() == embedder.dimensions() && cosine > 0.0);
/// # Ok::<(), bitnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub enum Embedder {
    /// Hidden states of tokens, pooled.
    Model(Model),
    /// Hidden states and vectors of words, pooled in the one way that its heads read.
    Extractor(Extractor),
}

impl From<Model> for Embedder {
    fn from(model: Model) -> Self {
        Self::Model(model)
    }
}

impl From<Extractor> for Embedder {
    fn from(extractor: Extractor) -> Self {
        Self::Extractor(extractor)
    }
}

impl Embedder {
    /// Loads a GGUF file or a folder of either kind, with the defaults of [`Model::load`] and [`Extractor::load`]; with
    /// other options, load the model itself and convert it.
    ///
    /// # Errors
    /// Any error in the files.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        match extractor::is_extractor(path.as_ref()) {
            true => Ok(Extractor::load(path)?.into()),
            false => Ok(Model::load(path)?.into()),
        }
    }

    /// Length of the vectors.
    pub fn dimensions(&self) -> usize {
        match self {
            Self::Model(model) => model.config().hidden_size,
            Self::Extractor(extractor) => extractor.config().pooled_size(),
        }
    }

    /// The pooling of the files; `None` for an extractor, whose pooling is its own.
    pub fn pooling(&self) -> Option<Pooling> {
        match self {
            Self::Model(model) => Some(model.pooling()),
            Self::Extractor(_) => None,
        }
    }

    /// The vector of `text`, [`Embedder::dimensions`] f32 of length 1: the dot product of two is the cosine of their
    /// angle.
    ///
    /// # Errors
    /// The errors of [`Model::embed`] or [`Extractor::embed`].
    pub fn embed(&self, text: &str) -> Result<Vec<f32>, Error> {
        match self {
            Self::Model(model) => Ok(model.embed([text], EmbedOptions::default())?.pop().unwrap_or_default()),
            Self::Extractor(extractor) => extractor.embed(text),
        }
    }

    /// The vectors of `texts`, several short ones in one pass where the model can.
    ///
    /// # Errors
    /// The errors of [`Embedder::embed`]; [`Error::Pooling`] for a pooling that is asked of an extractor.
    pub fn embed_all<S: AsRef<str>>(
        &self,
        texts: impl IntoIterator<Item = S>,
        options: EmbedOptions,
    ) -> Result<Vec<Vec<f32>>, Error> {
        match (self, options.pooling) {
            (Self::Model(model), _) => model.embed(texts, options),
            (Self::Extractor(_), Some(pooling)) => Err(Error::Pooling { pooling: pooling.name() }),
            (Self::Extractor(extractor), None) => extractor.embed_all(texts, options.normalize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ExtractorConfig, ExtractorWeights, TaskConfig};

    const TEXTS: [&str; 3] = ["play sme jazz", "青空文庫って知ってる?", "stop"];

    #[test]
    fn an_embedder_is_the_model_that_it_opens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        let task = TaskConfig::new("music", vec!["a".into(), "b".into()], vec![]);
        let config = ExtractorConfig { buckets: 64, hidden_size: 32, ..ExtractorConfig::new(vec![task]) };
        extractor::write_gguf(&path, &ExtractorWeights::synthetic(config, 3).unwrap()).unwrap();
        let (embedder, extractor) = (Embedder::load(&path).unwrap(), Extractor::load(&path).unwrap());
        assert_eq!((embedder.dimensions(), embedder.pooling()), (96, None));
        let all = embedder.embed_all(TEXTS, EmbedOptions::default()).unwrap();
        let plain = embedder.embed_all(TEXTS, EmbedOptions::default().normalize(false)).unwrap();
        for ((text, vector), plain) in TEXTS.iter().zip(&all).zip(&plain) {
            assert_eq!((vector, vector), (&embedder.embed(text).unwrap(), &extractor.embed(text).unwrap()));
            // A vector that is not of length 1 has its direction; 96 products in f32.
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
            let length = dot(plain, plain).sqrt();
            assert!((length - 1.0).abs() > 1e-3 && (dot(plain, vector) - length).abs() < 1e-5 * length, "{length}");
        }
        let asked = embedder.embed_all(TEXTS, EmbedOptions::default().pooling(Pooling::Last));
        assert!(matches!(asked, Err(Error::Pooling { pooling: "last" })), "{asked:?}");
        assert!(matches!(Embedder::load(folder.path().join("none.gguf")), Err(Error::Load(_))));
    }

    #[cfg(feature = "tiny-model")]
    #[test]
    fn a_language_model_is_opened_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        std::fs::write(&path, crate::TINY_MODEL).unwrap();
        let (embedder, model) = (Embedder::load(&path).unwrap(), Model::tiny().unwrap());
        assert_eq!((embedder.dimensions(), embedder.pooling()), (model.config().hidden_size, Some(model.pooling())));
        let options = EmbedOptions::default().pooling(Pooling::Last);
        assert_eq!(embedder.embed_all(TEXTS, options).unwrap(), model.embed(TEXTS, options).unwrap());
        let first = model.embed([TEXTS[0]], EmbedOptions::default()).unwrap();
        assert_eq!(embedder.embed(TEXTS[0]).unwrap(), first[0]);
    }
}
