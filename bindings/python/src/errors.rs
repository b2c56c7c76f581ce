//! From errors of the library to exceptions, which `ternary_lm/errors.py` defines. The words are the library's.

use bitnet::train::TrainError;
use bitnet::{ConstraintError, Error, ModelError};
use pyo3::PyErr;

/// The classes of `errors.py`.
pub(crate) mod kinds {
    use pyo3::import_exception;

    import_exception!(ternary_lm.errors, BitnetError);
    import_exception!(ternary_lm.errors, Busy);
    import_exception!(ternary_lm.errors, ChatTemplateError);
    import_exception!(ternary_lm.errors, ConstraintError);
    import_exception!(ternary_lm.errors, ContextFull);
    import_exception!(ternary_lm.errors, FileError);
    import_exception!(ternary_lm.errors, LoadError);
    import_exception!(ternary_lm.errors, ModelError);
    import_exception!(ternary_lm.errors, OptionError);
    import_exception!(ternary_lm.errors, SessionError);
    import_exception!(ternary_lm.errors, TokenizerError);
    import_exception!(ternary_lm.errors, TrainingError);
    import_exception!(ternary_lm.errors, Unfinished);
}

/// The exception for an error of the library.
pub(crate) fn raised(error: Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::Load(_) => kinds::LoadError::new_err(text),
        Error::File(_) => kinds::FileError::new_err(text),
        Error::Model(error) => of_model(&error),
        Error::Tokenizer(_) | Error::NoTokenizer => kinds::TokenizerError::new_err(text),
        Error::Chat(_) | Error::NoChatTemplate | Error::ChatTemplate(_) => kinds::ChatTemplateError::new_err(text),
        Error::Constraint(ConstraintError::Unfinished { reason, text: so_far }) => {
            kinds::Unfinished::new_err((text, so_far, reason.name()))
        }
        Error::Constraint(_) => kinds::ConstraintError::new_err(text),
        Error::NothingToChoose | Error::Template { .. } | Error::Pooling { .. } => kinds::OptionError::new_err(text),
        _ => kinds::BitnetError::new_err(text),
    }
}

fn of_model(error: &ModelError) -> PyErr {
    let text = error.to_string();
    match error {
        ModelError::ContextFull { limit, used, more } => kinds::ContextFull::new_err((text, *limit, *used, *more)),
        ModelError::SavedSequence(_)
        | ModelError::StateLost
        | ModelError::CannotRewind { .. }
        | ModelError::ReplayTooLong { .. } => kinds::SessionError::new_err(text),
        ModelError::Sampling { .. } | ModelError::UnknownTask { .. } | ModelError::Config { .. } => {
            kinds::OptionError::new_err(text)
        }
        _ => kinds::ModelError::new_err(text),
    }
}

/// The exception for an error of training.
pub(crate) fn of_training(error: &TrainError) -> PyErr {
    match error {
        TrainError::Option { .. } => kinds::OptionError::new_err(error.to_string()),
        _ => kinds::TrainingError::new_err(error.to_string()),
    }
}

/// An option that is wrong.
pub(crate) fn option(text: impl Into<String>) -> PyErr {
    kinds::OptionError::new_err(text.into())
}
