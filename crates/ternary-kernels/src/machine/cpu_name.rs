//! The name of the CPU.

/// The CPU's own name, like `AMD Ryzen 9 7950X 16-Core Processor`; `None` if programs cannot read it.
///
/// ```
/// let name = ternary_kernels::cpu_name().unwrap_or_else(|| std::env::consts::ARCH.to_owned());
/// assert!(!name.is_empty());
/// ```
#[cfg(target_arch = "x86_64")]
pub fn cpu_name() -> Option<String> {
    use std::arch::x86_64::__cpuid;
    const LEAVES: [u32; 3] = [0x8000_0002, 0x8000_0003, 0x8000_0004];
    if __cpuid(0x8000_0000).eax < LEAVES[2] {
        return None;
    }
    let registers = LEAVES.map(__cpuid).map(|r| [r.eax, r.ebx, r.ecx, r.edx]);
    let bytes: Vec<u8> = registers.iter().flatten().flat_map(|r| r.to_le_bytes()).take_while(|&b| b != 0).collect();
    let name = String::from_utf8_lossy(&bytes).split_whitespace().collect::<Vec<_>>().join(" ");
    (!name.is_empty()).then_some(name)
}

/// The CPU's own name; `None`, because programs cannot read it on this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub fn cpu_name() -> Option<String> {
    None
}
