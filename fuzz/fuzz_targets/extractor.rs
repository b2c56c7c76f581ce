//! Extractors: for any bytes, configuration and file are read or refused, and an extractor that was read answers every
//! text.
#![no_main]

use bitnet_model::encoder::Extractor;
use libfuzzer_sys::fuzz_target;
use loader::extractor::{config_from_json, config_to_json, read_bytes};
use ternary_kernels::SharedBytes;

fuzz_target!(|data: &[u8]| {
    if let Ok(config) = config_from_json(data) {
        let json = config_to_json(&config).expect("what was read can be written");
        assert!(config_from_json(json.as_bytes()).is_ok_and(|again| again == config));
    }
    let Ok(weights) = read_bytes(SharedBytes::from(data.to_vec())) else { return };
    let extractor = Extractor::new(weights).expect("what was read can be packed");
    // Any bytes are a text as well.
    let text = String::from_utf8_lossy(data.get(..4096).unwrap_or(data));
    let mut scratch = extractor.scratch();
    for task in 0..extractor.config().tasks.len() {
        // Numbers of a hostile file may overflow, which is an error.
        if let Ok(found) = extractor.extract_into(task, &text, &mut scratch) {
            assert!(found.spans.iter().all(|span| text.get(span.range.clone()).is_some()));
        }
    }
});
