//! Where and when a transaction was committed or prepared.
#![forbid(unsafe_code)]

use super::{lsn, time};

/// The end of a transaction in the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The position of its record.
    pub position: u64,
    /// The time, in microseconds since 2000-01-01 UTC.
    pub time: i64,
}

/// Appends the position of a moment as a JSON string, or null.
pub fn push_position(out: &mut Vec<u8>, moment: Option<Moment>) {
    push_quoted_or_null(out, moment, |out, moment| lsn::push(out, moment.position));
}

/// Appends the time of a moment as a JSON string, or null.
pub fn push_time(out: &mut Vec<u8>, moment: Option<Moment>) {
    push_quoted_or_null(out, moment, |out, moment| time::push_timestamptz(out, moment.time));
}

fn push_quoted_or_null(out: &mut Vec<u8>, moment: Option<Moment>, write: impl FnOnce(&mut Vec<u8>, Moment)) {
    match moment {
        None => out.extend_from_slice(b"null"),
        Some(moment) => {
            out.push(b'"');
            write(out, moment);
            out.push(b'"');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_moment_is_null() {
        let text = |moment| {
            let mut out = Vec::new();
            push_position(&mut out, moment);
            push_time(&mut out, moment);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(None), "nullnull");
        let known = Moment { position: 0x1_0000_0002, time: 0 };
        assert_eq!(text(Some(known)), r#""1/2""2000-01-01T00:00:00+00:00""#);
    }
}
