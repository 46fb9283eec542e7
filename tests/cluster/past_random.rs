//! Random changes with random migrations between them. The rows of each time are kept in a table that goes through the same
//! migrations, so that the server itself says what they are today. `BEMI_FUZZ_SEED` repeats a run, `BEMI_FUZZ_STEPS=200`
//! makes it longer.
use std::collections::BTreeMap;

use postgres::Client;
use serde_json::Value;

use crate::Test;
use crate::random::Random;
use crate::recorder::recording;
use crate::server::{Notices, Server, run};
use crate::sources::{dump, restore};

pub const TESTS: &[Test] = &[
    ("the_past_behind_random_migrations_is_exact_or_the_column_that_is_not_is_told", |server| property(server, false)),
    ("the_past_behind_random_migrations_and_a_restore_is_exact_or_refused", |server| property(server, true)),
];

const SETUP: &str = "
  CREATE TYPE mood AS ENUM ('m0', 'm1', 'm2'); CREATE TYPE pair AS (a0 mood, b0 text); CREATE DOMAIN calm AS pair; CREATE TYPE span AS RANGE (subtype = mood); CREATE DOMAIN small AS int;
  CREATE TABLE m (id int PRIMARY KEY, c0 int, c1 text, c2 mood, c3 pair, c4 calm, c5 mood[], c6 timestamp, c7 numeric, c8 pair[], c9 varchar(30), c10 date, c11 span, c12 small);
  CREATE SCHEMA kept; CREATE TABLE kept.rows (LIKE m); ALTER TABLE kept.rows ADD at_step int; SELECT bemi.track('m')";

/// The kind of the columns that are computed, and by what.
const GENERATED: &str = "generated";
const FACTOR: i32 = 1001;

/// The table as it is now.
struct State {
    /// Names and kinds of values.
    columns: Vec<(String, &'static str)>,
    labels: Vec<String>,
    attributes: Vec<(String, bool)>,
    /// Columns that were added, by their names of now.
    late: Vec<String>,
    names: u32,
}

impl State {
    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}_{}", self.names)
    }

    fn label(&self, random: &mut Random) -> String {
        random.one_of(&self.labels).clone()
    }

    fn pair(&self, random: &mut Random) -> String {
        let members: Vec<String> = self
            .attributes
            .iter()
            .map(
                |(_, is_label)| {
                    if *is_label { format!("'{}'", self.label(random)) } else { format!("'t {}'", random.below(9)) }
                },
            )
            .collect();
        format!("ROW({})::pair", members.join(", "))
    }

    fn value(&self, kind: &str, random: &mut Random) -> String {
        if random.once_in(7) {
            return "NULL".to_owned();
        }
        let number = random.below(1000);
        match kind {
            "int" | "bigint" | "small" => number.to_string(),
            "numeric" => format!("{number}.{}", random.below(100)),
            "mood" => format!("'{}'", self.label(random)),
            "mood[]" => format!("ARRAY['{}', NULL, '{}']::mood[]", self.label(random), self.label(random)),
            "span" => format!("span('{}', NULL)", self.label(random)),
            "pair" | "calm" => self.pair(random),
            "pair[]" => format!("ARRAY[{}, NULL]::pair[]", self.pair(random)),
            "timestamp" | "timestamptz" => format!("'2026-01-{:02} 0{}:30'", number % 28 + 1, number % 10),
            "date" => format!("'2026-02-{:02}'", number % 28 + 1),
            _ => format!("'v {number}'"),
        }
    }

    /// Statements that change rows.
    fn change(&self, random: &mut Random) -> String {
        let id = random.below(6);
        let columns: Vec<&(String, &str)> = self.columns.iter().filter(|(_, kind)| *kind != GENERATED).collect();
        let (name, kind) = random.one_of(&columns);
        match random.below(4) {
            0 => format!("DELETE FROM m WHERE id = {id}"),
            1 => format!("UPDATE m SET {name} = {} WHERE id = {id}", self.value(kind, random)),
            _ => {
                let names: Vec<&str> = columns.iter().map(|(name, _)| &name[..]).collect();
                let values: Vec<String> = columns.iter().map(|(_, kind)| self.value(kind, random)).collect();
                let sets: Vec<String> = names.iter().map(|name| format!("{name} = EXCLUDED.{name}")).collect();
                format!(
                    "INSERT INTO m (id, {}) VALUES ({id}, {}) ON CONFLICT (id) DO UPDATE SET {}",
                    names.join(", "),
                    values.join(", "),
                    sets.join(", ")
                )
            }
        }
    }

    /// What a column of a kind may become, and by which expression.
    fn next_type(kind: &str, random: &mut Random) -> Option<(&'static str, &'static str)> {
        let ways: &[(&str, &str)] = match kind {
            "int" => &[("bigint", ""), ("numeric", ""), ("text", ""), ("int", "# * 2"), ("small", "")],
            "small" => &[("bigint", ""), ("int", ""), ("text", ""), ("small", "# + 3")],
            "bigint" => &[("numeric", ""), ("text", "#::text"), ("bigint", "# + 1")],
            "numeric" => &[("text", ""), ("int", ""), ("numeric", "# / 2")],
            "mood" => &[("text", ""), ("text", "#::text")],
            "timestamp" => &[("timestamptz", ""), ("text", ""), ("date", "")],
            "timestamptz" => &[("timestamp", ""), ("text", "")],
            "date" => &[("timestamp", ""), ("text", ""), ("timestamptz", "#::timestamptz")],
            "text" => &[("varchar(40)", ""), ("text", "# || '!'")],
            "varchar(30)" | "varchar(40)" => &[("text", ""), ("varchar(40)", "")],
            _ => return None,
        };
        Some(*random.one_of(ways))
    }

    /// Statements on the table and on what is kept, and the column that an expression changed.
    fn migration(&mut self, random: &mut Random) -> (String, Option<String>) {
        let both = |statement: &str| format!("ALTER TABLE m {statement}; ALTER TABLE kept.rows {statement}");
        let place = random.below(self.columns.len() as u64) as usize;
        match random.below(14) {
            0 | 1 => {
                let name = self.name("r");
                let old = std::mem::replace(&mut self.columns[place].0, name.clone());
                self.late.iter_mut().filter(|late| **late == old).for_each(|late| late.clone_from(&name));
                (both(&format!("RENAME {old} TO {name}")), None)
            }
            2 => {
                let name = self.name("n");
                self.columns.push((name.clone(), "int"));
                self.late.push(name.clone());
                (format!("ALTER TABLE m ADD {name} int DEFAULT 5; ALTER TABLE kept.rows ADD {name} int"), None)
            }
            3 if self.columns.len() > 5 => {
                let (name, _) = self.columns.remove(place);
                (both(&format!("DROP {name}")), None)
            }
            4..=6 => {
                let (name, kind) = self.columns[place].clone();
                let Some((next, using)) = Self::next_type(kind, random) else { return self.migration(random) };
                let zone = random.one_of(&["UTC", "Asia/Kathmandu", "America/New_York"]);
                let cast =
                    if using.is_empty() { String::new() } else { format!(" USING {}", using.replace('#', &name)) };
                self.columns[place].1 = next;
                let is_known = using.is_empty() || using.starts_with("#::");
                let statement = both(&format!("ALTER {name} TYPE {next}{cast}"));
                (format!("SET TimeZone = '{zone}'; {statement}; SET TimeZone = 'UTC'"), (!is_known).then_some(name))
            }
            7 => {
                let label = self.name("l");
                self.labels.push(label.clone());
                (format!("ALTER TYPE mood ADD VALUE '{label}'"), None)
            }
            8 | 9 => {
                // Sometimes two change places.
                let (one, two) = (random.below(self.labels.len() as u64) as usize, random.below(3) as usize);
                let name = self.name("l");
                let old = std::mem::replace(&mut self.labels[one], name.clone());
                let mut statements = format!("ALTER TYPE mood RENAME VALUE '{old}' TO '{name}'");
                if one != two {
                    let other = std::mem::replace(&mut self.labels[two], old.clone());
                    statements += &format!("; ALTER TYPE mood RENAME VALUE '{other}' TO '{old}'");
                }
                (statements, None)
            }
            10 => {
                let name = self.name("a");
                if self.attributes.len() > 2 && random.once_in(2) {
                    let (old, _) = self.attributes.remove(random.below(self.attributes.len() as u64) as usize);
                    return (format!("ALTER TYPE pair DROP ATTRIBUTE {old}"), None);
                }
                let is_label = random.once_in(2);
                self.attributes.push((name.clone(), is_label));
                (format!("ALTER TYPE pair ADD ATTRIBUTE {name} {}", if is_label { "mood" } else { "text" }), None)
            }
            11 => {
                let name = self.name("k");
                let number = random.below(9) + 1;
                (format!("ALTER DOMAIN small ADD CONSTRAINT {name} CHECK (VALUE <> -{number})"), None)
            }
            12 => {
                let name = self.name("g");
                self.columns.push((name.clone(), GENERATED));
                self.late.push(name.clone());
                let statements = format!(
                    "ALTER TABLE m ADD {name} int GENERATED ALWAYS AS (id * {FACTOR}) STORED; ALTER TABLE kept.rows ADD {name} int"
                );
                (statements, None)
            }
            _ => {
                let place = random.below(self.attributes.len() as u64) as usize;
                let name = self.name("a");
                let old = std::mem::replace(&mut self.attributes[place].0, name.clone());
                (format!("ALTER TYPE pair RENAME ATTRIBUTE {old} TO {name}"), None)
            }
        }
    }
}

/// Rows by their keys.
fn rows(client: &mut Client, query: &str, what: &str) -> BTreeMap<i32, Value> {
    let found = client.query(query, &[]).unwrap_or_else(|error| panic!("{what}: {query}: {error:?}"));
    found.iter().map(|row| (row.get(0), serde_json::from_str(row.get::<_, &str>(1)).unwrap())).collect()
}

/// Asserts that rows are as they should be, or that the columns that are not were told.
fn same(
    expected: &BTreeMap<i32, Value>,
    found: &BTreeMap<i32, Value>,
    heard: &[String],
    (rewritten, late): (&[String], &[String]),
    what: &str,
) {
    let is_history = what.ends_with("history");
    assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>(), "{what}");
    for (id, row) in expected {
        for (column, value) in row.as_object().unwrap() {
            // A version of a row does not have what ADD COLUMN gave to it later.
            if is_history && late.contains(column) && found[id][column].is_null() {
                continue;
            }
            let told = format!("the column {column} of ");
            let is_told = rewritten.contains(column) && heard.iter().any(|notice| notice.contains(&told));
            assert!(
                found[id][column] == *value || is_told,
                "{what}: row {id}, {column}: {value} is {}; {heard:?}",
                found[id][column]
            );
        }
    }
    // What is told happened.
    for notice in heard {
        assert!(rewritten.iter().any(|column| notice.contains(&format!("column {column} of"))), "{what}: {notice}");
    }
}

struct Check<'a> {
    client: &'a mut Client,
    notices: &'a Notices,
    rewritten: &'a BTreeMap<usize, Vec<String>>,
    late: &'a [String],
    what: &'a str,
    /// The first step behind a restore: times before are across a gap.
    restored: usize,
}

impl Check<'_> {
    /// What was told, but for the gap behind a restore.
    fn heard(&self) -> Vec<String> {
        let mut heard = self.notices.take();
        heard.retain(|notice| self.restored == 0 || !notice.contains("changes are missing"));
        heard
    }

    /// Compares what the table was like behind a step.
    fn step(&mut self, step: usize, moment: &str) {
        let what = format!("{}, step {step}", self.what);
        let kept = format!("SELECT id, (to_jsonb(k) - 'at_step')::text FROM kept.rows k WHERE at_step = {step}");
        let expected = rows(self.client, &kept, &what);
        self.notices.take();
        let past = format!("SELECT id, to_jsonb(q)::text FROM bemi.as_of(NULL::m, '{moment}') q");
        if step < self.restored {
            let error = self.client.query(&past, &[]).expect_err(&what);
            let error = error.as_db_error().unwrap_or_else(|| panic!("{what}: {error:?}"));
            assert_eq!(error.code().code(), "55000", "{what}: {error:?}");
        } else {
            let found = rows(self.client, &past, &what);
            let rewritten: Vec<String> =
                self.rewritten.range(step..).flat_map(|(_, columns)| columns.clone()).collect();
            same(&expected, &found, &self.heard(), (&rewritten, self.late), &what);
        }
        for id in [step as i32 % 6, (step as i32 + 3) % 6] {
            let last = format!(
                "SELECT {id}, to_jsonb(\"row\")::text FROM (SELECT * FROM bemi.history(NULL::m, '{id}') h WHERE committed_at <= '{moment}' ORDER BY version DESC LIMIT 1) h WHERE operation <> 'DELETE'"
            );
            let found = rows(self.client, &last, &what);
            let expected =
                expected.iter().filter(|(key, _)| **key == id).map(|(key, row)| (*key, row.clone())).collect();
            let heard = self.heard();
            let all: Vec<String> = self.rewritten.values().flatten().cloned().collect();
            same(&expected, &found, &heard, (&all, self.late), &format!("{what}, history"));
        }
    }
}

/// Undoes all changes behind a step, as far as they can be, and compares the rows of which all were undone.
fn undo(check: &mut Check, step: usize, moment: &str) -> usize {
    let what = format!("{}, revert to step {step}", check.what);
    let kept = format!("SELECT id, (to_jsonb(k) - 'at_step')::text FROM kept.rows k WHERE at_step = {step}");
    let expected = rows(check.client, &kept, &what);
    run(check.client, "BEGIN; SET CONSTRAINTS ALL DEFERRED");
    let all = format!(
        "SELECT primary_key::int, status, COALESCE(detail, '') FROM bemi.revert(relation => 'm', since => '{moment}', on_conflict => 'skip')"
    );
    let done = check.client.query(&all, &[]).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let found = rows(check.client, "SELECT id, to_jsonb(m)::text FROM m", &what);
    run(check.client, "ROLLBACK");
    let mut statuses: BTreeMap<i32, Vec<(String, String)>> = BTreeMap::new();
    for row in &done {
        statuses.entry(row.get(0)).or_default().push((row.get(1), row.get(2)));
    }
    let rewritten: Vec<&String> = check.rewritten.range(step..).flat_map(|(_, columns)| columns).collect();
    let mut exact = 0;
    for (id, undone) in &statuses {
        // What is not undone says why.
        assert!(undone.iter().all(|(status, detail)| status == "reverted" || !detail.is_empty()), "{what}: {undone:?}");
        if !undone.iter().all(|(status, _)| status == "reverted") {
            continue;
        }
        exact += 1;
        assert_eq!(expected.contains_key(id), found.contains_key(id), "{what}: row {id}");
        let (Some(expected), Some(found)) = (expected.get(id), found.get(id)) else { continue };
        for (column, value) in expected.as_object().unwrap() {
            let is_known = !rewritten.contains(&column) && !check.late.contains(column);
            assert!(!is_known || found[column] == *value, "{what}: row {id}, {column}: {value} is {}", found[column]);
        }
    }
    exact
}

/// Has a dump of the database restored into another one, which records from then on.
fn restored(server: &Server, client: &mut Client, name: &str) -> Client {
    run(client, "SELECT bemi.sync(); SELECT bemi.stop(drop_slot => true)");
    let file = dump(server, name);
    let mut other = restore(server, &format!("{name}_restored"), &file);
    run(&mut other, "SELECT bemi.start(accept_gap => true); SELECT bemi.sync(); SET TimeZone = 'UTC'");
    other
}

fn property(server: &Server, with_restore: bool) {
    let seed: u64 = match std::env::var("BEMI_FUZZ_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(),
    };
    let steps = std::env::var("BEMI_FUZZ_STEPS").map_or(40, |steps| steps.parse().unwrap());
    println!("past: BEMI_FUZZ_SEED={seed}");
    let mut random = Random::new(seed);
    let name = if with_restore { "past_restored" } else { "past_random" };
    let (database, mut client, _stop) = recording(server, name);
    let mut now_in = database.name.clone();
    let mut behind_restore = 0;
    run(&mut client, SETUP);
    run(&mut client, "SET TimeZone = 'UTC'");
    let kinds = [
        "int",
        "text",
        "mood",
        "pair",
        "calm",
        "mood[]",
        "timestamp",
        "numeric",
        "pair[]",
        "varchar(30)",
        "date",
        "span",
        "small",
    ];
    let mut state = State {
        columns: kinds.iter().enumerate().map(|(number, kind)| (format!("c{number}"), *kind)).collect(),
        labels: ["m0", "m1", "m2"].map(str::to_owned).to_vec(),
        attributes: vec![("a0".to_owned(), true), ("b0".to_owned(), false)],
        late: Vec::new(),
        names: 0,
    };
    let mut moments = Vec::new();
    let mut rewritten: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut log = Vec::new();
    for step in 0..steps {
        if with_restore && step == steps / 2 {
            client = restored(server, &mut client, name);
            now_in = format!("{name}_restored");
            behind_restore = step;
        }
        for _ in 0..random.between(1, 5) {
            let statement = state.change(&mut random);
            client.batch_execute(&statement).unwrap_or_else(|error| panic!("seed {seed}: {statement}: {error:?}"));
            log.push(statement);
        }
        run(&mut client, "SELECT pg_sleep(0.002)");
        let names: Vec<&str> = state.columns.iter().map(|(name, _)| &name[..]).collect();
        let names = names.join(", ");
        run(&mut client, &format!("INSERT INTO kept.rows (at_step, id, {names}) SELECT {step}, id, {names} FROM m"));
        moments.push(client.query_one("SELECT clock_timestamp()::text", &[]).unwrap().get::<_, String>(0));
        run(&mut client, "SELECT pg_sleep(0.002)");
        let renamed: Vec<String> = state.columns.iter().map(|(name, _)| name.clone()).collect();
        let (statements, column) = state.migration(&mut random);
        run(&mut client, &statements);
        // What was told under an old name is told under the new one.
        for (old, (new, _)) in renamed.iter().zip(&state.columns) {
            if renamed.len() == state.columns.len() && old != new {
                rewritten.values_mut().flatten().filter(|name| *name == old).for_each(|name| name.clone_from(new));
            }
        }
        rewritten.entry(step).or_default().extend(column);
        log.push(statements);
    }
    let what = format!("seed {seed}: {log:#?}");
    let (mut reader, notices) = server.connect_listening(&now_in, "postgres");
    reader.batch_execute("SET TimeZone = 'UTC'").unwrap();
    let (rewritten, late) = (&rewritten, &state.late[..]);
    let mut check =
        Check { client: &mut reader, notices: &notices, rewritten, late, what: &what, restored: behind_restore };
    let mut exact = 0;
    for step in [steps - 2, steps - 3, steps - 4, steps - 6, steps * 3 / 4, behind_restore, 0] {
        exact += undo(&mut check, step, &moments[step]);
    }
    println!("{exact} rows were undone whole");
    // No value that is recorded would be let in today.
    run(&mut client, "ALTER DOMAIN small ADD CHECK (VALUE < 0) NOT VALID");
    for (step, moment) in moments.iter().enumerate() {
        check.step(step, moment);
    }
    if with_restore {
        run(&mut client, "SELECT bemi.stop(drop_slot => true)");
    }
}
