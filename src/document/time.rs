//! Dates and times, as `to_jsonb` writes them in the time zone UTC.
#![forbid(unsafe_code)]

/// Days from 4714-11-24 BC, where the server's calendar begins, to 2000-01-01, where its dates count from.
const EPOCH_JULIAN_DAY: i64 = 2_451_545;
const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

/// Appends a `date` (days since 2000-01-01): `2026-11-20`, `0044-03-15 BC`, `infinity`.
pub fn push_date(out: &mut Vec<u8>, days: i32) {
    match days {
        i32::MIN => out.extend_from_slice(b"-infinity"),
        i32::MAX => out.extend_from_slice(b"infinity"),
        _ => {
            let is_bc = push_day(out, i64::from(days));
            push_era(out, is_bc);
        }
    }
}

/// Appends a `timestamp` (microseconds since 2000-01-01): `2026-11-20T11:38:55.72`.
pub fn push_timestamp(out: &mut Vec<u8>, microseconds: i64) {
    push_time(out, microseconds, b"");
}

/// Appends a `timestamp with time zone` (microseconds since 2000-01-01 UTC): `2026-11-20T11:38:55.72+00:00`.
pub fn push_timestamptz(out: &mut Vec<u8>, microseconds: i64) {
    push_time(out, microseconds, b"+00:00");
}

fn push_time(out: &mut Vec<u8>, microseconds: i64, zone: &[u8]) {
    match microseconds {
        i64::MIN => return out.extend_from_slice(b"-infinity"),
        i64::MAX => return out.extend_from_slice(b"infinity"),
        _ => {}
    }
    let is_bc = push_day(out, microseconds.div_euclid(MICROSECONDS_PER_DAY));
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

/// Appends `YYYY-MM-DD` of the proleptic Gregorian calendar and returns whether the year is one BC.
fn push_day(out: &mut Vec<u8>, days: i64) -> bool {
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

/// Reads a `timestamp with time zone`, in microseconds since 2000-01-01 UTC, as [`push_timestamptz`] writes it:
/// `2026-11-20T11:38:55.720782+00:00`, `0044-03-15T12:00:00+00:00 BC`, `infinity`. None if the text is not one.
pub fn read_timestamptz(text: &str) -> Option<i64> {
    match text {
        "infinity" => return Some(i64::MAX),
        "-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let (text, is_bc) = text.strip_suffix(" BC").map_or((text, false), |text| (text, true));
    let (date, time) = text.strip_suffix("+00:00")?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(read_padded);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.splitn(3, ':').map(read_padded);
    let (hours, minutes, seconds) = (time.next()??, time.next()??, time.next()??);
    let is_valid = (1..=12).contains(&month) && (1..=31).contains(&day) && hours < 24 && minutes < 60 && seconds < 60;
    if !is_valid {
        return None;
    }
    let micros = read_padded(fraction)? * 10_i64.pow(6_u32.checked_sub(fraction.len() as u32)?);
    // The year before 1 is 1 BC.
    let days = days_since_2000(if is_bc { 1 - year } else { year }, month, day);
    let seconds = days * 86_400 + hours * 3600 + minutes * 60 + seconds;
    // The sum may be within the range where the product is not.
    i64::try_from(i128::from(seconds) * 1_000_000 + i128::from(micros)).ok()
}

/// Reads digits; None if there are others, or more than any part of a time has.
fn read_padded(digits: &str) -> Option<i64> {
    let is_number = (1..=7).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

/// Returns the days from 2000-01-01 to a day of the Gregorian calendar. Years are counted from March, so that a leap
/// day ends one.
fn days_since_2000(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 730_425
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn any_number_has_a_text(days: i32, number: i64) {
            // Near the ends too, and at them.
            for number in [number, i64::MIN + (number & 3), i64::MAX - (number & 3), i64::from(days)] {
                let time = text(|out| push_timestamptz(out, number));
                prop_assert!(time.len() < 40 && time.is_ascii());
                prop_assert_eq!(time.ends_with("infinity"), number == i64::MIN || number == i64::MAX);
                prop_assert!(text(|out| push_timestamp(out, number)).len() < 40);
            }
            for days in [days, i32::MIN + (days & 3), i32::MAX - (days & 3)] {
                prop_assert!(text(|out| push_date(out, days)).len() < 20);
            }
        }

        #[test]
        fn what_is_written_is_read_back(time: i64, near in -200_000_000_000_000_000i64..300_000_000_000_000_000) {
            for time in [time, near, i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
                prop_assert_eq!(read_timestamptz(&text(|out| push_timestamptz(out, time))), Some(time));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(
            any: String,
            near in r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{0,7})?\+00:00( BC)?",
        ) {
            let _ = (read_timestamptz(&any), read_timestamptz(&near));
        }
    }

    #[test]
    fn texts_that_are_no_times_are_refused() {
        for malformed in [
            "",
            "now",
            "Infinity",
            "2026-11-20",
            "2026-11-20T11:38:55",
            "2026-11-20 11:38:55+00:00",
            "2026-11-20T11:38:55+01:00",
            "2026-11-20T11:38+00:00",
            "2026-11-20T11:38:55.+00:00",
            "2026-11-20T11:38:55.1234567+00:00",
            "2026-13-20T11:38:55+00:00",
            "2026-00-20T11:38:55+00:00",
            "2026-11-32T11:38:55+00:00",
            "2026-11-20T24:00:00+00:00",
            "2026-11-20T11:60:00+00:00",
            "2026-11-20T11:38:60+00:00",
            "+026-11-20T11:38:55+00:00",
            "2026-11-20T11:38:55+00:00 AD",
            "2026-11-20T9223372036854775807:00:00+00:00",
            "9223372036854775807-11-20T00:00:00+00:00",
            "999999-11-20T00:00:00+00:00",
        ] {
            assert_eq!(read_timestamptz(malformed), None, "{malformed}");
        }
        assert_eq!(read_timestamptz("2000-01-01T00:00:00.000000+00:00"), Some(0));
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
            assert_eq!(text(|out| push_date(out, days)), expected, "{days}");
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
            assert_eq!(text(|out| push_date(out, days)), format!("{shown:04}-{month:02}-{day:02}{era}"));
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
            assert_eq!(text(|out| push_timestamp(out, microseconds)), expected);
        }
        assert_eq!(text(|out| push_timestamptz(out, 0)), "2000-01-01T00:00:00+00:00");
        assert_eq!(text(|out| push_timestamptz(out, -63_145_000_000_000_000)), "0002-01-06T02:13:20+00:00 BC");
    }
}
