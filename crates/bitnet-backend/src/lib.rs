//! The Rust half of the page's interface `Backend` (`bindings/wasm/js/src/backend.ts`): its requests and the facts about a
//! model as JSON, the codes of errors, and how a session takes a prompt of which it has read the beginning.
//!
//! ```
//! use bitnet_backend::GenerateRequest;
//!
//! let request = r#"{"prompt": {"kind": "text", "text": "Once"}, "sampling": {"temperature": 0}, "maxTokens": 8}"#;
//! let request: GenerateRequest = serde_json::from_str(request)?;
//! assert!(matches!(request.prompt, bitnet_backend::Prompt::Text { .. }));
//! # Ok::<(), serde_json::Error>(())
//! ```

#![forbid(unsafe_code)]

mod code;
mod info;
mod join;
mod request;

pub use code::code;
pub use info::{Facts, Info};
pub use join::{Joined, join};
pub use request::{GenerateRequest, Prompt, SchemaError, Turn};
