//! The keys of documents: each name stands here, once, and so does their order.
#![forbid(unsafe_code)]

/// Makes [`Key`], and [`name!`] for texts that are put together at compile time.
macro_rules! keys {
    ($($(#[doc = $about:literal])* $key:ident = $name:literal,)*) => {
        /// A key of a document.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Key {
            $($(#[doc = $about])* $key,)*
        }

        impl Key {
            /// All keys, in the order that changes, messages and gaps have them in. No document has all of them.
            pub const ALL: &[Self] = &[$(Self::$key),*];

            /// Returns its name, which needs no escapes in JSON.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Key::$key => $name,)*
                }
            }
        }

        /// The name of a [`Key`] as a literal.
        macro_rules! name {
            $(($key) => { $name };)*
        }
    };
}

keys! {
    /// Where the change or message is in the WAL.
    Position = "position",
    /// Where its transaction committed; null while it is in progress or only prepared.
    CommitPosition = "commit_position",
    /// Its number among the documents of its transaction, from 1 on; null for a message outside of a transaction.
    Sequence = "sequence",
    /// The number of its transaction.
    TransactionId = "transaction_id",
    /// The number of its subtransaction, while the transaction is in progress.
    SubtransactionId = "subtransaction_id",
    /// The name under which a transaction is prepared.
    Gid = "gid",
    /// When its transaction committed.
    CommittedAt = "committed_at",
    /// Where a transaction was prepared.
    PreparePosition = "prepare_position",
    /// When a transaction was prepared.
    PreparedAt = "prepared_at",
    /// The database.
    Database = "database",
    /// The schema of the table.
    Schema = "schema",
    /// The table.
    Table = "table",
    /// What happened.
    Operation = "operation",
    /// The text of the row's key.
    PrimaryKey = "primary_key",
    /// The row before the change.
    Before = "before",
    /// The row after the change.
    After = "after",
    /// Who made the change, and why.
    Context = "context",
    /// The text of the row's key before the change, if that is another one.
    OldPrimaryKey = "old_primary_key",
    /// The replication origin of the change.
    Origin = "origin",
    /// The OID of the table.
    Relation = "relation",
    /// Whether a message belongs to a transaction.
    Transactional = "transactional",
    /// The prefix of a message.
    Prefix = "prefix",
    /// The content of a message that is text.
    Content = "content",
    /// The content of a message that is not text.
    ContentBytes = "content_bytes",
    /// Columns that `after` lacks since the WAL does not contain their values, which did not change.
    Unchanged = "unchanged",
    /// Columns and keys that are shown as null, and why.
    Omitted = "omitted",
}

/// The key, with the comma before it and the colon behind it, as a literal.
macro_rules! member {
    ($key:ident) => {
        concat!(",\"", name!($key), "\":")
    };
}

/// The keys of a marker, in its own order.
pub const IN_MARKERS: &[Key] = &[
    Key::Operation,
    Key::TransactionId,
    Key::SubtransactionId,
    Key::Gid,
    Key::CommitPosition,
    Key::PreparePosition,
    Key::CommittedAt,
    Key::PreparedAt,
    Key::Database,
];
