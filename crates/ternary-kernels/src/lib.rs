//! Ternary (1.58-bit) matrix kernels for CPUs.

mod activations;
mod activations16;
mod activations8_groups;
mod aligned;
mod base3;
mod bytes;
mod cache;
pub mod check;
mod cpu_name;
mod cpus;
mod dispatch;
mod elut;
mod error;
pub mod formats;
mod group;
mod group_scales;
#[cfg(target_os = "linux")]
mod huge;
mod i2s;
mod int4;
pub mod isa;
mod kernel;
mod matrix;
mod panel_kernel;
pub mod probe;
pub mod quantize;
pub mod reference;
mod registry;
mod scales;
mod simd;

pub use activations::{Int8Batch, Int8Matrix, Int8RowMut, Int8RowsMut, Int8Vector, ROW_ALIGN};
pub use activations8_groups::{Int8GroupBatch, Int8GroupMatrix, Int8GroupRowMut, Int8GroupRowsMut};
pub use activations16::{INT16_MAX, Int16Batch, Int16Matrix, Int16RowMut, Int16RowsMut};
pub use aligned::AlignedBuf;
pub use bytes::SharedBytes;
pub use cache::last_level_cache;
pub use cpu_name::cpu_name;
pub use cpus::default_threads;
pub use dispatch::{gemm, gemm_a4, gemv};
pub use elut::Elut;
pub use error::KernelError;
pub use formats::{FORMATS, FileFormat, FormatInfo, ScalePlace, ScaleRounding, TlTile};
pub use group::{GroupKernel, GroupPacked};
pub use group_scales::GroupScales;
pub use int4::{Int4Batch, Int4Matrix, Int4RowMut, Int4RowsMut, Int4Vector};
pub use isa::{Cpu, Isa};
pub use kernel::{Kernel, Packed, PackedRows, row_block};
pub use matrix::{Levels, TernaryMatrix, Twos};
pub use registry::{
    Entry, best, by_name, for_format, for_int4_weights, for_isa, for_weights, kernels_available, registry,
};
pub use scales::Scales;

pub mod ops;
mod split;
pub mod team;
mod token_tables;
pub mod tune;

pub use ops::{Ops, RopeTable};
pub use split::{ColsMut, SplitCols, split_cols};
pub use team::Team;

/// The example of the crate's page compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct CratePage;
