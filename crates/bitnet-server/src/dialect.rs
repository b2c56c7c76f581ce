//! The two interfaces: which one a client uses is seen from the path of its request.

/// An interface that clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// OpenAI's, with all endpoints of this server's own.
    OpenAi,
    /// Ollama's, below `/api`.
    Ollama,
}

impl Dialect {
    /// The interface that a path belongs to.
    pub(crate) fn of_path(path: &str) -> Self {
        match path.strip_prefix("/api") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => Self::Ollama,
            _ => Self::OpenAi,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_tell_the_interface() {
        for path in ["/api", "/api/", "/api/chat", "/api/nowhere/else"] {
            assert_eq!(Dialect::of_path(path), Dialect::Ollama, "{path}");
        }
        for path in ["/", "", "/apis", "/v1/chat/completions", "/v1/api/chat", "/bitnet/info"] {
            assert_eq!(Dialect::of_path(path), Dialect::OpenAi, "{path}");
        }
    }
}
