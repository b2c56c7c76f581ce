//! One matrix in the layout of the kernel that computes it.

use ternary_kernels::{GroupPacked, Packed};

/// A packed matrix.
#[derive(Clone, Debug)]
pub enum PackedMatrix {
    /// Of trits with one scale, or one for each row.
    Panels(Packed),
    /// With a scale for each group of weights.
    Groups(GroupPacked),
}

impl PackedMatrix {
    /// All panels, in the layout that [`Packer::layout`](crate::Packer::layout) names.
    pub fn bytes(&self) -> &[u8] {
        match self {
            PackedMatrix::Panels(packed) => packed.all().bytes(),
            PackedMatrix::Groups(packed) => packed.bytes(),
        }
    }
}
