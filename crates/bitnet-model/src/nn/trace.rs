//! Intermediate results under the names of their modules.

use candle_core::{Result, Tensor};

/// Receives each intermediate result with its name; an error ends the forward pass.
pub(super) type See<'a> = &'a mut dyn FnMut(&str, &Tensor) -> Result<()>;

/// Passes intermediate results to an optional observer.
pub(super) struct Trace<'a> {
    see: Option<See<'a>>,
    /// The layer of the running modules; part of the names.
    pub(super) layer: Option<usize>,
}

impl<'a> Trace<'a> {
    /// Observes nothing.
    pub(super) fn off() -> Self {
        Self { see: None, layer: None }
    }

    /// Passes everything to `see`.
    pub(super) fn to(see: See<'a>) -> Self {
        Self { see: Some(see), layer: None }
    }

    /// Passes `x` to the observer as `name`, and returns it.
    pub(super) fn see(&mut self, name: &str, x: Tensor) -> Result<Tensor> {
        if let Some(see) = &mut self.see {
            match self.layer {
                Some(l) => see(&format!("layer{l}.{name}"), &x)?,
                None => see(name, &x)?,
            }
        }
        Ok(x)
    }
}
