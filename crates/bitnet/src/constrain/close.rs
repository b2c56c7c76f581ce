//! Objects only have the properties that their schema names, unless it allows others.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::schema::{target, within};

/// Adds `additionalProperties: false` to each object with `properties` and without it, since a model would otherwise
/// keep inventing properties. If several parts of a schema name properties of one object (`allOf`, `$ref` with
/// `properties`, ...), each would exclude those of the others, so these stay open.
pub(super) fn close(root: &mut Value) {
    let mut parts = Parts { root, named: HashMap::new(), open: HashSet::new() };
    parts.visit(root);
    let open = parts.open;
    close_but(root, &open);
}

struct Parts<'a> {
    root: &'a Value,
    /// Whether a schema names properties, itself or in its parts; `None` while that is being determined.
    named: HashMap<usize, Option<bool>>,
    open: HashSet<usize>,
}

/// The identity of a schema. Schemas do not move while it is used.
fn id(schema: &Map<String, Value>) -> usize {
    std::ptr::from_ref(schema) as usize
}

impl<'a> Parts<'a> {
    fn visit(&mut self, schema: &'a Value) {
        let Some(object) = schema.as_object() else { return };
        if self.naming(object) > 1 {
            self.leave_open(schema);
        }
        within(object).for_each(|(_, _, inner)| self.visit(inner));
    }

    /// How many parts name properties of one object; alternatives count as one part.
    fn naming(&mut self, object: &'a Map<String, Value>) -> usize {
        let list = |key: &str| object.get(key).and_then(Value::as_array).into_iter().flatten();
        let reference = object.get("$ref").and_then(Value::as_str).and_then(|r| target(self.root, r));
        let all = list("allOf").chain(reference).filter(|part| self.names(part)).count();
        let alternatives = ["anyOf", "oneOf"].into_iter().filter(|key| list(key).any(|part| self.names(part))).count();
        usize::from(object.contains_key("properties")) + all + alternatives
    }

    /// Schemas that constrain the same value.
    fn in_place(&self, object: &'a Map<String, Value>) -> Vec<&'a Value> {
        let lists = ["allOf", "anyOf", "oneOf"].iter().filter_map(|key| object.get(*key)?.as_array());
        let reference = object.get("$ref").and_then(Value::as_str).and_then(|r| target(self.root, r));
        lists.flatten().chain(reference).collect()
    }

    fn names(&mut self, schema: &'a Value) -> bool {
        let Some(object) = schema.as_object() else { return false };
        if let Some(known) = self.named.get(&id(object)) {
            return known.unwrap_or(false);
        }
        self.named.insert(id(object), None);
        let named = object.contains_key("properties") || self.in_place(object).into_iter().any(|part| self.names(part));
        self.named.insert(id(object), Some(named));
        named
    }

    fn leave_open(&mut self, schema: &'a Value) {
        let Some(object) = schema.as_object() else { return };
        if self.open.insert(id(object)) {
            self.in_place(object).into_iter().for_each(|part| self.leave_open(part));
        }
    }
}

/// Innermost first: adding a field to an object moves its contents, which have been visited by then.
fn close_but(schema: &mut Value, open: &HashSet<usize>) {
    let Some(object) = schema.as_object_mut() else { return };
    let stays_open = open.contains(&id(object));
    super::schema::for_each_within(object, &mut |inner| close_but(inner, open));
    if !stays_open && object.get("properties").is_some_and(Value::is_object) {
        object.entry("additionalProperties").or_insert(false.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn closed(mut schema: Value) -> Value {
        close(&mut schema);
        schema
    }

    #[test]
    fn objects_are_closed_unless_they_say_or_are_made_of_parts() {
        let object = |name: &str| json!({"type": "object", "properties": {name: {"type": "null"}}});
        let shut = |name: &str| {
            let mut object = object(name);
            object["additionalProperties"] = false.into();
            object
        };
        assert_eq!(closed(object("a")), shut("a"));
        for kept in [
            json!({"properties": {"a": true}, "additionalProperties": true}),
            json!({"type": "object"}),
            json!({"const": {"properties": {}}}),
            json!({"allOf": [object("a"), object("b")]}),
            json!({"properties": {"a": true}, "$ref": "#/$defs/b", "$defs": {"b": object("b")}}),
            json!({"properties": {"a": true}, "oneOf": [object("b"), object("c")]}),
        ] {
            assert_eq!(closed(kept.clone()), kept);
        }
        // Alternatives exclude each other, and a single part is the whole.
        assert_eq!(closed(json!({"anyOf": [object("a"), object("b")]})), json!({"anyOf": [shut("a"), shut("b")]}));
        assert_eq!(closed(json!({"allOf": [object("a")], "title": "x"}))["allOf"][0], shut("a"));
        assert_eq!(
            closed(json!({"properties": {"a": true}, "anyOf": [{"required": ["a"]}, {"required": []}]}))["additionalProperties"],
            false
        );
        // Within an open object the others are closed.
        let mut nested = json!({"allOf": [object("a"), object("b")]});
        nested["allOf"][0]["properties"]["a"] = object("c");
        assert_eq!(closed(nested)["allOf"][0]["properties"]["a"], shut("c"));
        // Properties may be called as keywords are.
        let named =
            closed(json!({"properties": {"properties": {"type": "string"}, "additionalProperties": object("x")}}));
        assert_eq!(named["properties"]["properties"], json!({"type": "string"}));
        assert_eq!(named["properties"]["additionalProperties"], shut("x"));
    }
}
