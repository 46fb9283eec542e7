//! Random tables and random changes: each document against the images that a row trigger took with `to_jsonb`.
//!
//! The seed is printed. `BEMI_FUZZ_SEED` repeats one, `BEMI_FUZZ_SECONDS` goes on for longer (`make fuzz-decoder`).
use std::time::{Duration, Instant};

use postgres::Client;

use crate::Test;
use crate::random::Random;
use crate::server::{Database, Server};

pub const TESTS: &[Test] = &[("random_changes_of_random_tables_are_as_to_jsonb_saw_them", differential)];

/// Types, and an expression for a random value of each; `i` is a number of the row.
pub const TYPES: &[(&str, &str)] = &[
    ("int2", "(random() * 65535 - 32768)::int2"),
    ("int4", "(random() * 4e9 - 2e9)::int4"),
    ("int8", "((random() - 0.5) * 1.8e19)::int8"),
    ("numeric", "(random()::numeric * 10 ^ (random() * 60 - 30)::int)::numeric"),
    ("numeric(12,3)", "(random() * 1e8)::numeric(12,3)"),
    ("float4", "((random() * 2 - 1) * 10 ^ (random() * 70 - 35))::float4"),
    (
        "float8",
        "(ARRAY['NaN', '-Infinity', '0', '-0', (random() * 10 ^ (random() * 600 - 300))::text])[1 + i % 5]::float8",
    ),
    ("bool", "random() < 0.5"),
    (
        "text",
        "(SELECT coalesce(string_agg(chr(1 + (random() * 1000)::int), ''), '') FROM generate_series(1, (random() * 30)::int + i * 0))",
    ),
    ("text", "repeat(md5(random()::text), (random() * 300)::int)"),
    ("text", "E'\\\\\"\\n\\t\\x01\\x7f/' || chr(55000 + i % 100) || chr(128512 + i % 50)"),
    ("varchar(40)", "left(md5(random()::text), (random() * 40)::int)"),
    ("char(7)", "left(md5(random()::text), i % 8)"),
    ("bytea", "decode(repeat(md5(random()::text), (random() * 100)::int), 'hex')"),
    ("date", "'4713-01-02 BC'::date + (random() * 2000000000)::int"),
    ("time", "'00:00'::time + random() * interval '24 h'"),
    ("timetz", "('00:00'::time + random() * interval '24 h')::timetz"),
    ("timestamp", "'4713-01-02 BC'::timestamp + random() * interval '290000 years'"),
    ("timestamptz", "'2000-01-01 00:00+00'::timestamptz + random() * interval '50 years'"),
    ("interval", "random() * interval '100 years' - random() * interval '100 years'"),
    ("uuid", "md5(random()::text)::uuid"),
    ("json", "('{ \"a\" : [1, 2.50,\"x\\u00e9\" ,null] , \"b\":{\"c\": ' || i || '} ,\"a\":1e3}')::json"),
    (
        "jsonb",
        "jsonb_build_object('k' || i, repeat(md5(random()::text), (random() * 100)::int), 'n', random(), 'a', '[{}, [], \"\\n\"]'::jsonb)",
    ),
    ("int[]", "ARRAY[i, NULL, (random() * 1000)::int]"),
    ("text[]", "ARRAY[[md5(i::text), NULL], ['\"', '{,}']]"),
    ("jsonb[]", "ARRAY['{\"a\": 1}'::jsonb, 'null']"),
    ("inet", "('10.0.' || i % 256 || '.0/24')::inet"),
    ("point", "point(random(), -random())"),
    ("int4range", "int4range(i, i + (random() * 100)::int)"),
    ("tstzrange", "tstzrange('2000-01-01 00:00+00'::timestamptz + random() * interval '1 year', NULL)"),
    ("tsvector", "to_tsvector('simple', 'a quick ' || md5(random()::text) || ' a')"),
    ("varbit", "(i % 1000)::bit(10)::varbit"),
    ("money", "(random() * 1e6)::numeric::money"),
    ("mood", "(enum_range(NULL::mood))[1 + i % 3]"),
    ("pair", "ROW(i, 'x\"' || i, ARRAY['sad']::mood[])::pair"),
    ("pair[]", "ARRAY[ROW(i, NULL, NULL)::pair, NULL]"),
    ("wrapped", "ROW(ROW(i, 'in', NULL)::pair, now())::wrapped"),
    ("named", "('n' || i)::named"),
    ("hstore", "hstore('k' || i, md5(random()::text)) || 'nothing=>NULL'"),
    ("citext", "('MiXed ' || i)::citext"),
    ("oid", "(i % 1000)::oid"),
    ("name", "('name ' || i)::name"),
    ("\"char\"", "chr(32 + i % 90)::\"char\""),
    ("regclass", "(ARRAY['pg_class', 'images'])[1 + i % 2]::regclass"),
];

/// Types of key columns, and an expression for a value that was not there before.
const KEYS: &[(&str, &str)] = &[
    ("int4", "nextval('keys')::int4"),
    ("int8", "-nextval('keys')"),
    ("text", "'k\"é\\' || nextval('keys')"),
    ("uuid", "md5(nextval('keys')::text)::uuid"),
    ("numeric", "nextval('keys') / 8.0"),
    ("timestamptz", "'2000-01-01 00:00+00'::timestamptz + nextval('keys') * interval '1.001 s'"),
    ("date", "'2000-01-01'::date + nextval('keys')::int"),
    ("varchar(50)", "repeat(md5(nextval('keys')::text), 1)"),
    ("citext", "('K' || nextval('keys'))::citext"),
    ("named", "('n' || nextval('keys'))::named"),
];

pub const SETUP: &str = "
    CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE SEQUENCE keys;
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy é'); CREATE TYPE pair AS (a int, \"b c\" text, m mood[]);
    CREATE TYPE wrapped AS (p pair, at timestamptz); CREATE DOMAIN named AS text CHECK (VALUE <> '');
    CREATE TABLE images (n int GENERATED ALWAYS AS IDENTITY, operation text, before jsonb, after jsonb);
    CREATE FUNCTION take() RETURNS trigger LANGUAGE plpgsql SET TimeZone = 'UTC' SET search_path = pg_catalog, public AS $$
    BEGIN
      PERFORM set_config('search_path', 'pg_catalog', true);
      INSERT INTO public.images (operation, before, after) VALUES
        (CASE TG_OP WHEN 'INSERT' THEN 'CREATE' ELSE TG_OP END, to_jsonb(OLD), to_jsonb(NEW));
      RETURN NULL;
    END $$;
    CREATE TABLE documents (n int GENERATED ALWAYS AS IDENTITY, document jsonb);
    CREATE FUNCTION of_columns(image jsonb, columns text[]) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
      'SELECT coalesce(jsonb_object_agg(key, value), ''{}'') FROM jsonb_each(image) WHERE key = ANY (columns)';
    CREATE FUNCTION key_of(image jsonb, columns text[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$
      SELECT CASE WHEN count(*) = 0 OR count(*) > count(image->name) THEN NULL WHEN count(*) = 1 THEN min(image->>name)
             ELSE replace(json_agg(image->>name ORDER BY place)::text, '\", \"', '\",\"') END
      FROM unnest(columns) WITH ORDINALITY k (name, place) $$;";

struct Column {
    name: String,
    kind: &'static str,
    value: &'static str,
}

/// A table, and what is known of its log.
struct Table {
    name: String,
    keys: Vec<Column>,
    columns: Vec<Column>,
    /// The columns of which the log has the value before a change; None for all.
    identity: Option<Vec<String>>,
    has_primary_key: bool,
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn column(random: &mut Random, number: usize, from: &'static [(&str, &str)]) -> Column {
    let (kind, value) = from[random.below(from.len() as u64) as usize];
    let odd = ["", "", " \"q\"", "é日", "\\", "$"][random.below(6) as usize];
    Column { name: format!("c{number}{odd}"), kind, value }
}

fn list<'a>(columns: impl IntoIterator<Item = &'a Column>, show: impl Fn(&Column) -> String) -> String {
    columns.into_iter().map(show).collect::<Vec<_>>().join(", ")
}

impl Table {
    /// Makes a table whose changes leave images.
    fn make(client: &mut Client, random: &mut Random, number: u64) -> Self {
        let key_count = random.below(4) as usize;
        let most = if random.below(10) == 0 { 60 } else { 9 };
        let column_count = 1 + random.below(most) as usize;
        let keys: Vec<Column> = (0..key_count).map(|i| column(random, i, KEYS)).collect();
        let columns: Vec<Column> = (0..column_count).map(|i| column(random, 10 + i, TYPES)).collect();
        let name = format!("t{number}{}", ["", " x", "\"é"][random.below(3) as usize]);
        let table = quoted(&name);
        let not_null = |c: &Column| format!("{} {} NOT NULL", quoted(&c.name), c.kind);
        let plain = |c: &Column| format!("{} {}", quoted(&c.name), c.kind);
        let key_names = list(&keys, |c| quoted(&c.name));
        let mut parts = vec![list(&columns, plain)];
        // Where keys stand, and dropped columns before them, must not matter.
        if !keys.is_empty() {
            parts.insert(random.below(2) as usize, list(&keys, not_null));
        }
        parts.insert(0, "dropped int".to_owned());
        let has_primary_key = !keys.is_empty() && random.below(4) != 0;
        if has_primary_key {
            parts.push(format!("PRIMARY KEY ({key_names})"));
        }
        let mut text = format!("CREATE TABLE {table} ({}); ALTER TABLE {table} DROP dropped;", parts.join(", "));
        let of_keys = || keys.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
        let identity = match random.below(4) {
            0 => {
                text.push_str(&format!("ALTER TABLE {table} REPLICA IDENTITY FULL;"));
                None
            }
            1 => {
                text.push_str(&format!("ALTER TABLE {table} REPLICA IDENTITY NOTHING;"));
                Some(Vec::new())
            }
            2 if !keys.is_empty() => {
                let last = keys.last().map(|c| c.name.clone()).unwrap();
                text.push_str(&format!(
                    "CREATE UNIQUE INDEX i{number} ON {table} ({}); ALTER TABLE {table} REPLICA IDENTITY USING INDEX i{number};",
                    quoted(&last)
                ));
                Some(vec![last])
            }
            _ => Some(if has_primary_key { of_keys() } else { Vec::new() }),
        };
        for column in columns.iter().filter(|c| ["text", "bytea", "jsonb"].contains(&c.kind)) {
            if random.below(2) == 0 {
                text.push_str(&format!("ALTER TABLE {table} ALTER {} SET STORAGE EXTERNAL;", quoted(&column.name)));
            }
        }
        text.push_str(&format!(
            "CREATE TRIGGER take AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION take(); SELECT bemi.track('{}', 'keep');",
            table.replace('\'', "''")
        ));
        client.batch_execute(&text).unwrap_or_else(|e| panic!("{e:?}: {text}"));
        Self { name, keys, columns, identity, has_primary_key }
    }

    fn insert(&self, random: &mut Random) -> String {
        let names = list(self.keys.iter().chain(&self.columns), |c| quoted(&c.name));
        let nulls = random.below(4);
        let value = |c: &Column| match nulls {
            0 => c.value.to_owned(),
            _ => format!("CASE WHEN random() < 0.3 THEN NULL ELSE {} END", c.value),
        };
        let mut values = vec![list(&self.columns, value)];
        if !self.keys.is_empty() {
            values.insert(0, list(&self.keys, |c| c.value.to_owned()));
        }
        let count = 1 + random.below(20);
        format!(
            "INSERT INTO {} ({names}) SELECT {} FROM generate_series(1, {count}) i;",
            quoted(&self.name),
            values.join(", ")
        )
    }

    fn update(&self, random: &mut Random) -> String {
        let all: Vec<&Column> = self.columns.iter().chain(&self.keys).collect();
        let first = random.below(all.len() as u64) as usize;
        let count = 1 + random.below(3) as usize;
        let chosen = all.into_iter().skip(first).take(count);
        let set = list(chosen, |c| format!("{} = {}", quoted(&c.name), c.value));
        format!(
            "UPDATE {} SET {set} FROM (SELECT (random() * 1000)::int AS i) x WHERE random() < 0.4;",
            quoted(&self.name)
        )
    }

    /// Changes the table's columns.
    fn alter(&mut self, random: &mut Random, number: usize) -> String {
        let table = quoted(&self.name);
        match random.below(3) {
            0 => {
                let column = column(random, 100 + number, TYPES);
                let text = format!("ALTER TABLE {table} ADD {} {};", quoted(&column.name), column.kind);
                self.columns.push(column);
                text
            }
            1 if self.columns.len() > 1 => {
                let gone = self.columns.remove(random.below(self.columns.len() as u64) as usize);
                format!("ALTER TABLE {table} DROP {};", quoted(&gone.name))
            }
            _ => {
                let place = random.below(self.columns.len() as u64) as usize;
                let new = format!("r{number}");
                let old = std::mem::replace(&mut self.columns[place].name, new.clone());
                format!("ALTER TABLE {table} RENAME {} TO {new};", quoted(&old))
            }
        }
    }
}

/// Changes a table at random and compares what the log tells; gives the number of changes.
fn round(database: &mut Database, client: &mut Client, seed: u64, number: u64) -> i64 {
    let mut random = Random::new(seed ^ (number + 1).wrapping_mul(0xBF58_476D_1CE4_E5B9));
    let setup = format!(
        "SELECT setseed({}); TRUNCATE images, documents RESTART IDENTITY; COMMIT",
        random.below(1_000_000) as f64 / 1_000_000.0
    );
    client.batch_execute(&setup).unwrap();
    let mut table = Table::make(client, &mut random, number);
    let mut text = String::from("BEGIN;");
    for step in 0..12 {
        let next = match random.below(10) {
            0..=3 => table.insert(&mut random),
            4..=6 => table.update(&mut random),
            7 => format!("DELETE FROM {} WHERE random() < 0.3;", quoted(&table.name)),
            8 => format!("SAVEPOINT s; {} {} ROLLBACK TO s;", table.insert(&mut random), table.update(&mut random)),
            _ if random.below(2) == 0 => format!("COMMIT; {} BEGIN;", table.alter(&mut random, step)),
            _ => table.alter(&mut random, step),
        };
        text.push_str(&next);
        text.push('\n');
    }
    text.push_str("COMMIT;");
    let said = |e: &dyn std::fmt::Debug| format!("seed {seed}, table {number}: {e:?}\n{text}");
    // One statement after another, since triggers that are due hold up ALTER TABLE.
    client.batch_execute(&text).unwrap_or_else(|e| panic!("{}", said(&e)));
    let insert = client.prepare("INSERT INTO documents (document) VALUES ($1::text::jsonb)").unwrap();
    client.batch_execute("BEGIN").unwrap();
    for line in database.lines() {
        if !line.contains("\"table\":\"images\"") && !line.contains("\"table\":\"documents\"") {
            client.execute(&insert, &[&line]).unwrap_or_else(|e| panic!("{}: {line}", said(&e)));
        }
    }
    client.batch_execute("COMMIT").unwrap();
    let compared = "
        SELECT format('%s: image %s %s -> %s, document %s', n, i.operation, i.before, i.after, d.document)
        FROM documents d FULL JOIN (SELECT row_number() OVER (ORDER BY n) AS n, operation, before, after FROM images) i USING (n),
             LATERAL (SELECT ARRAY(SELECT jsonb_array_elements_text(d.document->'unchanged'))) u (unchanged),
             LATERAL (SELECT CASE WHEN i.before IS NULL THEN '{}' WHEN $1::text[] IS NULL THEN i.before ELSE public.of_columns(i.before, $1) END) b (logged)
        WHERE i.n IS NULL OR d.n IS NULL OR d.document ? 'omitted' OR d.document->>'operation' <> i.operation
           OR (d.document->'after') || (CASE WHEN unchanged = '{}' THEN '{}' ELSE public.of_columns(i.before, unchanged) END) <> coalesce(i.after, '{}')
           OR d.document->'after' ?| unchanged
           OR unchanged <> '{}' AND $1 IS NULL
           OR NOT (d.document->'before' = logged
                   OR d.document->'before' = '{}' AND i.operation = 'UPDATE' AND $1 IS NOT NULL AND logged = public.of_columns(i.after, $1))
           OR d.document->'context' <> '{}'
        ORDER BY n LIMIT 3";
    let wrong = client.query(compared, &[&table.identity]).unwrap_or_else(|e| panic!("{}", said(&e)));
    let wrong: Vec<String> = wrong.iter().map(|row| row.get(0)).collect();
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), said(&table.identity));
    check_keys(client, &table, &said);
    client.query_one("SELECT count(*) FROM documents", &[]).unwrap().get(0)
}

/// `primary_key` is the text of the key's values, and `old_primary_key` that of the row before, where the log has it and it
/// is another one.
fn check_keys(client: &mut Client, table: &Table, said: &dyn Fn(&dyn std::fmt::Debug) -> String) {
    let columns: Vec<String> = match (&table.identity, table.has_primary_key) {
        (_, true) => table.keys.iter().map(|c| c.name.clone()).collect(),
        (Some(identity), false) => identity.clone(),
        (None, false) => Vec::new(),
    };
    let statement = "
        SELECT format('%s: %s', n, document) FROM documents,
             LATERAL (SELECT CASE document->>'operation' WHEN 'DELETE' THEN document->'before' ELSE document->'after' END) r (image)
        WHERE document->>'primary_key' IS DISTINCT FROM public.key_of(image, $1)
        UNION ALL
        SELECT format('%s: %s after %s', n, document, before)
        FROM documents JOIN (SELECT row_number() OVER (ORDER BY n) AS n, before FROM images) i USING (n),
             LATERAL (SELECT CASE WHEN document->>'operation' = 'UPDATE' AND ($2::text[] IS NULL OR $1 <@ $2) THEN public.key_of(before, $1) END) k (old)
        WHERE document->>'old_primary_key' IS DISTINCT FROM nullif(old, document->>'primary_key')
           OR document ? 'old_primary_key' AND old IS NULL";
    let wrong = client.query(statement, &[&columns, &table.identity]).unwrap_or_else(|e| panic!("{}", said(&e)));
    let wrong: Vec<String> = wrong.iter().take(3).map(|row| row.get(0)).collect();
    assert!(wrong.is_empty(), "{columns:?} {}\n{}", wrong.join("\n"), said(&columns));
}

fn differential(server: &Server) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_secs());
    let seed = number("BEMI_FUZZ_SEED").unwrap_or(clock);
    let end = Instant::now() + Duration::from_secs(number("BEMI_FUZZ_SECONDS").unwrap_or(0));
    println!("seed {seed}");
    let mut database = server.database("differential");
    let mut client = database.connect();
    client.batch_execute(SETUP).unwrap();
    client.batch_execute("SET TimeZone = 'UTC'; SET lc_monetary = 'C'; SET statement_timeout = 0").unwrap();
    database.create_slot();
    let (mut rounds, mut changes) = (0, 0);
    while changes < 5000 || Instant::now() < end {
        changes += round(&mut database, &mut client, seed, rounds);
        rounds += 1;
    }
    println!("seed {seed}: {changes} changes of {rounds} tables");
}
