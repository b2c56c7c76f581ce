//! The operations of an instruction set for tables that tokens share.

use bytemuck::Pod;

/// Additions of 16-bit lanes, one lane for each token, and the operations that transpose. `self` is a proof token, so
/// the methods are safe.
pub(crate) trait TokenLanes: Copy {
    /// [`TokenLanes::LANES`] lanes of i16.
    type Register: Copy;
    /// A register in memory.
    type Memory: Pod;
    /// [`TokenLanes::LANES`] numbers of 8 bits in memory.
    type Narrow: Pod;
    /// 16 bytes, or eight numbers of 16 bits.
    type Bytes: Copy;
    const LANES: usize;
    /// Tokens of a last tile below which multiplying is faster than a tile with idle lanes.
    const LAST_FROM: usize;
    /// Lanes of zero.
    const ZERO: Self::Memory;

    fn zero(self) -> Self::Register;
    fn load(self, from: &Self::Memory) -> Self::Register;
    fn store(self, v: Self::Register, to: &mut Self::Memory);
    /// Wrapping addition.
    fn add(self, a: Self::Register, b: Self::Register) -> Self::Register;
    /// Wrapping subtraction.
    fn sub(self, a: Self::Register, b: Self::Register) -> Self::Register;
    fn widen(self, x: &Self::Narrow) -> Self::Register;

    fn load_bytes(self, from: &[u8; 16]) -> Self::Bytes;
    fn store_bytes(self, v: Self::Bytes, to: &mut [u8; 16]);
    /// `a0 b0 a1 b1 ...`, the first and the second half.
    fn zip_bytes(self, a: Self::Bytes, b: Self::Bytes) -> [Self::Bytes; 2];
    /// Like [`TokenLanes::zip_bytes`], for numbers of 16 bits.
    fn zip_pairs(self, a: Self::Bytes, b: Self::Bytes) -> [Self::Bytes; 2];
}
