//! The tensor types of GGUF files: ids, names, sizes, and the ids that mean different things in different programs.

/// A tensor type whose identity is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)] // The variants are the names that every GGUF program uses.
pub enum GgmlType {
    F32,
    F16,
    BF16,
    F64,
    I8,
    I16,
    I32,
    I64,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Q8K,
    Iq2Xxs,
    Iq2Xs,
    Iq3Xxs,
    Iq1S,
    Iq4Nl,
    Iq3S,
    Iq2S,
    Iq4Xs,
    Iq1M,
    /// Ternary, base 3: 256 weights in 54 bytes.
    Tq1_0,
    /// Ternary, 2 bits: 256 weights in 66 bytes.
    Tq2_0,
    /// Ternary, 2 bits: 128 weights in 32 bytes, one f32 scale after the tensor.
    I2S,
    /// Ternary lookup-table layout, 4 bits per pair; depends on the build that wrote it.
    Tl1,
    /// Ternary lookup-table layout, 5 bits per triple; depends on the build that wrote it.
    Tl2,
    /// Ternary, base 3: 64 weights in 13 bytes, one f16 scale before each row.
    Iq1Bn,
    /// Ternary, 2 bits: 64 weights in 16 bytes, one f32 scale before each row.
    Iq2Bn,
    /// [`GgmlType::Iq2Bn`] with four rows interleaved.
    Iq2BnR4,
    /// Ternary, 2 bits: 64 weights in 18 bytes.
    Q2_0,
    /// Ternary, 2 bits: 128 weights in 34 bytes; "Q2_0" in files of Prism until September 2026.
    Pq2_0,
    /// [`GgmlType::Pq2_0`] with the scale after the codes, as oxibonsai writes it.
    Tq2_0G128,
    /// Ternary, base 3: 128 weights in 28 bytes.
    Ptq1_0,
    /// Binary: 128 weights in 18 bytes.
    Q1_0,
    /// Ternary, one weight of four is zero: 256 weights in 42 bytes.
    Stq1_0,
}

/// How a type's bytes follow from a tensor's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Rows are whole blocks of `weights` weights in `bytes` bytes, after `row_head` bytes at the start of each row.
    Blocks {
        /// Weights per block.
        weights: u64,
        /// Bytes per block.
        bytes: u64,
        /// Bytes before the first block of each row.
        row_head: u64,
    },
    /// `n / 4 + 32` bytes for the `n` weights of the whole tensor (a multiple of 128).
    I2S,
    /// `n / 4 + 32` bytes for the `n` weights of the whole tensor. The order of the bytes depends on tile sizes that
    /// the file does not hold, their number does not.
    Tl1,
    /// `((cols - 256) * rows / 3 * 5 / 8) + 64 * rows` bytes, each division rounded down, rounded up to 32, and 32
    /// more. The order of the bytes depends on tile sizes.
    Tl2,
}

use ternary_kernels::{FileFormat, ScalePlace};

use GgmlType as T;

const fn blocks(weights: u64, bytes: u64) -> Layout {
    Layout::Blocks { weights, bytes, row_head: 0 }
}

/// The entry of a type whose facts are in the table of ternary formats.
const fn ternary(ty: GgmlType, format: FileFormat) -> (GgmlType, u32, &'static str, Layout) {
    let info = format.info();
    let row_head = match info.scale {
        ScalePlace::Row(bytes) => bytes as u64,
        ScalePlace::Beside | ScalePlace::Tensor | ScalePlace::Block(_) => 0,
    };
    let layout = match info.bytes {
        Some(bytes) => Layout::Blocks { weights: info.weights as u64, bytes: bytes as u64, row_head },
        None => panic!("the format is made of blocks"),
    };
    (ty, written_id(format), info.name, layout)
}

/// The id under which a format of GGUF files is written.
const fn written_id(format: FileFormat) -> u32 {
    match format.info().ggml_ids {
        [id, ..] => *id,
        [] => panic!("the format is one of GGUF files"),
    }
}

/// Types of ternary formats whose layout needs nothing but the shape.
const TERNARY: &[(GgmlType, FileFormat)] = &[
    (T::I2S, FileFormat::I2S),
    (T::Tq1_0, FileFormat::Tq1_0),
    (T::Tq2_0, FileFormat::Tq2_0),
    (T::Iq1Bn, FileFormat::Iq1Bn),
    (T::Iq2Bn, FileFormat::Iq2Bn),
    (T::Q2_0, FileFormat::Q2_0),
    (T::Pq2_0, FileFormat::Pq2_0),
    (T::Tq2_0G128, FileFormat::Tq2_0G128),
    (T::Ptq1_0, FileFormat::Ptq1_0),
    (T::Q1_0, FileFormat::Q1_0),
    (T::Stq1_0, FileFormat::Stq1_0),
];

/// Every type: the type, its id, its name, its layout.
const TABLE: &[(GgmlType, u32, &str, Layout)] = &[
    (T::F32, 0, "F32", blocks(1, 4)),
    (T::F16, 1, "F16", blocks(1, 2)),
    (T::Q4_0, 2, "Q4_0", blocks(32, 18)),
    (T::Q4_1, 3, "Q4_1", blocks(32, 20)),
    (T::Q5_0, 6, "Q5_0", blocks(32, 22)),
    (T::Q5_1, 7, "Q5_1", blocks(32, 24)),
    (T::Q8_0, 8, "Q8_0", blocks(32, 34)),
    (T::Q8_1, 9, "Q8_1", blocks(32, 36)),
    (T::Q2K, 10, "Q2_K", blocks(256, 84)),
    (T::Q3K, 11, "Q3_K", blocks(256, 110)),
    (T::Q4K, 12, "Q4_K", blocks(256, 144)),
    (T::Q5K, 13, "Q5_K", blocks(256, 176)),
    (T::Q6K, 14, "Q6_K", blocks(256, 210)),
    (T::Q8K, 15, "Q8_K", blocks(256, 292)),
    (T::Iq2Xxs, 16, "IQ2_XXS", blocks(256, 66)),
    (T::Iq2Xs, 17, "IQ2_XS", blocks(256, 74)),
    (T::Iq3Xxs, 18, "IQ3_XXS", blocks(256, 98)),
    (T::Iq1S, 19, "IQ1_S", blocks(256, 50)),
    (T::Iq4Nl, 20, "IQ4_NL", blocks(32, 18)),
    (T::Iq3S, 21, "IQ3_S", blocks(256, 110)),
    (T::Iq2S, 22, "IQ2_S", blocks(256, 82)),
    (T::Iq4Xs, 23, "IQ4_XS", blocks(256, 136)),
    (T::I8, 24, "I8", blocks(1, 1)),
    (T::I16, 25, "I16", blocks(1, 2)),
    (T::I32, 26, "I32", blocks(1, 4)),
    (T::I64, 27, "I64", blocks(1, 8)),
    (T::F64, 28, "F64", blocks(1, 8)),
    (T::Iq1M, 29, "IQ1_M", blocks(256, 56)),
    (T::BF16, 30, "BF16", blocks(1, 2)),
    ternary(T::Tq1_0, FileFormat::Tq1_0),
    ternary(T::Tq2_0, FileFormat::Tq2_0),
    (T::I2S, written_id(FileFormat::I2S), FileFormat::I2S.name(), Layout::I2S),
    (T::Tl1, 38, "TL1", Layout::Tl1),
    (T::Tl2, 39, "TL2", Layout::Tl2),
    ternary(T::Q2_0, FileFormat::Q2_0),
    ternary(T::Pq2_0, FileFormat::Pq2_0),
    ternary(T::Tq2_0G128, FileFormat::Tq2_0G128),
    ternary(T::Ptq1_0, FileFormat::Ptq1_0),
    ternary(T::Q1_0, FileFormat::Q1_0),
    ternary(T::Stq1_0, FileFormat::Stq1_0),
    ternary(T::Iq1Bn, FileFormat::Iq1Bn),
    ternary(T::Iq2Bn, FileFormat::Iq2Bn),
    (T::Iq2BnR4, 335, "IQ2_BN_R4", Layout::Blocks { weights: 64, bytes: 16, row_head: 4 }),
];

impl GgmlType {
    fn row(self) -> &'static (GgmlType, u32, &'static str, Layout) {
        // Every variant is in the table (a test checks it); the first entry only satisfies the type system.
        const FIRST: &(GgmlType, u32, &str, Layout) = &(T::F32, 0, "F32", blocks(1, 4));
        TABLE.iter().find(|r| r.0 == self).unwrap_or(FIRST)
    }

    /// The id of this type in files; if there are several, the one that is written.
    pub fn id(self) -> u32 {
        self.row().1
    }

    /// The name that GGUF programs use.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// How bytes follow from the shape.
    pub fn layout(self) -> Layout {
        self.row().3
    }

    /// The format of a ternary type whose layout needs nothing but the shape: all but TL1, TL2 and the interleaved one.
    pub(crate) fn file_format(self) -> Option<FileFormat> {
        TERNARY.iter().find(|t| t.0 == self).map(|t| t.1)
    }

    /// The type of matrices in `format`, if files have one that needs no tile sizes.
    pub(crate) fn of(format: FileFormat) -> Option<GgmlType> {
        TERNARY.iter().find(|t| t.1 == format).map(|t| t.0)
    }

    /// The type with id `id`, if that id means the same in every program. The reader resolves ids that forks share.
    pub fn from_id(id: u32) -> Option<GgmlType> {
        if collision(id).is_some() {
            return None;
        }
        TABLE.iter().find(|r| r.1 == id).map(|r| r.0)
    }

    /// All types.
    pub fn all() -> impl Iterator<Item = GgmlType> {
        TABLE.iter().map(|r| r.0)
    }

    /// Bytes of a tensor with `rows` rows of `cols` weights.
    ///
    /// # Errors
    /// [`SizeError`]: the rows are not whole blocks, or the size overflows 64 bits.
    pub(crate) fn nbytes(self, rows: u64, cols: u64) -> Result<u64, SizeError> {
        let n = rows.checked_mul(cols).ok_or(SizeError::Overflow)?;
        match self.layout() {
            Layout::Tl1 => match n.is_multiple_of(128) {
                true => (n / 4).checked_add(32).ok_or(SizeError::Overflow),
                false => Err(SizeError::PartialBlock { block: 128 }),
            },
            Layout::Tl2 => tl2_bytes(rows, cols).ok_or(SizeError::Overflow),
            Layout::I2S => {
                if !n.is_multiple_of(128) {
                    return Err(SizeError::PartialBlock { block: 128 });
                }
                (n / 4).checked_add(32).ok_or(SizeError::Overflow)
            }
            Layout::Blocks { weights, bytes, row_head } => {
                if weights == 0 || !cols.is_multiple_of(weights) {
                    return Err(SizeError::PartialBlock { block: weights });
                }
                let size = cols
                    .checked_div(weights)
                    .and_then(|b| b.checked_mul(bytes))
                    .and_then(|b| b.checked_add(row_head))
                    .and_then(|b| b.checked_mul(rows));
                size.ok_or(SizeError::Overflow)
            }
        }
    }
}

/// Bytes of a TL2 tensor; `None` if they overflow. Both numbers are below 2^64, so only the first step can exceed 128
/// bits.
fn tl2_bytes(rows: u64, cols: u64) -> Option<u64> {
    let (rows, cols) = (i128::from(rows), i128::from(cols));
    let thirds = cols.checked_sub(256)?.checked_mul(rows)?.div_euclid(3);
    let triples = thirds.checked_mul(5)?.div_euclid(8);
    let all = triples.checked_add(rows.checked_mul(64)?)?;
    u64::try_from(all).ok()?.checked_next_multiple_of(32)?.checked_add(32)
}

impl std::fmt::Display for GgmlType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a type cannot hold a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SizeError {
    /// The rows are not whole blocks of this many weights.
    PartialBlock { block: u64 },
    /// The size overflows.
    Overflow,
}

/// An id that different programs use for different types.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Collision {
    pub(crate) id: u32,
    pub(crate) meanings: &'static str,
    pub(crate) way_out: &'static str,
    /// Meaning of the id in a file of a BitNet architecture, if it is unique.
    pub(crate) in_bitnet: Option<GgmlType>,
    /// The meanings that are distinguished by the size of the tensor, in files of any architecture.
    pub(crate) by_size: &'static [GgmlType],
}

const CONVERT: &str = "convert the model from its safetensors original to I2_S, TQ1_0 or TQ2_0";
const CONVERT_GROUPS: &str =
    "download the file again, or convert the model from its safetensors original to Q2_0, PQ2_0 or PTQ1_0";

static COLLISIONS: &[Collision] = &[
    Collision {
        id: 36,
        meanings: "I2_S in BitNet programs and the removed IQ4_NL_4_4 in old llama.cpp",
        way_out: CONVERT,
        in_bitnet: Some(T::I2S),
        by_size: &[],
    },
    Collision {
        id: 38,
        meanings: "TL1 in BitNet programs and the removed IQ4_NL_8_8 in old llama.cpp",
        way_out: CONVERT,
        in_bitnet: Some(T::Tl1),
        by_size: &[],
    },
    Collision {
        id: 39,
        meanings: "TL2 in BitNet programs and MXFP4 in llama.cpp",
        way_out: CONVERT,
        in_bitnet: Some(T::Tl2),
        by_size: &[],
    },
    Collision {
        id: 40,
        meanings: "NVFP4 in llama.cpp and variants of I2_S or Q1_0 in some forks",
        way_out: CONVERT,
        in_bitnet: None,
        by_size: &[],
    },
    Collision {
        id: 41,
        meanings: "Q1_0 in llama.cpp and NVFP4 in a fork",
        way_out: CONVERT_GROUPS,
        in_bitnet: None,
        by_size: &[T::Q1_0],
    },
    Collision {
        id: 42,
        meanings: "Q2_0 in llama.cpp, blocks of 128 in Prism's files and (scale last) in oxibonsai's, STQ1_0 in a fork, \
                   and TL2 in BitNet programs of 2026",
        way_out: CONVERT_GROUPS,
        in_bitnet: Some(T::Tl2),
        by_size: &[T::Q2_0, T::Pq2_0, T::Tq2_0G128, T::Stq1_0],
    },
    Collision {
        id: 43,
        meanings: "STQ1_0 in a fork and an 8-bit float in others",
        way_out: CONVERT_GROUPS,
        in_bitnet: None,
        by_size: &[T::Stq1_0],
    },
    Collision {
        id: 142,
        meanings: "PQ2_0 in Prism's llama.cpp and the removed IQ2_TN in ik_llama.cpp",
        way_out: CONVERT_GROUPS,
        in_bitnet: None,
        by_size: &[T::Pq2_0],
    },
    Collision {
        id: 143,
        meanings: "PTQ1_0 in Prism's llama.cpp and the removed IQ1_TN in ik_llama.cpp",
        way_out: CONVERT_GROUPS,
        in_bitnet: None,
        by_size: &[T::Ptq1_0],
    },
];

pub(crate) fn collision(id: u32) -> Option<&'static Collision> {
    COLLISIONS.iter().find(|c| c.id == id)
}

/// Ids that once had, or elsewhere have, a meaning, and are never read: id, name, reason.
static RETIRED: &[(u32, &str, &str)] = &[
    (4, "Q4_2", "it was removed from GGUF in 2023; convert the model again"),
    (5, "Q4_3", "it was removed from GGUF in 2023; convert the model again"),
    (31, "Q4_0_4_4", "it was removed from GGUF; convert the model again to Q4_0"),
    (32, "Q4_0_4_8", "it was removed from GGUF; convert the model again to Q4_0"),
    (33, "Q4_0_8_8", "it was removed from GGUF; convert the model again to Q4_0"),
    (
        37,
        "I8_S or IQ4_NL_4_8",
        "the first exists only while a program runs, the second was removed from GGUF; convert the model again",
    ),
];

pub(crate) fn retired(id: u32) -> Option<(&'static str, &'static str)> {
    RETIRED.iter().find(|r| r.0 == id).map(|r| (r.1, r.2))
}

/// Whether `architecture` is one of the BitNet family, in whose files the colliding ids have their BitNet meaning.
pub(crate) fn is_bitnet_architecture(architecture: &str) -> bool {
    crate::architecture::has_bitnet_type_ids(architecture)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test may.
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_its_id_and_by_itself() {
        // Types that share an id are distinguished by their size.
        let mut ids: Vec<u32> = GgmlType::all().filter(|t| *t != T::Tq2_0G128).map(GgmlType::id).collect();
        for t in GgmlType::all() {
            assert_eq!(t.row().0, t);
            if collision(t.id()).is_none() {
                assert_eq!(GgmlType::from_id(t.id()), Some(t));
            }
            assert!(retired(t.id()).is_none(), "{t}");
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), TABLE.len() - 1);
    }

    #[test]
    fn every_ternary_format_of_gguf_files_has_a_type_and_every_id_of_it_is_known() {
        for info in ternary_kernels::FORMATS.iter().filter(|f| !f.ggml_ids.is_empty()) {
            let ty = GgmlType::all().find(|t| t.name() == info.name).unwrap();
            assert_eq!(ty.id(), info.ggml_ids[0], "{ty}");
            for &id in info.ggml_ids {
                let by_collision = collision(id).is_some_and(|c| c.by_size.contains(&ty) || c.in_bitnet == Some(ty));
                assert!(GgmlType::from_id(id) == Some(ty) || by_collision, "{ty} {id}");
            }
            assert!(ty.file_format().is_some() || matches!(ty, T::Tl1 | T::Tl2), "{ty}");
        }
    }

    #[test]
    fn colliding_ids_have_no_meaning_of_their_own() {
        for id in [36, 38, 39, 40, 41, 42, 43, 142, 143] {
            assert_eq!(GgmlType::from_id(id), None, "{id}");
            assert!(collision(id).is_some(), "{id}");
        }
    }

    #[test]
    fn sizes_follow_the_reference() {
        // One 2B4T projection, [6912, 2560].
        let size = |t: GgmlType| t.nbytes(6912, 2560).unwrap();
        assert_eq!(size(T::I2S), 6912 * 2560 / 4 + 32);
        assert_eq!(size(T::Tq1_0), 6912 * 10 * 54);
        assert_eq!(size(T::Tq2_0), 6912 * 10 * 66);
        assert_eq!(size(T::Iq1Bn), 6912 * (2 + 40 * 13));
        assert_eq!(size(T::Iq2Bn), 6912 * (4 + 40 * 16));
        assert_eq!(size(T::Q6K), 6912 * 10 * 210);
        assert_eq!(size(T::Tl1), 6912 * 2560 / 4 + 32);
        // Five bits for three weights of 2304 columns, two bits for each of 256.
        assert_eq!(size(T::Tl2), 6912 * 2304 * 5 / 24 + 6912 * 256 / 4 + 32);
        // As computed by the format itself, for any tile; also for small and unusual shapes.
        for (rows, cols, bk) in [(320, 224, 96), (32, 80, 48), (96, 24, 24), (64, 8640, 96), (0, 96, 96)] {
            let tile = ternary_kernels::TlTile { bm: 32, bk, bmm: 32 };
            let same = ternary_kernels::FileFormat::Tl2(tile).byte_len(rows, cols).unwrap();
            assert_eq!(T::Tl2.nbytes(rows as u64, cols as u64), Ok(same as u64), "{rows} x {cols}");
        }
        assert_eq!(T::Tl2.nbytes(u64::MAX / 3, 2), Err(SizeError::Overflow));
        assert_eq!(T::Tl1.nbytes(3, 100), Err(SizeError::PartialBlock { block: 128 }));
        assert_eq!(T::Tq1_0.nbytes(4, 640), Err(SizeError::PartialBlock { block: 256 }));
        assert_eq!(T::I2S.nbytes(3, 100), Err(SizeError::PartialBlock { block: 128 }));
        assert_eq!(T::F32.nbytes(u64::MAX, 2), Err(SizeError::Overflow));
        assert_eq!(T::F64.nbytes(u64::MAX / 4, 1), Err(SizeError::Overflow));
    }
}
