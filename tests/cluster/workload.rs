//! Random tables and random transactions of two sessions on them, whose images are kept.
//!
//! Keys are functions of a small number, so that they come and go and come again. Each session has numbers and rows of
//! its own, so that neither waits for the other.
use postgres::Client;

use crate::differential::TYPES;
use crate::past::Past;
use crate::random::Random;

type KeyType = (&'static str, fn(u64) -> String);

/// Types of keys, and an expression for the value of a number.
const KEYS: &[KeyType] = &[
    ("int4", |n| format!("({})", n as i64 - 7)),
    ("int8", |n| format!("{}", 9_007_199_254_740_990 + n)),
    ("text", hostile),
    ("text", hostile),
    ("uuid", |n| format!("md5('k{n}')::uuid")),
    ("timestamptz", |n| format!("('2026-03-29 00:59:58.999999+00'::timestamptz + {n} * interval '1.000001 s')")),
    ("numeric", |n| format!("({n} / 8.0)")),
    ("numeric(20,4)", |n| format!("(1.5 - {n})")),
    ("date", |n| format!("('2024-02-27'::date + {n})")),
    ("varchar(30)", |n| format!("'v{n}'")),
    ("bytea", |n| format!("decode('00ff{n:04x}', 'hex')")),
    ("bool", |n| format!("{}", n % 4 < 2)),
];

/// Texts that look like something else.
fn hostile(n: u64) -> String {
    const TEXTS: &[&str] = &[
        "",
        "null",
        " ",
        "\"",
        "\\",
        "é日",
        "[1]",
        "{\"a\":1}",
        "[\"1\",\"2\"]",
        "\n",
        "'",
        "$1",
        "%s",
        "a,b",
        "\t",
        "NULL",
        "\u{1}",
        "/*Bemi {} Bemi*/",
        "\\x00",
        "a''b",
        "🂡",
        "Z",
    ];
    let text = TEXTS[n as usize % TEXTS.len()];
    let suffix = if n < TEXTS.len() as u64 { String::new() } else { n.to_string() };
    format!("'{}{suffix}'", text.replace('\'', "''"))
}

/// Key numbers of a session.
const NUMBERS: u64 = 11;

pub struct Column {
    pub name: String,
    kind: &'static str,
    value: &'static str,
}

pub struct Key {
    pub name: String,
    kind: &'static str,
    value: fn(u64) -> String,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Plain,
    /// By ranges of the key, one of which has partitions of its own by lists.
    Range,
    /// By lists of a column of the key, which changes with the rest of it.
    List,
}

pub struct Table {
    /// With its schema, as SQL writes it.
    pub name: String,
    pub keys: Vec<Key>,
    columns: Vec<Column>,
    /// The column that tells whose row it is.
    lane: String,
    /// The names of columns that are to come.
    names: u64,
}

pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn list(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// Those that a value of `to_jsonb` can be read back into.
fn column(random: &mut Random, name: String) -> Column {
    loop {
        let (kind, value) = *random.one_of(TYPES);
        if kind != "hstore" {
            return Column { name, kind, value };
        }
    }
}

impl Table {
    /// A table, and the statements that make it.
    pub fn make(random: &mut Random, number: u64, kind: Kind) -> (Self, String) {
        let schema = *random.one_of(&["public", "o'th\"er", "Sch é"]);
        let odd = *random.one_of(&["", " x", "\"é", ".y", "'z"]);
        let relation = format!("t{number}{odd}");
        let name = format!("{}.{}", quoted(schema), quoted(&relation));
        let odd = *random.one_of(&["", " \"q\"", "é日", "\\", "$", "'"]);
        let mut keys = Vec::new();
        let key = |place: usize, (kind, value): KeyType| Key { name: format!("k{place}{odd}"), kind, value };
        match kind {
            // A bool is no key of its own.
            Kind::Plain => keys.push(key(0, KEYS[random.below(KEYS.len() as u64 - 1) as usize])),
            Kind::Range => keys.push(key(0, KEYS[0])),
            Kind::List => keys.push(key(0, *random.one_of(&KEYS[1..7]))),
        }
        match kind {
            Kind::Plain if random.once_in(2) => keys.push(key(1, *random.one_of(KEYS))),
            Kind::List => keys.push(key(1, ("text", |n| format!("'{}'", ["a", "b", "c", "é"][n as usize / 2 % 4])))),
            _ => {}
        }
        let count = random.between(1, 7);
        let columns: Vec<Column> = (0..count).map(|i| column(random, format!("c{i}{odd}"))).collect();
        let table = Self { name, keys, columns, lane: "lane".to_owned(), names: 0 };
        let text = table.definition(random, schema, &relation, kind);
        (table, text)
    }

    fn definition(&self, random: &mut Random, schema: &str, relation: &str, kind: Kind) -> String {
        let mut parts: Vec<String> =
            self.keys.iter().map(|key| format!("{} {} NOT NULL", quoted(&key.name), key.kind)).collect();
        parts.extend(self.columns.iter().map(|column| format!("{} {}", quoted(&column.name), column.kind)));
        parts.push("lane int NOT NULL".to_owned());
        let mut key = list(self.keys.iter().map(|key| quoted(&key.name)));
        if kind == Kind::Range {
            key += ", lane";
        }
        random.shuffle(&mut parts);
        let body = |parts: &[String], dropped: u64| {
            let mut parts = parts.to_vec();
            parts.insert(dropped as usize % parts.len(), "dropped int".to_owned());
            parts.join(", ")
        };
        let name = &self.name;
        let by = match kind {
            Kind::Plain => String::new(),
            Kind::Range => format!("PARTITION BY RANGE ({})", quoted(&self.keys[0].name)),
            Kind::List => format!("PARTITION BY LIST ({})", quoted(&self.keys[1].name)),
        };
        let mut text = format!(
            "CREATE SCHEMA IF NOT EXISTS {};
             CREATE TABLE {name} ({}, PRIMARY KEY ({key})) {by};
             ALTER TABLE {name} DROP dropped;\n",
            quoted(schema),
            body(&parts, random.next())
        );
        let part = |suffix: &str| format!("{}.{}", quoted(schema), quoted(&format!("{relation}{suffix}")));
        let bounds: &[&str] = match kind {
            Kind::Plain => &[],
            Kind::Range => &["FOR VALUES FROM (MINVALUE) TO (0)", "FOR VALUES FROM (0) TO (6)", "DEFAULT"],
            Kind::List => &["FOR VALUES IN ('a')", "FOR VALUES IN ('b', 'é')", "DEFAULT"],
        };
        for (i, bound) in bounds.iter().enumerate() {
            let part = part(&format!("p{i}"));
            // Some have their columns in another order, and other columns that they have no longer.
            if random.once_in(2) {
                random.shuffle(&mut parts);
                text.push_str(&format!(
                    "CREATE TABLE {part} ({}); ALTER TABLE {part} DROP dropped; ALTER TABLE {name} ATTACH PARTITION {part} {bound};\n",
                    body(&parts, random.next())
                ));
            } else if kind == Kind::Range && i == 1 {
                text.push_str(&format!(
                    "CREATE TABLE {part} PARTITION OF {name} {bound} PARTITION BY LIST (lane);
                     CREATE TABLE {} PARTITION OF {part} FOR VALUES IN (0); CREATE TABLE {} PARTITION OF {part} DEFAULT;\n",
                    self.sub_partition(schema, relation, 0),
                    self.sub_partition(schema, relation, 1)
                ));
            } else {
                text.push_str(&format!("CREATE TABLE {part} PARTITION OF {name} {bound};\n"));
            }
        }
        text
    }

    fn sub_partition(&self, schema: &str, relation: &str, number: u64) -> String {
        format!("{}.{}", quoted(schema), quoted(&format!("{relation}p1 {number}")))
    }

    /// The condition that a row has the key of a number.
    pub fn is_key(&self, alias: &str, number: u64) -> String {
        let parts = self.keys.iter().map(|key| format!("{alias}.{} = {}", quoted(&key.name), (key.value)(number)));
        parts.collect::<Vec<_>>().join(" AND ")
    }

    /// A value of the first column of the key.
    pub fn value(&self, number: u64) -> String {
        format!("{}::{}", (self.keys[0].value)(number), self.keys[0].kind)
    }

    /// The first column of the key.
    pub fn key(&self) -> String {
        quoted(&self.keys[0].name)
    }

    fn insert(&self, random: &mut Random, lane: u64, number: u64) -> String {
        let name = &self.name;
        let names = self.keys.iter().map(|key| &key.name).chain(self.columns.iter().map(|column| &column.name));
        let keys = self.keys.iter().map(|key| (key.value)(number));
        let values = self.columns.iter().map(|column| match random.below(4) {
            0 => "NULL".to_owned(),
            _ => column.value.to_owned(),
        });
        format!(
            "INSERT INTO {name} ({}, {}) SELECT {}, {lane} FROM (SELECT (random() * 1000)::int AS i) x WHERE NOT EXISTS (SELECT FROM {name} t WHERE {});",
            list(names.map(|name| quoted(name))),
            quoted(&self.lane),
            list(keys.chain(values)),
            self.is_key("t", number)
        )
    }

    fn update(&self, random: &mut Random, which: &str) -> String {
        if self.columns.is_empty() {
            return String::new();
        }
        let first = random.below(self.columns.len() as u64) as usize;
        let some = self.columns.iter().skip(first).take(random.between(1, 3) as usize);
        let set = list(some.map(|column| {
            let value = if random.once_in(6) { "NULL" } else { column.value };
            format!("{} = {value}", quoted(&column.name))
        }));
        format!("UPDATE {} t SET {set} FROM (SELECT (random() * 1000)::int AS i) x WHERE {which};", self.name)
    }

    /// Changes the key of a row, or a part of it, unless there is one of the new key.
    fn rekey(&self, random: &mut Random, from: u64, to: u64) -> String {
        let some = if random.once_in(4) { 1 } else { self.keys.len() };
        let new: Vec<(String, String)> = self
            .keys
            .iter()
            .enumerate()
            .map(|(i, key)| (quoted(&key.name), (key.value)(if i < some { to } else { from })))
            .collect();
        let set = list(new.iter().map(|(name, value)| format!("{name} = {value}")));
        let is_there: Vec<String> = new.iter().map(|(name, value)| format!("u.{name} = {value}")).collect();
        format!(
            "UPDATE {0} t SET {set} WHERE {1} AND NOT EXISTS (SELECT FROM {0} u WHERE {2});",
            self.name,
            self.is_key("t", from),
            is_there.join(" AND ")
        )
    }

    /// The same key, which may be written in another way.
    fn rewrite_key(&self, number: u64) -> String {
        let (key, kind) = (self.key(), self.keys[0].kind);
        let value = if kind == "numeric" { format!("{key} * 1.00") } else { key.clone() };
        format!("UPDATE {} t SET {key} = {value} WHERE {};", self.name, self.is_key("t", number))
    }

    /// A statement, or some that belong together.
    fn change(&self, random: &mut Random, lane: u64) -> String {
        let numbers: Vec<u64> = (0..4).map(|_| random.below(NUMBERS) * 2 + lane).collect();
        let [a, b, c, d] = numbers[..] else { unreachable!() };
        let key = |number| self.is_key("t", number);
        let of_lane = format!("t.{} = {lane}", quoted(&self.lane));
        match random.below(24) {
            0..=6 => self.insert(random, lane, a),
            7 => [a, b, c].map(|number| self.insert(random, lane, number)).concat(),
            8..=11 => self.update(random, &key(a)),
            12 => self.update(random, &of_lane),
            13 => format!("UPDATE {} t SET {1} = t.{1} WHERE {of_lane};", self.name, self.key()),
            14 => self.rewrite_key(a),
            15..=16 => self.rekey(random, a, b),
            17 => [(a, c), (b, a), (c, b)].map(|(from, to)| self.rekey(random, from, to)).concat(),
            18 => [(a, b), (b, c), (c, d)].map(|(from, to)| self.rekey(random, from, to)).concat(),
            19 => format!("DELETE FROM {} t WHERE {};", self.name, key(a)),
            20 => format!("DELETE FROM {} t WHERE {}; {}", self.name, key(a), self.insert(random, lane, a)),
            21 => format!(
                "{} {} DELETE FROM {} t WHERE {};",
                self.insert(random, lane, a),
                self.update(random, &key(a)),
                self.name,
                key(a)
            ),
            22 => format!("DELETE FROM {} t WHERE {of_lane} AND random() < 0.5;", self.name),
            _ => format!("SELECT bemi.set_context('{{\"n\":{a}}}');"),
        }
    }

    /// Changes the columns of the table.
    fn alter(&mut self, random: &mut Random) -> String {
        self.names += 1;
        let (table, new) = (self.name.clone(), format!("n{}", self.names));
        let place = random.below(self.columns.len().max(1) as u64) as usize;
        match random.below(6) {
            0..=1 => {
                let column = column(random, new);
                let text = format!("ALTER TABLE {table} ADD {} {};", quoted(&column.name), column.kind);
                self.columns.push(column);
                text
            }
            2 if self.columns.len() > 1 => {
                let gone = self.columns.remove(place);
                format!("ALTER TABLE {table} DROP {};", quoted(&gone.name))
            }
            3 if !self.columns.is_empty() => {
                let old = std::mem::replace(&mut self.columns[place].name, new.clone());
                format!("ALTER TABLE {table} RENAME {} TO {new};", quoted(&old))
            }
            4 => {
                let key = random.below(self.keys.len() as u64) as usize;
                let old = std::mem::replace(&mut self.keys[key].name, new.clone());
                format!("ALTER TABLE {table} RENAME {} TO {new};", quoted(&old))
            }
            _ => {
                let old = std::mem::replace(&mut self.lane, new.clone());
                format!("ALTER TABLE {table} RENAME {} TO {new};", quoted(&old))
            }
        }
    }
}

/// Some changes of some tables, with savepoints.
fn changes(random: &mut Random, tables: &[Table], lane: u64, count: u64) -> String {
    let mut text = String::new();
    for _ in 0..count {
        let change = random.one_of(tables).change(random, lane);
        match random.below(8) {
            0 => {
                let kept = random.one_of(tables).change(random, lane);
                text.push_str(&format!("SAVEPOINT s; {change} ROLLBACK TO s; {kept} RELEASE s;"));
            }
            1 => text.push_str(&format!("SAVEPOINT s; {change} RELEASE s;")),
            _ => text.push_str(&change),
        }
        text.push('\n');
    }
    text
}

struct Session {
    client: Client,
    lane: u64,
    is_open: bool,
}

/// Statements that come before the tables are tracked: the tables, and rows that nobody may ever change.
pub fn older_rows(random: &mut Random, tables: &[Table]) -> String {
    let mut text = String::new();
    for table in tables {
        for number in 0..NUMBERS * 2 {
            if random.once_in(2) {
                text.push_str(&table.insert(random, number % 2, number));
                text.push('\n');
            }
        }
        text.push_str(&format!("SELECT bemi.track('{}');\n", table.name.replace('\'', "''")));
    }
    text
}

/// Runs random transactions of two sessions, and keeps the images after each; `log` is what was run.
pub fn run(
    past: &mut Past,
    tables: &mut [Table],
    random: &mut Random,
    count: u64,
    alters: bool,
    log: &mut Vec<String>,
) {
    let names: Vec<String> = tables.iter().map(|table| table.name.clone()).collect();
    let seed = random.below(1_000_000) as f64 / 1_000_000.0;
    past.keep(&names, None);
    let mut sessions = [0, 1].map(|lane| {
        let mut client = past.database.connect();
        client.batch_execute(&format!("SELECT setseed({seed}); SET lock_timeout = '10 s'")).unwrap();
        Session { client, lane, is_open: false }
    });
    let mut finished = 0;
    while finished < count || sessions.iter().any(|session| session.is_open) {
        // No table is altered while somebody else has changed it.
        let is_altered = alters && random.once_in(12) && sessions.iter().all(|session| !session.is_open);
        if is_altered {
            let place = random.below(tables.len() as u64) as usize;
            let mut text = format!("BEGIN; {}", changes(random, tables, 0, 2));
            text.push_str(&tables[place].alter(random));
            text.push('\n');
            text.push_str(&changes(random, tables, 0, 2));
            let session = &mut sessions[0];
            session.run(&text, log);
            session.commit(past, &names, log);
        }
        let session = &mut sessions[random.below(2) as usize];
        if !session.is_open {
            if finished >= count {
                continue;
            }
            session.is_open = true;
            let count = random.between(1, 5);
            let text = format!("BEGIN; {}", changes(random, tables, session.lane, count));
            session.run(&text, log);
        } else if random.once_in(3) {
            let text = changes(random, tables, session.lane, 2);
            session.run(&text, log);
        } else {
            finished += 1;
            session.commit(past, &names, log);
        }
    }
    for session in &mut sessions {
        session.run("SELECT bemi.clear_context()", log);
    }
    past.date_images();
}

impl Session {
    fn run(&mut self, text: &str, log: &mut Vec<String>) {
        log.push(format!("-- session {}\n{text}", self.lane));
        if let Err(error) = self.client.batch_execute(text) {
            panic!("{error:?}\n{}", log.join("\n"));
        }
    }

    fn commit(&mut self, past: &mut Past, names: &[String], log: &mut Vec<String>) {
        let statement = "SELECT pg_current_xact_id()::text::bigint";
        let xid: i64 = self.client.query_one(statement, &[]).unwrap().get(0);
        self.run(&format!("COMMIT; -- {xid}"), log);
        self.is_open = false;
        past.keep(names, Some(xid));
    }
}
