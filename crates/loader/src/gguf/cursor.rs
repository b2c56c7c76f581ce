//! The bytes of a header: every read is checked against the remaining bytes.

use super::MAX_NAME;
use super::value::{Array, StringArray, Value, ValueKind};
use crate::LoadError;

/// Nested arrays are legal, but deep ones do not occur, and each level is a recursion.
const MAX_ARRAY_DEPTH: usize = 4;

pub(super) fn read_value(r: &mut Cursor<'_>, key: &str, kind: ValueKind) -> Result<Value, LoadError> {
    const WHAT: &str = "a metadata value";
    Ok(match kind {
        ValueKind::U8 => Value::U8(r.u8(WHAT)?),
        ValueKind::I8 => Value::I8(i8::from_le_bytes(r.array(WHAT)?)),
        ValueKind::U16 => Value::U16(u16::from_le_bytes(r.array(WHAT)?)),
        ValueKind::I16 => Value::I16(i16::from_le_bytes(r.array(WHAT)?)),
        ValueKind::U32 => Value::U32(r.u32(WHAT)?),
        ValueKind::I32 => Value::I32(i32::from_le_bytes(r.array(WHAT)?)),
        ValueKind::F32 => Value::F32(f32::from_le_bytes(r.array(WHAT)?)),
        ValueKind::U64 => Value::U64(r.u64(WHAT)?),
        ValueKind::I64 => Value::I64(i64::from_le_bytes(r.array(WHAT)?)),
        ValueKind::F64 => Value::F64(f64::from_le_bytes(r.array(WHAT)?)),
        ValueKind::Bool => Value::Bool(bool_of(r.u8(WHAT)?, key)?),
        ValueKind::String => Value::String(r.text(key)?.to_owned()),
        ValueKind::Array => Value::Array(read_array(r, key, 1)?),
    })
}

fn bool_of(byte: u8, key: &str) -> Result<bool, LoadError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(LoadError::BadBool { key: key.to_owned(), value }),
    }
}

fn read_array(r: &mut Cursor<'_>, key: &str, depth: usize) -> Result<Array, LoadError> {
    const WHAT: &str = "a metadata array";
    if depth > MAX_ARRAY_DEPTH {
        return Err(LoadError::NestedTooDeep { key: key.to_owned(), max: MAX_ARRAY_DEPTH });
    }
    let kind = r.value_kind(key)?;
    // Memory is bounded by the bytes that are left, because each element has at least this many of them.
    let element_bytes = match kind {
        ValueKind::U8 | ValueKind::I8 | ValueKind::Bool => 1,
        ValueKind::U16 | ValueKind::I16 => 2,
        ValueKind::U32 | ValueKind::I32 | ValueKind::F32 => 4,
        ValueKind::U64 | ValueKind::I64 | ValueKind::F64 | ValueKind::String => 8,
        ValueKind::Array => 12,
    };
    let n = r.count(WHAT, element_bytes)?;
    Ok(match kind {
        ValueKind::U8 => Array::U8(r.numbers(n, u8::from_le_bytes)?),
        ValueKind::I8 => Array::I8(r.numbers(n, i8::from_le_bytes)?),
        ValueKind::U16 => Array::U16(r.numbers(n, u16::from_le_bytes)?),
        ValueKind::I16 => Array::I16(r.numbers(n, i16::from_le_bytes)?),
        ValueKind::U32 => Array::U32(r.numbers(n, u32::from_le_bytes)?),
        ValueKind::I32 => Array::I32(r.numbers(n, i32::from_le_bytes)?),
        ValueKind::F32 => Array::F32(r.numbers(n, f32::from_le_bytes)?),
        ValueKind::U64 => Array::U64(r.numbers(n, u64::from_le_bytes)?),
        ValueKind::I64 => Array::I64(r.numbers(n, i64::from_le_bytes)?),
        ValueKind::F64 => Array::F64(r.numbers(n, f64::from_le_bytes)?),
        ValueKind::Bool => {
            let bytes = r.take(WHAT, n as u64)?;
            Array::Bool(bytes.iter().map(|&b| bool_of(b, key)).collect::<Result<_, _>>()?)
        }
        ValueKind::String => {
            let mut all = StringArray::with_capacity(n, 0);
            for _ in 0..n {
                all.push(r.text(key)?);
            }
            Array::String(all)
        }
        ValueKind::Array => {
            let mut all = Vec::new();
            for _ in 0..n {
                // The recursion ends at the limit above.
                all.push(read_array(r, key, depth.saturating_add(1))?);
            }
            Array::Array(all)
        }
    })
}

/// A position in the bytes of a file; every read is checked.
pub(super) struct Cursor<'a> {
    /// The whole file.
    pub(super) bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn offset(&self) -> u64 {
        self.at as u64
    }

    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn left(&self) -> u64 {
        self.len().saturating_sub(self.offset())
    }

    pub(super) fn take(&mut self, what: &'static str, n: u64) -> Result<&'a [u8], LoadError> {
        let end = usize::try_from(n).ok().and_then(|n| self.at.checked_add(n));
        match end.and_then(|end| Some((end, self.bytes.get(self.at..end)?))) {
            Some((end, slice)) => {
                self.at = end;
                Ok(slice)
            }
            None => Err(LoadError::Truncated { what, offset: self.offset(), needed: n, left: self.left() }),
        }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], LoadError> {
        let offset = self.offset();
        let slice = self.take(what, N as u64)?;
        slice.try_into().map_err(|_| LoadError::Truncated { what, offset, needed: N as u64, left: slice.len() as u64 })
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, LoadError> {
        self.array(what).map(u8::from_le_bytes)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, LoadError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, LoadError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of things that take at least `each` bytes; rejected if the rest of the file cannot hold them.
    pub(super) fn count(&mut self, what: &'static str, each: u64) -> Result<usize, LoadError> {
        let offset = self.offset();
        let count = self.u64(what)?;
        let left = self.left();
        match count.checked_mul(each) {
            Some(bytes) if bytes <= left => {
                usize::try_from(count).map_err(|_| LoadError::CountTooLarge { what, count, offset, left })
            }
            _ => Err(LoadError::CountTooLarge { what, count, offset, left }),
        }
    }

    /// `n` numbers of `N` bytes; `n` comes from [`Cursor::count`] with the same size.
    fn numbers<T, const N: usize>(&mut self, n: usize, from: impl Fn([u8; N]) -> T) -> Result<Vec<T>, LoadError> {
        let bytes = self.take("a metadata array", (n as u64).saturating_mul(N as u64))?;
        let (chunks, _) = bytes.as_chunks::<N>();
        Ok(chunks.iter().map(|c| from(*c)).collect())
    }

    pub(super) fn value_kind(&mut self, key: &str) -> Result<ValueKind, LoadError> {
        let offset = self.offset();
        let type_id = self.u32("the type of a metadata value")?;
        ValueKind::from_id(type_id).ok_or_else(|| LoadError::ValueType { key: key.to_owned(), type_id, offset })
    }

    /// A key or a tensor name.
    pub(super) fn name(&mut self, what: &'static str) -> Result<String, LoadError> {
        let offset = self.offset();
        let len = self.u64(what)?;
        if len > MAX_NAME && len <= self.left() {
            return Err(LoadError::NameTooLong { what, offset, len, max: MAX_NAME });
        }
        let bytes = self.take(what, len)?;
        match std::str::from_utf8(bytes) {
            Ok(s) => Ok(s.to_owned()),
            Err(_) => Err(LoadError::NotUtf8 { what: what.to_owned(), offset }),
        }
    }

    /// A string value of `key`.
    fn text(&mut self, key: &str) -> Result<&'a str, LoadError> {
        let offset = self.offset();
        let len = self.u64("the length of a string")?;
        let bytes = self.take("a string", len)?;
        std::str::from_utf8(bytes).map_err(|_| LoadError::NotUtf8 { what: format!("the value of {key:?}"), offset })
    }
}
