//! The loops of a tile, written once, generic over an instruction set's integer lanes.

#![expect(clippy::needless_range_loop, reason = "small arrays are registers, all indexed by the same constants")]

use half::f16;

use super::product::{Product, Tile};
use super::{CHUNK_BYTES, CHUNKS_PER_QUAD, Chunk, MAX_GROUP_CHUNKS, PANEL_ROWS, UNIT_GROUPS};
use crate::i2s::Acts;
use crate::ops::lanes::Simd;

/// An instruction set's operations on the codes of a panel, in `REGS` registers of `16 / REGS` rows each.
///
/// `self` is a proof token, so the methods are safe. They are `#[inline(always)]` so that they become part of a
/// function that is compiled for the instruction set; closures are not, so vectors never pass through one.
pub(super) trait Lanes<const REGS: usize>: Copy {
    /// Operations on the 16 f32 of a panel.
    type Float: Simd;
    /// Codes, or their products before any addition: four bytes for each row.
    type B: Copy;
    /// Sums of products, as narrow as the instructions make them.
    type A: Copy;
    /// A sum for each row, i32.
    type W: Copy;

    /// Chunks whose products an `A` holds, with codes up to 3 and digits from -128 to 127.
    const FLUSH: usize;
    /// [`Lanes::FLUSH`] for products that are four times as large, of two fields of each chunk.
    const FLUSH_QUADRUPLE: usize;

    fn float(self) -> Self::Float;
    /// Register `r` of a chunk.
    fn load(self, chunk: &Chunk, r: usize) -> Self::B;
    /// The codes of field `J`.
    fn field<const J: i32>(self, v: Self::B) -> Self::B;
    /// Fields 0 and 2 unchanged, fields 1 and 3 four times as large, in their order.
    fn quadruples(self, v: Self::B) -> [Self::B; 4];
    fn zero(self) -> Self::A;
    /// Adds the products of codes of field `J` with activations `4J..4J + 4`.
    fn dot<const J: i32>(self, sum: Self::A, codes: Self::B, x: &Acts) -> Self::A;
    /// The sum of each row.
    fn rows(self, sum: Self::A) -> Self::W;

    fn zero_rows(self) -> Self::W;
    fn add(self, a: Self::W, b: Self::W) -> Self::W;
    /// `a / 4`, for multiples of 4.
    fn quarter(self, a: Self::W) -> Self::W;
    /// `256 * hi + lo`
    fn digits(self, hi: Self::W, lo: Self::W) -> Self::W;
    /// `a - x`
    fn less(self, a: Self::W, x: i32) -> Self::W;
    /// The rows of a panel.
    fn panel(self, rows: [Self::W; REGS]) -> <Self::Float as Simd>::I;

    /// Prefetches what comes some way after `chunk`, which is about to be read.
    #[inline(always)]
    fn prefetch(self, _chunk: &Chunk) {}
}

/// The `W` of instruction sets whose sums are rows of an array, which compilers turn into vectors.
#[allow(unused_macros, reason = "unused on some architectures")]
macro_rules! array_rows {
    ($len:literal) => {
        type W = [i32; $len];
        #[inline(always)]
        fn zero_rows(self) -> Self::W {
            [0; $len]
        }
        #[inline(always)]
        fn add(self, mut a: Self::W, b: Self::W) -> Self::W {
            for i in 0..$len {
                a[i] += b[i];
            }
            a
        }
        #[inline(always)]
        fn quarter(self, mut a: Self::W) -> Self::W {
            for i in 0..$len {
                a[i] >>= 2;
            }
            a
        }
        #[inline(always)]
        fn digits(self, hi: Self::W, mut lo: Self::W) -> Self::W {
            for i in 0..$len {
                lo[i] += hi[i] << 8;
            }
            lo
        }
        #[inline(always)]
        fn less(self, mut a: Self::W, x: i32) -> Self::W {
            for i in 0..$len {
                a[i] -= x;
            }
            a
        }
    };
}
pub(super) use array_rows;

/// Sums of `R` registers for each digit of each token.
type Sums<T, const R: usize, const D: usize, const N: usize> = [[[T; R]; D]; N];

/// A tile of `P` panels and `N` tokens of `D` digits, `R` registers of weights at a time. With `QUADRUPLE`, two sums
/// for each result hide the latency and save shifts, for few tokens.
#[inline(always)]
pub(super) fn tile<
    S: Lanes<REGS>,
    const REGS: usize,
    const P: usize,
    const R: usize,
    const N: usize,
    const D: usize,
    const QUADRUPLE: bool,
>(
    s: S,
    product: &Product<'_>,
    t: &Tile<'_>,
    out: &mut [f32],
) {
    const { assert!((P * REGS).is_multiple_of(R) && (D == 1 || D == 2)) };
    let float = s.float();
    let (digits, _) = t.acts.as_chunks::<D>();
    let (acts, _) = digits.as_chunks::<N>();
    let (sums, _) = t.sums.as_chunks::<N>();
    let (steps, _) = t.steps.as_chunks::<N>();
    let mut weights: [&[Chunk]; P] = [&[]; P];
    let mut y = [[float.splat(0.0); P]; N];
    for i in 0..P {
        weights[i] = t.weights(product, i);
        for n in 0..N {
            y[n][i] = float.load(&t.before(product, i, n, out));
        }
    }

    let (mut quads, group_quads) = t.quads(product);
    let (mut line, mut quad, mut group_index) = (0, 0, 0);
    while quads > 0 {
        let mut scales = [[[f16::ZERO; PANEL_ROWS]; UNIT_GROUPS]; P];
        for i in 0..P {
            scales[i] = unit_scales(&weights[i][line]);
        }
        line += 1;
        for g in 0..UNIT_GROUPS {
            let group = group_quads.min(quads);
            if group == 0 {
                break;
            }
            let chunks = group * CHUNKS_PER_QUAD;
            let x = &acts[quad * CHUNKS_PER_QUAD..][..chunks];
            let mut less = [0i32; N];
            for sums in &sums[quad..quad + group] {
                for n in 0..N {
                    less[n] += sums[n];
                }
            }

            if P == 1 && !QUADRUPLE {
                for chunk in &weights[0][line..line + chunks] {
                    s.prefetch(chunk);
                }
            }
            let mut rows = [[[s.zero_rows(); REGS]; P]; N];
            for pass in 0..P * REGS / R {
                let mut w: [&[Chunk]; R] = [&[]; R];
                let mut regs = [0; R];
                for r in 0..R {
                    let register = pass * R + r;
                    w[r] = &weights[register / REGS][line..line + chunks];
                    regs[r] = register % REGS;
                }
                let sums = match QUADRUPLE {
                    true => quadruple_sums::<S, REGS, R, D, N>(s, w, regs, x),
                    false => plain_sums::<S, REGS, R, D, N>(s, w, regs, x),
                };
                for n in 0..N {
                    for r in 0..R {
                        let register = pass * R + r;
                        let sum = if D == 2 { s.digits(sums[n][0][r], sums[n][D - 1][r]) } else { sums[n][0][r] };
                        rows[n][register / REGS][register % REGS] = s.less(sum, less[n]);
                    }
                }
            }
            for i in 0..P {
                let d = float.load_f16(&scales[i][g]);
                for n in 0..N {
                    let sum = float.to_f(s.panel(rows[n][i]));
                    // Codes of two digits have no steps.
                    let d = if D == 1 { float.mul(d, float.splat(steps[group_index][n])) } else { d };
                    y[n][i] = float.add(y[n][i], float.mul(d, sum));
                }
            }
            group_index += 1;
            line += chunks;
            quad += group;
            quads -= group;
        }
    }

    for n in 0..N {
        for i in 0..P {
            let mut last = [0.0; PANEL_ROWS];
            float.store(y[n][i], &mut last);
            t.store(product, i, n, &last, out);
        }
    }
}

/// Reads the scales of two groups.
#[inline(always)]
fn unit_scales(line: &[u8; CHUNK_BYTES]) -> [[f16; PANEL_ROWS]; UNIT_GROUPS] {
    const { assert!(cfg!(target_endian = "little")) };
    bytemuck::pod_read_unaligned(line)
}

/// Sums of code times digit over the chunks of a group.
#[inline(always)]
fn plain_sums<S: Lanes<REGS>, const REGS: usize, const R: usize, const D: usize, const N: usize>(
    s: S,
    w: [&[Chunk]; R],
    regs: [usize; R],
    x: &[[[Acts; D]; N]],
) -> Sums<S::W, R, D, N> {
    let mut total = [[[s.zero_rows(); R]; D]; N];
    if S::FLUSH >= MAX_GROUP_CHUNKS {
        let sums = plain_run::<S, REGS, R, D, N>(s, w, regs, x);
        for n in 0..N {
            for d in 0..D {
                for r in 0..R {
                    total[n][d][r] = s.rows(sums[n][d][r]);
                }
            }
        }
        return total;
    }
    let mut start = 0;
    while start < x.len() {
        let end = x.len().min(start + S::FLUSH);
        let mut part = w;
        for r in 0..R {
            part[r] = &w[r][start..end];
        }
        let sums = plain_run::<S, REGS, R, D, N>(s, part, regs, &x[start..end]);
        for n in 0..N {
            for d in 0..D {
                for r in 0..R {
                    total[n][d][r] = s.add(total[n][d][r], s.rows(sums[n][d][r]));
                }
            }
        }
        start = end;
    }
    total
}

#[inline(always)]
fn plain_run<S: Lanes<REGS>, const REGS: usize, const R: usize, const D: usize, const N: usize>(
    s: S,
    mut w: [&[Chunk]; R],
    regs: [usize; R],
    x: &[[[Acts; D]; N]],
) -> Sums<S::A, R, D, N> {
    for r in 0..R {
        w[r] = &w[r][..x.len()];
    }
    let mut sums = [[[s.zero(); R]; D]; N];
    for (c, x) in x.iter().enumerate() {
        let mut v = [s.load(&w[0][c], regs[0]); R];
        for r in 1..R {
            v[r] = s.load(&w[r][c], regs[r]);
        }
        // Written out: the sums stay in registers only if no loop around them remains to be unrolled.
        add_field::<S, REGS, R, D, N, 0>(s, &mut sums, v, x);
        add_field::<S, REGS, R, D, N, 1>(s, &mut sums, v, x);
        add_field::<S, REGS, R, D, N, 2>(s, &mut sums, v, x);
        add_field::<S, REGS, R, D, N, 3>(s, &mut sums, v, x);
    }
    sums
}

/// Adds the products of field `J`.
#[inline(always)]
fn add_field<S: Lanes<REGS>, const REGS: usize, const R: usize, const D: usize, const N: usize, const J: i32>(
    s: S,
    sums: &mut Sums<S::A, R, D, N>,
    mut v: [S::B; R],
    x: &[[Acts; D]; N],
) {
    for r in 0..R {
        v[r] = s.field::<J>(v[r]);
    }
    for n in 0..N {
        for d in 0..D {
            for r in 0..R {
                sums[n][d][r] = s.dot::<J>(sums[n][d][r], v[r], &x[n][d]);
            }
        }
    }
}

/// Like [`plain_sums`], with two sums for each result; the second adds products that are four times as large.
#[inline(always)]
fn quadruple_sums<S: Lanes<REGS>, const REGS: usize, const R: usize, const D: usize, const N: usize>(
    s: S,
    w: [&[Chunk]; R],
    regs: [usize; R],
    x: &[[[Acts; D]; N]],
) -> Sums<S::W, R, D, N> {
    let mut total = [[[[s.zero_rows(); 2]; R]; D]; N];
    let mut start = 0;
    while start < x.len() {
        let end = x.len().min(start + S::FLUSH_QUADRUPLE);
        let mut part = w;
        for r in 0..R {
            part[r] = &w[r][start..end];
        }
        let sums = quadruple_run::<S, REGS, R, D, N>(s, part, regs, &x[start..end]);
        for n in 0..N {
            for d in 0..D {
                for r in 0..R {
                    for i in 0..2 {
                        total[n][d][r][i] = s.add(total[n][d][r][i], s.rows(sums[n][d][r][i]));
                    }
                }
            }
        }
        start = end;
    }
    let mut out = [[[s.zero_rows(); R]; D]; N];
    for n in 0..N {
        for d in 0..D {
            for r in 0..R {
                // Exact: every term of the second sum is a multiple of 4.
                out[n][d][r] = s.add(total[n][d][r][0], s.quarter(total[n][d][r][1]));
            }
        }
    }
    out
}

#[inline(always)]
fn quadruple_run<S: Lanes<REGS>, const REGS: usize, const R: usize, const D: usize, const N: usize>(
    s: S,
    mut w: [&[Chunk]; R],
    regs: [usize; R],
    x: &[[[Acts; D]; N]],
) -> Sums<[S::A; 2], R, D, N> {
    for r in 0..R {
        w[r] = &w[r][..x.len()];
    }
    let mut sums = [[[[s.zero(); 2]; R]; D]; N];
    for (c, x) in x.iter().enumerate() {
        for r in 0..R {
            s.prefetch(&w[r][c]);
            let codes = s.quadruples(s.load(&w[r][c], regs[r]));
            for n in 0..N {
                for d in 0..D {
                    let [a, b] = sums[n][d][r];
                    let (a, b) = (s.dot::<0>(a, codes[0], &x[n][d]), s.dot::<1>(b, codes[1], &x[n][d]));
                    sums[n][d][r] = [s.dot::<2>(a, codes[2], &x[n][d]), s.dot::<3>(b, codes[3], &x[n][d])];
                }
            }
        }
    }
    sums
}

/// Declares `$name`, which computes a product in tiles `(panels, registers at a time, tokens, quadruple)`, compiled for
/// the token `$token`, which `$lanes` hold as `$proof`. The second line gives the maximum numbers of panels and tokens
/// of a tile.
#[allow(unused_macros, reason = "some architectures have portable code only")]
macro_rules! product {
    (
        $name:ident, lanes = $lanes:ty, registers = $regs:literal, $token:ident = |$l:ident| $proof:expr,
        panels = $panels:literal, tokens = $tokens:literal,
        tiles = [$(($p:literal, $r:literal, $n:literal, $quadruple:literal)),+ $(,)?]
    ) => {
        /// Computes the product, compiled for the instruction set.
        pub(super) fn $name(lanes: $lanes, product: &crate::group::product::Product<'_>, out: &mut [f32]) {
            use crate::group::product::{Product, Tile};

            fn tile<const P: usize, const R: usize, const N: usize, const D: usize, const QUADRUPLE: bool>(
                $l: $lanes,
                product: &Product<'_>,
                t: &Tile<'_>,
                out: &mut [f32],
            ) {
                let proof = $proof;
                let lanes = $l;
                $crate::isa::compiled!(
                    $token,
                    proof => <const P: usize, const R: usize, const N: usize, const D: usize, const QUADRUPLE: bool>
                    |_cpu, lanes: $lanes, product: &Product<'_>, t: &Tile<'_>, out: &mut [f32]| {
                        crate::group::lanes::tile::<$lanes, $regs, P, R, N, D, QUADRUPLE>(lanes, product, t, out);
                    }
                );
            }
            let two = product.digits() == 2;
            product.for_tiles($panels, $tokens, |t| match (t.panels.len(), t.tokens.len()) {
                $(
                    ($p, $n) if two => tile::<$p, $r, $n, 2, $quadruple>(lanes, product, t, out),
                    ($p, $n) => tile::<$p, $r, $n, 1, $quadruple>(lanes, product, t, out),
                )+
                (panels, tokens) => unreachable!("a tile of {panels} panels and {tokens} tokens"),
            });
        }
    };
}
#[allow(unused_imports, reason = "some architectures have portable code only")]
pub(super) use product;
