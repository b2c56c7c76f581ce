//! The baseline: linear classifiers over hashed n-grams, learned by stochastic gradient descent.

use bitnet::train::Random;

use crate::corpus::shuffle;
use crate::utterance::hash;

/// Bits of a feature's number.
const BITS: u32 = 17;

/// Features of one case, each a number below 2^17.
pub type Features = Vec<u32>;

/// Adds the feature with this name.
pub fn add(features: &mut Features, name: &str) {
    let h = hash(name);
    features.push(((h ^ (h >> 32)) & ((1 << BITS) - 1)) as u32);
}

/// A bag of n-grams: words, pairs of words, and three to five characters of each word with its borders, all in lower
/// case.
pub fn of_text(text: &str) -> Features {
    let mut features = Vec::new();
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|w| !w.is_empty()).collect();
    for (i, word) in words.iter().enumerate() {
        add(&mut features, &format!("w {word}"));
        add(&mut features, &format!("p {} {word}", if i == 0 { "^" } else { words[i - 1] }));
        of_characters(&mut features, word);
    }
    features
}

/// Three to five characters of a word with its borders.
pub fn of_characters(features: &mut Features, word: &str) {
    let bordered: Vec<char> = std::iter::once('^').chain(word.chars()).chain(['$']).collect();
    for n in 3..=5 {
        for gram in bordered.windows(n) {
            add(features, &format!("c {}", gram.iter().collect::<String>()));
        }
    }
}

/// Multinomial logistic regression.
#[derive(Clone, Debug)]
pub struct Linear {
    labels: Vec<String>,
    /// `[2^17, labels]`.
    weights: Vec<f32>,
    bias: Vec<f32>,
    /// Sum of squared gradients of each feature, by which its steps become smaller.
    seen: Vec<f32>,
}

impl Linear {
    /// Knows nothing yet.
    pub fn new(labels: Vec<String>) -> Self {
        let n = labels.len();
        Self { weights: vec![0.0; n << BITS], bias: vec![0.0; n], seen: vec![0.0; 1 << BITS], labels }
    }

    /// The probability of each label.
    pub fn probabilities(&self, features: &[u32]) -> Vec<f32> {
        let n = self.labels.len();
        let scale = 1.0 / (features.len().max(1) as f32).sqrt();
        let mut scores = self.bias.clone();
        for f in features {
            let row = &self.weights[*f as usize * n..][..n];
            scores.iter_mut().zip(row).for_each(|(s, w)| *s += w * scale);
        }
        let max = scores.iter().copied().fold(f32::MIN, f32::max);
        scores.iter_mut().for_each(|s| *s = (*s - max).exp());
        let sum: f32 = scores.iter().sum();
        scores.iter_mut().for_each(|s| *s /= sum);
        scores
    }

    /// The best label and its probability.
    pub fn best(&self, features: &[u32]) -> (&str, f64) {
        let p = self.probabilities(features);
        let best = (0..p.len()).fold(0, |b, i| if p[i] > p[b] { i } else { b });
        (&self.labels[best], f64::from(p[best]))
    }

    /// Learns cases of features and label, `epochs` times in random order.
    pub fn learn(&mut self, cases: &[(Features, usize)], epochs: usize, rate: f32, seed: u64) {
        let mut order: Vec<usize> = (0..cases.len()).collect();
        for epoch in 0..epochs {
            shuffle(&mut order, &mut Random::new(seed ^ epoch as u64, "linear"));
            order.iter().for_each(|i| self.step(&cases[*i], rate));
        }
    }

    fn step(&mut self, (features, label): &(Features, usize), rate: f32) {
        let n = self.labels.len();
        let mut gradient = self.probabilities(features);
        gradient[*label] -= 1.0;
        let scale = 1.0 / (features.len().max(1) as f32).sqrt();
        let square = gradient.iter().map(|g| g * g).sum::<f32>() * scale * scale;
        for f in features {
            let seen = &mut self.seen[*f as usize];
            *seen += square;
            let step = rate * scale / (seen.sqrt() + 1e-3);
            let row = &mut self.weights[*f as usize * n..][..n];
            row.iter_mut().zip(&gradient).for_each(|(w, g)| *w -= step * g);
        }
        self.bias.iter_mut().zip(&gradient).for_each(|(b, g)| *b -= 0.01 * rate * g);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_words_pairs_and_characters() {
        // "^ab$": abs of three and four characters; two words, two pairs.
        let mut expected = Vec::new();
        for name in ["w ab", "p ^ ab", "c ^ab", "c ab$", "c ^ab$", "w c", "p ab c", "c ^c$"] {
            add(&mut expected, name);
        }
        assert_eq!(of_text("Ab, c!"), expected);
        assert!(of_text("...").is_empty());
    }

    #[test]
    fn what_can_be_told_apart_is_learned() {
        let mut model = Linear::new(vec!["weather".into(), "music".into()]);
        let texts = [("will it rain", 0), ("rain and snow today", 0), ("play a song", 1), ("play some jazz", 1)];
        let cases: Vec<(Features, usize)> = texts.iter().map(|(t, l)| (of_text(t), *l)).collect();
        assert_eq!(model.best(&cases[0].0).1, 0.5);
        model.learn(&cases, 20, 0.5, 1);
        for (text, label) in [("rainy today", "weather"), ("play songs", "music")] {
            let (said, p) = model.best(&of_text(text));
            assert!(said == label && p > 0.6, "{text}: {said} {p}");
        }
        assert!((model.probabilities(&of_text("rain")).iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
