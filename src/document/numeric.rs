//! The text form of `numeric`, from its form on disk: digits to the base 10,000, behind a header of two forms
//! (src/backend/utils/adt/numeric.c).
#![forbid(unsafe_code)]

/// Decimal digits in one digit of the base.
const DIGITS: usize = 4;

/// Appends the text form of a number, given without the header of its varlena. A number that JSON has none for is
/// appended as it is called: `NaN`, `Infinity`, `-Infinity`. None if it is no number at all.
pub fn numeric(out: &mut Vec<u8>, stored: &[u8]) -> Option<()> {
    let word = |at: usize| stored.get(at..at + 2).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    let header = word(0)?;
    let (is_negative, scale, weight, digits) = match header & 0xC000 {
        0xC000 => {
            out.extend_from_slice(match header & 0xF000 {
                0xD000 => b"Infinity",
                0xF000 => b"-Infinity",
                _ => b"NaN",
            });
            return Some(());
        }
        0x8000 => {
            let weight = i32::from(header & 0x3F) - if header & 0x40 == 0 { 0 } else { 0x40 };
            (header & 0x2000 != 0, header >> 7 & 0x3F, weight, stored.get(2..)?)
        }
        sign => {
            let weight = i32::from(word(2)? as i16);
            (sign == 0x4000, header & 0x3FFF, weight, stored.get(4..)?)
        }
    };
    let digit = |place: i32| -> u16 {
        let at = usize::try_from(place).map_or(usize::MAX, |place| place.saturating_mul(2));
        digits.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u16::from_ne_bytes(*bytes).min(9999))
    };
    if is_negative {
        out.push(b'-');
    }
    if weight < 0 {
        out.push(b'0');
    } else {
        let mut buffer = itoa::Buffer::new();
        out.extend_from_slice(buffer.format(digit(0)).as_bytes());
        for place in 1..=weight {
            out.extend_from_slice(&four_digits(digit(place)));
        }
    }
    if scale > 0 {
        out.push(b'.');
        let end = out.len() + usize::from(scale);
        let mut place = weight + 1;
        while out.len() < end {
            out.extend_from_slice(&four_digits(digit(place)));
            place += 1;
        }
        out.truncate(end);
    }
    Some(())
}

/// Longest text that [`numeric`] appends for a number, in bytes.
pub fn max_len(stored: &[u8]) -> usize {
    // Digits before the point by the weight of the first, which the header has, and behind it by the scale, in groups.
    let word = |at: usize| stored.get(at..at + 2).map_or(0, |bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    let header = word(0);
    let (weight, scale) = match header & 0xC000 {
        0xC000 => (0, 0),
        0x8000 => (header & 0x3F, header >> 7 & 0x3F),
        _ => (u16::try_from(word(2) as i16).unwrap_or(0), header & 0x3FFF),
    };
    // A sign, a point, and one group that is cut.
    (usize::from(weight) + 1) * DIGITS + usize::from(scale) + 2 + DIGITS + "-Infinity".len()
}

fn four_digits(value: u16) -> [u8; DIGITS] {
    let digit = |value: u16| b'0' + (value % 10) as u8;
    [digit(value / 1000), digit(value / 100), digit(value / 10), digit(value)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(words: &[u16]) -> String {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut out = Vec::new();
        numeric(&mut out, &bytes).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// A short header: sign, digits behind the point, and the power of the base of the first digit.
    fn short(is_negative: bool, scale: u16, weight: i16) -> u16 {
        0x8000 | if is_negative { 0x2000 } else { 0 } | scale << 7 | (weight as u16 & 0x7F)
    }

    #[test]
    fn short_and_long_headers_give_the_same() {
        for (scale, weight, digits, expected) in [
            (0u16, 0i16, &[][..], "0"),
            (2, 0, &[], "0.00"),
            (2, 0, &[1, 5000], "1.50"),
            (0, 1, &[12, 34], "120034"),
            (0, 2, &[1], "100000000"),
            (3, -1, &[450], "0.045"),
            (10, -2, &[7000], "0.0000700000"),
            (6, 0, &[9999, 9999, 9900], "9999.999999"),
        ] {
            let long = [&[scale, weight as u16][..], digits].concat();
            assert_eq!(text(&long), expected);
            assert_eq!(text(&[&[0x4000 | scale, weight as u16][..], digits].concat()), format!("-{expected}"));
            assert_eq!(text(&[&[short(false, scale, weight)][..], digits].concat()), expected);
            assert_eq!(text(&[&[short(true, scale, weight)][..], digits].concat()), format!("-{expected}"));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_longer_than_foreseen(words in proptest::collection::vec(proptest::num::u16::ANY, 0..9)) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let (mut out, limit) = (Vec::with_capacity(max_len(&bytes)), max_len(&bytes));
            let before = out.capacity();
            _ = numeric(&mut out, &bytes);
            proptest::prop_assert!(out.len() <= limit && out.capacity() == before, "{} > {limit}", out.len());
        }
    }

    #[test]
    fn what_is_no_number_has_a_name() {
        assert_eq!([text(&[0xC000]), text(&[0xD000]), text(&[0xF000])], ["NaN", "Infinity", "-Infinity"]);
        assert_eq!(numeric(&mut Vec::new(), &[]), None);
        assert_eq!(numeric(&mut Vec::new(), &[0, 0, 0]), None);
        // Digits that are not there are zero.
        assert_eq!(text(&[4, 1]), "00000.0000");
    }
}
