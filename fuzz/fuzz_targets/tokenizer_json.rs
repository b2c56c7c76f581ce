//! A `tokenizer.json` from anywhere: an error, or a tokenizer whose costs stay bounded on every text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loader::tokenizer::Tokenizer;

/// Whole characters of one to four bytes, digits, white space, text that looks like special tokens, characters that
/// normalisers expand, long runs.
fn texts() -> [String; 5] {
    [
        "Once upon a time, 1234 \u{3042}\u{1F600}e\u{301}\r\n\t <|eot_id|>  ".to_owned(),
        "\u{fdfa}\u{1e9e}\u{df}\u{130}\u{ac00}\u{4e00}\u{fffd}\0".to_owned(),
        "a".repeat(3000),
        " ".repeat(3000),
        "1a,\u{3042} ".repeat(500),
    ]
}

fuzz_target!(|data: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_bytes(data) else { return };
    for text in texts() {
        for specials in [true, false] {
            let ids = if specials { tokenizer.encode(&text, true) } else { tokenizer.encode_text(&text) };
            if let Ok(ids) = ids {
                // A normalised text is bounded, and no token is shorter than a byte of it; BOS and EOS come on top.
                assert!(ids.len() <= 8 * text.len() + 8192, "{} ids of {} bytes", ids.len(), text.len());
                assert!(specials || ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
                let _ = tokenizer.decode(&ids, specials);
            }
        }
    }
    let _ = tokenizer.decode(&[0, 1, 2, u32::MAX], true);
});
