//! Reads and writes ternary checkpoints: GGUF files and Hugging Face folders.
#![deny(unsafe_code)]

pub mod chat;
pub mod tokenizer;
