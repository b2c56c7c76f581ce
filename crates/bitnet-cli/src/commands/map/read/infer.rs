//! The types of a JSONL table, from its first rows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::COLUMNS;

/// The type of values of JSON that were seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Kind {
    /// Nothing but null.
    #[default]
    Null,
    Boolean,
    Integer,
    Number,
    Text,
    List(Box<Kind>),
    Object(Columns),
}

/// The key under which serde_json hands over a number as a text, where some crate of the program turns on its feature
/// `arbitrary_precision`.
const NUMBER: &str = "$serde_json::private::Number";

/// The fields of an object, in the order in which they were first seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Columns {
    fields: Vec<(String, Kind)>,
    places: BTreeMap<String, usize>,
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Integer | Self::Number => "a number",
            Self::Text => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    /// Takes in another value.
    ///
    /// # Errors
    /// Two types that have no common one.
    fn add(&mut self, other: Self) -> Result<(), String> {
        match (&mut *self, other) {
            (_, Self::Null) => {}
            (Self::Null, other) => *self = other,
            (Self::Integer, Self::Number) => *self = Self::Number,
            (Self::Number, Self::Integer) => {}
            (Self::List(own), Self::List(other)) => own.add(*other)?,
            (Self::Object(own), Self::Object(other)) => own.add(other)?,
            (own, other) if own == &other => {}
            (own, other) => return Err(format!("{} where others have {}", other.name(), own.name())),
        }
        Ok(())
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Null => DataType::Null,
            Self::Boolean => DataType::Boolean,
            Self::Integer => DataType::Int64,
            Self::Number => DataType::Float64,
            Self::Text => DataType::Utf8,
            Self::List(of) => DataType::List(Arc::new(Field::new("item", of.data_type(), true))),
            Self::Object(columns) => DataType::Struct(columns.fields().into()),
        }
    }
}

impl Columns {
    fn set(&mut self, name: String, kind: Kind) -> Result<(), String> {
        if let Some(place) = self.places.get(&name) {
            return self.fields[*place].1.add(kind).map_err(|problem| format!("{name:?} is {problem}"));
        }
        if self.fields.len() == COLUMNS {
            return Err(format!("there are more than {COLUMNS} keys"));
        }
        self.places.insert(name.clone(), self.fields.len());
        self.fields.push((name, kind));
        Ok(())
    }

    fn add(&mut self, other: Self) -> Result<(), String> {
        other.fields.into_iter().try_for_each(|(name, kind)| self.set(name, kind))
    }

    fn fields(&self) -> Vec<Field> {
        self.fields.iter().map(|(name, kind)| Field::new(name, kind.data_type(), true)).collect()
    }

    /// Takes in a row.
    ///
    /// # Errors
    /// A line that is not a JSON object, or whose values do not fit those before.
    pub(super) fn add_row(&mut self, line: &str) -> Result<(), String> {
        match serde_json::from_str::<Kind>(line).map_err(|e| format!("not JSON: {e}"))? {
            Kind::Object(row) => self.add(row),
            other => Err(format!("{}, and a row is a JSON object", other.name())),
        }
    }

    /// The schema; `text` is a column of texts even if it was null in each row.
    pub(super) fn schema(mut self, text: &str) -> Schema {
        if let Some((_, kind @ Kind::Null)) = self.fields.iter_mut().find(|(name, _)| name == text) {
            *kind = Kind::Text;
        }
        Schema::new(self.fields())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyKind)
    }
}

/// Reads a value and keeps its type only.
struct AnyKind;

impl<'de> Visitor<'de> for AnyKind {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Kind, E> {
        Ok(Kind::Boolean)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Kind, E> {
        Ok(Kind::Integer)
    }
    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(if i64::try_from(value).is_ok() { Kind::Integer } else { Kind::Number })
    }
    fn visit_f64<E>(self, _: f64) -> Result<Kind, E> {
        Ok(Kind::Number)
    }
    fn visit_str<E>(self, _: &str) -> Result<Kind, E> {
        Ok(Kind::Text)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        let mut of = Kind::Null;
        while let Some(item) = items.next_element()? {
            of.add(item).map_err(A::Error::custom)?;
        }
        Ok(Kind::List(Box::new(of)))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Kind, A::Error> {
        let mut columns = Columns::default();
        while let Some(name) = entries.next_key::<String>()? {
            if name == NUMBER {
                let text: String = entries.next_value()?;
                return Ok(if text.parse::<i64>().is_ok() { Kind::Integer } else { Kind::Number });
            }
            columns.set(name, entries.next_value()?).map_err(A::Error::custom)?;
        }
        Ok(Kind::Object(columns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(rows: &[&str]) -> Result<Schema, String> {
        let mut columns = Columns::default();
        rows.iter().try_for_each(|row| columns.add_row(row))?;
        Ok(columns.schema("text"))
    }

    #[test]
    fn types_are_those_of_all_rows_in_the_order_of_the_first() {
        let found = schema(&[
            r#"{"z": 1, "text": null, "a": [], "o": {"y": true}}"#,
            r#"{"a": [1.5, null], "z": 2, "n": null, "o": {"x": "s", "y": null}}"#,
            r#"{"z": 18446744073709551615}"#,
        ])
        .unwrap();
        let item = |t| DataType::List(Arc::new(Field::new("item", t, true)));
        let object = vec![Field::new("y", DataType::Boolean, true), Field::new("x", DataType::Utf8, true)];
        let types: Vec<(&str, DataType)> =
            found.fields().iter().map(|f| (f.name().as_str(), f.data_type().clone())).collect();
        assert_eq!(
            types,
            [
                ("z", DataType::Float64),
                ("text", DataType::Utf8),
                ("a", item(DataType::Float64)),
                ("o", DataType::Struct(object.into())),
                ("n", DataType::Null),
            ]
        );
        assert_eq!(schema(&[]).unwrap().fields().len(), 0);
    }

    #[test]
    fn rows_that_do_not_fit_are_named() {
        let error = |rows: &[&str]| schema(rows).unwrap_err();
        assert!(error(&[r#"{"a": 1}"#, r#"{"a": "x"}"#]).contains("\"a\" is a text where others have a number"));
        assert!(error(&[r#"{"a": {"b": [1]}}"#, r#"{"a": {"b": 2}}"#]).contains("\"b\" is a number"));
        assert!(error(&["[1]"]).contains("a list, and a row is a JSON object"));
        assert!(error(&["{\"a\": 1} x"]).contains("not JSON"));
        assert!(error(&["{\"a\": [1, \"x\"]}"]).contains("a text where others have a number"));
        // Deeper than anyone needs, and more columns than anyone needs.
        assert!(error(&[&"[".repeat(100_000)]).contains("recursion"));
        let wide: Vec<String> = (0..5000).map(|i| format!("\"k{i}\": {i}")).collect();
        assert!(error(&[&format!("{{{}}}", wide.join(","))]).contains("more than 4096"));
    }
}
