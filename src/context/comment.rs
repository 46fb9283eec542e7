//! The comments of a statement that carry a context: `/*Bemi {"user_id":1} Bemi*/`.
//!
//! The text is read as the server's own lexer reads it, so that only a comment counts: never what looks like one
//! inside of a string, a quoted name, a dollar-quoted body or another comment. Otherwise whoever can put text into a
//! row could forge the context of the change.
//!
//! - Several comments in one statement are merged from left to right, later keys win.
//! - In a text of several statements a comment counts for the statement in which it stands, or before which it stands;
//!   after the last semicolon, for the last one.
//! - A comment that begins like one of ours and has no `Bemi*/` at its end is one of ours, and malformed, if a JSON
//!   object seems to begin in it; else it is somebody's prose.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::ops::Range;
use std::sync::LazyLock;

use memchr::{memchr, memmem};

use super::lexer::{Lexer, Token, is_space};
use crate::document::context::{Context, ContextError};

const OPEN: &[u8] = b"/*Bemi";
const CLOSE: &[u8] = b"Bemi*/";

/// One comment that carries a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// Where it stands in the text, in bytes, its delimiters included.
    pub span: Range<usize>,
    /// Where its content stands: between the delimiters, without white space at the ends.
    pub content: Range<usize>,
    /// Whether it can be trusted.
    pub state: State,
    /// Where the statement begins for which it counts.
    statement: usize,
}

/// Whether a comment can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is a comment, and ends with `Bemi*/`.
    Whole,
    /// It does not end with `Bemi*/`.
    Unterminated,
    /// It is a comment only if backslashes in strings are read in one of two ways.
    Ambiguous,
}

/// How backslashes in ordinary strings were read when the server took the text apart, which the setting
/// `standard_conforming_strings` decided then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strings {
    /// As themselves.
    Standard,
    /// Nobody knows any more.
    Unsure,
}

/// Whether a text may hold such a comment at all: a fast look before the text is read in earnest.
pub fn may_occur_in(sql: &[u8]) -> bool {
    static FINDER: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(OPEN));
    FINDER.find(sql).is_some()
}

/// What a text holds of comments that carry a context: read once for all of its statements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Ascending by the statement for which they count.
    comments: Vec<Comment>,
    has_one_statement: bool,
}

impl Outline {
    /// Reads a text. Where it is unsure how strings were read, a comment that would not be one in the other way is
    /// ambiguous.
    pub fn read(sql: &[u8], strings: Strings) -> Self {
        let mut outline = Self::lex(sql, true);
        if strings == Strings::Unsure && memchr(b'\\', sql).is_some() {
            let other = Self::lex(sql, false);
            let spans = |outline: &Self| -> HashSet<Range<usize>> {
                outline.comments.iter().map(|comment| comment.span.clone()).collect()
            };
            let (ours, theirs) = (spans(&outline), spans(&other));
            for comment in &mut outline.comments {
                if !theirs.contains(&comment.span) {
                    comment.state = State::Ambiguous;
                }
            }
            let more = other.comments.into_iter().filter(|comment| !ours.contains(&comment.span));
            outline.comments.extend(more.map(|comment| Comment { state: State::Ambiguous, ..comment }));
            outline.comments.sort_by_key(|comment| (comment.statement, comment.span.start));
            outline.has_one_statement &= other.has_one_statement;
        }
        outline
    }

    /// The comments that count for the statement at a range of the text; without one, for the only statement that the
    /// text has, and for none if it has several.
    pub fn comments(&self, statement: Option<Range<usize>>) -> &[Comment] {
        let Some(statement) = statement else {
            return if self.has_one_statement { &self.comments } else { &[] };
        };
        let from = self.comments.partition_point(|comment| comment.statement < statement.start);
        let to = self.comments.partition_point(|comment| comment.statement < statement.end);
        self.comments.get(from..to).unwrap_or_default()
    }

    fn lex(sql: &[u8], plain_backslashes: bool) -> Self {
        let mut outline = Self { comments: Vec::new(), has_one_statement: true };
        let mut lexer = Lexer::new(sql, plain_backslashes);
        // The first token of the statement before, and of the one that is being read.
        let (mut previous, mut current) = (None, None);
        // The comments before the first of these belong to a statement; those before the second stand before a
        // semicolon.
        let (mut settled, mut ended) = (0, 0);
        while let Some((token, span)) = lexer.next_token() {
            match token {
                Token::LineComment => {}
                Token::BlockComment => outline.comments.extend(read_delimiters(sql, span, current.unwrap_or(0))),
                Token::Semicolon => {
                    ended = outline.comments.len();
                    if current.is_some() {
                        (previous, current) = (current, None);
                        settled = ended;
                    }
                }
                Token::Other if current.is_none() => {
                    // What stands between two semicolons alone counts for no statement.
                    outline.comments.drain(settled..ended);
                    ended = settled;
                    outline.has_one_statement &= previous.is_none();
                    current = Some(span.start);
                    for comment in &mut outline.comments[settled..] {
                        comment.statement = span.start;
                    }
                }
                Token::Other => {}
            }
        }
        // Behind the last semicolon they count for the last statement.
        if current.is_none() {
            for comment in &mut outline.comments[settled..] {
                comment.statement = previous.unwrap_or(0);
            }
        }
        outline
    }
}

/// The text of the statement without the given comments, white space and semicolons at its ends.
pub fn text_without(sql: &[u8], statement: Range<usize>, comments: &[Comment]) -> Vec<u8> {
    let mut text = Vec::with_capacity(statement.len());
    let mut at = statement.start;
    for comment in comments {
        let (start, end) = (comment.span.start.min(statement.end), comment.span.end.min(statement.end));
        text.extend_from_slice(sql.get(at..start).unwrap_or_default());
        at = at.max(end);
    }
    text.extend_from_slice(sql.get(at..statement.end).unwrap_or_default());
    let end = text.iter().rposition(|b| !is_space(*b) && *b != b';').map_or(0, |at| at + 1);
    text.truncate(end);
    let start = text.iter().position(|b| !is_space(*b)).unwrap_or(0);
    text.drain(..start);
    text
}

/// Reads the context of a comment from its content, in UTF-8, of at most `limit` bytes. Django's package sends it
/// URL-quoted, which shows in its first character.
pub fn read(content: &[u8], state: State, limit: usize) -> Result<Context, ContextError> {
    if content.len() > limit {
        return Err(ContextError::TooLong(content.len(), limit));
    }
    match state {
        State::Whole => {}
        State::Unterminated => {
            return Err(ContextError::Syntax("the comment does not end with \"Bemi*/\"".to_owned()));
        }
        State::Ambiguous => {
            let reason = "with another standard_conforming_strings the comment would be part of a string";
            return Err(ContextError::Syntax(reason.to_owned()));
        }
    }
    if is_url_quoted(content) { Context::parse(&url_unquote(content)) } else { Context::parse(content) }
}

fn is_url_quoted(content: &[u8]) -> bool {
    content.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"%7B"))
}

/// Replaces each `%XX` by its byte. Another percent sign stays as it is.
fn url_unquote(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr(b'%', rest) {
        plain.extend_from_slice(&rest[..at]);
        let digits = rest.get(at + 1..at + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        plain.push(byte.unwrap_or(b'%'));
        rest = &rest[at + if byte.is_some() { 3 } else { 1 }..];
    }
    plain.extend_from_slice(rest);
    plain
}

/// Tells whether the block comment at `span` is one of ours, and what it holds.
fn read_delimiters(sql: &[u8], span: Range<usize>, statement: usize) -> Option<Comment> {
    let inner = sql[span.clone()].strip_prefix(OPEN)?;
    let begins_an_object = |content: &[u8]| content.first() == Some(&b'{') || is_url_quoted(content);
    if !inner.first().is_some_and(|b| is_space(*b)) && !begins_an_object(inner) {
        return None;
    }
    let (inner, state) = match inner.strip_suffix(CLOSE) {
        Some(inner) => (inner, State::Whole),
        None => (inner.strip_suffix(b"*/").unwrap_or(inner), State::Unterminated),
    };
    let content = trim(inner);
    if state == State::Unterminated && !begins_an_object(&inner[content.clone()]) {
        return None;
    }
    let from = span.start + OPEN.len();
    Some(Comment { span, content: from + content.start..from + content.end, state, statement })
}

/// The range of a text without white space at its ends.
fn trim(text: &[u8]) -> Range<usize> {
    let start = text.iter().position(|b| !is_space(*b)).unwrap_or(text.len());
    let end = text.iter().rposition(|b| !is_space(*b)).map_or(start, |at| at + 1);
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::json::Charset;

    fn contents(sql: &str) -> Vec<String> {
        let outline = Outline::read(sql.as_bytes(), Strings::Standard);
        outline.comments(Some(0..sql.len())).iter().map(|c| sql[c.content.clone()].to_owned()).collect()
    }

    fn statement_contents(sql: &str, statement: &str) -> Vec<String> {
        let at = sql.find(statement).unwrap();
        let outline = Outline::read(sql.as_bytes(), Strings::Standard);
        let comments = outline.comments(Some(at..at + statement.len()));
        comments.iter().map(|c| sql[c.content.clone()].to_owned()).collect()
    }

    #[test]
    fn comments_are_read_wherever_they_stand() {
        assert_eq!(contents(r#"UPDATE t SET a = 1 /*Bemi {"a":1} Bemi*/"#), [r#"{"a":1}"#]);
        assert_eq!(contents(r#"/*Bemi{"a":1}Bemi*/UPDATE t SET a = 1"#), [r#"{"a":1}"#]);
        assert_eq!(contents("UPDATE t /*Bemi\n{}\nBemi*/ SET a = 1; "), ["{}"]);
        assert_eq!(contents(r#"UPDATE t SET a = 1; /*Bemi {"a":1} Bemi*/"#), [r#"{"a":1}"#]);
        assert_eq!(contents("UPDATE t SET a = 2-/*Bemi {} Bemi*/1"), ["{}"]);
        assert_eq!(contents("/*Bemi {\"a\":1} Bemi*/ SELECT 1 /*Bemi {\"b\":1} Bemi*/"), ["{\"a\":1}", "{\"b\":1}"]);
        assert_eq!(contents("/*Bemi Bemi*/"), [""]);
    }

    #[test]
    fn text_that_only_looks_like_a_comment_does_not_count() {
        for sql in [
            "INSERT INTO t VALUES ('/*Bemi {} Bemi*/')",
            "INSERT INTO t VALUES ('it''s /*Bemi {} Bemi*/')",
            r"INSERT INTO t VALUES (E'it\'s /*Bemi {} Bemi*/')",
            "INSERT INTO t VALUES (E'a' -- more\n  '\\' /*Bemi {} Bemi*/')",
            r"INSERT INTO t VALUES ('\', '/*Bemi {} Bemi*/')",
            "INSERT INTO \"/*Bemi {} Bemi*/\" VALUES (1)",
            "INSERT INTO \"a\"\"/*Bemi {} Bemi*/\" VALUES (1)",
            "DO $$ /*Bemi {} Bemi*/ $$",
            "DO $é1$ $$ /*Bemi {} Bemi*/ $é1$",
            "SELECT 1 -- /*Bemi {} Bemi*/",
            "SELECT 1 /* /*Bemi {} Bemi*/ */",
            "SELECT '/*Bemi {} Bemi*/",
            "/*Bemiller*/ SELECT 1",
            "/*Bemi is what we use*/ SELECT 1",
        ] {
            assert_eq!(contents(sql), [""; 0], "{sql}");
        }
    }

    #[test]
    fn a_comment_after_such_text_still_counts() {
        for sql in [
            "INSERT INTO t VALUES ('/*Bemi', 'x') /*Bemi {} Bemi*/",
            r"INSERT INTO t VALUES ('\') /*Bemi {} Bemi*/",
            r"INSERT INTO t VALUES (E'\\') /*Bemi {} Bemi*/",
            r"INSERT INTO t VALUES (type'\') /*Bemi {} Bemi*/",
            "SELECT a$b$ /*Bemi {} Bemi*/ , c$b$",
            "SELECT $1 /*Bemi {} Bemi*/ , $2",
            "SELECT $ /*Bemi {} Bemi*/",
            "SELECT 1 -- it's\n /*Bemi {} Bemi*/",
            "SELECT E'a' '\\' /*Bemi {} Bemi*/",
            "/* it's /* nested */ */ SELECT 1 /*Bemi {} Bemi*/",
        ] {
            assert_eq!(contents(sql), ["{}"], "{sql}");
        }
    }

    #[test]
    fn where_backslashes_may_have_escaped_a_comment_is_ambiguous() {
        let states = |sql: &str, strings| -> Vec<State> {
            Outline::read(sql.as_bytes(), strings).comments.iter().map(|comment| comment.state).collect()
        };
        for sql in [r"SELECT '\' /*Bemi {} Bemi*/'", r"SELECT '\'' /*Bemi {} Bemi*/ --'"] {
            assert!(states(sql, Strings::Standard).iter().all(|state| *state == State::Whole), "{sql}");
            assert_eq!(states(sql, Strings::Unsure), [State::Ambiguous], "{sql}");
        }
        assert_eq!(states(r"SELECT '\\' /*Bemi {} Bemi*/", Strings::Unsure), [State::Whole]);
        assert_eq!(states("SELECT '' /*Bemi {} Bemi*/", Strings::Unsure), [State::Whole]);
        assert!(read(b"{}", State::Ambiguous, 100).is_err());
    }

    #[test]
    fn each_statement_of_a_text_has_its_own_comments() {
        let sql =
            "INSERT 1 /*Bemi {\"n\":1} Bemi*/; /*Bemi {\"n\":2} Bemi*/ INSERT 2; INSERT 3; /*Bemi {\"n\":3} Bemi*/ ;";
        assert_eq!(statement_contents(sql, "INSERT 1 /*Bemi {\"n\":1} Bemi*/"), ["{\"n\":1}"]);
        // The server says where a statement begins: up to version 17 right behind the semicolon, later at its first
        // token.
        assert_eq!(statement_contents(sql, " /*Bemi {\"n\":2} Bemi*/ INSERT 2"), ["{\"n\":2}"]);
        assert_eq!(statement_contents(sql, "INSERT 2"), ["{\"n\":2}"]);
        assert_eq!(statement_contents(sql, "INSERT 3"), ["{\"n\":3}"]);
        let sql = "INSERT 1; INSERT 2 /*Bemi {} Bemi*/";
        assert_eq!(statement_contents(sql, "INSERT 1"), [""; 0]);
    }

    #[test]
    fn where_nobody_says_which_statement_runs_comments_count_for_an_only_one() {
        let count = |sql: &str| Outline::read(sql.as_bytes(), Strings::Standard).comments(None).len();
        assert_eq!(count("/*Bemi {} Bemi*/ INSERT 1 /*Bemi {} Bemi*/; /*Bemi {} Bemi*/"), 3);
        assert_eq!(count("INSERT 1 /*Bemi {} Bemi*/; COMMIT"), 0);
        assert_eq!(count("/*Bemi {} Bemi*/"), 1);
    }

    #[test]
    fn unterminated_comments_are_malformed() {
        let sql = "UPDATE t SET a = 1 /*Bemi {\"a\":1} */";
        let outline = Outline::read(sql.as_bytes(), Strings::Standard);
        let [comment] = outline.comments(None) else { panic!("one comment") };
        assert_eq!((&sql[comment.content.clone()], comment.state), ("{\"a\":1}", State::Unterminated));
        assert!(matches!(read(b"{\"a\":1}", comment.state, 100), Err(ContextError::Syntax(_))));
        assert_eq!(contents("UPDATE t SET a = 1 /*Bemi %7B%22a"), ["%7B%22a"]);
    }

    #[test]
    fn url_quoted_contexts_are_read() {
        let context = read(b"%7B%22a%22%3A%20%22100%25%20%C3%A9%22%7d", State::Whole, 100).unwrap();
        assert_eq!(context.to_json(Charset::Utf8), r#"{"a":"100% é"}"#);
        let context = read(br#"{"a":"100%25"}"#, State::Whole, 100).unwrap();
        assert_eq!(context.to_json(Charset::Utf8), r#"{"a":"100%25"}"#);
        assert!(read(b"%7B%22a%2", State::Whole, 100).is_err());
    }

    #[test]
    fn the_size_of_a_comment_is_limited() {
        assert_eq!(read(b"{\"a\":1}", State::Whole, 6), Err(ContextError::TooLong(7, 6)));
    }

    #[test]
    fn the_text_of_a_statement_is_given_without_its_comments() {
        let text = |sql: &str, statement: Range<usize>| {
            let outline = Outline::read(sql.as_bytes(), Strings::Standard);
            let comments = outline.comments(Some(statement.clone()));
            String::from_utf8(text_without(sql.as_bytes(), statement, comments)).unwrap()
        };
        let sql = "/*Bemi {} Bemi*/ UPDATE t /* why */ SET a = 1 /*Bemi {} Bemi*/ ;";
        assert_eq!(text(sql, 0..sql.len()), "UPDATE t /* why */ SET a = 1");
        assert_eq!(text("INSERT 1; INSERT 2 /*Bemi {} Bemi*/;", 9..35), "INSERT 2");
        assert_eq!(text("INSERT 1; /*Bemi {} Bemi*/", 0..8), "INSERT 1");
        assert_eq!(text(";", 0..1), "");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_panic(sql in "[-/*Bemi{}'\"$a;\\\\E \n%7]{0,60}", from in 0usize..70, to in 0usize..70, plain: bool) {
            let sql = sql.as_bytes();
            let statement = from.min(sql.len())..to.max(from).min(sql.len());
            let outline = Outline::read(sql, if plain { Strings::Standard } else { Strings::Unsure });
            let comments = outline.comments(Some(statement.clone()));
            text_without(sql, statement, comments);
            for comment in outline.comments(None) {
                let _ = read(&sql[comment.content.clone()], comment.state, 1000);
            }
        }

        #[test]
        fn a_comment_behind_a_quoted_text_is_found_and_nothing_in_it(value in "\\PC{0,40}", context in "[a-z]{0,10}") {
            let value = format!("{value}/*Bemi {{}} Bemi*/");
            let quoted = [
                format!("'{}'", value.replace('\'', "''")),
                format!("E'{}'", value.replace('\\', "\\\\").replace('\'', "\\'")),
                format!("\"{}\"", value.replace('"', "\"\"")),
                format!("$tag_{context}${}$tag_{context}$", value.replace('$', "")),
            ];
            for quoted in quoted {
                let sql = format!("INSERT INTO t VALUES ({quoted}) /*Bemi {{\"a\":\"{context}\"}} Bemi*/");
                proptest::prop_assert_eq!(contents(&sql), [format!("{{\"a\":\"{context}\"}}")]);
            }
        }
    }
}
