//! Packed files: for any bytes, a model is refused or computes some numbers.
//!
//! Inputs are changes of a valid file: a byte that gives the length to keep, then pairs of a place (three bytes) and a
//! byte.
#![no_main]

use std::sync::OnceLock;

use bitnet_model::{Engine, EngineOptions, HeadMode, HeadRequest, KvType, Sequence};
use libfuzzer_sys::fuzz_target;
use loader::convert::{ConvertOptions, Target, convert};
use loader::{Checkpoint, LoadOptions};
use ternary_kernels::SharedBytes;

fn options() -> EngineOptions {
    EngineOptions::default().threads(1).head(HeadMode::Coarse)
}

/// A packed file of the model within the program.
fn valid() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let path = |name: &str| std::env::temp_dir().join(format!("fuzz-packed-{}-{name}.gguf", std::process::id()));
        let (from, to) = (path("from"), path("to"));
        std::fs::write(&from, bitnet::TINY_MODEL).expect("the temporary folder can be written");
        let mut how = ConvertOptions::default();
        how.engine = options();
        convert(&from, &to, Target::Packed, &how, &mut |_| {}).expect("the model can be packed");
        let bytes = std::fs::read(&to).expect("it was written");
        let _ = (std::fs::remove_file(&from), std::fs::remove_file(&to));
        bytes
    })
}

fuzz_target!(|data: &[u8]| {
    let Some((&left, changes)) = data.split_first() else { return };
    let mut bytes = valid().to_vec();
    for change in changes.as_chunks::<4>().0.iter().take(64) {
        // Half of the changes hit the header, which is a small part of the file.
        let at = u32::from_le_bytes([change[0], change[1], change[2] & 0x7f, 0]) as usize;
        let at = if change[2] & 0x80 == 0 { at % 16384 } else { at };
        if let Some(byte) = bytes.get_mut(at) {
            *byte = change[3];
        }
    }
    if left < 255 {
        bytes.truncate(bytes.len() * usize::from(left) / 255);
    }
    let checkpoint = Checkpoint::from_bytes(SharedBytes::from(bytes), &LoadOptions::default());
    let Ok(weights) = checkpoint.and_then(|c| c.weights()) else { return };
    let Ok(engine) = Engine::new(&weights, &options()) else { return };
    let mut sequence = Sequence::new(&engine, KvType::F32, Some(4));
    let _ = sequence.feed(&[1]);
    let _ = sequence.feed_with(&[2], HeadRequest::Top(1), None);
});
