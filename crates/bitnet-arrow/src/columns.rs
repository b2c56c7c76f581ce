//! From rows to Arrow arrays.

use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeListArray, Float32Array, ListArray, StringArray, StructArray, UInt32Array};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, FieldRef, Fields};
use bitnet::{Extraction, Slot};

use crate::MapError;
use crate::rows::{Row, value};

/// The name of the elements of lists, as Arrow's own tools have it.
const ITEM: &str = "item";

/// A column of texts, `column` in messages.
pub(crate) fn utf8<'a>(
    column: &'static str,
    texts: impl Iterator<Item = Option<&'a str>> + Clone,
) -> Result<ArrayRef, MapError> {
    let bytes: usize = texts.clone().flatten().map(str::len).sum();
    // Places within an array of type Utf8 have 32 bits.
    if i32::try_from(bytes).is_err() {
        return Err(MapError::TooLarge { column });
    }
    Ok(Arc::new(texts.collect::<StringArray>()))
}

fn number() -> FieldRef {
    Arc::new(Field::new(ITEM, DataType::Float32, true))
}

/// Dimensions as Arrow counts them; no model has more.
fn size(dimensions: usize) -> i32 {
    i32::try_from(dimensions).unwrap_or(i32::MAX)
}

/// The type of `embedding`.
pub(crate) fn vector_type(dimensions: usize) -> DataType {
    DataType::FixedSizeList(number(), size(dimensions))
}

pub(crate) fn vectors(rows: &[Row<Vec<f32>>], dimensions: usize) -> Result<ArrayRef, MapError> {
    let mut numbers = Vec::with_capacity(rows.len() * dimensions);
    for row in rows {
        match value(row) {
            Some(vector) => numbers.extend_from_slice(vector),
            None => numbers.resize(numbers.len() + dimensions, 0.0),
        }
    }
    let nulls = NullBuffer::from_iter(rows.iter().map(|row| value(row).is_some()));
    let numbers = Arc::new(Float32Array::from(numbers));
    Ok(Arc::new(FixedSizeListArray::try_new(number(), size(dimensions), numbers, Some(nulls))?))
}

fn slot_fields() -> Fields {
    Fields::from(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, false),
        Field::new("start", DataType::UInt32, false),
        Field::new("end", DataType::UInt32, false),
    ])
}

fn slot_item() -> FieldRef {
    Arc::new(Field::new(ITEM, DataType::Struct(slot_fields()), true))
}

/// The type of `slots`.
pub(crate) fn slots_type() -> DataType {
    DataType::List(slot_item())
}

fn slots_of(row: &Row<Extraction>) -> &[Slot] {
    value(row).map_or(&[], |found| &found.slots)
}

pub(crate) fn slots(rows: &[Row<Extraction>]) -> Result<ArrayRef, MapError> {
    let all = rows.iter().flat_map(slots_of);
    if i32::try_from(all.clone().count()).is_err() {
        return Err(MapError::TooLarge { column: "slots" });
    }
    // Texts of 4 GiB and more are cut long before by the number of words that are read.
    let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    let columns: Vec<ArrayRef> = vec![
        utf8("slots", all.clone().map(|slot| Some(&*slot.name)))?,
        utf8("slots", all.clone().map(|slot| Some(&*slot.value)))?,
        Arc::new(all.clone().map(|slot| place(slot.range.start)).collect::<UInt32Array>()),
        Arc::new(all.clone().map(|slot| place(slot.range.end)).collect::<UInt32Array>()),
    ];
    let structs = StructArray::try_new(slot_fields(), columns, None)?;
    let offsets = OffsetBuffer::from_lengths(rows.iter().map(|row| slots_of(row).len()));
    let nulls = NullBuffer::from_iter(rows.iter().map(|row| value(row).is_some()));
    Ok(Arc::new(ListArray::try_new(slot_item(), offsets, Arc::new(structs), Some(nulls))?))
}
