//! One matrix in the layout of its kernel.

use ternary_kernels::{GroupPacked, Packed};

/// A packed matrix.
#[derive(Clone, Debug)]
pub enum PackedMatrix {
    /// Trits with one scale, or one for each row.
    Panels(Packed),
    /// Weights with a scale for each group.
    Groups(GroupPacked),
}

impl PackedMatrix {
    /// All panels, in the layout that [`Packer::layout`](crate::Packer::layout) returns.
    pub fn bytes(&self) -> &[u8] {
        match self {
            PackedMatrix::Panels(packed) => packed.all().bytes(),
            PackedMatrix::Groups(packed) => packed.bytes(),
        }
    }
}
