//! Options of a server: address, keys, limits.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::ServerError;

/// Longest key in bytes: the whole head of a request has 64 KiB.
const MAX_KEY: usize = 4096;

/// A secret that clients have to send. It is never printed.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// A key; spaces and line ends around it, as files have them, are not part of it.
    pub fn new(key: impl AsRef<str>) -> Self {
        Self(key.as_ref().trim().to_owned())
    }

    /// Why no client could ever send it, if so.
    pub(crate) fn fault(&self) -> Option<ServerError> {
        if self.0.is_empty() {
            return Some(ServerError::EmptyKey);
        }
        // Only characters that all programs read equally in a header.
        let at = self.0.chars().position(|c| !matches!(c, ' '..='~'));
        let sendable = at.map(|at| ServerError::KeyCharacter { at: at + 1 });
        sendable.or((self.0.len() > MAX_KEY).then_some(ServerError::KeyTooLong { limit: MAX_KEY }))
    }

    /// Whether `given` is this key, in a time that reveals at most its length.
    pub(crate) fn is(&self, given: &str) -> bool {
        let (key, given) = (self.0.as_bytes(), given.as_bytes());
        let differing = key.iter().zip(given).fold(0, |bits, (a, b)| std::hint::black_box(bits | (a ^ b)));
        key.len() == given.len() && differing == 0
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

/// Options of a [`Server`](crate::Server).
///
/// ```
/// use bitnet_server::{ApiKey, Options};
/// let mut options = Options::default();
/// options.address = ([127, 0, 0, 1], 0).into();
/// options.api_key = Some(ApiKey::new("secret"));
/// options.max_sessions = 4;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The address to listen at; port 0 takes a free one.
    pub address: SocketAddr,
    /// Name of the first model for clients; by default the name of its file.
    pub name: Option<String>,
    /// Bytes that all models in memory may take together: their weights, and [`Options::cache_bytes`] for each. The states of
    /// texts that are generated come on top. When a model is to be loaded and there is no room, those leave that have been
    /// without a request longest.
    pub memory_limit: Option<u64>,
    /// Longest wait of a request until the model that it names was loaded.
    pub load_timeout: Duration,
    /// How long a model that was loaded stays at least, before it leaves for another one or because a client asked for
    /// that; in any case it stays ten times as long as its loading took. A model that could not be loaded is not tried
    /// again for as long. So a client cannot keep the machine loading.
    pub model_stay: Duration,
    /// Key that clients must send as `Authorization: Bearer KEY`.
    pub api_key: Option<ApiKey>,
    /// Whether to listen on other addresses than loopback without a key.
    pub without_key: bool,
    /// Host names (`Host`), without a port, that are allowed for a server without a key in addition to those of this
    /// machine. A web page can send requests here under its own name (DNS rebinding), so other names are rejected.
    pub allow_hosts: Vec<String>,
    /// Origins of web pages that may use the server from a browser, as in `http://localhost:3000`. Other pages can
    /// neither send requests nor read answers. With `*` all pages can that anyone opens in a browser on a machine that
    /// reaches the server: it is for machines of one's own that open no pages of strangers.
    pub cors_origins: Vec<String>,
    /// Whether the page is served at `/`: a front end for browsers, which uses the endpoints like any other client.
    #[cfg(feature = "page")]
    pub page: bool,
    /// Texts that are generated at once, in one pass over the weights each step.
    pub max_sessions: usize,
    /// Additional places for short texts: prompt and answer have at most 1,024 tokens together. The second of these
    /// places takes texts of 512 tokens, the third of 256, the others of 128. So an ordinary request does not wait
    /// while long ones have all other places.
    pub short_sessions: usize,
    /// Texts that may wait for their turn, a quarter of them single short ones; further ones are rejected with status
    /// 429.
    pub queue: usize,
    /// The maximum number of new tokens of a request, and the default. By default the length of the context, or for
    /// models without a limit of context the length that they were made for.
    pub max_tokens: Option<usize>,
    /// Most texts that one request may ask for (`n`, several prompts).
    pub max_choices: usize,
    /// Bytes of ended texts that are kept for each model, so that their continuations need not read them again; 0 keeps
    /// none.
    pub cache_bytes: usize,
    /// Longest body of a request in bytes.
    pub body_bytes: usize,
    /// The maximum number of tokens of a text that becomes a vector. By default the length of the context, or 32,768
    /// for models without a limit of context.
    pub max_embed_tokens: Option<usize>,
    /// Threads that read requests larger than 64 KiB and cut their texts into tokens; smaller ones have threads of
    /// their own.
    pub prompt_threads: usize,
    /// Large requests that may wait for such a thread; further ones are rejected with status 429.
    pub prompt_queue: usize,
    /// Threads that build constraints (`response_format`, `grammar`, `regex`).
    pub constraint_threads: usize,
    /// Constraints that may wait for such a thread; further ones are rejected with status 429.
    pub constraint_queue: usize,
    /// Longest wait from the end of a request until its constraint is built.
    pub constraint_timeout: Duration,
    /// Bytes of the constraints of all texts together, including waiting ones. While half of them are taken, requests
    /// with constraints are rejected with status 429; if growing automata take all, the text with the largest ends with
    /// an error.
    pub constraint_bytes: usize,
    /// Simultaneous connections. Beyond this, the connection that was idle longest is closed, or if none is idle,
    /// others wait until one ends.
    pub max_connections: usize,
    /// Longest wait for the whole head of a request, from the connection's begin or the head's first byte.
    pub head_timeout: Duration,
    /// How long a connection without a further request stays open.
    pub idle_timeout: Duration,
    /// Longest wait for the body of a request, and for a thread that reads it.
    pub read_timeout: Duration,
    /// Write timeout: longest wait for a client that does not read.
    pub write_timeout: Duration,
    /// How long texts may continue after the server was asked to end.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, 8080).into(),
            name: None,
            memory_limit: None,
            load_timeout: Duration::from_secs(120),
            model_stay: Duration::from_secs(10),
            api_key: None,
            without_key: false,
            allow_hosts: Vec::new(),
            cors_origins: Vec::new(),
            #[cfg(feature = "page")]
            page: false,
            max_sessions: 8,
            short_sessions: 4,
            queue: 64,
            max_tokens: None,
            max_choices: 16,
            cache_bytes: 256 << 20,
            body_bytes: 4 << 20,
            max_embed_tokens: None,
            prompt_threads: half_the_cpus(),
            prompt_queue: 32,
            constraint_threads: half_the_cpus(),
            constraint_queue: 32,
            constraint_timeout: Duration::from_secs(5),
            constraint_bytes: 512 << 20,
            max_connections: 512,
            head_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(10),
        }
    }
}

/// The other half is the model's, and that of those who ask for little.
fn half_the_cpus() -> usize {
    (bitnet::available_cpus().get() / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_itself_and_nothing_else() {
        let key = ApiKey::new(" secret\n");
        assert!(key.is("secret"));
        for other in ["", "s", "secre", "secrets", "Secret", " secret"] {
            assert!(!key.is(other), "{other}");
        }
        assert!(!format!("{key:?}").contains("cret"));
    }

    #[test]
    fn a_key_that_no_client_can_send_is_none() {
        let fault = |key: &str| ApiKey::new(key).fault();
        assert!(fault("two words, and ~!").is_none());
        assert!(matches!(fault(" \n"), Some(ServerError::EmptyKey)));
        for (key, at) in [("sécret", 2), ("a\tb", 2), ("鍵", 1), ("ab\u{7f}", 3)] {
            assert!(matches!(fault(key), Some(ServerError::KeyCharacter { at: found }) if found == at), "{key:?}");
        }
        assert!(matches!(fault(&"x".repeat(5000)), Some(ServerError::KeyTooLong { .. })));
    }
}
