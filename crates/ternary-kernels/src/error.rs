//! The error type of this crate.

use crate::{FileFormat, TlTile, Twos};

/// Errors about shapes, codes, scales and kernel selection.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the names of these fields say enough")]
pub enum KernelError {
    /// A length or a dimension differs from what the operation needs.
    #[error("{op}: expected {what} {expected}, got {got}")]
    ShapeMismatch {
        /// The operation that failed.
        op: &'static str,
        /// Which length or dimension.
        what: &'static str,
        /// The required length.
        expected: usize,
        /// The given length.
        got: usize,
    },
    /// A size that does not fit this machine's address space.
    #[error("{op}: {rows} x {cols} overflows the address space")]
    TooLarge {
        /// The operation that failed.
        op: &'static str,
        /// Rows (output features, M).
        rows: usize,
        /// Columns (input features, K).
        cols: usize,
    },
    /// A file format cannot hold rows of this length; in memory every shape works.
    #[error("{format} cannot hold rows of {cols} weights: {reason}")]
    UnsupportedShape {
        /// The file format.
        format: FileFormat,
        /// Rows (output features, M).
        rows: usize,
        /// Columns (input features, K).
        cols: usize,
        /// Why, and what would work.
        reason: &'static str,
    },
    /// Tile sizes that a TL1 or TL2 matrix of this shape cannot have.
    #[error("{format} with {tile} cannot hold a [{rows}, {cols}] matrix: {reason}")]
    UnsupportedTile {
        /// The file format.
        format: FileFormat,
        /// The tile sizes.
        tile: TlTile,
        /// Rows (output features, M).
        rows: usize,
        /// Columns (input features, K).
        cols: usize,
        /// Why.
        reason: &'static str,
    },
    /// A byte that no writer produces with these tile sizes.
    #[error("{format}: byte {at} {what}; the tensor was written with other tile sizes than {tile}, or it is damaged")]
    ForeignTiles {
        /// The file format.
        format: FileFormat,
        /// The tile sizes that it was read with.
        tile: TlTile,
        /// Offset of the byte.
        at: usize,
        /// The reason.
        what: &'static str,
    },
    /// A weight that is not -1, 0 or +1, or a bit pattern that stands for none of them.
    #[error("{format}: row {row}, column {col} holds code {code}, which is not a ternary weight")]
    InvalidCode {
        /// The file format.
        format: FileFormat,
        /// Row of the weight.
        row: usize,
        /// Column of the weight.
        col: usize,
        /// The code that was found.
        code: i32,
    },
    /// A scale that is NaN, infinite or negative.
    #[error("{format}: scale {value} of row {row} is not a finite number of at least 0")]
    InvalidScale {
        /// The file format.
        format: FileFormat,
        /// First row that the scale belongs to.
        row: usize,
        /// The scale that was found.
        value: f32,
    },
    /// The scale of a group of weights is NaN, infinite or negative.
    #[error("scale {value} of group {group} of row {row} is not a finite number of at least 0; the file is damaged")]
    InvalidGroupScale {
        /// Row of the group.
        row: usize,
        /// The group, counted within the row.
        group: usize,
        /// The scale that was found.
        value: f32,
    },
    /// Groups of a length that the group kernels do not multiply.
    #[error("{op}: groups of {group_len} weights; kernels multiply groups of 64, 128, 192 or 256")]
    GroupLength {
        /// The operation that failed.
        op: &'static str,
        /// Weights of a group.
        group_len: usize,
    },
    /// A scale of a block that is NaN, infinite or negative.
    #[error("{format}: the scale of row {row}, block {block} is {value}, not a finite number of at least 0")]
    InvalidBlockScale {
        /// The file format.
        format: FileFormat,
        row: usize,
        /// The block in the row, from 0.
        block: usize,
        /// The scale that was found.
        value: f32,
    },
    /// Weights that share one scale in the target format have several.
    #[error(
        "{format} has one scale for each {} weights, but some of row {row} have scales {first} and {second}: \
         this cannot be kept; write a format of smaller groups (PQ2_0 and PTQ1_0 of 128, Q2_0 of 64)",
        .format.info().weights
    )]
    MixedScales {
        /// The target format.
        format: FileFormat,
        row: usize,
        /// Scale of the first non-zero group of the block.
        first: f32,
        /// A different scale found later in it.
        second: f32,
    },
    /// The format has no room for a scale per group.
    #[error(
        "{format} has no room for a scale for each {group_len} weights of a row; write Q2_0 (groups of 64), PQ2_0, PTQ1_0 (128), \
         TQ1_0 or TQ2_0 (256)"
    )]
    NoGroupScales {
        /// The target format.
        format: FileFormat,
        /// Weights of a group.
        group_len: usize,
    },
    /// A format that is read, but not written.
    #[error("{format} is read, but not written; write Q2_0, PQ2_0 or PTQ1_0")]
    ReadOnlyFormat { format: FileFormat },
    /// Weights of +2, as Q2_0 can hold them, where only -1, 0 and +1 are possible.
    #[error(
        "{what} holds weights of -1, 0 and +1, but {} of this matrix are +2, the first at row {}, column {}",
        .twos.count, .twos.row, .twos.col
    )]
    Twos {
        /// The format or the kernel that cannot hold them.
        what: String,
        /// Their number and the place of the first one.
        twos: Twos,
    },
    /// A kernel for rows with one scale was given one scale per group.
    #[error(
        "kernel {kernel} takes one scale per row, but these weights have one for each {group_len}; use a group kernel"
    )]
    GroupsUnsupported {
        /// The kernel that refused the weights.
        kernel: String,
        /// Weights of a group.
        group_len: usize,
    },
    /// A scale cannot be stored exactly in the target format.
    #[error(
        "{format} stores scales as {stored_as}, which cannot hold {value} exactly (row {row}); allow rounding to write it anyway"
    )]
    InexactScale {
        /// The target format.
        format: FileFormat,
        /// The type in which the format stores scales.
        stored_as: &'static str,
        /// First row that the scale belongs to.
        row: usize,
        /// The exact scale.
        value: f32,
    },
    /// The format holds one scale per tensor, the matrix has several.
    #[error(
        "{format} holds one scale per tensor, but rows of this matrix have different scales ({first} and {second} at row {row})"
    )]
    OneScaleOnly {
        /// The target format.
        format: FileFormat,
        /// First row whose scale differs from that of row 0.
        row: usize,
        /// Scale of row 0.
        first: f32,
        /// Scale of `row`.
        second: f32,
    },
    /// Activations of a kernel lie in -127..=127; -128 is rejected on entry.
    #[error("activation {value} at token {token}, position {position} is outside -127..=127")]
    ActivationOutOfRange {
        /// Token (row of the activation matrix).
        token: usize,
        /// Position in the row.
        position: usize,
        value: i8,
    },
    /// Codes of int4 activations lie in -8..=7.
    #[error("activation {value} at token {token}, position {position} is outside -8..=7")]
    Int4OutOfRange {
        /// Token (row of the activation matrix).
        token: usize,
        /// Position in the row.
        position: usize,
        value: i8,
    },
    /// Codes of int16 activations lie in -32639..=32639, so that both their digits fit a byte.
    #[error("activation {value} at token {token}, position {position} is outside -32639..=32639")]
    Int16OutOfRange {
        /// Token (row of the activation matrix).
        token: usize,
        /// Position in the row.
        position: usize,
        value: i16,
    },
    /// Activations whose sum overflows f32, so that they have no mean.
    #[error("activations of up to {value} (position {position}) have no finite mean, so they cannot be quantised")]
    ActivationsTooLarge {
        /// Position of the largest one.
        position: usize,
        value: f32,
    },
    /// A Hadamard transform in blocks of an unsupported size, or of one that does not divide the row.
    #[error("Hadamard transform of {len} values in blocks of {block}: {reason}")]
    HadamardBlock {
        /// Values of a row.
        len: usize,
        /// The block size asked for.
        block: usize,
        /// The rule that the size violates.
        reason: &'static str,
    },
    /// An activation that is not finite; the values that it was computed from are already wrong.
    #[error("activation {value} at position {position} is not a finite number, so it cannot be quantised")]
    NonFiniteActivation {
        /// Position in the row.
        position: usize,
        value: f32,
    },
    /// The system refused to start a thread of a team.
    #[error("thread {index} of a team of {threads} could not be started: {reason}; ask for fewer threads")]
    ThreadNotStarted {
        /// The worker's index, from 1.
        index: usize,
        /// Threads asked for.
        threads: usize,
        /// The system's message.
        reason: String,
    },
    /// A name in `BITNET_ISA` or from the user that is not an instruction set.
    #[error("unknown instruction set {name:?}; expected one of: {known}")]
    UnknownIsa {
        name: String,
        /// The known names, comma separated.
        known: String,
    },
    /// An instruction set that exists, but not on this CPU or not in this build.
    #[error("instruction set {name} is not available on this CPU; available: {available}")]
    UnavailableIsa {
        name: &'static str,
        /// The available names, comma separated.
        available: String,
    },
    /// A measurement may not choose a kernel that rounds: a caller that wants it names it.
    #[error(
        "kernel {kernel:?} is not exact, so a tuning may not choose it; name it as the kernel of the model instead"
    )]
    InexactTuning {
        /// Its name.
        kernel: String,
    },
    /// No kernel of this name exists for this CPU.
    #[error("unknown kernel {name:?}; available: {available}")]
    UnknownKernel {
        name: String,
        /// The available names, comma separated.
        available: String,
    },
    /// A row so long that its product may not fit an i32.
    #[error("{kernel}: rows of {cols} weights may overflow their i32 sums; at most {max_cols} are supported")]
    RowTooLong {
        /// The kernel that refused the weights.
        kernel: String,
        /// Columns (input features, K).
        cols: usize,
        /// The maximum number of columns.
        max_cols: usize,
    },
    /// Look-up tables cannot represent weights of these levels in groups of this length.
    #[error("levels {levels:?} in groups of {group} cannot be looked up: {reason}")]
    LevelSet {
        levels: Vec<i8>,
        /// Weights of a group.
        group: usize,
        /// The rule that they violate.
        reason: &'static str,
    },
    /// A code that is not the index of a level.
    #[error("the weight at row {row}, column {col} has code {code}, but there are {levels} levels, from 0")]
    UnknownLevel {
        /// Row of the weight.
        row: usize,
        /// Column of the weight.
        col: usize,
        code: u8,
        /// Levels of the set.
        levels: usize,
    },
    /// A weight that is NaN or infinite.
    #[error("{op}: weight {value} at row {row}, column {col} is not finite")]
    NotFinite {
        /// The operation that failed.
        op: &'static str,
        /// Row of the weight.
        row: usize,
        /// Column of the weight.
        col: usize,
        value: f32,
    },
    /// Weights prepacked by one kernel were handed to another.
    #[error("weights were packed by kernel {packed_by}, not by {kernel}; prepack them again")]
    PackedByOther {
        /// The kernel that was asked to run.
        kernel: String,
        /// The kernel that packed the weights.
        packed_by: String,
    },
    /// The caller cancelled a long operation.
    #[error("{op} was cancelled")]
    Cancelled {
        /// The operation.
        op: &'static str,
    },
    /// Row ranges handed to a kernel begin at a multiple of its panel height.
    #[error("row range {start}..{end} does not fit {rows} rows in panels of {panel_rows}")]
    BadRowRange {
        /// First row.
        start: usize,
        /// One past the last row.
        end: usize,
        /// Rows of the matrix.
        rows: usize,
        /// Panel height of the kernel.
        panel_rows: usize,
    },
}
