//! JSON Schemas: depth by references and keywords, size by values, cost by arithmetic.

use super::{Variant, either, grows, joined, nested, refused};

const DEEP: usize = 1 << 14;

/// A chain of definitions, each with the next in `link`.
fn chain(n: usize, link: fn(&str) -> String) -> String {
    let next = |i: usize| format!(r##"{{"$ref": "#/$defs/a{}"}}"##, i + 1);
    let links = joined(n, ", ", |i| format!(r#""a{i}": {}"#, link(&next(i))));
    format!(r##"{{"$ref": "#/$defs/a0", "$defs": {{{links}, "a{n}": {{"const": 1}}}}}}"##)
}

/// A schema nested in itself `n` times.
fn within(n: usize, before: &str, after: &str) -> String {
    nested(n, before, r#"{"const": 1}"#, after)
}

pub(super) const VARIANTS: &[Variant] = &[
    grows("ref-chain", DEEP, |n| chain(n, str::to_owned)),
    grows("object-chain", DEEP, |n| {
        chain(n, |next| {
            format!(
                r#"{{"type": "object", "properties": {{"p": {next}}}, "required": ["p"], "additionalProperties": false}}"#
            )
        })
    }),
    grows("array-chain", DEEP, |n| {
        chain(n, |next| format!(r#"{{"type": "array", "prefixItems": [{next}], "minItems": 1, "maxItems": 1}}"#))
    }),
    grows("all-of-chain", DEEP, |n| chain(n, |next| format!(r#"{{"allOf": [{next}]}}"#))),
    grows("any-of-chain", DEEP, |n| chain(n, |next| format!(r#"{{"anyOf": [{next}, {{"const": 2}}]}}"#))),
    grows("definitions-in-definitions", DEEP, |n| {
        let path = joined(n, "", |_| "/$defs/a".to_owned());
        format!(
            r##"{{"$ref": "#{path}", "$defs": {{"a": {}}}}}"##,
            nested(n, r#"{"$defs": {"a": "#, r#"{"const": 1}"#, "}}")
        )
    }),
    grows("nested-all-of", DEEP, |n| within(n, r#"{"allOf": ["#, "]}")),
    grows("nested-any-of", DEEP, |n| within(n, r#"{"anyOf": ["#, r#", {"const": 2}]}"#)),
    grows("nested-one-of", DEEP, |n| within(n, r#"{"oneOf": ["#, "]}")),
    grows("nested-items", DEEP, |n| within(n, r#"{"type": "array", "minItems": 1, "maxItems": 1, "items": "#, "}")),
    grows("nested-properties", DEEP, |n| {
        within(n, r#"{"type": "object", "additionalProperties": false, "required": ["p"], "properties": {"p": "#, "}}")
    }),
    grows("nested-const", DEEP, |n| format!(r#"{{"const": {}}}"#, nested(n, "[", "1", "]"))),
    grows("enum", 1 << 17, |n| format!(r#"{{"enum": [{}]}}"#, joined(n, ", ", |i| format!("\"value {i}\"")))),
    grows("const-keys", 1 << 16, |n| format!(r#"{{"const": {{{}}}}}"#, joined(n, ", ", |i| format!("\"k{i}\": {i}")))),
    grows("const-long", 1 << 22, |n| format!(r#"{{"const": "{}"}}"#, "x".repeat(n))),
    grows("properties", 1 << 15, |n| {
        let properties = joined(n, ", ", |i| format!(r#""p{i}": {{"type": "integer"}}"#));
        format!(r#"{{"type": "object", "additionalProperties": false, "properties": {{{properties}}}}}"#)
    }),
    grows("required", 1 << 15, |n| {
        let properties = joined(n, ", ", |i| format!(r#""p{i}": {{"type": "integer"}}"#));
        let required = joined(n, ", ", |i| format!("\"p{i}\""));
        format!(
            r#"{{"type": "object", "additionalProperties": false, "properties": {{{properties}}}, "required": [{required}]}}"#
        )
    }),
    either("required-without-properties", 1 << 15, |n| {
        format!(r#"{{"type": "object", "required": [{}]}}"#, joined(n, ", ", |i| format!("\"p{i}\"")))
    }),
    grows("any-of-many", 1 << 14, |n| {
        format!(r#"{{"anyOf": [{}]}}"#, joined(n, ", ", |i| format!(r#"{{"const": "v{i}"}}"#)))
    }),
    either("all-of-objects", 1 << 12, |n| {
        let parts = joined(n, ", ", |i| format!(r#"{{"properties": {{"p{i}": {{"type": "string"}}}}}}"#));
        format!(r#"{{"type": "object", "allOf": [{parts}]}}"#)
    }),
    either("any-of-products", 20, |n| {
        let pair =
            r#"{"anyOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {"type": "string"}}}]}"#;
        format!(r#"{{"type": "object", "allOf": [{}]}}"#, joined(n, ", ", |_| pair.to_owned()))
    }),
    either("max-items", 1 << 30, |n| {
        format!(r#"{{"type": "array", "items": {{"type": "integer"}}, "maxItems": {n}}}"#)
    }),
    either("min-items", 1 << 30, |n| format!(r#"{{"type": "array", "items": {{"const": 1}}, "minItems": {n}}}"#)),
    either("max-length", 1 << 30, |n| format!(r#"{{"type": "string", "maxLength": {n}}}"#)),
    either("min-length", 1 << 30, |n| format!(r#"{{"type": "string", "minLength": {n}}}"#)),
    either("max-length-products", 1 << 14, |n| {
        let text = format!(r#"{{"type": "string", "minLength": {n}, "maxLength": {}}}"#, 2 * n);
        format!(r#"{{"type": "array", "minItems": {n}, "maxItems": {n}, "items": {text}}}"#)
    }),
    either("pattern", 1 << 30, |n| format!(r#"{{"type": "string", "pattern": "^[a-z]{{1,{n}}}$"}}"#)),
    either("pattern-and-length", 1 << 14, |n| {
        format!(r#"{{"type": "string", "pattern": "^(ab|cd|ef)*x.*y.*$", "minLength": {n}, "maxLength": {}}}"#, 2 * n)
    }),
    either("pattern-properties", 1 << 10, |n| {
        let patterns = joined(n, ", ", |i| format!(r#""^a{{{i}}}b.*": {{"type": "integer"}}"#));
        format!(r#"{{"type": "object", "patternProperties": {{{patterns}}}}}"#)
    }),
    either("multiple-of", 1 << 30, |n| format!(r#"{{"type": "integer", "multipleOf": {}}}"#, n * 2 - 1)),
    either("multiple-of-small", 1 << 30, |n| {
        format!(r#"{{"type": "number", "multipleOf": {}}}"#, 1.0 / (n as f64 + 1.0))
    }),
    either("multiple-of-decimals", 18, |n| format!(r#"{{"type": "number", "multipleOf": 0.{}7}}"#, "0".repeat(n))),
    either("multiples-of", 1 << 6, |n| {
        let primes = [999_983, 999_979, 999_961, 999_959, 999_953, 999_931, 999_917, 999_907];
        let parts = joined(n, ", ", |i| {
            format!(r#"{{"type": "integer", "multipleOf": {}}}"#, primes[i % primes.len()] + 2 * (i / primes.len()))
        });
        format!(r#"{{"allOf": [{parts}]}}"#)
    }),
    either("small-multiples-of", 1 << 6, |n| {
        let primes = [97, 89, 83, 79, 73, 71, 67, 61, 59, 53, 47, 43, 41, 37, 31, 29, 23, 19, 17, 13, 11, 7];
        let parts =
            joined(n.min(primes.len()), ", ", |i| format!(r#"{{"type": "integer", "multipleOf": {}}}"#, primes[i]));
        format!(r#"{{"allOf": [{parts}]}}"#)
    }),
    either("range", 60, |n| format!(r#"{{"type": "integer", "minimum": 1, "maximum": {}}}"#, 1u64 << n)),
    either("range-of-decimals", 60, |n| {
        format!(r#"{{"type": "number", "exclusiveMinimum": 0.{}1, "maximum": 1e{n}}}"#, "0".repeat(n))
    }),
    refused("reference-to-itself", |_| r##"{"$ref": "#"}"##.to_owned()),
    refused("references-in-a-circle", |_| {
        r##"{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}"##.to_owned()
    }),
    refused("reference-to-nothing", |_| r##"{"$ref": "#/$defs/nothing"}"##.to_owned()),
    refused("all-of-itself", |_| {
        r##"{"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}"##.to_owned()
    }),
];
