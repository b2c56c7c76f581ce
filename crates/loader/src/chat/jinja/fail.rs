//! Why a template stopped, inside the engine.

/// A result of the engine.
pub(super) type R<T> = Result<T, Fail>;

/// Why a rendering ended early.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Fail {
    /// All steps are spent.
    Fuel,
    /// More memory than a rendering may hold.
    Memory,
    /// Something is nested too deeply.
    Deep {
        /// The message.
        what: &'static str,
        limit: usize,
    },
    /// `raise_exception`.
    Raised(String),
    /// The exception that Python would raise.
    Error(String),
}

impl Fail {
    /// Shortens the message for readers: texts of a template can be long.
    pub(super) fn shortened(self) -> Self {
        match self {
            Self::Error(message) => Self::Error(super::lex::shortened(&message, 300)),
            other => other,
        }
    }

    /// An error with a message.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self::Error(message.into())
    }
}

/// Returns early with an error that has this message.
macro_rules! fail {
    ($($arg:tt)*) => { return Err($crate::chat::jinja::fail::Fail::Error(format!($($arg)*))) };
}
pub(super) use fail;
