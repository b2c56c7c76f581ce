//! Why a server cannot run.

use std::net::SocketAddr;

/// Errors of starting and running a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields that are named after what they hold have no comment")]
pub enum ServerError {
    /// Another program listens there.
    #[error(
        "cannot listen on {address}: the port is in use; end what uses it, or choose another port (0 takes a free one)"
    )]
    PortInUse { address: SocketAddr },
    /// An address at which this process cannot listen.
    #[error(
        "cannot listen on {address}: {source}; choose another address or port (below 1024 a port is the administrator's)"
    )]
    Listen {
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// An address that others can reach, without a key.
    #[error(
        "{address} can be reached from other machines, and there is no key: anyone who finds it can use it; give an API key, \
         listen on 127.0.0.1, or allow it explicitly (--without-key)"
    )]
    Open { address: SocketAddr },
    /// An API key without a character.
    #[error("the API key is empty; give one with at least one character, or none")]
    EmptyKey,
    /// An API key that no client can send.
    #[error(
        "character {at} of the API key cannot be sent in a header: a key is made of visible ASCII characters; choose another key"
    )]
    KeyCharacter {
        /// Its number, from 1. The key itself is never printed.
        at: usize,
    },
    /// An API key that is longer than the head of a request should be.
    #[error("the API key has more than {limit} characters; choose a shorter one")]
    KeyTooLong { limit: usize },
    /// A name by which no client can call.
    #[error("{name:?} is not a host name; give it without scheme and port, as in box.example (--allow-host)")]
    HostName { name: String },
    /// An origin that no browser sends.
    #[error(
        "{origin:?} is not an origin of web pages; give its scheme and host as a browser does, as in https://example.org or \
         http://localhost:3000, or * for all of them (--cors)"
    )]
    Origin { origin: String },
    /// A limit that lets nothing through.
    #[error("{option} is 0; it must be at least 1")]
    Limit { option: &'static str },
    /// A server without a model.
    #[error("there is no model to serve; give at least one")]
    NoModels,
    /// Two models that clients could not tell apart.
    #[error("two models are called {name:?}; give files of different names")]
    SameName { name: String },
    /// Models that are in memory from the begin and take too much of it.
    #[error(
        "the models that are loaded at the start take {needed} bytes of memory, and {limit} are allowed; raise the limit (--memory-limit)"
    )]
    Memory { needed: u64, limit: u64 },
    /// A model that cannot read text.
    #[error("the model has no tokenizer, so it cannot be asked in text; give one (a tokenizer.json)")]
    NoTokenizer,
    /// The system gives no threads or no network.
    #[error("the operating system refused a resource that the server needs: {source}")]
    System {
        /// Its reason.
        #[from]
        source: std::io::Error,
    },
    /// Work that went on after the time for it was over.
    #[error("a computation did not end within {} seconds of the server's shutdown", after.as_secs())]
    Stuck {
        /// How long the server waited after all texts should have been cancelled.
        after: std::time::Duration,
    },
    /// A second signal came before the server had ended.
    #[error("ended at once by a second signal ({signal})")]
    Killed {
        /// Its number.
        signal: i32,
    },
    /// The thread that computes has ended with a panic.
    #[error("the engine thread has failed; this is a bug, please report it")]
    EngineFailed,
}
