//! As much of the server's lexer (scan.l) as it takes to tell comments and semicolons from everything else.
#![forbid(unsafe_code)]

use std::ops::Range;

use memchr::{memchr2, memmem};

/// White space between tokens.
pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C)
}

/// What the lexer tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// `/* … */`, with the comments inside of it.
    BlockComment,
    /// `-- …` up to the end of the line.
    LineComment,
    /// `;`
    Semicolon,
    /// A string, a name, or a part of anything else.
    Other,
}

/// Reads the tokens of a text, one after the other.
pub struct Lexer<'a> {
    sql: &'a [u8],
    at: usize,
    plain_backslashes: bool,
}

impl<'a> Lexer<'a> {
    /// Begins at the start of a text. `plain_backslashes` says whether a backslash in an ordinary string is just a
    /// backslash.
    pub fn new(sql: &'a [u8], plain_backslashes: bool) -> Self {
        Self { sql, at: 0, plain_backslashes }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.sql.get(self.at + ahead).copied()
    }

    /// The next token, and where it stands.
    pub fn next_token(&mut self) -> Option<(Token, Range<usize>)> {
        while self.peek(0).is_some_and(is_space) {
            self.at += 1;
        }
        let start = self.at;
        let byte = self.peek(0)?;
        let token = match (byte, self.peek(1)) {
            (b'/', Some(b'*')) => {
                self.skip_block_comment();
                Token::BlockComment
            }
            (b'-', Some(b'-')) => {
                self.skip_line();
                Token::LineComment
            }
            (b'\'', _) => {
                self.skip_string(!self.plain_backslashes);
                Token::Other
            }
            // Only here does a string's prefix change how it ends; B, X, N and U& do not.
            (b'e' | b'E', Some(b'\'')) => {
                self.at += 1;
                self.skip_string(true);
                Token::Other
            }
            (b'"', _) => {
                self.at += 1;
                self.skip_to_quote(b'"', false);
                Token::Other
            }
            (b'$', _) => {
                self.skip_dollar();
                Token::Other
            }
            (b';', _) => {
                self.at += 1;
                Token::Semicolon
            }
            _ if is_name_start(byte) => {
                // A dollar sign inside of a name belongs to the name and quotes nothing.
                while self.peek(0).is_some_and(|b| is_name_start(b) || b.is_ascii_digit() || b == b'$') {
                    self.at += 1;
                }
                Token::Other
            }
            _ => {
                self.at += 1;
                Token::Other
            }
        };
        Some((token, start..self.at))
    }

    /// Block comments nest.
    fn skip_block_comment(&mut self) {
        let mut depth = 0usize;
        while let Some(found) = memchr2(b'/', b'*', &self.sql[self.at..]) {
            self.at += found;
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
        self.at = self.sql.len();
    }

    fn skip_line(&mut self) {
        self.at = memchr2(b'\n', b'\r', &self.sql[self.at..]).map_or(self.sql.len(), |found| self.at + found);
    }

    /// Skips a string from its opening quote on, and the strings that continue it on further lines, which are read by
    /// the same rules even without its prefix.
    fn skip_string(&mut self, backslash_escapes: bool) {
        loop {
            self.at += 1;
            self.skip_to_quote(b'\'', backslash_escapes);
            let end = self.at;
            let mut has_newline = false;
            loop {
                match (self.peek(0), self.peek(1)) {
                    (Some(b), _) if is_space(b) => {
                        has_newline |= matches!(b, b'\n' | b'\r');
                        self.at += 1;
                    }
                    (Some(b'-'), Some(b'-')) => self.skip_line(),
                    _ => break,
                }
            }
            if !has_newline || self.peek(0) != Some(b'\'') {
                self.at = end;
                return;
            }
        }
    }

    /// Goes behind the next `quote` that is not doubled (nor escaped, where backslashes escape).
    fn skip_to_quote(&mut self, quote: u8, backslash_escapes: bool) {
        let escape = if backslash_escapes { b'\\' } else { quote };
        while let Some(found) = memchr2(quote, escape, &self.sql[self.at..]) {
            self.at += found;
            if self.peek(0) == Some(quote) && self.peek(1) != Some(quote) {
                self.at += 1;
                return;
            }
            self.at = (self.at + 2).min(self.sql.len());
        }
        self.at = self.sql.len();
    }

    /// A dollar sign begins a parameter (`$1`), a dollar-quoted string (`$tag$…$tag$`), or stands for itself.
    fn skip_dollar(&mut self) {
        let tag = self.sql[self.at + 1..]
            .iter()
            .position(|b| !(is_name_start(*b) || b.is_ascii_digit()))
            .map(|length| &self.sql[self.at..self.at + length + 2])
            .filter(|tag| tag.ends_with(b"$") && !tag[1].is_ascii_digit());
        let Some(tag) = tag else {
            self.at += 1;
            return;
        };
        let body = self.at + tag.len();
        self.at = memmem::find(&self.sql[body..], tag).map_or(self.sql.len(), |found| body + found + tag.len());
    }
}

fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}
