//! The maximum rate of int8 products of an instruction set: the loop of a matrix product without its loads.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use crate::{Isa, KernelError, Team};

/// Multiplications and additions of int8 products that `threads` threads can do together with the dot-product
/// instructions of `isa`, in 1e9 per second: the best of the passes that fit into `time`, at least two. Operands and
/// sums stay in registers. `None` if `isa` has no such instruction, and on CPUs other than x86, which have no probe
/// yet.
///
/// A product of an `[m, k]` matrix with `n` tokens is `2 m k n` of these operations. Sums are those that an exact
/// kernel can use: 32 bits with `vpdpbusd`; with AVX2 and SSE4.1, whose kernels widen now and then, the 16 bits between two
/// widenings.
///
/// # Errors
/// [`KernelError::UnavailableIsa`] for an instruction set that this CPU does not have,
/// [`KernelError::ThreadNotStarted`].
///
/// ```
/// use std::{num::NonZeroUsize, time::Duration};
/// use ternary_kernels::{Isa, probe::dot_peak};
/// assert_eq!(dot_peak(Isa::Scalar, NonZeroUsize::MIN, Duration::ZERO), Ok(None));
/// ```
pub fn dot_peak(isa: Isa, threads: NonZeroUsize, time: Duration) -> Result<Option<f64>, KernelError> {
    isa.require()?;
    let Some(run) = runner(isa) else { return Ok(None) };
    let team = Team::new(threads)?;
    let began = Instant::now();
    let (mut best, mut passes) = (f64::INFINITY, 0);
    while passes < 2 || began.elapsed() < time {
        let pass = Instant::now();
        team.run(&|_| run(black_box(ROUNDS)));
        best = best.min(pass.elapsed().as_secs_f64());
        passes += 1;
    }
    let operations = ROUNDS * SUMS as u64 * per_instruction(isa) * team.threads() as u64;
    Ok(Some(operations as f64 / best / 1e9))
}

/// Sums that are added to in turn: more than the latency of an instruction times the number that start per cycle, and
/// few enough to leave room for the operands in 16 registers.
const SUMS: usize = 12;

/// Rounds over all sums in one pass, about half a millisecond.
const ROUNDS: u64 = 100_000;

/// Multiplications and additions of one dot-product instruction.
fn per_instruction(isa: Isa) -> u64 {
    let int8_lanes = match isa {
        Isa::Avx512Vnni => 64,
        Isa::AvxVnni | Isa::Avx2 => 32,
        Isa::Sse41 | Isa::Scalar | Isa::Neon | Isa::NeonDot | Isa::NeonI8mm | Isa::Simd128 => 16,
    };
    2 * int8_lanes
}

#[cfg(not(target_arch = "x86_64"))]
fn runner(_: Isa) -> Option<fn(u64)> {
    None
}

#[cfg(target_arch = "x86_64")]
fn runner(isa: Isa) -> Option<fn(u64)> {
    let cpu = crate::Cpu::get();
    match isa {
        Isa::Avx512Vnni => cpu.avx512_vnni().map(|_| x86::avx512 as fn(u64)),
        Isa::AvxVnni => cpu.avx_vnni().map(|_| x86::avx_vnni as fn(u64)),
        Isa::Avx2 => cpu.avx2().map(|_| x86::avx2 as fn(u64)),
        Isa::Sse41 => cpu.sse41().map(|_| x86::sse41 as fn(u64)),
        Isa::Scalar | Isa::Neon | Isa::NeonDot | Isa::NeonI8mm | Isa::Simd128 => None,
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::SUMS;
    use crate::isa::compiled;

    /// Makes the compiler assume that a register has changed, so that it neither moves the instructions that read it
    /// out of the loop nor merges them. It costs no instruction.
    macro_rules! forget {
        ($class:ident, $register:ident) => {
            // SAFETY: the assembly is empty, so it only touches the named register.
            unsafe { asm!("/* {0} */", inout($class) $register, options(nomem, nostack, preserves_flags)) }
        };
    }

    /// Declares `$name`, which adds the product of `$byte` and `$byte` to each of [`SUMS`] sums in turn, on a CPU with `$token`.
    macro_rules! peak {
        ($name:ident, $token:ident = $detected:ident, $class:ident, $byte:ident, |$sum:ident, $a:ident, $b:ident| $add:expr) => {
            pub(super) fn $name(rounds: u64) {
                let Some(cpu) = crate::Cpu::get().$detected() else { return };
                compiled!($token, cpu => |_cpu, rounds: u64| {
                    let $a = $byte(1);
                    let mut $b = $byte(2);
                    let mut sums = [$byte(0); SUMS];
                    for _ in 0..rounds {
                        for sum in &mut sums {
                            forget!($class, $b);
                            let $sum = *sum;
                            *sum = $add;
                        }
                    }
                    black_box(sums);
                });
            }
        };
    }

    peak!(avx512, Avx512Vnni = avx512_vnni, zmm_reg, _mm512_set1_epi8, |sum, a, b| _mm512_dpbusd_epi32(sum, a, b));
    peak!(avx_vnni, AvxVnni = avx_vnni, ymm_reg, _mm256_set1_epi8, |sum, a, b| _mm256_dpbusd_avx_epi32(sum, a, b));
    peak!(avx2, Avx2 = avx2, ymm_reg, _mm256_set1_epi8, |sum, a, b| {
        _mm256_add_epi16(sum, _mm256_maddubs_epi16(a, b))
    });
    peak!(sse41, Sse41 = sse41, xmm_reg, _mm_set1_epi8, |sum, a, b| _mm_add_epi16(sum, _mm_maddubs_epi16(a, b)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_with_a_dot_product_has_a_peak() {
        for &isa in Isa::ALL {
            let peak = dot_peak(isa, NonZeroUsize::new(2).unwrap(), Duration::ZERO);
            match (isa.is_available(), isa) {
                (false, _) => assert!(matches!(peak, Err(KernelError::UnavailableIsa { .. }))),
                (true, Isa::Sse41 | Isa::Avx2 | Isa::AvxVnni | Isa::Avx512Vnni) => {
                    assert!(peak.unwrap().unwrap() > 0.0)
                }
                (true, _) => assert_eq!(peak, Ok(None)),
            }
        }
    }
}
