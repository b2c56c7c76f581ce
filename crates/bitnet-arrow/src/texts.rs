//! A column of texts, in any of Arrow's layouts.

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_schema::DataType;

use crate::MapError;

/// Whether a column of this type is one of texts.
pub(crate) fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => true,
        DataType::Dictionary(_, values) => {
            matches!(**values, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
        }
        _ => false,
    }
}

/// The texts of `array`; messages call it `column`.
pub(crate) fn texts<'a>(array: &'a dyn Array, column: &str) -> Result<Vec<Option<&'a str>>, MapError> {
    match array.data_type() {
        // A column that has never had a value.
        DataType::Null => Ok(vec![None; array.len()]),
        DataType::Utf8 => Ok(array.as_string::<i32>().iter().collect()),
        DataType::LargeUtf8 => Ok(array.as_string::<i64>().iter().collect()),
        DataType::Utf8View => Ok(array.as_string_view().iter().collect()),
        other if is_text(other) => {
            let dictionary = array.as_any_dictionary();
            let values = texts(dictionary.values().as_ref(), column)?;
            // Keys are only defined where there are values.
            if values.is_empty() {
                return Ok(vec![None; array.len()]);
            }
            let keys = dictionary.normalized_keys().into_iter().enumerate();
            Ok(keys.map(|(row, key)| values[key].filter(|_| array.is_valid(row))).collect())
        }
        other => Err(MapError::NotText { column: column.to_owned(), found: other.to_string() }),
    }
}
