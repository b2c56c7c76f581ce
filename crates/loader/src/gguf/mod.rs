//! GGUF: a bounded reader over a file mapping, and a streaming writer.
//!
//! A GGUF file is a header (magic, version, counts), a list of metadata, a list of tensor descriptions, and the data,
//! each tensor at a multiple of `general.alignment`. Everything in it is claimed by the file, so everything is checked:
//! counts against the bytes that are left, sums and products for overflow, ranges against the file and against each
//! other. Reading allocates no more than a small multiple of the header.
//!
//! ```no_run
//! # fn main() -> Result<(), loader::LoadError> {
//! let file = loader::gguf::Gguf::open("model.gguf".as_ref())?;
//! for tensor in file.tensors() {
//!     println!("{} {:?} {}", tensor.name(), tensor.dims(), tensor.tensor_type());
//! }
//! # Ok(())
//! # }
//! ```
#![deny(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]

mod cursor;
mod layout;
mod reader;
mod split;
mod tensor_info;
mod types;
mod value;
mod writer;

pub use reader::Gguf;
pub(crate) use split::is_key as is_split_key;
#[cfg(feature = "hub")]
pub(crate) use split::parse_name as parse_part_name;
pub use split::{MAX_PARTS, locate};
pub use tensor_info::{TensorInfo, TensorType};
pub use types::{GgmlType, Layout};
pub use value::{Array, Metadata, StringArray, Value, ValueKind};
pub use writer::{GgufWriter, TensorStream};

/// The first four bytes of every GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Default alignment of tensor data, bytes.
pub const DEFAULT_ALIGNMENT: u64 = 32;
/// The largest alignment accepted, bytes. Anything larger than a page has no use.
pub const MAX_ALIGNMENT: u64 = 1 << 16;
/// The longest key or tensor name accepted, bytes; the specification allows keys of 65,535.
pub const MAX_NAME: u64 = 65_535;
