//! JSON text with each member and element on a line of its own.
#![forbid(unsafe_code)]

use super::compact::string_end;

/// Spaces for each level.
const INDENTATION: usize = 4;
/// Levels that are indented: a text that nests deep would consist of spaces.
const INDENTED_LEVELS: usize = 32;

/// Appends a compact JSON text with each member and element on a line of its own; false if that would make it longer
/// than `limit` bytes, or if there is no memory for it, and then what was appended is of no use.
pub fn indent(out: &mut Vec<u8>, json: &[u8], limit: usize) -> bool {
    let (mut at, mut depth) = (0, 0usize);
    let break_line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + depth.min(INDENTED_LEVELS) * INDENTATION, b' ');
    };
    while let Some(&byte) = json.get(at) {
        let end = if byte == b'"' { string_end(json, at).unwrap_or(json.len()) } else { at + 1 };
        let more = (end - at) + (depth + 1).min(INDENTED_LEVELS) * INDENTATION + 2;
        if out.len() + more > limit || out.try_reserve(more).is_err() {
            return false;
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                if matches!(json.get(end), Some(b'}' | b']')) {
                    out.push(json[end]);
                    at = end + 1;
                    continue;
                }
                depth += 1;
                break_line(out, depth);
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                break_line(out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                break_line(out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => out.extend_from_slice(&json[at..end]),
        }
        at = end;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_indented_text_says_the_same_on_more_lines() {
        let compact = r#"{"a":[1,{"b":"x,{\"y\":[]}"}],"c":{},"d":[],"e":null}"#;
        let mut out = Vec::new();
        assert!(indent(&mut out, compact.as_bytes(), 1000));
        let expected = [
            "{",
            "    \"a\": [",
            "        1,",
            "        {",
            r#"            "b": "x,{\"y\":[]}""#,
            "        }",
            "    ],",
            "    \"c\": {},",
            "    \"d\": [],",
            "    \"e\": null",
            "}",
        ];
        assert_eq!(String::from_utf8(out.clone()).unwrap(), expected.join("\n"));
        let mut again = Vec::new();
        super::super::compact(&mut again, &out).unwrap();
        assert_eq!(again, compact.as_bytes());
        assert!(!indent(&mut Vec::new(), compact.as_bytes(), out.len() - 1));
        let nested = ["[".repeat(50_000), "]".repeat(50_000)].concat();
        let mut short = Vec::new();
        assert!(!indent(&mut short, nested.as_bytes(), 1_000_000));
        assert!(short.len() <= 1_000_000);
    }
}
