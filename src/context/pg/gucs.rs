//! The settings of contexts in general. `bemi.context` itself is in [`super::session`].
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

/// Enough for what identifies a request. What a context costs is its size times the rows that it covers.
static MAX_CONTEXT_SIZE: GucSetting<i32> = GucSetting::<i32>::new(65_536);
/// On, since the ORM packages send contexts as comments.
static READ_COMMENTS: GucSetting<bool> = GucSetting::<bool>::new(true);
/// Off, since the text of a statement may contain what WAL should not.
static CAPTURE_QUERY: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Defines the settings.
pub fn define() {
    GucRegistry::define_int_guc(
        c"bemi.max_context_size",
        c"Sets the maximum size of a context, in bytes.",
        c"A longer context is refused in bemi.context and shown as unreadable in a comment.",
        &MAX_CONTEXT_SIZE,
        2,
        64 << 20,
        GucContext::Suset,
        GucFlags::UNIT_BYTE,
    );
    GucRegistry::define_bool_guc(
        c"bemi.read_comments",
        c"Reads contexts from comments of the form /*Bemi {...} Bemi*/.",
        c"",
        &READ_COMMENTS,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"bemi.capture_query",
        c"Adds the text of the statement to its context, under the key \"SQL\".",
        c"",
        &CAPTURE_QUERY,
        GucContext::Userset,
        GucFlags::default(),
    );
}

/// Returns the size of the longest context, in bytes (`bemi.max_context_size`).
pub fn max_context_size() -> usize {
    MAX_CONTEXT_SIZE.get() as usize
}

/// Returns whether contexts are read from comments (`bemi.read_comments`).
pub fn read_comments() -> bool {
    READ_COMMENTS.get()
}

/// Returns whether a statement's text becomes a part of its context (`bemi.capture_query`).
pub fn capture_query() -> bool {
    CAPTURE_QUERY.get()
}
