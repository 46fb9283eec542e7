//! A change runs through the stages context, trigger, decoder, recorder and history. A module may import only what
//! [`MAY_IMPORT`] lists for it: of the stages, the one before it. The pure halves import nothing of the server.
//!
//! Sources are read as tokens, so that comments and texts do not count, and what stands in a macro does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

/// What several stages share: the document between them, and the settings under which values are written and read.
const SHARED: &[&str] = &["document", "pinned"];

/// What each module at the top of src may import besides itself and [`SHARED`]: whole modules, or parts of them.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("context", &["sys"]),
    ("trigger", &["sys", "context"]),
    // The trigger carries the rules of tracking.
    ("decoder", &["sys", "trigger", "tracking::rules"]),
    ("recorder", &["sys", "decoder"]),
    // The values of the past are written as the decoder writes them.
    ("history", &["sys", "recorder", "decoder::pg::shown"]),
    ("tracking", &["sys"]),
    // Tests that compare the SQL with what Rust says of the same.
    ("scripts", &["recorder::row", "recorder::state"]),
];

/// The parts of the server: only `sys`, folders and files named `pg`, and what is only compiled into them import these.
const OF_SERVER: [&str; 2] = ["sys", "pg"];

#[test]
fn no_module_imports_what_it_may_not() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut problems = Vec::new();
    let files = rust_files(&src);
    for file in &files {
        let name = file.strip_prefix(&src).unwrap().to_str().unwrap();
        problems.extend(problems_of(name, &fs::read_to_string(file).unwrap()));
    }
    assert!(files.len() > 50, "src was not found: {files:?}");
    assert!(problems.is_empty(), "a module imports what it may not:\n{}", problems.join("\n"));
}

#[test]
fn every_form_of_an_import_is_found() {
    for (file, source) in [
        // A stage behind it.
        ("context/pg/session.rs", "use crate::decoder::encode::lsn;"),
        ("context/pg/session.rs", "use crate::{document, recorder::{row as r}};"),
        ("context/pg/session.rs", "use super::super::super::trigger;"),
        ("context/pg.rs", "use super::super::{trigger::emit};"),
        ("context/pg/mod.rs", "use super::super::{trigger::emit};"),
        ("context/comment.rs", "mod tests { use super::super::super::trigger; }"),
        ("context/comment.rs", "fn f() { let x = crate::decoder::encode::lsn(1); }"),
        ("context/comment.rs", "fn f() { assert_eq!(1, { crate::decoder::encode::lsn(1) }); }"),
        ("sys/guc.rs", "macro_rules! m { () => { $crate::context::pg::init() }; }"),
        ("sys/guc.rs", "pub use crate::context::pg::gucs;"),
        ("document/write.rs", "use crate::context;"),
        ("unlisted/part.rs", "use crate::document::json;"),
        // Two stages before it, or a part that is not listed.
        ("recorder/pg/worker.rs", "use crate::trigger::emit;"),
        ("history/versions.rs", "use crate::decoder;"),
        ("history/versions.rs", "use crate::decoder::{options};"),
        // What is another's, handed on.
        ("trigger/pg.rs", "pub use crate::context::pg::gucs;"),
        ("trigger/pg.rs", "pub(crate) use crate::context::pg::{gucs as settings};"),
        // All there is.
        ("trigger/pg.rs", "use crate::*;"),
        ("trigger/pg.rs", "use crate::{self as bemi};"),
        ("trigger/pg.rs", "use crate as bemi;"),
        ("trigger/pg.rs", "use super::super::*;"),
        // The server, in a pure half.
        ("context/comment.rs", "use crate::sys::encoding;"),
        ("context/comment.rs", "use super::pg::session;"),
        ("context/comment.rs", "use pgrx::pg_sys;"),
        ("context/comment.rs", "fn f() -> ::pgrx::pg_sys::Oid { todo!() }"),
    ] {
        assert_eq!(problems_of(file, source).len(), 1, "{file}: {source}: {:?}", problems_of(file, source));
    }
}

#[test]
fn what_may_be_imported_is() {
    for (file, source) in [
        ("context/pg/session.rs", "use crate::sys::guc; use super::gucs; use super::super::value; use pgrx::pg_sys;"),
        ("context/comment.rs", "use super::lexer; use crate::context::value; use self::inner::*; mod inner {}"),
        ("context/comment.rs", "mod tests { use super::*; use super::super::lexer; use proptest::prelude::*; }"),
        ("context/comment.rs", "/* use crate::decoder; */ // crate::decoder\nconst A: &str = \"crate::decoder\";"),
        ("context/mod.rs", "pub mod value; pub use value::Value; #[cfg(feature = \"pgrx\")] pub mod pg;"),
        ("context/pg/mod.rs", "mod session; pub use session::revision; pub use super::value::Value;"),
        ("trigger/pg.rs", "mod hooks; use super::emit::Written; use crate::context::pg::{gucs, statement};"),
        ("trigger/pg/hooks.rs", "use crate::sys::executor; fn f() { super::begin() }"),
        ("history/versions.rs", "use crate::document::numeric::{max_len, numeric};"),
        ("lib.rs", "pub mod context; fn f() { crate::trigger::pg::init() }"),
    ] {
        assert_eq!(problems_of(file, source), Vec::<String>::new(), "{file}: {source}");
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Returns what a file imports that it may not; `file` is its path in src.
fn problems_of(file: &str, source: &str) -> Vec<String> {
    let mut module: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|name| name == "mod" || name == "lib") {
        module.pop();
    }
    let Some(own) = module.first().cloned() else { return Vec::new() };
    let mut found = Vec::new();
    find(source.parse().unwrap_or_else(|error| panic!("{file}: {error}")), &module, &mut found);
    let is_of_server = module.iter().any(|name| OF_SERVER.contains(&name.as_str()));
    let own_list = MAY_IMPORT.iter().find(|(name, _)| *name == own);
    let shared = SHARED.iter().filter(|_| own_list.is_some() || SHARED.contains(&own.as_str()));
    let allowed: Vec<&str> = own_list.map_or(&[][..], |(_, allowed)| allowed).iter().chain(shared).copied().collect();
    let mut problems = Vec::new();
    for Found { line, path, is_handed_on } in found {
        let text = path.join("::");
        let reason =
            if path.iter().any(|name| name == "pgrx") || path.iter().any(|name| OF_SERVER.contains(&name.as_str())) {
                (!is_of_server).then_some("a pure half does not know the server")
            } else {
                None
            };
        let is_own = path.first().is_some_and(|name| *name == own || name == "pgrx");
        let is_allowed = allowed.iter().any(|allowed| format!("{text}::").starts_with(&format!("{allowed}::")));
        let reason = match reason {
            Some(reason) => Some(reason),
            None if is_own => None,
            None if !is_allowed => Some("not listed in MAY_IMPORT"),
            None => is_handed_on.then_some("it is handed on"),
        };
        problems.extend(reason.map(|reason| format!("src/{file}:{line}: {text}: {reason}")));
    }
    problems
}

/// A path in a source, from the top of the crate on, or one of pgrx.
struct Found {
    line: usize,
    path: Vec<String>,
    /// Whether a `pub use` hands it on.
    is_handed_on: bool,
}

fn find(tokens: TokenStream, module: &[String], found: &mut Vec<Found>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut i = 0;
    while i < tokens.len() {
        let is_behind_path =
            i >= 2 && is_colons(&tokens[i - 2..]) && i >= 3 && matches!(tokens[i - 3], TokenTree::Ident(_));
        match &tokens[i] {
            TokenTree::Ident(name) if name == "mod" && is_inline_module(&tokens[i..]) => {
                let TokenTree::Group(body) = &tokens[i + 2] else { unreachable!() };
                let inner = [module, &[tokens[i + 1].to_string()]].concat();
                find(body.stream(), &inner, found);
                i += 3;
            }
            TokenTree::Ident(name)
                if !is_behind_path && ["crate", "super", "self", "pgrx"].contains(&name.to_string().as_str()) =>
            {
                let is_in_use = use_before(&tokens[..i]);
                let line = name.span().start().line;
                let start = match name.to_string().as_str() {
                    "crate" => Some(Vec::new()),
                    "super" => module.split_last().map(|(_, above)| above.to_vec()),
                    "self" => Some(module.to_vec()),
                    _ => Some(vec!["pgrx".to_owned()]),
                };
                // `pub(super)`, `&self` and the like are no paths; `use crate as x` and `use crate::*` are.
                if let Some(start) = start
                    && (is_colons(&tokens[i + 1..]) || is_in_use.is_some())
                {
                    i = follow(&tokens, i + 1, start, &mut |path| {
                        found.push(Found { line, path, is_handed_on: is_in_use == Some(true) });
                    });
                } else {
                    i += 1;
                }
            }
            TokenTree::Group(group) => {
                find(group.stream(), module, found);
                i += 1;
            }
            _ => i += 1,
        }
    }
}

/// Follows a path to its ends, of which a group has several; returns where it ends.
fn follow(tokens: &[TokenTree], mut i: usize, mut path: Vec<String>, each: &mut impl FnMut(Vec<String>)) -> usize {
    while is_colons(&tokens[i..]) {
        match tokens.get(i + 2) {
            Some(TokenTree::Ident(name)) if name == "super" => _ = path.pop(),
            Some(TokenTree::Ident(name)) if name == "self" => {}
            Some(TokenTree::Ident(name)) => path.push(name.to_string()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                follow_group(group, &path, each);
                return i + 3;
            }
            // `*`, or the arguments of a type.
            _ => break,
        }
        i += 3;
    }
    each(if path.is_empty() { vec!["*".to_owned()] } else { path });
    i
}

fn follow_group(group: &Group, path: &[String], each: &mut impl FnMut(Vec<String>)) {
    let members: Vec<TokenTree> = group.stream().into_iter().collect();
    for member in members.split(|token| matches!(token, TokenTree::Punct(comma) if comma.as_char() == ',')) {
        let mut path = path.to_vec();
        match member.first() {
            Some(TokenTree::Ident(name)) if name == "super" => _ = path.pop(),
            Some(TokenTree::Ident(name)) if name != "self" => path.push(name.to_string()),
            None => continue,
            _ => {}
        }
        follow(member, 1, path, each);
    }
}

/// Returns whether the tokens end with a `use` whose path begins behind them, and whether that is `pub`.
fn use_before(tokens: &[TokenTree]) -> Option<bool> {
    let behind = tokens.len().checked_sub(1)?;
    if !matches!(&tokens[behind], TokenTree::Ident(name) if name == "use") {
        return None;
    }
    let is_public =
        tokens[..behind].iter().rev().take(2).any(|token| matches!(token, TokenTree::Ident(name) if name == "pub"));
    Some(is_public)
}

fn is_inline_module(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [_, TokenTree::Ident(_), TokenTree::Group(body), ..] if body.delimiter() == Delimiter::Brace)
}

fn is_colons(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [TokenTree::Punct(a), TokenTree::Punct(b), ..]
        if a.as_char() == ':' && a.spacing() == Spacing::Joint && b.as_char() == ':')
}
