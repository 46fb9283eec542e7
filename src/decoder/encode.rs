//! The text forms of values that the server stores in binary, as `to_jsonb` gives them in the time zone UTC.
#![forbid(unsafe_code)]

/// Days from 4714-11-24 BC, where the server's calendar begins, to 2000-01-01, where its dates count from.
const EPOCH_JULIAN_DAY: i64 = 2_451_545;
const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

/// Appends a `date` (days since 2000-01-01): `2026-11-20`, `0044-03-15 BC`, `infinity`.
pub fn date(out: &mut Vec<u8>, days: i32) {
    match days {
        i32::MIN => out.extend_from_slice(b"-infinity"),
        i32::MAX => out.extend_from_slice(b"infinity"),
        _ => {
            let is_bc = push_date(out, i64::from(days));
            push_era(out, is_bc);
        }
    }
}

/// Appends a `timestamp` (microseconds since 2000-01-01): `2026-11-20T11:38:55.72`.
pub fn timestamp(out: &mut Vec<u8>, microseconds: i64) {
    push_timestamp(out, microseconds, b"");
}

/// Appends a `timestamp with time zone` (microseconds since 2000-01-01 UTC): `2026-11-20T11:38:55.72+00:00`.
pub fn timestamptz(out: &mut Vec<u8>, microseconds: i64) {
    push_timestamp(out, microseconds, b"+00:00");
}

/// Appends a `uuid`: lower-case, in five groups.
pub fn uuid(out: &mut Vec<u8>, bytes: &[u8; 16]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    /// Where the digits of each byte go.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let mut text = [b'-'; 36];
    for (byte, place) in bytes.iter().zip(PLACES) {
        text[place] = HEX[usize::from(byte >> 4)];
        text[place + 1] = HEX[usize::from(byte & 0xF)];
    }
    out.extend_from_slice(&text);
}

/// A log position as the server writes it: `16/B374D848`.
pub fn lsn(lsn: u64) -> String {
    let mut text = Vec::with_capacity(17);
    push_lsn(&mut text, lsn);
    String::from_utf8_lossy(&text).into_owned()
}

/// Appends a log position.
pub fn push_lsn(out: &mut Vec<u8>, lsn: u64) {
    push_hex(out, (lsn >> 32) as u32);
    out.push(b'/');
    push_hex(out, lsn as u32);
}

fn push_hex(out: &mut Vec<u8>, value: u32) {
    let digits = (32 - value.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|place| b"0123456789ABCDEF"[(value >> (place * 4) & 0xF) as usize]));
}

fn push_timestamp(out: &mut Vec<u8>, microseconds: i64, zone: &[u8]) {
    match microseconds {
        i64::MIN => return out.extend_from_slice(b"-infinity"),
        i64::MAX => return out.extend_from_slice(b"infinity"),
        _ => {}
    }
    let is_bc = push_date(out, microseconds.div_euclid(MICROSECONDS_PER_DAY));
    let time = microseconds.rem_euclid(MICROSECONDS_PER_DAY);
    let (seconds, fraction) = (time / 1_000_000, time % 1_000_000);
    out.push(b'T');
    push_padded(out, seconds / 3600, 2);
    out.push(b':');
    push_padded(out, seconds / 60 % 60, 2);
    out.push(b':');
    push_padded(out, seconds % 60, 2);
    if fraction != 0 {
        out.push(b'.');
        push_padded(out, fraction, 6);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
    out.extend_from_slice(zone);
    push_era(out, is_bc);
}

/// Appends `YYYY-MM-DD` of the proleptic Gregorian calendar and tells whether the year is one BC.
fn push_date(out: &mut Vec<u8>, days: i64) -> bool {
    // Counted from 0000-03-01, in cycles of 400 years of which each begins in March, so that a leap day ends its
    // year. Days 60 before 1970-01-01 and the like are folded into one constant.
    let days = days + EPOCH_JULIAN_DAY - 1_721_120;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    // The year before 1 is 1 BC.
    let is_bc = year <= 0;
    push_padded(out, if is_bc { 1 - year } else { year }, 4);
    out.push(b'-');
    push_padded(out, month, 2);
    out.push(b'-');
    push_padded(out, day, 2);
    is_bc
}

fn push_era(out: &mut Vec<u8>, is_bc: bool) {
    if is_bc {
        out.extend_from_slice(b" BC");
    }
}

/// A position in the log as a JSON string, or null.
pub fn position_or_null(out: &mut Vec<u8>, position: Option<u64>) {
    quoted_or_null(out, position, push_lsn);
}

/// A time as a JSON string, or null; in microseconds since 2000-01-01 UTC.
pub fn time_or_null(out: &mut Vec<u8>, microseconds: Option<i64>) {
    quoted_or_null(out, microseconds, timestamptz);
}

fn quoted_or_null<T>(out: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        None => out.extend_from_slice(b"null"),
        Some(value) => {
            out.push(b'"');
            write(out, value);
            out.push(b'"');
        }
    }
}

fn push_padded(out: &mut Vec<u8>, value: i64, width: usize) {
    if let (2, 0..=99) = (width, value) {
        return out.extend_from_slice(&[b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]);
    }
    if let (4, 0..=9999) = (width, value) {
        let digit = |divisor: i64| b'0' + (value / divisor % 10) as u8;
        return out.extend_from_slice(&[digit(1000), digit(100), digit(10), digit(1)]);
    }
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value).as_bytes();
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(digits.len())));
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    proptest::proptest! {
        #[test]
        fn any_number_has_a_text(days: i32, number: i64, position: u64) {
            // Near the ends too, and at them.
            for number in [number, i64::MIN + (number & 3), i64::MAX - (number & 3), i64::from(days)] {
                let time = text(|out| timestamptz(out, number));
                proptest::prop_assert!(time.len() < 40 && time.is_ascii());
                proptest::prop_assert_eq!(time.ends_with("infinity"), number == i64::MIN || number == i64::MAX);
                proptest::prop_assert_eq!(text(|out| time_or_null(out, Some(number))), format!("\"{time}\""));
                proptest::prop_assert!(text(|out| timestamp(out, number)).len() < 40);
            }
            for days in [days, i32::MIN + (days & 3), i32::MAX - (days & 3)] {
                proptest::prop_assert!(text(|out| date(out, days)).len() < 20);
            }
            proptest::prop_assert!(text(|out| push_lsn(out, position)).len() <= 17);
        }
    }

    #[test]
    fn dates_follow_the_proleptic_gregorian_calendar() {
        for (days, expected) in [
            (0, "2000-01-01"),
            (-1, "1999-12-31"),
            (59, "2000-02-29"),
            (60, "2000-03-01"),
            (9820, "2026-11-20"),
            (-730_119, "0001-01-01"),
            (-730_120, "0001-12-31 BC"),
            (-2_451_545, "4714-11-24 BC"),
            (2_145_031_948, "5874897-12-31"),
            (i32::MAX, "infinity"),
            (i32::MIN, "-infinity"),
        ] {
            assert_eq!(text(|out| date(out, days)), expected, "{days}");
        }
    }

    #[test]
    fn every_day_is_the_one_that_a_naive_calendar_counts() {
        // From 1 January 2001 BC on, which is the year -2000.
        let (mut year, mut month, mut day) = (-2000i64, 1, 1);
        let first = -730_119 - 366 - 2000 * 365 - 485;
        for days in first..400_000 {
            let era = if year <= 0 { " BC" } else { "" };
            let shown = if year <= 0 { 1 - year } else { year };
            assert_eq!(text(|out| date(out, days)), format!("{shown:04}-{month:02}-{day:02}{era}"));
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + i32::from(is_leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }

    #[test]
    fn timestamps_show_as_many_digits_as_they_have() {
        for (microseconds, expected) in [
            (0, "2000-01-01T00:00:00"),
            (-1, "1999-12-31T23:59:59.999999"),
            (1_500_000, "2000-01-01T00:00:01.5"),
            (848_489_935_720_782, "2026-11-20T11:38:55.720782"),
            (i64::MAX, "infinity"),
            (i64::MIN, "-infinity"),
        ] {
            assert_eq!(text(|out| timestamp(out, microseconds)), expected);
        }
        assert_eq!(text(|out| timestamptz(out, 0)), "2000-01-01T00:00:00+00:00");
        assert_eq!(text(|out| timestamptz(out, -63_145_000_000_000_000)), "0002-01-06T02:13:20+00:00 BC");
    }

    #[test]
    fn uuids_and_positions() {
        let bytes = [0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38, 0x0a, 0x11];
        assert_eq!(text(|out| uuid(out, &bytes)), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
        assert_eq!(lsn(0x16_B374_D848), "16/B374D848");
    }
}
