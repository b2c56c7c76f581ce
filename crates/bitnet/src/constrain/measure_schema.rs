//! A schema that is ready, before the engine merges its parts: how deep and how large that would get.

use std::collections::HashMap;

use llguidance::regex_to_lark;
use serde_json::{Map, Value};

use super::error::short;
use super::graph::{Node, deepest};
use super::limits::{ConstraintLimits, within};
use super::measure_regex::Patterns;
use super::schema::{target, within as schemas_within};
use super::shape::Shape;
use super::{ConstraintError, numbers};

/// Rejects schemas that are too deep, too large or too expensive. Recurses as deeply as the limits allow for a schema.
pub(super) fn measure(root: &Value, limits: &ConstraintLimits) -> Result<(), ConstraintError> {
    depth(root, limits)?;
    let mut meter = Meter {
        root,
        limits,
        patterns: Patterns::new(limits),
        known: HashMap::new(),
        merged: 0,
        largest: 0,
        merges_properties: false,
        numbers: numbers::Multiples::default(),
    };
    if let Some(guidance) = root.get("x-guidance") {
        for key in ["item_separator", "key_separator", "whitespace_pattern"] {
            if let Some(pattern) = guidance.get(key).and_then(Value::as_str) {
                meter.patterns.measure(pattern)?;
            }
        }
    }
    let all = meter.size(root, false)?;
    within(all.patterns, limits.patterns, "patterns", || {
        format!("the schema has {} patterns and formats", all.patterns)
    })?;
    if meter.merged > 0 {
        meter.numbers.check_joined()?;
    }
    if meter.merges_properties {
        // Merging properties follows all references and copies their targets.
        let largest = meter.largest;
        within(largest, limits.merged / 1000, "merged", || {
            format!(
                "the schema merges properties of several parts, and a definition has {largest} schemas that might be copied each time (a \
                 thousandth of the limit may be)"
            )
        })?;
    }
    Ok(())
}

/// The depth to which the engine would follow the schema and its references.
fn depth(root: &Value, limits: &ConstraintLimits) -> Result<(), ConstraintError> {
    let mut units: HashMap<&str, usize> = HashMap::from([("#", 0)]);
    let mut values = vec![Some(root)];
    let mut nodes: Vec<Node> = Vec::new();
    while nodes.len() < values.len() {
        let mut node = Node::default();
        if let Some(value) = values[nodes.len()] {
            let mut names = Vec::new();
            node.levels = local(value, 1, &mut names);
            for name in names {
                node.names.push(*units.entry(name).or_insert_with(|| {
                    values.push(target(root, name));
                    values.len() - 1
                }));
            }
        }
        nodes.push(node);
    }
    let found = deepest(&nodes);
    within(found, limits.depth as u64, "depth", || {
        format!("the schema has schemas within schemas, with all references {found} levels deep")
    })
}

/// The deepest level of a schema, and the references in it. What is only defined in it does not count.
fn local<'a>(schema: &'a Value, level: u64, names: &mut Vec<&'a str>) -> u64 {
    let Some(object) = schema.as_object() else { return level };
    names.extend(object.get("$ref").and_then(Value::as_str));
    let inner = schemas_within(object).filter(|(key, ..)| !matches!(*key, "$defs" | "definitions"));
    let schemas = inner.map(|(_, _, inner)| local(inner, level + 1, names)).max().unwrap_or(level);
    let values = ["const", "enum"].iter().filter_map(|key| object.get(*key)).map(|v| level + levels(v)).max();
    schemas.max(values.unwrap_or(level))
}

/// Levels of a plain value.
fn levels(value: &Value) -> u64 {
    1 + match value {
        Value::Array(all) => all.iter().map(levels).max().unwrap_or(0),
        Value::Object(all) => all.values().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}

/// Size of the copies that merging makes.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Schemas, with what is merged into them.
    schemas: u64,
    /// Alternatives for one value.
    options: u64,
    patterns: u64,
    /// Properties of an object.
    properties: u64,
    /// Whether how many there may be is bounded.
    bounded: bool,
    /// Constraint of a string, and the widest constraint of strings within.
    string: Option<Shape>,
    inner: Option<Shape>,
}

impl Size {
    const ONE: Self =
        Self { schemas: 1, options: 1, patterns: 0, properties: 0, bounded: false, string: None, inner: None };
}

struct Meter<'a> {
    root: &'a Value,
    limits: &'a ConstraintLimits,
    patterns: Patterns<'a>,
    /// Known sizes, with references followed or not; `None` while one is being determined.
    known: HashMap<(usize, bool), Option<Size>>,
    merged: u64,
    /// The largest schema that a reference leads to.
    largest: u64,
    /// Whether parts that name properties are merged.
    merges_properties: bool,
    numbers: numbers::Multiples,
}

const REMARKS: &[&str] = &[
    "$anchor",
    "$defs",
    "definitions",
    "$schema",
    "$id",
    "id",
    "$comment",
    "title",
    "description",
    "default",
    "readOnly",
    "writeOnly",
    "examples",
    "contentMediaType",
    "contentEncoding",
    "x-guidance",
    "deprecated",
];
const APPLICATORS: &[&str] = &["const", "enum", "allOf", "anyOf", "oneOf", "$ref"];

impl<'a> Meter<'a> {
    /// The size of `schema`; with `follow` as it is when it is merged with something, and references in place are
    /// followed.
    fn size(&mut self, schema: &'a Value, follow: bool) -> Result<Size, ConstraintError> {
        let Some(object) = schema.as_object() else { return Ok(Size::ONE) };
        let key = (std::ptr::from_ref(object) as usize, follow);
        if let Some(known) = self.known.get(&key) {
            // A recursion is a reference, or rejected by the engine.
            return Ok(known.unwrap_or(Size::ONE));
        }
        self.known.insert(key, None);
        let size = self.measured(object, follow)?;
        self.known.insert(key, Some(size));
        Ok(size)
    }

    fn measured(&mut self, object: &'a Map<String, Value>, follow: bool) -> Result<Size, ConstraintError> {
        let keys = || object.keys().map(String::as_str);
        let own = keys().any(|k| !REMARKS.contains(&k) && !APPLICATORS.contains(&k));
        let list = |key: &str| object.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let count = usize::from(own)
            + keys().filter(|k| matches!(*k, "const" | "enum" | "anyOf" | "oneOf" | "$ref")).count()
            + list("allOf").len();
        let follow = follow || count > 1;
        let mut parts = Vec::new();
        if own {
            parts.push(self.own(object)?);
        }
        if let Some(value) = object.get("const") {
            parts.push(Size { schemas: self.plain(value)?, ..Size::ONE });
        }
        if object.contains_key("enum") {
            let all = list("enum");
            let mut schemas = 0u64;
            for value in all {
                schemas += self.plain(value)?;
            }
            parts.push(Size { schemas, options: all.len() as u64, ..Size::ONE });
        }
        for part in list("allOf") {
            parts.push(self.size(part, follow)?);
        }
        for key in ["anyOf", "oneOf"] {
            if object.contains_key(key) {
                let part = self.alternatives(list(key), follow, key == "oneOf")?;
                parts.push(part);
            }
        }
        if let Some(name) = object.get("$ref").and_then(Value::as_str) {
            parts.push(self.reference(name, follow)?);
        }
        let size = self.merge(&parts)?;
        if size.bounded {
            let limit = 4 * self.limits.symbols as u64;
            within(size.properties.saturating_mul(size.properties), limit, "symbols", || {
                format!(
                    "an object of {} properties has minProperties or maxProperties, which takes the square of that in symbols (four times \
                     the limit may be)",
                    size.properties
                )
            })?;
        }
        Ok(size)
    }

    fn reference(&mut self, name: &'a str, follow: bool) -> Result<Size, ConstraintError> {
        let Some(target) = target(self.root, name) else { return Ok(Size::ONE) };
        let plain = self.size(target, false)?;
        self.largest = self.largest.max(plain.schemas);
        if follow { self.size(target, true) } else { Ok(Size { patterns: 0, ..Size::ONE }) }
    }

    fn alternatives(&mut self, all: &'a [Value], follow: bool, exclusive: bool) -> Result<Size, ConstraintError> {
        let mut sum = Size { schemas: 0, options: 0, ..Size::ONE };
        let mut compared = 0u64;
        for one in all {
            let one = self.size(one, follow)?;
            compared = compared.saturating_add(one.options.saturating_mul(1 + one.properties));
            sum = Size {
                schemas: sum.schemas.saturating_add(one.schemas),
                options: sum.options.saturating_add(one.options),
                patterns: sum.patterns.saturating_add(one.patterns),
                properties: sum.properties.max(one.properties),
                bounded: sum.bounded || one.bounded,
                string: wider(sum.string, one.string),
                inner: wider(sum.inner, one.inner),
            };
        }
        if exclusive {
            // Each is compared with each.
            self.pay(compared.saturating_mul(compared) / 64)?;
        }
        Ok(sum)
    }

    /// Schemas that are merged into one: each part is copied for each choice among the others.
    fn merge(&mut self, parts: &[Size]) -> Result<Size, ConstraintError> {
        let [first, rest @ ..] = parts else { return Ok(Size::ONE) };
        if rest.is_empty() {
            return Ok(*first);
        }
        let options = parts.iter().fold(1u64, |n, p| n.saturating_mul(p.options.max(1)));
        let copied = |p: &Size| p.schemas.saturating_mul(options / p.options.max(1));
        let schemas = parts.iter().map(copied).fold(0, u64::saturating_add);
        self.pay(schemas)?;
        self.merges_properties |= parts.iter().filter(|p| p.properties > 0).count() > 1;
        let limits = self.limits;
        let and = |of: fn(&Size) -> Option<Shape>| {
            let all: Vec<Shape> = parts.iter().filter_map(of).collect();
            if all.is_empty() {
                Ok(None)
            } else {
                Shape::and(all.into_iter(), limits, || "merged schemas".into()).map(Some)
            }
        };
        Ok(Size {
            schemas,
            options,
            patterns: parts.iter().map(|p| p.patterns).fold(0, u64::saturating_add),
            properties: parts.iter().map(|p| p.properties).fold(0, u64::saturating_add),
            bounded: parts.iter().any(|p| p.bounded),
            string: and(|p| p.string)?,
            inner: and(|p| p.inner)?,
        })
    }

    fn pay(&mut self, schemas: u64) -> Result<(), ConstraintError> {
        self.merged = self.merged.saturating_add(schemas);
        within(self.merged, self.limits.merged, "merged", || {
            "merging the parts of the schema (`allOf`, `anyOf`, `oneOf`, `enum`, references with keywords beside them) copies too many \
             schemas"
                .into()
        })
    }

    /// A schema without those that it refers to.
    fn own(&mut self, object: &'a Map<String, Value>) -> Result<Size, ConstraintError> {
        let mut size = Size::ONE;
        size.options = match object.get("type") {
            Some(Value::Array(all)) => all.len() as u64,
            Some(_) => 1,
            None => 6,
        };
        for (key, name, inner) in schemas_within(object) {
            if matches!(key, "$defs" | "definitions" | "allOf" | "anyOf" | "oneOf") {
                continue;
            }
            if let Some(name) = &name
                && key == "properties"
            {
                Shape::text(name.len()).check(self.limits, "the name of a property")?;
                size.properties += 1;
            }
            if let Some(name) = &name
                && key == "patternProperties"
            {
                self.pattern(name)?;
                size.properties += 1;
            }
            let inner = self.size(inner, false)?;
            size.schemas = size.schemas.saturating_add(inner.schemas);
            size.patterns = size.patterns.saturating_add(inner.patterns);
            size.inner = wider(wider(size.inner, inner.inner), inner.string);
        }
        size.properties += object.get("required").and_then(Value::as_array).map_or(0, Vec::len) as u64;
        let patterns = object.get("patternProperties").and_then(Value::as_object).map_or(0, Map::len) as u64;
        // Each two of them are checked for excluding each other.
        size.patterns = size.patterns.saturating_add(patterns.saturating_mul(patterns + 1) / 2);
        size.bounded = object.contains_key("minProperties") || object.contains_key("maxProperties");
        self.string(object, &mut size)?;
        self.numbers.add(object)?;
        Ok(size)
    }

    fn string(&mut self, object: &'a Map<String, Value>, size: &mut Size) -> Result<(), ConstraintError> {
        let mut all = Vec::new();
        if let Some(pattern) = object.get("pattern").and_then(Value::as_str) {
            all.push(self.pattern(pattern)?);
        }
        if object.contains_key("format") {
            // The longest of the engine's own, for a URI, has about so many places.
            all.push(Shape::concat(std::iter::repeat_n(Shape::class(), 150)).repeat(0, None));
        }
        size.patterns = size.patterns.saturating_add(all.len() as u64);
        let length = |key: &str| -> Result<Option<u64>, ConstraintError> {
            let value = object.get(key).and_then(Value::as_u64);
            if value.is_some_and(|n| n > u64::from(u32::MAX)) {
                return Err(ConstraintError::grammar(format!("{key} is beyond what can be counted ({})", u32::MAX)));
            }
            Ok(value)
        };
        let (least, most) = (length("minLength")?.unwrap_or(0), length("maxLength")?);
        if least > 0 || most.is_some() {
            let length = Shape::class().repeat(least, most);
            length.check(self.limits, "a string with its minLength")?;
            if !all.is_empty() {
                all.push(length);
            }
        }
        if !all.is_empty() {
            size.string = Some(Shape::and(all.into_iter(), self.limits, || "a string".into())?);
        }
        Ok(())
    }

    /// A pattern of a schema, in which `\d` and `\w` mean ASCII.
    fn pattern(&mut self, pattern: &str) -> Result<Shape, ConstraintError> {
        self.patterns.measure(&regex_to_lark(pattern, "dw"))
    }

    /// The values of a plain value; no text of it may be too long.
    fn plain(&self, value: &Value) -> Result<u64, ConstraintError> {
        let mut sum = 1;
        match value {
            Value::String(text) => {
                Shape::text(text.len()).check(self.limits, &format!("the text {:?}", short(text)))?;
            }
            Value::Array(all) => {
                for one in all {
                    sum += self.plain(one)?;
                }
            }
            Value::Object(all) => {
                for (key, one) in all {
                    Shape::text(key.len()).check(self.limits, "the name of a property")?;
                    sum += self.plain(one)?;
                }
            }
            _ => {}
        }
        Ok(sum)
    }
}

/// The larger of two.
fn wider(a: Option<Shape>, b: Option<Shape>) -> Option<Shape> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.wider(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(schema: Value) -> &'static str {
        match measure(&schema, &ConstraintLimits::default()) {
            Err(ConstraintError::Limit { name, .. }) => name,
            Err(error) => panic!("{error}"),
            Ok(()) => "",
        }
    }

    fn object(n: usize) -> Value {
        let all: Map<String, Value> = (0..n).map(|i| (format!("p{i}"), json!({"type": "string"}))).collect();
        json!({"type": "object", "properties": all, "additionalProperties": false})
    }

    #[test]
    fn ordinary_schemas_pass() {
        let words: Vec<String> = (0..5000).map(|i| format!("word {i}")).collect();
        assert_eq!(refused(json!({"type": "string", "enum": words})), "");
        assert_eq!(refused(object(1000)), "");
        let variants: Vec<Value> = (0..100).map(|i| json!({"properties": {"kind": {"const": format!("k{i}")}, "x": {"type": "integer"}}, "required": ["kind"]})).collect();
        assert_eq!(refused(json!({"oneOf": variants})), "");
        let email = json!({"type": "string", "format": "email", "pattern": "^[a-z.]+@[a-z.]+$", "maxLength": 60});
        assert_eq!(refused(json!({"properties": {"a": email}})), "");
        let tree = json!({"$defs": {"t": {"type": "object", "properties": {"l": {"$ref": "#/$defs/t"}, "r": {"$ref": "#/$defs/t"}}}}, "$ref": "#/$defs/t"});
        assert_eq!(refused(tree), "");
    }

    #[test]
    fn copies_are_counted_before_they_are_made() {
        // Each level has the next twice, merged with something.
        let mut defs: Map<String, Value> = (0..40)
            .map(|i| {
                let next = json!({"type": "object", "$ref": format!("#/$defs/d{}", i + 1)});
                (format!("d{i}"), json!({"type": "object", "properties": {"a": next, "b": next}}))
            })
            .collect();
        defs.insert("d40".into(), json!({"type": "object"}));
        assert_eq!(refused(json!({"$defs": defs, "$ref": "#/$defs/d0"})), "merged");
        let values: Vec<Value> = (0..3000).map(Value::from).collect();
        let mut both = object(1000);
        both["enum"] = values.into();
        assert_eq!(refused(both), "merged");
        let choice = json!({"anyOf": [{"const": 1}, {"const": 2}, {"const": 3}, {"const": 4}]});
        assert_eq!(refused(json!({"allOf": vec![choice; 12]})), "merged");
        let mut bounded = object(300);
        bounded["minProperties"] = 1.into();
        assert_eq!(refused(bounded), "symbols");
        let patterns: Map<String, Value> = (0..40).map(|i| (format!("^p{i}"), json!({}))).collect();
        assert_eq!(refused(json!({"patternProperties": patterns})), "patterns");
        let all: Vec<Value> =
            (0..6).map(|i| json!({"properties": {"x": {"type": "string", "pattern": format!("a{i}")}}})).collect();
        assert_eq!(refused(json!({"allOf": all})), "intersections");
    }
}
