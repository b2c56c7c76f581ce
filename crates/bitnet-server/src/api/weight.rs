//! Memory that a JSON body will take, estimated before it is parsed: a few bytes of it may ask for a hundred times as
//! many.

use serde_json::Value;

/// Bytes that any body may take.
const FREE: usize = 64 << 20;
/// Bytes for each byte of the body.
const EACH: usize = 12;
/// Bytes of a list or an object in addition to its place in another one: room for four values, and the overhead of an
/// allocator.
const LIST: usize = 4 * size_of::<Value>() + 16;
const OBJECT: usize = 4 * (size_of::<Value>() + ENTRY) + 96;
/// Bytes of an entry of an object in addition to its value: its name, its hash, its place in the table.
const ENTRY: usize = size_of::<String>() + 32 + 3 * size_of::<usize>();
/// Deeper than that JSON is not read.
const DEPTH: usize = 128;

/// Whether the values of a body fit into the memory that its length justifies. What is not JSON may fit or not.
pub(super) fn fits(body: &[u8]) -> bool {
    let most = FREE.saturating_add(body.len().saturating_mul(EACH));
    let mut total = 0usize;
    // For each open bracket, the bytes of a further value in it.
    let mut open: Vec<usize> = Vec::with_capacity(DEPTH);
    let mut bytes = body.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                while let Some(b'\\') = bytes.find(|b| matches!(b, b'"' | b'\\')) {
                    bytes.next();
                }
            }
            b',' => total += open.last().copied().unwrap_or_default(),
            b'[' | b'{' if open.len() == DEPTH => return true,
            b'[' => {
                total += LIST;
                open.push(size_of::<Value>());
            }
            b'{' => {
                total += OBJECT;
                open.push(size_of::<Value>() + ENTRY);
            }
            b']' | b'}' => drop(open.pop()),
            _ => {}
        }
        if total > most {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_bodies_fit_and_swarms_of_small_values_do_not() {
        let list = |item: &str, n: usize| format!("{{\"prompt\":[{}1]}}", item.repeat(n)).into_bytes();
        // Four megabytes of token ids, texts, and messages.
        for (item, n) in [("12345,", 700_000), ("123,", 1_000_000), ("\"a text\",", 400_000)] {
            assert!(fits(&list(item, n)), "{item}");
        }
        assert!(fits(&list("{\"role\":\"user\",\"content\":\"hi\"},", 50_000)));
        for (item, n) in [("[0],", 1_000_000), ("{\"a\":0},", 500_000), ("[[0]],", 600_000), ("0,", 2_000_000)] {
            assert!(!fits(&list(item, n)), "{item}");
        }
        // Commas and brackets within texts do not count.
        let text = format!("{{\"prompt\":\"{}\\\"{}\"}}", "[{,".repeat(600_000), "[,".repeat(600_000));
        assert!(fits(text.as_bytes()));
        assert!(fits("[".repeat(4_000_000).as_bytes()) && fits(b"\"\\") && fits(b"]],"));
    }
}
