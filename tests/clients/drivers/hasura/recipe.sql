-- Mutations as Hasura sends them: one transaction each, which begins with the session's variables.
\set ON_ERROR_STOP on
\i hasura_context.sql
SELECT bool_and('a_hasura_context' < tgname) AS "comes first" FROM pg_trigger
WHERE tgrelid = 'todo'::regclass AND tgname <> 'a_hasura_context';

BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE;
SET LOCAL "hasura.user" = '{"x-hasura-role":"user","x-hasura-user-id":"1"}';
WITH "todo__mutation_result_alias" AS (INSERT INTO todo (task) VALUES ('Sleep'), ('Eat') RETURNING *)
SELECT count(*) FROM "todo__mutation_result_alias";
UPDATE todo SET is_completed = true WHERE task = 'Sleep';
COMMIT;

-- Somebody else, on the same connection.
BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE;
SET LOCAL "hasura.user" = '{"x-hasura-role":"manager","x-hasura-user-id":"2"}';
DELETE FROM todo WHERE task = 'Eat';
INSERT INTO todo (id, task) VALUES (1, 'Upserted') ON CONFLICT (id) DO UPDATE SET task = excluded.task;
COMMIT;

BEGIN;
SET LOCAL "hasura.user" = '{"x-hasura-role":"user","x-hasura-user-id":"3"}';
INSERT INTO todo (task) VALUES ('Lost');
ROLLBACK;

-- Without Hasura: the setting is an empty text now, and what others say stands.
INSERT INTO todo (task) VALUES ('Nobody');
BEGIN;
SELECT bemi.set_context('{"job":"nightly"}', true);
INSERT INTO todo (task) VALUES ('Nightly');
COMMIT;
BEGIN;
SET LOCAL "hasura.user" = '{"x-hasura-role":"user","x-hasura-user-id":"4"}';
TRUNCATE todo;
COMMIT;
