//! The tests of this crate, as one program: each file alone would link all that is below the crate once more.

#![allow(clippy::duplicate_mod, reason = "`common` is a part of each file, as it would be of programs of their own")]

#[path = "bit_ttt.rs"]
mod bit_ttt;
#[path = "bitnet_v2.rs"]
mod bitnet_v2;
#[path = "block_layouts.rs"]
mod block_layouts;
#[path = "chat.rs"]
mod chat;
#[path = "chat_hostile.rs"]
mod chat_hostile;
#[path = "chat_jinja.rs"]
mod chat_jinja;
#[path = "checkpoint.rs"]
mod checkpoint;
#[path = "convert.rs"]
mod convert;
#[path = "convert_groups.rs"]
mod convert_groups;
#[path = "extractor.rs"]
mod extractor;
#[path = "falcon_e.rs"]
mod falcon_e;
#[path = "families.rs"]
mod families;
#[path = "formulas.rs"]
mod formulas;
#[path = "gguf_peer.rs"]
mod gguf_peer;
#[path = "gguf_reject.rs"]
mod gguf_reject;
#[path = "hf_families.rs"]
mod hf_families;
#[path = "hub.rs"]
mod hub;
#[path = "packed.rs"]
mod packed;
#[path = "packed_cache.rs"]
mod packed_cache;
#[path = "safetensors.rs"]
mod safetensors;
#[path = "split.rs"]
mod split;
#[path = "talk.rs"]
mod talk;
#[path = "tl.rs"]
mod tl;
#[path = "tokenizer.rs"]
mod tokenizer;
#[path = "tokenizer_hostile.rs"]
mod tokenizer_hostile;
#[path = "tokenizer_reject.rs"]
mod tokenizer_reject;
#[path = "trilm.rs"]
mod trilm;
#[path = "vocabulary.rs"]
mod vocabulary;

#[test]
fn every_file_is_named() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    test_support::every_test_is_named(folder, include_str!("it.rs"), include_str!("../Cargo.toml"));
}
