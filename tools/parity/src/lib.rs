//! Compares everything that a model computes with reference vectors that independent software made.
//!
//! [`run`] walks a folder and appends one row per case to a [`Report`]: `ok`, `FAIL` or `not supported yet`. Tolerances
//! are those that the makers of the vectors derived, see [`Tolerance`]; none is tuned here. With [`Sabotage`] the
//! weights are damaged first, and then rows have to fail.
//!
//! | folder | comparison |
//! |---|---|
//! | `bitnet/NAME/{packed,master,packed_bitlinear}` | logits, greedy continuation, each projection given its traced input |
//! | `midsize` | the same for weights of real widths that are rebuilt from a counter-based generator |
//! | `gguf` | logits of GGUF files, and single matrices in their encodings |
//! | `units` | quantisers, exact products, Hadamard transforms, gradients and packing of single layers |
//! | `tokenizer` | texts to tokens |
//! | any other `FAMILY/VARIANT` | further families of models, see the module `families` |
//! | `ttt/NAME` | the official TTT language model: logits, inner loop, states, gradients, in every form |

mod compare;
mod error;
mod families;
mod files;
mod formats;
mod hbit;
mod midsize;
mod model;
mod projections;
mod report;
mod sabotage;
mod tokenizer;
mod ttt;
mod units;

use std::path::{Path, PathBuf};

pub use error::ParityError;
pub use model::Tolerance;
pub use report::{Report, Row, Verdict};
pub use sabotage::Sabotage;

/// Options: what to run and how.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// Damage done to every model before it computes.
    pub sabotage: Option<Sabotage>,
    /// Only cases whose name contains this text.
    pub filter: Option<String>,
    /// The folder of large tokenizers, `NAME/tokenizer.json` or `NAME/tokenizer.json.zst`; by default `../tokenizer`
    /// next to the fixtures.
    pub tokenizers: Option<PathBuf>,
}

impl Options {
    fn wants(&self, case: &str) -> bool {
        self.filter.as_ref().is_none_or(|f| case.contains(f.as_str()))
    }
}

/// Runs every case under `fixtures`; rows are printed as they come if `report` says so.
///
/// # Errors
/// [`ParityError::Io`] if `fixtures` cannot be listed. What goes wrong within a case fails that case only.
pub fn run(fixtures: &Path, options: &Options, report: &mut Report) -> Result<(), ParityError> {
    for name in files::names(&fixtures.join("bitnet"))? {
        model::folder_cases(fixtures, &name, options, report);
    }
    midsize::cases(fixtures, options, report);
    for name in files::names(&fixtures.join("gguf"))?.iter().filter(|n| n.ends_with(".gguf")) {
        model::gguf_case(fixtures, name, options, report);
    }
    formats::cases(fixtures, options, report);
    units::cases(fixtures, options, report);
    for name in files::names(&fixtures.join("tokenizer"))?.iter().filter(|n| n.ends_with("_cases.json")) {
        tokenizer::case(fixtures, name, options, report);
    }
    for name in files::names(&fixtures.join("ttt"))? {
        ttt::cases(fixtures, &name, options, report);
    }
    families::cases(fixtures, options, report);
    Ok(())
}
