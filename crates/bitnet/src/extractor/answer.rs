//! An extraction as a value of any type: a deserializer over it, in which a slot has the type that is requested.

use serde::de::value::{Error as ValueError, MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::{Extraction, Slot};
use crate::Error;

/// A value of type `T`.
pub(super) fn as_type<T: DeserializeOwned>(found: &Extraction) -> Result<T, Error> {
    let fields = [
        ("intent", Part::Text("intent", &found.intent)),
        ("confidence", Part::Number(found.confidence)),
        ("out_of_scope", Part::Flag(found.out_of_scope)),
        ("slots", Part::Slots(&found.slots)),
    ];
    T::deserialize(MapDeserializer::<_, ValueError>::new(fields.into_iter()))
        .map_err(|e| Error::Answer { intent: found.intent.clone(), reason: e.to_string() })
}

/// A piece of the answer.
#[derive(Clone, Copy)]
enum Part<'a> {
    /// A text and its description.
    Text(&'a str, &'a str),
    Number(f32),
    Flag(bool),
    Slots(&'a [Slot]),
    /// All values of the slot of this name, one at least.
    Values(&'a str, &'a [Slot]),
}

/// The values of the slot called `name`.
fn values<'a>(name: &'a str, slots: &'a [Slot]) -> impl Iterator<Item = Part<'a>> {
    slots.iter().filter(move |s| s.name == name).map(move |s| Part::Text(name, &s.value))
}

impl<'a> Part<'a> {
    /// The one text of this part.
    fn text(self) -> Result<(&'a str, &'a str), ValueError> {
        let Self::Values(name, slots) = self else {
            return match self {
                Self::Text(name, text) => Ok((name, text)),
                _ => Err(ValueError::custom("a text was expected")),
            };
        };
        let mut all = slots.iter().filter(|s| s.name == name);
        match (all.next(), all.count()) {
            (Some(slot), 0) => Ok((name, &slot.value)),
            (_, more) => Err(ValueError::custom(format_args!(
                "slot {name} has {} values, but the type holds one; a Vec holds all of them",
                more + 1
            ))),
        }
    }

    fn parse<T: std::str::FromStr>(self, what: &str) -> Result<T, ValueError> {
        let (name, text) = self.text()?;
        text.parse()
            .map_err(|_| ValueError::custom(format_args!("slot {name} is {text:?}, which is not a valid {what}")))
    }
}

impl<'a> IntoDeserializer<'a, ValueError> for Part<'a> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $ty:ty, $what:literal;)+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
            match self {
                Part::Text(..) | Part::Values(..) => visitor.$visit(self.parse::<$ty>($what)?),
                Part::Number(_) | Part::Flag(_) | Part::Slots(_) => self.deserialize_any(visitor),
            }
        }
    )+};
}

impl<'de> Deserializer<'de> for Part<'de> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self {
            Part::Text(_, text) => visitor.visit_borrowed_str(text),
            Part::Number(n) => visitor.visit_f32(n),
            Part::Flag(flag) => visitor.visit_bool(flag),
            Part::Slots(slots) => {
                let first = |i: &usize| !slots[..*i].iter().any(|s| s.name == slots[*i].name);
                let names = (0..slots.len()).filter(first).map(|i| slots[i].name.as_str());
                visitor.visit_map(MapDeserializer::new(names.map(|name| (name, Part::Values(name, slots)))))
            }
            Part::Values(name, slots) => match values(name, slots).count() {
                1 => visitor.visit_borrowed_str(self.text()?.1),
                _ => visitor.visit_seq(SeqDeserializer::new(values(name, slots))),
            },
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self {
            Part::Values(name, slots) => visitor.visit_seq(SeqDeserializer::new(values(name, slots))),
            Part::Text(..) | Part::Number(_) | Part::Flag(_) | Part::Slots(_) => self.deserialize_any(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_borrowed_str(self.text()?.1)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        StrDeserializer::new(self.text()?.1).deserialize_enum(name, variants, visitor)
    }

    parsed! {
        deserialize_bool visit_bool bool, "true or false";
        deserialize_i8 visit_i8 i8, "whole number of that size";
        deserialize_i16 visit_i16 i16, "whole number of that size";
        deserialize_i32 visit_i32 i32, "whole number of that size";
        deserialize_i64 visit_i64 i64, "whole number of that size";
        deserialize_u8 visit_u8 u8, "whole number of that size";
        deserialize_u16 visit_u16 u16, "whole number of that size";
        deserialize_u32 visit_u32 u32, "whole number of that size";
        deserialize_u64 visit_u64 u64, "whole number of that size";
        deserialize_f32 visit_f32 f32, "number";
        deserialize_f64 visit_f64 f64, "number";
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    fn extraction(intent: &str, slots: &[(&str, &str)]) -> Extraction {
        let slot = |(name, value): &(&str, &str)| Slot { name: (*name).into(), value: (*value).into(), range: 0..0 };
        Extraction {
            intent: intent.into(),
            confidence: 0.5,
            out_of_scope: false,
            slots: slots.iter().map(slot).collect(),
            cut: false,
        }
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Room {
        Kitchen,
        Hall,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Name(String);

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(tag = "intent", content = "slots")]
    enum Command {
        Light { room: Option<Room>, percent: Option<u8>, lamps: Option<Vec<Name>> },
        Wait { minutes: f32 },
        Stop {},
    }

    #[test]
    fn intents_are_variants_and_slots_what_their_fields_are() {
        let lamp = |n: &str| Name(n.into());
        let found = extraction("Light", &[("lamps", "big"), ("room", "hall"), ("lamps", "red"), ("percent", "40")]);
        let command =
            Command::Light { room: Some(Room::Hall), percent: Some(40), lamps: Some(vec![lamp("big"), lamp("red")]) };
        assert_eq!(as_type::<Command>(&found).unwrap(), command);
        let one = as_type::<Command>(&extraction("Light", &[("lamps", "big"), ("unknown", "x")])).unwrap();
        assert_eq!(one, Command::Light { room: None, percent: None, lamps: Some(vec![lamp("big")]) });
        assert_eq!(
            as_type::<Command>(&extraction("Wait", &[("minutes", "2.5")])).unwrap(),
            Command::Wait { minutes: 2.5 }
        );
        assert_eq!(as_type::<Command>(&extraction("Stop", &[])).unwrap(), Command::Stop {});
    }

    #[test]
    fn structs_and_maps_take_what_they_want() {
        #[derive(Deserialize)]
        struct All {
            intent: String,
            confidence: f64,
            slots: BTreeMap<String, Vec<String>>,
        }
        let found = extraction("i", &[("a", "1"), ("b", "2"), ("a", "3")]);
        let all: All = as_type(&found).unwrap();
        assert_eq!((all.intent.as_str(), all.confidence), ("i", 0.5));
        assert_eq!(
            all.slots,
            BTreeMap::from([("a".into(), vec!["1".into(), "3".into()]), ("b".into(), vec!["2".into()])])
        );
        #[derive(Deserialize)]
        struct Flat {
            slots: BTreeMap<String, String>,
        }
        let flat: Flat = as_type(&extraction("i", &[("a", "1")])).unwrap();
        assert_eq!(flat.slots["a"], "1");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let reason = |intent: &str, slots: &[(&str, &str)]| {
            as_type::<Command>(&extraction(intent, slots)).unwrap_err().to_string()
        };
        for (error, word) in [
            (reason("Go", &[]), "Go"),
            (reason("Wait", &[]), "minutes"),
            (reason("Wait", &[("minutes", "two")]), "two"),
            (reason("Light", &[("room", "hall"), ("room", "kitchen")]), "Vec"),
            (reason("Light", &[("room", "cellar")]), "cellar"),
            (reason("Light", &[("percent", "400")]), "percent"),
        ] {
            assert!(error.contains(word), "{error}");
        }
    }
}
