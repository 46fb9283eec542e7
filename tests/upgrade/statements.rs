//! SQL as a sequence of statements.

/// Returns the statements of a script, each with its semicolon; comments between them are left out.
pub fn split(sql: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = sql;
    loop {
        rest = skip_blank(rest);
        if rest.is_empty() {
            return found;
        }
        let end = end_of_statement(rest);
        found.push(&rest[..end]);
        rest = &rest[end..];
    }
}

/// Returns a statement in one line, without comments, to compare it with another one.
pub fn normal(statement: &str) -> String {
    let mut text = String::new();
    let mut at = 0;
    while at < statement.len() {
        let rest = &statement[at..];
        let token = token(rest);
        if rest.starts_with("--") || rest.starts_with(char::is_whitespace) {
            if !text.ends_with(' ') {
                text.push(' ');
            }
        } else {
            text += &rest[..token];
        }
        at += token;
    }
    text.replace("( ", "(").replace(" )", ")").trim().to_owned()
}

fn skip_blank(mut sql: &str) -> &str {
    loop {
        sql = sql.trim_start();
        if !sql.starts_with("--") {
            return sql;
        }
        sql = &sql[token(sql)..];
    }
}

fn end_of_statement(sql: &str) -> usize {
    let mut at = 0;
    while at < sql.len() {
        let length = token(&sql[at..]);
        if &sql[at..at + length] == ";" {
            return at + length;
        }
        at += length;
    }
    panic!("a statement has no end: {sql}");
}

/// Returns the length of what a script begins with: a comment, a string, a quoted name, or one character.
fn token(sql: &str) -> usize {
    let closed = |opening: usize, end: &str| {
        sql[opening..].find(end).map_or_else(|| panic!("no {end} ends {sql}"), |at| opening + at + end.len())
    };
    if sql.starts_with("--") {
        return sql.find('\n').unwrap_or(sql.len());
    }
    match sql.chars().next() {
        // A doubled quote is the end of one string and the beginning of the next.
        Some('\'') => closed(1, "'"),
        Some('"') => closed(1, "\""),
        Some('$') => match sql[1..].find('$') {
            Some(at) if sql[1..=at].chars().all(|c| c.is_ascii_alphabetic()) => closed(at + 2, &sql[..at + 2]),
            _ => 1,
        },
        character => character.map_or(0, char::len_utf8),
    }
}

#[test]
fn strings_bodies_and_comments_hide_semicolons() {
    let sql = "-- a; b\nSELECT ';', 'it''s;', \"x;\"; -- c;\nDO $do$ a; $query$ ; $query$ $do$;\n\nSELECT $1, $$;$$;\n";
    assert_eq!(
        split(sql),
        ["SELECT ';', 'it''s;', \"x;\";", "DO $do$ a; $query$ ; $query$ $do$;", "SELECT $1, $$;$$;"]
    );
}

#[test]
fn comments_and_white_space_make_no_difference() {
    assert_eq!(normal("CREATE TABLE a (\n  -- b\n  c  int\n);"), normal("CREATE TABLE a (c int);"));
    assert_ne!(normal("SELECT ' a  b';"), normal("SELECT ' a b';"));
}
