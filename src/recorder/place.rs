//! The place of a change among the changes of all sources, as one number: for comparing with the versions of tables.
#![forbid(unsafe_code)]

/// A position of the log takes so many bits of a place, which is 64 PiB of log. The rest is the source.
const POSITION_BITS: u32 = 56;
/// The last source that a place has room for.
const LAST_SOURCE: i32 = 127;

/// Returns the place of a position of a source. In the first source, it is the position itself; source 0, which comes
/// before all that is recorded, has negative ones. None for a source or a position beyond what a place holds.
pub fn place(source: i32, position: u64) -> Option<i64> {
    let is_held = (0..=LAST_SOURCE).contains(&source) && position >> POSITION_BITS == 0;
    is_held.then(|| (i64::from(source - 1) << POSITION_BITS) + position as i64)
}

/// Returns the source of a place, and the position in its log.
pub fn parts(place: i64) -> (i32, u64) {
    let position = place & ((1 << POSITION_BITS) - 1);
    ((place >> POSITION_BITS) as i32 + 1, position as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn places_are_ordered_as_sources_and_then_positions(
            a in (0..=LAST_SOURCE, 0u64..1 << POSITION_BITS), b in (0..=LAST_SOURCE, 0u64..1 << POSITION_BITS)
        ) {
            let (place_a, place_b) = (place(a.0, a.1).unwrap(), place(b.0, b.1).unwrap());
            prop_assert_eq!(place_a.cmp(&place_b), a.cmp(&b));
            prop_assert_eq!(parts(place_a), a);
        }
    }

    #[test]
    fn what_a_place_has_no_room_for_has_none() {
        assert_eq!(place(1, 0x16B_3748), Some(0x16B_3748));
        for (source, position) in [(-1, 1), (128, 1), (i32::MIN, 1), (1, 1 << POSITION_BITS), (1, u64::MAX)] {
            assert_eq!(place(source, position), None);
        }
    }
}
