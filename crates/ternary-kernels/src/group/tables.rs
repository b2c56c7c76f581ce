//! Products of many tokens without dot products: the tables of [`crate::token_tables`], with scales of groups.
//!
//! The 32 lanes of an entry are 32 tokens of one digit, or the upper digits of 16 tokens and their lower ones. The sums
//! of a row stay in 16 bits as long as the magnitudes of the activations allow, at least 255 columns; at the end of a
//! group they become f32, which is exact, and are multiplied by the scale of the row: in lanes that are tokens, with the
//! same operations in the same order as in lanes that are rows.
//!
//! Tables hold sums of trits. A matrix with a weight of +2 is multiplied.

use half::f16;

use super::product::Product;
use super::{Backend, CHUNKS_PER_QUAD, PANEL_ROWS, QUAD_COLS};
use crate::i2s::{Acts, even_parts};
use crate::isa::{Portable, compiled};
use crate::ops::lanes::{LANES, Simd};
use crate::token_tables::{self, Columns, ENTRIES, Lines, STEP_CHUNKS, STEP_COLS, TABLES, TOKENS, TokenLanes};

/// The largest number of panels whose sums are kept at a time; [`block_rows`] are the rows that are.
const BLOCK_PANELS: usize = 64;

// A step fits the 16-bit sums for any digits.
const _: () = assert!(STEP_COLS * 128 <= i16::MAX as usize);
const _: () = assert!(STEP_CHUNKS == CHUNKS_PER_QUAD && STEP_COLS == QUAD_COLS && TOKENS == 2 * LANES);

/// Sums of the rows of a block in `V` vectors of tokens.
type Rows<const V: usize> = [[[[f32; LANES]; V]; PANEL_ROWS]; BLOCK_PANELS];

/// Rows of a block: like [`token_tables::block_rows`], with 16-bit sums and two kinds of f32 sums of 16 tokens.
pub(super) fn block_rows() -> usize {
    token_tables::rows_beside_tables(TOKENS * size_of::<i16>() + 2 * LANES * size_of::<f32>(), BLOCK_PANELS)
}

impl Backend {
    /// Lanes of a last tile, for activations of so many digits, from which it is faster than multiplying; `None` where
    /// tables are never faster.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
    pub(super) fn last_from(self, digits: usize) -> Option<usize> {
        match self {
            Backend::Portable => Some(Portable::LAST_FROM),
            #[cfg(target_arch = "x86_64")]
            // Measured on Zen 4: 16 tokens of two digits at 102 GOP/s, multiplied at 53, so from 8.3 tokens on.
            Backend::Sse41(_) => Some(if digits == 2 { 17 } else { crate::isa::Sse41::LAST_FROM }),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2(_) => Some(crate::isa::Avx2::LAST_FROM),
            #[cfg(target_arch = "x86_64")]
            Backend::AvxVnni(_) | Backend::Avx512(_) => None,
            #[cfg(target_arch = "aarch64")]
            Backend::Neon(_) => Some(crate::isa::Neon::LAST_FROM),
            #[cfg(target_arch = "aarch64")]
            Backend::NeonDot(_) => None,
            #[cfg(target_arch = "wasm32")]
            Backend::Simd128(_) => Some(crate::isa::Simd128::LAST_FROM),
        }
    }

    /// The product by tables, or by multiplying where [`Backend::last_from`] says nothing.
    pub(super) fn look_up(self, product: &Product<'_>, out: &mut [f32]) {
        match self {
            Backend::Portable => tiles::<_, 4>(Portable, product, out),
            #[cfg(target_arch = "x86_64")]
            Backend::Sse41(lanes) => {
                let cpu = lanes.0;
                compiled!(Sse41, cpu => |cpu, product: &Product<'_>, out: &mut [f32]| {
                    tiles::<_, 4>(cpu, product, out);
                });
            }
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2(cpu) => {
                compiled!(Avx2, cpu => |cpu, product: &Product<'_>, out: &mut [f32]| {
                    tiles::<_, 2>(cpu, product, out);
                });
            }
            #[cfg(target_arch = "x86_64")]
            Backend::AvxVnni(_) | Backend::Avx512(_) => self.multiply(product, out),
            #[cfg(target_arch = "aarch64")]
            Backend::Neon(lanes) => {
                let cpu = lanes.0;
                compiled!(Neon, cpu => |cpu, product: &Product<'_>, out: &mut [f32]| {
                    tiles::<_, 4>(cpu, product, out);
                });
            }
            #[cfg(target_arch = "aarch64")]
            Backend::NeonDot(_) => self.multiply(product, out),
            #[cfg(target_arch = "wasm32")]
            Backend::Simd128(lanes) => {
                let cpu = lanes.0;
                compiled!(Simd128, cpu => |cpu, product: &Product<'_>, out: &mut [f32]| {
                    tiles::<_, 4>(cpu, product, out);
                });
            }
        }
    }
}

/// All tokens; `P` registers of `s` are [`TOKENS`] lanes.
#[inline(always)]
fn tiles<S: TokenLanes + Simd, const P: usize>(s: S, product: &Product<'_>, out: &mut [f32]) {
    match product.digits() {
        2 => tiles_of::<S, P, 1>(s, product, out),
        _ => tiles_of::<S, P, 2>(s, product, out),
    }
}

/// All tokens, `V` vectors of them at a time.
#[inline(always)]
fn tiles_of<S: TokenLanes + Simd, const P: usize, const V: usize>(s: S, product: &Product<'_>, out: &mut [f32]) {
    const { assert!(P * S::LANES == TOKENS && (V == 1 || V == 2)) };
    let mut tables = Lines([[[S::ZERO; P]; ENTRIES]; TABLES]);
    let mut sums = Lines([[[S::ZERO; P]; PANEL_ROWS]; BLOCK_PANELS]);
    let mut columns: Columns = Lines([[0; TOKENS]; STEP_COLS]);
    let (mut part, mut y): (Rows<V>, Rows<V>) =
        ([[[[0.0; LANES]; V]; PANEL_ROWS]; BLOCK_PANELS], [[[[0.0; LANES]; V]; PANEL_ROWS]; BLOCK_PANELS]);
    let (quads, group_quads) = product.quads();
    for panels in even_parts(0..product.panels(), block_rows() / PANEL_ROWS) {
        for first in (0..product.tokens()).step_by(V * LANES) {
            let tokens = first..product.tokens().min(first + V * LANES);
            y[..panels.len()].fill([[[0.0; LANES]; V]; PANEL_ROWS]);
            // Magnitudes of the digits in the 16-bit sums; whether there are such sums; whether there are wider ones of
            // the same group.
            let none = ([0u32; TOKENS], false, false);
            let (mut magnitudes, mut narrow, mut more) = none;
            for quad in 0..quads {
                let group = quad / group_quads;
                let copy =
                    |c: usize, to: &mut [Acts; TOKENS]| product.copy_chunk(&tokens, CHUNKS_PER_QUAD * quad + c, to);
                let step = token_tables::turn(s, copy, &mut columns);
                if narrow && magnitudes.iter().zip(&step).any(|(m, s)| m + s > i16::MAX as u32) {
                    let at = Place { group, more, end: false };
                    widen(s, product, panels.clone(), &tokens, &at, &sums.0, &mut part, &mut y);
                    (magnitudes, narrow, more) = ([0; TOKENS], false, true);
                }
                magnitudes.iter_mut().zip(step).for_each(|(m, s)| *m += s);
                token_tables::make_tables(s, &columns, &mut tables.0);
                token_tables::look_up(
                    s,
                    |p| product.quad_in_turn(p, quad),
                    panels.clone(),
                    &tables.0,
                    narrow,
                    &mut sums.0,
                );
                narrow = true;
                if (quad + 1).is_multiple_of(group_quads) || quad + 1 == quads {
                    let at = Place { group, more, end: true };
                    widen(s, product, panels.clone(), &tokens, &at, &sums.0, &mut part, &mut y);
                    (magnitudes, narrow, more) = none;
                }
            }
            for (p, y) in panels.clone().zip(&y) {
                store(s, product, p, &tokens, y, out);
            }
        }
    }
}

/// The meaning of the 16-bit sums.
struct Place {
    group: usize,
    /// Whether there are sums of earlier columns of the group.
    more: bool,
    /// Whether the group ends here.
    end: bool,
}

/// Adds the 16-bit sums of `panels` to those of earlier columns; where the group ends, adds the sums times their scales to `y`.
#[expect(clippy::too_many_arguments, reason = "the loop of one caller, apart")]
#[inline(always)]
fn widen<S: TokenLanes + Simd, const P: usize, const V: usize>(
    s: S,
    product: &Product<'_>,
    panels: std::ops::Range<usize>,
    tokens: &std::ops::Range<usize>,
    at: &Place,
    sums: &[[[S::Memory; P]; PANEL_ROWS]; BLOCK_PANELS],
    part: &mut Rows<V>,
    y: &mut Rows<V>,
) {
    let mut steps = [Simd::splat(s, 1.0); V];
    let has_steps = at.end && product.has_steps();
    if has_steps {
        for (v, step) in steps.iter_mut().enumerate() {
            let mut of = [1.0; LANES];
            for (i, of) in of.iter_mut().enumerate() {
                *of = product.step(tokens, v * LANES + i, at.group);
            }
            *step = Simd::load(s, &of);
        }
    }
    for (((p, sums), part), y) in panels.zip(sums).zip(part).zip(y) {
        let mut scales = [0.0; PANEL_ROWS];
        if at.end {
            let d: &[f16; PANEL_ROWS] = &product.group_scales(p, at.group);
            Simd::store(s, s.load_f16(d), &mut scales);
        }
        for r in 0..PANEL_ROWS {
            let lanes: &[[i16; LANES]] = bytemuck::cast_slice(sums[r].as_slice());
            let d = Simd::splat(s, scales[r]);
            for v in 0..V {
                let mut sum = s.load_i16(&lanes[v]);
                if V == 1 {
                    // Exact: an integer below 2^24, as every sum here.
                    sum = Simd::add(s, s.mul(sum, Simd::splat(s, 256.0)), s.load_i16(&lanes[1]));
                }
                if at.more {
                    sum = Simd::add(s, Simd::load(s, &part[r][v]), sum);
                }
                if at.end {
                    let d = if has_steps { s.mul(d, steps[v]) } else { d };
                    let sum = Simd::add(s, Simd::load(s, &y[r][v]), s.mul(d, sum));
                    Simd::store(s, sum, &mut y[r][v]);
                } else {
                    Simd::store(s, sum, &mut part[r][v]);
                }
            }
        }
    }
}

/// The results of panel `p`.
#[expect(clippy::needless_range_loop, reason = "`v` is the second index of `y`")]
#[inline(always)]
fn store<S: Simd, const V: usize>(
    s: S,
    product: &Product<'_>,
    p: usize,
    tokens: &std::ops::Range<usize>,
    y: &[[[f32; LANES]; V]; PANEL_ROWS],
    out: &mut [f32],
) {
    for v in 0..V {
        let mut columns = [s.splat(0.0); LANES];
        for r in 0..PANEL_ROWS {
            columns[r] = s.load(&y[r][v]);
        }
        let rows = s.transpose(columns);
        for (i, row) in rows.into_iter().enumerate() {
            let t = tokens.start + v * LANES + i;
            if t < tokens.end {
                let mut sums = [0.0; PANEL_ROWS];
                s.store(row, &mut sums);
                product.finish(p, t, &sums, out);
            }
        }
    }
}
