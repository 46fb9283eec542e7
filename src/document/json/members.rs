//! The members of a JSON object, found without reading what is inside of them.
#![forbid(unsafe_code)]

/// The members of a JSON object without white space around them, as keys without their quotes and values as they are
/// written; None, and no more, where it is none.
pub fn members(text: &str) -> impl Iterator<Item = Option<(&str, &str)>> {
    let mut rest = text.strip_prefix('{').unwrap_or_default();
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let member = member(rest);
        is_over = match member {
            Some((_, _, behind)) => {
                rest = behind.get(1..).unwrap_or_default();
                !behind.starts_with(',')
            }
            None => true,
        };
        Some(member.filter(|(_, _, behind)| behind.starts_with(',') || *behind == "}").map(|found| (found.0, found.1)))
    })
}

/// The key and the value that a text begins with, and what is behind them.
fn member(text: &str) -> Option<(&str, &str, &str)> {
    let key_len = string_len(text)?;
    let value = text[key_len..].strip_prefix(':')?;
    let len = match value.as_bytes().first()? {
        b'"' => string_len(value)?,
        b'{' => object_len(value)?,
        // Numbers and literals; the document has no arrays but `unchanged`, of strings.
        b'[' => array_len(value)?,
        _ => value.find([',', '}'])?,
    };
    Some((&text[1..key_len - 1], &value[..len], &value[len..]))
}

/// How long the string is that a text begins with, with its quotes.
fn string_len(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = if bytes.first() == Some(&b'"') { 1 } else { return None };
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// How long the object is that a text begins with.
fn object_len(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        at += memchr::memchr3(b'"', b'{', b'}', bytes.get(at..)?)?;
        match bytes[at] {
            b'"' => at += string_len(text.get(at..)?)?,
            b'{' => {
                depth += 1;
                at += 1;
            }
            _ => {
                depth -= 1;
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
    }
}

/// How long the array is that a text begins with.
fn array_len(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match bytes.get(at)? {
            b'"' => at += string_len(text.get(at..)?)? - 1,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_string;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn members_are_those_that_serde_finds(
            keys in prop::collection::hash_set("\\PC{0,8}", 0..8),
            texts in prop::collection::vec("\\PC{0,12}", 16), shape in 0usize..1 << 24
        ) {
            use serde_json::{Map, Value, json};
            let texts: Vec<Value> = texts.into_iter().map(Value::from).collect();
            let object: Map<String, Value> = keys.into_iter().enumerate().map(|(i, key)| {
                let (one, other) = (&texts[2 * i], &texts[2 * i + 1]);
                let value = match shape >> (3 * i) & 7 {
                    0 => one.clone(),
                    1 => json!({"a": one, one.as_str().unwrap(): [other, {"b": {}}]}),
                    2 => json!([one, [other, [], {"a]": [[one]]}], 1]),
                    3 => json!([]),
                    4 => json!(shape),
                    5 => json!(true),
                    6 => json!({}),
                    _ => Value::Null,
                };
                (key, value)
            }).collect();
            let text = serde_json::to_string(&object).unwrap();
            let found: Option<Vec<(Value, Value)>> = members(&text)
                .map(|member| {
                    let (key, value) = member?;
                    let key = read_string(&format!("\"{key}\"")).unwrap().unwrap().into();
                    Some((key, serde_json::from_str(value).unwrap()))
                })
                .collect();
            let expected: Vec<(Value, Value)> = object.into_iter().map(|(key, value)| (key.into(), value)).collect();
            prop_assert_eq!(found, (!expected.is_empty()).then_some(expected));
        }

        #[test]
        fn any_text_has_members_or_none(text: String) {
            assert!(members(&text).count() <= text.len() + 1);
        }
    }
}
