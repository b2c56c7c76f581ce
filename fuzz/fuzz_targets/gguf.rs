//! GGUF files: for any bytes, the reader and the model loader answer with a value or an error.
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use loader::gguf::Gguf;
use loader::{Checkpoint, LoadOptions};
use ternary_kernels::SharedBytes;

/// One file that every input is written to: the loader reads files.
fn scratch() -> &'static PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| std::env::temp_dir().join(format!("fuzz-{}.gguf", std::process::id())))
}

fuzz_target!(|data: &[u8]| {
    let Ok(file) = Gguf::from_bytes(SharedBytes::from(data.to_vec())) else { return };
    for (key, _) in file.metadata().iter() {
        let answers = (file.metadata().u64(key), file.metadata().str(key), file.metadata().strings(key));
        drop(answers);
    }
    for tensor in file.tensors() {
        if let Ok((_, bytes)) = file.data(tensor) {
            assert!(bytes.len() as u64 <= file.file_len());
        }
    }
    // The header holds, so the loader gets to look at it. The old mapping is gone by now.
    std::fs::write(scratch(), data).expect("the temporary folder can be written");
    // Without tile sizes, and with some that TL1 and TL2 tensors of many shapes can have.
    let mut tiled = LoadOptions::default();
    tiled.tl = "bm=32,bk=96,bmm=32".parse().expect("these are tile sizes");
    for options in [LoadOptions::default(), tiled] {
        if let Ok(checkpoint) = Checkpoint::open(scratch(), &options) {
            let _ = checkpoint.weights();
        }
    }
});
