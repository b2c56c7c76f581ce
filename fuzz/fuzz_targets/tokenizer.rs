//! Tokenizer files: a tokenizer that encodes and decodes any text, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loader::tokenizer::Tokenizer;

/// Whole characters of one to four bytes, digits, white space, something that looks special.
const TEXT: &str = "Once upon a time, 1234 \u{3042}\u{1F600}e\u{301}\r\n\t <|eot_id|>  ";

fn exercise(tokenizer: &Tokenizer) {
    if let Ok(ids) = tokenizer.encode(TEXT, true) {
        let _ = tokenizer.decode(&ids, false);
    }
    let _ = tokenizer.decode(&[0, 1, 2, u32::MAX], true);
}

fuzz_target!(|data: &[u8]| {
    if let Ok(tokenizer) = Tokenizer::from_bytes(data) {
        exercise(&tokenizer);
    }
    if let Ok(tokenizer) = Tokenizer::from_sentencepiece(data) {
        exercise(&tokenizer);
    }
});
