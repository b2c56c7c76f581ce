//! Keys and values in any storage: vectors of sixteen floats, or the codes themselves.

use bytemuck::Pod;

use crate::ops::lanes::{Element, LANES, Simd, pad};

/// Rows of one type. Codes are loaded unchanged: their steps are applied to scores and weights.
pub(super) trait Rows: Copy {
    /// One row, or some vectors of it.
    type Row: Copy;
    /// Elements of a row.
    fn head_dim(self) -> usize;
    fn row(self, j: usize) -> Self::Row;
    /// Vectors `v..v + n` of a row. A constant length lets the compiler drop bounds checks.
    fn vectors(row: Self::Row, v: usize, n: usize) -> Self::Row;
    /// Vector `v`, which is whole.
    fn load<S: Simd>(s: S, row: Self::Row, v: usize) -> S::F;
    /// The elements after the last whole vector of a row, padded with zeros; there is at least one.
    fn tail<S: Simd>(s: S, row: Self::Row) -> S::F;
}

/// Floats.
#[derive(Clone, Copy)]
pub(super) struct Floats<'a, E> {
    pub(super) data: &'a [E],
    pub(super) stride: usize,
    pub(super) head_dim: usize,
}

impl<'a, E: Element> Rows for Floats<'a, E> {
    type Row = (&'a [[E; LANES]], &'a [E]);

    #[inline(always)]
    fn head_dim(self) -> usize {
        self.head_dim
    }
    #[inline(always)]
    fn row(self, j: usize) -> Self::Row {
        self.data[j * self.stride..][..self.head_dim].as_chunks()
    }
    #[inline(always)]
    fn vectors((vectors, tail): Self::Row, v: usize, n: usize) -> Self::Row {
        (&vectors[v..][..n], tail)
    }
    #[inline(always)]
    fn load<S: Simd>(s: S, (vectors, _): Self::Row, v: usize) -> S::F {
        E::load(s, &vectors[v])
    }
    #[inline(always)]
    fn tail<S: Simd>(s: S, (_, tail): Self::Row) -> S::F {
        E::load(s, &pad(tail, E::ZERO))
    }
}

/// Sixteen codes.
pub(super) trait Code: Pod {
    fn load<S: Simd>(s: S, codes: &Self) -> S::F;
}

impl Code for [i8; LANES] {
    #[inline(always)]
    fn load<S: Simd>(s: S, codes: &Self) -> S::F {
        s.load_i8(codes)
    }
}

impl Code for [u8; LANES / 2] {
    #[inline(always)]
    fn load<S: Simd>(s: S, codes: &Self) -> S::F {
        s.load_i4(codes)
    }
}

/// Codes, rows padded with zeros to whole vectors.
#[derive(Clone, Copy)]
pub(super) struct Codes<'a, C> {
    pub(super) data: &'a [C],
    /// Vectors from one row to the next.
    pub(super) stride: usize,
    pub(super) head_dim: usize,
}

impl<'a, C: Code> Codes<'a, C> {
    /// Row `j` and all rows after it.
    #[inline(always)]
    pub(super) fn bytes_from(self, j: usize) -> &'a [u8] {
        bytemuck::cast_slice(&self.data[j * self.stride..])
    }
}

impl<'a, C: Code> Rows for Codes<'a, C> {
    type Row = &'a [C];

    #[inline(always)]
    fn head_dim(self) -> usize {
        self.head_dim
    }
    #[inline(always)]
    fn row(self, j: usize) -> Self::Row {
        &self.data[j * self.stride..][..self.head_dim.div_ceil(LANES)]
    }
    #[inline(always)]
    fn vectors(row: Self::Row, v: usize, n: usize) -> Self::Row {
        &row[v..][..n]
    }
    #[inline(always)]
    fn load<S: Simd>(s: S, row: Self::Row, v: usize) -> S::F {
        C::load(s, &row[v])
    }
    #[inline(always)]
    fn tail<S: Simd>(s: S, row: Self::Row) -> S::F {
        C::load(s, &row[row.len() - 1])
    }
}
