//! What the tests of the past share: a database that is recorded, in which the images of tables are kept aside after each
//! transaction, and `kept.as_of`, which answers from these images what `bemi.as_of` has to answer from the changes.
use postgres::Client;

use crate::server::{Database, Server};

/// The images are kept by the numbers of columns, so that they can be shown under today's names. What is null is left
/// out, so that a column that is added changes none of them.
const KEPT: &str = "
  CREATE SCHEMA kept;
  CREATE UNLOGGED TABLE kept.images (n bigint GENERATED ALWAYS AS IDENTITY, relation oid, xid bigint, at timestamptz, rows jsonb[]);
  CREATE FUNCTION kept.numbered(relation oid, image jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT COALESCE(jsonb_object_agg(attnum, image->attname::text) FILTER (WHERE image->attname::text <> 'null'), '{}')
    FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped
  $$;
  CREATE FUNCTION kept.named(relation oid, image jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT COALESCE(jsonb_object_agg(attname, COALESCE(image->attnum::text, 'null')), '{}')
    FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped
  $$;
  CREATE FUNCTION kept.take(relation regclass, xid bigint) RETURNS void LANGUAGE plpgsql AS $$
  DECLARE
    rows jsonb[];
  BEGIN
    EXECUTE format('SELECT ARRAY(SELECT kept.numbered($1, to_jsonb(t)) FROM %s t)', relation) INTO rows USING relation::oid;
    INSERT INTO kept.images (relation, xid, at, rows) VALUES (relation, xid, CASE WHEN xid IS NULL THEN '-infinity'::timestamptz END, rows);
  END $$;
  CREATE FUNCTION kept.as_of(base anyelement, until timestamptz) RETURNS SETOF anyelement LANGUAGE plpgsql STABLE SET search_path = public AS $$
  DECLARE
    table_id oid := (SELECT typrelid FROM pg_type WHERE oid = pg_typeof(base));
    images jsonb[] := (SELECT rows FROM kept.images WHERE relation = table_id AND at <= until ORDER BY n DESC LIMIT 1);
  BEGIN
    RETURN QUERY SELECT (p).* FROM (SELECT jsonb_populate_record(base, kept.named(table_id, i)) AS p FROM unnest(images) i) x;
  END $$;";

/// A database whose changes are recorded.
pub struct Past<'a> {
    pub database: Database<'a>,
    pub client: Client,
    server: &'a Server,
}

impl<'a> Past<'a> {
    /// Makes a database with tables of these statements; what they insert is older than all records. A table is tracked
    /// by the statements, too. Then the recorder is started.
    pub fn new(server: &'a Server, name: &str, statements: &str) -> Self {
        let database = server.database(name);
        let mut client = database.connect();
        client.batch_execute(&format!("ALTER DATABASE \"{name}\" SET TimeZone = 'UTC'; SET TimeZone = 'UTC'")).unwrap();
        client.batch_execute(KEPT).unwrap();
        client.batch_execute(statements).unwrap_or_else(|e| panic!("{e:?}: {statements}"));
        client.batch_execute("SELECT bemi.start()").unwrap();
        client.batch_execute("SELECT bemi.sync()").unwrap();
        Self { database, client, server }
    }

    /// Runs statements one after another, each in a transaction of its own; the instant after the last of them.
    pub fn then(&mut self, statements: &str) -> String {
        crate::server::run(&mut self.client, statements);
        self.now()
    }

    /// This instant, as SQL writes it. Others are earlier or later.
    pub fn now(&mut self) -> String {
        let statement = "SELECT pg_sleep(0.002)::text, clock_timestamp()::text, pg_sleep(0.002)::text";
        let now: String = self.client.query_one(statement, &[]).unwrap().get(1);
        format!("timestamptz '{now}'")
    }

    /// Keeps the images of tables as a transaction left them.
    pub fn keep(&mut self, tables: &[String], xid: Option<i64>) {
        for table in tables {
            self.client.execute("SELECT kept.take($1::text::regclass, $2)", &[table, &xid]).unwrap();
        }
    }

    /// Tells when the transactions of the images committed, as the recorder has it, and leaves those out that changed
    /// nothing.
    pub fn date_images(&mut self) {
        let statements = "
          SELECT bemi.sync(); COMMIT;
          UPDATE kept.images i SET at = c.committed_at FROM (SELECT DISTINCT transaction_id, committed_at FROM bemi.changes) c
          WHERE c.transaction_id = i.xid; COMMIT;
          DELETE FROM kept.images WHERE at IS NULL; COMMIT;
          CREATE INDEX ON kept.images (relation, at); ANALYZE kept.images;";
        self.client.batch_execute(statements).unwrap();
        let disordered: i64 = self
            .client
            .query_one(
                "SELECT count(*) FROM (SELECT at, lag(at) OVER (PARTITION BY relation ORDER BY n) AS earlier FROM kept.images) x WHERE at <= earlier",
                &[],
            )
            .unwrap()
            .get(0);
        assert_eq!(disordered, 0, "each transaction committed after the one before it");
    }

    /// When the transactions of the images committed, in microseconds since 1970.
    pub fn commits(&mut self) -> Vec<i64> {
        let statement = "SELECT DISTINCT (extract(epoch FROM at) * 1000000)::bigint FROM kept.images WHERE at > '-infinity' ORDER BY 1";
        self.client.query(statement, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// Microseconds since 1970 as SQL writes them.
    pub fn instants(&mut self, microseconds: &[i64]) -> Vec<String> {
        let statement = "SELECT ('epoch'::timestamptz + m * interval '1 us')::text FROM unnest($1::bigint[]) m";
        let rows = self.client.query(statement, &[&microseconds]).unwrap();
        rows.iter().map(|row| format!("timestamptz '{}'", row.get::<_, &str>(0))).collect()
    }

    /// The rows of a query of one column of text, in some order that is always the same.
    pub fn rows(&mut self, query: &str) -> Vec<String> {
        sorted(&self.client.query(query, &[]).unwrap_or_else(|e| panic!("{e:?}: {query}")))
    }

    /// Runs a query of one column of text in which `{as_of}` is the function; gives what is wrong with the rows.
    pub fn difference(&mut self, query: &str) -> Option<String> {
        let expected = self.rows(&query.replace("{as_of}", "kept.as_of"));
        let statement = query.replace("{as_of}", "bemi.as_of");
        let got = match self.client.query(&statement, &[]) {
            Ok(rows) => sorted(&rows),
            Err(error) => return Some(format!("{statement}\n{:?}", error.as_db_error())),
        };
        if expected == got {
            return None;
        }
        let beyond = |a: &[String], b: &[String]| -> Vec<String> {
            let mut left = b.to_vec();
            let is_beyond = |row: &&String| match left.iter().position(|other| other == *row) {
                Some(place) => {
                    left.swap_remove(place);
                    false
                }
                None => true,
            };
            a.iter().filter(is_beyond).take(3).cloned().collect()
        };
        Some(format!(
            "{query}\n{} rows expected, {} found\nmissing: {:#?}\nnot expected: {:#?}",
            expected.len(),
            got.len(),
            beyond(&expected, &got),
            beyond(&got, &expected)
        ))
    }

    /// Asserts that the query gives what it should.
    pub fn check(&mut self, query: &str) {
        if let Some(difference) = self.difference(query) {
            panic!("{difference}");
        }
    }
}

fn sorted(rows: &[postgres::Row]) -> Vec<String> {
    let mut rows: Vec<String> = rows.iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or_default()).collect();
    rows.sort();
    rows
}

impl Drop for Past<'_> {
    /// Ends the recorder with the test, so that it has not to read what others write.
    fn drop(&mut self) {
        if let Some(mut client) = self.server.try_connect(&self.database.name) {
            let _ = client.batch_execute("SELECT bemi.stop(drop_slot => true)");
        }
    }
}
