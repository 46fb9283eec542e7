//! How much is recorded at once, where the server does not accept what a document holds: its text is more than an index
//! or a value of `jsonb` can hold, or has no form in the encoding of the database. No document may stop those behind it.
#![forbid(unsafe_code)]

/// What is left out of a row, named in its column `omitted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reduction {
    /// Nothing.
    None,
    /// The keys, which indexes have to hold.
    Key,
    /// The images, but not the keys.
    Images,
    /// The keys, the images and the context.
    Context,
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
        let reduction = match self.reduction {
            Reduction::None => Reduction::Key,
            Reduction::Key => Reduction::Images,
            Reduction::Images => Reduction::Context,
            Reduction::Context => return None,
        };
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
        fn each_document_is_recorded_once_with_as_little_left_out_as_can_be(needs in prop::collection::vec(0usize..4, 0..200)) {
            let all = [Reduction::None, Reduction::Key, Reduction::Images, Reduction::Context];
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
                prop_assert!(tries < 20 * needs.len());
            }
            prop_assert_eq!(recorded, needs);
        }
    }

    #[test]
    fn what_is_refused_even_with_all_left_out_is_not_refused_for_what_it_holds() {
        let mut portion = Portion::default();
        for reduction in [Reduction::Key, Reduction::Images, Reduction::Context] {
            portion = portion.refused(1).unwrap();
            assert_eq!(portion, Portion { limit: 1, reduction });
        }
        assert_eq!(portion.refused(1), None);
    }
}
