//! Codes of errors, for which the page has words.

use bitnet::{ConstraintError, Error, ModelError};

/// The code of `BackendError` for an error of the library; its own words go beside it.
pub fn code(error: &Error) -> &'static str {
    match error {
        Error::Load(_) => "model",
        Error::Model(ModelError::ContextFull { .. }) => "context-full",
        Error::Model(ModelError::SavedSequence(_)) => "session",
        Error::Model(ModelError::NoHead | ModelError::Config { .. }) => "model",
        Error::NoChatTemplate | Error::ChatTemplate(_) => "no-chat-template",
        Error::Constraint(ConstraintError::Limit { .. }) => "constraint-slow",
        Error::Constraint(_) => "constraint",
        _ => "request",
    }
}
