//! A schema prepared for the engine: references resolved according to RFC 3986 and 6901, objects closed, formats that
//! are only remarks left out; and probable mistakes, named.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::error::short;
use super::{ConstraintError, close::close};

/// A schema that the engine accepts, and notes for its author about the changes.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) schema: Value,
    pub(super) notes: Vec<String>,
}

/// Formats that the engine writes; all others are remarks, as JSON Schema lets them be.
const FORMATS: &[&str] =
    &["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "unknown"];
/// Keywords that identify a schema.
const KEYWORDS: &[&str] = &[
    "$ref",
    "type",
    "properties",
    "items",
    "prefixItems",
    "anyOf",
    "oneOf",
    "allOf",
    "enum",
    "const",
    "pattern",
    "format",
    "required",
    "additionalProperties",
    "patternProperties",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
];
/// Keys whose value is a schema, a list of schemas, or a map of schemas.
const ONE: &[&str] = &["items", "additionalItems", "additionalProperties"];
const LIST: &[&str] = &["allOf", "anyOf", "oneOf", "prefixItems", "items"];
const MAP: &[&str] = &["properties", "patternProperties", "$defs", "definitions"];

/// The schemas directly within a schema, each with the keys that lead to it.
pub(super) fn within(schema: &Map<String, Value>) -> impl Iterator<Item = (&str, Option<String>, &Value)> {
    let one = ONE.iter().filter_map(|key| Some((*key, None, schema.get(*key).filter(|v| !v.is_array())?)));
    let list = LIST.iter().flat_map(|key| {
        let all = schema.get(*key).and_then(Value::as_array).into_iter().flatten();
        all.enumerate().map(|(i, v)| (*key, Some(i.to_string()), v))
    });
    let map = MAP.iter().flat_map(|key| {
        let all = schema.get(*key).and_then(Value::as_object).into_iter().flatten();
        all.map(|(name, v)| (*key, Some(name.clone()), v))
    });
    one.chain(list).chain(map)
}

/// Prepares `schema`. Recurses as deeply as the schema, so it needs a stack for that.
pub(super) fn ready(mut schema: Value) -> Result<Ready, ConstraintError> {
    is_no_wrapper(&schema)?;
    let mut notes = Vec::new();
    let mut references = References::new(&schema);
    references.resolve(&mut schema)?;
    formats(&mut schema, &mut notes);
    references.add_copies(&mut schema);
    no_loops(&schema)?;
    close(&mut schema);
    Ok(Ready { schema, notes })
}

/// Checks that the schema is not wrapped in an object for another interface.
fn is_no_wrapper(schema: &Value) -> Result<(), ConstraintError> {
    let Some(object) = schema.as_object() else { return Ok(()) };
    let is_schema = object.keys().any(|k| KEYWORDS.contains(&k.as_str()));
    for key in ["schema", "json_schema"] {
        if !is_schema && object.get(key).is_some_and(Value::is_object) {
            return Err(ConstraintError::grammar(format!(
                "this is not a JSON Schema but a wrapper around one, as OpenAI's `response_format` has it; give what stands under its key \
                 `{key}`"
            )));
        }
    }
    Ok(())
}

/// Calls `f` for each schema, innermost first.
fn for_each(schema: &mut Value, f: &mut impl FnMut(&mut Map<String, Value>)) {
    // By reference, because otherwise the recursion would make a new type at each level.
    fn go(schema: &mut Value, f: &mut dyn FnMut(&mut Map<String, Value>)) {
        let Some(object) = schema.as_object_mut() else { return };
        for_each_within(object, &mut |inner| go(inner, f));
        f(object);
    }
    go(schema, f);
}

/// Calls `f` for the schemas directly within one.
pub(super) fn for_each_within(object: &mut Map<String, Value>, f: &mut dyn FnMut(&mut Value)) {
    for key in ONE {
        object.get_mut(*key).filter(|v| v.is_object()).into_iter().for_each(&mut *f);
    }
    for key in LIST {
        object.get_mut(*key).and_then(Value::as_array_mut).into_iter().flatten().for_each(&mut *f);
    }
    for key in MAP {
        let all = object.get_mut(*key).and_then(Value::as_object_mut).into_iter().flatten();
        all.for_each(|(_, inner)| f(inner));
    }
}

/// An unknown format is only an annotation of the value.
fn formats(schema: &mut Value, notes: &mut Vec<String>) {
    let mut unknown = Vec::new();
    for_each(schema, &mut |object| {
        let Some(format) = object.get("format").and_then(Value::as_str) else { return };
        if !FORMATS.contains(&format) {
            if !unknown.iter().any(|u| u == format) {
                unknown.push(format.to_owned());
            }
            object.shift_remove("format");
        }
    });
    for format in unknown {
        notes.push(format!("the format {:?} is unknown and was ignored: any string is accepted", short(&format)));
    }
}

/// The references of a schema. The engine accepts `#/a/b` with the literal keys; other forms are rewritten to this one.
struct References {
    root: Value,
    /// Names of `$anchor`s, with their paths.
    anchors: HashMap<String, Vec<String>>,
    /// Schemas that cannot be named like this (keys with a slash) are copied to `$defs`.
    copies: Vec<(String, Value)>,
    names: HashMap<Vec<String>, String>,
}

impl References {
    fn new(schema: &Value) -> Self {
        let mut anchors = HashMap::new();
        collect_anchors(schema, &mut Vec::new(), &mut anchors);
        Self { root: schema.clone(), anchors, copies: Vec::new(), names: HashMap::new() }
    }

    fn resolve(&mut self, schema: &mut Value) -> Result<(), ConstraintError> {
        let mut failure = None;
        for_each(schema, &mut |object| {
            let Some(reference) = object.get("$ref").and_then(Value::as_str) else { return };
            match self.plain(reference) {
                Ok(plain) if plain == reference => {}
                Ok(plain) => drop(object.insert("$ref".into(), plain.into())),
                Err(e) => {
                    failure.get_or_insert(e);
                }
            }
        });
        failure.map_or(Ok(()), Err)
    }

    /// `reference` as the engine finds it.
    fn plain(&mut self, reference: &str) -> Result<String, ConstraintError> {
        let name = short(reference);
        let id = self.root.get("$id").and_then(Value::as_str).map(|id| id.trim_end_matches('#'));
        let fragment = match reference.split_once('#') {
            Some(("", fragment)) => fragment,
            Some((base, fragment)) if Some(base) == id => fragment,
            None if Some(reference) == id => "",
            _ => {
                return Err(ConstraintError::grammar(format!(
                    "the reference {name:?} points outside of the schema; only references within it (`#/$defs/...`) can be followed"
                )));
            }
        };
        let fragment = percent_decoded(fragment)
            .ok_or_else(|| ConstraintError::grammar(format!("the reference {name:?} is wrongly percent-encoded")))?;
        let keys = if fragment.is_empty() || fragment == "/" {
            Vec::new()
        } else if let Some(pointer) = fragment.strip_prefix('/') {
            pointer.split('/').map(|key| key.replace("~1", "/").replace("~0", "~")).collect()
        } else {
            self.anchors.get(&fragment).cloned().ok_or_else(|| {
                ConstraintError::grammar(format!("the reference {name:?} names an anchor that is not in the schema"))
            })?
        };
        let target = find(&self.root, &keys)
            .ok_or_else(|| ConstraintError::grammar(format!("the reference {name:?} does not exist in the schema")))?;
        if keys.is_empty() {
            return Ok("#".into());
        }
        if keys.iter().all(|key| !key.contains('/')) {
            return Ok(format!("#/{}", keys.join("/")));
        }
        if let Some(copy) = self.names.get(&keys) {
            return Ok(format!("#/$defs/{copy}"));
        }
        let target = target.clone();
        let taken = |name: &str| self.root.get("$defs").is_some_and(|d| d.get(name).is_some());
        let copy = (self.copies.len()..).map(|i| format!("copy-{i}")).find(|n| !taken(n)).unwrap_or_default();
        self.copies.push((copy.clone(), target));
        self.names.insert(keys, copy.clone());
        // The contents of the copy are rewritten, too.
        let at = self.copies.len() - 1;
        let mut value = std::mem::take(&mut self.copies[at].1);
        let resolved = self.resolve(&mut value);
        self.copies[at].1 = value;
        resolved.map(|()| format!("#/$defs/{copy}"))
    }

    fn add_copies(self, schema: &mut Value) {
        let (false, Some(object)) = (self.copies.is_empty(), schema.as_object_mut()) else { return };
        let defs = object.entry("$defs").or_insert_with(|| Map::new().into());
        if let Some(defs) = defs.as_object_mut() {
            for (name, mut value) in self.copies {
                formats(&mut value, &mut Vec::new());
                defs.insert(name, value);
            }
        }
    }
}

fn collect_anchors(schema: &Value, at: &mut Vec<String>, anchors: &mut HashMap<String, Vec<String>>) {
    let Some(object) = schema.as_object() else { return };
    if let Some(anchor) = object.get("$anchor").and_then(Value::as_str) {
        anchors.entry(anchor.to_owned()).or_insert_with(|| at.clone());
    }
    for (key, inner, value) in within(object) {
        let depth = at.len();
        at.push(key.to_owned());
        at.extend(inner);
        collect_anchors(value, at, anchors);
        at.truncate(depth);
    }
}

/// The value at `keys`.
fn find<'a>(root: &'a Value, keys: &[String]) -> Option<&'a Value> {
    keys.iter().try_fold(root, |value, key| match value {
        Value::Object(object) => object.get(key),
        Value::Array(all) => all.get(key.parse::<usize>().ok()?),
        _ => None,
    })
}

/// The schema that a reference of [`ready`] schemas names.
pub(super) fn target<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    let pointer = reference.strip_prefix('#')?;
    let keys: Vec<String> = pointer.split('/').skip(1).map(str::to_owned).collect();
    if pointer.is_empty() || pointer == "/" { Some(root) } else { find(root, &keys) }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        if b == b'%' {
            let hex = std::str::from_utf8(rest.get(..2)?).ok().filter(|h| !h.starts_with('+'))?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(b);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Rejects references that lead to themselves without describing anything.
pub(super) fn no_loops(root: &Value) -> Result<(), ConstraintError> {
    let mut done: HashSet<String> = HashSet::new();
    let mut starts = vec!["#".to_owned()];
    all_references(root, &mut starts);
    for start in starts {
        // The path from the start, and for each of its elements the references that remain to be followed.
        let mut path: Vec<(String, Vec<String>)> = Vec::new();
        let mut on_path: HashSet<String> = HashSet::new();
        let mut next = Some(start);
        loop {
            if let Some(reference) = next.take() {
                if on_path.contains(&reference) {
                    let from = path.iter().position(|(r, _)| *r == reference).unwrap_or(0);
                    let names = path[from..].iter().map(|(r, _)| r).chain([&reference]);
                    let names: Vec<String> = names.take(6).map(|r| short(r)).collect();
                    return Err(ConstraintError::grammar(format!(
                        "references of the schema form a cycle without any other keyword: {}",
                        names.join(" -> ")
                    )));
                }
                if !done.contains(&reference) {
                    let mut names = Vec::new();
                    if let Some(value) = target(root, &reference) {
                        in_place(value, &mut names);
                    }
                    on_path.insert(reference.clone());
                    path.push((reference, names));
                }
            }
            let Some((_, names)) = path.last_mut() else { break };
            next = names.pop();
            if next.is_none()
                && let Some((reference, _)) = path.pop()
            {
                on_path.remove(&reference);
                done.insert(reference);
            }
        }
    }
    Ok(())
}

/// The references that describe a value itself, not its contents.
fn in_place(schema: &Value, names: &mut Vec<String>) {
    let Some(object) = schema.as_object() else { return };
    names.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
    object.get("allOf").and_then(Value::as_array).into_iter().flatten().for_each(|inner| in_place(inner, names));
}

/// All references of a schema, in the order of their places.
pub(super) fn all_references(schema: &Value, names: &mut Vec<String>) {
    let Some(object) = schema.as_object() else { return };
    names.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
    within(object).for_each(|(_, _, inner)| all_references(inner, names));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(schema: Value) -> String {
        ready(schema).unwrap_err().to_string()
    }

    #[test]
    fn references_are_resolved_as_the_standards_say() {
        let schema = json!({
            "$id": "https://example.com/x",
            "$defs": {"Pair<int>": {"type": "boolean"}, "a/b": {"$ref": "#/$defs/c~0d"}, "c~d": {"type": "null"}, "e": {"$anchor": "here", "type": "string"}},
            "properties": {
                "a": {"$ref": "#/$defs/Pair%3Cint%3E"}, "b": {"$ref": "#/$defs/a~1b"}, "c": {"$ref": "#/$defs/c~0d"},
                "d": {"$ref": "#here"}, "e": {"$ref": "https://example.com/x#/$defs/e"}, "f": {"$ref": "#/$defs/a~1b"},
                "g": {"$ref": "#"}
            }
        });
        let ready = ready(schema).unwrap().schema;
        let at = |name: &str| ready["properties"][name]["$ref"].as_str().unwrap().to_owned();
        assert_eq!((at("a").as_str(), at("c").as_str()), ("#/$defs/Pair<int>", "#/$defs/c~d"));
        assert_eq!((at("d").as_str(), at("e").as_str(), at("g").as_str()), ("#/$defs/e", "#/$defs/e", "#"));
        assert_eq!((at("b"), at("f")), ("#/$defs/copy-0".into(), "#/$defs/copy-0".into()));
        assert_eq!(ready["$defs"]["copy-0"]["$ref"], "#/$defs/c~d");
        for (reference, word) in [
            ("#/$defs/nothing", "does not exist"),
            ("other.json#/x", "points outside"),
            ("#nowhere", "anchor"),
            ("#/%zz", "percent"),
        ] {
            assert!(refused(json!({"$ref": reference})).contains(word), "{reference}");
        }
    }

    #[test]
    fn loops_without_content_are_named_and_others_are_recursion() {
        let error =
            refused(json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}));
        assert!(error.contains("#/$defs/a -> #/$defs/b -> #/$defs/a"), "{error}");
        assert!(refused(json!({"$ref": "#"})).contains("cycle"));
        assert!(refused(json!({"allOf": [{"$ref": "#"}, {"type": "string"}]})).contains("cycle"));
        assert!(ready(json!({"type": "object", "properties": {"next": {"$ref": "#"}}})).is_ok());
        assert!(ready(json!({"anyOf": [{"type": "null"}, {"items": {"$ref": "#"}}]})).is_ok());
        let names: serde_json::Map<String, Value> =
            (0..5000).map(|i| (format!("a{i}"), json!({"$ref": format!("#/$defs/a{}", i + 1)}))).collect();
        let mut chain = json!({"$ref": "#/$defs/a0", "$defs": names});
        chain["$defs"]["a5000"] = json!({"type": "null"});
        assert!(ready(chain).is_ok());
    }

    #[test]
    fn wrappers_are_named_and_unknown_formats_are_remarks() {
        assert!(refused(json!({"name": "x", "strict": true, "schema": {"type": "boolean"}})).contains("wrapper"));
        assert!(refused(json!({"type_": 1, "json_schema": {"schema": {}}})).contains("wrapper"));
        assert!(ready(json!({"type": "object", "properties": {"schema": {"type": "object"}}})).is_ok());
        let made = ready(json!({"properties": {
            "a": {"type": "string", "format": "path"}, "b": {"type": "string", "format": "date"},
            "format": {"const": {"format": "path"}}
        }}))
        .unwrap();
        assert_eq!(made.schema["properties"]["a"], json!({"type": "string"}));
        assert_eq!(made.schema["properties"]["b"]["format"], "date");
        assert_eq!(made.schema["properties"]["format"]["const"], json!({"format": "path"}));
        assert!(made.notes.len() == 1 && made.notes[0].contains("path"), "{:?}", made.notes);
    }
}
