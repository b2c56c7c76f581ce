//! The crate `bitnet` for C: opaque handles, texts with lengths, errors as values. `include/bitnet.h` is made from the
//! comments of what is exported here, which speak to its readers; the types have the names that C sees.
//!
//! `border` holds all that touches memory of the caller. Everything else is safe code over the facade.
#![allow(non_camel_case_types, reason = "types are named as C sees them")]
#![allow(clippy::too_many_arguments, reason = "C has texts with lengths, and results behind pointers")]

#[macro_use]
mod border;
mod failure;

mod status;

mod buffer;
mod options;

mod model;

mod session;

mod generate;
mod prompt;

mod stream;

mod cancel;
mod score;

mod extractor;
