//! Weights that were folded with signed Hadamard transforms, so that their inputs have to be transformed, too.

use ternary_kernels::ops::check_hadamard_block;

use super::ModelConfig;
use crate::ModelError;

/// A signed Hadamard transform that is folded into the weights of all projections: each reads `H(s * x)` instead of
/// `x`, with a sign for each element of `x` and the orthonormal transform `H` in blocks.
///
/// The signs belong to a width and are shared by all inputs of that width.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fold {
    /// Elements that are transformed together, a power of two.
    pub block: usize,
    /// The signs of each width, -1 or 1.
    signs: Vec<(usize, Vec<i8>)>,
    /// Whether the head is folded as well: it reads the transformed row.
    pub head: bool,
    /// Whether the rows of the embedding were transformed: a token's is `s * H(row)`.
    pub embedding: bool,
}

impl Fold {
    /// A fold in blocks of `block` of head and embedding, without signs.
    pub fn new(block: usize) -> Self {
        Self { block, signs: Vec::new(), head: true, embedding: true }
    }

    /// Adds the signs for inputs with as many elements.
    #[must_use]
    pub fn with_signs(mut self, signs: Vec<i8>) -> Self {
        self.signs.retain(|(width, _)| *width != signs.len());
        self.signs.push((signs.len(), signs));
        self
    }

    /// The signs of inputs of `width` elements.
    pub fn signs(&self, width: usize) -> Option<&[i8]> {
        self.signs.iter().find(|(w, _)| *w == width).map(|(_, signs)| signs.as_slice())
    }

    /// All signs, in the order in which they were added.
    pub fn all_signs(&self) -> impl Iterator<Item = &[i8]> {
        self.signs.iter().map(|(_, signs)| signs.as_slice())
    }
}

impl ModelConfig {
    /// The widths of the inputs of all projections, of the head and of the embedding, each once.
    pub fn input_widths(&self) -> Vec<usize> {
        let layers = (0..self.num_hidden_layers)
            .flat_map(|l| self.layer_projections(l).map(move |p| self.projection_shape(l, p).1));
        let mut all: Vec<usize> = std::iter::once(self.hidden_size).chain(layers).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    pub(super) fn validate_fold(&self) -> Result<(), ModelError> {
        let Some(fold) = &self.fold else { return Ok(()) };
        let bad = |field, value: String, must| Err(ModelError::Config { field, value, must });
        if self.inputs.all().iter().any(|form| form.hadamard.is_some()) {
            return bad("hadamard_block", "given in addition to a fold".to_owned(), "absent in a folded model");
        }
        for width in self.input_widths() {
            if check_hadamard_block(width, fold.block).is_err() {
                let must = "a power of two from 2 on that divides the width of every input";
                return bad("block of the fold", format!("{}, for inputs of {width}", fold.block), must);
            }
            match fold.signs(width) {
                None => {
                    return bad("signs of the fold", format!("missing for inputs of {width}"), "given for every width");
                }
                Some(signs) => {
                    if let Some(sign) = signs.iter().find(|s| s.abs() != 1) {
                        return bad("sign of the fold", sign.to_string(), "-1 or 1");
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_that_do_not_fit_are_refused() {
        let with = |fold: Fold| {
            let mut c = ModelConfig::new(96, 64, 128, 1, 4, 2);
            c.fold = Some(fold);
            c.validate().map_err(|e| e.to_string())
        };
        let fold = |block| Fold::new(block).with_signs(vec![1; 64]).with_signs(vec![-1; 128]);
        with(fold(32)).unwrap();
        for (fold, word) in [
            (fold(128), "inputs of 64"),
            (fold(24), "is 24"),
            (Fold::new(32).with_signs(vec![1; 64]), "missing for inputs of 128"),
            (fold(32).with_signs(vec![0; 64]), "is 0"),
        ] {
            let error = with(fold).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
