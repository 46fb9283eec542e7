//! How much is recorded at once, where the server does not accept what a document holds: its text is more than an index
//! or a value of `jsonb` can hold, or has no form in the encoding of the database. No document may stop those behind
//! it.
#![forbid(unsafe_code)]

/// What is left out of a row, named in its column `omitted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reduction {
    /// Nothing.
    None,
    /// The keys, which indexes have to hold.
    Key,
    /// Members of the images whose JSON text is longer than 16 MiB.
    MembersOver16M,
    /// Those longer than 1 MiB.
    MembersOver1M,
    /// Those longer than 64 KiB.
    MembersOver64K,
    /// Those longer than 1 KiB.
    MembersOver1K,
    /// The images, but not the keys.
    Images,
    /// The keys, the images and the context.
    Context,
}

impl Reduction {
    /// All of them: each leaves out more than the one before it, but for the keys.
    const LADDER: [Self; 8] = [
        Self::None,
        Self::Key,
        Self::MembersOver16M,
        Self::MembersOver1M,
        Self::MembersOver64K,
        Self::MembersOver1K,
        Self::Images,
        Self::Context,
    ];

    /// What leaves out more, if anything does.
    fn next(self) -> Option<Self> {
        Self::LADDER.iter().copied().find(|other| *other > self)
    }

    /// How long members of images may be, in bytes of JSON.
    pub fn member_limit(self) -> usize {
        match self {
            Self::None | Self::Key => usize::MAX,
            Self::MembersOver16M => 16 << 20,
            Self::MembersOver1M => 1 << 20,
            Self::MembersOver64K => 64 << 10,
            Self::MembersOver1K => 1 << 10,
            Self::Images | Self::Context => 0,
        }
    }

    /// Whether the keys stay.
    pub fn has_keys(self) -> bool {
        ![Self::Key, Self::Context].contains(&self)
    }
}

/// So many documents are tried at once, and so much is left out of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// How many, from the first that is not recorded.
    pub limit: u64,
    /// Something is left out of one that is tried alone.
    pub reduction: Reduction,
}

impl Default for Portion {
    fn default() -> Self {
        Self { limit: u64::MAX, reduction: Reduction::None }
    }
}

impl Portion {
    /// What to try next when this was recorded.
    pub fn accepted(self) -> Self {
        Self { limit: self.limit.saturating_mul(2), reduction: Reduction::None }
    }

    /// What to try next when one of the first `tried` documents was refused for what it holds; None if it was refused
    /// even with all left out, so that it is not what it holds.
    pub fn refused(self, tried: u64) -> Option<Self> {
        let tried = tried.min(self.limit);
        if tried > 1 {
            return Some(Self { limit: tried / 2, reduction: Reduction::None });
        }
        let reduction = self.reduction.next()?;
        Some(Self { limit: 1, reduction })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Of each document, the least that has to be left out for it to be accepted.
        #[test]
        fn each_document_is_recorded_once_with_as_little_left_out_as_can_be(needs in prop::collection::vec(0usize..8, 0..200)) {
            let all = Reduction::LADDER;
            let needs: Vec<Reduction> = needs.into_iter().map(|need| all[need]).collect();
            let (mut portion, mut recorded, mut tries) = (Portion::default(), Vec::new(), 0);
            while recorded.len() < needs.len() {
                let rest = &needs[recorded.len()..];
                let tried = &rest[..rest.len().min(usize::try_from(portion.limit).unwrap_or(usize::MAX))];
                prop_assert!(portion.reduction == Reduction::None || portion.limit == 1);
                portion = match tried.iter().position(|need| *need > portion.reduction) {
                    None => {
                        recorded.extend(tried.iter().map(|_| portion.reduction));
                        portion.accepted()
                    }
                    Some(refused) => portion.refused(refused as u64 + 1).unwrap(),
                };
                tries += 1;
                prop_assert!(tries < 24 * needs.len());
            }
            prop_assert_eq!(recorded, needs);
        }
    }

    #[test]
    fn what_is_refused_even_with_all_left_out_is_not_refused_for_what_it_holds() {
        let mut portion = Portion::default();
        for reduction in &Reduction::LADDER[1..] {
            let reduction = *reduction;
            portion = portion.refused(1).unwrap();
            assert_eq!(portion, Portion { limit: 1, reduction });
        }
        assert_eq!(portion.refused(1), None);
    }
}
