-- What the output plugin makes of changes. Positions, times and transaction ids, which differ in each run, are left out.
\set SHOW_CONTEXT never
CREATE TABLE todo (id int PRIMARY KEY, task text, is_completed boolean DEFAULT false, secret text);
SELECT bemi.track('todo', mask_columns => '{secret}');
SELECT 'made' AS slot FROM pg_create_logical_replication_slot('bemi_installcheck', 'bemi_decoder');
INSERT INTO todo VALUES (1, 'Eat');
SELECT bemi.set_context('{"user_id":187234}');
BEGIN;
INSERT INTO todo VALUES (26, 'Sleep', DEFAULT, 'x');
UPDATE todo SET is_completed = true WHERE id = 26;
SELECT bemi.merge_context('{"endpoint":"/todo/clean"}');
DELETE FROM todo WHERE id = 1;
COMMIT;
BEGIN;
INSERT INTO todo VALUES (2, 'never');
ROLLBACK;
TRUNCATE todo;
CREATE FUNCTION pg_temp.documents(VARIADIC options text[] DEFAULT '{}') RETURNS SETOF jsonb LANGUAGE sql AS $$
  SELECT data::jsonb - '{position,commit_position,transaction_id,committed_at,database}'::text[]
  FROM pg_logical_slot_peek_changes('bemi_installcheck', NULL, NULL, VARIADIC options)
$$;
SELECT d AS document FROM pg_temp.documents() AS d;

-- Options.
SELECT d AS document FROM pg_temp.documents('actions', 'delete,truncate') AS d;
SELECT d AS document FROM pg_temp.documents('filter-tables', 'public.*') AS d;
SELECT d AS document FROM pg_temp.documents('numeric-data-types-as-string', 'true', 'actions', 'delete') AS d;
SELECT d ->> 'operation' AS operation FROM pg_temp.documents('include-transaction', 'true') AS d;
SELECT d AS document FROM pg_temp.documents('no-such-option', '1') AS d;
SELECT d AS document FROM pg_temp.documents('actions', 'drop') AS d;

SELECT pg_drop_replication_slot('bemi_installcheck');
SELECT bemi.clear_context();
SELECT bemi.untrack('todo');
DROP TABLE todo;
