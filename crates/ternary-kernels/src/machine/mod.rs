//! This machine: instruction sets and their registers, memory, caches, CPUs. This module does not depend on weights.

mod aligned;
mod bytes;
mod cache;
mod cpu_name;
mod cpus;
#[cfg(target_os = "linux")]
mod huge;
pub mod isa;
mod quota;
pub(crate) mod simd;

pub use aligned::AlignedBuf;
pub use bytes::{ByteOwner, SharedBytes};
pub use cache::last_level_cache;
pub use cpu_name::cpu_name;
pub use cpus::{available_cpus, default_threads};
