//! Weights in the layout of the group kernels.

use std::ops::Range;
use std::sync::Arc;

use half::f16;

use super::{CHUNK_BYTES, CHUNKS_PER_QUAD, Chunk, MAX_GROUP_LEN, PANEL_ROWS, QUAD_COLS, UNIT_GROUPS};
use crate::i2s::{CHUNK_COLS, ZEROS, row_words};
use crate::{AlignedBuf, GroupScales, KernelError, SharedBytes, kernel};

/// Weights with a scale per group, packed for the group kernels of every instruction set: two bits for each weight and
/// an f16 for each group, panels of 16 rows. See [the module](crate::GroupKernel).
#[derive(Clone, Debug)]
pub struct GroupPacked {
    shape: Shape,
    /// Factors of rows, if the scales are not group scales.
    row_scales: Option<Arc<[f32]>>,
    bytes: SharedBytes,
    /// Whether a level is +2.
    twos: bool,
}

/// Offsets within packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Columns of a group, in quads.
    pub(super) group_quads: usize,
    /// Columns of a row with their padding, in quads.
    pub(super) quads: usize,
}

impl Shape {
    fn new(op: &'static str, rows: usize, cols: usize, group_len: usize) -> Result<Self, KernelError> {
        if group_len == 0 || !group_len.is_multiple_of(QUAD_COLS) || group_len > MAX_GROUP_LEN {
            return Err(KernelError::GroupLength { op, group_len });
        }
        let shape = Self { rows, cols, group_quads: group_len / QUAD_COLS, quads: cols.div_ceil(QUAD_COLS) };
        let bytes = shape.panel_lines().checked_mul(CHUNK_BYTES).and_then(|b| b.checked_mul(shape.panels()));
        // A decoded row has one byte per weight.
        match bytes.filter(|&b| isize::try_from(b).is_ok() && isize::try_from(cols).is_ok()) {
            Some(_) => Ok(shape),
            None => Err(KernelError::TooLarge { op, rows, cols }),
        }
    }

    pub(super) fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL_ROWS)
    }
    /// Pairs of groups in a row.
    pub(super) fn units(&self) -> usize {
        self.quads.div_ceil(UNIT_GROUPS * self.group_quads)
    }
    /// Lines from one pair of groups to the next.
    pub(super) fn unit_lines(&self) -> usize {
        1 + UNIT_GROUPS * self.group_quads * CHUNKS_PER_QUAD
    }
    /// Lines of a panel.
    pub(super) fn panel_lines(&self) -> usize {
        self.units() + self.quads * CHUNKS_PER_QUAD
    }
    /// Line of chunk `c` of a panel.
    pub(super) fn chunk_line(&self, c: usize) -> usize {
        c + c / (UNIT_GROUPS * self.group_quads * CHUNKS_PER_QUAD) + 1
    }
    /// Line of the scales of group `g`, and the byte of the scale of row `r` of the panel in it.
    fn scale_at(&self, g: usize, r: usize) -> (usize, usize) {
        (g / UNIT_GROUPS * self.unit_lines(), (g % UNIT_GROUPS * PANEL_ROWS + r) * size_of::<f16>())
    }
}

/// The scales of a matrix to be packed.
pub(super) enum PackScales<'a> {
    Groups(&'a GroupScales),
    /// `[rows]`, and the length of groups, which have scale 1.
    Rows(Arc<[f32]>, usize),
}

impl GroupPacked {
    /// Packs the rows that `decode` writes for each row index, levels in -1..=2.
    pub(super) fn pack(
        op: &'static str,
        (rows, cols): (usize, usize),
        scales: PackScales<'_>,
        mut decode: impl FnMut(usize, &mut [i8]),
    ) -> Result<Self, KernelError> {
        let group_len = match &scales {
            PackScales::Groups(s) => s.group_len(),
            PackScales::Rows(_, group_len) => *group_len,
        };
        let shape = Shape::new(op, rows, cols, group_len)?;
        let (what, expected, got) = match &scales {
            PackScales::Groups(s) if s.rows() == rows => ("groups of a row", cols.div_ceil(group_len), s.groups()),
            PackScales::Groups(s) => ("rows of scales", rows, s.rows()),
            PackScales::Rows(s, _) => ("scales", rows, s.len()),
        };
        if expected != got {
            return Err(KernelError::ShapeMismatch { op, what, expected, got });
        }
        let mut bytes = AlignedBuf::for_weights(shape.panels() * shape.panel_lines() * CHUNK_BYTES);
        let (lines, _) = bytes.as_chunks_mut::<CHUNK_BYTES>();
        // One decoded row and one panel at a time: both stay in the cache. A matrix without rows may have any number of
        // columns.
        let quads = if rows == 0 { 0 } else { shape.quads };
        let mut row = vec![0i8; quads * QUAD_COLS];
        let mut words = vec![0u32; quads * CHUNKS_PER_QUAD];
        let mut twos = false;
        for (p, panel) in lines.chunks_exact_mut(shape.panel_lines().max(1)).enumerate() {
            for r in 0..PANEL_ROWS {
                let at = p * PANEL_ROWS + r;
                if at < rows {
                    decode(at, &mut row[..cols]);
                    twos |= row.iter().fold(0, |all, level| all.max(*level)) > 1;
                    row_words(&row, &mut words);
                    for g in 0..cols.div_ceil(group_len) {
                        let d = match &scales {
                            PackScales::Groups(s) => s.row(at)[g],
                            PackScales::Rows(..) => f16::ONE,
                        };
                        let (line, byte) = shape.scale_at(g, r);
                        panel[line][byte..byte + size_of::<f16>()].copy_from_slice(&d.to_le_bytes());
                    }
                } else {
                    words.fill(u32::from_le_bytes([ZEROS; 4]));
                }
                for (c, word) in words.iter().enumerate() {
                    panel[shape.chunk_line(c)][4 * r..4 * r + 4].copy_from_slice(&word.to_le_bytes());
                }
            }
        }
        let row_scales = match scales {
            PackScales::Groups(_) => None,
            PackScales::Rows(s, _) => Some(s),
        };
        Ok(Self { shape, row_scales, bytes: SharedBytes::new(bytes), twos })
    }

    /// Bytes of a packed matrix.
    ///
    /// # Errors
    /// [`KernelError::GroupLength`], [`KernelError::TooLarge`].
    pub(crate) fn byte_len_of(op: &'static str, shape: (usize, usize), group_len: usize) -> Result<usize, KernelError> {
        let shape = Shape::new(op, shape.0, shape.1, group_len)?;
        Ok(shape.panels() * shape.panel_lines() * CHUNK_BYTES)
    }

    /// Wraps weights that were packed before, with as many bytes as [`GroupPacked::byte_len_of`] returns; `twos` tells
    /// whether a level is +2.
    pub(super) fn of_packed(
        op: &'static str,
        (rows, cols): (usize, usize),
        scales: PackScales<'_>,
        bytes: SharedBytes,
        twos: bool,
    ) -> Result<Self, KernelError> {
        let (group_len, row_scales) = match scales {
            PackScales::Groups(s) => (s.group_len(), None),
            PackScales::Rows(s, group_len) => (group_len, Some(s)),
        };
        let shape = Shape::new(op, rows, cols, group_len)?;
        Self { shape, row_scales, bytes: SharedBytes::from(Vec::new()), twos }.with_bytes(bytes)
    }

    /// Writes the levels of row `r` of packed weights to `out`, `[cols]`, without their scales.
    pub(crate) fn decode_levels(
        bytes: &[u8],
        (rows, cols): (usize, usize),
        group_len: usize,
        r: usize,
        out: &mut [i8],
    ) {
        // The errors are those of `byte_len_of`, which was called before.
        let Ok(shape) = Shape::new("packed weights", rows, cols, group_len) else { return };
        let panel = &bytes.as_chunks::<CHUNK_BYTES>().0[r / PANEL_ROWS * shape.panel_lines()..][..shape.panel_lines()];
        for (c, out) in out.chunks_mut(CHUNK_COLS).enumerate() {
            let chunk = &panel[shape.chunk_line(c)][4 * (r % PANEL_ROWS)..][..4];
            for (i, out) in out.iter_mut().enumerate() {
                *out = (chunk[i % 4] >> (2 * (i / 4)) & 3) as i8 - 1;
            }
        }
    }

    /// The same weights with other storage: a copy of [`GroupPacked::bytes`] in a file mapping or in separate pages.
    /// Kernels read them with unaligned loads, so alignment only affects speed.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] for a wrong number of bytes.
    pub fn with_bytes(&self, bytes: SharedBytes) -> Result<Self, KernelError> {
        let expected = self.byte_len();
        if bytes.len() != expected {
            let (op, what) = ("GroupPacked::with_bytes", "packed bytes");
            return Err(KernelError::ShapeMismatch { op, what, expected, got: bytes.len() });
        }
        Ok(Self { bytes, ..self.clone() })
    }

    /// Output features, M.
    pub fn rows(&self) -> usize {
        self.shape.rows
    }
    /// Input features, K.
    pub fn cols(&self) -> usize {
        self.shape.cols
    }
    /// Weights of a group.
    pub fn group_len(&self) -> usize {
        self.shape.group_quads * QUAD_COLS
    }
    /// Height of a panel.
    pub fn panel_rows(&self) -> usize {
        PANEL_ROWS
    }
    /// Bytes that a product reads.
    pub fn byte_len(&self) -> usize {
        self.shape.panels() * self.shape.panel_lines() * CHUNK_BYTES
    }
    /// The panels, one after the other.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }
    pub(super) fn row_scales(&self) -> Option<&[f32]> {
        self.row_scales.as_deref()
    }
    /// Whether a level is +2. Weights that were packed elsewhere are not searched for it.
    pub(super) fn has_twos(&self) -> bool {
        self.twos
    }
    /// The lines of all panels.
    pub(super) fn lines(&self) -> &[Chunk] {
        self.bytes.as_chunks().0
    }

    /// Row ranges that split the matrix into `parts` of nearly equal size, each beginning at a panel; later ones may be empty.
    pub fn split(&self, part: usize, parts: usize) -> Range<usize> {
        let panels = self.shape.panels();
        let at = |p: usize| (panels * p / parts.max(1) * PANEL_ROWS).min(self.shape.rows);
        at(part)..at(part + 1)
    }

    /// Like [`Packed::blocks`](crate::Packed::blocks), of at most [`GroupKernel::block_rows`](crate::GroupKernel::block_rows)
    /// rows.
    pub fn blocks(&self, rows: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        kernel::blocks(PANEL_ROWS, rows, most)
    }

    /// Writes the weights of row `r`, level times scale, to `out`, `[cols]` f32: a row of an embedding. Exact.
    ///
    /// # Panics
    /// If `r` is not below [`GroupPacked::rows`] or `out` is not `cols` long.
    pub fn decode_row_f32(&self, r: usize, out: &mut [f32]) {
        let Shape { rows, cols, .. } = self.shape;
        assert!(r < rows && out.len() == cols, "decode_row_f32: row {r} of {rows}, buffer of {}", out.len());
        let panel = &self.lines()[r / PANEL_ROWS * self.shape.panel_lines()..][..self.shape.panel_lines()];
        let r_in_panel = r % PANEL_ROWS;
        for (g, out) in out.chunks_mut(self.group_len()).enumerate() {
            let (line, byte) = self.shape.scale_at(g, r_in_panel);
            let d = f16::from_le_bytes([panel[line][byte], panel[line][byte + 1]]).to_f32();
            let d = self.row_scales.as_ref().map_or(d, |s| s[r]);
            // Level `code - 1`, times the scale.
            let values = [-d, 0.0, d, 2.0 * d];
            let first = g * self.shape.group_quads * CHUNKS_PER_QUAD;
            for (c, out) in out.chunks_mut(CHUNK_COLS).enumerate() {
                let chunk = &panel[self.shape.chunk_line(first + c)][4 * r_in_panel..][..4];
                for (i, out) in out.iter_mut().enumerate() {
                    *out = values[usize::from(chunk[i % 4] >> (2 * (i / 4)) & 3)];
                }
            }
        }
    }
}
