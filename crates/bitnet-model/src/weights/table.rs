//! Embeddings and heads: stored floats, or ternary with their scales.

use ternary_kernels::{Scales, TernaryMatrix};

use crate::FloatMatrix;

/// An embedding or a head, `[vocab, hidden]`, in the bytes of its file.
#[derive(Clone, Debug)]
pub enum Table {
    /// Stored floats.
    Float(FloatMatrix),
    /// Ternary weights; the engine only holds them packed, not as floats.
    Ternary(TernaryMatrix),
}

impl Table {
    /// Rows (the vocabulary).
    pub fn rows(&self) -> usize {
        match self {
            Table::Float(m) => m.rows(),
            Table::Ternary(m) => m.rows(),
        }
    }

    /// Columns (the width).
    pub fn cols(&self) -> usize {
        match self {
            Table::Float(m) => m.cols(),
            Table::Ternary(m) => m.cols(),
        }
    }

    /// Bytes of all rows as stored; for ternary rows in another order than the file's, two bits for each weight.
    pub fn byte_len(&self) -> usize {
        match self {
            Table::Float(m) => m.byte_len(),
            Table::Ternary(m) => m.file_bytes().map_or(m.rows() * m.cols().div_ceil(4), |b| b.len()),
        }
    }

    /// The type of the stored values, for example `F16`, `Q6K`, `TQ2_0`.
    pub fn type_name(&self) -> String {
        match self {
            Table::Float(m) => m.float_type().name(),
            Table::Ternary(m) => m.format().name().to_owned(),
        }
    }

    /// The stored floats, if it has floats.
    pub fn as_float(&self) -> Option<&FloatMatrix> {
        match self {
            Table::Float(m) => Some(m),
            Table::Ternary(_) => None,
        }
    }

    /// The ternary weights, if it is ternary.
    pub fn as_ternary(&self) -> Option<&TernaryMatrix> {
        match self {
            Table::Float(_) => None,
            Table::Ternary(m) => Some(m),
        }
    }

    /// Writes row `r` as f32 to `out`, `[cols]`: floats like [`FloatMatrix::row_into`], ternary weights as code times
    /// scale.
    ///
    /// # Panics
    /// If `r` is not below [`Table::rows`] or `out` is not `cols` long.
    pub fn row_into(&self, r: usize, out: &mut [f32]) {
        match self {
            Table::Float(m) => m.row_into(r, out),
            Table::Ternary(m) => {
                let mut codes = vec![0i8; m.cols()];
                m.decode_row(r, &mut codes);
                scale_row(m.scales(), r, &codes, out);
            }
        }
    }
}

/// `out = scale * code` for row `r`.
fn scale_row(scales: &Scales, r: usize, codes: &[i8], out: &mut [f32]) {
    assert!(out.len() == codes.len(), "row {r} has {} values, the buffer {}", codes.len(), out.len());
    let one = |scale: f32, codes: &[i8], out: &mut [f32]| {
        codes.iter().zip(out).for_each(|(c, o)| *o = scale * f32::from(*c));
    };
    match scales {
        Scales::Tensor(s) => one(*s, codes, out),
        Scales::Rows(s) => one(s[r], codes, out),
        Scales::Groups(s) => {
            let groups = codes.chunks(s.group_len()).zip(out.chunks_mut(s.group_len()));
            groups.zip(s.row(r)).for_each(|((codes, out), scale)| one(scale.to_f32(), codes, out));
        }
    }
}

impl From<FloatMatrix> for Table {
    fn from(m: FloatMatrix) -> Self {
        Table::Float(m)
    }
}

impl From<TernaryMatrix> for Table {
    fn from(m: TernaryMatrix) -> Self {
        Table::Ternary(m)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_both_kinds_are_read_as_floats() {
        let w = TernaryMatrix::from_trits(2, 3, &[1, 0, -1, 0, 1, 1], Scales::Rows([0.5, 2.0].into())).unwrap();
        let floats = FloatMatrix::from_f32(2, 3, &[0.5, 0.0, -0.5, 0.0, 2.0, 2.0]).unwrap();
        let (w, floats) = (Table::from(w), Table::from(floats));
        for r in 0..2 {
            let (mut a, mut b) = ([f32::NAN; 3], [f32::NAN; 3]);
            w.row_into(r, &mut a);
            floats.row_into(r, &mut b);
            assert_eq!(a, b);
        }
        assert_eq!((w.rows(), w.cols(), w.byte_len()), (2, 3, 6));
        assert!(w.as_float().is_none() && w.as_ternary().is_some() && floats.as_float().is_some());
    }
}
