//! Positions in the WAL, as the server writes them: `16/B374D848`.
#![forbid(unsafe_code)]

use super::hex;

/// Length in bytes of the longest text of a position.
pub const MAX_LEN: usize = 17;

/// Appends a position.
pub fn push(out: &mut Vec<u8>, lsn: u64) {
    hex::push_number(out, (lsn >> 32) as u32);
    out.push(b'/');
    hex::push_number(out, lsn as u32);
}

/// Returns the text of a position.
pub fn text(lsn: u64) -> String {
    let mut text = Vec::with_capacity(MAX_LEN);
    push(&mut text, lsn);
    String::from_utf8_lossy(&text).into_owned()
}

/// Reads a position; None if the text is not one.
pub fn read(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let part = |digits: &str| hex::read_number(digits.as_bytes());
    Some(u64::from(part(high)?) << 32 | u64::from(part(low)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn positions_are_written_as_the_server_writes_them() {
        assert_eq!(text(0x16_B374_D848), "16/B374D848");
        assert_eq!((text(0), text(u64::MAX)), ("0/0".to_owned(), "FFFFFFFF/FFFFFFFF".to_owned()));
    }

    #[test]
    fn texts_that_are_no_positions_are_refused() {
        for malformed in ["", "/", "1/", "/1", "1-A0", "1/2/3", "+1/2", "1/-2", " 1/2", "1/2 ", "123456789/0", "1/g"] {
            assert_eq!(read(malformed), None, "{malformed}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(lsn: u64) {
            prop_assert_eq!(read(&text(lsn)), Some(lsn));
            prop_assert!(text(lsn).len() <= MAX_LEN);
        }

        #[test]
        fn any_text_is_read_or_refused(any: String, near in "[0-9A-Ga-g/+]{0,20}") {
            for text in [any, near] {
                if let Some(lsn) = read(&text) {
                    prop_assert_eq!(read(&super::text(lsn)), Some(lsn));
                }
            }
        }
    }
}
