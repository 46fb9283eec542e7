-- Which tables are tracked, by which rules.
\set SHOW_CONTEXT never
CREATE TABLE account (id int PRIMARY KEY, name text, password text, updated_at timestamptz);
SELECT bemi.track('account', ignore_columns => '{updated_at}', mask_columns => '{password}');
SELECT regexp_replace(pg_get_triggerdef(oid), 'numbers=\d+', 'numbers=...') AS trigger
FROM pg_trigger WHERE tgrelid = 'account'::regclass;
SELECT relreplident FROM pg_class WHERE oid = 'account'::regclass;

-- Rules follow a column that gets another name.
ALTER TABLE account RENAME password TO secret;
SELECT relation, ignore_columns, mask_columns FROM bemi.tracked;

-- Partitions are tracked with their table.
CREATE TABLE event (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE event_2026 PARTITION OF event FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
SELECT bemi.track('event', 'default');
CREATE TABLE event_2027 PARTITION OF event FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
SELECT relation, replica_identity FROM bemi.tracked ORDER BY relation::text;

-- What cannot be tracked is refused.
CREATE VIEW shown AS SELECT id, name FROM account;
SELECT bemi.track('shown');
SELECT bemi.track('account', 'nothing');
SELECT bemi.track('account', mask_columns => '{no_such_column}');
DROP VIEW shown;

-- All tables of a schema, and those made there later.
CREATE SCHEMA shop;
CREATE TABLE shop.product (id int PRIMARY KEY);
SELECT bemi.track_all('{shop}');
CREATE TABLE shop.price (id int PRIMARY KEY);
SELECT relation FROM bemi.tracked WHERE relation::text LIKE 'shop.%' ORDER BY relation::text;

-- The replica identity is as before when tracking ends.
SELECT bemi.untrack('account');
SELECT relreplident FROM pg_class WHERE oid = 'account'::regclass;
SELECT bemi.untrack_all();
SELECT count(*) FROM bemi.tracked;
DROP SCHEMA shop CASCADE;
DROP TABLE account, event;
