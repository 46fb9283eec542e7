//! The text of a `uuid`: lower-case digits, in five groups.
#![forbid(unsafe_code)]

use super::hex;

/// Where the digits of each byte are.
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
const LEN: usize = 36;

/// Appends a `uuid`.
pub fn push(out: &mut Vec<u8>, bytes: &[u8; 16]) {
    let mut text = [b'-'; LEN];
    for (byte, place) in bytes.iter().zip(PLACES) {
        [text[place], text[place + 1]] = hex::pair(*byte);
    }
    out.extend_from_slice(&text);
}

/// Reads a `uuid`, with digits in either case; None if the text is not one.
pub fn read(text: &[u8]) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    for (byte, place) in bytes.iter_mut().zip(PLACES) {
        *byte = hex::read_number(text.get(place..place + 2)?)? as u8;
    }
    let has_groups = [8, 13, 18, 23].iter().all(|place| text.get(*place) == Some(&b'-'));
    (has_groups && text.len() == LEN).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_groups_have_their_lengths() {
        let bytes = [0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38, 0x0a, 0x11];
        let mut text = Vec::new();
        push(&mut text, &bytes);
        assert_eq!(text, b"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
    }

    #[test]
    fn texts_that_are_no_uuids_are_refused() {
        for malformed in [
            "",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a111",
            "a0eebc99-9c0b-4ef8-bb6d+6bb9bd380a11",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "+0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ] {
            assert_eq!(read(malformed.as_bytes()), None, "{malformed}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes: [u8; 16]) {
            let mut text = Vec::new();
            push(&mut text, &bytes);
            prop_assert_eq!(read(&text), Some(bytes));
            prop_assert_eq!(read(&text.to_ascii_uppercase()), Some(bytes));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
