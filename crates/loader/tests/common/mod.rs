//! Files built by hand, without the code under test.

#![allow(dead_code, unreachable_pub)] // Each test program uses its own part.

pub mod checkpoints;
pub mod edit;

/// A GGUF file under construction; counts follow from what was added unless they are overridden.
#[derive(Clone)]
pub struct RawGguf {
    pub magic: [u8; 4],
    pub version: u32,
    pub n_tensors: Option<u64>,
    pub n_entries: Option<u64>,
    pub entries: Vec<Vec<u8>>,
    pub tensors: Vec<Vec<u8>>,
    pub alignment: usize,
    pub data: Vec<u8>,
}

impl RawGguf {
    pub fn new() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            n_tensors: None,
            n_entries: None,
            entries: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            data: Vec::new(),
        }
    }

    /// An entry with a key, a type id and the bytes of the value.
    pub fn entry(mut self, key: &[u8], type_id: u32, value: &[u8]) -> Self {
        let mut e = text(key);
        e.extend(type_id.to_le_bytes());
        e.extend(value);
        self.entries.push(e);
        self
    }

    pub fn architecture(self, name: &str) -> Self {
        self.entry(b"general.architecture", 8, &text(name.as_bytes()))
    }

    /// A tensor description; dimensions fastest first.
    pub fn tensor(mut self, name: &[u8], dims: &[u64], type_id: u32, offset: u64) -> Self {
        let mut t = text(name);
        t.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|d| t.extend(d.to_le_bytes()));
        t.extend(type_id.to_le_bytes());
        t.extend(offset.to_le_bytes());
        self.tensors.push(t);
        self
    }

    /// `n` zero bytes in the data section.
    pub fn data(mut self, n: usize) -> Self {
        self.data = vec![0; n];
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.n_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.n_entries.unwrap_or(self.entries.len() as u64).to_le_bytes());
        self.entries.iter().chain(&self.tensors).for_each(|e| out.extend(e));
        if !self.data.is_empty() {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&self.data);
        }
        out
    }
}

/// A length and the bytes.
pub fn text(s: &[u8]) -> Vec<u8> {
    let mut out = (s.len() as u64).to_le_bytes().to_vec();
    out.extend(s);
    out
}

/// An array: element type, count, bytes.
pub fn array(type_id: u32, n: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = type_id.to_le_bytes().to_vec();
    out.extend(n.to_le_bytes());
    out.extend(bytes);
    out
}
