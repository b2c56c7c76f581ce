//! Ternary (1.58-bit) matrix kernels for CPUs.

mod activations;
mod base3;
pub mod check;
mod dispatch;
mod elut;
mod error;
pub mod formats;
mod group;
mod group_scales;
mod i2s;
mod kernel;
mod layout;
mod machine;
mod matrix;
pub mod ops;
mod panel_kernel;
pub mod probe;
pub mod quantize;
pub mod reference;
mod registry;
mod scales;
pub mod select;
mod threads;
mod token_tables;
pub mod tune;

pub use activations::int4::{Int4, Int4Batch, Int4Matrix, Int4RowMut, Int4RowsMut, Int4Vector};
pub use activations::int8::{Int8, Int8Batch, Int8Matrix, Int8RowMut, Int8RowsMut, Int8Vector};
pub use activations::int8_groups::{Int8GroupBatch, Int8GroupMatrix, Int8GroupRowMut, Int8GroupRowsMut};
pub use activations::int16::{INT16_MAX, Int16Batch, Int16Matrix, Int16RowMut, Int16RowsMut};
pub use activations::{ActBatch, ActMatrix, ActRowMut, ActRowsMut, ActVector, Code, ROW_ALIGN};
pub use dispatch::{gemm, gemm_a4, gemv};
pub use elut::Elut;
pub use error::KernelError;
pub use formats::{FORMATS, FileFormat, FormatInfo, ScalePlace, ScaleRounding, TlTile};
pub use group::{GroupKernel, GroupPacked};
pub use group_scales::GroupScales;
pub use isa::{Cpu, Isa};
pub use kernel::{Kernel, Packed, PackedRows, row_block};
pub use layout::KernelLayout;
pub use machine::{
    AlignedBuf, ByteOwner, SharedBytes, available_cpus, cpu_name, default_threads, isa, last_level_cache,
};
pub use matrix::{Levels, TernaryMatrix, Twos};
pub use ops::{Ops, RopeTable};
pub use registry::{Entry, by_name, for_format, kernels_available, registry};
pub use scales::Scales;
pub use select::{best, for_int4_weights, for_isa, for_weights};
pub use threads::{ColsMut, SplitCols, Team, split_cols, team};

pub(crate) use machine::simd;

/// Compiles the example on the crate's page.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct CratePage;
