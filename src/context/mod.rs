//! Stage 1: the context of a statement, which is the session's context (the setting `bemi.context`), the context in
//! the statement's comments, and its text where `bemi.capture_query` asks for it.
pub mod comment;
pub mod composition;
pub mod lexer;
pub mod setting;

#[cfg(feature = "pgrx")]
pub mod pg;
