//! Hexadecimal digits: of bytes, as `bytea` shows them, and of numbers.
#![forbid(unsafe_code)]

use std::collections::TryReserveError;

const LOWER: &[u8; 16] = b"0123456789abcdef";
const UPPER: &[u8; 16] = b"0123456789ABCDEF";

/// Returns the two digits of a byte, in lower case.
#[inline]
pub fn pair(byte: u8) -> [u8; 2] {
    [LOWER[usize::from(byte >> 4)], LOWER[usize::from(byte & 0xF)]]
}

/// Appends the digits of bytes, in lower case.
pub fn push(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        out.extend_from_slice(&pair(*byte));
    }
}

/// Reads the digits of bytes, in either case. None if they are not pairs of digits. Fails without memory.
pub fn read(digits: &[u8]) -> Result<Option<Vec<u8>>, TryReserveError> {
    let mut bytes = Vec::new();
    let (pairs, rest) = digits.as_chunks::<2>();
    bytes.try_reserve_exact(pairs.len())?;
    for pair in pairs {
        let Some(byte) = read_number(pair) else { return Ok(None) };
        bytes.push(byte as u8);
    }
    Ok(rest.is_empty().then_some(bytes))
}

/// Appends the digits of a number, in upper case and without leading zeros.
pub fn push_number(out: &mut Vec<u8>, number: u32) {
    let digits = (32 - number.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|place| UPPER[(number >> (place * 4) & 0xF) as usize]));
}

/// Reads the digits of a number, in either case: one to eight of them, and nothing else.
pub fn read_number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn digits_that_are_none_are_refused() {
        for malformed in ["", "+1", "-1", " 1", "1 ", "0x1", "g", "123456789", "\u{e9}"] {
            assert_eq!(read_number(malformed.as_bytes()), None, "{malformed}");
        }
        for malformed in ["0", "000", "0g", "+1", "0x", " 00", "\u{e9}"] {
            assert_eq!(read(malformed.as_bytes()), Ok(None), "{malformed}");
        }
        assert_eq!(read(b""), Ok(Some(Vec::new())));
        assert_eq!((read_number(b"FFFFffff"), read_number(b"0")), (Some(u32::MAX), Some(0)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes: Vec<u8>, number: u32) {
            let mut digits = Vec::new();
            push(&mut digits, &bytes);
            prop_assert_eq!(read(&digits).unwrap(), Some(bytes.clone()));
            prop_assert_eq!(read(&digits.to_ascii_uppercase()).unwrap(), Some(bytes));
            let mut digits = Vec::new();
            push_number(&mut digits, number);
            prop_assert_eq!(&digits, &format!("{number:X}").into_bytes());
            prop_assert_eq!(read_number(&digits), Some(number));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let is_digits = bytes.len() % 2 == 0 && bytes.iter().all(u8::is_ascii_hexdigit);
            prop_assert_eq!(read(&bytes).unwrap().is_some(), is_digits);
        }
    }
}
