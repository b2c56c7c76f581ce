//! The size of the caches of this CPU.

use std::sync::OnceLock;

/// The size if the CPU does not report it: common for servers and large desktops.
const ASSUMED: usize = 32 << 20;
/// The second level if the CPU does not report it: most CPUs have at least this much for each core.
const ASSUMED_SECOND: usize = 512 << 10;

/// Bytes of the largest cache that core 0 can use, as the CPU reports it; 32 MiB if it does not.
///
/// ```
/// assert!(ternary_kernels::last_level_cache() >= 1 << 16);
/// ```
pub fn last_level_cache() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    // No last-level cache is below 64 KiB; an emulated CPU may report such values.
    *BYTES.get_or_init(|| reported(None).filter(|&bytes| bytes >= 1 << 16).unwrap_or(ASSUMED))
}

/// Bytes of the second-level cache of core 0, as the CPU reports it; 512 KiB if it does not.
pub(crate) fn second_level_cache() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| reported(Some(2)).filter(|&bytes| bytes >= 1 << 16).unwrap_or(ASSUMED_SECOND))
}

/// The largest of the caches that `cpuid` lists, or of those of one level.
#[cfg(target_arch = "x86_64")]
fn reported(level: Option<u32>) -> Option<usize> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    // Two leaves of the same form: AMD's and Intel's.
    [0x8000_001d, 4].into_iter().find_map(|leaf| {
        let largest_leaf = __cpuid(leaf & 0x8000_0000).eax;
        if largest_leaf < leaf {
            return None;
        }
        let caches = (0..16).map(|i| __cpuid_count(leaf, i)).take_while(|c| c.eax & 31 != 0);
        let field = |value: u32, shift: u32, bits: u32| (value >> shift & ((1 << bits) - 1)) as usize + 1;
        let bytes = |c: std::arch::x86_64::CpuidResult| {
            let (line, partitions, ways) = (field(c.ebx, 0, 12), field(c.ebx, 12, 10), field(c.ebx, 22, 10));
            line.saturating_mul(partitions).saturating_mul(ways).saturating_mul(c.ecx as usize + 1)
        };
        caches.filter(|c| level.is_none_or(|level| c.eax >> 5 & 7 == level)).map(bytes).max()
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn reported(_level: Option<u32>) -> Option<usize> {
    None
}
