//! Contents of tensors of random weights, made piece by piece: every byte is a function of the seed and its place.

use std::io::Write;
use std::num::NonZeroUsize;

use half::f16;

use crate::gguf::GgmlType;

/// Bytes that one thread makes at a time.
const PIECE: usize = 1 << 20;
/// Weights and bytes of a block of PQ2_0: a scale in half precision, then four codes in each byte.
const GROUP: [usize; 2] = [128, 34];

pub(super) enum Contents {
    /// I2_S: four codes in each of `bytes` bytes, then the scale.
    Trits { bytes: usize, scale: f32 },
    /// PQ2_0: blocks of 128 weights, each with a scale within an eighth of `scale`.
    Groups { weights: usize, scale: f32 },
    /// f16, uniform in +-1/8: rows of length about `sqrt(hidden) / 14`.
    Table { values: usize },
    /// f32, or f16 if `half`, near 1.
    Norm { values: usize, half: bool },
    /// f32, uniform with this mean and deviation.
    Floats { values: usize, mean: f32, deviation: f32 },
}

impl Contents {
    pub(super) fn ty(&self) -> GgmlType {
        match self {
            Contents::Trits { .. } => GgmlType::I2S,
            Contents::Groups { .. } => GgmlType::Pq2_0,
            Contents::Table { .. } | Contents::Norm { half: true, .. } => GgmlType::F16,
            Contents::Norm { half: false, .. } | Contents::Floats { .. } => GgmlType::F32,
        }
    }

    /// Writes the bytes; `tell` is called with the number written so far.
    pub(super) fn write(
        &self,
        seed: u64,
        threads: NonZeroUsize,
        out: &mut dyn Write,
        tell: &mut dyn FnMut(usize) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        match *self {
            Contents::Trits { bytes, scale } => {
                let codes = byte_table();
                let fill = |first: usize, piece: &mut [u8]| trits(seed, first, piece, &codes);
                pieces(bytes, 1, threads, out, &fill, tell)?;
                let mut tail = [0; 32];
                tail[..4].copy_from_slice(&scale.to_le_bytes());
                out.write_all(&tail)?;
                tell(tail.len())
            }
            Contents::Groups { weights, scale } => {
                let codes = byte_table();
                let [group, bytes] = GROUP;
                let fill = |first: usize, piece: &mut [u8]| {
                    for (i, block) in piece.chunks_mut(bytes).enumerate() {
                        let at = first / bytes + i;
                        let (d, qs) = block.split_at_mut(2);
                        let around = 0.875 + (hash(!seed, at as u64) >> 56) as f32 / 1024.0;
                        d.copy_from_slice(&f16::from_f32(scale * around).to_le_bytes());
                        trits(seed, at * qs.len(), qs, &codes);
                    }
                };
                pieces(weights / group * bytes, bytes, threads, out, &fill, tell)
            }
            Contents::Table { values } => {
                let numbers: Vec<[u8; 2]> =
                    (0..256).map(|b| f16::from_f32((b as f32 - 127.5) / 1024.0).to_le_bytes()).collect();
                let fill = |first: usize, piece: &mut [u8]| {
                    each_hash(seed, first, piece, 16, |hash, bytes| {
                        for (pair, h) in bytes.chunks_exact_mut(2).zip(hash.to_le_bytes()) {
                            pair.copy_from_slice(&numbers[usize::from(h)]);
                        }
                    });
                };
                pieces(values * 2, 1, threads, out, &fill, tell)
            }
            Contents::Norm { values, half } => {
                for i in 0..values as u64 {
                    let gain = 1.0 + ((hash(seed, i) >> 60) as f32 - 7.5) / 64.0;
                    match half {
                        true => out.write_all(&f16::from_f32(gain).to_le_bytes())?,
                        false => out.write_all(&gain.to_le_bytes())?,
                    }
                }
                tell(values * if half { 2 } else { 4 })
            }
            Contents::Floats { values, mean, deviation } => {
                let fill = |first: usize, piece: &mut [u8]| {
                    each_hash(seed, first, piece, 4, |hash, bytes| {
                        let uniform = (hash >> 40) as f32 / (1 << 23) as f32 - 1.0;
                        bytes.copy_from_slice(&(mean + deviation * 3f32.sqrt() * uniform).to_le_bytes());
                    });
                };
                pieces(values * 4, 1, threads, out, &fill, tell)
            }
        }
    }
}

/// Four codes in each byte of `piece`, which begins at byte `first` of all. 16 bits choose among the 81 bytes that four
/// trits can make: no two differ in probability by more than one part in 800.
fn trits(seed: u64, first: usize, piece: &mut [u8], codes: &[u8; 81]) {
    each_hash(seed, first, piece, 4, |hash, bytes| {
        for (byte, h) in bytes.iter_mut().zip(hash.to_le_bytes().chunks_exact(2)) {
            let h = u32::from(u16::from_le_bytes([h[0], h[1]]));
            *byte = codes[((h * 81) >> 16) as usize];
        }
    });
}

/// Generates `bytes` bytes in pieces, `threads` pieces at a time, and writes them in order. `fill` gets a piece, which
/// is whole blocks of `block` bytes, and its offset.
fn pieces(
    bytes: usize,
    block: usize,
    threads: NonZeroUsize,
    out: &mut dyn Write,
    fill: &(dyn Fn(usize, &mut [u8]) + Sync),
    tell: &mut dyn FnMut(usize) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let size = PIECE / block * block;
    let mut buffer = vec![0; bytes.min(size * threads.get())];
    for first in (0..bytes).step_by(buffer.len().max(1)) {
        let part = &mut buffer[..(bytes - first).min(size * threads.get())];
        std::thread::scope(|scope| {
            let mut all = part.chunks_mut(size).enumerate();
            let own = all.next();
            for (i, piece) in all {
                scope.spawn(move || fill(first + i * size, piece));
            }
            if let Some((_, piece)) = own {
                fill(first, piece);
            }
        });
        out.write_all(part)?;
        tell(part.len())?;
    }
    Ok(())
}

/// Calls `f` with one hash for each `width` bytes of `piece`, which begins at byte `first`, a multiple of `width`.
fn each_hash(seed: u64, first: usize, piece: &mut [u8], width: usize, f: impl Fn(u64, &mut [u8])) {
    for (i, bytes) in piece.chunks_mut(width).enumerate() {
        f(hash(seed, (first / width + i) as u64), bytes);
    }
}

/// The step of SplitMix64.
pub(super) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Number `i` of the SplitMix64 sequence that begins at `seed`.
fn hash(seed: u64, i: u64) -> u64 {
    let z = seed.wrapping_add((i + 1).wrapping_mul(GOLDEN));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The 81 bytes that hold four codes of 0, 1 and 2.
fn byte_table() -> [u8; 81] {
    std::array::from_fn(|i| {
        let code = |power: usize| (i / power % 3) as u8;
        code(1) | code(3) << 2 | code(9) << 4 | code(27) << 6
    })
}
