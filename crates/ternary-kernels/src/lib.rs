//! Ternary (1.58-bit) matrix kernels for CPUs.

mod activations;
mod aligned;
mod bytes;
mod error;
pub mod formats;
pub mod isa;
mod kernel;
mod matrix;

pub use activations::{Int8Batch, Int8Matrix, Int8RowMut, Int8Vector, ROW_ALIGN};
pub use aligned::AlignedBuf;
pub use bytes::SharedBytes;
pub use error::KernelError;
pub use formats::FileFormat;
pub use isa::{Cpu, Isa};
pub use kernel::{Kernel, Packed, PackedRows};
pub use matrix::{Scales, TernaryMatrix};

pub mod ops;
mod split;
pub mod team;

pub use ops::{Ops, RopeTable};
pub use split::{ColsMut, SplitCols, split_cols};
pub use team::Team;
