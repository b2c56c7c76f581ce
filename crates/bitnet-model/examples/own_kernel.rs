//! Use your own kernel: implement [`Kernel`], pass it to a model, and the model computes with it.
//!
//! This kernel keeps two bits per weight in bit planes, one for +1 and one for -1, and walks the set bits. It is slow,
//! it is exact, and none of it is in the kernels crate.
//!
//! ```text
//! cargo run --release -p bitnet-model --example own_kernel
//! ```

use std::sync::Arc;

use bitnet_model::{Engine, EngineOptions, KvType, ModelConfig, ModelWeights, Sequence, SyntheticWeights};
use ternary_kernels::{AlignedBuf, Int8Matrix, Int8Vector, Kernel, KernelError, Packed, PackedRows, TernaryMatrix};

#[allow(unreachable_pub, reason = "a test includes this file as a module")]
/// Rows as bit planes: `ceil(k / 64)` words of "is +1", then as many of "is -1".
#[derive(Debug)]
pub struct BitPlanes;

fn words(cols: usize) -> usize {
    cols.div_ceil(64)
}

impl Kernel for BitPlanes {
    fn name(&self) -> &str {
        "bit_planes_example"
    }

    fn panel_rows(&self) -> usize {
        1
    }

    fn prepack(&self, w: &TernaryMatrix) -> Result<Packed, KernelError> {
        let row_words = 2 * words(w.cols());
        let mut planes = AlignedBuf::<u64>::zeroed(w.rows() * row_words);
        let mut trits = vec![0i8; w.cols()];
        for r in 0..w.rows() {
            w.decode_row(r, &mut trits);
            let row = &mut planes[r * row_words..][..row_words];
            for (k, &t) in trits.iter().enumerate() {
                match t {
                    1 => row[k / 64] |= 1 << (k % 64),
                    -1 => row[words(w.cols()) + k / 64] |= 1 << (k % 64),
                    _ => {}
                }
            }
        }
        let bytes = AlignedBuf::from_slice(planes.as_ref());
        Packed::new(self.name(), w.rows(), w.cols(), 1, row_words * 8, bytes)
    }

    fn gemv(&self, w: &PackedRows<'_>, x: &Int8Vector<'_>, acc: &mut [i32]) {
        for (row, acc) in w.bytes().chunks_exact(w.panel_bytes()).zip(acc) {
            let (plus, minus) = row.split_at(row.len() / 2);
            *acc = sum(plus, x.codes()) - sum(minus, x.codes());
        }
    }

    fn gemm(&self, w: &PackedRows<'_>, x: &Int8Matrix<'_>, acc: &mut [i32]) {
        for (t, acc) in acc.chunks_exact_mut(w.rows()).enumerate() {
            self.gemv(w, &x.row(t), acc);
        }
    }
}

/// Sum of the activations whose bit is set.
fn sum(plane: &[u8], x: &[i8]) -> i32 {
    let mut total = 0;
    for (i, word) in plane.chunks_exact(8).enumerate() {
        let mut bits = u64::from_le_bytes(word.try_into().expect("chunks of 8 bytes"));
        while bits != 0 {
            total += i32::from(x[i * 64 + bits.trailing_zeros() as usize]);
            bits &= bits - 1;
        }
    }
    total
}

#[allow(unreachable_pub, reason = "a test includes this file as a module")]
/// Logits of a few tokens, computed with `options`.
pub fn logits(options: &EngineOptions) -> Vec<f32> {
    let weights = ModelWeights::from_source(&SyntheticWeights::new(ModelConfig::new(96, 128, 192, 2, 2, 1), 5))
        .expect("the shape is valid");
    let engine = Engine::new(&weights, options).expect("the kernel packs every shape");
    println!("computing with {}", engine.kernel_name());
    Sequence::new(&engine, KvType::F32, None).feed_each(&[1, 2, 3, 4, 5]).expect("the tokens are in the vocabulary")
}

#[cfg_attr(test, allow(dead_code))]
fn main() {
    let ours = logits(&EngineOptions::default());
    let theirs = logits(&EngineOptions::default().kernel(Arc::new(BitPlanes)));
    assert_eq!(ours, theirs, "an exact kernel gives the same logits, bit for bit");
    println!("the same logits, bit for bit");
}
