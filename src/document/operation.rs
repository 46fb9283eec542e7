//! What a document says has happened.
#![forbid(unsafe_code)]

/// What happened to the row, to the table, or otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// INSERT, COPY.
    Create,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// TRUNCATE; one document for each table.
    Truncate,
    /// A logical message that the reader asked for.
    Message,
    /// Changes are missing that were made before.
    Gap,
}

impl Operation {
    /// All operations.
    pub const ALL: [Self; 6] = [Self::Create, Self::Update, Self::Delete, Self::Truncate, Self::Message, Self::Gap];

    /// Returns its name in a document.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Truncate => "TRUNCATE",
            Self::Message => "MESSAGE",
            Self::Gap => "GAP",
        }
    }

    /// Returns the operation of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.name() == name)
    }
}
