//! safetensors headers and shard indices: a value or an error; a shard is always a plain file name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loader::safetensors::{SafetensorsFile, ShardIndex};
use ternary_kernels::SharedBytes;

fuzz_target!(|data: &[u8]| {
    if let Ok(index) = ShardIndex::parse(data) {
        for shard in index.shards() {
            assert!(!shard.contains(['/', '\\', '\0']) && shard != ".." && !shard.is_empty(), "{shard:?}");
        }
    }
    if let Ok(file) = SafetensorsFile::from_bytes(SharedBytes::from(data.to_vec())) {
        let tensors = file.tensors().expect("the header has been validated");
        assert!(tensors.values().all(|t| t.bytes.len() <= data.len()));
    }
});
