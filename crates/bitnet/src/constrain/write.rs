//! A value as JSON without recursion, because the value may be nested deeper than the caller's stack is high.

use serde_json::{Map, Value};

use super::ConstraintError;
use super::limits::{ConstraintLimits, within};

enum Step<'a> {
    Value(&'a Value),
    Key(&'a str, &'a Value),
    Text(&'static str),
}

/// `value` as JSON without spaces.
pub(super) fn json(value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, vec![Step::Value(value)]);
    text
}

/// An object of these entries as JSON without spaces.
pub(super) fn object<'a>(entries: impl Iterator<Item = (&'a String, &'a Value)>) -> String {
    let mut text = String::from("{");
    for (i, (key, value)) in entries.enumerate() {
        text.push_str(if i > 0 { "," } else { "" });
        write(&mut text, vec![Step::Key(key, value)]);
    }
    text + "}"
}

fn write(text: &mut String, mut steps: Vec<Step<'_>>) {
    while let Some(step) = steps.pop() {
        let value = match step {
            Step::Text(t) => {
                text.push_str(t);
                continue;
            }
            Step::Key(key, value) => {
                text.push_str(&quoted(key));
                text.push(':');
                value
            }
            Step::Value(value) => value,
        };
        match value {
            Value::Array(all) => {
                text.push('[');
                steps.push(Step::Text("]"));
                for (i, one) in all.iter().enumerate().rev() {
                    steps.push(Step::Value(one));
                    if i > 0 {
                        steps.push(Step::Text(","));
                    }
                }
            }
            Value::Object(all) => {
                text.push('{');
                steps.push(Step::Text("}"));
                for (i, (key, one)) in all.iter().enumerate().rev() {
                    steps.push(Step::Key(key, one));
                    if i > 0 {
                        steps.push(Step::Text(","));
                    }
                }
            }
            // These have no levels.
            plain => text.push_str(&plain.to_string()),
        }
    }
}

/// Refuses a source that is too long.
pub(super) fn source(bytes: usize, limits: &ConstraintLimits) -> Result<(), ConstraintError> {
    within(bytes as u64, limits.source_bytes as u64, "source_bytes", || {
        format!("the schema, pattern or grammar has {bytes} bytes")
    })
}

/// Rejects the output of [`json`] if it is too long, too deep or has too many values.
pub(super) fn check(text: &str, limits: &ConstraintLimits) -> Result<(), ConstraintError> {
    source(text.len(), limits)?;
    let (mut depth, mut deepest, mut values) = (1u64, 1u64, 1u64);
    let (mut quoted, mut escaped) = (false, false);
    for b in text.bytes() {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => {
                depth += 1;
                values += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth -= 1,
            b',' => values += 1,
            _ => {}
        }
    }
    within(deepest, limits.depth as u64, "depth", || {
        format!("the schema has values within values, {deepest} levels deep")
    })?;
    within(values, limits.values as u64, "values", || format!("the schema has {values} values"))
}

fn quoted(text: &str) -> String {
    // A string has no levels.
    Value::from(text).to_string()
}

/// Reads the output of [`json`] at any depth: a program's schema may be deeper than the JSON that `serde_json` reads.
pub(super) fn read(text: &str) -> Result<Value, ConstraintError> {
    let wrong = || ConstraintError::grammar("the schema is not valid JSON");
    // The open values, each with the key that waits for a value.
    let mut open: Vec<(Value, Option<String>)> = Vec::new();
    let mut at = 0;
    while let Some(&byte) = text.as_bytes().get(at) {
        let done = match byte {
            b',' | b':' => {
                at += 1;
                continue;
            }
            b'[' | b'{' => {
                at += 1;
                open.push((if byte == b'[' { Value::Array(Vec::new()) } else { Value::Object(Map::new()) }, None));
                continue;
            }
            b']' | b'}' => {
                at += 1;
                open.pop().ok_or_else(wrong)?.0
            }
            _ => {
                let end = at + scalar(&text[at..]);
                let value: Value = serde_json::from_str(&text[at..end]).map_err(|_| wrong())?;
                at = end;
                value
            }
        };
        match open.last_mut() {
            None => return Ok(done),
            Some((Value::Array(all), _)) => all.push(done),
            Some((Value::Object(all), key)) => match (key.take(), done) {
                (Some(key), value) => drop(all.insert(key, value)),
                (None, Value::String(name)) => *key = Some(name),
                _ => return Err(wrong()),
            },
            Some(_) => return Err(wrong()),
        }
    }
    Err(wrong())
}

/// The length of a value that is neither a list nor an object.
fn scalar(text: &str) -> usize {
    if !text.starts_with('"') {
        return text.find([',', ']', '}']).unwrap_or(text.len());
    }
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|b| match b {
        _ if escaped => {
            escaped = false;
            false
        }
        b'\\' => {
            escaped = true;
            false
        }
        b => b == b'"',
    });
    end.map_or(text.len(), |n| n + 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn as_others_write_it() {
        for value in [
            json!({"b": [1, -2.5, null, true, {"x\"\n": "é\u{1}"}, [], {}], "a": "x"}),
            json!([[["a"], 3]]),
            json!("text"),
            json!(1e300),
        ] {
            let text = super::json(&value);
            assert_eq!(text, value.to_string());
            assert_eq!(read(&text).unwrap(), value);
        }
    }

    #[test]
    fn depth_and_size_are_refused_on_a_small_stack() {
        // Deeper than any stack; it is never dropped, since that would recurse.
        let mut value = json!(1);
        for _ in 0..100_000 {
            value = Value::Array(vec![value]);
        }
        let value: &'static Value = Box::leak(Box::new(value));
        let text =
            std::thread::Builder::new().stack_size(128 << 10).spawn(|| super::json(value)).unwrap().join().unwrap();
        let limits = ConstraintLimits::default();
        let refused = check(&text, &limits).unwrap_err();
        assert!(matches!(refused, ConstraintError::Limit { name: "depth", limit: 1000, .. }), "{refused}");
        let many = Value::from(vec![0; 70_000]).to_string();
        assert!(matches!(check(&many, &limits), Err(ConstraintError::Limit { name: "values", .. })));
        let long = Value::from("x".repeat(300_000)).to_string();
        assert!(matches!(check(&long, &limits), Err(ConstraintError::Limit { name: "source_bytes", .. })));
        assert!(check(r#"{"a":"[[[\"[[","b":[1]}"#, &ConstraintLimits { depth: 3, ..limits }).is_ok());
    }
}
