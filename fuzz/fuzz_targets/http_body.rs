//! Bodies of requests to the server, up to the point where a text would be generated: a plan, or an error of the client.
#![no_main]

use std::sync::OnceLock;
use std::time::Duration;

use bitnet_server::{Options, Service};
use libfuzzer_sys::fuzz_target;

static PATHS: [&str; 9] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/bitnet/inner-loss",
    "/v1/responses",
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/embeddings",
];

/// The model within the library, with a chat template that it never learned.
fn service() -> &'static Service {
    static SERVICE: OnceLock<Service> = OnceLock::new();
    SERVICE.get_or_init(|| {
        let model = bitnet::Model::builder().threads(1).chat_template("chatml").load_bytes(bitnet::TINY_MODEL);
        let mut options = Options::default();
        options.grace = Duration::ZERO;
        Service::start(model.expect("the model within the library"), options).expect("threads")
    })
}

// The first byte says to which endpoint; files that are JSON go to all of them.
fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let (paths, body) = match *first {
        b'{' => (&PATHS[..], data),
        other => (std::slice::from_ref(&PATHS[usize::from(other) % PATHS.len()]), rest),
    };
    for path in paths {
        let status = service().plan_only(path, body);
        assert!(status < 500, "{path}: {status}");
    }
});
