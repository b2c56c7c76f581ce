//! The crate `bitnet` for a browser: what a worker calls. The package around it is in `js/`.
//!
//! Everything here is synchronous and short: a step of a generation reads 64 tokens of the prompt or makes one token,
//! so that the worker can look for messages in between. Requests and answers are JSON; large things are bytes. Errors
//! are values ([`Failure`]) with the codes of the page. A panic or an exhausted memory ends the instance;
//! [`last_panic`] says why.

mod clock;
mod extractor;
mod failure;
mod load;
mod losses;
mod memory;
mod model;
mod session;

use wasm_bindgen::prelude::wasm_bindgen;

pub use clock::last_panic;
pub use extractor::Extractor;
pub use failure::Failure;
pub use losses::Losses;
pub use memory::{Upload, memory_bytes};
pub use model::Model;
pub use session::Session;

/// The version of the library.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

#[wasm_bindgen(start)]
fn start() {
    clock::start();
}
