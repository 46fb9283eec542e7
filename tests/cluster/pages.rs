//! The SQL of README.md and of the pages in docs. psql runs it as it stands there, in order, each page in a database of
//! its own.
//!
//! A fence says what is done with its block:
//!
//! - `sql`: psql runs it. One session runs all blocks of a page.
//! - `sql template`: not run. It contains what only the reader knows, or needs what a test does not have.
//! - `text` directly after a block of SQL: the end of what psql prints for that block.
//! - `sh restart`: the server is restarted, and a new session runs the rest. Such a page has a server to itself, which
//!   begins without the settings that bemi needs.
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use crate::Test;
use crate::questions;
use crate::server::{Database, Server};

pub const TESTS: &[Test] = &[
    ("the_sql_of_each_page_runs_as_it_stands_and_prints_what_the_page_shows", pages_run),
    ("the_page_of_the_quickstart_takes_a_server_without_settings_and_one_restart", quickstart_runs),
    ("each_link_of_a_page_leads_somewhere", links_lead_somewhere),
    ("the_front_page_fits_on_150_lines", |_| assert!(read("README.md").lines().count() <= 150)),
];

/// How many blocks of a page are templates. A page that is not here has none.
const TEMPLATES: &[(&str, usize)] = &[
    // Names the libraries that the reader's server loads.
    ("docs/install.md", 1),
    // Takes two servers, and a list of tables on PostgreSQL 14.
    ("docs/tracking.md", 1),
];

/// A table of an application.
const TODO: &str = "CREATE TABLE todo (id int PRIMARY KEY, task text, is_completed boolean DEFAULT false);";

const TRACK: &str = "SELECT bemi.track_all()";

/// Makes what a page needs in its database. Returns texts of the page, such as times, with what replaces them.
fn fixture(page: &str, database: &Database) -> Vec<(&'static str, String)> {
    let mut client = database.connect();
    let (tables, statements) = match page {
        "docs/past.md" => return questions::fixture(&mut client),
        "docs/clients.md" => {
            ("CREATE TABLE todo (id serial PRIMARY KEY, task text, is_completed boolean DEFAULT false);", TRACK)
        }
        "docs/context.md" => (TODO, "CREATE ROLE billing; SELECT bemi.track_all()"),
        "docs/decoder.md" => (TODO, "INSERT INTO todo VALUES (26, 'Sleep'); SELECT bemi.track_all()"),
        "docs/tracking.md" => (
            TODO,
            "CREATE TABLE users (id int PRIMARY KEY, last_seen_at timestamptz, password text, iban text); \
             CREATE SCHEMA billing; CREATE TABLE billing.invoices (id int PRIMARY KEY)",
        ),
        "docs/operations.md" | "docs/security.md" => {
            client.batch_execute("SELECT bemi.start()").expect("the recorder starts");
            (TODO, TRACK)
        }
        _ => (TODO, TRACK),
    };
    client.batch_execute(tables).unwrap_or_else(|error| panic!("the tables of {page}: {error:?}"));
    client.batch_execute(statements).unwrap_or_else(|error| panic!("the fixture of {page}: {error:?}"));
    Vec::new()
}

/// A block of a page that the tests read.
#[derive(Debug)]
enum Block {
    Sql(String),
    Template,
    Output(String),
    Restart,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The pages whose SQL is run.
fn pages() -> Vec<String> {
    let entries = fs::read_dir(root().join("docs")).expect("the folder docs");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name in UTF-8"));
    let docs = names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}"));
    let mut pages: Vec<_> = std::iter::once("README.md".to_owned()).chain(docs).collect();
    pages.sort();
    pages
}

/// The blocks of a page, each with the number of the line behind its fence.
fn blocks(page: &str) -> Vec<(usize, Block)> {
    let text = read(page);
    let mut blocks = Vec::new();
    let mut lines = (1..).zip(text.lines());
    let mut is_behind_sql = false;
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let body: String = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "```")
            .fold(String::new(), |body, line| body + line + "\n");
        let block = match info {
            "sql" => Some(Block::Sql(body)),
            "sql template" => Some(Block::Template),
            "text" if is_behind_sql => Some(Block::Output(body)),
            "sh restart" => Some(Block::Restart),
            other => {
                assert!(!other.starts_with("sql"), "{page}:{number}: unknown fence {other:?}");
                None
            }
        };
        is_behind_sql = matches!(block, Some(Block::Sql(_)));
        blocks.extend(block.map(|block| (number + 1, block)));
    }
    blocks
}

fn needs_restart(page: &str) -> bool {
    blocks(page).iter().any(|(_, block)| matches!(block, Block::Restart))
}

/// Begins the line that psql prints before the output of a block, and that ends with the line of the block.
const MARK: &str = "-- line ";

/// Runs the blocks of a page up to its end or a restart, and compares what psql prints with what the page shows. An
/// error names the line of the page.
fn run(page: &str, database: &Database, blocks: &[(usize, Block)], stands_for: &[(&'static str, String)]) {
    let mut script = String::new();
    let mut written = 1;
    for (line, block) in blocks {
        let Block::Sql(sql) = block else { continue };
        // So that psql counts as the page does.
        script.extend(std::iter::repeat_n("\n", line - 1 - written));
        script += &format!("\\echo '{MARK}{line}'\n{sql}");
        written = line + sql.lines().count();
    }
    for (text, stands) in stands_for {
        script = script.replace(text, stands);
    }
    let mut psql = database.server.program("psql", &database.name);
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-P", "pager=off", "-P", "footer=off", "-f", "-"])
        .env("PGTZ", "UTC");
    psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = psql.spawn().expect("psql runs");
    let mut stdin = child.stdin.take().expect("its input");
    let writer = std::thread::spawn(move || stdin.write_all(script.as_bytes()));
    let output = child.wait_with_output().expect("psql ends");
    let _ = writer.join().expect("the script is written");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{page}: {errors}");
    let printed = String::from_utf8(output.stdout).expect("psql prints UTF-8");
    let outputs: BTreeMap<usize, &str> = printed
        .split(MARK)
        .skip(1)
        .map(|part| part.split_once('\n').expect("a mark is a line"))
        .map(|(line, output)| (line.parse().expect("the number of a line"), output))
        .collect();
    for pair in blocks.windows(2) {
        let [(line, Block::Sql(_)), (_, Block::Output(wanted))] = pair else { continue };
        let is_shown = trimmed(outputs[line]).ends_with(&trimmed(wanted));
        assert!(is_shown, "{page}:{line} prints\n{}\nand not\n{wanted}", outputs[line]);
    }
}

/// Returns a text without blanks at the ends of lines and without empty lines.
fn trimmed(text: &str) -> String {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    lines.fold("\n".to_owned(), |text, line| text + line + "\n")
}

fn pages_run(_: &Server) {
    let server = Server::start("");
    for page in &pages() {
        let blocks = blocks(page);
        let templates = blocks.iter().filter(|(_, block)| matches!(block, Block::Template)).count();
        let allowed = TEMPLATES.iter().find(|(name, _)| name == page).map_or(0, |(_, count)| *count);
        assert_eq!(templates, allowed, "blocks of {page} that are not run");
        if needs_restart(page) || !blocks.iter().any(|(_, block)| matches!(block, Block::Sql(_))) {
            continue;
        }
        let database = server.database("app");
        let stands_for = fixture(page, &database);
        run(page, &database, &blocks, &stands_for);
        let mut client = database.connect();
        if client.query_opt("SELECT FROM pg_extension WHERE extname = 'bemi'", &[]).expect("an answer").is_some() {
            client.batch_execute("SELECT bemi.stop(drop_slot => true)").expect("the recorder stops");
        }
        drop(client);
        server.connect("postgres").batch_execute("DROP DATABASE app WITH (FORCE)").expect("the database goes");
    }
    server.stop();
}

fn quickstart_runs(_: &Server) {
    let pages: Vec<_> = pages().into_iter().filter(|page| needs_restart(page)).collect();
    assert!(pages.iter().any(|page| page == "README.md"));
    for page in &pages {
        let server = Server::start("wal_level = replica\nshared_preload_libraries = ''\n");
        let mut client = server.connect("postgres");
        if client.query_opt("SELECT FROM pg_settings WHERE name = 'output_plugin_libraries'", &[]).unwrap().is_some() {
            client.batch_execute("ALTER SYSTEM SET output_plugin_libraries = pgoutput, test_decoding").unwrap();
            server.pg_ctl("reload");
        }
        drop(client);
        let database = server.bare_database("app");
        let blocks = blocks(page);
        assert_eq!(blocks.iter().filter(|(_, block)| matches!(block, Block::Restart)).count(), 1, "restarts of {page}");
        for (number, part) in blocks.split(|(_, block)| matches!(block, Block::Restart)).enumerate() {
            if number > 0 {
                server.pg_ctl("restart");
            }
            run(page, &database, part, &[]);
        }
        server.stop();
    }
}

/// Returns the anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let is_kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let kept: String = heading.to_lowercase().chars().filter(is_kept).collect();
    kept.replace(' ', "-")
}

fn anchors(text: &str) -> HashSet<String> {
    let mut is_code = false;
    let mut found = HashSet::new();
    for line in text.lines() {
        is_code ^= line.starts_with("```");
        if !is_code && line.starts_with('#') {
            found.insert(anchor(line.trim_start_matches('#').trim()));
        }
    }
    found
}

fn links_lead_somewhere(_: &Server) {
    let mut pages = pages();
    pages.extend(["clients/node/README.md", "CHANGELOG.md"].map(str::to_owned));
    let mut dead = Vec::new();
    for page in &pages {
        let text = read(page);
        let folder = root().join(page).parent().expect("a folder").to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
            if target.starts_with("http") {
                continue;
            }
            let (file, wanted) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { root().join(page) } else { folder.join(file) };
            let leads = match fs::read_to_string(&path) {
                Ok(text) => wanted.is_empty() || anchors(&text).contains(wanted),
                Err(_) => path.is_dir() && wanted.is_empty(),
            };
            if !leads {
                dead.push(format!("{page}: {target}"));
            }
        }
    }
    assert!(dead.is_empty(), "dead links: {dead:#?}");
}
