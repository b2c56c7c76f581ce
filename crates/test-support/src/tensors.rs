//! Reference files in the safetensors format, read in the plainest way: whole files, trusted content.

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

/// A safetensors file in memory. All functions panic with the name of the tensor if it is not as expected.
#[derive(Debug)]
pub struct Tensors(BTreeMap<String, Tensor>);

#[derive(Debug)]
struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn numbers<const N: usize, T>(bytes: &[u8], read: fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|chunk| read(*chunk)).collect()
}

impl Tensors {
    /// Reads a file.
    pub fn open(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let tensor = |t: safetensors::tensor::TensorView<'_>| Tensor {
            dtype: t.dtype(),
            shape: t.shape().into(),
            bytes: t.data().into(),
        };
        Self(file.iter().map(|(name, t)| (name.to_owned(), tensor(t))).collect())
    }

    /// The names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// The shape of a tensor, slowest dimension first.
    pub fn shape(&self, name: &str) -> &[usize] {
        &self.get(name).shape
    }

    /// The type of a tensor's elements.
    pub fn dtype(&self, name: &str) -> Dtype {
        self.get(name).dtype
    }

    /// The bytes of a tensor of any type.
    pub fn bytes(&self, name: &str) -> &[u8] {
        &self.get(name).bytes
    }

    /// A tensor of f32, f16 or bf16.
    pub fn f32(&self, name: &str) -> Vec<f32> {
        let t = self.get(name);
        match t.dtype {
            Dtype::F32 => numbers(&t.bytes, f32::from_le_bytes),
            Dtype::F16 => numbers(&t.bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => numbers(&t.bytes, |b| bf16::from_le_bytes(b).to_f32()),
            other => panic!("{name} is {other:?}"),
        }
    }

    /// A tensor of int8.
    pub fn i8(&self, name: &str) -> Vec<i8> {
        let t = self.get(name);
        assert_eq!(t.dtype, Dtype::I8, "{name}");
        t.bytes.iter().map(|b| *b as i8).collect()
    }

    /// A tensor of signed integers of any width.
    pub fn ints(&self, name: &str) -> Vec<i64> {
        let t = self.get(name);
        match t.dtype {
            Dtype::I8 => t.bytes.iter().map(|b| i64::from(*b as i8)).collect(),
            Dtype::I32 => numbers(&t.bytes, |b| i64::from(i32::from_le_bytes(b))),
            Dtype::I64 => numbers(&t.bytes, i64::from_le_bytes),
            other => panic!("{name} is {other:?}"),
        }
    }

    /// A tensor of token ids.
    pub fn ids(&self, name: &str) -> Vec<u32> {
        self.ints(name).into_iter().map(|i| u32::try_from(i).unwrap_or_else(|_| panic!("{name} holds {i}"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;

    #[test]
    fn numbers_of_all_types_are_read() {
        let path = std::env::temp_dir().join(format!("tensors-{}.safetensors", std::process::id()));
        let view = |dtype, n: usize, bytes: &'static [u8]| TensorView::new(dtype, vec![n], bytes).unwrap();
        let all = [
            ("f32", view(Dtype::F32, 1, &[0, 0, 0x80, 0x3f])),
            ("f16", view(Dtype::F16, 1, &[0, 0x3c])),
            ("bf16", view(Dtype::BF16, 1, &[0x80, 0xbf])),
            ("i8", view(Dtype::I8, 2, &[0xff, 1])),
            ("i32", view(Dtype::I32, 1, &[7, 0, 0, 0])),
        ];
        std::fs::write(&path, safetensors::serialize(all, None).unwrap()).unwrap();
        let file = Tensors::open(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(["f32", "f16", "bf16"].map(|name| file.f32(name)), [[1.0], [1.0], [-1.0]]);
        assert_eq!((file.i8("i8"), file.ints("i8"), file.ids("i32")), (vec![-1, 1], vec![-1, 1], vec![7]));
        assert_eq!((file.names().count(), file.shape("i8"), file.dtype("f16")), (5, &[2][..], Dtype::F16));
        assert_eq!(file.bytes("f16"), [0, 0x3c]);
    }
}
