//! What identifies a change, and the id that is made of it.
#![forbid(unsafe_code)]

/// Microseconds from 1970-01-01 to 2000-01-01.
const UNIX_EPOCH: i64 = -946_684_800_000_000;

/// What identifies a change for ever, in the log of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Where its transaction committed.
    pub commit_position: u64,
    /// Its number there.
    pub sequence: u32,
}

/// Returns the id of a change: a UUID of version 8 (RFC 9562) that is made of what identifies it, so that it is the
/// same whenever it is recorded, and sorts by time. From the left: milliseconds since 1970 (48 bits), version (4),
/// microseconds of the millisecond (12), variant (2), the commit position in units of eight bytes (30, as no log has
/// gigabytes for a microsecond), and the number in the transaction (32). Times before 1970 count as 1970, those after
/// the year 10889 as that. Positions of later sources are shifted, each source's by another odd multiple: what two
/// sources have at the same position never has the same id.
pub fn id(source: i32, identity: Identity, committed_at: i64) -> [u8; 16] {
    const LAST: i64 = (1 << 48) * 1000 - 1;
    const SHIFT: u64 = 0x1E37_79B1;
    let unix = committed_at.saturating_sub(UNIX_EPOCH).clamp(0, LAST);
    let (millis, micros) = ((unix / 1000) as u128, (unix % 1000) as u128);
    let shift = u64::from(source.wrapping_sub(1) as u32) * SHIFT;
    let position = u128::from((identity.commit_position >> 3).wrapping_add(shift)) & 0x3FFF_FFFF;
    let bits = millis << 80 | 8 << 76 | micros << 64 | 2 << 62 | position << 32 | u128::from(identity.sequence);
    bits.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_position_never_has_the_same_id_in_two_sources() {
        let identity = Identity { commit_position: 0x16B_3A90, sequence: 1 };
        let ids: std::collections::BTreeSet<_> = (1..=1000).map(|source| id(source, identity, 5)).collect();
        assert_eq!(ids.len(), 1000);
        assert_eq!(id(1, identity, 5)[8..12], (2 << 30 | (0x16B_3A90_u32 >> 3)).to_be_bytes());
    }

    proptest! {
        #[test]
        fn ids_differ_and_sort_by_time(
            changes in prop::collection::vec((0i64..1 << 57, 0u64..1 << 33, 1u32..), 2..20)
        ) {
            // Positions of commits are multiples of eight, and grow with time as far as clocks do.
            let id = |&(time, position, sequence): &(i64, u64, u32)| {
                id(1, Identity { commit_position: position << 3, sequence }, time)
            };
            for (one, other) in changes.iter().zip(&changes[1..]) {
                let is_one = one.0 == other.0 && (one.1 & 0x3FFF_FFFF) == (other.1 & 0x3FFF_FFFF) && one.2 == other.2;
                prop_assert_eq!(id(one) == id(other), is_one);
                if one.0 != other.0 {
                    prop_assert_eq!(id(one) < id(other), one.0 < other.0);
                }
                prop_assert_eq!((id(one)[6] >> 4, id(one)[8] >> 6), (8, 2));
            }
        }
    }
}
