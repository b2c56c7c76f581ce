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
pub(crate) use cache::second_level_cache;
pub use cpu_name::cpu_name;
pub use cpus::{available_cpus, default_threads};

/// The text of a file of `/proc` or `/sys`. Such files say that they are empty, so what reads other files begins with a few
/// bytes and doubles them; each piece is a system call, and all of them together take a part of the time in which a small
/// model loads. `None` for a file that cannot be read or is not text.
fn description(path: &std::path::Path) -> Option<String> {
    use std::io::Read;
    /// More than any of them has.
    const MOST: u64 = 1 << 20;
    let mut text = String::with_capacity(4096);
    std::fs::File::open(path).ok()?.take(MOST).read_to_string(&mut text).ok()?;
    Some(text)
}
