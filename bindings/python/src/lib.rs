//! The crate `bitnet` as a module of Python. `python/ternary_lm` is the package around it, with its types and errors.
//!
//! All that computes does so detached from the interpreter, so that other threads of Python run. Nothing here holds a
//! lock while it calls Python. A session is either in its slot or taken by the call that uses it ([`session::Slot`]), and
//! no class changes in place: all of them are `frozen`, also for an interpreter without a global lock.

#![deny(unsafe_code)]

mod choice;
mod errors;
mod extractor;
mod generation;
mod matrix;
mod model;
mod options;
mod session;
mod train;
mod wait;

/// The module `ternary_lm._native`.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::choice::{Choice, Score};
    #[pymodule_export]
    use crate::extractor::{Extraction, Extractor, RankedIntent, Slot};
    #[pymodule_export]
    use crate::generation::Generation;
    #[pymodule_export]
    use crate::matrix::Matrix;
    #[pymodule_export]
    use crate::model::Model;
    #[pymodule_export]
    use crate::session::Session;
    #[pymodule_export]
    use crate::train::{train, train_extractor};

    use pyo3::prelude::*;

    /// The version of the library.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
