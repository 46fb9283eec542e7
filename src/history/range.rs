//! The text of ranges and multiranges whose bounds are labels of an enum, with other labels.
#![forbid(unsafe_code)]

/// Returns the text of a range or multirange with bounds as `translate` gives them. None if it is no such text, or if `translate` gives none.
pub fn with_bounds(text: &[u8], mut translate: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let (mut out, mut rest) = (Vec::new(), text);
    let is_multirange = text.first() == Some(&b'{');
    if is_multirange {
        out.push(b'{');
        rest = text.get(1..)?;
        if rest == b"}" {
            return Some(text.to_vec());
        }
    }
    loop {
        rest = range(rest, &mut out, &mut translate)?;
        match (is_multirange, rest) {
            (false, b"") => return Some(out),
            (true, b"}") => {
                out.push(b'}');
                return Some(out);
            }
            (true, [b',', left @ ..]) => {
                out.push(b',');
                rest = left;
            }
            _ => return None,
        }
    }
}

fn range<'a>(
    text: &'a [u8],
    out: &mut Vec<u8>,
    translate: &mut impl FnMut(&[u8]) -> Option<Vec<u8>>,
) -> Option<&'a [u8]> {
    if let Some(rest) = text.strip_prefix(b"empty") {
        out.extend_from_slice(b"empty");
        return Some(rest);
    }
    let opening = *text.first().filter(|byte| matches!(byte, b'[' | b'('))?;
    out.push(opening);
    let rest = bound(text.get(1..)?, out, translate)?.strip_prefix(b",")?;
    out.push(b',');
    let rest = bound(rest, out, translate)?;
    out.push(*rest.first().filter(|byte| matches!(byte, b']' | b')'))?);
    rest.get(1..)
}

/// One bound, which may be missing.
fn bound<'a>(
    text: &'a [u8],
    out: &mut Vec<u8>,
    translate: &mut impl FnMut(&[u8]) -> Option<Vec<u8>>,
) -> Option<&'a [u8]> {
    let (mut value, mut is_quoted, mut is_there, mut at) = (Vec::new(), false, false, 0);
    loop {
        match (*text.get(at)?, is_quoted) {
            (b',' | b')' | b']', false) => break,
            (b'\\', _) => {
                at += 1;
                value.push(*text.get(at)?);
            }
            (b'"', true) if text.get(at + 1) == Some(&b'"') => {
                at += 1;
                value.push(b'"');
            }
            (b'"', _) => is_quoted = !is_quoted,
            (byte, _) => value.push(byte),
        }
        is_there = true;
        at += 1;
    }
    if is_there {
        // As the server writes it (range_bound_escape).
        let value = translate(&value)?;
        let is_special = |byte: &u8| b"\"\\()[], \t\n\r\x0b\x0c".contains(byte);
        let quote = &b"\""[..usize::from(value.is_empty() || value.iter().any(is_special))];
        out.extend_from_slice(quote);
        for byte in value {
            if matches!(byte, b'"' | b'\\') {
                out.push(byte);
            }
            out.push(byte);
        }
        out.extend_from_slice(quote);
    }
    text.get(at..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shouted(text: &str) -> Option<String> {
        with_bounds(text.as_bytes(), |label| Some(label.to_ascii_uppercase()))
            .map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn bounds_are_translated_wherever_they_are() {
        for (text, expected) in [
            ("[a,b)", "[A,B)"),
            ("(,b]", "(,B]"),
            ("empty", "empty"),
            (r#"["a,""b\\",c)"#, r#"["A,""B\\",C)"#),
            ("{}", "{}"),
            ("{[a,b),[c,)}", "{[A,B),[C,)}"),
            (r#"["",a]"#, r#"["",A]"#),
            (r#"["a b","c"]"#, r#"["A B",C]"#),
        ] {
            assert_eq!(shouted(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_range_is_none() {
        for text in ["", "[", "[a", "[a,b", "[a,b,c)", "a,b", "{[a,b)", "{[a,b)x}", "[a,b)x", "{", "[\"a,b)"] {
            assert_eq!(shouted(text), None, "{text}");
        }
        assert_eq!(with_bounds(b"[a,b)", |_| None), None);
    }
}
