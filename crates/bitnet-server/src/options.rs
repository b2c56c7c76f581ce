//! What a server may be told: where to listen, who may ask, how much at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// A secret that clients have to send. It is never printed.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// A key; spaces and line ends around it, as files have them, are no part of it.
    pub fn new(key: impl AsRef<str>) -> Self {
        Self(key.as_ref().trim().to_owned())
    }

    /// Whether there is nothing of it.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `given` is this key, in a time that tells its length at most.
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

/// How a [`Server`](crate::Server) behaves.
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
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// What clients call the model; by default the name of its file.
    pub name: Option<String>,
    /// What clients have to send as `Authorization: Bearer KEY`.
    pub api_key: Option<ApiKey>,
    /// Whether to listen on other addresses than loopback without a key.
    pub without_key: bool,
    /// Texts that are generated at once, in one pass over the weights each step.
    pub max_sessions: usize,
    /// Texts that may wait for their turn; what comes beyond is refused with status 429.
    pub queue: usize,
    /// Most new tokens that a request may ask for, and what it gets at most where it does not ask. By default what the context
    /// holds, or for models without a limit of context what they were made for.
    pub max_tokens: Option<usize>,
    /// Most texts that one request may ask for (`n`, several prompts).
    pub max_choices: usize,
    /// Bytes of ended texts that are kept, so that what goes on after them need not read them again; 0 keeps none.
    pub cache_bytes: usize,
    /// Longest body of a request in bytes.
    pub body_bytes: usize,
    /// Connections at once; others wait until one ends.
    pub max_connections: usize,
    /// Longest wait for the head of a request, which is also how long an idle connection stays, and for its body.
    pub read_timeout: Duration,
    /// Longest wait for a client that takes nothing of what it is sent.
    pub write_timeout: Duration,
    /// How long texts may go on after the server was told to end.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, 8080).into(),
            name: None,
            api_key: None,
            without_key: false,
            max_sessions: 8,
            queue: 64,
            max_tokens: None,
            max_choices: 16,
            cache_bytes: 256 << 20,
            body_bytes: 4 << 20,
            max_connections: 512,
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_itself_and_nothing_else() {
        let key = ApiKey::new(" sécret\n");
        assert!(key.is("sécret"));
        for other in ["", "s", "secret", "sécre", "sécrets", "Sécret", " sécret"] {
            assert!(!key.is(other), "{other}");
        }
        assert!(!format!("{key:?}").contains("cret"));
        assert!(ApiKey::new(" \n").is_empty());
    }
}
